"""Input gradients: of which scalar, and how (B.4, B.5), plain or smoothed.

A target is a scalar made of the logits, for the class in question where it needs one. The gradient of
the *sum* of the logits is offered because the paper uses it (B.5); but cross-entropy never moves the sum of
the last layer's rows, so for a network trained with it this gradient is that of a leftover of the
initialisation. Measure it beside an untrained network before reading anything into it.
"""

from collections.abc import Callable

import torch
from torch import nn

from pags.arrays import Images, Labels, Logits, PerImage
from pags.classifiers.modes import evaluating, predict
from pags.errors import UsageError
from pags.training.gradients import label_loss

Target = Callable[[Logits, Labels], PerImage]


def _logit(logits: Logits, labels: Labels) -> PerImage:
    return logits.gather(1, labels[:, None])[:, 0]


def _margin(logits: Logits, labels: Labels) -> PerImage:
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return _logit(logits, labels) - others.amax(1)


TARGETS: dict[str, Target] = {
    "logit": _logit,
    "sum-of-logits": lambda logits, labels: logits.sum(1),
    "log-probability": lambda logits, labels: -label_loss(logits, labels),
    "log-sum-exp": lambda logits, labels: logits.logsumexp(1),
    "margin": _margin,
    "loss": label_loss,
}


def input_gradient(
    model: nn.Module,
    images: Images,
    target: str = "logit",
    labels: Labels | None = None,
    *,
    batch_size: int = 256,
) -> Images:
    """The gradient of a target with respect to each image.

    Args:
        model: a classifier; seen in evaluation mode, no `.grad` is touched.
        images: (n, c, h, w) in [0, 1].
        target: one of `TARGETS`.
        labels: (n,) the class of "logit", "log-probability", "margin" and "loss"; None: the predicted class.
        batch_size: images in memory at a time; does not change the result.

    Returns:
        (n, c, h, w), in units of the target per unit of pixel.

    Raises:
        UsageError: no target has this name.
    """
    scalar = find_target(target)
    labels = predict(model, images).argmax(1) if labels is None else labels
    with evaluating(model):
        parts = zip(images.split(batch_size), labels.split(batch_size), strict=True)
        return torch.cat([_gradient(model, scalar, x, y) for x, y in parts])


def smooth_gradient(
    model: nn.Module,
    images: Images,
    target: str = "logit",
    labels: Labels | None = None,
    *,
    sigma: float,
    samples: int = 32,
    draws: torch.Generator,
    batch_size: int = 256,
) -> Images:
    """SmoothGrad (Smilkov et al. 2017): the mean gradient over noisy copies of each image.

    Args:
        model, images, target, batch_size: as in `input_gradient`.
        labels: None: the class predicted for the clean image, for all its copies.
        sigma: standard deviation of the noise, for images in [0, 1].
        samples: noisy copies an image.
        draws: where the noise comes from.
    """
    labels = predict(model, images).argmax(1) if labels is None else labels
    total = torch.zeros_like(images)
    for _ in range(samples):
        noise = torch.randn(images.shape, generator=draws, device=draws.device).to(images)
        total += input_gradient(model, images + sigma * noise, target, labels, batch_size=batch_size)
    return total / samples


def find_target(name: str) -> Target:
    """The target called `name`, or a `UsageError`."""
    if name not in TARGETS:
        raise UsageError(f"a gradient target among {', '.join(TARGETS)}", got=repr(name), suggestion="logit")
    return TARGETS[name]


def _gradient(model: nn.Module, scalar: Target, images: Images, labels: Labels) -> Images:
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        return torch.autograd.grad(scalar(model(images), labels).sum(), images)[0]
