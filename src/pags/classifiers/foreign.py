"""State dicts that others wrote: freed of wrappers, of what stands beside the network, and of a normaliser.

Everything here takes and returns named tensors; files are read elsewhere.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from pags.checkpoints import State
from pags.classifiers.resnet import LAYOUTS
from pags.classifiers.wide import PREACTIVATION
from pags.errors import PagsError, UsageError

Normalisation: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel."""

ANYWHERE = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""What DataParallel, torch.compile, FSDP and checkpointed blocks put into names, at any depth."""

WRAPPERS = ("model", "net", "network", "backbone", "classifier", "student", "1")
"""What other wrappers usually call a network: Lightning, a Sequential(normaliser, network), distillation."""

BESIDE = {
    "criterion", "loss", "losses", "metric", "metrics", "acc", "accuracy", "auroc", "auc", "f1", "confmat",
    "ece", "ema", "teacher", "swa", "averaged", "shadow",
}  # fmt: skip
"""Words that begin the names of what stands beside a network: losses, metrics, copies of it."""

COUNTS = {"n_averaged", "num_updates", "decay", "step", "epoch", "global_step"}
"""Single numbers that training scripts register beside a network."""

MEANS = re.compile(r"(?:.*_)?(?:means?|mu)_?")
DEVIATIONS = ("std", "stds", "sd", "sigma", "stdev")
FEW = 4  # channels that a normaliser may have


def unwrapped(state: State) -> tuple[State, Normalisation | None]:
    """The names without what wrappers put into them at any depth, and the normalisation of the tensors.

    What MadryLab's robustness keeps a second time under "attacker" is compared with the first copy and left
    out.

    Raises:
        PagsError: the two copies differ, or there are two normalisations.
    """
    return _without_normalisers(_without_attacker(_without_inner(state)))


def views(state: State, depth: int = 0) -> Iterator[State]:
    """The tensors as they are named, and with each prefix taken off those names that have it.

    The usual names of a network come first, then whatever begins at least a quarter of the names.
    """
    yield state
    firsts = Counter(name.partition(".")[0] for name in state if name.count(".") > 1)
    usual = [word for word in WRAPPERS if word in firsts]
    frequent = [word for word, count in firsts.items() if word not in usual and 4 * count >= len(state)]
    for word in (*usual, *frequent) if depth < 4 else ():
        start = f"{word}."
        renamed = {name: name.removeprefix(start) for name in state}
        if len(set(renamed.values())) == len(state):
            yield from views({renamed[name]: value for name, value in state.items()}, depth + 1)


def beside(name: str, ignore: Sequence[str] = ()) -> bool:
    """Whether a tensor that the network does not have belongs to something beside it, or is to be ignored."""
    first, dot, _ = name.partition(".")
    words = {word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+", first)}
    return asked_for(name, ignore) or (bool(words & BESIDE) if dot else name in COUNTS)


def asked_for(name: str, ignore: Sequence[str]) -> bool:
    """Whether one of these is the name of a tensor, or its beginning up to a dot."""
    return any(name == each or name.startswith(f"{each}.") for each in ignore)


def file_names(architecture: str, names: Iterable[str], state: Mapping[str, Tensor]) -> dict[str, str]:
    """What each tensor of an architecture is called in a file.

    Our residual networks go by other names in the usual CIFAR layout (conv1, layer1.0.bn1, shortcut, linear),
    which robustness, RobustBench and most CIFAR code share, and so do those that normalise first; all else
    goes by its own name.
    """
    if architecture in PREACTIVATION and "linear.weight" in state:
        return {name: _preactivation_name(name) for name in names}
    if architecture in LAYOUTS and "linear.weight" in state and "conv1.weight" in state:
        return {name: _cifar_name(name, LAYOUTS[architecture].depth) for name in names}
    return {name: name for name in names}


def _cifar_name(name: str, depth: tuple[int, ...]) -> str:
    first, _, rest = name.partition(".")
    if first != "blocks":
        start = {"stem.0.": "conv1.", "stem.1.": "bn1.", "head.": "linear."}
        return next(
            (new + name.removeprefix(old) for old, new in start.items() if name.startswith(old)), name
        )
    place, _, rest = rest.partition(".")
    stage, inside = 0, int(place)
    while inside >= depth[stage]:
        stage, inside = stage + 1, inside - depth[stage]
    return f"layer{stage + 1}.{inside}.{re.sub(r'^norm', 'bn', rest)}"


def _preactivation_name(name: str) -> str:
    name = re.sub(r"^block(\d+)\.layer\.", r"layer\1.", name).replace(".convShortcut.", ".shortcut.0.")
    return re.sub(r"^bn1\.", "bn.", name).replace("fc.", "linear.")


def check_finite(state: State) -> None:
    """Raise where a weight is not a finite number.

    Raises:
        PagsError: with the first names.
    """
    broken = [name for name, value in state.items() if not bool(value.float().isfinite().all())]
    if broken:
        raise PagsError(
            "finite weights",
            got=f"NaN or infinity in {len(broken)} ({few(broken)})",
            suggestion="a checkpoint from before the training diverged",
        )


def agreed(given: Normalisation | None, found: Normalisation | None) -> Normalisation | None:
    """The normalisation of the file, which the one that was given must not contradict.

    Raises:
        UsageError: the two differ.
    """
    if given and found and not _close(given, found):
        raise UsageError(
            f"the normalisation that the file holds, mean {found[0]} and std {found[1]}",
            got=f"mean {given[0]} and std {given[1]}",
            suggestion="leaving mean and std out",
        )
    return found or given


def _close(one: Normalisation, other: Normalisation) -> bool:
    return [len(part) for part in one] == [len(part) for part in other] and all(
        abs(a - b) < 1e-4
        for mine, theirs in zip(one, other, strict=True)
        for a, b in zip(mine, theirs, strict=True)
    )


def _without_inner(state: State) -> State:
    """Names without the words that wrappers put anywhere, unless two names would become one."""
    short = {name: ".".join(part for part in name.split(".") if part not in ANYWHERE) for name in state}
    unique = len(set(short.values())) == len(state)
    return {short[name]: value for name, value in state.items()} if unique else state


def _without_attacker(state: State) -> State:
    """Drop `attacker.`, the second copy of model and normaliser that robustness' AttackerModel registers."""
    if not any(name.startswith("model.") for name in state):
        return state
    kept = {name: value for name, value in state.items() if not name.startswith("attacker.")}
    for name in state.keys() - kept.keys():
        # The attacker calls its normaliser "normalize", the model calls the same one "normalizer".
        first = name.removeprefix("attacker.").replace("normalize.", "normalizer.", 1)
        if first not in kept or not torch.equal(kept[first], state[name]):
            raise PagsError(
                "the attacker's copy of the network equal to the network",
                got=f"{name} differs from {first}",
                suggestion="saving the checkpoint again, for one of the two is not what was trained",
            )
    return kept


