"""Averages and intervals. The other measures give one number an image; only here are they averaged.

Everything is a function of column means: a table has one row an image and one column a quantity (a model's
accuracy, another's alignment, …), all measured on the same images. Resampling whole rows keeps the pairing,
so the interval of a difference or of a correlation between models is right without further thought.
"""

import math
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

    def to_record(self) -> dict[str, float | None]:
        """As plain data; None for what is not defined, such as a ratio to nothing."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}


def resampled_means(
    table: Float[Tensor, "n m"], *, draws: torch.Generator, resamples: int = 2000
) -> Float[Tensor, "b m"]:
    """Column means under resampling of the rows with replacement; NaN cells are left out of their column.

    Args:
        table: one row an image, one column a quantity.
        draws: where the resampling comes from.
        resamples: b, how often.
    """
    return weighted_means(table, _counts(len(table), resamples, draws))


def crossed_means(
    tables: Sequence[Float[Tensor, "n m"]], *, draws: torch.Generator, resamples: int = 2000
) -> Float[Tensor, "b m"]:
    """Column means when seeds and images are resampled, the same images for all seeds.

    What is hard about an image is hard for every seed, so images cannot be drawn anew within each seed: the
    interval would be too narrow by up to the root of the number of seeds. Of S seeds S − 1 are drawn, which
    makes the spread that of the unbiased variance. With three seeds an interval still covers less often than
    it says, as any would that is taken from three numbers.

    Args:
        tables: one table a seed, of equal columns; row i is the same image in all.

    Raises:
        UsageError: fewer than two images, or tables of different images.

    Source: A. B. Owen, The pigeonhole bootstrap, 2007; P. J. McCarthy and C. B. Snowden, The bootstrap and
    finite population sampling, 1985.
    """
    sizes = {len(table) for table in tables}
    if len(sizes) > 1:
        raise UsageError(
            "tables of the same images for all seeds", got=f"{sorted(sizes)} rows", suggestion="equal rows"
        )
    counts = _counts(len(tables[0]), resamples, draws)
    means = torch.stack([weighted_means(table, counts) for table in tables])
    seeds = torch.randint(0, len(tables), (resamples, max(1, len(tables) - 1)), generator=draws)
    chosen = means[seeds, torch.arange(resamples)[:, None]]  # (b, seeds − 1, m)
    return chosen.mean(1)


def _counts(n: int, resamples: int, draws: torch.Generator) -> Float[Tensor, "b n"]:
    """How often each of n rows is in each resampling."""
    if n < 2:
        raise UsageError("at least two images to resample", got=n, suggestion="measuring more images")
    rows = torch.randint(0, n, (resamples, n), generator=draws)
    counts = torch.zeros(resamples, n, dtype=torch.float64)
    return counts.scatter_add_(1, rows, torch.ones_like(rows, dtype=torch.float64))


def means_under_resampling(
    tables: Sequence[Float[Tensor, "_ m"]], *, draws: torch.Generator, resamples: int = 2000
) -> Float[Tensor, "b m"]:
    """Resampled column means: over the images of one table; over seeds and images of several."""
    if len(tables) == 1:
        return resampled_means(tables[0], draws=draws, resamples=resamples)
    return crossed_means(tables, draws=draws, resamples=resamples)


def plain_means(tables: Sequence[Float[Tensor, "_ m"]]) -> Float[Tensor, "m"]:
    """Column means of each table, averaged over the tables."""
    ones = [torch.ones(1, len(table), dtype=torch.float64) for table in tables]
    return torch.cat([weighted_means(t, w) for t, w in zip(tables, ones, strict=True)]).mean(0)


def weighted_means(table: Float[Tensor, "n m"], weights: Float[Tensor, "b n"]) -> Float[Tensor, "b m"]:
    """Column means under each row of weights, leaving out NaN cells; NaN where a column has no cell left."""
    table = table.double()
    there = ~table.isnan()
    return (weights @ table.nan_to_num()) / (weights @ there.double())


def missing(columns: Mapping[str, Float[Tensor, "_"]]) -> dict[str, int]:
    """How many images each column leaves out (NaN), for those that leave any out."""
    counts = {name: int(values.isnan().sum()) for name, values in columns.items()}
    return {name: count for name, count in counts.items() if count}


def interval(
    statistic: Statistic,
    table: Float[Tensor, "n m"] | Sequence[Float[Tensor, "_ m"]],
    *,
    draws: torch.Generator,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """A statistic of the column means, with its percentile bootstrap interval over the rows.

    Args:
        statistic: from means (b, m) to values (b,).
        table: one row an image, one column a quantity; or one such table a seed, of the same images, for an
            interval over seeds and images.
        level: coverage aimed at.
    """
    tables = [table] if isinstance(table, Tensor) else table
    estimate = float(statistic(plain_means(tables)[None])[0])
    values = statistic(means_under_resampling(tables, draws=draws, resamples=resamples))
    return percentile_interval(estimate, values, level)


def percentile_interval(estimate: float, values: Float[Tensor, "b"], level: float = 0.95) -> Interval:
    """The central `level` share of the resampled values around an estimate.

    A resampling in which the statistic is not defined (0/0) could be anywhere, so it counts at both ends: a
    few widen the interval, and where they are more than a tail that end is infinite.
    """
    tail, values = (1 - level) / 2, values.double()
    low = _quantile(values.nan_to_num(-math.inf, math.inf, -math.inf), tail, "lower")
    high = _quantile(values.nan_to_num(math.inf, math.inf, -math.inf), 1 - tail, "higher")
    return Interval(estimate, low, high, level)


def _quantile(values: Float[Tensor, "b"], share: float, side: str) -> float:
    """A quantile; between an infinite value and another, that at the given side."""
    between = float(torch.quantile(values, share))
    if math.isnan(between):
        return float(torch.quantile(values, share, interpolation=side))
    return between


def mean_intervals(
    columns: Mapping[str, Float[Tensor, "n"]] | Sequence[Mapping[str, Float[Tensor, "_"]]],
    *,
    draws: torch.Generator,
    resamples: int = 2000,
    level: float = 0.95,
) -> dict[str, Interval]:
    """The mean of each column with its interval, from one resampling of the rows.

    Several sets of columns, one a seed, give intervals over seeds and images.
    """
    seeds = [columns] if isinstance(columns, Mapping) else columns
    tables = [torch.stack(list(each.values()), 1) for each in seeds]
    means = plain_means(tables)
    values = means_under_resampling(tables, draws=draws, resamples=resamples)
    return {
        name: percentile_interval(float(means[place]), values[:, place], level)
        for place, name in enumerate(seeds[0])
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


def paired_differences(
    first: Mapping[str, Float[Tensor, "n"]],
    second: Mapping[str, Float[Tensor, "n"]],
    *,
    draws: torch.Generator,
    resamples: int = 2000,
    level: float = 0.95,
) -> dict[str, Interval]:
    """The mean of first − second for each column that both have, image by image, with its interval.

    Args:
        first, second: measures of two models on the same n images, in the same order; an image on which
            either is NaN is left out of that column.

    Raises:
        UsageError: fewer than two images.
    """
    apart = {name: values - second[name] for name, values in first.items() if name in second}
    return mean_intervals(apart, draws=draws, resamples=resamples, level=level)
