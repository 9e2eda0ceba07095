"""What is minimised (paper, B.1). Every objective gives one loss for each image of a batch.

All norms are per image and for images in [0, 1].
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from pags.arrays import Images, PerImage, dots
from pags.data.batches import Batch
from pags.errors import UsageError
from pags.training.attack import PGD


@runtime_checkable
class Objective(Protocol):
    """A loss for each image of a batch; `draws` is where its randomness comes from."""

    def __call__(self, model: nn.Module, batch: Batch, draws: torch.Generator) -> PerImage: ...


@dataclass(frozen=True)
class CrossEntropy:
    """l(f(x), y)."""

    def __call__(self, model: nn.Module, batch: Batch, draws: torch.Generator) -> PerImage:
        return cross_entropy(model(batch.images), batch.labels, reduction="none")


@dataclass(frozen=True)
class GradientNorm:
    """l(f(x), y) + λ‖∇ₓ l(f(x), y)‖² (B.1, 1), with the gradient of each image's own loss.

    Args:
        strength: λ, at least 0.
    """

    strength: float

    def __post_init__(self) -> None:
        check_strength(self.strength)

    def __call__(self, model: nn.Module, batch: Batch, draws: torch.Generator) -> PerImage:
        losses, gradient = loss_and_gradient(model, batch)
        return losses + self.strength * dots(gradient, gradient)


@dataclass(frozen=True)
class Smoothness:
    """l(f(x), y) + λ E‖f(x + ε) − f(x)‖², ε ~ N(0, σ²) (B.1, 2), on the logits, one draw an image and step.

    Args:
        strength: λ, at least 0.
        sigma: the noise's standard deviation for images in [0, 1].
    """

    strength: float
    sigma: float = 0.1

    def __post_init__(self) -> None:
        check_strength(self.strength)
        check_strength(self.sigma, what="a noise level")

    def __call__(self, model: nn.Module, batch: Batch, draws: torch.Generator) -> PerImage:
        # One forward pass of both halves: cheaper than two, and BatchNorm sees one batch.
        both = torch.cat([batch.images, batch.images + noise_like(batch.images, self.sigma, draws)])
        clean, noisy = model(both).chunk(2)
        change = noisy - clean
        return cross_entropy(clean, batch.labels, reduction="none") + self.strength * dots(change, change)


@dataclass(frozen=True)
class RandomisedSmoothing:
    """E l(f(x + ε), y), ε ~ N(0, σ²) (B.1, 3; Cohen et al. 2019), one draw an image and step.

    Args:
        sigma: the noise's standard deviation for images in [0, 1].
    """

    sigma: float

    def __post_init__(self) -> None:
        check_strength(self.sigma)

    def __call__(self, model: nn.Module, batch: Batch, draws: torch.Generator) -> PerImage:
        noisy = batch.images + noise_like(batch.images, self.sigma, draws)
        return cross_entropy(model(noisy), batch.labels, reduction="none")


@dataclass(frozen=True)
class AdversarialTraining:
    """l(f(x̃), y) at the attacked image x̃ (B.1, 4)."""

    attack: PGD

    def __call__(self, model: nn.Module, batch: Batch, draws: torch.Generator) -> PerImage:
        attacked = self.attack(model, batch.images, batch.labels, draws)
        return cross_entropy(model(attacked), batch.labels, reduction="none")


OBJECTIVES = ("pgd", "smoothing", "gradient-norm", "smoothness")


def make_objective(name: str, strength: float, *, attack_steps: int = 10) -> Objective:
    """The objective `name` at a strength; strength 0 is cross-entropy for each of them.

    Args:
        name: one of `OBJECTIVES`.
        strength: epsilon for "pgd", sigma for "smoothing", lambda for "gradient-norm" and "smoothness";
            for images in [0, 1].
        attack_steps: gradient steps of the attack in "pgd".

    Raises:
        UsageError: an unknown name, or a strength below zero.
    """
    if name not in OBJECTIVES:
        raise UsageError(f"an objective among {', '.join(OBJECTIVES)}", got=repr(name), suggestion="pgd")
    check_strength(strength)
    if strength == 0:
        return CrossEntropy()
    if name == "pgd":
        return AdversarialTraining(PGD(strength, steps=attack_steps))
    if name == "smoothing":
        return RandomisedSmoothing(strength)
    return GradientNorm(strength) if name == "gradient-norm" else Smoothness(strength)


def check_strength(strength: float, *, what: str = "a strength") -> None:
    """Raise unless `strength` is a finite number of zero or more."""
    if not 0 <= strength < float("inf"):
        raise UsageError(
            f"{what} of zero or more", got=strength, suggestion="0 for training without robustness"
        )


def loss_and_gradient(model: nn.Module, batch: Batch) -> tuple[PerImage, Images]:
    """Each image's cross-entropy and its gradient with respect to the image, still differentiable."""
    images = batch.images.detach().requires_grad_()
    losses = cross_entropy(model(images), batch.labels, reduction="none")
    return losses, torch.autograd.grad(losses.sum(), images, create_graph=True)[0]


def noise_like(images: Images, sigma: float, draws: torch.Generator) -> Images:
    """Normal noise of standard deviation `sigma`, independent in every pixel."""
    return sigma * torch.randn(images.shape, generator=draws, device=draws.device).to(images)
