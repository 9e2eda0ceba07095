"""Attacks in an l2 ball that find more than PGD: APGD (Croce & Hein 2020) and Square, which uses no gradient
(Andriushchenko et al. 2020). Like PGD they leave no trace, and no image sees another."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from pags.arrays import (
    Images,
    Labels,
    Logits,
    PerImage,
    expand,
    norms,
    scale_to,
    zero_unless_directed,
)
from pags.classifiers.modes import evaluating
from pags.errors import UsageError
from pags.training.attack import PGD, frozen_parameters, into_ball, settled
from pags.training.gradients import log_odds_against

CHECKPOINTS = (0.22, 0.03, 0.06)
"""The first interval between APGD's checkpoints, by what intervals shrink, and the smallest: shares of the
steps."""
RISES, MOMENTUM = 0.75, 0.75
"""Share of the steps of an interval in which the loss must rise, or the step is halved; APGD's momentum."""
TILES = 5
"""Square starts from so many tiles in a row."""
SHRINKING = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Shares of the queries after which Square's windows have half their area."""
NUMBERS = 5
"""Uniform numbers that each query of Square needs, beside a sign for each channel."""


class Attack(Protocol):
    """An attack: what it draws for some images, and where it takes them from there."""

    @property
    def radius(self) -> float:
        """Of the ball."""
        ...

    def start(self, images: Images, draws: torch.Generator) -> Tensor:
        """All random numbers, one row per image."""
        ...

    def perturb(self, model: nn.Module, images: Images, labels: Labels, start: Tensor) -> Images:
        """The attacked images, in [0, 1], at a distance of at most the radius from the originals."""
        ...


def margin(logits: Logits, labels: Labels) -> PerImage:
    """The label's logit less the largest other one; negative where another class is predicted."""
    own = logits.gather(1, labels[:, None])[:, 0]
    return own - logits.scatter(1, labels[:, None], -torch.inf).amax(1)


def dlr(logits: Logits, labels: Labels) -> PerImage:
    """The difference of logits ratio: −margin over the distance of the largest logit and the third, so that
    it changes with no scale or shift of the logits; of two classes −margin, for there is no third."""
    if logits.shape[1] < 3:
        return -margin(logits, labels)
    top = logits.topk(3, dim=1).values
    return -margin(logits, labels) / (top[:, 0] - top[:, 2] + 1e-12)


LOSSES: dict[str, Callable[[Logits, Labels], PerImage]] = {"cross-entropy": log_odds_against, "dlr": dlr}
"""What APGD makes rise. The log-odds rise with the cross-entropy, and do not vanish where p rounds to 1."""


class _Point(NamedTuple):
    """Where an image is, with the loss there, its gradient, and whether the label is still predicted."""

    delta: Images
    loss: PerImage
    gradient: Images
    kept: Tensor  # (n,) bool

    def where(self, chosen: Tensor, other: "_Point") -> "_Point":  # chosen: (n,) bool
        """This point for the chosen images, the other for the rest."""
        pairs = zip(self, other, strict=True)
        return _Point(*(torch.where(expand(chosen, a), a, b) for a, b in pairs))


