"""Theorem 1: rho1(σ) → rho2 as σ → 0, for any function and any projection, and how fast."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pags.arrays import Basis, Images, Labels, PerImage, dots, split
from pags.classifiers.modes import predict
from pags.measure.gradients import input_gradient
from pags.measure.robustness import off_manifold_share
from pags.measure.statistics import interval
from pags.seeds import generator
from pags.store import Record
from pags.theory.rows import exactly, over_images, part, row, slope

PLACE = "Theorem 1 (3.1, A)"
MARGIN = 0.3  # of a rate: tells 1 from 2, and leaves room for terms of higher order


@dataclass(frozen=True)
class Subject:
    """A classifier in float64 and what is predicted of it.

    Args:
        model: images to logits.
        rate: the power of σ with which |rho1 − rho2|, averaged over images, goes to zero; None where the two
            are equal at every σ, as for a linear model.
        noise: standard deviations σ of the noise, rising, for images in [0, 1].
    """

    model: nn.Module
    rate: float | None
    noise: Sequence[float]


@dataclass(frozen=True)
class Approach:
    """rho1 at each noise level and its limit rho2, for each image."""

    rho1: Float[Tensor, "s n"]
    rho2: PerImage

    @property
    def distance(self) -> Float[Tensor, "s n"]:
        """|rho1 − rho2|."""
        return (self.rho1 - self.rho2).abs()


def theorem_1(
    subjects: Mapping[str, Subject],
    images: Images,
    labels: Labels,
    bases: Mapping[str, Basis],
    *,
    seed: int,
    directions: int = 64,
) -> Record:
    """The distance of rho1(σ) and rho2 for each model and each estimate of the tangent space.

    Args:
        subjects: models by name.
        images: (n, c, h, w) in [0, 1], float64.
        labels: (n,) the class whose logit is the scalar f.
        bases: tangent bases (n, d, r) by the name of their estimator. The theorem holds for any projection.
        seed: names the directions and the resampling.
        directions: pairs of opposite directions an image.

    Returns:
        Two rows a nonlinear model, the limit and the rate, one row a linear one, each for the worst of the
        estimators; the curves.
    """
    rows, curves = [], {}
    for name, subject in subjects.items():
        found = approach(subject, images, labels, bases, draws=generator(seed, name), directions=directions)
        curves[name] = {
            "noise": list(subject.noise),
            "rate": subject.rate,
            "bases": {basis: _curve(result) for basis, result in found.items()},
        }
        rows += _rows(name, subject, found, seed)
    return part(rows, **curves)


def approach(
    subject: Subject,
    images: Images,
    labels: Labels,
    bases: Mapping[str, Basis],
    *,
    draws: torch.Generator,
    directions: int,
) -> dict[str, Approach]:
    """rho1(σ) and rho2 for each basis, with the same directions for all of them.

    Definition 1's expectations are σ²‖g‖² and σ²‖P⊥g‖² plus corrections of higher order. Only the corrections
    are estimated, as means of (f(x + u) − f(x))² − (g·u)² over pairs ±u. The estimate of the expectations
    is unbiased for any f, and its error falls with σ as fast as the distance that is looked for; that of the
    plain means does not fall at all.
    """
    gradient = input_gradient(subject.model, images, "logit", labels)
    base = _logit(subject.model, images, labels)
    u = torch.randn((directions, *images.shape), generator=draws, dtype=images.dtype)

    def correction(moves: Float[Tensor, "m n c h w"], sigma: float) -> PerImage:
        linear = sigma * torch.vmap(lambda move: dots(gradient, move))(moves)  # (m, n)
        both = sum(
            (_logit(subject.model, (images + sign * sigma * moves).flatten(0, 1), labels.repeat(len(moves)))
             .reshape(linear.shape) - base).square()
            for sign in (-1, 1)
        )  # fmt: skip
        return (both / 2 - linear.square()).mean(0)

    every = [correction(u, sigma) for sigma in subject.noise]
    total = dots(gradient, gradient)
    found = {}
    for name, basis in bases.items():
        off = torch.vmap(lambda move, basis=basis: split(move, basis)[1])(u)
        rho2 = off_manifold_share(gradient, basis)
        rho1 = [
            (sigma**2 * rho2 * total + correction(off, sigma)) / (sigma**2 * total + all_)
            for sigma, all_ in zip(subject.noise, every, strict=True)
        ]
        found[name] = Approach(torch.stack(rho1), rho2)
    return found


def _logit(model: nn.Module, images: Images, labels: Labels) -> PerImage:
    return predict(model, images, batch_size=8192).gather(1, labels[:, None])[:, 0]


def _curve(found: Approach) -> Record:
    return {
        "rho2": float(found.rho2.mean()),
        "rho1": found.rho1.mean(1).tolist(),
        "distance": found.distance.mean(1).tolist(),
        "distance_error": (found.distance.std(1) / found.distance.shape[1] ** 0.5).tolist(),
    }


def _rows(name: str, subject: Subject, found: Mapping[str, Approach], seed: int) -> list[Record]:
    if subject.rate is None:
        worst = max(float(result.distance.max()) for result in found.values())
        return [
            row(
                f"{name}: rho1 = rho2 at every σ", PLACE,
                "For a linear model the two agree at every noise level, for every tangent space.",
                "largest |rho1 − rho2| over images, σ and estimators; below 1e-9",
                exactly(worst), below=1e-9, expected=0.0,
            )
        ]  # fmt: skip
    return [_limit(name, subject, found, seed), _rate(name, subject, found, seed)]


def _limit(name: str, subject: Subject, found: Mapping[str, Approach], seed: int) -> Record:
    basis = max(found, key=lambda basis: float(found[basis].distance[0].mean()))
    distance = over_images(found[basis].distance[0], generator(seed, "limit", name))
    return row(
        f"{name}: rho1 → rho2", PLACE,
        f"The two agree in the limit, for every tangent space (farthest: {basis}).",
        f"mean |rho1 − rho2| at σ = {subject.noise[0]:.2g}, for the worst estimator; below 0.01",
        distance, below=0.01, expected=0.0,
    )  # fmt: skip


def _rate(name: str, subject: Subject, found: Mapping[str, Approach], seed: int) -> Record:
    noise, rate = torch.tensor(subject.noise), subject.rate
    assert rate is not None  # _rows has dealt with linear models
    slopes = {
        basis: interval(
            lambda means: slope(noise, means), result.distance.T, draws=generator(seed, "rate", name)
        )
        for basis, result in found.items()
    }
    basis = max(slopes, key=lambda basis: abs(slopes[basis].estimate - rate))
    return row(
        f"{name}: rate of the limit", PLACE,
        f"|rho1 − rho2| falls like σ^{rate:g} (farthest from it: {basis}).",
        f"log-log slope of the mean over images, for the worst estimator; within {MARGIN:g} of {rate:g}",
        slopes[basis], above=rate - MARGIN, below=rate + MARGIN, expected=rate,
    )  # fmt: skip
