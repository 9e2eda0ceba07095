"""Projected gradient descent (Madry et al. 2018) in a ball around each image: l2, or the cube of l∞.

The attack leaves no trace: it takes the gradient with respect to the input alone, so no `.grad`
is touched; the network is in evaluation mode meanwhile, so BatchNorm keeps its statistics and
images do not see each other; and it draws from the generator that it is given. Where it is asked to attack
the network that a training step sees, BatchNorm takes the batch's statistics, and keeps its own all the same.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pags.arrays import Images, Labels, PerImage, clip_norm, has_direction, scale_to, zero_unless_directed
from pags.classifiers.modes import evaluating, normalising_by_batch, predict
from pags.errors import UsageError
from pags.training.derivatives import cheaper_derivatives
from pags.training.gradients import label_loss, log_odds_against

Norm = Literal["l2", "linf"]
Statistics = Literal["running", "batch"]


class Ball(NamedTuple):
    """What an attack in one norm has of its own: three functions of perturbations and a radius."""

    start: Callable[[Images, PerImage, float], Images]
    """Uniform in the ball, from standard normal numbers and one uniform number per image."""
    step: Callable[[Images, float], Images]
    """The perturbation of the given length along which a linear loss rises the most."""
    project: Callable[[Images, float], Images]
    """The nearest point of the ball."""


def _l2_start(normal: Images, uniform: PerImage, radius: float) -> Images:
    return scale_to(normal, radius * uniform ** (1 / normal[0].numel()))


def _linf_start(normal: Images, uniform: PerImage, radius: float) -> Images:
    return radius * torch.erf(normal / 2**0.5)  # 2Φ(z) − 1 is uniform in [-1, 1]


BALLS: dict[str, Ball] = {
    "l2": Ball(_l2_start, scale_to, clip_norm),
    "linf": Ball(
        _linf_start, lambda x, length: length * x.sign(), lambda x, radius: x.clamp(*_interval(x, radius))
    ),
}


class Attacked(NamedTuple):
    """What an attack has reached, and whether it could attack at all."""

    images: Images
    stalled: Int[Tensor, "n"]
    """Steps in which an image's gradient was zero or not finite."""


class Outcome(NamedTuple):
    """What an attack made of a classifier's answers."""

    correct: PerImage
    """1 where the label is still named, else 0."""
    stalled: Int[Tensor, "n"]
    """As in `Attacked`: where it is the number of steps, nothing was tried and `correct` says nothing."""


MODES = {"running": evaluating, "batch": normalising_by_batch}
"""In which mode the network is attacked, by whose statistics BatchNorm takes."""


@dataclass(frozen=True)
class PGD:
    """PGD on the cross-entropy (section 4; B.1, 4).

    Args:
        radius: epsilon, the radius of the ball, for images in [0, 1]; 0 gives back the clean images.
        steps: gradient steps.
        relative_step: the step's length is `relative_step · radius / steps` (B.2: 2.5 on MNIST, 2 elsewhere).
        norm: "l2" as in the paper, or "linf", where each pixel may change by the radius.
        statistics: of BatchNorm, "running" as in evaluation mode, or those of the attacked "batch". In a
            training whose weights move fast, the running ones lag behind: the attack is then made for
            another network than the one that takes the step, which learns to be robust against that alone.

    Raises:
        UsageError: a radius below zero, no steps, or another norm or statistics.
    """

    radius: float
    steps: int = 10
    relative_step: float = 2.5
    norm: Norm = "l2"
    statistics: Statistics = "running"

    def __post_init__(self) -> None:
        if not 0 <= self.radius < float("inf"):
            raise UsageError(
                "a finite attack radius of zero or more",
                got=self.radius,
                suggestion="--strength 0 for clean training",
            )
        if self.steps < 1 or not 0 < self.relative_step < float("inf"):
            raise UsageError(
                "at least one attack step of positive length",
                got=f"{self.steps} steps of relative length {self.relative_step}",
                suggestion="steps=10, relative_step=2.5",
            )
        if self.norm not in BALLS:
            raise UsageError(f"a norm among {', '.join(BALLS)}", got=repr(self.norm), suggestion='norm="l2"')
        if self.statistics not in MODES:
            raise UsageError(
                f"statistics among {', '.join(MODES)}", got=repr(self.statistics), suggestion="running"
            )

    def start(self, images: Images, draws: torch.Generator) -> Images:
        """Perturbations drawn uniformly from the ball, drawn in the order of the images."""
        normal = torch.randn(images.shape, generator=draws, device=draws.device).to(images)
        uniform = torch.rand(len(images), generator=draws, device=draws.device).to(images)
        return self.start_from(normal, uniform)

    def start_from(self, normal: Images, uniform: PerImage) -> Images:
        """Perturbations uniform in the ball, from standard normal numbers and one in [0, 1) an image."""
        return BALLS[self.norm].start(normal, uniform, self.radius)

    def perturb(self, model: nn.Module, images: Images, labels: Labels, start: Images) -> Images:
        """The images of `attack`."""
        return self.attack(model, images, labels, start).images

    def attack(
        self,
        model: nn.Module,
        images: Images,
        labels: Labels,
        start: Images,
        *,
        within: Callable[[Images], Images] | None = None,
        clip: bool = True,
    ) -> Attacked:
        """The attacked images, and how often there was no way to go.

        Where the gradient has no direction (it is zero or not finite) the image stays at the last point that
        it reached.

        Args:
            model: a classifier.
            images: (n, c, h, w) in [0, 1].
            labels: the classes whose probability is driven down.
            start: perturbations to begin from; parts outside the ball are cut off.
            within: a linear projection of vectors of these images, to which steps keep; `start` must obey it.
            clip: whether attacked images stay in [0, 1]; a projection may have to leave it.

        Returns:
            Images, each at a distance of at most `radius` from its original, and the numbers of steps without
            a direction.
        """
        stalled = torch.zeros(len(images), dtype=torch.long, device=images.device)
        if self.radius == 0:
            return Attacked(images.detach().clone(), stalled)
        ball, length = BALLS[self.norm], self.relative_step * self.radius / self.steps
        delta = into_ball(images, start, self.radius, self.norm, clip=clip)
        with MODES[self.statistics](model), frozen_parameters(model), cheaper_derivatives(model):
            for _ in range(self.steps):
                gradient = ascent_direction(model, images + delta, labels, coupled=self.statistics == "batch")
                gradient = zero_unless_directed(gradient if within is None else within(gradient))
                delta = into_ball(
                    images, delta + ball.step(gradient, length), self.radius, self.norm, clip=clip
                )
                stalled += ~has_direction(gradient)
        return Attacked(settled(images, delta, self.radius, self.norm), stalled)

    def __call__(self, model: nn.Module, images: Images, labels: Labels, draws: torch.Generator) -> Images:
        """The attacked images, from a random start."""
        return self.perturb(model, images, labels, self.start(images, draws))


