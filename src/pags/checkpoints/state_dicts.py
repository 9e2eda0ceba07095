"""The state dict in a checkpoint, wherever training scripts put it."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, TypeAlias

from torch import Tensor

from pags.checkpoints.bounds import shown
from pags.checkpoints.opaque import Opaque
from pags.errors import PagsError

State: TypeAlias = dict[str, Tensor]
"""Named tensors."""

PLACES = (
    "state_dict", "model_state_dict", "model", "net", "network", "weights", "params",
    "state_dict_ema", "model_ema", "ema_state_dict", "ema", "checkpoint",
)  # fmt: skip
"""Under which keys checkpoints keep weights; the first that is there is taken, averaged weights last."""

DEEPEST = 4  # levels of dicts and lists above a state dict


def state_dict_in(tree: Any, key: str | None = None) -> tuple[str, State]:
    """The state dict of a checkpoint, as it is named there, and the keys under which it was found.

    It is looked for under `PLACES`, then in the checkpoint itself, then under any other key. A module that
    was pickled whole is looked through for its tensors; its code is neither needed nor run.

    Args:
        tree: what `read` returned.
        key: where to look: a key, several joined by dots (list positions as numbers), or a prefix of names.

    Returns:
        The keys joined by dots, "" where the tree is the state dict itself, and the tensors; with a prefix as
        the key, those below it, without it.

    Raises:
        PagsError: there is none, or several of equal right.
    """
    found = list(_candidates(tree) if key is None else _below(tree, key))
    if len(found) == 1:
        return found[0]
    names = [where for where, _ in found] or _choices(tree)
    keys = ", ".join(shown(name, 30) for name in list(tree)[:8]) if isinstance(tree, Mapping | list) else ""
    close = get_close_matches(key or "", names, n=1) or [name for name in names if name][:2]
    raise PagsError(
        f"a state dict, alone or under one of {', '.join(PLACES[:4])}"
        if key is None
        else f"a state dict under {key!r}",
        got=f"{len(found)} of them ({', '.join(map(shown, names[:5]))})"
        if found
        else f"a checkpoint with {keys or type(tree).__name__}",
        suggestion=" or ".join(f"?key={shown(name)} behind the file's name" for name in close)
        or "pags convert --list, which shows all that is in the file",
    )


def _candidates(tree: Any, depth: int = 0) -> Iterator[tuple[str, State]]:
    """Every state dict of equal right: one, unless a list or unusual keys hold several."""
    if isinstance(tree, Opaque):
        if state := _module_state(tree):
            yield "the pickled model", state
    elif depth < DEEPEST and isinstance(tree, list | tuple):
        for number, item in enumerate(tree):
            yield from _prefixed(str(number), _candidates(item, depth + 1))
    elif depth < DEEPEST and isinstance(tree, Mapping):
        for place in PLACES:
            if found := list(_candidates(tree.get(place), depth + 1)):
                yield from _prefixed(place, iter(found))
                return
        if own := _own_tensors(tree):
            yield "", own
            return
        for name, value in tree.items():
            inside = _candidates(value, depth + 1) if isinstance(name, str) else iter(())
            yield from _prefixed(str(name), (each for each in inside if _has_weights(each[1])))


def _below(tree: Any, key: str) -> Iterator[tuple[str, State]]:
    """The state dicts under a key, a path of keys, or a prefix of names."""
    first, _, rest = key.partition(".")
    if isinstance(tree, Mapping) and key in tree:
        yield from _prefixed(key, _candidates(tree[key]))
    elif isinstance(tree, Mapping) and first in tree and rest:
        yield from _prefixed(first, _below(tree[first], rest))
    elif isinstance(tree, list | tuple) and first.isdecimal() and int(first) < len(tree):
        inside = _below(tree[int(first)], rest) if rest else _candidates(tree[int(first)])
        yield from _prefixed(first, inside)
    else:
        for where, state in _candidates(tree):
            start = f"{key}."
            below = {name.removeprefix(start): state[name] for name in state if name.startswith(start)}
            if below:
                yield f"{where}.{key}".lstrip("."), below


def _prefixed(key: str, found: Iterator[tuple[str, State]]) -> Iterator[tuple[str, State]]:
    return ((f"{key}.{where}".rstrip("."), state) for where, state in found)


def _choices(tree: Any) -> list[str]:
    """The keys and the first parts of names that `?key=` could have meant."""
    keys = [str(name) for name, value in tree.items() if any(True for _ in _candidates(value))] if isinstance(
        tree, Mapping
    ) else []  # fmt: skip
    return keys + [start for _, state in _candidates(tree) for start in {n.partition(".")[0] for n in state}]


def _own_tensors(tree: Mapping[Any, Any]) -> State:
    """The named tensors of a dict that looks like a state dict; numbers beside it are passed over."""
    own = {name: value for name, value in tree.items() if isinstance(name, str) and isinstance(value, Tensor)}
    alike = any("." in name or value.ndim > 1 for name, value in own.items())
    return {name: value.detach() for name, value in own.items()} if alike or len(own) == len(tree) else {}


def _has_weights(state: State) -> bool:
    return any(name.endswith("weight") for name in state)


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
