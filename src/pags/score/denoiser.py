"""The denoiser contract, and the score that follows from a denoiser (section 4; EDM, equation 3)."""

from typing import Protocol, runtime_checkable

import torch

from pags.arrays import Images, Labels
from pags.errors import UsageError


@runtime_checkable
class Denoiser(Protocol):
    """The posterior mean of the clean image.

    Called with images (n, c, h, w) and answering with images, both for pixels in [0, 1]. `sigma` alone is in
    the unit of the paper and of EDM, the noise's standard deviation for images scaled to [-1, 1]; `labels`
    are class indices, or None for the unconditional distribution.
    """

    def __call__(self, images: Images, sigma: float, labels: Labels | None = None) -> Images: ...


def score_of(denoiser: Denoiser, images: Images, sigma: float, labels: Labels | None = None) -> Images:
    """∇ₓ log p(x, σ), for x in [0, 1].

    Args:
        denoiser: see `Denoiser`.
        images: (n, c, h, w) in [0, 1], the points at which the score is taken.
        sigma: noise level in EDM's unit, above 0; the paper takes 0.5 on CIFAR-10 and 1.2 on ImageNet-64.
        labels: classes for the conditional score; None for the unconditional one.

    Raises:
        UsageError: a noise level that is not above zero.
    """
    if not sigma > 0:
        raise UsageError("a noise level above zero", got=sigma, suggestion="sigma=0.5")
    # In EDM's coordinates x' = 2x − 1 the score is (D' − x') / σ². D' − x' is 2 (D − x), and the derivative
    # with respect to x is twice that with respect to x': hence the 4 in our coordinates, in this one place.
    with torch.no_grad():
        return 4 * (denoiser(images, sigma, labels) - images) / sigma**2


def knows_classes(denoiser: Denoiser) -> bool:
    """Whether it gives the score of a class: it says so by `classes` above 0, or by `labels` that are there;
    yes where it has neither."""
    if hasattr(denoiser, "classes"):
        return bool(denoiser.classes)
    return getattr(denoiser, "labels", True) is not None


def knows_all(denoiser: Denoiser) -> bool:
    """Whether it gives the score of all classes: unless it says `unconditional = False`."""
    return bool(getattr(denoiser, "unconditional", True))
