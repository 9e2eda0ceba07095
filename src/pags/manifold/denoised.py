"""Tangent spaces from a denoiser: the leading directions of its Jacobian."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import jvp, vmap

from pags.arrays import Basis, Images
from pags.errors import PagsError, UsageError
from pags.manifold.basis import check_count, collected
from pags.manifold.tangent import TANGENTS, undisturbed
from pags.seeds import generator

Denoising = Callable[[Tensor, float], Tensor]
"""Noisy images and sigma to the posterior mean; every `pags.score.denoiser.Denoiser` is one."""

Pair = tuple[Tensor, Tensor]
"""Bases (n, d, k) and eigenvalues (n, k)."""
Movement = Callable[[Pair, Pair], Tensor]
"""How far two iterates of each image are apart."""

SPARE = 8  # columns iterated beside the k wanted, which speed up convergence (Halko et al. 2011, 1.3)


@dataclass(frozen=True)
class DenoiserTangent:
    """The k leading directions of a denoiser's Jacobian at the image.

    The Jacobian of the ideal denoiser is the covariance of the clean image given the noisy one, divided by
    the noise's variance, (sigma / 2)² here: symmetric, with eigenvalues near 1 along the manifold and near 0
    across (Mohan et al. 2020; Kadkhodaie et al. 2024). Found by block power iterations of k + 8 forward-mode
    passes each. These stay within the range of the Jacobian also for a trained denoiser, whose Jacobian is
    not symmetric.

    Args:
        denoiser: as `pags.score.denoiser.Denoiser`; forward-mode differentiation must be able to follow it.
        sigma: noise level in EDM's unit, above 0; below the manifold's curvature, above the data's noise.
        k: dimension of the tangent spaces.
        steps: power iterations at most.
        tolerance: the sine of the largest angle that the space may still have moved in the last step.
        seed: names the first block, which is the same for every image.
        batch_size: images that are iterated at a time.

    Raises:
        UsageError: a number out of its range; a denoiser that forward mode cannot follow.
        PagsError: a space that is still moving after `steps` iterations.
    """

    denoiser: Denoising
    sigma: float
    k: int
    steps: int = 50
    tolerance: float = 1e-3
    seed: int = 0
    batch_size: int = 32

    def __post_init__(self) -> None:
        for count, what in (
            (self.k, "dimensions"),
            (self.steps, "steps"),
            (self.batch_size, "images per batch"),
        ):
            check_count(count, 1, what)
        if not self.sigma > 0:
            raise UsageError("a noise level above zero", got=self.sigma, suggestion="sigma=0.5")

    def __call__(self, images: Images) -> tuple[Basis, Int[Tensor, "n"]]:
        with undisturbed(self.denoiser), torch.no_grad():
            found = [self._iterated(part, _movement) for part in images.split(self.batch_size)]
        return collected(((basis, (values > 0).sum(1)) for basis, values in found), len(images))

    def spectrum(self, images: Images) -> Float[Tensor, "n k"]:
        """The k largest eigenvalues of the Jacobian (symmetrised within the space found), descending.

        The iteration ends when they change by less than `tolerance`, so that k need not be at a gap.

        Raises:
            UsageError, PagsError: as a call.
        """
        with undisturbed(self.denoiser), torch.no_grad():
            parts = images.split(self.batch_size)
            return torch.cat([self._iterated(part, _change)[1] for part in parts])

    def _iterated(self, images: Images, movement: Movement) -> Pair:
        """Bases (n, d, k) and eigenvalues (n, k); an image is done when its own have come to rest."""
        start = self._start(images[:1].numel()).to(images)
        blocks = start.expand(len(images), -1, -1).clone()
        basis, values = torch.zeros_like(blocks[:, :, : self.k]), torch.zeros_like(blocks[:, 0, : self.k])
        moving = torch.arange(len(images), device=images.device)
        for _ in range(self.steps):
            blocks[moving], *found = self._step(images[moving], blocks[moving])
            moved = movement((basis[moving], values[moving]), (found[0], found[1]))
            basis[moving], values[moving] = found
            moving = moving[moved > self.tolerance]
            if not len(moving):
                return basis, values
        raise PagsError(
            f"a movement below {self.tolerance} after {self.steps} steps",
            got=f"{len(moving)} of {len(images)} images still moving, by {float(moved.max()):.2g} at most",
            suggestion="a k at a gap of `spectrum`, more steps or a larger tolerance",
        )

    def _start(self, d: int) -> Float[Tensor, "d q"]:
        if self.k > d:
            raise UsageError(
                f"at most {d} dimensions, as many as pixels", got=self.k, suggestion="a smaller k"
            )
        draws = generator(self.seed, "denoiser tangent")
        block = torch.randn(d, min(d, self.k + SPARE), generator=draws, dtype=torch.float64)
        return torch.linalg.qr(block)[0]

    def _step(self, images: Tensor, blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The next block, and the best k directions (n, d, k) of this one with their values (n, k)."""
        pushed = self._pushed(images, blocks)
        inner = blocks.mT @ pushed
        values, vectors = torch.linalg.eigh((inner + inner.mT) / 2)  # Rayleigh-Ritz
        best, values = vectors.flip(-1)[:, :, : self.k], values.flip(-1)[:, : self.k]
        # Directions that the Jacobian does not have are no part of the space; the rank is what is left.
        kept = values > blocks.shape[1] * torch.finfo(values.dtype).eps * values[:, :1].clamp_min(0)
        return torch.linalg.qr(pushed)[0], blocks @ best * kept[:, None], values * kept

    def _pushed(self, images: Images, blocks: Float[Tensor, "n d q"]) -> Float[Tensor, "n d q"]:
        """The Jacobian times each column."""

        def push(column: Float[Tensor, "n d"]) -> Tensor:
            return jvp(lambda x: self.denoiser(x, self.sigma), (images,), (column.reshape(images.shape),))[1]

        try:
            columns = vmap(push, in_dims=2, chunk_size=max(1, TANGENTS // len(images)))(blocks)  # (q, n, ...)
        except NotImplementedError as error:
            raise UsageError(
                "a denoiser that forward-mode differentiation can follow",
                got=str(error).partition(".")[0],
                suggestion="writing that operation with matrix products (torch.cdist has no forward mode)",
            ) from error
        return columns.flatten(2).permute(1, 2, 0)


def _movement(before: Pair, after: Pair) -> Tensor:
    """The sine of the largest angle between two spaces, (n,)."""
    rest = after[0] - before[0] @ (before[0].mT @ after[0])
    return torch.linalg.matrix_norm(rest, 2)


def _change(before: Pair, after: Pair) -> Tensor:
    """The largest change of an eigenvalue, (n,)."""
    return (after[1] - before[1]).abs().amax(1)
