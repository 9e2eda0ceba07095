"""What people have, adapted once to the contracts: any callable, images and labels of any type."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pags.arrays import Images, Labels, check_images
from pags.classifiers.about import recipe, remember, remembered
from pags.errors import ModelError, UsageError, model_error

OUTPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "logits": lambda values: values,
    "log-probabilities": lambda values: values,
    "probabilities": lambda values: values.clamp_min(torch.finfo(values.dtype).tiny).log(),
    "sigmoids": lambda values: values.logit(eps=torch.finfo(values.dtype).eps),
}
"""What a model may answer with, and how that becomes logits. Log-probabilities are logits already."""


class Adapted(nn.Module):
    """A model of a user that keeps the contract of a classifier.

    The model is given a copy of the images, in the type of its own weights; of its answer the logits are
    taken; what it raises becomes a `ModelError`. A model that refuses to change its mode stays as it is.

    Args:
        model: any callable.
        outputs: a name of `OUTPUTS`, what it answers with.
    """

    def __init__(self, model: Callable[..., Any], *, outputs: str = "logits") -> None:
        super().__init__()
        self.model, self.outputs = model, outputs

    def forward(self, images: Images) -> Tensor:  # logits, if the model keeps the contract
        tensors = self.parameters()
        dtype = next((own.dtype for own in tensors if own.is_floating_point()), images.dtype)
        with model_error(f"the model to take images {_shape(images)}"):
            answer = self.model(images.to(dtype, copy=True))
        logits = logits_in(answer, len(images))
        return OUTPUTS[self.outputs](logits.to(images.dtype) if logits.is_floating_point() else logits)

    def train(self, mode: bool = True) -> "Adapted":
        try:
            super().train(mode)
        except NotImplementedError:  # exported programs have one mode
            self.training = mode
        return self


def as_classifier(model: Callable[..., Any], *, outputs: str | None = None) -> nn.Module:
    """The model as a classifier that keeps the contract; one that was built here is returned as it is.

    Args:
        model: a module or any callable, images in [0, 1] to logits, or to a tuple, dict or object that holds
            "logits".
        outputs: "probabilities", "log-probabilities" or "sigmoids" where it answers with these.

    Returns:
        A module; its parameters, and what is remembered of it, are the model's.
    """
    if isinstance(model, Adapted):
        same = outputs in (None, model.outputs)
        return model if same else as_classifier(model.model, outputs=outputs)
    if isinstance(model, nn.Module) and recipe(model) is not None and outputs in (None, "logits"):
        return model
    adapted = Adapted(model, outputs=outputs or "logits")
    adapted.training = bool(getattr(model, "training", False))
    if isinstance(model, nn.Module):
        remember(adapted, **{key: value for key, value in remembered(model).items() if key != "recipe"})
    return adapted


def copied(model: nn.Module) -> nn.Module:
    """A deep copy.

    Raises:
        ModelError: the model cannot be copied, with its own reason.
    """
    with model_error("a model that can be copied"):
        return deepcopy(model)


def logits_in(answer: Any, count: int) -> Tensor:
    """The logits in what a model returned for `count` images.

    Raises:
        ModelError: there are none, or several things that could be.
    """
    if isinstance(answer, Mapping) and "logits" in answer:
        answer = answer["logits"]
    elif not isinstance(answer, Tensor) and hasattr(answer, "logits"):
        answer = answer.logits
    elif isinstance(answer, list | tuple):
        fitting = [each for each in answer if isinstance(each, Tensor) and _like_logits(each, count)]
        answer = fitting[0] if len(fitting) == 1 else answer
    if not isinstance(answer, Tensor):
        held = f" of {len(answer)}" if isinstance(answer, list | tuple) else ""
        raise ModelError(
            "logits (N, classes) as a tensor, or as logits in a dict or an object",
            got=f"a {type(answer).__name__}{held}",
            suggestion="returning the logits alone",
        )
    return answer.flatten(1) if answer.ndim > 2 and answer.shape[2:].numel() == 1 else answer


def _like_logits(value: Tensor, count: int) -> bool:
    return value.ndim == 2 and len(value) == count and value.shape[1] > 1 and value.is_floating_point()


def as_images(anything: Any, *, what: str = "images") -> Images:
    """Images as the contract has them: float, (N, C, H, W), in [0, 1].

    Args:
        anything: a tensor or numpy array of images, or a list of such of single images: 8-bit, or floats in
            [0, 1] of any precision (16-bit floats become 32-bit). Grey images (N, H, W) get their channel.
            (N, H, W, C) is understood where no other reading is possible.
        what: what they are called in errors.

    Raises:
        UsageError: another type, shape or range, or a shape that can be read in two ways.
    """
    try:
        if isinstance(anything, list | tuple) and anything and isinstance(anything[0], Tensor):
            anything = torch.stack(list(anything))
        images = anything.detach() if isinstance(anything, Tensor) else torch.from_numpy(np.array(anything))
    except (TypeError, ValueError, RuntimeError) as error:
        raise _no_images(what, f"a {type(anything).__name__}", "torch.as_tensor(images)") from error
    if images.dtype == torch.uint8:
        images = images.float() / 255
    elif not images.is_floating_point():
        raise _no_images(what, images.dtype, "dividing by the largest value of their type")
    elif images.dtype in (torch.float16, torch.bfloat16):
        images = images.float()
    if images.ndim == 3 and images.shape[0] not in (1, 3):
        images = images[:, None]
    if images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        images = images.permute(0, 3, 1, 2).contiguous()
    check_images(images, what=what)
    return images


def _no_images(what: str, got: object, suggestion: str) -> UsageError:
    return UsageError(f"{what} as 8-bit numbers or floats in [0, 1]", got=got, suggestion=suggestion)


def as_labels(anything: Any, count: int, classes: int | None = None) -> Labels:
    """Labels as the contract has them: one integer for each image.

    Args:
        anything: whole numbers as a tensor, numpy array or list, (N,) or (N, 1); one-hot rows.
        count: the number of images.
        classes: the number of classes, where it is known.

    Raises:
        UsageError: another length, type or range.
    """
    try:
        labels = (anything if isinstance(anything, Tensor) else torch.as_tensor(np.array(anything))).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise _no_labels(count, f"a {type(anything).__name__}", "a list of whole numbers") from error
    if labels.ndim == 2 and labels.shape[1] > 1 and bool(((labels == 1).sum(1) == 1).all()):
        labels = labels.argmax(1) if bool(((labels == 0) | (labels == 1)).all()) else labels
    labels = labels.flatten() if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.ndim != 1:
        suggestion = "labels.long()" if labels.ndim == 1 else "labels.argmax(1), or labels.flatten()"
        raise _no_labels(count, f"{labels.dtype} of shape {tuple(labels.shape)}", suggestion)
    if len(labels) != count:
        raise _no_labels(
            count,
            f"{len(labels)} of them",
            f"labels[:{count}]" if len(labels) > count else "one for each image",
        )
    labels = labels.long()
    low, high = (int(labels.min()), int(labels.max())) if count else (0, 0)
    if low < 0 or (classes is not None and high >= classes):
        from_one = low == 1 and high == classes
        raise UsageError(
            f"labels from 0 to {classes - 1}" if classes is not None else "labels from 0",
            got=f"labels from {low} to {high}",
            suggestion="labels - 1" if from_one else "a classifier with more classes, or other labels",
        )
    return labels


def _no_labels(count: int, got: object, suggestion: str) -> UsageError:
    return UsageError(
        f"one whole number for each of {count} images as labels", got=got, suggestion=suggestion
    )


def _shape(images: Tensor) -> str:
    return "×".join(map(str, images.shape[1:]))
