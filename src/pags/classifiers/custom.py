"""A classifier that the user's own Python makes. This runs that code."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pags.classifiers.check import check_logits
from pags.classifiers.modes import evaluating
from pags.errors import ModelError, PagsError, UsageError
from pags.plugins import load_plugin
from pags.seeds import generator

SIZES = ((32, 32), (64, 64), (224, 224), (28, 28), (8, 8), *((side, side) for side in (
    16, 96, 48, 128, 12, 256, 299, 384,
)), (56, 28))  # fmt: skip
"""Height and width of the images that a classifier is tried on; the first that it takes."""


def made_by(where: str, name: str) -> tuple[Callable[..., Any], str, str]:
    """What a function of the user returns, a line that says where it comes from, and a digest of its source.

    **This runs the user's own code**, with everything that it may do.

    Args:
        where: a module that can be imported, or the path of a Python file.
        name: a function without arguments that returns a module or any callable images → logits, or a module.

    Raises:
        UsageError: there is no such module, file or name, or it is not a function.
        ModelError: the function fails.
        PagsError: it returns nothing that could be a classifier.
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
    return made, source, plugin.source


def _call(thing: Any, where: str, name: str) -> Any:
    try:
        return thing()
    except Exception as error:
        raise _failed(f"{name}() of {where} to return a classifier", f"{where}:{name}", error) from error


def tried(
    model: nn.Module, channels: int, classes: int | None, name: str, size: tuple[int, int] | None
) -> int:
    """The number of logits of a classifier of the user, found with two images of noise.

    Args:
        model: in evaluation mode.
        channels: of the images.
        classes: how many logits there must be; None for as many as come.
        name: of the model, for errors.
        size: height and width of the images in pixels; None to try `SIZES`.

    Raises:
        ModelError: it raises something on images of every size.
        PagsError: it gives no finite logits (N, classes).
    """
    first: ModelError | None = None
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    sizes = SIZES if size is None else (size,)
    for height, width in sizes:
        draws = generator(0, "probe", height, *([width] if width != height else []))
        images = torch.rand(2, channels, height, width, generator=draws).to(device)
        try:
            with evaluating(model), torch.random.fork_rng(devices=[]):
                return check_logits(model, images, classes).shape[1]
        except ModelError as error:  # the network may be for images of another size
            first = first or error
    assert first is not None
    raise ModelError(
        f"{name} to take images of {', '.join(f'{h}×{w}' for h, w in sizes)} in {channels} channels",
        got=first.got,
        suggestion=first.suggestion,
    ) from first


def _failed(expected: str, what: str, error: Exception) -> ModelError:
    first = (str(error).strip() or "no message").splitlines()[0]
    return ModelError(
        expected,
        got=f"{type(error).__name__}: {first[:200]}",
        suggestion=f"running {what} alone in Python, for the whole traceback",
    )