def _without_normalisers(state: State) -> tuple[State, Normalisation | None]:
    """The tensors but for every (x − mean) / std on images among them, and what these agree on."""
    pairs = dict(_normalisers(state))
    found = {name: (_numbers(state[name]), _numbers(state[std])) for name, std in pairs.items()}
    rest = {name: value for name, value in state.items() if name not in {*pairs, *pairs.values()}}
    first = next(iter(found.values()), None)
    if any(other != first for other in found.values()):
        raise PagsError(
            "one normalisation in the file",
            got=f"different ones in {few(list(found))}",
            suggestion=f"?ignore={next(reversed(found))},{pairs[next(reversed(found))]}",
        )
    if first and max(map(abs, first[0])) > 2:  # for images in 0…255
        first = (tuple(value / 255 for value in first[0]), tuple(value / 255 for value in first[1]))
    return rest, first


def _normalisers(state: State) -> Iterator[tuple[str, str]]:
    """The names of means and of their standard deviations: a number for each of a few channels."""
    for name, mean in state.items():
        parent, dot, last = name.rpartition(".")
        if not MEANS.fullmatch(last) or last == "running_mean" or mean.numel() > FEW:
            continue
        for word in DEVIATIONS:
            std = state.get(partner := parent + dot + re.sub(r"means?|mu", word, last))
            if std is not None and std.numel() == mean.numel() and bool((std > 0).all()):
                yield name, partner
                break


def _numbers(values: Tensor) -> tuple[float, ...]:
    return tuple(values.float().flatten().tolist())


def few(names: list[Any]) -> str:
    return ", ".join(map(str, names[:3])) + (", …" if len(names) > 3 else "")
