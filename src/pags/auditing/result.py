"""What an audit found: a number an image for every quantity, means with intervals, and comparisons."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from pags.errors import UsageError
from pags.measure.regimes import EXCESSIVE, TOLERANCE, regime
from pags.measure.statistics import Interval, interval, mean_intervals, paired_differences
from pags.seeds import generator
from pags.store import Record


@dataclass(frozen=True)
class Audit:
    """The measures of one classifier on one set of images; made by `pags.audit`.

    Args:
        columns: quantities by name, (n,) each, in the order of the images. Names are those of docs/audit.md.
        panels: pictures of the images that are best and worst aligned, for the gallery of a report.
        settings: plain data: what was asked for, what each target was compared with, what was left out.
    """

    columns: dict[str, Tensor]
    panels: dict[str, Tensor]
    settings: Record

    def summary(self, *, resamples: int = 2000, best: Interval | None = None) -> Record:
        """Means and ratios with 95 % bootstrap intervals over images, and the regime by the written rule.

        Args:
            resamples: of the bootstrap.
            best: accuracy of the most accurate model of a reference sweep on these data; None where there is
                none, and then how much accuracy robustness has cost is unknown, and said to be.

        Returns:
            Plain data; a quantity that no image has is None.
        """
        seed = self.settings["seed"]
        found = mean_intervals(self.columns, draws=generator(seed, "means"), resamples=resamples)
        apart = {name: plain(value) for name, value in self._above_shuffled(resamples).items()}
        ratios = {name: plain(value) for name, value in self.ratios(resamples=resamples).items()}
        means = {name: plain(value) for name, value in found.items()}
        return {
            "settings": self.settings,
            "means": means,
            "ratios": ratios,
            "above_shuffled": apart,
            "regime": self._regime(found["correct"], best, resamples),
        }

    def ratios(self, *, resamples: int = 2000) -> dict[str, Interval]:
        """off/on at each norm, and rho1 of Definition 1, as ratios of means."""
        return {
            name: _ratio(self.columns[above], self.columns[below], self.settings["seed"], resamples)
            for name, (above, below) in self._pairs().items()
        }

    def _pairs(self) -> dict[str, tuple[str, str]]:
        """The columns of which ratios are formed."""
        if "squared change" not in self.columns:
            return {}
        norms = {f"off/on {n:g}": (f"off {n:g}", f"on {n:g}") for n in self.settings["norms"]}
        return norms | {"rho1": ("squared change off", "squared change")}

    def _above_shuffled(self, resamples: int) -> dict[str, Interval]:
        """How much more a vector is like the score of its own image than like that of another."""
        first = {n: v for n, v in self.columns.items() if f"shuffled {n}" in self.columns}
        if not first:
            return {}
        second = {name: self.columns[f"shuffled {name}"] for name in first}
        draws = generator(self.settings["seed"], "means")
        return paired_differences(first, second, draws=draws, resamples=resamples)

    def _regime(self, accuracy: Interval, best: Interval | None, resamples: int) -> Record:
        name = f"off/on {self.settings['norm']:g}"
        pair = self._pairs().get(name)
        if pair is None:
            return {"name": None, "accuracy_lost": None, "rule": "no tangent spaces, so no regime"}
        off_over_on = _ratio(self.columns[pair[0]], self.columns[pair[1]], self.settings["seed"], resamples)
        rule = f"by {name}, and at most {TOLERANCE:g} of accuracy lost"
        if not math.isfinite(off_over_on.estimate + off_over_on.low + off_over_on.high):
            return {"name": None, "accuracy_lost": None, "rule": f"{name} is no number"}
        if best is None:
            unknown = "; how much accuracy was lost is unknown without a reference sweep"
            found = regime(off_over_on, Interval(0.0, 0.0, 0.0))
            return {"name": f"{found} or {EXCESSIVE}", "accuracy_lost": None, "rule": rule + unknown}
        lost = unpaired_difference(best, accuracy)
        return {"name": regime(off_over_on, lost), "accuracy_lost": lost.to_record(), "rule": rule}


def compare(audits: Mapping[str, Audit], *, resamples: int = 2000) -> Record:
    """Every pair of models: mean differences with paired bootstrap intervals, first minus second.

    Args:
        audits: by the model's name, all on the same images in the same order.
        resamples: of the bootstrap.

    Returns:
        `{"pairs": [{"first", "second", "differences": {quantity: interval}}]}`.

    Raises:
        UsageError: the audits are of different images.
    """
    if len({audit.settings["images"] for audit in audits.values()}) > 1:
        raise UsageError(
            "audits of the same images",
            got="different ones",
            suggestion="the same --data, --images and --seed for all models",
        )
    return {"pairs": [_pair(a, b, audits, resamples) for a, b in combinations(audits, 2)]}


def _pair(first: str, second: str, audits: Mapping[str, Audit], resamples: int) -> Record:
    a, b = audits[first], audits[second]
    draws = generator(a.settings["seed"], "compare")
    found = paired_differences(a.columns, b.columns, draws=draws, resamples=resamples)
    for name, (above, below) in a._pairs().items():
        if b._pairs().get(name) == (above, below):
            columns = [a.columns[above], a.columns[below], b.columns[above], b.columns[below]]
            found[name] = interval(
                lambda m: m[:, 0] / m[:, 1] - m[:, 2] / m[:, 3],
                torch.stack(columns, 1).double(),
                draws=generator(a.settings["seed"], "compare"),
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


def plain(value: Interval) -> Record | None:
    """As plain data; None where it is not finite, for JSON knows no NaN."""
    whole = all(math.isfinite(v) for v in (value.estimate, value.low, value.high))
    return value.to_record() if whole else None


def _ratio(above: Tensor, below: Tensor, seed: int, resamples: int) -> Interval:
    table = torch.stack([above, below], 1)
    draws = generator(seed, "ratio")
    return interval(lambda means: means[:, 0] / means[:, 1], table, draws=draws, resamples=resamples)
