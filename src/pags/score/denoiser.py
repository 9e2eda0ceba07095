"""The denoiser contract, and the score and Bayes direction that follow from a denoiser (EDM, equation 3)."""

import inspect
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from pags.arrays import Images, Labels, PerImage, expand, norms
from pags.errors import UsageError, model_error


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
    _check_sigma(sigma)
    with torch.no_grad():
        return _per_variance(denoiser(images, sigma, labels) - images, sigma)


def bayes_direction(denoiser: Denoiser, images: Images, sigma: float, labels: Labels) -> Images:
    """∇ₓ log p_σ(y | x) = s(x | y) − s(x), for x in [0, 1]: the gradient of the Bayes classifier under noise.

    What a classifier's gradient of log p(y | x) should be, where the score of p(x | y) stands in for it in
    the paper (section 4, limitation 2).

    Args:
        denoiser: one that answers with and without labels.
        images: (n, c, h, w) in [0, 1].
        sigma: noise level in EDM's unit, above 0.
        labels: (n,) the classes y.

    Returns:
        (n, c, h, w); zero, which is no direction, where the two denoised images differ by no more than the
        rounding of their numbers: there p(y | x) is as good as certain.

    Raises:
        UsageError: a noise level that is not above zero.
    """
    _check_sigma(sigma)
    with torch.no_grad():
        own, everything = denoiser(images, sigma, labels), denoiser(images, sigma, None)
    apart = own - everything
    resolved = norms(apart) > torch.finfo(apart.dtype).eps * norms(own)
    return _per_variance(torch.where(expand(resolved, apart), apart, 0.0), sigma)


class BlindDenoiser(nn.Module):
    """A denoiser that is not told the noise level, behind the `Denoiser` contract.

    It judges the noise by the image, so its residual is a score at a level of its own choice: nearly none at
    a clean image, `sigma` where noise of that level was added (`pags.score.references`). `sigma` is only what
    the residual is divided by.

    Args:
        network: noisy images (n, c, h, w) to images, or to the noise in them.
        predicts: "image" or "noise" (residual networks such as DnCNN).
        low, high: what black and white are for the network.

    Raises:
        UsageError: it predicts something else; when called, if there are labels.
        ModelError: when called, for what the network raises.
    """

    classes = 0

    def __init__(
        self, network: Callable[[Images], Images], *, predicts: str = "image", low: float = 0, high: float = 1
    ) -> None:
        super().__init__()
        if predicts not in ("image", "noise") or not low < high:
            raise UsageError(
                "predicts among image, noise, and low below high",
                got=f"{predicts!r}, {low} and {high}",
                suggestion="predicts='image', low=0, high=1",
            )
        self.network, self.predicts, self.low, self.high = network, predicts, low, high

    def forward(self, images: Images, sigma: float | PerImage, labels: Labels | None = None) -> Images:
        if labels is not None:
            raise UsageError(
                "labels=None, for a blind denoiser knows no classes",
                got=f"{len(labels)} labels",
                suggestion="the score of all classes",
            )
        scaled = self.low + (self.high - self.low) * images
        with model_error("a denoiser to take noisy images"):
            answer = self.network(scaled.clone())
        clean = answer if self.predicts == "image" else scaled - answer
        return (clean - self.low) / (self.high - self.low)


def as_denoiser(thing: Callable[..., Any]) -> Denoiser:
    """A denoiser by its signature: one that takes images alone is blind, any other is taken as it is."""
    signature = inspect.signature(thing.forward if isinstance(thing, nn.Module) else thing)
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    taken = [parameter for parameter in signature.parameters.values() if parameter.kind in positional]
    open_ended = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in signature.parameters.values())
    return thing if len(taken) > 1 or open_ended else BlindDenoiser(thing)


def _check_sigma(sigma: float) -> None:
    if not sigma > 0:
        raise UsageError("a noise level above zero", got=sigma, suggestion="sigma=0.5")


def knows_classes(denoiser: Denoiser) -> bool:
    """Whether it gives the score of a class: it says so by `classes` above 0, or by `labels` that are there;
    yes where it has neither."""
    if hasattr(denoiser, "classes"):
        return bool(denoiser.classes)
    return getattr(denoiser, "labels", True) is not None


def knows_all(denoiser: Denoiser) -> bool:
    """Whether it gives the score of all classes: unless it says `unconditional = False`."""
    return bool(getattr(denoiser, "unconditional", True))


def _per_variance(residual: Images, sigma: float) -> Images:
    """A score from what a denoiser adds to its image.

    In EDM's coordinates x' = 2x − 1 the score is (D' − x') / σ². D' − x' is 2 (D − x), and the derivative
    with respect to x is twice that with respect to x': hence the 4 in our coordinates, in this one place.
    """
    return 4 * residual / sigma**2
