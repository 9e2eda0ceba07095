"""Objectives that are no one's recipe for robustness: they test the paper's explanation directly.

If gradients are perceptually aligned *because* models are robust off the manifold, then penalising the
off-manifold part of the gradient alone should align it, penalising the on-manifold part alone should not, and
asking for alignment itself should make a model robust off the manifold (Ganz et al. 2023, for the last).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from pags.arrays import Basis, Images, PerImage, cosines, dots, split
from pags.data.batches import Batch
from pags.errors import UsageError
from pags.training.gradients import check_strength, loss_and_gradient


@dataclass(frozen=True)
class PartialGradientNorm:
    """l(f(x), y) + λ‖P⊥ ∇ₓl‖² or λ‖P ∇ₓl‖²: one half of Argument 1's decomposition (section 3.3).

    Args:
        strength: λ, at least 0.
        basis: (N, d, r) tangent bases of all N training images, in their order; images must not be augmented.
        part: which half of the gradient is penalised.
    """

    strength: float
    basis: Basis
    part: Literal["off", "on"]

    def __post_init__(self) -> None:
        check_strength(self.strength)
        if self.part not in ("off", "on"):
            raise UsageError("the part 'off' or 'on'", got=repr(self.part), suggestion='part="off"')

    def __call__(self, model: nn.Module, batch: Batch, draws: torch.Generator) -> PerImage:
        losses, gradient = loss_and_gradient(model, batch)
        on, off = split(gradient, self.basis[batch.index])
        penalised = off if self.part == "off" else on
        return losses + self.strength * dots(penalised, penalised)


@dataclass(frozen=True)
class GradientAlignment:
    """l(f(x), y) + λ (1 − cos(−∇ₓl, v)), with a direction v given for each training image.

    The loss falls along −∇ₓl, so v is where the image should move to look more like its class: the score of
    the class, or the Bayes gradient of log p(y | x).

    Args:
        strength: λ, at least 0.
        directions: (N, c, h, w), one a training image, in their order; images must not be augmented.
    """

    strength: float
    directions: Images

    def __post_init__(self) -> None:
        check_strength(self.strength)

    def __call__(self, model: nn.Module, batch: Batch, draws: torch.Generator) -> PerImage:
        losses, gradient = loss_and_gradient(model, batch)
        alignment = cosines(-gradient, self.directions[batch.index])
        return losses + self.strength * (1 - alignment.nan_to_num())  # no direction counts as a right angle
