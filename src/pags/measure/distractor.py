"""Signal against distractor (section 4.3, B.9; Theorem 2): robustness to noise, gradient energy.

The paper says that it adds "different levels of noise to the signal or distractor" and takes the ratio of the
two robustness values; it does not say how the noise is scaled. Here a level is the **standard deviation of
each pixel's noise**, for images in [0, 1]. In the paper's images signal and distractor are halves of equal
size, so that the noise has the same l2 norm on both; where a mask leaves unequal numbers of pixels, the noise
on the larger part is longer, by the root of the ratio of the numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pags.arrays import Images, PerImage, flatten
from pags.errors import UsageError
from pags.measure.robustness import find_change, mean_changes
from pags.seeds import Draws

Masks: TypeAlias = Bool[Tensor, "_ _ _"]
"""(n, h, w): true on the signal, false on the distractor."""

PAPER_LEVELS: tuple[float, ...] = (0.0, *(10 ** (3 * place / 29 - 2) for place in range(30)))
"""Figure 5's levels: none, and 30 from 10⁻² to 10¹, evenly spaced in their logarithm."""


@dataclass(frozen=True)
class NoiseRobustness:
    """Mean output change of each image at each level of noise, over the directions drawn.

    The paper's *relative noise robustness* is the ratio of the two, signal over distractor: above 1 where a
    model is more robust to noise on the distractor. Take it from means over images (with
    `pags.measure.statistics.interval`), for single images may not change at all.
    """

    signal: Float[Tensor, "levels n"]
    distractor: Float[Tensor, "levels n"]


def relative_noise_robustness(
    model: nn.Module,
    images: Images,
    masks: Masks,
    levels: Sequence[float] = PAPER_LEVELS,
    *,
    draws: Draws,
    directions: int = 8,
    change: str = "softmax-l2",
    batch_size: int = 1024,
) -> NoiseRobustness:
    """How much the output changes when noise is added on the signal's pixels only, or the distractor's only.

    A direction is one standard normal draw for all pixels; its part on the signal and its part on the
    distractor, times each level, are the perturbations, so levels and models are compared on equal draws.

    Args:
        model: a classifier, seen in evaluation mode.
        images: (n, c, h, w) in [0, 1]; noisy images may leave the range.
        masks: (n, h, w), true on the signal; every other pixel is the distractor's.
        levels: standard deviations of each pixel's noise, for images in [0, 1]; 0 gives no change.
        draws: where the directions come from.
        directions: draws per image.
        change: one of `OUTPUT_CHANGES`.
        batch_size: noisy images in memory at a time; does not change the result.

    Raises:
        UsageError: an unknown change, a level below zero, masks that leave no signal or no distractor, no
            directions.

    Source: section 4.3 and B.9, Figure 5.
    """
    if not levels or not all(0 <= level < float("inf") for level in levels) or directions < 1:
        raise UsageError(
            "noise levels of zero or more, and at least one direction",
            got=f"levels {list(levels)} and {directions} directions",
            suggestion="levels=PAPER_LEVELS, directions=8",
        )
    check_masks(images, masks)
    on_signal = masks[:, None].to(images)
    scales = [partial(torch.mul, level) for level in levels]
    signal, distractor = mean_changes(
        model, images, lambda u: (u * on_signal, u * (1 - on_signal)), scales, find_change(change),
        draws=draws, directions=directions, batch_size=batch_size,
    )  # fmt: skip
    return NoiseRobustness(signal.to(images.dtype), distractor.to(images.dtype))


def energy_on_signal(gradients: Images, masks: Masks) -> PerImage:
    """The share of each gradient's energy on the signal's pixels; NaN for a zero gradient.

    Theorem 2 puts it at 1 for the Bayes classifier. `pixels_on_signal` is what a gradient of random direction
    has on average.

    Args:
        gradients: (n, c, h, w), of any scale.
        masks: (n, h, w), true on the signal.

    Raises:
        UsageError: masks of another number or size than the gradients.
    """
    check_masks(gradients, masks)
    energy = flatten(gradients).double().square().reshape(gradients.shape).sum(1)  # (n, h, w)
    return ((energy * masks).sum((1, 2)) / energy.sum((1, 2))).to(gradients.dtype)


def pixels_on_signal(masks: Masks) -> PerImage:
    """The share of each image's pixels on the signal: the chance line of `energy_on_signal`."""
    return masks.float().mean((1, 2))


def check_masks(images: Images, masks: Masks) -> None:
    """Raise unless every image has a mask of its size with some signal and some distractor."""
    if masks.shape != (len(images), *images.shape[2:]):
        raise UsageError(
            f"masks of shape {(len(images), *images.shape[2:])}, one per image",
            got=tuple(masks.shape),
            suggestion="mask.expand(len(images), -1, -1) for one mask of all images",
        )
    share = pixels_on_signal(masks)
    if bool(((share == 0) | (share == 1)).any()):
        raise UsageError(
            "masks with some pixels on the signal and some on the distractor",
            got=f"{int(((share == 0) | (share == 1)).sum())} masks without one of them",
            suggestion="leaving those images out",
        )
