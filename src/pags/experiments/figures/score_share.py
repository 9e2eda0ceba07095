"""How much of the score lies in the tangent space, over the noise level (Theorem 2 takes it as all)."""

from pags.experiments.figures.kinds import FigureData, Panel, Series, curves
from pags.experiments.figures.sources import Sources
from pags.experiments.stages import SIGMAS
from pags.measure.statistics import mean_intervals
from pags.seeds import generator

TITLE, PLACE, NEEDS = "Where the score points", "A, proof of Theorem 2", ("sweep", "score")


def data(sources: Sources) -> FigureData:
    """The share of the unconditional score's energy off the manifold, beside the chance line."""
    config = sources.settings.sweep
    found = mean_intervals(
        {name: column.cpu() for name, column in sources.score_shares.items()},
        draws=generator(config.seed, "score shares"), resamples=config.resamples,
    )  # fmt: skip
    points = [found[f"off-share {sigma:g}"].to_record() for sigma in SIGMAS]
    panel = Panel(
        "energy of the score off the manifold", "noise level σ (EDM's unit)", [f"{s:g}" for s in SIGMAS],
        "share off the tangent space", [Series("score", "off", points)],
        references={"chance": sources.sweep["chance"]["rho2"]}, zero=True,
    )  # fmt: skip
    caption = (
        "The denoiser's score at the clean test images. As the noise goes to 0 a score points along the "
        "normal of the manifold; the chance line is that of a random direction."
    )
    return curves(TITLE, caption, [[panel]])
