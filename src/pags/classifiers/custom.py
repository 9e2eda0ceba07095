"""A classifier that the user's own Python makes. This runs that code."""

import hashlib
import sys
from collections.abc import Callable
from importlib import import_module, util
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pags.classifiers.check import check_logits
from pags.classifiers.modes import evaluating
from pags.errors import ModelError, PagsError, UsageError
from pags.seeds import generator

SIZES = ((32, 32), (64, 64), (224, 224), (28, 28), (8, 8), *((side, side) for side in (
    16, 96, 48, 128, 12, 256, 299, 384,
)), (56, 28))  # fmt: skip
"""Height and width of the images that a classifier is tried on; the first that it takes."""


def made_by(where: str, name: str) -> tuple[Callable[..., Any], str]:
    """What a function of the user returns, and a line that says where it comes from.

    **This runs the user's own code**, with everything that it may do.

    Args:
        where: a module that can be imported, or the path of a Python file.
        name: a function without arguments that returns a module or any callable images → logits, or a module.

    Raises:
        UsageError: there is no such module, file or name, or it is not a function.
        ModelError: the function fails.
        PagsError: it returns nothing that could be a classifier.
    """
    thing, source = _find(where, name)
    made = thing if isinstance(thing, nn.Module) else _call(thing, where, name)
    if not callable(made):
        raise PagsError(
            f"{name} to return a classifier, images → logits",
            got=f"a {type(made).__name__}",
            suggestion="returning an nn.Module",
        )
    return made, source


def _find(where: str, name: str) -> tuple[Any, str]:
    try:
        module, source = _from_file(Path(where)) if where.endswith(".py") else (import_module(where), where)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"a Python module {where} that can be imported",
            got=str(error),
            suggestion="the path of a file: path/to/file.py:function",
        ) from error
    except Exception as error:
        raise _failed(f"{where} to be imported", where, error) from error
    if not callable(thing := getattr(module, name, None)):
        names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UsageError(
            f"a function {name} in {where}",
            got="no such name" if thing is None else f"a {type(thing).__name__}",
            suggestion=" or ".join(names[:5]) or "defining it there",
        )
    return thing, f"made by {source}:{name}"


def _from_file(path: Path) -> tuple[Any, str]:
    """The file as a module of its own, and its path with a fingerprint of its text."""
    if not path.is_file():
        raise UsageError("a Python file that is there", got=str(path), suggestion="checking the path")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    name = f"_pags_user_{digest[:16]}"
    if (spec := util.spec_from_file_location(name, path)) is None or spec.loader is None:
        raise UsageError("a Python file", got=str(path), suggestion="a name that ends in .py")
    module = util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up there
    spec.loader.exec_module(module)
    return module, f"{path} (sha256 {digest[:16]})"


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
