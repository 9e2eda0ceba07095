"""A world: labelled images whose density, score, Bayes posterior and tangent spaces are known exactly."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pags.arrays import Basis, Images, Labels, Logits, PerImage, check_labels, flatten
from pags.data.imageset import ImageSet
from pags.data.worlds.laws import Law
from pags.errors import PagsError, UsageError
from pags.seeds import generator

Tangent = Callable[[Tensor], Basis]
"""Points (n, d) to the tangent bases (n, d, k) of the manifold at its points nearest to them."""

PART = 256  # images worked on at a time, which bounds the memory of worlds with thousands of components


@dataclass(frozen=True)
class World:
    """One exact distribution of labelled images; made by `linear_world` and its siblings.

    Images have pixels in [0, 1], and densities and gradients are with respect to them. `sigma` alone is in
    EDM's unit, the noise's standard deviation for images scaled to [-1, 1] (so half as much here); it may be
    0 everywhere but in `denoiser`. All results are float64, whatever the images' type.

    Args:
        shape: (C, H, W).
        k: dimension of the manifold.
        law: p(x | y) of the flattened images.
        log_prior: (classes,), log p(y).
        tangent: points to tangent bases.
        mask: (C, H, W), true on the signal; all true where nothing is a distractor.
        about: plain data that says which world this is.
    """

    shape: tuple[int, int, int]
    k: int
    law: Law
    log_prior: Float[Tensor, " classes"]
    tangent: Tangent
    mask: Bool[Tensor, "c h w"]
    about: dict[str, Any]

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.log_prior)

    def sample(self, n: int, draws: torch.Generator) -> tuple[Images, Labels]:
        """Images (n, C, H, W) in float64, and their labels.

        The scales of all worlds leave seven standard deviations of room on each side of every pixel, so that
        a pixel leaves [0, 1] with a probability below 3e-12; images are never clipped.

        Raises:
            UsageError: a negative number of images.
            PagsError: a pixel fell outside [0, 1] nevertheless.
        """
        if n < 0:
            raise UsageError("a number of images of zero or more", got=n, suggestion="n=1000")
        prior = self.log_prior.exp().expand(n, -1)
        labels = torch.multinomial(prior, 1, generator=draws)[:, 0] if n else torch.zeros(0).long()
        images = self.law.sample(labels, draws).reshape(n, *self.shape)
        if n and not (float(images.min()) >= 0 and float(images.max()) <= 1):
            raise PagsError(
                "samples with every pixel in [0, 1]",
                got=f"pixels from {float(images.min()):.4g} to {float(images.max()):.4g}",
                suggestion="another seed for the draws, or less noise in the world",
            )
        return images, labels

    def image_set(self, n: int, *, seed: int) -> ImageSet:
        """`n` samples as an image set in float32, for training; `seed` names the draw.

        Raises:
            UsageError, PagsError: as `sample`.
        """
        images, labels = self.sample(n, generator(seed, "world", "images"))
        names = tuple(str(label) for label in range(self.classes))
        about = {**self.about, "images": n, "draw_seed": seed}
        return ImageSet(images.float(), labels, names, str(self.about["world"]), about)

    def tangent_basis(self, images: Images) -> Basis:
        """Orthonormal bases (n, d, k) of the tangent spaces at the manifold's points nearest to the images.

        Raises:
            UsageError: images of another shape.
        """
        return torch.cat([self.tangent(part) for part in self._points(images).split(PART)])

    def log_density(self, images: Images, sigma: float = 0.0, labels: Labels | None = None) -> PerImage:
        """log p(x, sigma), or log p(x, sigma | y) where labels are given.

        Raises:
            UsageError: images of another shape, labels out of range, a negative noise level.
        """
        joint = self._log_densities(images, sigma)
        if labels is None:
            return torch.logsumexp(joint + self.log_prior, 1)
        return _picked(joint, self._labels(labels))

    def score(self, images: Images, sigma: float = 0.0, labels: Labels | None = None) -> Images:
        """∇ₓ log p(x, sigma), or ∇ₓ log p(x, sigma | y) where labels are given; in our [0, 1] coordinates.

        Raises:
            UsageError: as `log_density`.
        """
        scores = self._scores(images, sigma)
        if labels is None:
            posterior = self.log_posterior(images, sigma).exp()
            return (posterior[:, :, None] * scores).sum(1).reshape(images.shape)
        return _picked(scores, self._labels(labels)).reshape(images.shape)

    def log_posterior(self, images: Images, sigma: float = 0.0) -> Logits:
        """log p(y | x), where x was seen through noise of level sigma: the Bayes classifier (section 3.2).

        Raises:
            UsageError: as `log_density`.
        """
        return torch.log_softmax(self._log_densities(images, sigma) + self.log_prior, 1)

    def bayes_gradient(self, images: Images, labels: Labels, sigma: float = 0.0) -> Images:
        """∇ₓ log p(y | x) = Σⱼ p(j | x) (∇ₓ log p(x | y) − ∇ₓ log p(x | j)) (Theorem A.2's first line).

        Raises:
            UsageError: as `log_density`.
        """
        scores = self._scores(images, sigma)
        # The difference first: what the classes share then cancels to the last bit.
        apart = _picked(scores, self._labels(labels))[:, None] - scores
        posterior = self.log_posterior(images, sigma).exp()
        return (posterior[:, :, None] * apart).sum(1).reshape(images.shape)

    def denoiser(self, images: Images, sigma: float, labels: Labels | None = None) -> Images:
        """E[x₀ | x = x₀ + noise], of the images' type: the contract of `pags.score.denoiser.Denoiser`.

        Raises:
            UsageError: as `log_density`, and a noise level of 0.
        """
        if sigma == 0:
            raise UsageError("a noise level above zero", got=sigma, suggestion="sigma=0.5")
        moved = _variance(sigma) * self.score(images, sigma, labels)  # Tweedie's formula
        return images + moved.to(images)

    def _points(self, images: Images) -> Float[Tensor, "n d"]:
        if tuple(images.shape[1:]) != self.shape:
            raise UsageError(
                f"images of shape (n, {', '.join(map(str, self.shape))})",
                got=tuple(images.shape),
                suggestion="images that this world has sampled",
            )
        return flatten(images).to("cpu", torch.float64)

    def _labels(self, labels: Labels) -> Labels:
        check_labels(labels, self.classes)
        return labels.cpu()

    def _log_densities(self, images: Images, sigma: float) -> Float[Tensor, "n classes"]:
        parts = self._points(images).split(PART)
        return torch.cat([self.law.log_densities(part, _variance(sigma)) for part in parts])

    def _scores(self, images: Images, sigma: float) -> Float[Tensor, "n classes d"]:
        parts = self._points(images).split(PART)
        return torch.cat([self.law.scores(part, _variance(sigma)) for part in parts])


class Bayes(nn.Module):
    """The Bayes classifier of a world: images to log p(y | x), for every measure that takes a classifier.

    Args:
        world: the world.
        sigma: the noise level, in EDM's unit, through which the images are seen; 0 for none.
    """

    def __init__(self, world: World, *, sigma: float = 0.0) -> None:
        super().__init__()
        self.world, self.sigma = world, sigma

    def forward(self, images: Images) -> Logits:
        return self.world.log_posterior(images, self.sigma).to(images)


def _variance(sigma: float) -> float:
    """The noise's variance here, where distances are half as long as in EDM's coordinates."""
    if not 0 <= sigma < math.inf:
        raise UsageError("a finite noise level of zero or more", got=sigma, suggestion="sigma=0.5")
    return (sigma / 2) ** 2


def _picked(values: Float[Tensor, "n classes *rest"], labels: Labels) -> Float[Tensor, "n *rest"]:
    """Each example's entry for its own class."""
    return values[torch.arange(len(labels)), labels]
