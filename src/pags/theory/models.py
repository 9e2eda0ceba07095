"""The small networks that the theory is tried on."""

import math

from torch import nn


def perceptron(
    shape: tuple[int, int, int], classes: int, activation: nn.Module, *, width: int = 64
) -> nn.Module:
    """A network with two hidden layers; images to logits."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(math.prod(shape), width), activation,
        nn.Linear(width, width), activation, nn.Linear(width, classes),
    )  # fmt: skip


def linear_model(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A linear classifier; images to logits."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), classes))
