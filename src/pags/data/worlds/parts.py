"""What the worlds are made of: seeded subspaces, groups of Gaussian classes, and scales that fit the cube."""

import math
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from pags.data.worlds.laws import Mixture
from pags.errors import UsageError
from pags.seeds import generator

Shape: TypeAlias = tuple[int, int, int]

ROOM = 7.0  # standard deviations between the mean of any pixel, in any component, and the ends of [0, 1]


def check_world(shape: Shape, classes: int, k: int, noise: float) -> int:
    """The number of pixels; raises where shape, classes, dimension or noise are out of their range."""
    if len(shape) != 3 or min(shape) < 1:
        raise UsageError("a shape (C, H, W) of positive sizes", got=shape, suggestion="shape=(1, 8, 8)")
    if classes < 2:
        raise UsageError("at least two classes", got=classes, suggestion="classes=3")
    d = math.prod(shape)
    check_dimension(k, d, "the image")
    if not 0 < noise < 0.5 / ROOM:
        raise UsageError(
            f"isotropic noise above 0 and below {0.5 / ROOM:.3g}",
            got=noise,
            suggestion="noise=0.01; without noise there is no density off the manifold",
        )
    return d


def check_dimension(k: int, d: int, where: str) -> None:
    """Raise unless a k-dimensional subspace leaves a direction off it among d pixels."""
    if not 1 <= k < d:
        raise UsageError(
            f"a dimension from 1 to {d - 1}, {where} having {d} pixels",
            got=k,
            suggestion="a smaller k or a larger shape",
        )


def check_count(number: int, least: int, what: str) -> None:
    """Raise unless there are enough of something."""
    if number < least:
        raise UsageError(f"at least {least} {what}", got=number, suggestion=str(least))


def normal(shape: tuple[int, ...], seed: int, *names: str | int) -> Tensor:
    """Standard normal numbers in float64, named."""
    return torch.randn(shape, generator=generator(seed, "world", *names), dtype=torch.float64)


def subspace(d: int, k: int, seed: int, *names: str | int) -> Float[Tensor, "d k"]:
    """An orthonormal basis of a uniformly drawn k-dimensional subspace."""
    return torch.linalg.qr(normal((d, k), seed, *names, "subspace"))[0]


def unit_rows(n: int, d: int, seed: int, *names: str | int) -> Float[Tensor, "n d"]:
    """Uniformly drawn directions."""
    rows = normal((n, d), seed, *names)
    return rows / rows.norm(dim=1, keepdim=True)


def equal(classes: int) -> Float[Tensor, " classes"]:
    """log p(y) of equally likely classes."""
    return torch.full((classes,), -math.log(classes), dtype=torch.float64)


def own_component(classes: int) -> Float[Tensor, "classes m"]:
    """log p(component | class) where each class has one component."""
    return torch.eye(classes, dtype=torch.float64).log()


def gaussians(
    basis: Float[Tensor, "d k"], groups: int, separation: float, noise: float, seed: int, *names: str | int
) -> Mixture:
    """One Gaussian a group in the span of `basis`, around the origin and in units of a group's spread.

    Means lie `separation` from the origin; each group has its own axes, of variances from 1/4 to 1.
    """
    k = basis.shape[1]
    means = separation * unit_rows(groups, k, seed, *names, "means") @ basis.T
    axes = torch.stack([basis @ subspace(k, k, seed, *names, "axes", group) for group in range(groups)])
    draws = generator(seed, "world", *names, "spreads")
    spreads = 0.25 + 0.75 * torch.rand(groups, k, generator=draws, dtype=torch.float64)
    return Mixture(means, axes, spreads, noise, own_component(groups))


def fitting(mixture: Mixture, moved: Float[Tensor, " d"] | float = 0.0) -> float:
    """The scale at which every pixel keeps ROOM standard deviations inside [0, 1] around mid-grey.

    A pixel's standard deviation is at most that of its part on the axes plus that of the noise.
    `moved` is how far each pixel's mean may be shifted besides, in the units of the means.
    """
    deviations = torch.einsum("mdr,mr->md", mixture.axes.square(), mixture.spreads).sqrt()
    reach = mixture.means.abs() + ROOM * deviations + moved
    return (0.5 - ROOM * mixture.noise) / float(reach.max())


def placed(mixture: Mixture, scale: float) -> Mixture:
    """The components scaled and moved to mid-grey; the noise stays as it is."""
    return Mixture(
        0.5 + scale * mixture.means,
        mixture.axes,
        scale**2 * mixture.spreads,
        mixture.noise,
        mixture.log_shares,
    )


def about(world: str, shape: Shape, seed: int, **choices: Any) -> dict[str, Any]:
    """Plain data that says which world this is."""
    return {"world": world, "shape": list(shape), "seed": seed, **choices}
