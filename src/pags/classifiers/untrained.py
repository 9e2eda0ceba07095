"""The control of a classifier: the same network untrained."""

from copy import deepcopy

import torch
from torch import nn

from pags.errors import PagsError
from pags.seeds import generator, seeded_construction


def untrained(model: nn.Module, seed: int) -> nn.Module:
    """A copy with every layer's weights drawn anew from its default initialisation.

    Raises:
        PagsError: no layer has an initialisation of its own.
    """
    copy, redrawn = deepcopy(model), False
    with seeded_construction(seed, "untrained"):
        for module in copy.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
                redrawn = True
            else:
                _redraw(module, seed)
    if not redrawn:
        raise PagsError("a network with layers to draw anew", got="none", suggestion="no control")
    return copy.eval()


def _redraw(module: nn.Module, seed: int) -> None:
    for name, own in module.named_parameters(recurse=False):
        if own.numel() > 1:
            noise = torch.randn(own.shape, generator=generator(seed, "untrained", name, own.numel()))
            own.data = own.data.mean() + own.data.std() * noise.to(own)
