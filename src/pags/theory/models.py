"""The small networks that the theory is tried on, and how they are trained."""

import math
from typing import Any

from torch import nn

from pags.data.imageset import ImageSet
from pags.training.fit import Plan, fit
from pags.training.objectives import Objective


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


def small_plan(epochs: int, **changes: Any) -> Plan:
    """Adam in batches of 64, as all networks here are trained."""
    changes = {"learning_rate": 3e-3} | changes
    return Plan(epochs=epochs, batch_size=64, optimizer="adam", **changes)


def trained(model: nn.Module, objective: Objective, data: ImageSet, plan: Plan, seed: int) -> nn.Module:
    """The model after its training."""
    for _ in fit(model, objective, data, plan, seed=seed):
        pass
    return model
