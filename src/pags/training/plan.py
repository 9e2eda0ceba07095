"""How a network is trained: the numbers of a recipe, and the learning rate as a function of the step."""

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt

from pags.data.batches import Flip


class Plan(BaseModel):
    """How a network is trained.

    `one-cycle` raises the learning rate linearly over the first fifth of the steps and lowers it along a
    cosine to zero; `steps` multiplies it by 0.1 at each of `milestones` (epochs).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: PositiveInt
    batch_size: PositiveInt = 128
    """Images a step, of all processes together."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: PositiveFloat
    momentum: NonNegativeFloat = 0.9
    nesterov: bool = False
    weight_decay: NonNegativeFloat = 5e-4
    decayed: Literal["all", "matrices"] = "all"
    """Which parameters decay: "matrices" leaves out biases and those of normalisations."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target that is spread evenly over all classes (Szegedy et al. 2016)."""
    schedule: Literal["constant", "one-cycle", "steps"] = "one-cycle"
    milestones: tuple[PositiveInt, ...] = ()
    average: NonNegativeFloat = 0.0
    """Decay of an exponential moving average of the weights, which the model holds at the end; 0: none."""
    clip_norm: PositiveFloat | None = None
    crop: int = 0
    flip: Flip = False
    """As in `pags.data.batches.epoch_batches`."""


def learning_rate(plan: Plan, step: int, total: int) -> float:
    """The learning rate of a step, a function of the step alone."""
    if plan.schedule == "one-cycle":
        rise = max(1, total // 5)
        if step < rise:
            return plan.learning_rate * (step + 1) / rise
        return plan.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))
    if plan.schedule == "steps":
        epoch = step * plan.epochs // total
        return plan.learning_rate * 0.1 ** sum(epoch >= milestone for milestone in plan.milestones)
    return plan.learning_rate