@dataclass(frozen=True)
class APGD:
    """Auto-PGD in an l2 ball (Croce & Hein 2020, Algorithm 1): momentum, and a step that starts at twice the
    radius and is halved where the loss stops to rise.

    Args:
        radius: of the ball, for images in [0, 1].
        steps: gradient steps.
        loss: a name of `LOSSES`.
    """

    radius: float
    steps: int = 100
    loss: Literal["cross-entropy", "dlr"] = "cross-entropy"

    def __post_init__(self) -> None:
        PGD(self.radius, self.steps)  # which refuses what makes no sense

    def start(self, images: Images, draws: torch.Generator) -> Images:
        """Perturbations uniform in the ball."""
        return PGD(self.radius).start(images, draws)

    def perturb(self, model: nn.Module, images: Images, labels: Labels, start: Images) -> Images:
        """The first images on the way whose label is not predicted; where there are none, those of the
        largest loss."""
        with evaluating(model), frozen_parameters(model):
            return settled(images, self._found(model, images, labels, start), self.radius)

    def _found(self, model: nn.Module, images: Images, labels: Labels, start: Images) -> Images:
        def cut(delta: Images) -> Images:
            return into_ball(images, delta, self.radius)

        def at(delta: Images) -> _Point:
            return self._point(model, images, labels, delta)

        here = best = found = at(cut(start))
        before, checked = here.delta, best.loss
        length = torch.full_like(here.loss, 2 * self.radius)
        rises, halved, since = torch.zeros_like(here.loss), torch.zeros_like(here.kept), 0
        checkpoints = _checkpoints(self.steps)
        for step in range(self.steps):
            if not bool(found.kept.any()):
                break
            onward = cut(here.delta + scale_to(here.gradient, length))
            share = MOMENTUM if step else 1.0
            ahead = at(cut(here.delta + share * (onward - here.delta) + (1 - share) * (here.delta - before)))
            rises, since = rises + (ahead.loss > here.loss), since + 1
            before, here = here.delta, ahead
            best = here.where(here.loss > best.loss, best)
            found = here.where(found.kept & ~here.kept, found)
            if step + 1 in checkpoints:
                stuck = (rises < RISES * since) | (~halved & (best.loss <= checked))
                here = best.where(stuck, here)
                length = torch.where(stuck, length / 2, length)
                rises, halved, checked, since = torch.zeros_like(rises), stuck, best.loss, 0
        return best.where(found.kept, found).delta

    def _point(self, model: nn.Module, images: Images, labels: Labels, delta: Images) -> _Point:
        with torch.enable_grad():
            x = (images + delta).detach().requires_grad_()
            logits = model(x)
            losses = LOSSES[self.loss](logits, labels)
            gradient = torch.autograd.grad(losses.sum(), x)[0]
        kept = logits.argmax(1) == labels
        losses = losses.detach().nan_to_num(-torch.inf)
        return _Point(delta, losses.to(images), zero_unless_directed(gradient), kept)


def _checkpoints(steps: int) -> set[int]:
    """The steps after which APGD looks back."""
    share, (gap, shrinks, least) = 0.0, CHECKPOINTS
    found = set[int]()
    while share < 1:
        share += gap
        gap = max(gap - shrinks, least)
        found.add(math.ceil(share * steps))
    return found


@dataclass(frozen=True)
class Square:
    """The Square attack in an l2 ball (Andriushchenko et al. 2020, Algorithm 3): random search over windows,
    by outputs alone, so that gradients that are masked do not help against it.

    Args:
        radius: of the ball, for images in [0, 1].
        queries: images asked for, per image.
        share: of the image's area that the first windows have.
    """

    radius: float
    queries: int = 1000
    share: float = 0.8

    def __post_init__(self) -> None:
        PGD(self.radius, self.queries)
        if not 0 < self.share <= 1:
            raise UsageError("a share of the image's area in (0, 1]", got=self.share, suggestion="share=0.8")

    def start(self, images: Images, draws: torch.Generator) -> Tensor:  # (n, m)
        """Uniform numbers: signs of the tiles, and what each query draws."""
        n, channels, height, width = images.shape
        tiles = math.prod(_tiles(height, width)[1:])
        numbers = channels * tiles + self.queries * (NUMBERS + channels)
        return torch.rand(n, numbers, generator=draws, device=draws.device).to(images)

    def perturb(self, model: nn.Module, images: Images, labels: Labels, start: Tensor) -> Images:
        """The images of the smallest margin that random search finds."""
        n, channels, height, width = images.shape
        side, rows, columns = _tiles(height, width)
        first, rest = start.tensor_split([channels * rows * columns], dim=1)
        signs = _signs(first.reshape(n, channels, rows, columns))
        tiled = torch.kron(signs, _two_bumps(side, images))
        delta = torch.zeros_like(images)
        delta[:, :, : rows * side, : columns * side] = tiled
        delta = into_ball(images, scale_to(delta, self.radius), self.radius)
        with evaluating(model), torch.no_grad():
            least = margin(model(images + delta), labels)
            for query, drawn in enumerate(rest.reshape(n, self.queries, NUMBERS + channels).unbind(1)):
                trying = (least > 0).nonzero()[:, 0]
                if not len(trying):
                    break
                x, old = images[trying], delta[trying]
                new = into_ball(
                    x, self._moved(old, drawn[trying], self._side(query, height, width)), self.radius
                )
                found = margin(model(x + new), labels[trying])
                better = found < least[trying]
                delta[trying] = torch.where(expand(better, new), new, old)
                least[trying] = torch.where(better, found, least[trying])
        return settled(images, delta, self.radius)

    def _side(self, query: int, height: int, width: int) -> int:
        """The odd side of the windows at a query."""
        halvings = sum(query >= share * self.queries for share in SHRINKING)
        side = max(3, round(math.sqrt(self.share / 2**halvings * height * width)))
        return min(side + 1 - side % 2, height, width)

    def _moved(self, delta: Images, drawn: Tensor, side: int) -> Images:
        """The perturbation with the length of one window, and all that the ball has left, in another."""
        places, signs = drawn[:, :NUMBERS], _signs(drawn[:, NUMBERS:])
        room = torch.tensor([delta.shape[2] - side + 1, delta.shape[3] - side + 1]).to(delta)
        into, out = (places[:, :2] * room).long(), (places[:, 2:4] * room).long()
        shape = _two_bumps(side, delta)
        shape = torch.where(places[:, 4, None, None] < 0.5, shape, shape.T)  # (n, side, side)
        target, source = _window(delta, into, side), _window(delta, out, side)
        bumps = torch.zeros_like(delta).masked_scatter(
            target.expand_as(delta),
            (signs[:, :, None, None] * shape[:, None]).expand(-1, delta.shape[1], -1, -1),
        )
        both = _lengths(delta * (target | source)).square()
        free = (self.radius**2 - norms(delta).square()).clamp_min(0) / delta.shape[1]
        kept = delta * target
        new = bumps + kept / _lengths(kept).clamp_min(torch.finfo(delta.dtype).tiny)
        new = new / _lengths(new).clamp_min(torch.finfo(delta.dtype).tiny)
        return torch.where(target, new * (both + expand(free, both)).sqrt(), delta * ~source)


