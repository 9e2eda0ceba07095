"""Figure 14: gradients of one class beside its score, l2-PGD (ImageNet-64 in the paper)."""

from pags.experiments.figures import sweeps
from pags.experiments.figures.kinds import FigureData, grid
from pags.experiments.figures.sources import Sources

TITLE, PLACE, NEEDS = "Gradients of one class, l2-PGD", "C; 4.2", ("sweep",)


def data(sources: Sources) -> FigureData:
    """Image, conditional score, and gradients of the predicted class's logit."""
    lines = sweeps.gradient_lines(sources.sweep, sources.gallery, "pgd", "logit")
    return grid(f"{TITLE}: {sources.sweep['data']['name']}", sweeps.LOGIT_CAPTION, lines)
