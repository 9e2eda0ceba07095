"""What the figures of sweeps share: a model's record, curves along a sweep, gradients as lines of a grid."""

import math
from collections.abc import Sequence

from pags.experiments.figures.kinds import Line, Panel, Series
from pags.experiments.workshop import Columns
from pags.store import Record

TITLES: dict[str, str] = {
    "pgd": "Adversarial training (l2-PGD)",
    "smoothing": "Randomised smoothing",
    "gradient-norm": "Gradient-norm regularisation",
    "smoothness": "Smoothness penalty",
}
SYMBOLS: dict[str, str] = {"pgd": "ε", "smoothing": "σ", "gradient-norm": "λ", "smoothness": "λ"}
KINDS = {"logit": "conditional", "sum-of-logits": "unconditional"}
MOST = 9
"""Strengths that a grid shows at most; of longer sweeps, evenly spaced ones with both ends."""


def model(record: Record, objective: str, strength: float) -> Record:
    """The record of one model; strength 0 is the same model for every objective."""
    for found in record["models"]:
        same = found["objective"] == objective or (strength == 0 and found["objective"] != "untrained")
        if same and found["strength"] == strength:
            return found
    raise KeyError((objective, strength))


def sweep_of(record: Record, objective: str) -> Record:
    """The settings of the sweep of an objective; of the first sweep, where there is none."""
    sweeps = record["settings"]["sweeps"]
    return next((sweep for sweep in sweeps if sweep["objective"] == objective), sweeps[0])


def models(record: Record, sweep: Record) -> list[Record]:
    """The records of a sweep's models, by rising strength."""
    return [model(record, sweep["objective"], strength) for strength in sweep["strengths"]]


def ticks(sweep: Record) -> list[str]:
    """The strengths of a sweep as labels."""
    return [f"{strength:g}" for strength in sweep["strengths"]]


def axis(sweep: Record) -> str:
    """What the strengths are."""
    return f"strength {SYMBOLS.get(sweep['objective'], '')}".strip()


def title(sweep: Record) -> str:
    """The sweep's objective for people."""
    return TITLES.get(sweep["objective"], str(sweep["objective"]))


def points(found: Sequence[Record], quantity: str) -> list[Record]:
    """The intervals of a mean along a sweep."""
    return [entry["means"][quantity] for entry in found]


def robustness_panel(record: Record, sweep: Record, norm: float, heading: str) -> Panel:
    """Change of the output on and off the manifold along a sweep, at one norm of the perturbation."""
    found = models(record, sweep)
    labels = {"on": "on the manifold", "off": "off the manifold", "any": "undivided (chance)"}
    series = [Series(label, part, points(found, f"{part} {norm:g}")) for part, label in labels.items()]
    change = record["settings"].get("change", "softmax-l2")
    return Panel(heading, axis(sweep), ticks(sweep), f"output change ({change})", series, zero=True)


def alignment_panel(record: Record, sweep: Record, targets: Sequence[str], heading: str) -> Panel:
    """Similarity of gradient and score along a sweep, between floor and ceiling, with accuracy."""
    found, series = models(record, sweep), []
    for target in targets:
        name = "logit ∼ score of its class" if target == "logit" else "sum of logits ∼ score"
        style = "similarity" if target == "logit" else "sum"
        series.append(Series(name, style, points(found, f"similarity {target}")))
    series.append(Series("shuffled pairs", "shuffled", points(found, f"shuffled {targets[0]}")))
    series.append(Series("accuracy", "accuracy", points(found, "correct"), right=True))
    lines = {
        name: record["lines"][f"{name} {KINDS[targets[0]]}"]["estimate"] for name in ("ceiling", "floor")
    }
    return Panel(
        heading, axis(sweep), ticks(sweep), "1 − LPIPS with the score", series, "accuracy", references=lines
    )


def shown(strengths: Sequence[float]) -> list[float]:
    """The strengths that a grid shows."""
    if len(strengths) <= MOST:
        return list(strengths)
    return [strengths[round(place * (len(strengths) - 1) / (MOST - 1))] for place in range(MOST)]


def gradient_lines(record: Record, gallery: Columns, objective: str, target: str) -> list[Line]:
    """Image, score, and the gradients of a sweep's models from unrobust to excessively robust."""
    sweep, kind = sweep_of(record, objective), KINDS[target]
    lines = [Line("image", gallery["images"]), Line(f"{kind} score", gallery[f"score {kind}"], signed=True)]
    for strength in shown(sweep["strengths"]):
        found = model(record, sweep["objective"], strength)
        label = f"{SYMBOLS.get(sweep['objective'], '')} = {strength:g}\n{found['regime']}"
        lines.append(gradient_line(gallery, found, target, label))
    return lines


def gradient_line(gallery: Columns, found: Record, target: str, label: str) -> Line:
    """One model's gradients, with the similarity of each to the score."""
    key = f"{found['objective']} {found['strength']:g} {target}"
    numbers = gallery[f"similarity {key}"].tolist()
    return Line(label, gallery[f"gradient {key}"], signed=True, numbers=numbers)


def best(record: Record, objective: str = "pgd", target: str = "logit") -> Record:
    """The accurate robust model of a sweep whose gradients are most similar to the score."""
    found = [m for m in models(record, sweep_of(record, objective)) if m["strength"] > 0]
    accurate = [m for m in found if m["regime"] != "excessive"] or found
    similar = {place: m["means"][f"similarity {target}"]["estimate"] for place, m in enumerate(accurate)}
    return accurate[max(similar, key=lambda place: -math.inf if similar[place] is None else similar[place])]


SUM_CAPTION = (
    "Gradients of the sum of the logits beside the unconditional score, from no robustness (top) to "
    "excessive robustness; numbers are 1 − LPIPS. Cross-entropy never trains the sum of the last layer's "
    "rows, so this is the gradient of a leftover of the initialisation; the gradients of single logits are "
    "in Figures 1, 6 and 14."
)
LOGIT_CAPTION = (
    "Gradients of the predicted class's logit beside the score of the class, from no robustness (top) to the "
    "strongest; numbers are 1 − LPIPS of gradient and score."
)
