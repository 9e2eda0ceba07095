"""What an audit found: one number per image for every quantity, means with intervals, and comparisons."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from pags.display import Displayed
from pags.errors import UsageError
from pags.measure.regimes import EXCESSIVE, TOLERANCE, TOLERANCES, regime
from pags.measure.statistics import Interval, interval, mean_intervals, paired_differences
from pags.records import IntervalRecord, ModelRecord, Record, RegimeRecord
from pags.seeds import generator

Columns = Mapping[str, Tensor]


@dataclass(frozen=True, repr=False)
class Audit(Displayed):
    """The measures of one classifier on one set of images; made by `pags.audit`.

    Args:
        columns: quantities by name, (n,) each, in the order of the images. Names are those of `pags.records`.
        panels: pictures of the images that are best and worst aligned, for the gallery of a report.
        settings: plain data: what was asked for, what each target was compared with, what was left out.
    """

    columns: dict[str, Tensor]
    panels: dict[str, Tensor]
    settings: Record

    def summary(
        self, *, name: str = "classifier", about: Record | None = None, resamples: int = 2000,
        best: Interval | None = None,
    ) -> ModelRecord:  # fmt: skip
        """Means and ratios with 95 % intervals over images, and the regime by the written rule.

        Args:
            name: what the classifier is called.
            about: plain data about it.
            resamples: of the bootstrap.
            best: accuracy of the most accurate model of a reference sweep on these data; None where there is
                none, and then how much accuracy robustness has cost is unknown, and said to be.
        """
        lost = None
        if best is not None:
            draws = generator(self.settings["seed"], "means")
            accuracy = mean_intervals({"correct": self.columns["correct"]}, draws=draws, resamples=resamples)
            lost = unpaired_difference(best, accuracy["correct"])
        return model_record(name, about or {}, self.settings, [self.columns], lost=lost, resamples=resamples)


def model_record(
    name: str,
    about: Record,
    settings: Record,
    runs: Sequence[Columns],
    *,
    lost: Interval | None,
    resamples: int = 2000,
) -> ModelRecord:
    """One model's record, from its columns for every seed.

    Args:
        name: what the model is called.
        about: plain data about it.
        settings: of the audit.
        runs: columns of each seed, of the same images.
        lost: accuracy below the reference, in [-1, 1]; None where there is no reference.
        resamples: of the bootstrap.
    """
    seed = settings["seed"]
    means = mean_intervals(runs, draws=generator(seed, "means"), resamples=resamples)
    apart = [{n: v - run[f"shuffled {n}"] for n, v in run.items() if f"shuffled {n}" in run} for run in runs]
    above = mean_intervals(apart, draws=generator(seed, "means"), resamples=resamples) if apart[0] else {}
    ratios = {
        ratio: ratio_of_means(runs, *pair, seed=seed, resamples=resamples)
        for ratio, pair in ratio_columns(settings, runs[0]).items()
    }
    return {
        "name": name,
        "about": about,
        "settings": settings,
        "means": {quantity: plain(value) for quantity, value in means.items()},
        "ratios": {ratio: plain(value) for ratio, value in ratios.items()},
        "above_shuffled": {quantity: plain(value) for quantity, value in above.items()},
        "regime": _regime(settings, ratios, lost, means["correct"]),
        "runs": [{quantity: _mean(run[quantity]) for quantity in run} for run in runs],
    }


def ratio_columns(settings: Record, columns: Columns) -> dict[str, tuple[str, str]]:
    """The columns of which ratios are formed: off/on at each norm and under attack, rho1 of Definition 1, and
    rho2 weighted alike."""
    if "squared change" not in columns:
        return {}
    norms = {f"off/on {n:g}": (f"off {n:g}", f"on {n:g}") for n in settings["norms"]}
    energies = {f"rho2 {t}": (f"energy off {t}", f"energy {t}") for t in settings["targets"]}
    attacked = f"attacked off {settings['norm']:g}", f"attacked on {settings['norm']:g}"
    known = {"rho1": ("squared change off", "squared change"), **energies, "attacked off/on": attacked}
    return norms | {name: pair for name, pair in known.items() if set(pair) <= set(columns)}


def ratio_of_means(
    runs: Sequence[Columns], above: str, below: str, *, seed: int, resamples: int = 2000
) -> Interval:
    """The ratio of two columns' means with its interval."""
    tables = [torch.stack([run[above], run[below]], 1).cpu() for run in runs]
    draws = generator(seed, "ratio")
    return interval(lambda means: means[:, 0] / means[:, 1], tables, draws=draws, resamples=resamples)


