"""The control of everything that is measured of a classifier: the same network before its training."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from pags.errors import PagsError
from pags.seeds import generator, seeded_construction

ITERATIONS = 50
"""Power iterations in which a spectral norm finds the new weights' largest singular value."""


def untrained(model: nn.Module, seed: int) -> nn.Module:
    """A copy, in evaluation mode, in which every weight is drawn anew.

    Layers draw from their own default initialisation; weights that it does not reach (those of weight and
    spectral normalisations, further weights beside a layer's own, layers without an initialisation) are
    normal, of the mean and deviation that they had. What has no spread stays. A pruned layer is whole again,
    as which weights are left out was learned too.

    Args:
        model: left as it is.
        seed: names the draws.

    Raises:
        PagsError: the network cannot be copied, has no weights, or keeps some through all of this.
    """
    copy = _copied(model)
    for module in copy.modules():
        _made_whole(module)
    trained = {name: weight.detach().clone() for name, weight in copy.named_parameters()}
    if not any(_has_spread(weight) for weight in trained.values()):
        raise _refused("no parameters that differ among themselves")
    with seeded_construction(seed, "untrained"), torch.no_grad():
        for module in copy.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
        for path, module in copy.named_modules():
            if parametrize.is_parametrized(module):
                for prefix in _assigned(module, seed, path):
                    trained = {name: w for name, w in trained.items() if not name.startswith(prefix)}
        for name in _kept(copy, trained):
            weight = copy.get_parameter(name)
            weight.copy_(_redrawn(weight, seed, name))
        for module in copy.modules():
            _refresh(module)
    if kept := _kept(copy, trained):
        raise _refused(f"{', '.join(kept)} as trained")
    return copy.eval()


def _copied(model: nn.Module) -> nn.Module:
    """A copy; weights that are computed from others are copied without the graph that they hang on."""
    computed = [
        value
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    ]
    memo: dict[int, Any] = {id(value): value.detach().clone() for value in computed}
    try:
        return deepcopy(model, memo)
    except Exception as error:  # whatever a foreign module's parts raise
        raise _refused(f"a network that cannot be copied ({type(error).__name__}: {error})") from error


def _made_whole(module: nn.Module) -> None:
    """What `torch.nn.utils.prune` has left out is put back, as zeros."""
    for hook in list(module._forward_pre_hooks.values()):
        if isinstance(hook, prune.BasePruningMethod):
            prune.remove(module, hook._tensor_name)


def _assigned(module: nn.Module, seed: int, path: str) -> list[str]:
    """Draws anew what is behind a parametrisation that can be gone backwards; where its originals are."""
    done = []
    for name in _lists(module):
        try:
            setattr(module, name, _redrawn(getattr(module, name), seed, f"{path}.{name}"))
        except (NotImplementedError, RuntimeError, ValueError):
            continue  # its originals are drawn anew like any other weight
        done.append(f"{path}.parametrizations.{name}.".lstrip("."))
    return done


def _lists(module: nn.Module) -> nn.ModuleDict:
    """The parametrisations of a module by the name of their tensor."""
    assert isinstance(module.parametrizations, nn.ModuleDict)
    return module.parametrizations


def _redrawn(weight: Tensor, seed: int, name: str) -> Tensor:
    noise = torch.randn(weight.shape, generator=generator(seed, "untrained", name)).to(weight)
    return weight.mean() + weight.std() * noise


def _refresh(module: nn.Module) -> None:
    """What is computed from weights is computed from the new ones, as a forward pass in training would."""
    hooks = [h for h in module._forward_pre_hooks.values() if isinstance(h, SpectralNorm | WeightNorm)]
    names = list(_lists(module)) if parametrize.is_parametrized(module) else []
    if not (hooks or names):
        return
    modes = {part: part.training for part in module.modules()}
    module.train()
    for _ in range(ITERATIONS):
        for hook in hooks:
            hook(module, None)
        for name in names:
            getattr(module, name)
    for part, mode in modes.items():
        part.training = mode


def _kept(copy: nn.Module, trained: dict[str, Tensor]) -> list[str]:
    """The parameters with spread that are what they were."""
    now = dict(copy.named_parameters())
    return [
        name for name, weight in trained.items() if _has_spread(weight) and torch.equal(now[name], weight)
    ]


def _has_spread(weight: Tensor) -> bool:
    return weight.numel() > 1 and bool((weight != weight.flatten()[0]).any())


def _refused(reason: str) -> PagsError:
    return PagsError(
        "a network whose weights can be drawn anew, for an untrained control",
        got=reason,
        suggestion="measuring without the control, or a plain network with the same weights",
    )
