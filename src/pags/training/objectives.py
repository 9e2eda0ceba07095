"""What is minimised (paper, B.1). Every objective gives one loss for each image of a batch.

All norms are per image and for images in [0, 1]. Where text and release of the paper differ, an option
decides (docs/choices.md); what the release does otherwise is in `pags.training.release`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pags.arrays import PerImage, dots
from pags.data.batches import Batch
from pags.errors import PagsError, UsageError
from pags.plugins import Plugin, failed, instead_of
from pags.training.attack import PGD, Norm, Statistics
from pags.training.gradients import PENALISED, Penalised, check_strength, draw_radius, loss_and_gradient
from pags.training.release import ReleaseAdversarialTraining, ReleaseGradientNorm, ReleaseSmoothness

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
    """l(f(x), y) + λ E‖f(x + ε) − f(x)‖², ε ~ N(0, σ²) (B.1, 2), on the logits, one draw per image and step.

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
    """E l(f(x + ε), y), ε ~ N(0, σ²) (B.1, 3; Cohen et al. 2019), one draw per image and step.

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


# The registry --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """What the paper leaves open about its objectives; see `make_objective`."""

    attack_steps: int = 10
    relative_step: float = 2.5
    norm: Norm = "l2"
    radii: tuple[float, ...] = ()
    smoothness_sigma: float = 0.1
    penalised: Penalised = "loss"
    attack_statistics: Statistics = "running"
    preset: Preset = "ours"


@dataclass(frozen=True)
class ObjectiveEntry:
    """All that is known of an objective before it is made.

    Args:
        make: from a strength above 0 and the options.
        title: for people.
        symbol: what the strength is called.
        strengths: a ladder of strengths above 0, for images in [0, 1].
        cost: of a training step in forward passes, given the steps of the attack. Cross-entropy has 3, a
            backward pass being two.
        reads: names of the fields of `Options` that it depends on, besides the preset.
        strong: the strength above which strong regularisation takes a lower learning rate (choices.md, 17).
        strong_in_release: the same in the preset "release"; None: as elsewhere.
        source: of a user's objective, `pags.plugins.Plugin.source`.
    """

    make: Callable[[float, Options], Objective]
    title: str
    symbol: str
    strengths: tuple[float, ...]
    cost: Callable[[int], float] = lambda attack_steps: 3.0
    reads: tuple[str, ...] = ()
    strong: float = float("inf")
    strong_in_release: float | None = None
    source: str = ""

    def rate_falls_above(self, preset: Preset) -> float:
        """The strength above which the learning rate is lowered."""
        if preset == "release" and self.strong_in_release is not None:
            return self.strong_in_release
        return self.strong


def _gradient_norm(strength: float, options: Options) -> Objective:
    if options.preset == "release":
        _check_release(options)
        return ReleaseGradientNorm(strength)
    penalised = options.penalised
    if options.preset == "paper" and penalised == "loss":
        penalised = "true-logit"
    return GradientNorm(strength, penalised)


def _smoothness(strength: float, options: Options) -> Objective:
    kind = ReleaseSmoothness if options.preset == "release" else Smoothness
    return kind(strength, options.smoothness_sigma)


def _pgd(strength: float, options: Options) -> Objective:
    if options.preset == "release":
        _check_release(options)
        steps, relative_step = options.attack_steps, options.relative_step
        return ReleaseAdversarialTraining(strength, steps, relative_step, options.radii)
    attack = PGD(
        strength, options.attack_steps, options.relative_step, options.norm, options.attack_statistics
    )
    return AdversarialTraining(attack, options.radii)


def _check_release(options: Options) -> None:
    if options.norm != "l2" or options.penalised != "loss":
        raise UsageError(
            "norm l2 and penalised loss for the preset release",
            got=f"norm {options.norm}, penalised {options.penalised}",
            suggestion='preset="ours"',
        )


OBJECTIVES: dict[str, ObjectiveEntry] = {
    "gradient-norm": ObjectiveEntry(
        _gradient_norm, "Gradient-norm regularisation", "λ", (0.01, 0.1, 0.5, 2, 10),
        cost=lambda attack_steps: 7.0, reads=("penalised",), strong=0.01,
    ),
    "smoothing": ObjectiveEntry(
        lambda strength, options: RandomisedSmoothing(strength),
        "Randomised smoothing", "σ", (0.1, 0.2, 0.4, 0.8, 1.6),
    ),
    "pgd": ObjectiveEntry(
        _pgd, "Adversarial training (l2-PGD)", "ε", (0.3, 0.6, 1, 1.5, 2.5),
        cost=lambda attack_steps: 3.0 + 2 * attack_steps,
        reads=("attack_steps", "relative_step", "norm", "radii", "attack_statistics"),
        strong_in_release=100.0,
    ),
    "smoothness": ObjectiveEntry(
        _smoothness,
        "Smoothness penalty", "λ", (0.01, 0.1, 1, 10, 100),
        cost=lambda attack_steps: 6.0, reads=("smoothness_sigma",), strong=10.0,
    ),
}  # fmt: skip
"""Objectives of robust training, in the paper's order; `get_objective` also knows "cross-entropy"."""

