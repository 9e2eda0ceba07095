"""Which classifier it is, by what it does: for keys, where its name and its weights do not say enough."""

import hashlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from pags.arrays import Images
from pags.classifiers.about import remembered, weights_sha256
from pags.classifiers.check import check_logits
from pags.classifiers.modes import evaluating
from pags.seeds import generator

SKETCH, DIGITS = 8, 3
"""Numbers that stand for a tensor, and the decimals that are kept of each."""


def identity(model: nn.Module, shape: tuple[int, int, int], classes: int | None = None) -> dict[str, Any]:
    """Plain data that changes with the classifier: for the key of everything that is measured of it.

    Args:
        model, shape, classes: as in `behaviour`.

    Returns:
        "behaviour"; "sha256" of the weights that it shows, or None; "source" of the user's code that made it,
        or None.
    """
    return {
        "behaviour": behaviour(model, shape, classes),
        "sha256": weights_sha256(model.state_dict()),
        "source": remembered(model).get("source"),
    }


def behaviour(model: nn.Module, shape: tuple[int, int, int], classes: int | None = None) -> str:
    """A digest of the logits and the input gradients of four seeded images.

    Each tensor counts by its norm and by a few random sums of its entries relative to the norm, rounded to
    three digits: a change by a thousandth is seen, one in float32's last digits as a rule is not.

    Args:
        model: a classifier, seen in evaluation mode; no `.grad` is touched.
        shape: (C, H, W) of its images.
        classes: the number of its logits, where it is known.

    Raises:
        PagsError: the outputs are not finite logits (4, classes).
    """
    images = probes(shape).to(_device(model))
    with evaluating(model):
        logits = check_logits(model, images, classes)
        gradient = _gradient(model, images)
    text = repr([_sketch(logits), None if gradient is None else _sketch(gradient)])
    return hashlib.sha256(text.encode()).hexdigest()


def probes(shape: tuple[int, int, int]) -> Images:
    """Four seeded images in [0, 1], (4, C, H, W): two of noise, two smooth ones."""
    noise = torch.rand(2, *shape, generator=generator(0, "probe", *shape))
    coarse = torch.rand(2, shape[0], 3, 3, generator=generator(0, "smooth probe", *shape))
    smooth = interpolate(coarse, size=shape[1:], mode="bilinear", align_corners=False)
    return torch.cat([noise, smooth])


def _device(model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in model.parameters()), torch.device("cpu"))


def _gradient(model: nn.Module, images: Images) -> Tensor | None:
    images = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        logits = model(images)
    if not logits.requires_grad:
        return None
    return torch.autograd.grad((logits * _signs(logits)[0]).sum(), images, allow_unused=True)[0]


def _sketch(values: Tensor) -> list[str]:
    exact = values.detach().double().cpu()
    norm = float(torch.linalg.vector_norm(exact))
    sums = (_signs(exact) * exact).flatten(1).sum(1) / (norm or 1.0)
    return [f"{norm:.{DIGITS}g}", *(f"{value:.{DIGITS}f}" for value in sums.tolist())]


def _signs(values: Tensor) -> Tensor:  # (SKETCH, *shape), of 1 and -1
    draws = generator(0, "sketch", *values.shape)
    return (2 * torch.randint(0, 2, (SKETCH, *values.shape), generator=draws) - 1).to(values)
