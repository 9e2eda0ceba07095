"""Classifiers out of files: ours, which say how they are built, and others', which have to be told."""

from pathlib import Path
from typing import Any

from torch import nn

from pags import checkpoints
from pags.checkpoints import State
from pags.classifiers.about import remember, remembered
from pags.classifiers.build import ARCHITECTURES, Normalised, build_classifier, default_normalisation
from pags.classifiers.fitting import differences, filled, recognised, suggested
from pags.classifiers.foreign import Normalisation, agreed, asked_for, check_finite, unwrapped, views
from pags.classifiers.libraries import torchvision_names
from pags.classifiers.resnet import LAYOUTS
from pags.classifiers.shapes import SHAPED, shaped
from pags.classifiers.spec import Spec, spread
from pags.classifiers.wide import PREACTIVATION
from pags.errors import PagsError, UsageError
from pags.seeds import seeded_construction
from pags.store import read_safetensors


def from_file(
    spec: Spec, architecture: str | None, classes: int | None, channels: int, given: Normalisation | None,
    size: tuple[int, int] | None,
) -> nn.Module:  # fmt: skip
    """The classifier of a file; what a file of ours says of itself need not be told.

    Args:
        spec: of the kind "file", "madry" (the file must hold its normaliser, or one be given) or
            "robustbench".
        architecture, classes, channels, given, size: as in `load_classifier`; `given` is the normalisation.

    Raises:
        UsageError, PagsError: as in `load_classifier`.
    """
    path, ignore = Path(spec.rest), tuple(filter(None, spec.options.get("ignore", "").split(",")))
    content, about = _read(path)
    if spec.kind == "file" and isinstance(about.get("classifier"), dict):
        return _own(path, content, about["classifier"], architecture, classes, given)
    where, state = checkpoints.state_dict_in(content, spec.options.get("key"))
    state = {name: value for name, value in state.items() if not asked_for(name, ignore)}
    state, found = unwrapped(state)
    check_finite(state)
    if spec.kind == "madry" and found is None and given is None:
        raise PagsError(
            "a checkpoint of MadryLab's robustness, with normalizer.new_mean and new_std",
            got=f"{path} without them",
            suggestion="the path without madry:, or mean and std of the training",
        )
    found = None if found is None else (spread(found[0], channels), spread(found[1], channels))
    normalisation = agreed(given, found)
    model = _built(spec, path, state, architecture, classes, channels, normalisation, size, ignore)
    remember(model, weights=f"{path}{f', under {where}' if where else ''}")
    library = str(remembered(model)["architecture"]).partition(":")[0]
    source = "given" if given else f"of {library}" if library in {"torchvision", "timm"} else "none"
    remember(model, normalisation="in the file" if found else source)
    return model


def _built(
    spec: Spec, path: Path, state: State, architecture: str | None, classes: int | None, channels: int,
    normalisation: Normalisation | None, size: tuple[int, int] | None, ignore: tuple[str, ...],
) -> nn.Module:  # fmt: skip
    """The network of the weights, its architecture recognised where it was not named."""
    activation = spec.options.get("activation", "relu")
    chosen = _resolved(architecture, state) if architecture else recognised(state, channels, ignore)
    if chosen is None or chosen in SHAPED:
        given = {name: spec.naturals(name) for name in ("stride", "padding", "pool")}
        made = shaped(
            chosen, state, channels, spec.size() or size, activation=activation, ignore=ignore,
            **{name: values for name, values in given.items() if values},
        )  # fmt: skip
        if made is not None:
            return _shaped(*made, classes, normalisation or ((0.0,) * channels, (1.0,) * channels))
        raise UsageError(
            f"the architecture of the weights in {path}",
            got="none given",
            suggestion=suggested(state, channels)
            or f"?arch= with one of {', '.join((*ARCHITECTURES, *SHAPED))}",
        )
    normalisation = normalisation or default_normalisation(chosen, channels)
    model = filled(chosen, state, classes, channels, normalisation, ignore=ignore, activation=activation)
    remember(model, recognised=architecture is None)
    return model


def _shaped(network: nn.Module, words: str, classes: int | None, normalisation: Normalisation) -> nn.Module:
    found = [module for module in network.modules() if isinstance(module, nn.Linear)][-1].out_features
    if classes is not None and classes != found:
        raise UsageError(
            f"the number of classes of the weights' last layer, {found}",
            got=classes,
            suggestion=f"classes={found}",
        )
    model = Normalised(network, *normalisation)
    remember(model, architecture=words, classes=found, recognised=True)
    return model


def _read(path: Path) -> tuple[Any, dict[str, Any]]:
    """What a file holds, and the plain data about it."""
    if not path.is_file():
        raise UsageError(
            "a file of weights that is there",
            got=f"{path}{', a folder' if path.is_dir() else ''}",
            suggestion="checking the path",
        )
    if path.suffix != ".safetensors":
        return checkpoints.read(path), {}
    try:
        return read_safetensors(path)
    except PagsError as error:  # whose suggestion is for files of the cache
        raise PagsError(error.expected, got=error.got, suggestion="another copy of the file") from error


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
            named = (
                ", or images of these classes ('folder:PATH?classes=cifar10')" if what == "classes" else ""
            )
            tip = f"leaving {what} out{named}"
            raise UsageError(f"the {what} of {path}, {stored}", got=asked, suggestion=tip)
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
    """The architecture that a plain name means beside these tensors: torchvision's, or one of two kinds."""
    names = {name for view in views(state) for name in view}
    if architecture in PREACTIVATION and "linear.weight" in names:
        return "preact-resnet18" if "bn.weight" in names else "preact-resnet18-plain"
    ours = architecture in LAYOUTS and not {"fc.weight", "conv1.weight"} <= names
    if ours or ":" in architecture or architecture not in torchvision_names():
        return architecture
    return f"torchvision:{architecture}"
