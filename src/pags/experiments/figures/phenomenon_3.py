"""Phenomenon 3 as a figure: what SmoothGrad adds, along the strengths of l2-PGD."""

from pags.experiments.figures import sweeps
from pags.experiments.figures.kinds import FigureData, Panel, Series, curves
from pags.experiments.figures.sources import Sources
from pags.store import Record

TITLE, PLACE, NEEDS = "SmoothGrad and robustness", "1, Phenomenon 3", ("sweep", "smoothgrad")


def data(sources: Sources) -> FigureData:
    """Similarity with the score of plain and of smoothed gradients: LPIPS left, cosine right."""
    record = sources.smoothgrad
    sweep = sweeps.sweep_of(sources.sweep, record["objective"])
    panels = [
        _panel(record, sweep, "similarity", "1 − LPIPS with the score"),
        _panel(record, sweep, "cosine", "cosine with the score"),
    ]
    caption = (
        "Gradients of the predicted class's logit and their means over noisy copies of the image "
        "(SmoothGrad), at a few standard deviations of the noise. If robustness is what aligns gradients, "
        "smoothing helps weak models most."
    )
    return curves(TITLE, caption, [panels])


def _panel(record: Record, sweep: Record, kind: str, y: str) -> Panel:
    styles = ("first", "second", "third", "fourth")
    series = [Series("plain", "any", [s["means"][f"{kind} 0"] for s in record["strengths"]])]
    series += [
        Series(f"noise {level:g}", style, [s["means"][f"{kind} {level:g}"] for s in record["strengths"]])
        for level, style in zip(record["levels"], styles, strict=False)
    ]
    return Panel(sweeps.title(sweep), sweeps.axis(sweep), sweeps.ticks(sweep), y, series)
