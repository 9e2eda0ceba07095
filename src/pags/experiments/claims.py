"""The claims of the paper, each as a small record: place, statistic, decision rule, estimate, verdict.

A claim is a function of column means (see `pags.measure.statistics`) for one sweep of strengths, written so
that the paper's statement corresponds to a value above 0. It is *supported* where the whole interval lies
above 0, *contradicted* where the whole interval lies below, and *undecided* otherwise.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pags.measure.regimes import TOLERANCE
from pags.measure.statistics import Interval, interval, spearman
from pags.seeds import generator
from pags.store import Record

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"

Series = Float[Tensor, "b s"]
"""The mean of one quantity at each of s rising strengths, for b resamplings."""


@dataclass(frozen=True)
class SweepMeans:
    """What the claims are about: a few quantities along the strengths of a sweep.

    Output changes are those at the experiment's main norm. The similarity is 1 − LPIPS of the predicted
    class's logit gradient and the score of the same class; that of the sum is with the unconditional score.
    """

    on: Series
    off: Series
    accuracy: Series
    similarity: Series
    similarity_of_sum: Series

    @property
    def accurate(self) -> Tensor:  # (b, s)
        """Where at most the tolerated accuracy is lost against the most accurate strength."""
        return self.accuracy >= self.accuracy.amax(1, keepdim=True) - TOLERANCE

    def at(self, series: Series, places: Tensor) -> Float[Tensor, "b"]:
        """The value of a series at one place for each resampling."""
        return series.gather(1, places[:, None])[:, 0]

    @property
    def last_accurate(self) -> Tensor:  # (b,)
        """The strongest of the accurate strengths."""
        steps = torch.arange(self.accuracy.shape[1])
        return torch.where(self.accurate, steps, -1).amax(1)


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Args:
        key: a short name.
        place: where the paper makes it.
        statement: what it says.
        rule: the statistic in words; the claim holds where it is above 0.
        statistic: the same as a function.
    """

    key: str
    place: str
    statement: str
    rule: str
    statistic: Callable[[SweepMeans], Float[Tensor, "b"]]


def _relative_robustness(m: SweepMeans) -> Tensor:
    ratio = torch.where(m.accurate, m.off / m.on, torch.inf)
    return 1 - ratio.amin(1)


def _stays_constant(m: SweepMeans) -> Tensor:
    return torch.log(torch.tensor(1.25)) - (m.at(m.on, m.last_accurate) / m.on[:, 0]).log().abs()


def _off_falls_more(m: SweepMeans) -> Tensor:
    left_on = m.at(m.on, m.last_accurate) / m.on[:, 0]
    return left_on - m.at(m.off, m.last_accurate) / m.off[:, 0]


def _falls_in_tandem(m: SweepMeans) -> Tensor:
    on_left = m.on[:, -1] / m.at(m.on, m.last_accurate)
    accuracy_left = m.accuracy[:, -1] / m.at(m.accuracy, m.last_accurate)
    return 1 - torch.maximum(on_left, accuracy_left)


def _peaks_inside(m: SweepMeans) -> Tensor:
    return m.similarity[:, 1:-1].amax(1) - torch.maximum(m.similarity[:, 0], m.similarity[:, -1])


def _peak_is_accurate(m: SweepMeans) -> Tensor:
    return m.at(m.accuracy, m.similarity.argmax(1)) - m.accuracy.amax(1) + TOLERANCE


def _peak_is_off_robust(m: SweepMeans) -> Tensor:
    return 1 - m.at(m.off / m.on, m.similarity.argmax(1))


