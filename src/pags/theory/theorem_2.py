"""Theorem 2: the Bayes gradient of log p(y|x) vanishes on the distractor; those of raw log-densities do not.

And what its proof takes for granted: that ∇ₓ log p(x|y) is tangent to the manifold. As the noise goes to zero
a score points along the normal (Stanczuk et al. 2024). The Bayes gradient is tangent nevertheless where the
normal parts of the classes' scores cancel, which needs one manifold for all classes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from pags.arrays import Images, Labels, PerImage, dots
from pags.claims import TANGENT
from pags.data.worlds import World
from pags.measure.robustness import off_manifold_share
from pags.measure.statistics import Interval
from pags.seeds import generator
from pags.store import Record
from pags.theory.rows import exactly, over_images, part, row

PLACE = "Theorem 2 (3.2, A)"


def theorem_2(
    slider: Sequence[World],
    manifolds: Mapping[str, World],
    *,
    seed: int,
    images: int,
    sigmas: Sequence[float],
) -> Record:
    """Where the gradients of the Bayes classifier and of the densities point.

    Args:
        slider: signal × distractor worlds that differ in `informative` alone, rising from 0.
        manifolds: worlds by the kind of their manifold.
        seed: names images and resampling.
        images: samples a world.
        sigmas: noise levels in EDM's unit, rising.

    Returns:
        Rows on the distractor and its slider, and for each kind of manifold one on the score and one on the
        Bayes gradient; the shares over the slider and over σ, with intervals.
    """
    slides = [_slide(world, seed, images) for world in slider]
    shares = {name: _shares(world, sigmas, seed, images) for name, world in manifolds.items()}
    rows = _distractor_rows(slides, seed)
    for name, share in shares.items():
        rows += _tangent_rows(name, share, sigmas[0], seed)
    return part(
        rows,
        slider=[
            {"informative": s.informative, "bayes": _found(s.bayes, seed), "density": _found(s.density, seed)}
            for s in slides
        ],
        sigmas=list(sigmas),
        manifolds={
            name: {kind: [_found(values, seed) for values in share[kind]] for kind in share}
            | {"chance": 1 - manifolds[name].k / math.prod(manifolds[name].shape)}
            for name, share in shares.items()
        },
    )


@dataclass(frozen=True)
class Slide:
    """Per-image shares of the distractor in the energy of two gradients, at one setting of the slider."""

    informative: float
    bayes: PerImage
    density: PerImage


def _slide(world: World, seed: int, n: int) -> Slide:
    """The same draws for every setting, so that differences are paired."""
    x, labels = world.sample(n, generator(seed, "slider"))
    bayes, density = world.bayes_gradient(x, labels), world.score(x, labels=labels)
    return Slide(world.about["informative"], _outside(bayes, world), _outside(density, world))


def _outside(vectors: Images, world: World) -> PerImage:
    """The share of each vector's energy on the distractor."""
    off = vectors * ~world.mask
    return dots(off, off) / dots(vectors, vectors)


def _shares(world: World, sigmas: Sequence[float], seed: int, n: int) -> dict[str, list[PerImage]]:
    """Off-manifold shares over σ: of the Bayes gradient, and of the score at clean and at noisy images."""
    x, labels = world.sample(n, generator(seed, "manifold"))
    noise = torch.randn(x.shape, generator=generator(seed, "noise"), dtype=x.dtype)
    basis = world.tangent_basis(x)
    return {
        "bayes": [off_manifold_share(_bayes(world, x, labels, s), basis) for s in sigmas],
        "score": [off_manifold_share(world.score(x, s, labels), basis) for s in sigmas],
        "noisy": [off_manifold_share(world.score(x + s / 2 * noise, s, labels), basis) for s in sigmas],
    }


def _bayes(world: World, x: Images, labels: Labels, sigma: float) -> Images:
    """The Bayes gradient for the likeliest wrong class, which does not fade.

    Where classes are far apart p(y | x) is 1 to the last digit. The gradient of log p(j | x) for another j is
    then the difference of their scores, of the same direction and in full size.
    """
    others = world.log_posterior(x, sigma).scatter(1, labels[:, None], -torch.inf).argmax(1)
    return world.bayes_gradient(x, others, sigma)


def _mean(values: PerImage, seed: int) -> Interval:
    return over_images(values, generator(seed, "share"))


def _found(values: PerImage, seed: int) -> Record:
    return _mean(values, seed).to_record()


def _distractor_rows(slides: Sequence[Slide], seed: int) -> list[Record]:
    first = slides[0]
    steps = [_mean(b.bayes - a.bayes, seed) for a, b in pairwise(slides)]
    return [
        row(
            "Bayes gradient on the distractor", PLACE,
            "∇ log p(y|x) vanishes on a distractor that is independent of the label.",
            "largest share of its energy on the distractor, over images; below 1e-20",
            exactly(float(first.bayes.max())), below=1e-20, expected=0.0,
        ),
        row(
            "log-density's gradient on the distractor", PLACE,
            "∇ log p(x|y) does not vanish there.",
            "mean share of its energy on the distractor; above 0.01",
            _mean(first.density, seed), above=0.01,
        ),
        row(
            "an informative distractor", "Definition 3",
            "The Bayes gradient's share rises with what the distractor tells about the label.",
            "smallest mean rise from one setting of the slider to the next; above 0",
            min(steps, key=lambda step: step.low), above=0.0,
        ),
    ]  # fmt: skip


def _tangent_rows(
    name: str, shares: Mapping[str, Sequence[PerImage]], sigma: float, seed: int
) -> list[Record]:
    rule = f"mean share of its energy off the manifold at σ = {sigma:.2g}; below {TANGENT:g}"
    return [
        row(
            f"{name}: ∇ log p(x|y) is tangent", "proof of Theorem 2 (A)",
            "The gradients of the log-densities lie tangent to the data manifold.",
            rule, _mean(shares["score"][0], seed), below=TANGENT, expected=0.0,
        ),
        row(
            f"{name}: Bayes gradient is tangent", PLACE,
            "The gradient of log p(y|x) lies tangent to the data manifold.",
            rule, _mean(shares["bayes"][0], seed), below=TANGENT, expected=0.0,
        ),
    ]  # fmt: skip
