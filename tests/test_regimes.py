"""The three regimes, by the rule as it is written: every branch and every border."""

import pytest

from pags.measure.regimes import TOLERANCE, regime
from pags.measure.statistics import Interval

BELOW, ABOVE, ACROSS = (0.5, 0.9), (1.1, 2.0), (0.9, 1.1)  # off/on against 1
FEW, MANY, SOME = (-0.01, 0.02), (0.1, 0.3), (0.04, 0.06)  # accuracy lost against 0.05


def within(bounds: tuple[float, float]) -> Interval:
    return Interval(sum(bounds) / 2, *bounds)


@pytest.mark.parametrize(
    ("off_over_on", "lost", "expected"),
    [
        (BELOW, FEW, "Bayes-aligned"),
        (ABOVE, FEW, "weak"),
        (ACROSS, FEW, "weak / Bayes-aligned"),
        (BELOW, MANY, "excessive"),
        (ABOVE, MANY, "excessive"),
        (ACROSS, MANY, "excessive"),
        (BELOW, SOME, "Bayes-aligned / excessive"),
        (ABOVE, SOME, "weak / excessive"),
        (ACROSS, SOME, "weak / Bayes-aligned / excessive"),
        # The borders: at most the tolerance is lost, below 1 is aligned, 1 or more is weak.
        (BELOW, (0.0, 0.05), "Bayes-aligned"),
        (BELOW, (0.05, 0.05), "Bayes-aligned"),
        (BELOW, (0.05, 0.3), "Bayes-aligned / excessive"),
        (BELOW, (0.0, 0.0501), "Bayes-aligned / excessive"),
        (BELOW, (0.0501, 0.3), "excessive"),
        ((1.0, 1.0), FEW, "weak"),
        ((1.0, 2.0), FEW, "weak"),
        ((0.5, 1.0), FEW, "weak / Bayes-aligned"),
        ((0.5, 0.9999), FEW, "Bayes-aligned"),
        ((0.9999, 2.0), FEW, "weak / Bayes-aligned"),
    ],
)
def test_the_rule_as_it_is_written(
    off_over_on: tuple[float, float], lost: tuple[float, float], expected: str
) -> None:
    assert TOLERANCE == 0.05
    assert regime(within(off_over_on), within(lost)) == expected


def test_only_the_intervals_decide() -> None:
    """Not the estimates, which are repeated in the record beside them."""
    assert regime(Interval(0.99, 0.9, 1.1), Interval(0, 0, 0)) == "weak / Bayes-aligned"
    assert regime(Interval(1.01, 0.9, 1.1), Interval(0, 0, 0)) == "weak / Bayes-aligned"


def test_the_tolerance_can_be_another() -> None:
    lost = within((0.06, 0.08))
    assert regime(within(BELOW), lost) == "excessive"
    assert regime(within(BELOW), lost, tolerance=0.1) == "Bayes-aligned"
    assert regime(within(BELOW), lost, tolerance=0.07) == "Bayes-aligned / excessive"
