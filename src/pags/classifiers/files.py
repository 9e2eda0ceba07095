"""Classifiers out of files: ours, which say how they are built, and others', which have to be told."""

from pathlib import Path
from typing import Any

from torch import nn

from pags import checkpoints
from pags.classifiers.about import remember
from pags.classifiers.build import ARCHITECTURES, build_classifier, default_normalisation
from pags.classifiers.fitting import differences, filled, suggested
from pags.classifiers.foreign import Normalisation, State, agreed, check_finite, find_state, unwrapped
from pags.classifiers.libraries import torchvision_names
from pags.classifiers.resnet import LAYOUTS
from pags.errors import PagsError, UsageError
from pags.seeds import seeded_construction
from pags.store import read_safetensors


def from_file(
    kind: str, path: Path, key: str | None, architecture: str | None, classes: int | None, channels: int,
    given: Normalisation | None,
) -> nn.Module:  # fmt: skip
    """The classifier of a file; what a file of ours says of itself need not be told.

    Args:
        kind: "file", "madry" (the file must hold its normaliser, or one be given) or "robustbench".
        path, key: the file, and the key of its state dict where there are several.
        architecture, classes, channels, given: as in `load_classifier`; `given` is the normalisation.

    Raises:
        UsageError, PagsError: as in `load_classifier`.
    """
    content, about = _read(path)
    if kind == "file" and isinstance(about.get("classifier"), dict):
        return _own(path, content, about["classifier"], architecture, classes, given)
    state, where = find_state(content, key)
    state, found = unwrapped(state)
    check_finite(state)
    if kind == "madry" and found is None and given is None:
        raise PagsError(
            "a checkpoint of MadryLab's robustness, with normalizer.new_mean and new_std",
            got=f"{path} without them",
            suggestion="the path without madry:, or mean and std of the training",
        )
    if architecture is None:
        raise UsageError(
            f"the architecture of the weights in {path}",
            got="none given",
            suggestion=suggested(state, channels) or f"one of {', '.join(ARCHITECTURES)}",
        )
    architecture = _resolved(architecture, state)
    normalisation = agreed(given, found) or default_normalisation(architecture, channels)
    source = "given" if given else f"of {architecture.partition(':')[0]}" if ":" in architecture else "none"
    model = filled(architecture, state, classes, channels, normalisation)
    remember(model, weights=f"{path}{f', under {where}' if where else ''}")
    remember(model, normalisation="in the file" if found else source)
    return model


def _read(path: Path) -> tuple[Any, dict[str, Any]]:
    """What a file holds, and the plain data about it."""
    if not path.is_file():
        raise UsageError(
            "a file of weights that is there",
            got=f"{path}{', a folder' if path.is_dir() else ''}",
            suggestion="checking the path",
        )
    return read_safetensors(path) if path.suffix == ".safetensors" else (checkpoints.read(path), {})


def _own(
    path: Path, state: State, recipe: dict[str, Any], architecture: str | None, classes: int | None,
    given: Normalisation | None,
) -> nn.Module:  # fmt: skip
    """The classifier of a file of ours, built as its metadata says."""
    for what, asked, stored in (
        ("architecture", architecture, recipe.get("architecture")),
        ("classes", classes, recipe.get("classes")),
    ):  # fmt: skip
        if asked is not None and asked != stored:
            raise UsageError(f"the {what} of {path}, {stored}", got=asked, suggestion=f"leaving {what} out")
    try:
        size = tuple(recipe["size"]) if recipe.get("size") else None
        with seeded_construction(0, "to be replaced"):
            model = build_classifier(**{**recipe, "size": size})
        agreed(given, (tuple(recipe["mean"]), tuple(recipe["std"])))
    except (KeyError, TypeError) as error:
        raise PagsError(
            "architecture, channels, classes, activation, mean and std in the metadata",
            got=f"{path} with {recipe}",
            suggestion="training again, or load_classifier with a plain state dict and architecture=",
        ) from error
    if wrong := differences(state, model.state_dict()):
        raise PagsError(
            f"the weights of {recipe['architecture']} in {path}",
            got="; ".join(wrong),
            suggestion="training again, for the file does not hold what it says",
        )
    check_finite(state)
    model.load_state_dict(state)
    remember(model, architecture=recipe["architecture"], classes=recipe["classes"], weights=str(path))
    remember(model, normalisation="in the file")
    return model


def _resolved(architecture: str, state: State) -> str:
    """torchvision's network of this plain name, where the tensors are named as torchvision names them."""
    ours = architecture in LAYOUTS and not ("fc.weight" in state and "conv1.weight" in state)
    if ours or ":" in architecture or architecture not in torchvision_names():
        return architecture
    return f"torchvision:{architecture}"
