"""What is minimised (paper, B.1). Every objective gives one loss for each image of a batch.

All norms are per image and for images in [0, 1]. Where text and release of the paper differ, an option
decides (docs/choices.md); what the release does otherwise is in `pags.training.release`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import nn

from pags.arrays import PerImage, dots
from pags.data.batches import Batch
from pags.errors import UsageError
from pags.training.attack import PGD, Norm, Statistics
from pags.training.gradients import PENALISED, Penalised, check_strength, draw_radius, loss_and_gradient
from pags.training.release import ReleaseAdversarialTraining, ReleaseGradientNorm

Preset = Literal["ours", "paper", "release"]
PRESETS: tuple[Preset, ...] = ("ours", "paper", "release")


@runtime_checkable
class Objective(Protocol):
    """A loss for each image of a batch; `draws` is where its randomness comes from."""

    def __call__(self, model: nn.Module, batch: Batch, draws: torch.Generator) -> PerImage: ...


@dataclass(frozen=True)
class CrossEntropy:
    """l(f(x), y)."""

    def __call__(self, model: nn.Module, batch: Batch, draws: torch.Generator) -> PerImage:
        return batch.losses(model(batch.images))


@dataclass(frozen=True)
class GradientNorm:
    """l(f(x), y) + λ‖∇ₓ g(x)‖² (B.1, 1), with the gradient of each image's own g.

    Args:
        strength: λ, at least 0.
        penalised: g: the image's "loss", its "true-logit" f_y(x), or the "log-probability" of the predicted
            class (that of the true class is the loss with its sign changed).
    """

    strength: float
    penalised: Penalised = "loss"

    def __post_init__(self) -> None:
        check_strength(self.strength)
        if self.penalised not in PENALISED:
            raise UsageError(
                f"a penalty on the gradient of one of {', '.join(PENALISED)}",
                got=repr(self.penalised),
                suggestion='penalised="loss"',
            )

    def __call__(self, model: nn.Module, batch: Batch, draws: torch.Generator) -> PerImage:
        losses, gradient = loss_and_gradient(model, batch, penalised=self.penalised)
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
        # One forward pass of both halves: BatchNorm sees one batch.
        both = torch.cat([batch.images, batch.images + self.sigma * batch.normal(draws)])
        clean, noisy = model(both).chunk(2)
        change = noisy - clean
        return batch.losses(clean) + self.strength * dots(change, change)


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
        noisy = batch.images + self.sigma * batch.normal(draws)
        return batch.losses(model(noisy))


@dataclass(frozen=True)
class AdversarialTraining:
    """l(f(x̃), y) at the attacked image x̃ (B.1, 4).

    Args:
        attack: how x̃ is found.
        radii: where there are any, each batch draws its epsilon from them (B.2: 1, 4, 8 on MNIST with a
            distractor), instead of having the attack's.
    """

    attack: PGD
    radii: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for radius in self.radii:
            replace(self.attack, radius=radius)  # which refuses what makes no sense

    def __call__(self, model: nn.Module, batch: Batch, draws: torch.Generator) -> PerImage:
        attack = replace(self.attack, radius=draw_radius(self.radii, draws)) if self.radii else self.attack
        start = attack.start_from(batch.normal(draws), batch.uniform(draws))
        attacked = attack.perturb(model, batch.images, batch.labels, start)
        return batch.losses(model(attacked))


OBJECTIVES = ("pgd", "smoothing", "gradient-norm", "smoothness")
"""Objectives of robust training; make_objective also knows "cross-entropy"."""


def make_objective(
    name: str,
    strength: float,
    *,
    attack_steps: int = 10,
    relative_step: float = 2.5,
    norm: Norm = "l2",
    attack_statistics: Statistics = "running",
    radii: tuple[float, ...] = (),
    smoothness_sigma: float = 0.1,
    penalised: Penalised = "loss",
    preset: Preset = "ours",
) -> Objective:
    """The objective `name` at a strength; strength 0 is cross-entropy for each of them.

    Args:
        name: one of `OBJECTIVES`, or "cross-entropy", which has no strength.
        strength: epsilon for "pgd", sigma for "smoothing", lambda for "gradient-norm" and "smoothness";
            for images in [0, 1].
        attack_steps: gradient steps of the attack in "pgd".
        relative_step: length of all those steps together, in radii.
        norm: of the ball in "pgd".
        attack_statistics: BatchNorm's during the attack in "pgd", see `PGD`.
        radii: from which each batch of "pgd" draws its epsilon, instead of `strength`, if there are any.
        smoothness_sigma: the noise's standard deviation in "smoothness".
        penalised: whose gradient "gradient-norm" penalises.
        preset: "ours"; "paper" penalises the true logit where `penalised` is left at "loss" (B.1 has f, not
            the loss); "release" attacks and penalises as the paper's released code (docs/choices.md, 1–6).

    Raises:
        UsageError: an unknown name or preset, a strength below zero, or options that a preset does not have.
    """
    if name not in (*OBJECTIVES, "cross-entropy"):
        raise UsageError(f"an objective among {', '.join(OBJECTIVES)}", got=repr(name), suggestion="pgd")
    if preset not in PRESETS:
        raise UsageError(f"a preset among {', '.join(PRESETS)}", got=repr(preset), suggestion="ours")
    check_strength(strength)
    if strength == 0 or name == "cross-entropy":
        return CrossEntropy()
    if preset == "release" and name in ("pgd", "gradient-norm"):
        return _release_objective(name, strength, attack_steps, relative_step, norm, radii, penalised)
    if preset == "paper" and penalised == "loss":
        penalised = "true-logit"
    make: dict[str, Callable[[], Objective]] = {
        "pgd": lambda: AdversarialTraining(
            PGD(strength, attack_steps, relative_step, norm, attack_statistics), radii
        ),
        "smoothing": lambda: RandomisedSmoothing(strength),
        "gradient-norm": lambda: GradientNorm(strength, penalised),
        "smoothness": lambda: Smoothness(strength, smoothness_sigma),
    }
    return make[name]()


def _release_objective(
    name: str, strength: float, steps: int, relative_step: float, norm: str, radii: tuple[float, ...], of: str
) -> Objective:
    if norm != "l2" or of != "loss":
        raise UsageError(
            "norm l2 and penalised loss for the preset release",
            got=f"norm {norm}, penalised {of}",
            suggestion='preset="ours"',
        )
    if name == "gradient-norm":
        return ReleaseGradientNorm(strength)
    return ReleaseAdversarialTraining(strength, steps, relative_step, radii)
