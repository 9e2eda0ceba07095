"""Figure 2, as an illustration made from an exact world: signal, distractor and their mask (section 3.2)."""

from pags.data.worlds import distractor_world
from pags.experiments.figures.kinds import FigureData, Line, grid
from pags.experiments.figures.sources import Sources
from pags.seeds import generator

TITLE, PLACE, NEEDS = "Signal and distractor", "3.2, Definition 3", ("world",)


def data(sources: Sources) -> FigureData:
    """Samples of the world with a known mask, their two parts, and the Bayes classifier's gradient."""
    seed = sources.settings.sweep.seed
    world = distractor_world((1, 16, 16), k=6, distractor_k=6, seed=seed)
    images, labels = world.sample(6, generator(seed, "figure 2"))
    mask = world.mask.to(images)
    grey = images - 0.5
    gradient = world.bayes_gradient(images, labels)
    lines = [
        Line("image x", grey, signed=True),
        Line("mask m(x)", mask.expand_as(images)),
        Line("signal x ⊙ m", grey * mask, signed=True),
        Line("distractor x ⊙ (1 − m)", grey * (1 - mask), signed=True),
        Line("Bayes gradient", gradient, signed=True),
    ]
    caption = (
        "Samples of an exact world whose upper half depends on the label and whose lower half does not, "
        "gradient of the Bayes classifier's log-probability is zero on the distractor (Theorem 2)."
    )
    return grid(TITLE, caption, lines)