def _tiles(height: int, width: int) -> tuple[int, int, int]:
    """The side of Square's first tiles, and how many of them there are in columns and rows."""
    side = max(1, min(height, width) // TILES)
    return side, height // side, width // side


def _signs(uniform: Tensor) -> Tensor:
    return torch.where(uniform < 0.5, -1.0, 1.0).to(uniform)


def _lengths(x: Images) -> Tensor:  # (n, c, 1, 1)
    """The l2 norm of each channel."""
    return torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True)


def _window(x: Images, corner: Tensor, side: int) -> Tensor:  # (n, 1, h, w) bool
    """Where the square of a side is whose upper left corner (n, 2) is given."""
    down, right = (torch.arange(size, device=x.device) for size in x.shape[2:])
    rows = (down >= corner[:, :1]) & (down < corner[:, :1] + side)
    columns = (right >= corner[:, 1:]) & (right < corner[:, 1:] + side)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def _two_bumps(side: int, like: Tensor) -> Tensor:  # (side, side)
    """Two bumps of opposite signs side by side, of norm 1 together."""
    half = side // 2
    whole = torch.cat([_bump(side, half), -_bump(side, side - half)], dim=1)
    return (whole / torch.linalg.vector_norm(whole)).to(like)


def _bump(height: int, width: int) -> Tensor:  # (height, width)
    """Rectangles one inside the other, each higher by the inverse square of its rank from within."""
    n = height // 2
    heights = (1 / torch.arange(n + 1, 0, -1).double().square()).cumsum(0)
    rows, columns = ((torch.arange(1, size + 1) - size // 2 - 1).abs() for size in (height, width))
    return heights[n - torch.maximum(rows[:, None], columns[None, :])]


ATTACKS: dict[str, Callable[[float, int], Attack]] = {
    "pgd": PGD,
    "apgd-ce": lambda radius, steps: APGD(radius, 10 * steps),
    "apgd-dlr": lambda radius, steps: APGD(radius, 10 * steps, "dlr"),
    "square": lambda radius, steps: Square(radius, 100 * steps),
}
"""The l2 attacks by name, from a radius and PGD's number of steps: the others have their usual multiples."""


def find_attack(name: str) -> Callable[[float, int], Attack]:
    """How an attack is made.

    Raises:
        UsageError: there is none of this name.
    """
    if name not in ATTACKS:
        raise UsageError(f"an attack among {', '.join(ATTACKS)}", got=repr(name), suggestion="pgd")
    return ATTACKS[name]
