"""Confidence intervals from what they are made of: shares, resampled values, values of several seeds."""

import math
from dataclasses import asdict, dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor


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


def wilson_interval(share: float, n: int, level: float = 0.95) -> Interval:
    """A share of n images with the modified Wilson interval.

    Wilson's limits are the shares from which the one found is as far as the level allows; where one, two or
    three images decide, the Poisson limit takes their place, as Wilson's covers too little there.

    Source: Wilson 1927; Brown, Cai and DasGupta 2001, section 4.1.1.
    """
    from scipy.stats import chi2  # type: ignore[import-untyped]

    z = -_normal_quantile((1 - level) / 2)
    middle, scale = share + z * z / (2 * n), 1 + z * z / n
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = (middle - half) / scale, (middle + half) / scale
    few = 3 if n > 50 else 2
    yes, no = share * n, (1 - share) * n
    if 0 < yes <= few:
        low = min(low, float(chi2.ppf(1 - level, 2 * yes)) / (2 * n))
    if 0 < no <= few:
        high = max(high, 1 - float(chi2.ppf(1 - level, 2 * no)) / (2 * n))
    return Interval(share, max(0.0, min(low, share)), min(1.0, max(high, share)), level)


def bca_interval(
    estimate: float, values: Float[Tensor, "b"], without: Float[Tensor, "n"], level: float = 0.95
) -> Interval:
    """The bias-corrected and accelerated bootstrap interval around an estimate.

    Args:
        estimate: of n images.
        values: the same under b resamplings.
        without: the same without each image in turn, from which the acceleration comes.
        level: coverage aimed at.

    Source: Efron 1987; Hesterberg 2015, section 4.2, for Student's t in place of the normal distribution.
    """
    from scipy.stats import t as student

    values = values.double()
    finite = values[values.isfinite()]
    if not (math.isfinite(estimate) and len(finite)):
        return percentile_interval(estimate, values, level)
    below = float((finite < estimate).double().mean() + (finite == estimate).double().mean() / 2)
    bias = _normal_quantile(min(max(below, 1 / (len(values) + 1)), 1 - 1 / (len(values) + 1)))
    n = int(without.isfinite().sum())
    apart = without[without.isfinite()].mean() - without[without.isfinite()]
    energy = float(apart.square().sum()) ** 1.5
    acceleration = float(apart.pow(3).sum()) / (6 * energy) if energy > 0 else 0.0
    reach = math.sqrt(n / (n - 1)) * float(student.ppf((1 + level) / 2, n - 1)) if n > 1 else math.inf
    first, last = (
        _normal_share(bias + (bias + z) / max(1e-9, 1 - acceleration * (bias + z))) for z in (-reach, reach)
    )
    return _central(estimate, values, first, last, level)


def percentile_interval(estimate: float, values: Float[Tensor, "b"], level: float = 0.95) -> Interval:
    """The central `level` share of the resampled values around an estimate.

    A resampling in which the statistic is not defined (0/0) could be anywhere, so it counts at both ends: a
    few widen the interval, and where they are more than a tail that end is infinite.
    """
    return _central(estimate, values.double(), (1 - level) / 2, (1 + level) / 2, level)


def _central(estimate: float, values: Tensor, first: float, last: float, level: float) -> Interval:
    """The interval between two quantiles of the resampled values."""
    low = _quantile(values.nan_to_num(-math.inf, math.inf, -math.inf), first, "lower")
    high = _quantile(values.nan_to_num(math.inf, math.inf, -math.inf), last, "higher")
    return Interval(estimate, low, high, level)


def _quantile(values: Float[Tensor, "b"], share: float, side: str) -> float:
    """A quantile; between an infinite value and another, that at the given side."""
    between = float(torch.quantile(values, share))
    if math.isnan(between):
        return float(torch.quantile(values, share, interpolation=side))
    return between


def over_seeds(over_images: Interval, by_seed: Float[Tensor, "_"]) -> Interval:
    """An interval over images, widened by Student's t of the values of several seeds."""
    from scipy.stats import t as student

    seeds = len(by_seed)
    if seeds < 2 or not math.isfinite(over_images.estimate):
        return over_images
    spread = float(by_seed.double().std()) / math.sqrt(seeds)
    reach = float(student.ppf((1 + over_images.level) / 2, seeds - 1)) * spread
    reach = math.inf if math.isnan(reach) else reach
    estimate = over_images.estimate
    low = estimate - math.hypot(estimate - over_images.low, reach)
    return replace(over_images, low=low, high=estimate + math.hypot(over_images.high - estimate, reach))


def _normal_quantile(share: float) -> float:
    return float(torch.special.ndtri(torch.tensor(share, dtype=torch.float64)))


def _normal_share(z: float) -> float:
    return float(torch.special.ndtr(torch.tensor(z, dtype=torch.float64)))
