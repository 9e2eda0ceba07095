"""What the figures of sweeps share: models by name, curves along strengths, gradients as lines of a grid.

Titles and symbols come from the record, so an objective, a target or a metric of a user is shown like ours.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor

from pags.figures.kinds import NUMBERED, Line, Panel, Series
from pags.records import IntervalRecord, ModelRecord, RegimeRecord, SweepLine, SweepRecord

T = TypeVar("T")
STANDARD, UNTRAINED = "standard", "untrained"
METRICS = {"lpips": "1 − LPIPS", "cosine": "cosine", "ssim": "SSIM", "rank": "rank correlation"}
TARGETS = {"sum-of-logits": "sum of logits"}
SIDES = {"on": "on the manifold", "off": "off the manifold", "any": "isotropic noise (chance level)"}
MOST = 9
"""Strengths that a grid shows at most; of longer sweeps, evenly spaced ones with both ends."""


def metric_title(metric: str) -> str:
    """A metric for people; one of a user by its name."""
    return METRICS.get(metric, metric)


def target_title(target: str) -> str:
    """A gradient's target for people; one of a user by its name."""
    return TARGETS.get(target, target)


def settled(record: SweepRecord, name: str, default: Any) -> Any:
    """What was measured, the same for every model: targets, metrics, norms, radii."""
    return record["models"][0]["settings"].get(name, default)


def targets(record: SweepRecord) -> list[str]:
    """The gradients that were measured, the main one first."""
    return list(settled(record, "targets", ("logit", "sum-of-logits")))


def metrics(record: SweepRecord) -> list[str]:
    """The metrics of similarity, the main one first."""
    return list(settled(record, "metrics", ("lpips",)))


def model_name(objective: str, strength: float) -> str:
    """What a sweep calls a model; strength 0 is the standard network for every objective."""
    return f"{objective} {strength:g}" if strength else STANDARD


def model(record: SweepRecord, name: str) -> ModelRecord:
    """The record of the model called `name`.

    Raises:
        KeyError: there is none.
    """
    for found in record["models"]:
        if found["name"] == name:
            return found
    raise KeyError(name)


def sweep_of(record: SweepRecord, objective: str) -> SweepLine:
    """The sweep of an objective; the first sweep, where there is none."""
    return next((line for line in record["sweeps"] if line["objective"] == objective), record["sweeps"][0])


def along(record: SweepRecord, line: SweepLine) -> list[ModelRecord]:
    """The records of a sweep's models, by rising strength."""
    return [model(record, model_name(line["objective"], strength)) for strength in line["strengths"]]


def ticks(line: SweepLine) -> list[str]:
    """The strengths of a sweep as labels."""
    return [f"{strength:g}" for strength in line["strengths"]]


def axis(line: SweepLine) -> str:
    """What the strengths are."""
    return f"strength {line['symbol']}".strip()


def points(models: Sequence[Mapping[str, Any]], column: str) -> list[IntervalRecord | None]:
    """The intervals of a mean along a sweep."""
    return [found["means"].get(column) for found in models]


def regime_name(regime: RegimeRecord) -> str:
    """A regime for people."""
    return regime["name"] or "unknown"


def reference(found: ModelRecord, line: str, metric: str, target: str) -> IntervalRecord | None:
    """The floor or ceiling of a model's similarity, for the score that the target is compared with."""
    kind = found["settings"].get("compared with", {}).get(target)
    return found["means"].get(f"{line} {metric} {kind}")


def robustness_panel(record: SweepRecord, line: SweepLine, norm: float, heading: str) -> Panel:
    """Change of the output on and off the manifold along a sweep, at one norm of the perturbation."""
    found = along(record, line)
    series = [Series(label, part, points(found, f"{part} {norm:g}")) for part, label in SIDES.items()]
    y = f"output change ({settled(record, 'change', 'softmax-l2')})"
    regimes = [regime_name(each["regime"]) for each in found]
    return Panel(heading, axis(line), ticks(line), y, series, zero=True, regimes=regimes)


