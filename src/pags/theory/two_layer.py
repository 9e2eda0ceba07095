"""Data on a linear subspace leave two-layer ReLU networks with large gradients off it.

Each step of gradient descent moves the first layer's weights within the span of the data. What lies off it at
the initialisation stays, and with it a gradient that depends on nothing that was learned. A small
initialisation or weight decay takes it away. This is Argument 2 for networks that are not linear.

Source: O. Melamed, G. Yehudai and G. Vardi, Adversarial examples exist in two-layer ReLU networks for
low-dimensional linear subspaces, 2023 (arXiv 2303.00783).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pags.seeds import derive, generator
from pags.store import Record
from pags.theory.rows import exactly, over_seeds, part, row, slope

PLACE = "Argument 2 (3.3); arXiv 2303.00783"
SCALES = (1.0, 0.3, 0.1, 0.03)
DECAY = 0.02


@dataclass(frozen=True)
class Problem:
    """Points on a subspace of d dimensions and labels ±1, and the weights (m, d) of a first layer."""

    basis: Float[Tensor, "d k"]
    train: Float[Tensor, "n d"]
    test: Float[Tensor, "n d"]
    labels: Float[Tensor, " n"]
    tested: Float[Tensor, " n"]
    start: Float[Tensor, "m d"]
    output: Float[Tensor, " m"]


@dataclass(frozen=True)
class Trained:
    """Weights after training, and gradients on and off the subspace at the test points."""

    weights: Float[Tensor, "m d"]
    active: Bool[Tensor, "n m"]
    on: Float[Tensor, " n"]
    off: Float[Tensor, " n"]
    accuracy: float
    flipped: float
    """Share of test points whose label a step off the subspace changes, as long as a typical point."""


def two_layer(
    *, seed: int, runs: int, d: int = 64, k: int = 4, width: int = 200, images: int = 200, steps: int = 300
) -> Record:
    """Gradients off the subspace of trained networks, over the initialisation's scale and with weight decay.

    Args:
        seed: random seed of every draw.
        runs: repetitions with other subspaces, points and initial weights.
        d, k: dimensions of the space and of the subspace.
        width: hidden units.
        images: training points, and as many test points.
        steps: steps of gradient descent.

    Returns:
        Rows on the weights and the gradients off the subspace; the norms of each run behind them.
    """
    problems = [problem(derive(seed, "two layer", run), d, k, width, images) for run in range(runs)]
    plain = [[trained(p, scale, 0.0, steps) for scale in SCALES] for p in problems]
    decayed = [trained(p, 1.0, DECAY, steps) for p in problems]
    curves = {f"scale {s:g}": [_seen(nets[place]) for nets in plain] for place, s in enumerate(SCALES)}
    curves["weight decay"] = [_seen(net) for net in decayed]
    kept = max(float(_moved(p, nets[0], 1.0)) for p, nets in zip(problems, plain, strict=True))
    shrunk = max(
        float(_moved(p, net, (1 - DECAY) ** steps)) for p, net in zip(problems, decayed, strict=True)
    )
    rows = [*_weight_rows(kept, shrunk, steps), *_gradient_rows(plain, decayed, d, k)]
    return part(rows, networks=curves)


def problem(seed: int, d: int, k: int, width: int, images: int) -> Problem:
    """Two classes of points of norm about √d on a random subspace, and initial weights from N(0, 1/d)."""
    draws = generator(seed, "two layer")

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draws, dtype=torch.float64)

    basis = torch.linalg.qr(draw(d, k))[0]
    centre = draw(k)
    labels = torch.where(torch.arange(2 * images) % 2 == 0, 1.0, -1.0).double()
    points = d**0.5 * (labels[:, None] * centre / centre.norm() + 0.25 * draw(2 * images, k)) @ basis.T
    output = torch.where(torch.arange(width) % 2 == 0, 1.0, -1.0).double() / width**0.5
    return Problem(
        basis, points[:images], points[images:], labels[:images], labels[images:],
        draw(width, d) / d**0.5, output,
    )  # fmt: skip


def trained(p: Problem, scale: float, decay: float, steps: int) -> Trained:
    """Gradient descent on the logistic loss by the first layer alone, as in the theorem, at rate 1/d."""
    weights, n = scale * p.start, len(p.train)
    for _ in range(steps):
        hidden = p.train @ weights.T  # (n, m)
        pull = p.labels * torch.sigmoid(-p.labels * (hidden.relu() @ p.output))
        step = ((hidden > 0) * p.output).T @ (pull[:, None] * p.train) / n
        weights = (1 - decay) * weights + step / weights.shape[1]
    hidden = p.test @ weights.T
    active, score = hidden > 0, hidden.relu() @ p.output
    gradient = (active * p.output) @ weights  # (n, d)
    on = gradient @ p.basis
    off = gradient - on @ p.basis.T
    step = float(p.test.norm(dim=1).median()) * off / off.norm(dim=1, keepdim=True)
    after = (p.test - score.sign()[:, None] * step) @ weights.T
    flipped = (after.relu() @ p.output).sign() != score.sign()
    return Trained(
        weights, active, on.norm(dim=1), off.norm(dim=1),
        float((score.sign() == p.tested).double().mean()), float(flipped.double().mean()),
    )  # fmt: skip


def _off(p: Problem, weights: Tensor) -> Tensor:
    return weights - weights @ p.basis @ p.basis.T


def _moved(p: Problem, net: Trained, factor: float) -> Tensor:
    """How far the weights off the subspace are from `factor` times those at the start, relative to these."""
    start = _off(p, p.start)
    return (_off(p, net.weights) - factor * start).norm() / start.norm()


def _seen(net: Trained) -> dict[str, float]:
    return {
        "on": float(net.on.mean()), "off": float(net.off.mean()), "accuracy": net.accuracy,
        "flipped": net.flipped,
    }  # fmt: skip


def _weight_rows(kept: float, shrunk: float, steps: int) -> list[Record]:
    return [
        row(
            "weights off the subspace stay as they began", PLACE,
            "Gradient descent moves the first layer within the span of the data alone.",
            "largest ‖P⊥W − P⊥W₀‖ / ‖P⊥W₀‖ over runs; below 1e-9",
            exactly(kept), below=1e-9, expected=0.0,
        ),
        row(
            "weight decay takes them away", PLACE,
            "With weight decay λ they shrink by 1 − λ a step, whatever is learned.",
            f"largest ‖P⊥W − (1 − λ)^{steps} P⊥W₀‖ / ‖P⊥W₀‖ over runs; below 1e-9",
            exactly(shrunk), below=1e-9, expected=0.0,
        ),
    ]  # fmt: skip


def _gradient_rows(plain: list[list[Trained]], decayed: list[Trained], d: int, k: int) -> list[Record]:
    said = f"median and range of {len(plain)} runs"
    predicted = [  # every active unit adds a normal vector of d − k entries of variance 1 / (d m)
        float((net[0].off.square() / (net[0].active.double().mean(1) * (d - k) / d)).mean().sqrt())
        for net in plain
    ]
    slopes = [
        float(slope(torch.tensor(SCALES), torch.tensor([float(net.off.mean()) for net in nets])))
        for nets in plain
    ]
    shares = [math.log(float(b.off.mean() / a[0].off.mean())) for a, b in zip(plain, decayed, strict=True)]
    flips = [a[0].flipped - b.flipped for a, b in zip(plain, decayed, strict=True)]
    return [
        row(
            "two-layer networks: large gradients off the subspace", PLACE,
            "The gradient off the data's subspace is as large after training as that of random weights.",
            f"root mean square of ‖g_off‖ over its value for random weights, {said}; from 0.8 to 1.2",
            over_seeds(predicted), above=0.8, below=1.2, expected=1.0,
        ),
        row(
            "a small initialisation removes them", PLACE,
            "The gradient off the subspace falls in proportion to the scale of the initialisation.",
            f"log-log slope of mean ‖g_off‖ over the scale, {said}; within 0.15 of 1",
            over_seeds(slopes), above=0.85, below=1.15, expected=1.0,
        ),
        row(
            "weight decay removes them", PLACE,
            "With weight decay the gradient off the subspace is gone after training.",
            f"log of mean ‖g_off‖ with weight decay {DECAY:g} over that without, {said}; below ln 0.01",
            over_seeds(shares), below=math.log(0.01),
        ),
        row(
            "they make adversarial examples off the subspace", PLACE,
            "A step off the subspace changes the label; without those gradients it does not.",
            "share of labels that a step as long as a typical point changes, without − with weight decay, "
            f"{said}; above 0",
            over_seeds(flips), above=0.0,
        ),
    ]  # fmt: skip
