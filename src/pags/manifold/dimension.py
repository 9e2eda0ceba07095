"""A guide to k, the dimension of the manifold, by a denoiser and by distances alone.

All are estimates of how many directions there are *at a scale*: that of the noise, or that of the distance to
the neighbours. A k is well chosen where they agree and change little with the scale. The denoising loss is an
upper estimate, the others may err to either side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pags.arrays import Images, PerImage, flatten
from pags.errors import UsageError
from pags.manifold.basis import check_count
from pags.manifold.denoised import Denoising
from pags.manifold.tangent import undisturbed
from pags.seeds import image_noise

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
    distances = _apart(_nearest(flatten(images).double(), neighbours))
    logs = (distances[:, -1:] / distances[:, :-1]).log().sum(1)  # (n,), (m − 1) / dimension
    return NeighbourDimension((neighbours - 2) / logs, float((neighbours - 1) / logs.mean()))


def two_nn_dimension(images: Images, *, discarded: float = 0.1) -> float:
    """The dimension from the ratio of the distances to the two nearest neighbours alone (TwoNN).

    The logarithm of the ratio is exponential with the dimension as its rate, wherever the density is constant
    over so short a distance. The largest ratios, of images that lie apart, count as censored.

    Args:
        images: (n, c, h, w), all different.
        discarded: the share of the largest ratios, from 0 to below 1.

    Returns:
        The unbiased maximum-likelihood estimate.

    Raises:
        UsageError: fewer than three images, two equal ones, or a share out of its range.

    Source: Facco, d'Errico, Rodriguez and Laio 2017; the likelihood is that of Denti et al. 2022, censored.
    """
    check_count(len(images), 3, "images")
    kept = int(len(images) * (1 - discarded))
    if not 0 <= discarded < 1 or kept < 2:
        raise UsageError(
            "a discarded share from 0 that leaves two images", got=discarded, suggestion="discarded=0.1"
        )
    distances = _apart(_nearest(flatten(images).double(), 2))
    logs = (distances[:, 1] / distances[:, 0]).log().sort().values
    return float((kept - 1) / (logs[:kept].sum() + (len(logs) - kept) * logs[kept - 1]))


@dataclass(frozen=True)
class DenoisingDimension:
    """What `denoising_dimension` has found.

    Args:
        per_image: (n,), an estimate at each image.
        error: (n,), its Monte-Carlo standard error.
    """

    per_image: PerImage
    error: PerImage


def denoising_dimension(
    denoiser: Denoising,
    images: Images,
    sigma: float,
    *,
    draws: int = 8,
    seed: int = 0,
    places: Sequence[int] | None = None,
) -> DenoisingDimension:
    """The denoising loss in units of the noise's variance: an upper estimate of the intrinsic dimension.

    Noise along the manifold cannot be told from the image, so that the best denoiser leaves its share of
    one per dimension: E‖D(x + n) − x‖² / (σ/2)² falls to the dimension as sigma goes to 0, and any other
    denoiser leaves more. Of Gaussian data the best has Σ v / (v + (σ/2)²), over all variances v: directions
    narrower than the noise are not counted.

    Args:
        denoiser: noisy images and sigma to the posterior mean.
        images: (n, c, h, w) in [0, 1], of the distribution and not seen in training.
        sigma: noise level in EDM's unit, above 0.
        draws: noises per image, two or more.
        seed, places: name the draws of each image, see `image_noise`.

    Raises:
        UsageError: a number out of its range.

    Source: Yeats et al. 2025 (arXiv 2510.12975).
    """
    check_count(draws, 2, "draws")
    if not sigma > 0:
        raise UsageError("a noise level above zero", got=sigma, suggestion="sigma=0.1")
    losses = []
    with undisturbed(denoiser), torch.no_grad():
        for draw in range(draws):
            noise = sigma / 2 * image_noise(images, seed, "denoising dimension", draw, places=places)
            error = flatten(denoiser(images + noise, sigma) - images).double()
            losses.append(error.square().sum(1) / (sigma / 2) ** 2)
    found = torch.stack(losses)
    return DenoisingDimension(found.mean(0).to(images.dtype), (found.std(0) / draws**0.5).to(images.dtype))


def _apart(distances: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
    if not (distances > 0).all():
        raise UsageError("images that all differ", got="two equal ones", suggestion="leaving duplicates out")
    return distances


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