def into_ball(
    images: Images, delta: Images, radius: float, norm: Norm = "l2", *, clip: bool = True
) -> Images:
    """The perturbation projected onto the ball, then clipped to the pixel range, which shortens it."""
    project = BALLS[norm].project
    within = project(delta, radius)
    if not clip:
        return within
    # Cut once more: the rounding of the sums may have put it a hair outside the ball.
    return project((images + within).clamp(0, 1) - images, radius)


def settled(images: Images, delta: Images, radius: float, norm: Norm = "l2") -> Images:
    """The attacked images; the rounding of the sums, half a last digit each, does not carry them out."""
    pixels = images[0].numel() if norm == "l2" else 1
    slack = pixels**0.5 * torch.finfo(images.dtype).eps / 4
    return images + BALLS[norm].project(delta, max(0.0, radius - slack))


@contextmanager
def frozen_parameters(model: nn.Module) -> Iterator[None]:
    """No weight asks for a gradient inside, so that nothing is kept for one; afterwards those that did do."""
    asking = [weight for weight in model.parameters() if weight.requires_grad and weight.is_leaf]
    for weight in asking:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in asking:
            weight.requires_grad_(True)


def ascent_direction(
    model: nn.Module, images: Images, labels: Labels, *, coupled: bool = False
) -> Float[Tensor, "n c h w"]:
    """Where each image's cross-entropy rises: the gradient of the log-odds against its label.

    It is the gradient of the loss over 1 − p, so that it does not vanish where p rounds to 1. Where the
    images are coupled by the batch's statistics, that would weigh them against each other: there it is the
    gradient of the loss.
    """
    losses = label_loss if coupled else log_odds_against
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        return torch.autograd.grad(losses(model(images), labels).sum(), images)[0]


def robust_correct(
    model: nn.Module,
    images: Images,
    labels: Labels,
    attack: PGD,
    draws: torch.Generator,
    *,
    batch_size: int = 256,
) -> PerImage:
    """1 where the model still names the label under attack, else 0; not changed by `batch_size`."""
    return attack_outcome(model, images, labels, attack, draws, batch_size=batch_size).correct


def attack_outcome(
    model: nn.Module,
    images: Images,
    labels: Labels,
    attack: PGD,
    draws: torch.Generator,
    *,
    batch_size: int = 256,
) -> Outcome:
    """Whether the model still names each label under attack, and whether there was an attack."""
    start = attack.start(images, draws)
    parts = zip(images.split(batch_size), labels.split(batch_size), start.split(batch_size), strict=True)
    found = []
    for x, y, s in parts:
        attacked = attack.attack(model, x, y, s)
        found.append(Outcome((predict(model, attacked.images).argmax(1) == y).float(), attacked.stalled))
    return Outcome(*(torch.cat(column) for column in zip(*found, strict=True)))


def adversarial_losses(
    model: nn.Module, images: Images, labels: Labels, attack: PGD, draws: torch.Generator
) -> dict[Statistics, float]:
    """The mean cross-entropy under attack, with running statistics and with those of the batch.

    Each is that of the network that was attacked. Where training was sound the two are alike; a network that
    was trained against attacks on another one has a loss well above that of its training in one of them.

    Args:
        model, attack: as in `PGD`, whose own `statistics` do not count.
        images, labels: one batch, as large as those of the training.
        draws: names the start of the attack, the same in both modes.
    """
    start, found = attack.start(images, draws), dict[Statistics, float]()
    for statistics in ("running", "batch"):
        attacked = replace(attack, statistics=statistics).perturb(model, images, labels, start)
        with MODES[statistics](model), torch.no_grad():
            found[statistics] = float(cross_entropy(model(attacked), labels))
    return found


def _interval(x: Tensor, radius: float) -> tuple[float, float]:
    """[-radius, radius], with the border rounded towards zero in the numbers that `x` can hold."""
    border = torch.tensor(radius, dtype=x.dtype)
    if float(border) > radius:
        border = torch.nextafter(border, torch.zeros_like(border))
    return -float(border), float(border)
