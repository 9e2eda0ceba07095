"""What every classifier must do, tried on a few images."""

import torch
from torch import Tensor, nn

from pags.arrays import Images, Logits, flatten, norms
from pags.classifiers.modes import evaluating
from pags.errors import PagsError, UsageError

TOLERANCE = 1e-2
"""How far logits may differ, relative to the largest, between an image alone and in a batch: other batch
sizes take other sums, and accelerators round the factors of convolutions to ten bits."""


def check_classifier(model: nn.Module, images: Images, classes: int | None = None) -> None:
    """Raise unless the model does on these images what a classifier must do, in evaluation mode.

    Args:
        model: images in [0, 1] to logits.
        images: (N, C, H, W), a few, at least one.
        classes: the number of logits, where it is known.

    Raises:
        UsageError: there are no images.
        PagsError: the outputs are not finite logits (N, classes), an image's logits depend on the other
            images of its batch, or the gradient with respect to the images is missing or zero everywhere.
    """
    if len(images) == 0:
        raise UsageError("at least one image to try the classifier on", got="none", suggestion="images[:4]")
    with evaluating(model):
        logits = check_logits(model, images, classes)
        _check_alone(model, images, logits)
        _check_gradient(model, images)


def check_logits(model: nn.Module, images: Images, classes: int | None = None) -> Logits:
    """The logits of the images, or an error that says what is wrong with them.

    Raises:
        PagsError: the output is not a tensor of finite numbers (N, classes).
    """
    with torch.no_grad():
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


def _check_gradient(model: nn.Module, images: Images) -> None:
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
    if not bool(gradient.isfinite().all()) or not bool((norms(flatten(gradient)) > 0).any()):
        raise PagsError(
            "a finite gradient of the largest logit that is not zero everywhere",
            got="zero for every image" if bool(gradient.isfinite().all()) else "NaN or infinity",
            suggestion="no rounding of the images inside the classifier, and activations that have a slope",
        )
