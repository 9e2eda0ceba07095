"""From arguments and tensors to a network: built without memory first, filled only if every tensor fits."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pags.errors import PagsError
from pags.score.edm.arguments import check_arguments, check_value, parameters, refused, shown
from pags.score.edm.preconditioning import PRECONDITIONERS, Preconditioner

N = TypeVar("N", bound=nn.Module)

FIXED = (
    "img_resolution", "img_channels", "label_dim", "M", "in_channels", "out_channels", "emb_channels",
    "num_heads", "adaptive_scale", "up", "down", "fused_resample", "in_features", "out_features",
    "num_groups", "num_channels", "max_positions", "endpoint",
)  # fmt: skip
"""Attributes that the arguments decide."""
FREE = (
    "use_fp16", "sigma_min", "sigma_max", "sigma_data", "beta_d", "beta_min", "epsilon_t", "C_1", "C_2",
    "label_dropout", "dropout", "skip_scale", "eps",
)  # fmt: skip
"""Attributes that may have been edited after construction, and then hold."""

Attributes = dict[str, dict[str, Any]]
"""Path of a module → its attributes that are not what its arguments make them."""


def blank(preconditioner: str, arguments: Mapping[str, Any], source: str) -> Preconditioner:
    """A network without memory for its weights, on torch's "meta" device.

    Args:
        preconditioner: the name of its class.
        arguments: by name, those of the network included.
        source: the file, for errors.

    Raises:
        PagsError: as `check_arguments`; widths or sides that do not go together.
    """
    check_arguments(preconditioner, arguments, source)
    with torch.device("meta"):
        try:
            return PRECONDITIONERS[preconditioner](**arguments)
        except PagsError as error:
            raise refused(error.expected, str(error.got), source) from error
        except (ArithmeticError, RuntimeError, ValueError) as error:
            raise refused("arguments of a network that can be built", shown(str(error)), source) from error


def filled(network: N, tensors: Mapping[str, Tensor], source: str) -> N:
    """The network with these weights themselves, not copies; in evaluation mode and without gradients.

    Args:
        network: from `blank`.
        tensors: every tensor of its state dict.
        source: the file, for errors.

    Raises:
        PagsError: tensors missing, left over, of another shape, or not of real numbers.
    """
    if problems := list(_misfits(network.state_dict(), tensors)):
        listed = "; ".join(problems[:5]) + (f"; {len(problems) - 5} more" if problems[5:] else "")
        raise refused(f"the tensors of a {type(network).__name__} of the file's arguments", listed, source)
    network.load_state_dict(tensors, assign=True)
    return network.eval().requires_grad_(False)


def _misfits(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Iterator[str]:
    for name, tensor in wanted.items():
        if name not in given:
            yield f"no {name}"
        elif given[name].shape != tensor.shape:
            yield f"{name} {tuple(given[name].shape)} instead of {tuple(tensor.shape)}"
        elif not given[name].is_floating_point():
            yield f"{name} of {given[name].dtype}"
    yield from (f"unknown {shown(name)}" for name in given if name not in wanted)


def set_attributes(network: Preconditioner, attributes: Attributes, source: str) -> None:
    """Give modules the attributes that they had when they were saved.

    Args:
        network: is changed.
        attributes: by path of the module; equal ones may be among them.
        source: the file, for errors.

    Raises:
        PagsError: no such module; a value out of its range, or of an attribute that the arguments decide.
    """
    modules = dict(network.named_modules())
    for path, values in attributes.items():
        if path not in modules:
            raise refused("attributes of the network's modules", f"those of {shown(path)}", source)
        for name, value in values.items():
            _set_attribute(modules[path], f"{path}.{name}".lstrip("."), name, value, source)


def _set_attribute(module: nn.Module, path: str, name: str, value: Any, source: str) -> None:
    if name not in (*FIXED, *FREE) or not hasattr(module, name):
        raise refused("attributes that the module has", shown(path), source)
    own = getattr(module, name)
    if type(value) in (bool, int, float) and value == own:
        return
    if name in FIXED:
        raise refused(f"{path} = {own}, as the file's arguments say", shown(value), source)
    check_value(name, value, source)
    setattr(module, name, value)


def described(network: Preconditioner) -> dict[str, Any]:
    """The plain data from which `blank` and `set_attributes` make this network again.

    Args:
        network: with weights or without.

    Returns:
        `preconditioner`, the name of its class; `arguments`, those that are not the defaults; `attributes`.
    """
    name, own = type(network).__name__, parameters(type(network))
    constants = {key: getattr(network, key) for key in own if getattr(network, key) != own[key].default}
    given = constants | network.options
    fresh = dict(blank(name, given, "this network").named_modules())
    edited = {path: _edited(module, fresh[path]) for path, module in network.named_modules()}
    return {
        "preconditioner": name,
        "arguments": given,
        "attributes": {path: values for path, values in edited.items() if values},
    }


def _edited(module: nn.Module, fresh: nn.Module) -> dict[str, Any]:
    """The attributes that are not what they were after construction."""
    names = [name for name in FREE if hasattr(module, name)]
    return {name: getattr(module, name) for name in names if getattr(module, name) != getattr(fresh, name)}