CLAIMS = (
    Claim(
        "unrobust-off-above-on", "4.1, Fig. 3 top",
        "With little or no regularisation, models are less robust off the manifold than on it.",
        "off − on at strength 0", lambda m: m.off[:, 0] - m.on[:, 0],
    ),
    Claim(
        "off-falls-monotonically", "4.1, Fig. 3 top",
        "More regularisation makes models ever more robust off the manifold.",
        "smallest fall of off from one strength to the next",
        lambda m: (m.off[:, :-1] - m.off[:, 1:]).amin(1),
    ),
    Claim(
        "relatively-off-robust", "4.1, Def. 1; Hypothesis 2",
        "Accurate robust models become relatively off-manifold robust.",
        "1 − smallest off/on among the accurate strengths", _relative_robustness,
    ),
    Claim(
        "off-falls-more-than-on", "3.3, Argument 1",
        "While accuracy lasts, robustness is gained off rather than on the manifold.",
        "share of on left − share of off left, at the last accurate strength", _off_falls_more,
    ),
    Claim(
        "on-stays-constant", "4.1, Fig. 3 top",
        "While accuracy lasts, robustness on the manifold stays roughly constant.",
        "ln 1.25 − |ln(on at the last accurate strength / on at 0)|", _stays_constant,
    ),
    Claim(
        "on-falls-with-accuracy", "4.1; 5",
        "Excessive strength makes models robust on the manifold at the price of accuracy.",
        "smaller of the relative falls of on and of accuracy, from the last accurate to the last strength",
        _falls_in_tandem,
    ),
    Claim(
        "alignment-peaks-inside", "4.2, Fig. 3 bottom",
        "Perceptual alignment rises with strength, peaks at an intermediate one, then falls.",
        "largest similarity inside the sweep − the larger of those at its two ends", _peaks_inside,
    ),
    Claim(
        "peak-is-accurate", "4.2; 5",
        "The most aligned model is an accurate one.",
        "accuracy at the peak of the similarity − best accuracy + 0.05", _peak_is_accurate,
    ),
    Claim(
        "peak-is-off-robust", "4.2; 5",
        "The most aligned model is relatively off-manifold robust.",
        "1 − off/on at the peak of the similarity", _peak_is_off_robust,
    ),
    Claim(
        "off-robustness-correlates", "abstract; 4.2",
        "Off-manifold robustness correlates with perceptual alignment.",
        "Spearman's correlation of on/off and similarity along the strengths",
        lambda m: spearman(m.on / m.off, m.similarity),
    ),
    Claim(
        "sum-of-logits-agrees", "B.4, Fig. 17",
        "The gradient of the sum of the logits gives the same picture as that of one class.",
        "Spearman's correlation of the two similarities along the strengths",
        lambda m: spearman(m.similarity_of_sum, m.similarity),
    ),
)  # fmt: skip


def judge(
    claims: Sequence[Claim],
    sweep: str,
    quantities: Sequence[Mapping[str, Sequence[Tensor]]],
    *,
    seed: int,
    resamples: int = 2000,
) -> list[Record]:
    """The verdict on each claim for one sweep.

    Args:
        claims: what is judged.
        sweep: its name, for the records.
        quantities: for each repeat of the trainings and each field of `SweepMeans`, one tensor of per-image
            values a strength, rising.
        seed: names the resampling.
        resamples: how often the images (and the repeats, where there are several) are resampled.

    Returns:
        One record a claim: key, sweep, place, statement, rule, the estimate with its interval, verdict.
    """
    names = list(quantities[0])
    strengths = len(quantities[0][names[0]])
    tables = [torch.stack([v for name in names for v in each[name]], 1).cpu() for each in quantities]

    def means_of(columns: Tensor) -> SweepMeans:  # (b, m) -> (b, s) each
        return SweepMeans(**dict(zip(names, columns.split(strengths, 1), strict=True)))

    records = []
    for claim in claims:
        draws = generator(seed, "claim", claim.key, sweep)
        statistic = partial(_statistic, claim, means_of)
        found = interval(statistic, tables, draws=draws, resamples=resamples)
        records.append(claim_record(claim, sweep, found))
    return records


def _statistic(claim: Claim, means_of: Callable[[Tensor], SweepMeans], means: Tensor) -> Tensor:
    return claim.statistic(means_of(means))


def claim_record(claim: Any, sweep: str, found: Interval) -> Record:
    """What is written down of one claim: `claim` has a key, a place, a statement and a rule."""
    return {
        "claim": claim.key, "sweep": sweep, "place": claim.place, "statement": claim.statement,
        "rule": claim.rule, **found.to_record(), "verdict": verdict(found),
    }  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """A claim about something other than a sweep: a statistic of column means, above 0 where the claim holds.

    Args:
        key, place, statement, rule: as in `Claim`.
        statistic: from the means (b, m) of the columns of a table to values (b,).
    """

    key: str
    place: str
    statement: str
    rule: str
    statistic: Callable[[Float[Tensor, "b m"]], Float[Tensor, "b"]]


def judged(
    claim: Verdict,
    about: str,
    table: Float[Tensor, "n m"],
    *,
    draws: torch.Generator,
    resamples: int = 2000,
) -> Record:
    """The record of a claim, judged on a table of one row an image; `about` names what it is judged on."""
    found = interval(claim.statistic, table, draws=draws, resamples=resamples)
    return claim_record(claim, about, found)


def verdict(found: Interval) -> str:
    """Supported, contradicted or undecided, from the sign of the whole interval."""
    if found.low > 0:
        return SUPPORTED
    return CONTRADICTED if found.high < 0 else UNDECIDED
