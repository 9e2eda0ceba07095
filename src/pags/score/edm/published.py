"""EDM's pickles, read as plain data, to networks. The source text that they carry is never looked at."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from pags.checkpoints import Opaque
from pags.errors import UsageError
from pags.score.edm.arguments import named, parameters, refused, shown
from pags.score.edm.build import FIXED, FREE, Attributes, blank, filled, set_attributes
from pags.score.edm.preconditioning import NETWORKS, PRECONDITIONERS, Preconditioner

PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
MODULE_DICT = "torch.nn.modules.container.ModuleDict"


def network_in(tree: Any, which: str, source: str) -> Preconditioner:
    """The network that an EDM pickle holds under the key `which`.

    The constructor's arguments decide what is built, without memory; every tensor, module and class in the
    file must be what this has, in the same order. Attributes edited after construction hold.

    Args:
        tree: what `pags.checkpoints.read` made of the file.
        which: the key, "ema" in all published files.
        source: the file, for errors.

    Returns:
        The network in evaluation mode, without gradients, with the tensors of the tree themselves.

    Raises:
        UsageError: there is no such key.
        PagsError: what is there is not a network of EDM's kinds, or not a whole one.
    """
    if not isinstance(tree, dict) or which not in tree:
        held = ", ".join(shown(key, 30) for key in list(tree)[:8]) if isinstance(tree, dict) else shown(tree)
        raise UsageError(
            f"a file of EDM with {which!r}",
            got=f"{held or 'nothing'} in {source}",
            suggestion=_network_keys(tree) or "a network-snapshot of EDM, which has it",
        )
    name, state = _object(tree[which], which, source)
    network = blank(name, _arguments(name, state, source), source)
    tensors: dict[str, Tensor] = {}
    attributes: Attributes = {}
    for path, module, values in _walk(network, name, state, "", source):
        tensors |= {f"{path}.{key}".lstrip("."): value for key, value in _own_tensors(values, path, source)}
        attributes[path] = {
            key: values[key] for key in (*FIXED, *FREE) if key in values and hasattr(module, key)
        }
    set_attributes(network, attributes, source)
    return filled(network, tensors, source)


def _network_keys(tree: Any) -> str:
    """The keys under which there are networks, as what to ask for."""
    keys = [key for key, node in tree.items() if _is_network(node)] if isinstance(tree, dict) else []
    return " or ".join(f"which={shown(key)}" for key in keys[:3])


def _is_network(node: Any) -> bool:
    return isinstance(node, Opaque) and node.name == PERSISTENT


def _object(node: Any, path: str, source: str) -> tuple[str, dict[str, Any]]:
    """The name of a saved object's class, and its `__dict__`."""
    match node:
        case Opaque(name=str(name), state=dict(state)) if name == MODULE_DICT:
            return "ModuleDict", state
        case Opaque(name=str(name), arguments=({"class_name": str(kind), "state": dict(state)},)) if (
            name == PERSISTENT
        ):
            return kind, state
    what = f"an object of {shown(node.name)}" if isinstance(node, Opaque) else f"a {type(node).__name__}"
    raise refused("a module as EDM saves them", f"{what} at {path}", source)


def _arguments(name: str, state: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The preconditioner's own arguments, and those with which its `model` was built."""
    if name not in PRECONDITIONERS:
        raise refused(f"a preconditioner among {', '.join(PRECONDITIONERS)}", shown(name), source)
    model_type, inner = _object(_group(state, "_modules", source).get("model"), "model", source)
    if model_type not in NETWORKS:
        raise refused(f"a network among {', '.join(NETWORKS)}", shown(model_type), source)
    given = _given(PRECONDITIONERS[name], state, source)
    built = _given(NETWORKS[model_type], inner, source)
    own = set(parameters(PRECONDITIONERS[name]))
    wanted = parameters(NETWORKS[model_type])
    if stray := [key for key in given if key not in own and key not in wanted]:
        raise refused(
            f"arguments of {name} and {model_type}", ", ".join(shown(k, 30) for k in stray[:8]), source
        )
    passed = ("img_resolution", "in_channels", "out_channels", "label_dim")
    _check_passed(name, given, {key: built.get(key, 0) for key in passed}, source)
    options = {key: value for key, value in built.items() if key not in passed}
    return {key: value for key, value in given.items() if key in own} | options | {"model_type": model_type}


def _check_passed(name: str, given: Mapping[str, Any], built: Mapping[str, Any], source: str) -> None:
    """Raise unless the network's channels, side and classes are those that its preconditioner hands over."""
    channels, answers = given.get("img_channels"), PRECONDITIONERS[name].answers
    wanted = {
        "img_resolution": given.get("img_resolution"),
        "in_channels": channels,
        "out_channels": answers * channels if type(channels) is int else channels,
        "label_dim": given.get("label_dim", 0),
    }
    if wrong := [key for key, value in wanted.items() if type(value) is not int or built[key] != value]:
        raise refused(
            f"a network with the {', '.join(wrong)} that its preconditioner hands over",
            ", ".join(f"{shown(built[key])} for {shown(wanted[key])}" for key in wrong),
            source,
        )


def _given(kind: Any, state: Mapping[str, Any], source: str) -> dict[str, Any]:
    match state:
        case {"_init_args": tuple() | list() as positional, "_init_kwargs": dict(keywords)} if all(
            type(key) is str for key in keywords
        ):
            return named(kind, positional, keywords, source)
    raise refused("the arguments of a constructor", f"none for {kind.__name__}", source)


def _group(state: Mapping[str, Any], key: str, source: str) -> dict[str, Any]:
    """`_modules`, `_parameters` or `_buffers`, without the entries that stand for nothing."""
    group = state.get(key)
    if not isinstance(group, dict):
        raise refused(f"{key} of a module", f"a {type(group).__name__}", source)
    return {shown(name)[1:-1]: value for name, value in group.items() if value is not None}


def _walk(
    module: nn.Module, kind: str, state: Mapping[str, Any], path: str, source: str
) -> Iterator[tuple[str, nn.Module, Mapping[str, Any]]]:
    """Module by module, the network's and the file's side by side; what the network lacks is not entered."""
    if kind != type(module).__name__:
        raise refused(f"a {type(module).__name__} at {path or 'the top'}", shown(kind), source)
    yield path, module, state
    ours, theirs = dict(module.named_children()), _group(state, "_modules", source)
    if list(ours) != list(theirs):
        missing = [f"no {name}" for name in ours if name not in theirs]
        extra = [f"unknown {name}" for name in theirs if name not in ours]
        got = "; ".join([*missing, *extra][:5]) or "them in another order"
        raise refused(
            f"the modules of {path or type(module).__name__}, {', '.join(ours)[:80] or 'none'}", got, source
        )
    for name, child in ours.items():
        below = f"{path}.{name}".lstrip(".")
        yield from _walk(child, *_object(theirs[name], below, source), below, source)


def _own_tensors(state: Mapping[str, Any], path: str, source: str) -> Iterator[tuple[str, Tensor]]:
    for key in ("_parameters", "_buffers"):
        for name, value in _group(state, key, source).items():
            if not isinstance(value, Tensor):
                raise refused(
                    f"a tensor at {path}.{name}".replace(" .", " "), f"a {type(value).__name__}", source
                )
            yield name, value
