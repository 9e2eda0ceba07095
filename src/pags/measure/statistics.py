"""Averages and intervals. The other measures give one number an image; only here are they averaged.

Everything is a function of column means: a table has one row an image and one column a quantity (a model's
accuracy, another's alignment, …), all measured on the same images. Resampling whole rows keeps the pairing,
so the interval of a difference or of a correlation between models is right without further thought.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pags.errors import UsageError

Statistic = Callable[[Float[Tensor, "b m"]], Float[Tensor, "b"]]
"""A number from the means of m columns, for b resamplings at once."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval."""

    estimate: float
    low: float
    high: float
    level: float = 0.95

    def to_record(self) -> dict[str, float]:
        """As plain data."""
        return asdict(self)


def resampled_means(
    table: Float[Tensor, "n m"], *, draws: torch.Generator, resamples: int = 2000
) -> Float[Tensor, "b m"]:
    """Column means under resampling of the rows with replacement; NaN cells are left out of their column.

    Args:
        table: one row an image, one column a quantity.
        draws: where the resampling comes from.
        resamples: b, how often.
    """
    n = len(table)
    if n < 2:
        raise UsageError("at least two images to resample", got=n, suggestion="measuring more images")
    rows = torch.randint(0, n, (resamples, n), generator=draws)
    counts = torch.zeros(resamples, n, dtype=torch.float64)
    counts.scatter_add_(1, rows, torch.ones_like(rows, dtype=torch.float64))
    return weighted_means(table, counts)


def hierarchical_means(
    tables: Sequence[Float[Tensor, "n m"]], *, draws: torch.Generator, resamples: int = 2000
) -> Float[Tensor, "b m"]:
    """Column means when first the seeds are resampled and then, within each, the images.

    Args:
        tables: one table a seed, of equal columns.
    """
    means = torch.stack([resampled_means(t, draws=draws, resamples=resamples) for t in tables])
    seeds = torch.randint(0, len(tables), (resamples, len(tables)), generator=draws)
    chosen = means[seeds, torch.arange(resamples)[:, None]]  # (b, seeds, m)
    return chosen.mean(1)


def weighted_means(table: Float[Tensor, "n m"], weights: Float[Tensor, "b n"]) -> Float[Tensor, "b m"]:
    """Column means under each row of weights, leaving out NaN cells; NaN where a column has no cell left."""
    table = table.double()
    there = ~table.isnan()
    return (weights @ table.nan_to_num()) / (weights @ there.double())


def interval(
    statistic: Statistic,
    table: Float[Tensor, "n m"],
    *,
    draws: torch.Generator,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """A statistic of the column means, with its percentile bootstrap interval over the rows.

    Args:
        statistic: from means (b, m) to values (b,).
        table: one row an image, one column a quantity.
        level: coverage aimed at.
    """
    estimate = float(statistic(weighted_means(table, torch.ones(1, len(table), dtype=torch.float64)))[0])
    values = statistic(resampled_means(table, draws=draws, resamples=resamples))
    return percentile_interval(estimate, values, level)


def percentile_interval(estimate: float, values: Float[Tensor, "b"], level: float = 0.95) -> Interval:
    """The central `level` share of the resampled values around an estimate."""
    tail = (1 - level) / 2
    low, high = torch.quantile(values.double(), torch.tensor([tail, 1 - tail], dtype=torch.float64))
    return Interval(estimate, float(low), float(high), level)


def mean_intervals(
    columns: Mapping[str, Float[Tensor, "n"]],
    *,
    draws: torch.Generator,
    resamples: int = 2000,
    level: float = 0.95,
) -> dict[str, Interval]:
    """The mean of each column with its interval, from one resampling of the rows."""
    table = torch.stack(list(columns.values()), 1)
    means = weighted_means(table, torch.ones(1, len(table), dtype=torch.float64))[0]
    values = resampled_means(table, draws=draws, resamples=resamples)
    return {
        name: percentile_interval(float(means[place]), values[:, place], level)
        for place, name in enumerate(columns)
    }


def spearman(a: Float[Tensor, "b m"], b: Float[Tensor, "b m"]) -> Float[Tensor, "b"]:
    """Spearman's rank correlation along the last axis; ties share a rank; 0 where one side is constant."""
    x, y = _ranks(a), _ranks(b)
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    scale = (x.square().sum(1) * y.square().sum(1)).sqrt()
    return torch.where(scale > 0, (x * y).sum(1) / scale.clamp_min(1e-300), 0.0)


def _ranks(values: Float[Tensor, "b m"]) -> Float[Tensor, "b m"]:
    below = (values[:, None] < values[:, :, None]).double().sum(2)
    equal = (values[:, None] == values[:, :, None]).double().sum(2)
    return below + (equal - 1) / 2
