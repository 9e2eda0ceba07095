"""Putting weights into the network that they belong to: every one of them, and no other."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pags.classifiers.about import remember
from pags.classifiers.build import build_classifier, load_network, without_normaliser
from pags.classifiers.foreign import Normalisation, State, few, file_names
from pags.classifiers.libraries import WIDE_4
from pags.classifiers.resnet import LAYOUTS
from pags.classifiers.wide import UNUSED, WIDE
from pags.errors import PagsError, UsageError
from pags.seeds import seeded_construction

CANDIDATES = (
    *LAYOUTS, *WIDE, "plain-32-128-128", "plain-64-256-256",
    *(f"torchvision:{name}" for name in (
        "resnet18", "resnet34", "resnet50", "wide_resnet50_2", WIDE_4,
        "resnext50_32x4d", "densenet161", "vgg16_bn", "mobilenet_v2", "mnasnet1_0", "shufflenet_v2_x1_0",
    )),
)  # fmt: skip
"""What a wrong architecture is answered with: ours, and those of the well-known robust checkpoints."""

UNUSUAL = 7919
"""A number of classes by which the last layer is known."""


def filled(
    architecture: str, state: State, classes: int | None, channels: int, normalisation: Normalisation
) -> nn.Module:
    """The network with these weights, every one of them and no other.

    Args:
        architecture: a name of `build.ARCHITECTURES`.
        state: tensors in the names of the network, or in the usual CIFAR names of it.
        classes: what the last layer must have; None for what it has.
        channels, normalisation: as in `build_classifier`.

    Raises:
        UsageError: another number of classes.
        PagsError: a name is missing or unknown, or a shape differs.
    """
    if architecture in WIDE:
        state = {name: value for name, value in state.items() if not name.startswith(UNUSED)}
    found = _classes(architecture, state, channels)
    if classes is not None and found is not None and classes != found:
        raise UsageError(
            f"the number of classes of the weights' last layer, {found}",
            got=classes,
            suggestion=f"classes={found}",
        )
    mean, std = normalisation
    with seeded_construction(0, "to be replaced"):
        model = build_classifier(architecture, channels, found or classes or 1, mean=mean, std=std)
    own = without_normaliser(model)
    names = file_names(architecture, own, state)
    expected = {names[name]: value for name, value in own.items()}
    state = completed(state, expected)
    if wrong := differences(state, expected):
        raise PagsError(
            f"the weights of {architecture}",
            got="; ".join(wrong),
            suggestion=suggested(state, channels)
            or "the architecture they were trained with, or file.py:function that builds it",
        )
    load_network(model, {name: state[names[name]] for name in own})
    remember(model, architecture=architecture, classes=found)
    return model


def suggested(state: State, channels: int) -> str | None:
    """The known architecture that these tensors fit best, if any fits nearly."""
    best, fits = 0.95, ""
    for candidate in CANDIDATES:
        if (share := likeness(state, *_expected(candidate, state, channels))) > best:
            best, fits = share, candidate
        if share == 1:
            break
    return f"architecture={fits!r}, which these weights fit" if fits else None


def _classes(architecture: str, state: State, channels: int) -> int | None:
    """The length of the last layer's tensors, if they are there and agree."""
    _, head = _expected(architecture, state, channels)
    lengths = {len(state[name]) for name in head if name in state and state[name].ndim}
    return lengths.pop() if len(lengths) == 1 else None


def _expected(architecture: str, state: State, channels: int) -> tuple[State, set[str]]:
    """An architecture's tensors in the names of the file, and which depend on the number of classes."""
    zero, one = (0.0,) * channels, (1.0,) * channels
    with seeded_construction(0, "shapes"):
        try:
            with torch.device("meta"):  # shapes without memory
                model = build_classifier(architecture, channels, UNUSUAL, mean=zero, std=one)
        except (NotImplementedError, RuntimeError):  # torchvision computes some widths with tensors
            model = build_classifier(architecture, channels, UNUSUAL, mean=zero, std=one)
    own = without_normaliser(model)
    names = file_names(architecture, own, state)
    expected = {names[name]: value for name, value in own.items()}
    return expected, {name for name, value in expected.items() if UNUSUAL in value.shape[:1]}


def completed(state: State, expected: Mapping[str, Tensor]) -> State:
    """The state with BatchNorm's counters of batches, where it lacks them; no output depends on them."""
    counters = {name: torch.zeros((), dtype=torch.long) for name in expected if _is_counter(name)}
    return {**counters, **state}


def differences(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """In words, how names and shapes differ from what a network expects; nothing where they fit."""
    missing = [name for name in expected if name not in state]
    unknown = [name for name in state if name not in expected]
    other = [
        f"{name} is {_shape(state[name])} instead of {_shape(expected[name])}"
        for name in expected
        if name in state and state[name].shape != expected[name].shape
    ]
    kinds = (("missing", missing), ("unknown", unknown), ("of another shape", other))
    return [f"{len(names)} {kind} ({few(names)})" for kind, names in kinds if names]


def likeness(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], head: set[str]) -> float:
    """The share of tensors that are in both with the same shape, but for counters and classes."""
    both = {name for name in state.keys() & expected.keys() if _alike(state, expected, name, name in head)}
    every = state.keys() | expected.keys()
    return sum(not _is_counter(name) for name in both) / max(1, sum(not _is_counter(name) for name in every))


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _alike(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], name: str, head: bool) -> bool:
    first = 1 if head else 0
    return state[name].shape[first:] == expected[name].shape[first:]


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "one number"
