"""Following the gradient: one loop for every procedure.

It takes a step of fixed length along each image's own gradient, then goes back to what is known of the image,
which always includes that pixels lie in [0, 1]. Procedures differ in their start and their way back alone.

What is climbed is the log-odds of the class, log p − log(1 − p). Its gradient is that of log p divided by
1 − p, so a step of fixed length is the same; but it does not vanish, nor drown in rounding, where the
network is already certain.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pags.arrays import Images, Labels, check_labels, scale_to
from pags.classifiers.modes import evaluating, predict
from pags.errors import PagsError, UsageError
from pags.training.gradients import log_odds_against

Report = Callable[[float], None]
"""Called with the fraction of the work completed."""

Back = Callable[[Images, slice], Images]
"""From images that a step has moved, and their places among all, to the nearest that are allowed."""


@dataclass(frozen=True)
class Followed:
    """Where following the gradient has led.

    Args:
        images: (n, c, h, w) in [0, 1], the last of the way.
        labels: (n,) the target classes.
        frames: (frames, n, c, h, w), evenly spaced stations of the way from the start on; as a rule none.
    """

    images: Images
    labels: Labels
    frames: Float[Tensor, "frames n c h w"]


def step_for(images: Images) -> float:
    """The usual length of a step, 0.5 on 3×32×32 pixels, in proportion to the root of their number."""
    return 0.5 * (images.shape[1:].numel() / 3072) ** 0.5


def follow(
    model: nn.Module,
    starts: Images,
    labels: Int[Tensor, "_"],
    back: Back,
    steps: int,
    step_size: float | None,
    frames: int,
    batch_size: int,
    report: Report,
) -> Followed:
    """Steps along each image's own gradient, each followed by the way back to what is allowed.

    Args:
        model, steps, step_size, frames, batch_size, report: as in `pags.generate.synthesise`.
        starts: (n, c, h, w) in [0, 1].
        labels: (n,) the classes whose log-odds are climbed.
        back: from moved images, and their places among the starts, to the nearest that are allowed.

    Raises:
        UsageError: labels that are no classes, steps, lengths or frames out of range.
        PagsError: the gradients are not finite.
    """
    length = step_for(starts) if step_size is None else step_size
    _check_way(starts, labels, steps, length, frames)
    if len(starts) == 0:
        return Followed(starts, labels, starts.new_zeros(frames, *starts.shape))
    _check_classes(model, starts, labels)
    stations = {steps * place // frames for place in range(frames)} if frames else set()
    batches = -(-len(starts) // batch_size)
    parts = []
    with evaluating(model):
        for number in range(batches):
            where = slice(number * batch_size, (number + 1) * batch_size)
            x, aims, seen = starts[where], labels[where], []
            for step in range(steps):
                seen += [x] if step in stations else []
                x = back(x + scale_to(_gradient(model, x, aims), length), where)
                report((number + (step + 1) / steps) / batches)
            parts.append(torch.stack([*seen, _finite(x)]))  # (frames + 1, batch, c, h, w)
    whole = torch.cat(parts, 1)
    return Followed(whole[-1], labels, whole[:-1])


def _gradient(model: nn.Module, images: Images, labels: Labels) -> Images:
    """The gradient of each image's log-odds of its class, with respect to the image and nothing else."""
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        return torch.autograd.grad(-log_odds_against(model(images), labels).sum(), images)[0]


def _check_way(starts: Images, labels: Tensor, steps: int, length: float, frames: int) -> None:
    if steps < 0 or not 0 < length < float("inf"):
        raise UsageError(
            "steps of zero or more, of a length above zero",
            got=f"{steps} steps of length {length}",
            suggestion="steps=60, step_size=None",
        )
    if not 0 <= frames <= steps:
        raise UsageError(f"frames from 0 to the {steps} steps", got=frames, suggestion="frames=5")
    if len(labels) != len(starts):
        raise UsageError(
            "one class an image",
            got=f"{len(labels)} classes for {len(starts)} images",
            suggestion="torch.full((len(images),), 3) for one class",
        )


def _check_classes(model: nn.Module, starts: Images, labels: Labels) -> None:
    classes = predict(model, starts[:1]).shape[1]
    if classes < 2:
        raise UsageError(
            "a classifier of at least two classes",
            got=f"{classes} logits",
            suggestion="two logits: no and yes",
        )
    check_labels(labels, classes)


def _finite(images: Images) -> Images:
    if not bool(images.isfinite().all()):
        raise PagsError(
            "finite gradients",
            got="images that are not finite after following them",
            suggestion="a look at the model's weights, which may have diverged",
        )
    return images
