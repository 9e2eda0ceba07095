"""Averages and intervals. The other measures give one number per image; only here are they averaged.

Everything is a function of column means: a table has one row per image and one column per quantity (a model's
accuracy, another's alignment, …), all measured on the same images. Resampling whole rows keeps the pairing,
so the interval of a difference or of a correlation between models is right without further thought. An
interval is made for what it is of:

* over images, BCa (Efron 1987) at levels widened to Student's t (Hesterberg 2015), which follows the
  skewness of a ratio; of a share, the modified Wilson interval (Brown, Cai and DasGupta 2001), which is not
  empty where all images agree;
* over several seeds of the same images, that one widened by Student's t of the seeds: the two half-widths
  are the sides of a right angle (Zou and Donner 2008). What is hard about an image is hard for every seed, so
  images are resampled for all seeds together.

`benchmarks/coverage.py` measures how often they hold the truth.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from pags.errors import UsageError
from pags.measure.intervals import Interval as Interval
from pags.measure.intervals import bca_interval, over_seeds, wilson_interval

Statistic = Callable[[Float[Tensor, "b m"]], Float[Tensor, "b"]]
"""A number from the means of m columns, for b resamplings at once."""


def resampled_means(
    table: Float[Tensor, "n m"], *, draws: torch.Generator, resamples: int = 2000
) -> Float[Tensor, "b m"]:
    """Column means under resampling of the rows with replacement; NaN cells are left out of their column.

    Args:
        table: one row per image, one column per quantity.
        draws: where the resampling comes from.
        resamples: b, how often.
    """
    return weighted_means(table, _counts(len(table), resamples, draws))


def _counts(n: int, resamples: int, draws: torch.Generator) -> Float[Tensor, "b n"]:
    """How often each of n rows is in each resampling."""
    if n < 2:
        raise UsageError("at least two images to resample", got=n, suggestion="measuring more images")
    rows = torch.randint(0, n, (resamples, n), generator=draws)
    counts = torch.zeros(resamples, n, dtype=torch.float64)
    return counts.scatter_add_(1, rows, torch.ones_like(rows, dtype=torch.float64))


def plain_means(tables: Sequence[Float[Tensor, "_ m"]]) -> Float[Tensor, "m"]:
    """Column means of each table, averaged over the tables."""
    ones = [torch.ones(1, len(table), dtype=torch.float64) for table in tables]
    return torch.cat([weighted_means(t, w) for t, w in zip(tables, ones, strict=True)]).mean(0)


def weighted_means(table: Float[Tensor, "n m"], weights: Float[Tensor, "b n"]) -> Float[Tensor, "b m"]:
    """Column means under each row of weights, leaving out NaN cells; NaN where a column has no cell left.

    On the device of the weights: resamplings are drawn on the CPU, columns may come from elsewhere.
    """
    table = table.to(weights)
    there = ~table.isnan()
    return (weights @ table.nan_to_num()) / (weights @ there.double())


def missing(columns: Mapping[str, Float[Tensor, "_"]]) -> dict[str, int]:
    """How many images each column leaves out (NaN), for those that leave any out."""
    counts = {name: int(values.isnan().sum()) for name, values in columns.items()}
    return {name: count for name, count in counts.items() if count}


Means = Sequence[Float[Tensor, "b m"]]
"""Column means of each seed's table, for b resamplings at once."""


