"""A world on a curved manifold: a torus, embedded by waves with a known Jacobian."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pags.arrays import Basis
from pags.data.worlds.laws import Mixture
from pags.data.worlds.parts import ROOM, Shape, about, check_world, subspace
from pags.data.worlds.world import Tangent, World
from pags.errors import UsageError

MOST_CENTRES = 40_000
SPACING = 1.5  # between neighbouring centres, in standard deviations of the noise
HARMONIC = 0.3  # amplitude of the second harmonics and of the mixed waves, which make the curvature vary
STEPS = 12  # Gauss-Newton steps to the nearest point of the manifold, from the nearest centre


@dataclass(frozen=True)
class Embedding:
    """Latents z in [0, 1)ᵏ, periodic, to images: 0.5 + W (a cos 2πKz, a sin 2πKz).

    The first k waves alone embed a flat torus, so the Jacobian has rank k everywhere.

    Args:
        waves: (f, k), whole numbers: K.
        amplitudes: (f,): a.
        directions: (d, 2f), orthonormal columns: W.
    """

    waves: Float[Tensor, "f k"]
    amplitudes: Float[Tensor, " f"]
    directions: Float[Tensor, "d g"]

    def __call__(self, z: Float[Tensor, "n k"]) -> Float[Tensor, "n d"]:
        phases = 2 * math.pi * z @ self.waves.T  # (n, f)
        features = torch.cat([self.amplitudes * phases.cos(), self.amplitudes * phases.sin()], 1)
        return 0.5 + features @ self.directions.T

    def jacobian(self, z: Float[Tensor, "n k"]) -> Float[Tensor, "n d k"]:
        """The derivative of each image with respect to its latents."""
        phases = 2 * math.pi * z @ self.waves.T
        slopes = torch.cat([-self.amplitudes * phases.sin(), self.amplitudes * phases.cos()], 1)  # (n, 2f)
        inner = 2 * math.pi * slopes[:, :, None] * self.waves.repeat(2, 1)  # (n, 2f, k)
        return self.directions @ inner

    def foot(self, points: Float[Tensor, "n d"], start: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """The latents of the nearest points of the manifold, by Gauss-Newton steps from `start`."""
        z = start
        for _ in range(STEPS):
            jacobian = self.jacobian(z)
            pull = jacobian.mT @ (points - self(z))[:, :, None]  # (n, k, 1)
            z = z + torch.linalg.solve(jacobian.mT @ jacobian, pull)[:, :, 0]
        return z


def curved_world(
    shape: Shape = (1, 8, 8),
    *,
    classes: int = 3,
    k: int = 2,
    sharpness: float = 3.0,
    noise: float = 0.03,
    seed: int = 0,
) -> World:
    """World (c): a k-dimensional torus, curved everywhere, with labels that depend smoothly on the place.

    A continuous density on such a manifold has no elementary score. The world is therefore defined as the
    mixture of normal distributions N(centre, noise² I) around a regular grid of the torus, whose neighbours
    are at most 1.5 `noise` apart: what is computed for it is exact, and it is the continuous density but for
    ripples. On the manifold they are about 2 exp(−2π² / 1.5²) = 3e-4 of it along an axis, off it more where
    it bends away: 3e-4 on average over samples, rarely 1 %. The tangent basis at x comes from the known
    Jacobian at the point of the torus nearest to x.

    Args:
        k: dimension of the torus; 6k − 2 pixels are needed, and at most 40,000 centres.
        sharpness: how fast p(y | z) changes along the first latent axis; at 0 labels are noise.
        shape, classes, noise, seed: see `linear_world`.

    Raises:
        UsageError: an argument out of its range, too few pixels, or too many centres.
    """
    d = check_world(shape, classes, k, noise)
    embedding = make_embedding(d, k, noise, seed)
    grid = _grid(embedding, noise)
    shares, prior = _classes(grid, classes, sharpness)
    law = Mixture(
        embedding(grid), torch.zeros(len(grid), d, 0, dtype=torch.float64),
        torch.zeros(len(grid), 0, dtype=torch.float64), noise, shares,
    )  # fmt: skip
    said = about("curved", shape, seed, classes=classes, k=k, sharpness=sharpness, noise=noise)
    mask = torch.ones(shape, dtype=torch.bool)
    return World(shape, k, law, prior, _nearest_tangent(embedding, grid, law), mask, said)


def make_embedding(d: int, k: int, noise: float, seed: int) -> Embedding:
    """A torus scaled so that every pixel keeps 7 standard deviations of the noise inside [0, 1]."""
    axes = torch.eye(k, dtype=torch.float64)
    waves = torch.cat([axes, 2 * axes, axes[:-1] + axes[1:]])
    if 2 * len(waves) > d:
        raise UsageError(
            f"at least {2 * len(waves)} pixels for a {k}-dimensional torus",
            got=d,
            suggestion="a smaller k or a larger shape",
        )
    amplitudes = torch.full((len(waves),), HARMONIC, dtype=torch.float64)
    amplitudes[:k] = 1
    directions = subspace(d, 2 * len(waves), seed, "curved")
    # The most that a pixel can leave mid-grey: a wave a cos + b sin has the amplitude √(a² + b²).
    cosines, sines = directions.chunk(2, dim=1)
    reach = float((torch.hypot(cosines, sines) @ amplitudes).max())
    return Embedding(waves, amplitudes * (0.5 - ROOM * noise) / reach, directions)


def _grid(embedding: Embedding, noise: float) -> Float[Tensor, "m k"]:
    """A regular grid of latents whose neighbours are at most SPACING `noise` apart in the image."""
    speeds = 2 * math.pi * (embedding.amplitudes[:, None] * embedding.waves).norm(dim=0)  # at most, an axis
    counts = [math.ceil(speed / (SPACING * noise)) for speed in speeds.tolist()]
    if math.prod(counts) > MOST_CENTRES:
        raise UsageError(
            f"a torus that {MOST_CENTRES} centres cover at distances of {SPACING} noise",
            got=f"{math.prod(counts)} centres",
            suggestion="more noise or a smaller k",
        )
    ticks = [torch.arange(count, dtype=torch.float64) / count for count in counts]
    return torch.cartesian_prod(*ticks).reshape(-1, len(counts))


def _classes(
    grid: Float[Tensor, "m k"], classes: int, sharpness: float
) -> tuple[Float[Tensor, "classes m"], Float[Tensor, " classes"]]:
    """log p(centre | class) and log p(class), from p(y | z) ∝ exp(sharpness · cos 2π(z₁ − y / classes))."""
    places = torch.arange(classes, dtype=torch.float64) / classes
    logits = sharpness * (2 * math.pi * (grid[:, :1] - places)).cos()
    joint = logits.log_softmax(1).T - math.log(len(grid))  # (classes, m)
    prior = joint.logsumexp(1)
    return joint - prior[:, None], prior


def _nearest_tangent(embedding: Embedding, grid: Float[Tensor, "m k"], law: Mixture) -> Tangent:
    """The Jacobian's column space at the point of the manifold nearest to each image."""

    def tangent(points: Float[Tensor, "n d"]) -> Basis:
        nearest = grid[law.log_components(points, 0.0).argmax(1)]
        return torch.linalg.qr(embedding.jacobian(embedding.foot(points, nearest)))[0]

    return tangent
