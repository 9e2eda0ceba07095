"""State dicts that others wrote: found in their checkpoint, freed of wrappers, in the names of our networks.

Everything here takes and returns named tensors; files are read elsewhere.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from pags.checkpoints import Opaque
from pags.classifiers.resnet import LAYOUTS
from pags.errors import PagsError, UsageError

State: TypeAlias = dict[str, Tensor]
"""Named tensors."""
Normalisation: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel."""

PLACES = (
    "state_dict", "model_state_dict", "model", "net", "network", "weights", "params",
    "state_dict_ema", "model_ema", "ema_state_dict", "ema", "checkpoint",
)  # fmt: skip
"""Under which keys checkpoints keep weights; the first that is there is taken, averaged weights last."""

WRAPPERS = ("module", "model", "_orig_mod", "backbone", "net", "network", "1")
"""What wrappers put before names: DataParallel, Lightning, torch.compile, Sequential(normaliser, net)."""

NORMALISERS = (
    ("normalizer.new_mean", "normalizer.new_std"), ("normalize.new_mean", "normalize.new_std"),
    ("normalizer.mean", "normalizer.std"), ("normalize.mean", "normalize.std"),
    ("normalise.mean", "normalise.std"), ("mu", "sigma"), ("mean", "std"), ("0.mean", "0.std"),
)  # fmt: skip
"""How files call the mean and the standard deviation of (x − mean) / std on images in [0, 1]."""


def find_state(content: Any, key: str | None = None) -> tuple[State, str]:
    """The state dict in what was read of a checkpoint, and under which keys it was.

    A module that was pickled whole is looked through for its tensors; its code is neither needed nor run.

    Args:
        content: plain data and tensors, as `pags.checkpoints.read` returns them.
        key: the key to look under, instead of the first of `PLACES` that is there.

    Raises:
        PagsError: there is no state dict, or none under this key.
    """
    if isinstance(content, Opaque) and (state := _module_state(content)):
        return state, "the pickled model"
    if isinstance(content, Mapping):
        if key is not None and key in content:
            state, where = find_state(content[key])
            return state, f"{key}.{where}".rstrip(".")
        if key is None and _is_state(content):
            return {str(name): value.detach() for name, value in content.items()}, ""
        for place in PLACES if key is None else ():
            if isinstance(content.get(place), Mapping | Opaque):
                state, where = find_state(content[place])
                return state, f"{place}.{where}".rstrip(".")
    held = f"the keys {few(list(content))}" if isinstance(content, Mapping) else f"a {type(content).__name__}"
    raise PagsError(
        f"a state dict, named tensors, {f'under {key!r}' if key else 'in the checkpoint'}",
        got=held,
        suggestion="a file of torch.save(model.state_dict(), …), or model.pt?key=NAME for another key",
    )


def unwrapped(state: State) -> tuple[State, Normalisation | None]:
    """The names without what wrappers put before them, and the normalisation that the tensors hold.

    A prefix goes only where every name has it. What MadryLab's robustness keeps a second time under
    "attacker" is compared with the first copy and left out.

    Raises:
        PagsError: the two copies differ.
    """
    normalisation = None
    while True:
        before = len(state), next(iter(state), "")
        state = _without_attacker(_without_shared_prefix(state))
        if normalisation is None:
            state, normalisation = _without_normaliser(state)
        if before == (len(state), next(iter(state), "")):
            return state, normalisation


def file_names(architecture: str, names: Iterable[str], state: Mapping[str, Tensor]) -> dict[str, str]:
    """What each tensor of an architecture is called in a file.

    Our residual networks go by other names in the usual CIFAR layout (conv1, layer1.0.bn1, shortcut, linear),
    which robustness, RobustBench and most CIFAR code share; all else goes by its own name.
    """
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


def _module_state(module: Opaque, prefix: str = "") -> State:
    """The tensors of a module that was pickled whole, in the names of its state dict; {} of other things."""
    inside = module.state if isinstance(module.state, Mapping) else {}
    passing = inside.get("_non_persistent_buffers_set") or ()
    found: State = {}
    for kind in ("_parameters", "_buffers"):
        for name, value in (inside.get(kind) or {}).items():
            if isinstance(value, Tensor) and name not in passing:
                found[f"{prefix}{name}"] = value.detach()
    for name, child in (inside.get("_modules") or {}).items():
        if isinstance(child, Opaque):
            found |= _module_state(child, f"{prefix}{name}.")
    return found


def _is_state(content: Mapping[Any, Any]) -> bool:
    return bool(content) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    )


def _without_shared_prefix(state: State) -> State:
    firsts = {name.partition(".")[0] for name in state}
    if len(firsts) == 1 and all("." in name for name in state) and firsts <= set(WRAPPERS):
        return {name.partition(".")[2]: value for name, value in state.items()}
    return state


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


def _without_normaliser(state: State) -> tuple[State, Normalisation | None]:
    for mean, std in NORMALISERS:
        if mean in state and std in state:
            rest = {name: value for name, value in state.items() if name not in {mean, std}}
            return rest, (_numbers(state[mean]), _numbers(state[std]))
    return state, None


def _numbers(values: Tensor) -> tuple[float, ...]:
    return tuple(values.float().flatten().tolist())


def few(names: list[Any]) -> str:
    return ", ".join(map(str, names[:3])) + (", …" if len(names) > 3 else "")
