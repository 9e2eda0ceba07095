"""Figure 8: how large perturbations of a given norm look."""

from pags.arrays import scale_to
from pags.experiments.figures.kinds import FigureData, Line, grid
from pags.experiments.figures.sources import Sources

TITLE, PLACE, NEEDS = "Perturbations of different size", "C", ("sweep",)


def data(sources: Sources) -> FigureData:
    """Images with a random perturbation at each norm that is measured."""
    gallery, norms = sources.gallery, sources.sweep["settings"]["norms"]
    images, noise = gallery["images"], gallery["directions"][0]
    lines = [Line("image", images)]
    lines += [Line(f"norm {n:g}", (images + scale_to(noise, n)).clamp(0, 1)) for n in norms]
    return grid(TITLE, "Random perturbations of each l2 norm, cut to the range of pixels for display.", lines)
