"""Figure 6: gradients in the three regimes of robustness."""

from pags.experiments.figures import sweeps
from pags.experiments.figures.kinds import FigureData, Line, grid
from pags.experiments.figures.sources import Sources

TITLE, PLACE, NEEDS = (
    "Gradients from weak through Bayes-aligned to excessive robustness",
    "4.2, 5",
    ("sweep",),
)


def data(sources: Sources) -> FigureData:
    """The control, then the strengths of l2-PGD with the regime of each."""
    record, gallery = sources.sweep, sources.gallery
    lines = sweeps.gradient_lines(record, gallery, "pgd", "logit")
    untrained = sweeps.model(record, "untrained", 0)
    control: Line = sweeps.gradient_line(gallery, untrained, "logit", "untrained\ncontrol")
    caption = (
        "Image, score of its class, and gradients of the predicted class's logit; numbers are 1 − LPIPS of "
        "gradient and score. The regime is decided by the written rule; where an interval holds a border, "
        "both are named."
    )
    return grid(TITLE, caption, [*lines[:2], control, *lines[2:]], across=True)