def interval(
    statistic: Statistic,
    table: Float[Tensor, "n m"] | Sequence[Float[Tensor, "_ m"]],
    *,
    draws: torch.Generator,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """A statistic of the column means, with its interval over images, or over seeds and images.

    Args:
        statistic: from means (b, m) to values (b,).
        table: one row per image, one column per quantity; or one such table per seed, of the same images, for
            an interval over seeds and images.
        level: coverage aimed at.

    Raises:
        UsageError: fewer than two images, or tables of different images.
    """
    tables = [table] if isinstance(table, Tensor) else list(table)
    own = [plain_means([each])[None] for each in tables]

    def combined(means: Means) -> Tensor:
        return statistic(torch.stack(list(means)).mean(0))

    pseudo = torch.zeros(0)
    if len(tables) > 1:
        whole = combined(own)
        without = [combined([*own[:place], *own[place + 1 :]]) for place in range(len(own))]
        pseudo = len(own) * whole - (len(own) - 1) * torch.cat(without)
    return crossed_interval(combined, pseudo, tables, draws=draws, resamples=resamples, level=level)


def mean_intervals(
    columns: Mapping[str, Float[Tensor, "n"]] | Sequence[Mapping[str, Float[Tensor, "_"]]],
    *,
    draws: torch.Generator,
    resamples: int = 2000,
    level: float = 0.95,
) -> dict[str, Interval]:
    """The mean of each column with its interval, from one resampling of the rows.

    Several sets of columns, one per seed, give intervals over seeds and images. A column of zeros and ones is
    taken for a share.
    """
    seeds = [columns] if isinstance(columns, Mapping) else columns
    shares = [name for name in seeds[0] if _is_share(torch.cat([each[name] for each in seeds]))]
    return _of_means(seeds, shares, draws=draws, resamples=resamples, level=level)


def _of_means(
    seeds: Sequence[Mapping[str, Float[Tensor, "_"]]],
    shares: Sequence[str],
    *,
    draws: torch.Generator,
    resamples: int,
    level: float,
) -> dict[str, Interval]:
    tables = [torch.stack(list(each.values()), 1).double() for each in seeds]
    means = torch.stack([plain_means([table]) for table in tables])  # (seeds, m)
    counts = _counts(row_count(tables), resamples, draws)
    values = torch.stack([weighted_means(table, counts) for table in tables]).mean(0)
    without = torch.stack([_means_without(table) for table in tables]).mean(0)
    found = {}
    for place, name in enumerate(seeds[0]):
        estimate, there = float(means[:, place].mean()), int((~tables[0][:, place].isnan()).sum())
        over_images = (
            wilson_interval(estimate, there, level)
            if name in shares
            else bca_interval(estimate, values[:, place], without[:, place], level)
        )
        found[name] = over_seeds(over_images, means[:, place])
    return found


def crossed_interval(
    combined: Callable[[Means], Tensor],
    by_seed: Float[Tensor, "_"],
    tables: Sequence[Float[Tensor, "_ m"]],
    *,
    draws: torch.Generator,
    resamples: int,
    level: float,
) -> Interval:
    """The interval of a function of the means of all tables, over images and then over seeds.

    `by_seed` has one value per seed whose mean has the spread of the estimate over seeds.
    """
    counts = _counts(row_count(tables), resamples, draws)
    estimate = float(combined([plain_means([table])[None] for table in tables])[0])
    values = combined([weighted_means(table, counts) for table in tables])
    without = combined([_means_without(table) for table in tables])
    return over_seeds(bca_interval(estimate, values, without, level), by_seed)


def _means_without(table: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
    """Column means without each row in turn."""
    table = table.double()
    there = ~table.isnan()
    return (table.nansum(0) - table.nan_to_num()) / (there.sum(0) - there.double())


def row_count(tables: Sequence[Float[Tensor, "_ m"]]) -> int:
    """The number of images, which must be that of all tables."""
    sizes = {len(table) for table in tables}
    if len(sizes) > 1:
        raise UsageError(
            "tables of the same images for all seeds", got=f"{sorted(sizes)} rows", suggestion="equal rows"
        )
    return sizes.pop()


def _is_share(cells: Float[Tensor, "_"]) -> bool:
    there = ~cells.isnan()
    return bool(((cells == 0) | (cells == 1) | ~there).all()) and bool(there.any())


def spearman(a: Float[Tensor, "b m"], b: Float[Tensor, "b m"]) -> Float[Tensor, "b"]:
    """Spearman's rank correlation along the last axis; ties share a rank; 0 where one side is constant."""
    x, y = ranks(a), ranks(b)
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    scale = (x.square().sum(1) * y.square().sum(1)).sqrt()
    return torch.where(scale > 0, (x * y).sum(1) / scale.clamp_min(1e-300), 0.0)


def ranks(values: Float[Tensor, "b m"]) -> Float[Tensor, "b m"]:
    """Ranks from 0 along the last axis; equal values share the mean of theirs."""
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

    The difference of two shares is that of the images that only the one and only the other has, with Wilson's
    intervals for both.

    Args:
        first, second: measures of two models on the same n images, in the same order; an image on which
            either is NaN is left out of that column.

    Raises:
        UsageError: fewer than two images.
    """
    apart = {name: values.cpu() - second[name].cpu() for name, values in first.items() if name in second}
    found = _of_means([apart], [], draws=draws, resamples=resamples, level=level)
    shares = [name for name in apart if _is_share(torch.cat([first[name].cpu(), second[name].cpu()]))]
    return found | {name: _difference_of_shares(apart[name], level) for name in shares}


def _difference_of_shares(apart: Float[Tensor, "n"], level: float) -> Interval:
    cells = apart[~apart.isnan()]
    more, less = (
        wilson_interval(float((cells == sign).double().mean()), len(cells), level) for sign in (1, -1)
    )
    estimate = more.estimate - less.estimate
    low = estimate - math.hypot(more.estimate - more.low, less.high - less.estimate)
    high = estimate + math.hypot(more.high - more.estimate, less.estimate - less.low)
    return Interval(estimate, low, high, level)
