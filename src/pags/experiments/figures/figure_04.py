"""Figure 4: alignment along the strength of l2-PGD, at the score's resolution and at a higher one."""

from pags.experiments.figures import sweeps
from pags.experiments.figures.kinds import FigureData, Panel, Series, curves
from pags.experiments.figures.sources import Sources

TITLE, PLACE, NEEDS = "Alignment of adversarially trained models", "4.2", ("sweep", "transfer")


def data(sources: Sources) -> FigureData:
    """The paper's ImageNet panel (networks at a higher resolution than the score), then ImageNet-64's."""
    record, transfer = sources.sweep, sources.transfer
    sweep = sweeps.sweep_of(record, "pgd")
    name, size = record["data"]["name"], "×".join(str(side) for side in transfer["size"][1:])
    low = "×".join(str(side) for side in record["data"]["shape"][1:])
    left = _transfer_panel(sources, f"{transfer['data']}, {size} px")
    right = sweeps.alignment_panel(record, sweep, ("logit",), f"{name}, {low} px")
    caption = (
        "1 − LPIPS of the gradient of the predicted class's logit and the score of that class. Left, in "
        f"the place of the paper's ImageNet: classifiers of {size} pixels, gradients scaled down to the "
        f"score's {record['data']['shape'][1]} pixels. Right, in the place of its ImageNet-64: strengths "
        "up to excessive."
    )
    return curves(TITLE, caption, [[left, right]])


def _transfer_panel(sources: Sources, heading: str) -> Panel:
    models = sources.transfer["models"]
    series = [
        Series("logit ∼ score of its class", "similarity", sweeps.points(models, "similarity")),
        Series("shuffled pairs", "shuffled", sweeps.points(models, "shuffled")),
        Series("accuracy", "accuracy", sweeps.points(models, "correct"), right=True),
    ]
    ticks = [f"{model['strength']:g}" for model in models]
    floor = {"floor": models[0]["means"]["floor"]["estimate"]}
    return Panel(heading, "strength ε", ticks, "1 − LPIPS with the score", series, "accuracy", floor)
