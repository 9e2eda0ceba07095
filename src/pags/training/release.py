"""Adversarial training and the penalties of the paper's released code (docs/choices.md, 1–6, 23, 24).

The attack's ball is one ball around the whole batch: norms are those of all its pixels together, so an image
moves by about epsilon/√B, and no pixel is cut to [0, 1]. The attack starts from uniform positive noise of
length epsilon/2. The network stays in training mode, so BatchNorm's statistics move at each of its steps; and
its backward passes add to the weights' gradients, which the training step then uses. One detail is ours, as
the table leaves it open: the loss whose gradients stay in the weights is the batch's mean.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pags.arrays import Images, PerImage, dots
from pags.data.batches import Batch
from pags.training.attack import PGD
from pags.training.gradients import check_strength, draw_radius, loss_and_gradient
from pags.training.synchronised import sum_over_processes

PENALTY_FACTOR = 1e5


@dataclass(frozen=True)
class ReleaseAdversarialTraining:
    """l(f(x̃), y), with x̃ in a ball around the whole batch, and a trace in the weights' gradients.

    Gradients have to be set to zero before this objective is called and not after it.

    Args:
        radius: epsilon, the l2 norm of the perturbation of all images of a batch together.
        steps: gradient steps.
        relative_step: a step's length is `relative_step · radius / steps`; the release has 2 on CIFAR-10.
        radii: from which each batch draws its epsilon instead, if there are any.
    """

    radius: float
    steps: int = 10
    relative_step: float = 2.0
    radii: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for radius in (self.radius, *self.radii):
            PGD(radius, self.steps, self.relative_step)  # which refuses what makes no sense

    def __call__(self, model: nn.Module, batch: Batch, draws: torch.Generator) -> PerImage:
        radius = draw_radius(self.radii, draws) if self.radii else self.radius
        attacked = self.attacked(model, batch, draws, radius)
        return cross_entropy(model(attacked), batch.labels, reduction="none")

    def attacked(self, model: nn.Module, batch: Batch, draws: torch.Generator, radius: float) -> Images:
        """The attacked images, in no range; the gradients of `steps` mean losses are added to `.grad`."""
        positive = (1 + torch.erf(batch.normal(draws) / 2**0.5)) / 2  # Φ(z) is uniform in [0, 1]
        delta = _scaled(positive, radius / 2, batch)
        length = self.relative_step * radius / self.steps
        for _ in range(self.steps):
            images = (batch.images + delta).detach().requires_grad_()
            losses = cross_entropy(model(images), batch.labels, reduction="none")
            (losses.sum() / _rows(batch)).backward()
            assert images.grad is not None
            delta = _within(delta + _scaled(images.grad, length, batch), radius, batch)
        return (batch.images + delta).detach()


@dataclass(frozen=True)
class ReleaseGradientNorm:
    """l(f(x), y) + 1e5 · λ‖∇ₓ L‖²/B, with the gradient of the batch's mean loss L in all pixels of the batch.

    As ∇ₓ L has ∇ lossᵢ/B for image i, each image's share of it is 1e5 · λ‖∇ lossᵢ‖²/B²: for B = 128,
    6.1 times the penalty of `GradientNorm`, and more in a smaller last batch.

    Args:
        strength: λ, at least 0.
    """

    strength: float

    def __post_init__(self) -> None:
        check_strength(self.strength)

    def __call__(self, model: nn.Module, batch: Batch, draws: torch.Generator) -> PerImage:
        losses, gradient = loss_and_gradient(model, batch)
        return losses + PENALTY_FACTOR * self.strength / _rows(batch) ** 2 * dots(gradient, gradient)


@dataclass(frozen=True)
class ReleaseSmoothness:
    """l(f(x), y) + λ E‖f(x + ε) − f(x)‖² in two forward passes, between which BatchNorm sees each half alone.

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
        clean = model(batch.images)
        change = model(batch.images + self.sigma * batch.normal(draws)) - clean
        return cross_entropy(clean, batch.labels, reduction="none") + self.strength * dots(change, change)


def _scaled(x: Images, length: float, batch: Batch) -> Images:
    """The whole batch scaled to the given norm; zero stays zero."""
    norm = _norm(x, batch)
    return x * torch.where(norm > 0, length / norm.clamp_min(torch.finfo(x.dtype).tiny), 0.0).to(x)


def _within(x: Images, radius: float, batch: Batch) -> Images:
    """The whole batch projected onto the ball."""
    norm = _norm(x, batch)
    return x * torch.where(norm > radius, radius / norm, 1.0).to(x)


def _norm(x: Images, batch: Batch) -> Tensor:  # ()
    """The l2 norm of the whole batch, of which other processes may hold a part."""
    square = x.detach().double().square().sum()
    if len(x) < _rows(batch) and dist.is_available() and dist.is_initialized():
        square = sum_over_processes(square)
    return square.sqrt()


def _rows(batch: Batch) -> int:
    return len(batch.images) if batch.whole is None else batch.whole
