"""Looking at a network without leaving a trace in it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pags.arrays import Images, Labels, Logits, PerImage
from pags.errors import model_error


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """The model in evaluation mode; afterwards every submodule is in the mode in which it was."""
    modes = {module: module.training for module in model.modules()}
    with model_error("a model that can be put into evaluation mode"):
        model.eval()
    try:
        yield model
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def normalising_by_batch(model: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode, but for BatchNorm, which takes the statistics of each batch and keeps none of them.

    This is the network that a training step sees; what a layer tracks is not touched.
    """
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    tracking = [layer.track_running_stats for layer in layers]
    with evaluating(model):
        try:
            for layer in layers:
                layer.training, layer.track_running_stats = True, False
            yield model
        finally:
            for layer, tracked in zip(layers, tracking, strict=True):
                layer.track_running_stats = tracked


@torch.no_grad()
def predict(model: nn.Module, images: Images, *, batch_size: int = 512) -> Logits:
    """The logits of any number of images, in evaluation mode and bounded memory."""
    with evaluating(model):
        return torch.cat([model(part) for part in images.split(batch_size)])


def correct(model: nn.Module, images: Images, labels: Labels, *, batch_size: int = 512) -> PerImage:
    """1 where the model names the label, else 0."""
    return (predict(model, images, batch_size=batch_size).argmax(1) == labels).float()
