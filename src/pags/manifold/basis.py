"""From spanning columns to orthonormal ones, at any rank."""

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pags.arrays import Basis
from pags.errors import UsageError

ENTRIES = 2**21  # of Jacobians that are orthonormalised at a time


def orthonormal_basis(
    jacobians: Float[Tensor, "n d k"], *, tolerance: float | None = None
) -> tuple[Basis, Int[Tensor, "n"]]:
    """An orthonormal basis of each Jacobian's column space, and its rank.

    The k×k Gram matrix is diagonalised in float64, J v / √λ being the basis: the cost is that of two
    matrix products, and the squaring of the condition number stays below float32's resolution.

    Args:
        jacobians: (n, d, k), finite.
        tolerance: singular values below this share of the image's largest count as zero; the default is
            max(d, k) times the resolution of the type. It is never below the root of max(d, k) times
            float64's resolution, which is what squaring leaves.

    Returns:
        Bases (n, d, r) with r the largest rank, columns past an image's rank being zero, the first columns
        belonging to the largest singular values; ranks (n,).
    """
    n, d, k = jacobians.shape
    parts = jacobians.split(max(1, ENTRIES // max(1, d * k)))
    return collected((_orthonormal(part, tolerance) for part in parts), n)


def gram_roots(
    jacobians: Float[Tensor, "n d k"], *, tolerance: float | None = None
) -> tuple[Float[Tensor, "n k k"], Int[Tensor, "n"]]:
    """C in float64 with C Cᵀ = (Jᵀ J)⁺, so that the columns of J C are an orthonormal basis; and the ranks.

    Columns past an image's rank are zero. `tolerance` is that of `orthonormal_basis`.
    """
    d, k = jacobians.shape[1:]
    exact = jacobians.double()
    peaks = exact.abs().amax((1, 2), keepdim=True) if exact.numel() else exact.new_ones(len(exact), 1, 1)
    # So that squaring neither overflows nor underflows; what is too small to be divided by counts as zero.
    peaks = torch.where(peaks > 1e-300, peaks, 1.0)
    exact = exact / peaks
    values, vectors = torch.linalg.eigh(exact.mT @ exact)  # ascending
    values, vectors = values.flip(-1).clamp_min(0), vectors.flip(-1)
    kept = values.sqrt() > _tolerance(jacobians, tolerance) * values[:, :1].sqrt()
    kept &= torch.arange(k, device=kept.device) < d
    inverse = torch.where(kept, values.clamp_min(torch.finfo(values.dtype).tiny).rsqrt(), 0.0)
    return vectors * inverse[:, None] / peaks, kept.sum(1)


def collected(parts: Iterable[tuple[Tensor, Tensor]], n: int) -> tuple[Tensor, Tensor]:
    """Bases of parts of n images as one, columns past an image's rank being zero.

    Parts are copied into the result as they come, so that nothing is held twice unless ranks differ.
    """
    bases, ranks, done = torch.zeros(0, 0, 0), [], 0
    for basis, found in parts:
        if not done:
            bases = basis.new_zeros(n, *basis.shape[1:])
        if basis.shape[2] > bases.shape[2]:
            bases = nn.functional.pad(bases, [0, basis.shape[2] - bases.shape[2]])
        bases[done : done + len(basis), :, : basis.shape[2]] = basis
        done += len(basis)
        ranks.append(found)
    return bases, torch.cat(ranks)


def check_count(count: int, least: int, what: str) -> None:
    """Raise for fewer than there must be."""
    if count < least:
        raise UsageError(f"{least} {what} or more", got=count, suggestion=f"{least}")


def _orthonormal(jacobians: Tensor, tolerance: float | None) -> tuple[Tensor, Tensor]:
    roots, ranks = gram_roots(jacobians, tolerance=tolerance)
    largest = int(ranks.max()) if len(ranks) else 0
    basis = (jacobians.double() @ roots[..., :largest]).to(jacobians.dtype)
    # What rounding left, at the largest condition numbers, is taken off.
    for _ in range(2 if basis.dtype == torch.float64 else 1):
        basis = _polished(basis, ranks)
    return basis, ranks


def _polished(basis: Tensor, ranks: Tensor) -> Tensor:
    """One Newton step towards the nearest orthonormal columns; zero columns stay zero."""
    kept = torch.arange(basis.shape[2], device=ranks.device) < ranks[:, None]
    eye = torch.diag_embed(kept.to(basis.dtype))
    return basis @ (1.5 * eye - 0.5 * (basis.mT @ basis))


def _tolerance(jacobians: Tensor, tolerance: float | None) -> float:
    size = max(jacobians.shape[1:])
    least = (size * torch.finfo(torch.float64).eps) ** 0.5
    return max(least, size * torch.finfo(jacobians.dtype).eps if tolerance is None else tolerance)
