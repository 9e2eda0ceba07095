"""Argument 1: a gradient penalty is isotropic, but only its on-manifold part competes with the loss."""

import math
from collections.abc import Callable, Sequence

from torch import nn

from pags.arrays import Basis, dots, split
from pags.classifiers.modes import predict
from pags.data.imageset import ImageSet
from pags.data.worlds import World
from pags.measure.gradients import input_gradient
from pags.seeds import derive, seeded_construction
from pags.store import Record
from pags.theory.models import perceptron, small_plan
from pags.theory.rows import over_seeds, part, row
from pags.training.fit import epochs as fit_epochs
from pags.training.objectives import GradientNorm

PLACE = "Argument 1 (3.3)"

Trace = dict[str, list[float]]
"""Mean ‖g_on‖², mean ‖g_off‖² and mean cross-entropy, before training and after every epoch."""


def argument_1(
    world: World,
    strengths: Sequence[float],
    *,
    seed: int,
    runs: int,
    images: int,
    epochs: int,
    on_run: Callable[[float], None] = lambda share: None,
) -> Record:
    """Gradients on and off the manifold, and the loss, while networks train with penalties λ‖∇ₓ loss‖².

    Args:
        world: where images, labels and exact tangent spaces come from.
        strengths: λ, rising from 0.
        seed: random seed of every draw.
        runs: trainings a strength, with other images and other initial weights each.
        images: training images.
        epochs: epochs of each training.
        on_run: called with the fraction of trainings completed.

    Returns:
        Rows on what falls first, what falls further, and what it costs; the traces of every run.
    """
    traces: dict[float, list[Trace]] = {strength: [] for strength in strengths}
    total = len(strengths) * runs
    for number in range(total):
        strength, run = strengths[number // runs], number % runs
        data = world.image_set(images, seed=derive(seed, "argument 1", run))
        traces[strength].append(trace(world, data, strength, derive(seed, "run", run), epochs))
        on_run((number + 1) / total)
    penalised = [strength for strength in strengths if strength > 0]
    off_chance = 1 - world.k / math.prod(world.shape)
    rows = [r for s in penalised for r in _rows(s, traces[s], traces[strengths[0]])]
    rows.append(_price(traces, penalised))
    plain = [{"strength": s, "runs": traces[s]} for s in strengths]
    return part(rows, traces=plain, off_chance=off_chance)


def trace(world: World, data: ImageSet, strength: float, seed: int, epochs: int) -> Trace:
    """One training, watched on its own training images."""
    with seeded_construction(seed, "argument 1"):
        model = perceptron(world.shape, world.classes, nn.Softplus(beta=10))
    basis = world.tangent_basis(data.images).float()
    plan = small_plan(epochs, learning_rate=2e-3, schedule="constant", weight_decay=0)
    seen = [_look(model, data, basis)]
    for _ in fit_epochs(model, GradientNorm(strength), data, plan, seed=seed):
        seen.append(_look(model, data, basis))
    on, off, loss = (list(values) for values in zip(*seen, strict=True))
    return {"on": on, "off": off, "loss": loss}


def _look(model: nn.Module, data: ImageSet, basis: Basis) -> tuple[float, float, float]:
    gradient = input_gradient(model, data.images, "loss", data.labels, batch_size=len(data))
    on, off = split(gradient, basis)
    loss = nn.functional.cross_entropy(predict(model, data.images), data.labels)
    return float(dots(on, on).mean()), float(dots(off, off).mean()), float(loss)


def half_life(values: Sequence[float]) -> int:
    """The first epoch after its peak at which a quantity is below half of it; one past the end if none is.

    From the peak, since the gradients of a fresh network are small in every direction and rise at first.
    """
    peak = max(range(len(values)), key=values.__getitem__)
    return next((i for i in range(peak, len(values)) if values[i] < values[peak] / 2), len(values))


def off_share(trace: Trace) -> float:
    """The share of ‖g_off‖² in ‖g‖² after training."""
    return trace["off"][-1] / (trace["on"][-1] + trace["off"][-1])


def _rows(strength: float, traces: Sequence[Trace], control: Sequence[Trace]) -> list[Record]:
    first = over_seeds([float(half_life(t["on"]) - half_life(t["off"])) for t in traces])
    further = over_seeds(
        [math.log(off_share(t) / off_share(c)) for t, c in zip(traces, control, strict=True)]
    )
    return [
        row(
            f"λ = {strength:g}: the off part falls first", PLACE,
            "λ‖g_off‖² falls before λ‖g_on‖², which the loss holds up.",
            "epochs by which ‖g_off‖² is down to half of its peak before ‖g_on‖² is, "
            f"median and range of {len(traces)} runs; above 0",
            first, above=0.0,
        ),
        row(
            f"λ = {strength:g}: the off part falls further", PLACE,
            "The penalty takes more from λ‖g_off‖² than from λ‖g_on‖².",
            "log of the share of ‖g_off‖² in ‖g‖² after training, against the same run with λ = 0; below 0",
            further, below=0.0,
        ),
    ]  # fmt: skip


def _price(traces: dict[float, list[Trace]], strengths: Sequence[float]) -> Record:
    """Whether, from the weakest to the strongest penalty, ‖g_on‖² falls and the loss rises."""
    pairs = zip(traces[strengths[0]], traces[strengths[-1]], strict=True)
    gains = [
        min(math.log(a["on"][-1] / b["on"][-1]), math.log(b["loss"][-1] / a["loss"][-1])) for a, b in pairs
    ]
    return row(
        "robustness on the manifold costs loss", PLACE,
        "More on-manifold robustness comes with a higher training loss.",
        f"from λ = {strengths[0]:g} to {strengths[-1]:g}: smaller of the log fall of ‖g_on‖² and the log "
        "rise of the loss; above 0",
        over_seeds(gains), above=0.0,
    )  # fmt: skip