def at_chance(settings: Record, accuracy: Interval) -> bool:
    """Whether the accuracy may be that of guessing, or of always naming the most frequent class."""
    return accuracy.low <= max(1 / settings["classes"], settings["majority"])


AT_CHANCE = "at chance on these images; nothing else here describes a working classifier"


def _regime(
    settings: Record, ratios: Mapping[str, Interval], lost: Interval | None, accuracy: Interval
) -> RegimeRecord:
    """The regime by the written rule; without a reference, only whether the model is off-manifold robust."""
    if lost is None and at_chance(settings, accuracy):
        return {"name": None, "accuracy_lost": None, "rule": AT_CHANCE}
    name = f"off/on {settings['norm']:g}"
    if name not in ratios:
        return {"name": None, "accuracy_lost": None, "rule": "no tangent spaces, so no regime"}
    rule = f"by {name}, and at most {TOLERANCE:g} of accuracy lost"
    if not all(map(math.isfinite, (ratios[name].estimate, ratios[name].low, ratios[name].high))):
        return {"name": None, "accuracy_lost": None, "rule": f"{name} is no number"}
    if lost is None:
        unknown = "; how much accuracy was lost is unknown without a reference sweep"
        found = regime(ratios[name], Interval(0.0, 0.0, 0.0))
        return {"name": f"{found} or {EXCESSIVE}", "accuracy_lost": None, "rule": rule + unknown}
    others = {f"{tolerance:g}": regime(ratios[name], lost, tolerance=tolerance) for tolerance in TOLERANCES}
    found = regime(ratios[name], lost)
    return {"name": found, "accuracy_lost": plain(lost), "rule": rule, "at_tolerance": others}


class Comparison(Displayed, Record):
    """Several audits and the paired differences of every pair, under `pairs`; made by `pags.compare`.

    Args:
        audits: by the model's name.
        pairs: `first`, `second` and `differences` of each pair.
    """

    def __init__(self, audits: Mapping[str, Audit], pairs: list[Record]) -> None:
        super().__init__(pairs=pairs)
        self.audits = dict(audits)


def compare(audits: Mapping[str, Audit], *, resamples: int = 2000) -> Comparison:
    """Every pair of models: mean differences with paired bootstrap intervals, first minus second.

    Args:
        audits: by the model's name, all on the same images in the same order.
        resamples: of the bootstrap.

    Returns:
        `{"pairs": [{"first", "second", "differences": {quantity: interval}}]}`, which shows itself.

    Raises:
        UsageError: the audits are of different images.
    """
    if len({audit.settings["images"] for audit in audits.values()}) > 1:
        raise UsageError(
            "audits of the same images",
            got="different ones",
            suggestion="the same --data, --images and --seed for all models",
        )
    return Comparison(audits, [_pair(a, b, audits, resamples) for a, b in combinations(audits, 2)])


def _pair(first: str, second: str, audits: Mapping[str, Audit], resamples: int) -> Record:
    a, b = audits[first], audits[second]
    seed = a.settings["seed"]
    found = paired_differences(a.columns, b.columns, draws=generator(seed, "compare"), resamples=resamples)
    theirs = ratio_columns(b.settings, b.columns)
    for name, (above, below) in ratio_columns(a.settings, a.columns).items():
        if theirs.get(name) == (above, below):
            columns = [a.columns[above], a.columns[below], b.columns[above], b.columns[below]]
            found[name] = interval(
                lambda m: m[:, 0] / m[:, 1] - m[:, 2] / m[:, 3],
                torch.stack(columns, 1).double(),
                draws=generator(seed, "compare"),
                resamples=resamples,
            )
    differences = {name: plain(value) for name, value in found.items()}
    return {"first": first, "second": second, "differences": differences}


def unpaired_difference(first: Interval, second: Interval) -> Interval:
    """first − second where the images are not the same: half-widths add up in quadrature."""
    apart = first.estimate - second.estimate
    down = math.hypot(first.estimate - first.low, second.high - second.estimate)
    up = math.hypot(first.high - first.estimate, second.estimate - second.low)
    return Interval(apart, apart - down, apart + up)


def plain(value: Interval) -> IntervalRecord | None:
    """As plain data; None where it is not finite, for JSON knows no NaN."""
    whole = all(math.isfinite(v) for v in (value.estimate, value.low, value.high))
    return value.to_record() if whole else None  # type: ignore[return-value]


def _mean(column: Tensor) -> float | None:
    """The mean over the images on which the quantity is defined; None where it is on none."""
    found = float(column.nanmean())
    return None if math.isnan(found) else found