def alignment_panel(
    record: SweepRecord, line: SweepLine, metric: str, chosen: Sequence[str], heading: str
) -> Panel:
    """Similarity of gradient and score along a sweep, between floor and ceiling."""
    found = along(record, line)
    styles = {"logit": "similarity", "sum-of-logits": "sum"}
    others = iter(NUMBERED * len(chosen))
    series = [
        Series(
            f"gradient of the {target_title(target)}", styles.get(target) or next(others),
            points(found, f"{metric} {target}"),
        )
        for target in chosen
    ]  # fmt: skip
    measured = [curve for curve in series if any(curve.points)]
    series = measured or series[:1]  # the legend names what was measured
    shuffled = points(found, f"shuffled {metric} {chosen[0]}")
    if any(shuffled):
        name = f"{target_title(chosen[0])}, another image's score"
        series.append(Series(name, "shuffled", shuffled))
    standard = model(record, STANDARD)
    lines = {name: reference(standard, name, metric, chosen[0]) for name in ("ceiling", "floor")}
    known = {name: value["estimate"] for name, value in lines.items() if value}
    return Panel(
        heading, axis(line), ticks(line), f"{metric_title(metric)} with the score", series,
        references={name: value for name, value in known.items() if value is not None},
        regimes=[regime_name(each["regime"]) for each in found],
    )  # fmt: skip


def accuracy_panel(record: SweepRecord, line: SweepLine, heading: str = "") -> Panel:
    """Accuracy along a sweep, and accuracy under attack where it was measured."""
    found = along(record, line)
    series = [Series("accuracy", "accuracy", points(found, "correct"))]
    for radius, style in zip(settled(record, "radii", ()), NUMBERED[1:], strict=False):
        attacked = points(found, f"robust {radius:g}")
        if any(attacked):
            series.append(Series(f"accuracy under l2-PGD, radius {radius:g}", style, attacked))
    regimes = [regime_name(each["regime"]) for each in found]
    return Panel(
        heading, axis(line), ticks(line), "accuracy", series, limits=(0, 1.02), regimes=regimes
    )  # fmt: skip


def evenly(values: Sequence[T], most: int = MOST) -> list[T]:
    """At most `most` (at least 2) of the values, evenly spaced, both ends among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(place * (len(values) - 1) / (most - 1))] for place in range(most)]


def gradient_lines(
    record: SweepRecord, gallery: Mapping[str, Tensor], objective: str, target: str
) -> list[Line]:
    """Image, score, and the gradients of a sweep's models from standard to excessively robust."""
    line = sweep_of(record, objective)
    lines, score = [Line("image", gallery["images"])], gallery.get(f"score {target}")
    lines += [] if score is None else [Line("score", score, signed=True)]
    for strength in evenly(line["strengths"]):
        found = model(record, model_name(line["objective"], strength))
        label = f"{line['symbol']} = {strength:g}\n{regime_name(found['regime'])}"
        lines.append(gradient_line(gallery, found, target, label, metrics(record)[0]))
    return lines


def gradient_line(
    gallery: Mapping[str, Tensor], found: Mapping[str, Any], target: str, label: str, metric: str
) -> Line:
    """One model's gradients, each with its similarity to the score of the same image."""
    key = f"{found['name']} {target}"
    numbers = gallery.get(f"{metric} {key}")
    return Line(
        label, gallery[f"gradient {key}"], signed=True, numbers=None if numbers is None else numbers.tolist()
    )  # fmt: skip


def best(record: SweepRecord, objective: str | None = None) -> ModelRecord:
    """The accurate robust model whose gradients are most similar to the score, by the main metric and target.

    Args:
        record: of the sweeps.
        objective: whose sweep; None: of all.
    """
    lines = record["sweeps"] if objective is None else [sweep_of(record, objective)]
    found = [m for line in lines for m in along(record, line) if m["name"] != STANDARD]
    accurate = [m for m in found if m["regime"]["name"] != "excessive"] or found
    column = f"{metrics(record)[0]} {targets(record)[0]}"
    return max(accurate, key=lambda m: _estimate(m["means"].get(column)))


def _estimate(value: IntervalRecord | None) -> float:
    return -math.inf if value is None or value["estimate"] is None else value["estimate"]


def described(record: SweepRecord, found: ModelRecord) -> str:
    """A model for people: its objective's title and its strength."""
    for line in record["sweeps"]:
        if line["objective"] == found.get("objective") and found["name"] not in (STANDARD, UNTRAINED):
            return f"{line['title']}, {line['symbol']} = {found.get('strength', 0):g}"
    return {STANDARD: "Standard network", UNTRAINED: "Untrained network"}.get(found["name"], found["name"])
