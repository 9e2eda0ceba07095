"""A classifier that the user's own Python makes. This runs that code."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pags.arrays import Images
from pags.classifiers.about import remember
from pags.classifiers.check import check_logits
from pags.classifiers.modes import evaluating
from pags.errors import PagsError, UsageError
from pags.plugins import failed, load_plugin
from pags.seeds import generator

SIZES = (32, 64, 224, 28, 8)
"""Sides of the images that a classifier is tried on; the first that it takes."""


class Called(nn.Module):
    """Any callable images → logits as a module."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Images) -> Any:  # logits, if the function keeps the contract
        return self.function(images)


def made_by(where: str, name: str, *, channels: int, classes: int | None) -> tuple[nn.Module, int, str]:
    """The classifier that a function of the user returns, tried on two images.

    **This runs the user's own code**, with everything that it may do.

    Args:
        where: a module that can be imported, or the path of a Python file.
        name: a function without arguments that returns a module or any callable images → logits, or a module.
        channels: of the images that it is tried on.
        classes: how many logits there must be; None for as many as come.

    Returns:
        The classifier in evaluation mode; the number of its logits; a line that says where it comes from.

    Raises:
        UsageError: there is no such module, file or name, or it is not a function.
        PagsError: the function fails, or what it returns gives no finite logits (N, classes).
    """
    plugin = load_plugin(f"{where}:{name}")
    if not callable(thing := plugin.value):
        raise UsageError(
            f"a function {name} in {where}",
            got=f"a {type(thing).__name__}",
            suggestion="a module or function",
        )
    made = thing if isinstance(thing, nn.Module) else _call(thing, where, name)
    source = f"made by {where} (sha256 {plugin.source[:16]}):{name}"
    if not callable(made):
        raise PagsError(
            f"{name} to return a classifier, images → logits",
            got=f"a {type(made).__name__}",
            suggestion="returning an nn.Module",
        )
    model = made if isinstance(made, nn.Module) else Called(made)
    remember(model, source=plugin.source)
    return model.eval(), _tried(model, channels, classes, name), source


def _call(thing: Any, where: str, name: str) -> Any:
    try:
        return thing()
    except Exception as error:
        raise failed(f"{name}() of {where} to return a classifier", f"{where}:{name}", error) from error


def _tried(model: nn.Module, channels: int, classes: int | None, name: str) -> int:
    """The number of logits, found with two images of noise."""
    first: Exception | None = None
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    for side in SIZES:
        images = torch.rand(2, channels, side, side, generator=generator(0, "probe", side)).to(device)
        try:
            with evaluating(model):
                return check_logits(model, images, classes).shape[1]
        except PagsError:
            raise
        except Exception as error:  # the network may be for images of another size
            first = first or error
    assert first is not None
    sizes = ", ".join(f"{side}×{side}" for side in SIZES)
    raise failed(f"the classifier of {name} to take images of {sizes} or {channels} channels", name, first)
