"""Figure 16: digits beside a distractor, noise on either part, and gradients."""

from pags.experiments.figures.kinds import FigureData, Line, grid
from pags.experiments.figures.sources import Sources

TITLE, PLACE, NEEDS = "Digits with a distractor", "B.9", ("distractor",)


def data(sources: Sources) -> FigureData:
    """The paper's five rows, for its distractor."""
    gallery, name = sources.distractor_gallery, sources.distractor["variants"][0]["name"]
    lines = [
        Line("images", gallery["images 0"]),
        Line("noise on the signal", gallery["noise on signal 0"]),
        Line("noise on the distractor", gallery["noise on distractor 0"]),
        Line("gradients, standard", gallery["gradient standard 0"], signed=True),
        Line("gradients, robust", gallery["gradient robust 0"], signed=True),
    ]
    caption = f"Digits beside {name}; noise of standard deviation 0.5; gradients of the predicted logit."
    return grid(TITLE, caption, lines)
