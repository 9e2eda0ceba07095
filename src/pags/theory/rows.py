"""What a check of the theory returns: rows with verdicts, and the curves behind them, as plain data."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pags.arrays import PerImage
from pags.claims import UNDECIDED, verdict
from pags.measure.statistics import Interval, interval
from pags.store import Record


def row(
    key: str,
    place: str,
    statement: str,
    rule: str,
    found: Interval,
    *,
    above: float = -math.inf,
    below: float = math.inf,
    expected: float | None = None,
) -> Record:
    """One row of the table.

    Args:
        key: a short name.
        place: where the paper says it.
        statement: what is claimed.
        rule: the statistic and the values for which the claim holds, in words.
        found: the statistic with its interval.
        above, below: the open range of values for which the claim holds.
        expected: the exact or predicted value, where there is one.

    Returns:
        The row with its verdict: *supported* where the whole interval lies inside the range, *contradicted*
        where it lies outside, *undecided* otherwise.
    """
    return {
        "claim": key, "place": place, "statement": statement, "rule": rule, "expected": expected,
        **found.to_record(), "verdict": verdict(found.low, found.high, above=above, below=below),
    }  # fmt: skip


def part(rows: Sequence[Record], **curves: Any) -> Record:
    """The rows of one theorem or argument, and the numbers its figure is drawn from."""
    return {"rows": list(rows), "curves": curves}


def withheld(checked: Record, why: str) -> Record:
    """A part whose trainings are too short for verdicts: estimates and curves, and the reason in each row."""
    rows = [each | {"verdict": UNDECIDED, "note": f"withheld: {why}"} for each in checked["rows"]]
    return checked | {"rows": rows}


def exactly(value: float) -> Interval:
    """A value without sampling error: a maximum over everything that was looked at, or a closed form."""
    return Interval(value, value, value, 1.0)


def over_images(values: PerImage, draws: torch.Generator) -> Interval:
    """The mean of one number per image, with its bootstrap interval."""
    return interval(lambda means: means[:, 0], values[:, None], draws=draws)


def over_seeds(values: Sequence[float]) -> Interval:
    """The median of equal runs under different seeds, and the range of all of them.

    The range of n runs covers the median of their distribution with probability 1 − 2^(1−n), whatever the
    distribution; that is the level stated.
    """
    ordered = sorted(values)
    median = float(torch.tensor(ordered, dtype=torch.float64).quantile(0.5))
    return Interval(median, ordered[0], ordered[-1], 1 - 2.0 ** (1 - len(ordered)))


def slope(x: Tensor, y: Tensor) -> Tensor:
    """The least-squares slope of log y over log x along the last axis; 0 counts as 1e-300."""
    u, v = x.double().log(), y.double().clamp_min(1e-300).log()
    u = u - u.mean()
    return (v * u).sum(-1) / u.square().sum()
