"""Figure 10: gradients of models trained with gradient-norm regularisation."""

from pags.experiments.figures import sweeps
from pags.experiments.figures.kinds import FigureData, grid
from pags.experiments.figures.sources import Sources

TITLE, PLACE, NEEDS = "Gradients of models trained with gradient-norm regularisation", "C", ("sweep",)


def data(sources: Sources) -> FigureData:
    """Image, score and gradients of the sum of logits, as the paper shows them on CIFAR-10."""
    lines = sweeps.gradient_lines(sources.sweep, sources.gallery, "gradient-norm", "sum-of-logits")
    return grid(TITLE, sweeps.SUM_CAPTION, lines)
