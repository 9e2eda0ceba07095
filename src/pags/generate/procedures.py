"""Synthesis, denoising, in-painting and super-resolution with the gradient of one classifier.

Sources: Santurkar et al. 2019 (one robust classifier for all of them) and Tsipras et al. 2019 (large steps in
l2); the paper's introduction, Phenomenon 2.
"""

import torch
from jaxtyping import Int
from torch import Tensor, nn

from pags.arrays import Images, Labels, check_images, clip_norm
from pags.classifiers.modes import predict
from pags.errors import UsageError
from pags.generate.follow import Followed, Report, follow
from pags.generate.starts import Masks, check_masks, enlarged, with_block_means


def synthesise(
    model: nn.Module,
    starts: Images,
    targets: Int[Tensor, "_"],
    *,
    steps: int = 60,
    step_size: float | None = None,
    radius: float | None = None,
    frames: int = 0,
    batch_size: int = 256,
    report: Report = lambda share: None,
) -> Followed:
    """Images of given classes, made by following the gradient from seeds.

    Args:
        model: a classifier, seen in evaluation mode; no `.grad` is touched.
        starts: (n, c, h, w) in [0, 1], such as `gaussian_starts` draws.
        targets: (n,) the classes to be made.
        steps: how many steps.
        step_size: the l2 length of each, for images in [0, 1]; None: `step_for`.
        radius: how far from its start an image may go in l2; None: as far as the steps carry it.
        frames: stations of the way to keep, besides the last.
        batch_size: images in memory at a time; does not change the result.
        report: called with the fraction completed.

    Raises:
        UsageError: starts outside [0, 1], targets that are no classes, steps or lengths out of range.
    """
    check_images(starts, what="starts")
    _check_radius(radius)

    def back(moved: Images, where: slice) -> Images:
        return _near(starts[where], moved, radius)

    return follow(model, starts, targets, back, steps, step_size, frames, batch_size, report)


def denoise(
    model: nn.Module,
    noisy: Images,
    labels: Labels | None = None,
    *,
    sigma: float,
    steps: int = 20,
    step_size: float | None = None,
    radius: float | None = None,
    frames: int = 0,
    batch_size: int = 256,
    report: Report = lambda share: None,
) -> Followed:
    """Noisy images moved along the gradient, by a part of the way that the noise has moved them.

    Args:
        noisy: (n, c, h, w) in [0, 1]: images with normal noise, cut to the range.
        labels: (n,) their classes; None: those that the model sees in the noisy images.
        sigma: the noise's standard deviation, for images in [0, 1].
        step_size: None: 2.5 · radius / steps, as in an attack of that radius.
        radius: how far from the noisy image the result may lie in l2; None: half of sigma · √d, the distance
            at which the original is expected. On a longer way the class's typical traits replace the image's.
        model, steps, frames, batch_size, report: as in `synthesise`.

    Raises:
        UsageError: as `synthesise`, and a noise level that is not above zero.
    """
    check_images(noisy, what="noisy images")
    if not 0 < sigma < float("inf"):
        raise UsageError("a noise level above zero", got=sigma, suggestion="sigma=0.2")
    _check_radius(radius)
    within = sigma * noisy.shape[1:].numel() ** 0.5 / 2 if radius is None else radius

    def back(moved: Images, where: slice) -> Images:
        return _near(noisy[where], moved, within)

    labels = _named(model, noisy, batch_size) if labels is None else labels
    step_size = 2.5 * within / max(1, steps) if step_size is None else step_size
    return follow(model, noisy, labels, back, steps, step_size, frames, batch_size, report)


def inpaint(
    model: nn.Module,
    images: Images,
    masks: Masks,
    labels: Labels | None = None,
    *,
    steps: int = 60,
    step_size: float | None = None,
    frames: int = 0,
    batch_size: int = 256,
    report: Report = lambda share: None,
) -> Followed:
    """Images completed along the gradient; known pixels stay as they are, to the last bit.

    Args:
        images: (n, c, h, w) in [0, 1]; in unknown pixels, where these start, as `filled` makes it.
        masks: (n, h, w), true where a pixel is known.
        labels: (n,) their classes; None: those that the model sees in `images`.
        model, steps, step_size, frames, batch_size, report: as in `synthesise`; only the length of the step
            before known pixels are put back is fixed.

    Raises:
        UsageError: as `synthesise`, and masks of another shape.
    """
    check_images(images)
    check_masks(images, masks)

    def back(moved: Images, where: slice) -> Images:
        return torch.where(masks[where, None], images[where], moved.clamp(0, 1))

    labels = _named(model, images, batch_size) if labels is None else labels
    return follow(model, images, labels, back, steps, step_size, frames, batch_size, report)


def super_resolve(
    model: nn.Module,
    small: Images,
    factor: int,
    labels: Labels | None = None,
    *,
    steps: int = 20,
    step_size: float | None = None,
    frames: int = 0,
    batch_size: int = 256,
    report: Report = lambda share: None,
) -> Followed:
    """Images enlarged along the gradient; averaged over blocks, they are always the small images.

    After every step each block of factor × factor pixels is put back to the nearest one in [0, 1] with the
    mean that is known, so the result is consistent with the small image and not only near it.

    Args:
        model: a classifier of images `factor` times as high and wide as the small ones.
        small: (n, c, h, w) in [0, 1].
        factor: how many times higher and wider, at least 2.
        labels: (n,) their classes; None: those that the model sees in the small images enlarged.
        steps, step_size, frames, batch_size, report: as in `synthesise`.

    Returns:
        Images (n, c, factor · h, factor · w).

    Raises:
        UsageError: as `synthesise`, and a factor below 2.
    """
    check_images(small, what="small images")
    starts = enlarged(small, factor)

    def back(moved: Images, where: slice) -> Images:
        return with_block_means(moved, small[where])

    labels = _named(model, starts, batch_size) if labels is None else labels
    return follow(model, starts, labels, back, steps, step_size, frames, batch_size, report)


def _near(starts: Images, moved: Images, radius: float | None) -> Images:
    """The images projected onto the ball around their starts, then clipped to [0, 1]."""
    if radius is not None:
        moved = starts + clip_norm(moved - starts, radius)
    return moved.clamp(0, 1)


def _named(model: nn.Module, images: Images, batch_size: int) -> Labels:
    return predict(model, images, batch_size=batch_size).argmax(1)


def _check_radius(radius: float | None) -> None:
    if radius is not None and not 0 < radius < float("inf"):
        raise UsageError("a radius above zero", got=radius, suggestion="radius=None for none")
