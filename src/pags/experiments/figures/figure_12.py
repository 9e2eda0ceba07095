"""Figure 12: gradients of models trained with a smoothness penalty."""

from pags.experiments.figures import sweeps
from pags.experiments.figures.kinds import FigureData, grid
from pags.experiments.figures.sources import Sources

TITLE, PLACE, NEEDS = "Gradients of models trained with a smoothness penalty", "C", ("sweep",)


def data(sources: Sources) -> FigureData:
    """Image, score and gradients of the sum of logits, as the paper shows them on CIFAR-10."""
    lines = sweeps.gradient_lines(sources.sweep, sources.gallery, "smoothness", "sum-of-logits")
    return grid(TITLE, sweeps.SUM_CAPTION, lines)
