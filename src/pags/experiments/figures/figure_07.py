"""Figure 7: random directions on and off the manifold."""

from pags.experiments.figures.kinds import FigureData, Line, grid
from pags.experiments.figures.sources import Sources

TITLE, PLACE, NEEDS = "Random perturbations on and off the manifold", "B.6", ("sweep",)


def data(sources: Sources) -> FigureData:
    """Images; then the two parts of the same random directions."""
    gallery = sources.gallery
    on, whole = gallery["directions on"], gallery["directions"]
    lines = [Line("image", gallery["images"])]
    lines += [Line(f"on {place + 1}", part, signed=True) for place, part in enumerate(on)]
    lines += [Line(f"off {place + 1}", part, signed=True) for place, part in enumerate(whole - on)]
    k = sources.sweep["chance"]["k"]
    caption = (
        f"Parts of normal noise in the {k}-dimensional tangent space that the autoencoder's decoder has at "
        "each image, and orthogonal to it. Each is scaled by its largest absolute value."
    )
    return grid(TITLE, caption, lines, across=True)
