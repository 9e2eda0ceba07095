"""How good a restored or synthesised image is: against the original, and in the eyes of another network."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pags.arrays import Images, PerImage, check_labels, norms
from pags.classifiers.modes import predict
from pags.errors import UsageError
from pags.measure.lpips import LPIPS

HIGHEST = 100.0
"""What `psnr` gives for equal images, in dB, where the formula has no finite value."""


def psnr(images: Images, originals: Float[Tensor, "_ _ _ _"]) -> PerImage:
    """The peak signal-to-noise ratio of each image, 10 log₁₀(1 / mean squared error), in dB.

    Args:
        images, originals: (n, c, h, w) in [0, 1].

    Returns:
        n numbers, at most `HIGHEST`, which stands for equal images; NaN where a pixel is.

    Raises:
        UsageError: the shapes differ.
    """
    _check_alike(images, originals)
    deviations = (
        norms(images - originals) / originals[0].numel() ** 0.5 if len(images) else images.sum((1, 2, 3))
    )
    return (-20 * deviations.log10()).clamp_max(HIGHEST)


def perceptual_distance(
    images: Images, originals: Float[Tensor, "_ _ _ _"], lpips: LPIPS | None = None
) -> PerImage:
    """The LPIPS distance of each image and its original, as pictures; 0 for equal ones.

    Args:
        images, originals: (n, 3 or 1, h, w) in [0, 1].
        lpips: by default with images under 64 px enlarged to 64.

    Raises:
        UsageError: the shapes differ, or a pixel is outside [0, 1].
    """
    _check_alike(images, originals)
    lpips = lpips or LPIPS.load()
    return lpips(2 * images - 1, 2 * originals - 1)


def named_as(
    model: nn.Module, images: Images, targets: Int[Tensor, "_"], *, batch_size: int = 512
) -> PerImage:
    """1 where a network names the image as its target, else 0.

    For syntheses the network must be another one than was followed: that one is sure to be convinced.

    Args:
        model: a classifier, seen in evaluation mode.
        images: (n, c, h, w) in [0, 1].
        targets: (n,) the target classes.

    Raises:
        UsageError: a target that is no class of the network, or another number of targets than images.
    """
    logits = predict(model, images, batch_size=batch_size)
    check_labels(targets, logits.shape[1])
    if len(targets) != len(images):
        raise UsageError(
            "one target an image",
            got=f"{len(targets)} targets for {len(images)} images",
            suggestion="targets=labels[:n]",
        )
    return (logits.argmax(1) == targets).to(torch.float32)


def _check_alike(images: Tensor, originals: Tensor) -> None:
    if images.shape != originals.shape:
        raise UsageError(
            "as many images as originals, of the same size",
            got=f"{tuple(images.shape)} and {tuple(originals.shape)}",
            suggestion="comparing an enlarged image, not the small one, with its original",
        )
