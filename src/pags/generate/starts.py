"""Where following the gradient starts, and what is known of an image on the way."""

import math
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d

from pags.arrays import Images, Labels, check_labels
from pags.data.imageset import ImageSet
from pags.errors import UsageError

Masks: TypeAlias = Bool[Tensor, "_ _ _"]
"""(n, h, w): true where a pixel is known."""

Large: TypeAlias = Float[Tensor, "n c high wide"]
"""Images a whole number of times as high and wide as others."""

MOST = 1000
"""Images of a class from which its Gaussian is taken, the first of them; it bounds the memory."""


def gaussian_starts(train: ImageSet, targets: Labels, *, draws: torch.Generator) -> Images:
    """Seeds for synthesis: from the Gaussian with the mean and covariance of its class, cut to [0, 1].

    With the class's n images as rows of X, mean + (X − mean)ᵀ g / √(n − 1) has exactly this law for standard
    normal g (n,); no covariance is formed, so images may be large.

    Args:
        train: images with labels.
        targets: (n,) the class of each seed, each with at least two images in `train`.
        draws: where g comes from.

    Raises:
        UsageError: a target that is no class, or with fewer than two images.
    """
    check_labels(targets, len(train.classes))
    starts = torch.zeros(len(targets), *train.shape, device=train.pixels.device)
    for target in targets.unique().tolist():
        own = train.take((train.labels == target).nonzero()[:MOST, 0]).images
        if len(own) < 2:
            raise UsageError(
                "at least two training images of each class", got=f"{len(own)} of class {target}",
                suggestion="other targets, or starts of your own",
            )  # fmt: skip
        wanted = (targets == target).nonzero()[:, 0].to(starts.device)
        g = torch.randn(len(wanted), len(own), generator=draws, device=draws.device).to(own)
        spread = torch.einsum("kn,nchw->kchw", g, own - own.mean(0)) / (len(own) - 1) ** 0.5
        starts[wanted] = (own.mean(0) + spread).clamp(0, 1)
    return starts


def filled(images: Images, masks: Masks) -> Images:
    """The images with the mean of each channel's known pixels in the unknown ones: a start for `inpaint`."""
    check_masks(images, masks)
    known = masks[:, None].to(images)
    means = (images * known).sum((2, 3), keepdim=True) / known.sum((2, 3), keepdim=True).clamp_min(1)
    return torch.where(masks[:, None], images, means)


def enlarged(small: Images, factor: int) -> Large:
    """The smooth image nearest to a small one: bilinear, then put back to the block means that are known."""
    if factor < 2:
        raise UsageError("a factor of at least 2", got=factor, suggestion="factor=2")
    if len(small) == 0:
        return small.new_zeros(0, small.shape[1], factor * small.shape[2], factor * small.shape[3])
    smooth = interpolate(small, scale_factor=factor, mode="bilinear", align_corners=False)
    return with_block_means(smooth, small)


def with_block_means(images: Large, means: Images) -> Large:
    """The nearest images in [0, 1] whose blocks have the given means.

    Within a block the nearest point of the cube with mean m is clip(x + t, 0, 1), for the one t at which its
    mean is m (the condition of optimality of this quadratic problem); t is found by halving.

    Args:
        images: (n, c, f · h, f · w), of any range.
        means: (n, c, h, w) in [0, 1].
    """
    factor = images.shape[-1] // means.shape[-1]

    def whole(blocks: Images) -> Large:
        return blocks.repeat_interleave(factor, 2).repeat_interleave(factor, 3)

    # From where all pixels of a block are cut to 0, to where all are cut to 1.
    low, high = -max_pool2d(images, factor), 1 + max_pool2d(-images, factor)
    for _ in range(8 - round(math.log2(torch.finfo(images.dtype).eps))):  # to the last digit of the type
        middle = (low + high) / 2
        below = avg_pool2d((images + whole(middle)).clamp(0, 1), factor) < means
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (images + whole(high)).clamp(0, 1)


def check_masks(images: Images, masks: Masks) -> None:
    """Raise unless every image has a mask of its size."""
    if masks.shape != (len(images), *images.shape[2:]):
        raise UsageError(
            f"masks of shape {(len(images), *images.shape[2:])}, true where a pixel is known",
            got=tuple(masks.shape),
            suggestion="mask.expand(len(images), -1, -1) for one mask of all images",
        )