CROSS_ENTROPY = ObjectiveEntry(lambda strength, options: CrossEntropy(), "Cross-entropy", "", ())


def get_objective(objective: str | Callable[..., Any]) -> ObjectiveEntry:
    """All that is known of an objective.

    Args:
        objective: a name of `OBJECTIVES`, "cross-entropy", or one of the user's own: a class or function that
            makes an `Objective` of a strength, or `file.py:name` or `package.module:name` of one (which runs
            that code). It may have the attributes `title`, `symbol`, `strengths`, and `cost` in forward
            passes, a number or a function of the attack's steps.

    Raises:
        UsageError: an unknown name, or something that cannot be called.
    """
    if isinstance(objective, str) and objective in (*OBJECTIVES, "cross-entropy"):
        return OBJECTIVES.get(objective, CROSS_ENTROPY)
    plugin = instead_of(objective, "an objective", OBJECTIVES, "pgd")
    plugin.check_callable(
        "(strength)", "return lambda model, batch, draws: losses", what="a class or function"
    )
    facts = {name: getattr(plugin.value, name, None) for name in ("title", "symbol", "strengths", "cost")}
    cost = 3.0 if facts["cost"] is None else facts["cost"]
    return ObjectiveEntry(
        lambda strength, options: _made(plugin, strength),
        str(facts["title"] or plugin.name),
        str(facts["symbol"] or "λ"),
        tuple(float(strength) for strength in facts["strengths"] or (0.1, 0.3, 1, 3, 10)),
        cost=cost if callable(cost) else lambda attack_steps: float(cost),
        source=plugin.source,
    )


def make_objective(
    objective: str | Callable[..., Any],
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
    """An objective at a strength; strength 0 is cross-entropy for each of them.

    Args:
        objective: as `get_objective` takes it.
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
            the loss); "release" attacks and penalises as the paper's released code (docs/choices.md, 1–6, 23,
            24).

    Raises:
        UsageError: an unknown name or preset, a strength below zero, or options that a preset does not have.
        PagsError: the user's objective fails when it is made, or cannot be called.
    """
    entry = get_objective(objective)
    if preset not in PRESETS:
        raise UsageError(f"a preset among {', '.join(PRESETS)}", got=repr(preset), suggestion="ours")
    check_strength(strength)
    options = Options(
        attack_steps, relative_step, norm, radii, smoothness_sigma, penalised, attack_statistics, preset
    )
    return CrossEntropy() if strength == 0 else entry.make(strength, options)


def _made(plugin: Plugin, strength: float) -> Objective:
    """The user's objective, whose losses are looked at in every step."""
    try:
        made = plugin.value(strength)
    except Exception as error:
        raise failed(f"{plugin.name}({strength:g}) to make an objective", plugin.name, error) from error
    if not callable(made):
        raise PagsError(
            f"an objective (model, batch, draws) → losses from {plugin.name}",
            got=f"a {type(made).__name__}",
            suggestion="returning a function, or a class with __call__",
        )
    return _Checked(made, plugin.name)


@dataclass(frozen=True)
class _Checked:
    """A user's objective that must give one loss per image, for a mean would be averaged unseen."""

    objective: Objective
    name: str

    def __call__(self, model: nn.Module, batch: Batch, draws: torch.Generator) -> PerImage:
        losses: Any = self.objective(model, batch, draws)
        if not isinstance(losses, Tensor) or losses.shape != batch.labels.shape:
            raise PagsError(
                f"one loss per image from {self.name}, of shape {tuple(batch.labels.shape)}",
                got=f"shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__,
                suggestion='cross_entropy(…, reduction="none")',
            )
        return losses
