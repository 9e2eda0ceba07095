"""Principal angles: how far two tangent spaces are apart."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from pags.arrays import Basis

IMAGES = 64  # whose bases are worked on in float64 at a time


def principal_angles(a: Basis, b: Float[Tensor, "n d s"]) -> Float[Tensor, "n m"]:
    """The principal angles between two subspaces of each image, the largest first (so cosines ascend).

    Args:
        a, b: bases (n, d, r) and (n, d, s) with orthonormal columns; columns past an image's rank are zero.

    Returns:
        Angles (n, min(r, s)) in radians, from 0 to π/2, in float64. Two subspaces have as many angles as the
        smaller one has dimensions: where that is below min(r, s), the last entries are 0, which leaves
        the largest angle true. Small angles are exact to about 1e-8: sines are used beside the cosines.

    Source: Björck and Golub 1973; Knyazev and Argentati 2002, algorithm 3.2.
    """
    pairs = zip(a.split(IMAGES), b.split(IMAGES), strict=True)
    return torch.cat([_angles(x.double(), y.double()) for x, y in pairs])


def _angles(a: Tensor, b: Tensor) -> Tensor:
    fewest, most = sorted((a.shape[2], b.shape[2]))
    a, b = _larger_first(pad(a, [0, most - a.shape[2]]), pad(b, [0, most - b.shape[2]]))
    inner = a.mT @ b  # (n, r, r); zero columns give zeros
    cosines = torch.linalg.svdvals(inner)[:, :fewest].clamp_max(1)  # descending
    rest = b - a @ inner
    sines = torch.linalg.eigvalsh(rest.mT @ rest).flip(-1)[:, :fewest].clamp_min(0).sqrt()  # descending
    # The i-th largest sine goes with the i-th smallest cosine among the angles that there are.
    count = _ranks(b)[:, None]
    place = torch.arange(fewest, device=a.device)
    partner = (count - 1 - place).clamp_min(0)
    angles = torch.atan2(sines, cosines.gather(1, partner))
    return torch.where(place < count, angles, 0.0)


def _larger_first(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The two spaces of each image, that of the higher rank first."""
    swap = (_ranks(a) < _ranks(b))[:, None, None]
    return torch.where(swap, b, a), torch.where(swap, a, b)


def _ranks(basis: Tensor) -> Tensor:
    """The number of columns that are not zero, (n,)."""
    return (basis.square().sum(1) > 0.5).sum(1)
