"""Tangent spaces: from a decoder's Jacobian to an orthonormal basis at each image.

The contract (`pags.arrays.Basis`): (n, d, r) with orthonormal columns; an image whose Jacobian has a
lower rank than r has zeros in its last columns, so that projections need not know the rank.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import jvp, vmap

from pags.arrays import Basis, Images
from pags.classifiers.modes import evaluating

Decoder = Callable[[Tensor], Tensor]
"""Latent codes (n, k) to images (n, c, h, w), each image depending on its own code alone."""


def jacobian(decode: Decoder, codes: Float[Tensor, "n k"]) -> Float[Tensor, "n d k"]:
    """The derivative of each image with respect to its code, in k forward-mode passes.

    One pass gives one column for all n images; the k passes are batched into one, so the memory is that of
    a forward pass of n·k images. Callers with many images cut them into parts.
    """
    k = codes.shape[1]
    directions = torch.eye(k, dtype=codes.dtype, device=codes.device)

    def column(direction: Float[Tensor, " k"]) -> Tensor:  # (n, c, h, w)
        return jvp(decode, (codes,), (direction.expand_as(codes),))[1]

    columns = vmap(column)(directions)  # (k, n, c, h, w)
    return columns.flatten(2).permute(1, 2, 0)


def orthonormal_basis(
    jacobians: Float[Tensor, "n d k"], *, tolerance: float | None = None
) -> tuple[Basis, Int[Tensor, "n"]]:
    """An orthonormal basis of each Jacobian's column space, and its rank.

    The k×k Gram matrix is diagonalised in float64, J v / √λ being the basis: the cost is that of two
    matrix products, and the squaring of the condition number stays below float32's resolution.

    Args:
        jacobians: (n, d, k), finite.
        tolerance: singular values below this share of the image's largest count as zero;
            the default is max(d, k) times the resolution of the type.

    Returns:
        Bases (n, d, r) with r the largest rank, columns past an image's rank being zero; ranks (n,).
    """
    d, k = jacobians.shape[1:]
    if tolerance is None:
        tolerance = max(d, k) * torch.finfo(jacobians.dtype).eps
    exact = _unit_peaks(jacobians.double())
    values, vectors = torch.linalg.eigh(exact.mT @ exact)  # ascending
    values, vectors = values.flip(-1).clamp_min(0), vectors.flip(-1)
    kept = (values.sqrt() > tolerance * values[:, :1].sqrt()) & (values > 0)
    kept &= torch.arange(k, device=kept.device) < d
    inverse = torch.where(kept, values.clamp_min(torch.finfo(values.dtype).tiny).rsqrt(), 0.0)
    ranks = kept.sum(1)
    largest = int(ranks.max()) if len(ranks) else 0
    basis = (exact @ (vectors * inverse[:, None]))[..., :largest]
    # One more pass of the same kind, now with condition number 1, takes off what rounding left.
    return _polish(basis, kept[:, :largest]).to(jacobians.dtype), ranks


class EncoderDecoder(Protocol):
    """What `decoder_tangent` needs of an autoencoder."""

    def encode(self, images: Images) -> Tensor: ...
    def decode(self, codes: Tensor) -> Images: ...


def decoder_tangent(
    autoencoder: EncoderDecoder, images: Images, *, batch_size: int = 32
) -> tuple[Basis, Int[Tensor, "n"]]:
    """Tangent bases from an autoencoder: the decoder's Jacobian at the image's own code (section 4, B.6).

    The basis belongs to the point D(E(x)) and is used at x, as in the paper.

    Args:
        autoencoder: any pair of `encode` and `decode`; a module is seen in evaluation mode.
        images: (n, c, h, w) in [0, 1].
        batch_size: images whose Jacobians are in memory at a time.

    Returns:
        Bases (n, d, r) and ranks (n,).
    """
    parts = []
    still = evaluating(autoencoder) if isinstance(autoencoder, nn.Module) else nullcontext()
    with still, torch.no_grad():
        for part in images.split(batch_size):
            codes = autoencoder.encode(part)
            parts.append(orthonormal_basis(jacobian(autoencoder.decode, codes)))
    return _stack(parts)


def _unit_peaks(jacobians: Tensor) -> Tensor:
    """Scaled so that squaring neither overflows nor underflows; the column space is the same."""
    peaks = jacobians.abs().amax((1, 2), keepdim=True) if jacobians.numel() else 1.0
    return jacobians / torch.where(torch.as_tensor(peaks) > 0, peaks, 1.0)


def _polish(basis: Tensor, kept: Tensor) -> Tensor:
    """One Newton step towards the nearest orthonormal columns; zero columns stay zero."""
    gram = basis.mT @ basis
    eye = torch.diag_embed(kept.to(basis.dtype))
    return basis @ (1.5 * eye - 0.5 * gram)


def _stack(parts: list[tuple[Basis, Tensor]]) -> tuple[Basis, Tensor]:
    """Bases of several parts as one, padded with zero columns to the largest rank."""
    largest = max(basis.shape[2] for basis, _ in parts)
    padded = [nn.functional.pad(basis, [0, largest - basis.shape[2]]) for basis, _ in parts]
    return torch.cat(padded), torch.cat([ranks for _, ranks in parts])
