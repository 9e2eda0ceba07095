"""Beyond the paper: trained networks against the exact Bayes gradient.

The paper takes the score as a proxy for the Bayes gradient (section 5, limitations). Here that gradient is
known, so the claim behind the proxy can be tested: that robust training moves a network's gradient towards
it, and excess away from it. The control objectives ask why: is it robustness *off* the manifold that does it?
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from pags.arrays import Basis, Images, Labels, cosines
from pags.classifiers.modes import correct
from pags.data.imageset import ImageSet
from pags.data.worlds import World
from pags.measure.gradients import input_gradient
from pags.measure.robustness import off_manifold_share
from pags.seeds import derive, generator, seeded_construction
from pags.store import Record
from pags.theory.models import perceptron, small_plan, trained
from pags.theory.rows import over_seeds, part, row
from pags.training.controls import GradientAlignment, PartialGradientNorm
from pags.training.objectives import CrossEntropy, Objective, make_objective

PLACE = "4.2 and limitation 2 (5)"

GRIDS: dict[str, tuple[float, ...]] = {
    "pgd": (0.05, 0.1, 0.15, 0.2, 0.5),
    "gradient-norm": (1e-3, 1e-2, 1e-1, 1.0),
    "only off": (1e-2, 1e-1, 1.0),
    "only on": (1e-2, 1e-1, 1.0),
    "aligned": (0.1, 1.0),
}
"""Strengths of each objective; every one of them starts from the same network at strength 0."""

Found = dict[str, float]
"""What is measured of one network: accuracy, cosine with the Bayes gradient, rho2."""


@dataclass(frozen=True)
class Exact:
    """Test images of a world, with everything known about them."""

    images: Images
    labels: Labels
    basis: Basis
    gradient: Images


def bayes_alignment(
    world: World, *, seed: int, runs: int, images: int, epochs: int, on_run: Callable[[float], None]
) -> Record:
    """Cosine of ∇ log p(y|x), the network's and the world's, along the strengths of five objectives.

    Args:
        world: where images and the exact Bayes gradient come from.
        seed: random seed of every draw.
        runs: repetitions with other images and initial weights each.
        images: training images; test images are four times as many.
        epochs: epochs of each training.
        on_run: called with the fraction of repetitions completed.

    Returns:
        Rows with verdicts, and for each objective the measures of every run and strength.
    """
    test = _exact(world, 4 * images, seed)
    found: list[dict[str, list[Found]]] = []
    for run in range(runs):
        found.append(_sweeps(world, test, derive(seed, "bayes alignment", run), images, epochs))
        on_run((run + 1) / runs)
    best = float((world.log_posterior(test.images).argmax(1) == test.labels).double().mean())
    strengths = {name: [0.0, *grid] for name, grid in GRIDS.items()}
    return part(_rows(found), strengths=strengths, runs=found, bayes_accuracy=best)


def _exact(world: World, n: int, seed: int) -> Exact:
    images, labels = world.sample(n, generator(seed, "bayes alignment", "test"))
    basis, gradient = world.tangent_basis(images), world.bayes_gradient(images, labels)
    return Exact(images.float(), labels, basis.float(), gradient.float())


def _sweeps(world: World, test: Exact, seed: int, images: int, epochs: int) -> dict[str, list[Found]]:
    data = world.image_set(images, seed=seed)
    basis = world.tangent_basis(data.images).float()
    towards = world.bayes_gradient(data.images.double(), data.labels).float()
    make: Mapping[str, Callable[[float], Objective]] = {
        "pgd": lambda s: make_objective("pgd", s, attack_steps=3),
        "gradient-norm": lambda s: make_objective("gradient-norm", s),
        "only off": lambda s: PartialGradientNorm(s, basis, "off"),
        "only on": lambda s: PartialGradientNorm(s, basis, "on"),
        "aligned": lambda s: GradientAlignment(s, towards),
    }
    start = _measured(world, CrossEntropy(), data, test, seed, epochs)
    return {
        name: [start, *(_measured(world, make[name](s), data, test, seed, epochs) for s in grid)]
        for name, grid in GRIDS.items()
    }


def _measured(
    world: World, objective: Objective, data: ImageSet, test: Exact, seed: int, epochs: int
) -> Found:
    with seeded_construction(seed, "bayes alignment"):
        model = perceptron(world.shape, world.classes, nn.Softplus(beta=10))
    trained(model, objective, data, small_plan(epochs, weight_decay=0), seed)
    gradient = input_gradient(model, test.images, "log-probability", test.labels, batch_size=len(test.images))
    return {
        "accuracy": float(correct(model, test.images, test.labels).mean()),
        "cosine": float(cosines(gradient, test.gradient).mean()),
        "rho2": float(off_manifold_share(gradient, test.basis).nanmean()),
    }


def _rows(found: Sequence[dict[str, list[Found]]]) -> list[Record]:
    rows = []
    for name in ("pgd", "gradient-norm"):
        rows += _there_and_back(name, _series(found, name, "cosine"))
    off, on = _series(found, "only off", "cosine"), _series(found, "only on", "cosine")
    share = _series(found, "aligned", "rho2")
    runs = f"median and range of {len(found)} runs; above 0"
    rows += [
        row(
            "penalising only the off part aligns", PLACE,
            "Robustness off the manifold alone moves the gradient towards the Bayes gradient.",
            f"rise of the cosine at λ = {GRIDS['only off'][1]:g}, {runs}",
            over_seeds(_rise(off, 2)), above=0.0,
        ),
        row(
            "penalising only the on part does not", PLACE,
            "Robustness on the manifold alone moves it away.",
            f"fall of the cosine at λ = {GRIDS['only on'][1]:g}, {runs}",
            over_seeds([-rise for rise in _rise(on, 2)]), above=0.0,
        ),
        row(
            "aligning the gradient makes robust off the manifold", "1; Theorem 1",
            "A gradient made to follow the Bayes gradient lies in the tangent space.",
            f"fall of rho2 at strength {GRIDS['aligned'][-1]:g}, {runs}",
            over_seeds([-rise for rise in _rise(share, -1)]), above=0.0,
        ),
    ]  # fmt: skip
    return rows


def _there_and_back(name: str, cosine: torch.Tensor) -> list[Record]:
    """Towards the Bayes gradient, then away; the peak is chosen by the other runs, so that it is not luck."""
    others = (cosine.sum(0) - cosine) / (len(cosine) - 1)
    peak = cosine.gather(1, others[:, 1:-1].argmax(1, keepdim=True) + 1)[:, 0]
    said = f"at the inner strength that is best in the other runs; median and range of {len(cosine)} runs"
    return [
        row(
            f"{name}: towards the Bayes gradient", PLACE,
            "Robust training moves the gradient towards the Bayes gradient.",
            f"rise of the cosine from strength 0, {said}; above 0",
            over_seeds((peak - cosine[:, 0]).tolist()), above=0.0,
        ),
        row(
            f"{name}: away under excessive regularisation", PLACE,
            "Excessive strength moves the gradient away from the Bayes gradient.",
            f"fall of the cosine to the last strength, {said}; above 0",
            over_seeds((peak - cosine[:, -1]).tolist()), above=0.0,
        ),
    ]  # fmt: skip


def _series(
    found: Sequence[dict[str, list[Found]]], name: str, what: str
) -> torch.Tensor:  # (runs, strengths)
    return torch.tensor([[point[what] for point in run[name]] for run in found], dtype=torch.float64)


def _rise(series: torch.Tensor, place: int) -> list[float]:
    return (series[:, place] - series[:, 0]).tolist()
