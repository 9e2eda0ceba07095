"""What every classifier must do, tried on the images that it will be used on."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pags.arrays import Images, Logits, flatten, norms
from pags.classifiers.about import remember
from pags.classifiers.adapt import OUTPUTS, as_classifier, as_images, as_labels
from pags.classifiers.modes import evaluating
from pags.errors import PagsError, UsageError, model_error

TOLERANCE = 1e-2
"""How far logits may differ, relative to the largest, between an image alone and in a batch: other batch
sizes take other sums, and accelerators round the factors of convolutions to ten bits."""

REPEATED = 1e-5
"""How far they may differ between two calls with the same batch."""

MANY = 50
"""From so many numbers on it is no accident that all of them are in [0, 1]."""


def check_classifier(
    model: Callable[..., Any],
    images: Any,
    classes: int | None = None,
    *,
    labels: Any = None,
    outputs: str | None = None,
    batch_size: int = 64,
) -> nn.Module:
    """The model as a classifier, tried on all of these images in evaluation mode.

    The random state and the images are left as they were.

    Args:
        model: a module or any callable, images in [0, 1] to logits.
        images: as `adapt.as_images` takes them, at least one, of the size that the model will be used on.
        classes: the number of logits, where it is known.
        labels: as `adapt.as_labels` takes them.
        outputs: what the model answers with, a name of `adapt.OUTPUTS`; None for logits, which must not look
            like anything else.
        batch_size: images at once.

    Returns:
        The model itself if it was built here, otherwise an `adapt.Adapted` around it, to be used from now on.
        How many gradients are zero, if any, stands in its `about.describe` under "zero gradients".

    Raises:
        UsageError: there are no images; images or labels break their contract.
        ModelError: the model raises something.
        PagsError: its outputs are not finite logits (N, classes), are not the same when it is called again,
            depend on the other images of the batch, or look like probabilities; the gradient of an image is
            not finite, or all are missing or zero.
    """
    images = as_images(images)
    if len(images) == 0:
        raise UsageError("at least one image to try the classifier on", got="none", suggestion="images[:4]")
    if outputs is not None and outputs not in OUTPUTS:
        raise UsageError(f"outputs among {', '.join(OUTPUTS)}", got=repr(outputs), suggestion="logits")
    classifier = as_classifier(model, outputs=outputs)
    with evaluating(classifier), torch.random.fork_rng(devices=[]):
        parts = images.split(batch_size)
        logits = torch.cat([check_logits(classifier, part, classes) for part in parts])
        _check_repeated(classifier, parts[0], logits[: len(parts[0])])
        _check_alone(classifier, images, logits)
        if outputs is None and getattr(classifier, "outputs", "logits") == "logits":
            _check_outputs(logits)
        _check_gradients(classifier, parts)
    if labels is not None:
        as_labels(labels, len(images), logits.shape[1])
    return classifier


def check_logits(model: nn.Module, images: Images, classes: int | None = None) -> Logits:
    """The logits of the images, or an error that says what is wrong with them.

    Raises:
        PagsError: the output is not a tensor of finite numbers (N, classes).
    """
    size = "×".join(map(str, images.shape[1:]))
    with torch.no_grad(), model_error(f"the model to take images {size}"):
        logits = model(images)
    if not isinstance(logits, Tensor):
        raise PagsError(
            "logits (N, classes) as a tensor",
            got=f"a {type(logits).__name__}",
            suggestion="returning the logits alone",
        )
    wrong = (
        logits.ndim != 2 or len(logits) != len(images) or (classes is not None and logits.shape[1] != classes)
    )
    if wrong or not logits.is_floating_point():
        raise PagsError(
            f"logits of shape ({len(images)}, {classes or 'classes'}) for {len(images)} images",
            got=f"{logits.dtype} of shape {tuple(logits.shape)}",
            suggestion="the number of classes of the network's last layer, and logits, not labels",
        )
    if not bool(logits.isfinite().all()):
        raise PagsError(
            "finite logits",
            got=f"NaN or infinity in {int((~logits.isfinite()).any(1).sum())} of {len(images)} images",
            suggestion="checking the weights and the normalisation inside the classifier",
        )
    return logits


def _check_alone(model: nn.Module, images: Images, logits: Logits) -> None:
    """The first image alone, and beside its negative, gives what it gave in the batch."""
    scale = float(logits.abs().max()) or 1.0
    first = images[:1]
    for batch, company in ((first, "alone"), (torch.cat([first, 1 - first]), "beside another image")):
        with torch.no_grad():
            change = float((model(batch)[:1] - logits[:1]).abs().max()) / scale
        if not change < TOLERANCE:
            raise PagsError(
                "logits of an image that do not depend on the rest of its batch",
                got=f"a change of {change:.2g} of the largest logit for an image {company}",
                suggestion="BatchNorm with running statistics, and no random layers, in evaluation mode",
            )


def _check_repeated(model: nn.Module, images: Images, logits: Logits) -> None:
    """The same batch gives the same logits again."""
    change = float((check_logits(model, images) - logits).abs().max()) / (float(logits.abs().max()) or 1.0)
    if not change <= REPEATED:
        raise PagsError(
            "the same logits when the model is called again",
            got=f"a change of {change:.2g} of the largest logit",
            suggestion="no random noise, dropout or augmentation in evaluation mode",
        )


def _check_outputs(logits: Logits) -> None:
    """Outputs that are no logits are recognised; log-probabilities are logits too."""
    kind = None
    if bool(((logits >= 0) & (logits <= 1)).all()) and logits.shape[1] > 1:
        sums_to_one = bool(((logits.sum(1) - 1).abs() < 1e-3).all())
        kind = "probabilities" if sums_to_one else "sigmoids" if logits.numel() >= MANY else None
    if kind is not None:
        raise PagsError(
            "logits, not numbers after a softmax or sigmoid",
            got=f"outputs that are {kind}",
            suggestion=f"outputs={kind} (?outputs={kind} behind the model's name), or outputs=logits if they "
            "are logits",
        )


def _check_gradients(model: nn.Module, parts: tuple[Tensor, ...]) -> None:  # (N, C, H, W) each
    """The gradient of the largest logit, of every image."""
    gradients = [_gradient(model, part) for part in parts]
    broken = [bool((~own.isfinite()).any()) for part in gradients for own in part]
    zero = [not bool(own) for part in gradients for own in norms(flatten(part)) > 0]
    if any(broken) or all(zero):
        first = broken.index(True) if any(broken) else 0
        raise PagsError(
            "a finite gradient of the largest logit that is not zero everywhere",
            got=f"NaN or infinity in {sum(broken)} of {len(broken)} images, the first of them number {first}"
            if any(broken)
            else "zero for every image",
            suggestion="no rounding of the images inside the classifier, activations that have a slope, and "
            "no square roots of zero",
        )
    if any(zero):
        remember(model, **{"zero gradients": f"{sum(zero)} of {len(zero)} images"})


def _gradient(model: nn.Module, images: Images) -> Tensor:
    images = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        top = model(images).amax(1)
    gradient = torch.autograd.grad(top.sum(), images, allow_unused=True)[0] if top.requires_grad else None
    if gradient is None:
        raise PagsError(
            "logits that can be differentiated by the images",
            got="logits that do not depend on them, as far as autograd can see",
            suggestion="no torch.no_grad, detach or numpy between images and logits",
        )
    return gradient
