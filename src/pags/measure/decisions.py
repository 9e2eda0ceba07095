"""What keeps a claim from being decided by accident: families of claims, choices, and trends."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pags.measure.intervals import Interval
from pags.measure.statistics import Means, crossed_interval, plain_means, ranks, row_count


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number, below a level where Holm's steps reject at it (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def holm_intervals(makers: Sequence[Callable[[float], Interval]], level: float = 0.95) -> list[Interval]:
    """Intervals of a family that together exclude a true 0 with a probability of at most 1 − level.

    Holm's steps: of m intervals all are first made at 1 − (1 − level)/m; those that do not hold 0 are
    decided, and the rest is made again for its own number, until nothing more is decided.

    Args:
        makers: each gives one interval at a level, from equal draws for equal levels.

    Returns:
        One interval for each, of the level at which it was decided or left undecided.
    """
    found: dict[int, Interval] = {}
    open_ = list(range(len(makers)))
    while open_:
        share = 1 - (1 - level) / len(open_)
        found |= {place: makers[place](share) for place in open_}
        left = [place for place in open_ if found[place].low <= 0 <= found[place].high]
        if len(left) == len(open_):
            break
        open_ = left
    return [found[place] for place in range(len(makers))]


def chosen_and_judged(
    choose: Callable[[Float[Tensor, "b m"]], Int[Tensor, "b"]],
    judge: Callable[[Float[Tensor, "b m"], Int[Tensor, "b"]], Float[Tensor, "b"]],
    table: Float[Tensor, "n m"] | Sequence[Float[Tensor, "_ m"]],
    *,
    draws: torch.Generator,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """A statistic at a place that is chosen on one half of the images and judged on the other.

    A maximum is too large on the data that it is the maximum of. With several seeds, the place for each of
    them is moreover chosen on the others, and the estimate is the mean over seeds.

    Args:
        choose: from means (b, m) to places (b,), such as the strength of the highest similarity.
        judge: from means (b, m) and places (b,) to values (b,).
        table: as in `interval`.
        draws: name the halves, then the resampling.

    Raises:
        UsageError: fewer than four images, or tables of different images.
    """
    tables = [table] if isinstance(table, Tensor) else list(table)
    order = torch.randperm(row_count(tables), generator=draws)
    half = len(order) // 2
    first, second = ([each[part] for each in tables] for part in (order[:half], order[half:]))
    places = [
        choose(plain_means([*first[:place], *first[place + 1 :]] if len(first) > 1 else first)[None])
        for place in range(len(tables))
    ]

    def judged(means: Means) -> Tensor:  # (b, seeds)
        pairs = zip(means, places, strict=True)
        return torch.stack([judge(each, place.expand(len(each))) for each, place in pairs], 1)

    own = judged([plain_means([each])[None] for each in second])[0]
    return crossed_interval(
        lambda means: judged(means).mean(1), own, second, draws=draws, resamples=resamples, level=level
    )


def rank_trend(
    values: Float[Tensor, "seeds s"],
    against: Float[Tensor, "seeds s"] | None = None,
    *,
    draws: torch.Generator,
    permutations: int = 9999,
    level: float = 0.95,
) -> Interval:
    """Whether a quantity rises along s strengths: its rank correlation with their order, averaged over seeds.

    The spread is that of permuted strengths, so that the noise of training counts even with one training per
    strength. The interval is the estimate plus and minus the largest correlation that more than 1 − level of
    the permutations reach, and excludes 0 exactly where no more than that reach the one found. With a single
    seed that takes five strengths at 95 %.

    Args:
        values: one mean per seed and strength, strengths rising.
        against: another quantity of the same networks, to take the place of the order.
        draws: where the permutations come from.

    Source: Page 1963, with Spearman's correlation for his sum.
    """
    order = torch.arange(values.shape[1]).expand(values.shape).double() if against is None else against
    x, y = (_standardised_ranks(side.double()) for side in (values, order))
    estimate = float((x * y).sum(1).mean())
    places = torch.rand(permutations, *values.shape, generator=draws).argsort(2)
    null = (x * y.expand(permutations, -1, -1).gather(2, places)).sum(2).mean(1)
    # Rounded, so that equal correlations are equal.
    sizes = torch.cat([null, torch.tensor([estimate])]).abs().round(decimals=9).sort(descending=True).values
    reach = float(sizes[min(len(sizes) - 1, math.floor((1 - level) * len(sizes) + 1e-9))])
    middle = round(estimate, 9)
    return Interval(estimate, middle - reach, middle + reach, level)


def _standardised_ranks(values: Float[Tensor, "seeds s"]) -> Float[Tensor, "seeds s"]:
    """Ranks of mean 0 and length 1, whose inner products are Spearman's correlations; 0 for equal values."""
    found = ranks(values) - (values.shape[1] - 1) / 2
    lengths = found.norm(dim=1, keepdim=True)
    return found / torch.where(lengths > 0, lengths, 1.0)
