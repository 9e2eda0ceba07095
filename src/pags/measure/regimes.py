"""The three regimes of robustness (section 5), by a written rule.

With *accuracy lost* the points of accuracy below the most accurate model of the sweep, and *off/on* the ratio
of the output changes off and on the manifold at equal norm:

* **excessive**: more than `TOLERANCE` of accuracy is lost;
* **Bayes-aligned**: at most that is lost, and off/on is below 1;
* **weak**: at most that is lost, and off/on is 1 or more.

A model whose interval contains the border that decides is said to lie between the two regimes.
"""

from pags.measure.statistics import Interval

TOLERANCE = 0.05
"""The share of accuracy that a Bayes-aligned model may have lost."""
TOLERANCES = (0.02, 0.05, 0.1, 0.2)
"""Others beside it, for how much of a regime the choice decides."""

WEAK, ALIGNED, EXCESSIVE = "weak", "Bayes-aligned", "excessive"


def regime(off_over_on: Interval, accuracy_lost: Interval, *, tolerance: float = TOLERANCE) -> str:
    """The regime of one model, or "a / b" where an interval contains the border between a and b.

    Args:
        off_over_on: the ratio of the mean output changes off and on the manifold.
        accuracy_lost: in [-1, 1].
        tolerance: the loss of accuracy from which robustness is excessive.
    """
    if accuracy_lost.low > tolerance:
        return EXCESSIVE
    inside = _side(off_over_on)
    return inside if accuracy_lost.high <= tolerance else f"{inside} / {EXCESSIVE}"


def _side(off_over_on: Interval) -> str:
    if off_over_on.high < 1:
        return ALIGNED
    return WEAK if off_over_on.low >= 1 else f"{WEAK} / {ALIGNED}"
