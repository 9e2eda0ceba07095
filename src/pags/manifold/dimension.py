"""A guide to k, the dimension of the manifold, by the spectrum of a denoiser and by distances alone.

Both are per image, and both are estimates of how many directions there are *at a scale*: that of the noise,
or that of the distance to the neighbours. A k is well chosen where the two agree and change little with the
scale.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pags.arrays import Images, PerImage, flatten
from pags.errors import UsageError
from pags.manifold.basis import check_count

ROWS = 512  # images whose distances to all others are in memory at a time


def spectral_dimension(spectrum: Float[Tensor, "n q"]) -> Int[Tensor, "n"]:
    """The number of eigenvalues of a denoiser's Jacobian above one half, for each image.

    An eigenvalue of the ideal denoiser is v / (v + noise) for Gaussian data of variance v along a direction
    (noise = (sigma / 2)² here): above one half are the directions along which the data vary more than the
    noise. The rule is preferred to the largest gap because it means the same for every spectrum, while the
    largest gap of one that falls slowly is an accident. Directions narrower than the noise are not seen, so
    the answer falls as sigma grows.

    Args:
        spectrum: (n, q), as `DenoiserTangent(denoiser, sigma, q).spectrum(images)` gives it.

    Returns:
        Dimensions (n,); an answer of q means q or more.

    Source: Kadkhodaie et al. 2024 (the spectrum); Stanczuk et al. 2024 (dimension from a diffusion model).
    """
    return (spectrum > 0.5).sum(1)


@dataclass(frozen=True)
class NeighbourDimension:
    """What `neighbour_dimension` has found.

    Args:
        per_image: (n,), an estimate at each image, with a relative standard error of 1 / √(neighbours − 2).
        pooled: one estimate for all.
    """

    per_image: PerImage
    pooled: float


def neighbour_dimension(images: Images, *, neighbours: int = 20) -> NeighbourDimension:
    """The dimension at which distances to the nearest neighbours grow: the maximum-likelihood estimator.

    With T_j the distance to the j-th neighbour of m, 1 / dimension is the mean of log(T_m / T_j) over the j
    below m. It takes the density for constant among the neighbours. Bias: with fewer than about
    10^(dimension / 2) images it is too low (Eckmann and Ruelle 1992), and noise that is not small against the
    distances lifts it towards the number of pixels.

    Args:
        images: (n, c, h, w), all different.
        neighbours: m, from 3 to n − 1; few for a small scale, many for a small variance.

    Returns:
        Per image the unbiased version with m − 2 in place of m − 1; pooled the inverse of the mean of the
        inverses, which is the maximum-likelihood estimate of all images together.

    Raises:
        UsageError: a number of neighbours out of its range, or two equal images.

    Source: Levina and Bickel 2004; the pooling is MacKay and Ghahramani's correction of 2005.
    """
    check_count(neighbours, 3, "neighbours")
    check_count(len(images), neighbours + 1, "images (one more than neighbours)")
    distances = _nearest(flatten(images).double(), neighbours)
    if not (distances > 0).all():
        raise UsageError("images that all differ", got="two equal ones", suggestion="leaving duplicates out")
    logs = (distances[:, -1:] / distances[:, :-1]).log().sum(1)  # (n,), (m − 1) / dimension
    return NeighbourDimension((neighbours - 2) / logs, float((neighbours - 1) / logs.mean()))


def _nearest(points: Float[Tensor, "n d"], count: int) -> Float[Tensor, "n m"]:
    """Distances to the nearest other points, ascending."""
    points = points - points.mean(0)  # so that little cancels
    found = []
    for first in range(0, len(points), ROWS):
        distances = torch.cdist(points[first : first + ROWS], points)
        rows = torch.arange(len(distances))
        distances[rows, first + rows] = torch.inf
        found.append(distances.topk(count, largest=False).values)
    return torch.cat(found)
