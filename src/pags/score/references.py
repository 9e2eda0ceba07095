"""What gradients are compared with, estimated at the clean image or over noise, with its error.

A denoiser was trained on noisy images, and at a clean one its answer depends on how it goes on from there.
The other estimate is the mean over noise of its level, E[s(x + σn)] = 4 (E[D(x + σn)] − x) / σ². Which of the
two was taken can decide how alike a gradient looks, so an estimate says what it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from pags.arrays import Images, Labels, PerImage, norms
from pags.errors import UsageError
from pags.score.denoiser import Denoiser, bayes_direction, score_of
from pags.seeds import image_noise


@dataclass(frozen=True)
class Estimate:
    """A reference with what is known of its precision.

    Args:
        vectors: (n, c, h, w).
        error: (n,) the length of the Monte-Carlo standard error, in the unit of the vectors; 0 at the clean
            image, where nothing was drawn. A cosine with the vectors is about 1 / √(1 + error² / length²) of
            the cosine with what they estimate.
        estimator: in words.
    """

    vectors: Images
    error: PerImage
    estimator: str

    @property
    def relative_error(self) -> PerImage:
        """The error in units of each vector's length."""
        return self.error / norms(self.vectors)


def score_estimate(
    denoiser: Denoiser,
    images: Images,
    sigma: float,
    labels: Labels | None = None,
    *,
    draws: int = 0,
    seed: int = 0,
    places: Sequence[int] | None = None,
) -> Estimate:
    """The score at each image (draws = 0), or its mean over noise of level sigma.

    Args:
        denoiser, images, sigma, labels: as in `score_of`.
        draws: noises per image, of which each is used with both signs (what is odd in the noise cancels); 2
            or more, so that there is an error. Classes, noise levels and denoisers are given equal noise.
        seed, places: name the draws of each image, see `image_noise`.

    Raises:
        UsageError: as `score_of`; a single draw.
    """
    return _estimate(lambda x: score_of(denoiser, x, sigma, labels), images, sigma, draws, seed, places)


def bayes_estimate(
    denoiser: Denoiser,
    images: Images,
    sigma: float,
    labels: Labels,
    *,
    draws: int = 0,
    seed: int = 0,
    places: Sequence[int] | None = None,
) -> Estimate:
    """The Bayes direction at each image (draws = 0), or its mean over noise of level sigma.

    Both scores see the same noise, so the estimate is the difference of those of `score_estimate`, but its
    error is that of the difference.

    Args:
        denoiser, images, sigma, labels: as in `bayes_direction`.
        draws, seed, places: as in `score_estimate`.

    Raises:
        UsageError: as `bayes_direction`; a single draw.
    """
    return _estimate(
        lambda x: bayes_direction(denoiser, x, sigma, labels), images, sigma, draws, seed, places
    )


def _estimate(
    reference: Callable[[Images], Images],
    images: Images,
    sigma: float,
    draws: int,
    seed: int,
    places: Sequence[int] | None,
) -> Estimate:
    if draws == 0:
        return Estimate(reference(images), images.new_zeros(len(images)), "at the clean image")
    if draws < 2:
        raise UsageError("no draws, or two or more", got=draws, suggestion="draws=8")
    mean = torch.zeros_like(images, dtype=torch.float64)
    squares = torch.zeros_like(mean)
    for draw in range(draws):
        noise = sigma / 2 * image_noise(images, seed, "reference", draw, places=places)
        pair = (reference(images + noise).double() + reference(images - noise).double()) / 2
        step = pair - mean
        mean += step / (draw + 1)
        squares += step * (pair - mean)
    error = (squares.flatten(1).sum(1) / (draws * (draws - 1))).sqrt()
    words = f"mean over {2 * draws} noisy copies"
    return Estimate(mean.to(images.dtype), error.to(images.dtype), words)
