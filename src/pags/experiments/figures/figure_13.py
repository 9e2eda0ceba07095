"""Figure 13: gradients of models trained with randomised smoothing."""

from pags.experiments.figures import sweeps
from pags.experiments.figures.kinds import FigureData, grid
from pags.experiments.figures.sources import Sources

TITLE, PLACE, NEEDS = "Gradients of models trained with randomised smoothing", "C", ("sweep",)


def data(sources: Sources) -> FigureData:
    """Image, score and gradients of the sum of logits, as the paper shows them on CIFAR-10."""
    lines = sweeps.gradient_lines(sources.sweep, sources.gallery, "smoothing", "sum-of-logits")
    return grid(TITLE, sweeps.SUM_CAPTION, lines)
