"""Putting weights into the network that they belong to: every one of them, and no other."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pags.checkpoints import State
from pags.classifiers.about import remember
from pags.classifiers.build import build_classifier, load_network, without_normaliser
from pags.classifiers.foreign import Normalisation, beside, few, file_names, views
from pags.classifiers.libraries import WIDE_4
from pags.classifiers.resnet import LAYOUTS
from pags.classifiers.wide import PREACTIVATION, UNUSED, WIDE
from pags.errors import PagsError, UsageError
from pags.seeds import seeded_construction

CANDIDATES = (
    *LAYOUTS, *WIDE, *PREACTIVATION, "plain-32-128-128", "plain-64-256-256",
    *(f"torchvision:{name}" for name in (
        "resnet18", "resnet34", "resnet50", "wide_resnet50_2", WIDE_4,
        "resnext50_32x4d", "densenet161", "vgg16_bn", "mobilenet_v2", "mnasnet1_0", "shufflenet_v2_x1_0",
    )),
)  # fmt: skip
"""What a wrong architecture is answered with: ours, and those of the well-known robust checkpoints."""

UNUSUAL = 7919
"""A number of classes by which the last layer is known."""


def filled(
    architecture: str,
    state: State,
    classes: int | None,
    channels: int,
    normalisation: Normalisation,
    *,
    ignore: Sequence[str] = (),
    activation: str = "relu",
) -> nn.Module:
    """The network with these weights, every one of them and no other.

    Args:
        architecture: a name of `build.ARCHITECTURES`.
        state: tensors in the names of the network, or in the usual CIFAR names of it, with or without
            prefixes.
        classes: what the last layer must have; None for what it has.
        channels, normalisation, activation: as in `build_classifier`.
        ignore: names, or beginnings of names up to a dot, that are left out if the network has none such.

    Returns:
        The classifier; what was left out stands in its `about.describe` under "left out".

    Raises:
        UsageError: another number of classes.
        PagsError: a name is missing or unknown, or a shape differs.
    """
    own, state, names, left_out = _best_view(architecture, state, channels, ignore)
    found = _classes(own, state, names)
    if classes is not None and found is not None and classes != found:
        raise UsageError(
            f"the number of classes of the weights' last layer, {found}",
            got=classes,
            suggestion=f"classes={found}",
        )
    mean, std = normalisation
    with seeded_construction(0, "to be replaced"):
        model = build_classifier(
            architecture, channels, found or classes or 1, activation=activation, mean=mean, std=std
        )
    own = without_normaliser(model)
    expected = {names[name]: value for name, value in own.items()}
    state = completed(state, expected)
    if wrong := differences(state, expected):
        raise PagsError(
            f"the weights of {architecture}",
            got="; ".join(wrong),
            suggestion=_advice(
                architecture, state, expected, _head(_own(architecture, channels), names), channels
            ),
        )
    load_network(model, {name: state[names[name]] for name in own})
    remember(model, architecture=architecture, classes=found, **({"left out": left_out} if left_out else {}))
    return model


def _advice(
    architecture: str, state: State, expected: Mapping[str, Tensor], head: set[str], channels: int
) -> str:
    """What may be done where tensors do not fit."""
    missing = {name for name in expected if name not in state}
    other = [name for name in expected if name in state and state[name].shape != expected[name].shape]
    strays = sorted({name.partition(".")[0] for name in state if name not in expected})
    if not missing and not other:
        return f"?ignore={','.join(strays)} behind the file's name"
    if missing == head and not other:
        return "a file with the last layer too, for this one is of the features alone"
    stem = state[other[0]].shape if other else ()
    if len(other) == 1 and not missing and len(stem) == 4 and stem[1] != channels:
        return f"channels={stem[1]}, for which these weights are"
    found = suggested(state, channels)
    if found and repr(architecture) not in found:
        return found
    return "the architecture they were trained with, or file.py:function that builds it"


def recognised(state: State, channels: int, ignore: Sequence[str] = ()) -> str | None:
    """The known architecture whose tensors these are, every one and no other but what may stand beside it."""
    best, share = _best_candidate(state, channels, ignore)
    return best if share == 1 else None


def suggested(state: State, channels: int) -> str | None:
    """The known architecture that these tensors fit best, if any fits nearly."""
    best, share = _best_candidate(state, channels, ())
    return f"architecture={best!r}, which these weights fit" if share > 0.95 else None


def _best_candidate(state: State, channels: int, ignore: Sequence[str]) -> tuple[str, float]:
    best, most = "", 0.0
    for candidate in CANDIDATES:
        own, view, names, _ = _best_view(candidate, state, channels, ignore)
        share = overlap(view, {names[name]: value for name, value in own.items()}, _head(own, names))
        if share > most:
            best, most = candidate, share
        if share == 1:
            break
    return best, most


def _best_view(
    architecture: str, state: State, channels: int, ignore: Sequence[str]
) -> tuple[State, State, dict[str, str], list[str]]:
    """The architecture's own tensors; those of the file, under the prefix that fits best and without what
    stands beside the network; the file's names of the architecture's; and the names that were left out."""
    own = _own(architecture, channels)
    ignore = (*ignore, UNUSED) if architecture in WIDE else ignore
    best = (-1.0, state, dict[str, str](), list[str]())
    for view in views(state):
        names = file_names(architecture, own, view)
        expected = {names[name]: value for name, value in own.items()}
        left_out = [name for name in view if name not in expected and beside(name, ignore)]
        kept = {name: value for name, value in view.items() if name not in set(left_out)}
        if (share := overlap(kept, expected, _head(own, names))) > best[0]:
            best = share, kept, names, left_out
    return own, *best[1:]


def _own(architecture: str, channels: int) -> State:
    """An architecture's tensors, for an unusual number of classes."""
    zero, one = (0.0,) * channels, (1.0,) * channels
    with seeded_construction(0, "shapes"):
        try:
            with torch.device("meta"):  # shapes without memory
                model = build_classifier(architecture, channels, UNUSUAL, mean=zero, std=one)
        except (NotImplementedError, RuntimeError):  # torchvision computes some widths with tensors
            model = build_classifier(architecture, channels, UNUSUAL, mean=zero, std=one)
    return without_normaliser(model)


def _head(own: State, names: Mapping[str, str]) -> set[str]:
    """The file's names of the tensors that depend on the number of classes."""
    return {names[name] for name, value in own.items() if UNUSUAL in value.shape[:1]}


def _classes(own: State, state: State, names: Mapping[str, str]) -> int | None:
    """The length of the last layer's tensors, if they are there and agree."""
    head = _head(own, names)
    lengths = {len(state[name]) for name in head if name in state and state[name].ndim}
    return lengths.pop() if len(lengths) == 1 else None


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


def overlap(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], head: set[str]) -> float:
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
