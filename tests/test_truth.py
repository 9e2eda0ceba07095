"""The measures against worlds where the answer is known: intervals hold it at the rate that they state."""

import pytest
import torch
from torch import Tensor, nn

from conftest import Linear, built, seeded
from pags.arrays import cosines, dots, norms, project
from pags.data.worlds import Bayes, distractor_world, linear_world
from pags.measure.gradients import input_gradient
from pags.measure.robustness import definition_1, equal_norm, off_manifold_share
from pags.measure.statistics import Statistic, interval

REPETITIONS, IMAGES = 200, 150
WORLD = linear_world((1, 6, 6), k=5, noise=0.02, seed=4)
POOL, LABELS = WORLD.sample(REPETITIONS * IMAGES, seeded(1))
BASIS = WORLD.tangent_basis(POOL[:1]).expand(len(POOL), -1, -1)


def network() -> nn.Module:
    """A smooth classifier whose gradients differ from image to image."""
    layers = lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 24), nn.Softplus(), nn.Linear(24, 3))  # noqa: E731
    return built(layers, seed=5).double()


def columns() -> dict[str, Tensor]:
    model = network()
    gradient = input_gradient(model, POOL, "log-probability", LABELS, batch_size=4096)
    noise = definition_1(
        model, POOL, BASIS, 1e-3, draws=seeded(2), directions=8, target="log-probability", labels=LABELS
    )
    change = equal_norm(model, POOL, BASIS, [0.1], draws=seeded(3), directions=4)
    return {
        "off squared": noise.off, "all squared": noise.all, "on": change.on[0], "off": change.off[0],
        "rho2": off_manifold_share(gradient, BASIS),
        "cosine": cosines(gradient, WORLD.bayes_gradient(POOL, LABELS)),
    }  # fmt: skip


@pytest.fixture(scope="module")
def pool() -> dict[str, Tensor]:
    return columns()


MEASURES: dict[str, tuple[tuple[str, ...], Statistic]] = {
    "rho1": (("off squared", "all squared"), lambda m: m[:, 0] / m[:, 1]),
    "rho2": (("rho2",), lambda m: m[:, 0]),
    "off over on": (("off", "on"), lambda m: m[:, 0] / m[:, 1]),
    "cosine with the Bayes gradient": (("cosine",), lambda m: m[:, 0]),
}


@pytest.mark.parametrize("measure", MEASURES)
def test_95_percent_intervals_hold_the_truth_95_percent_of_the_time(
    measure: str, pool: dict[str, Tensor]
) -> None:
    names, statistic = MEASURES[measure]
    table = torch.stack([pool[name] for name in names], 1).double()
    truth = float(statistic(table.mean(0)[None])[0])  # from 200 times as many images as each repetition has
    held = 0
    for repetition, rows in enumerate(table.split(IMAGES)):
        found = interval(statistic, rows, draws=seeded(repetition), resamples=500)
        held += found.low <= truth <= found.high
    # 95 % of 200 is 190; four standard deviations of a binomial are 12.
    assert 178 <= held <= 199


@pytest.mark.parametrize("measure", MEASURES)
def test_the_error_falls_with_the_root_of_the_sample(measure: str, pool: dict[str, Tensor]) -> None:
    names, statistic = MEASURES[measure]
    table = torch.stack([pool[name] for name in names], 1).double()
    truth = statistic(table.mean(0)[None])[0]
    errors = []
    for size in (50, 200, 800):
        parts = torch.stack([part.mean(0) for part in table.split(size)[:-1]])
        errors.append(float((statistic(parts) - truth).square().mean().sqrt()))
    assert 1.6 < errors[0] / errors[1] < 2.4
    assert 1.4 < errors[1] / errors[2] < 2.6


def test_small_noise_gives_rho1_of_each_image_its_rho2() -> None:
    """Theorem 1 for a network: the ratio of means over many directions against the exact gradient."""
    model, few = network(), slice(0, 40)
    gradient = input_gradient(model, POOL[few], "logit", LABELS[few])
    found = definition_1(
        model, POOL[few], BASIS[few], 1e-6, draws=seeded(6), directions=4000, labels=LABELS[few]
    )
    exact = off_manifold_share(gradient, BASIS[few])
    assert torch.allclose(found.rho1, exact, atol=0.06)  # 4,000 directions leave about 0.015
    assert abs(float((found.rho1 - exact).mean())) < 0.01


def test_a_linear_classifier_has_the_closed_form_of_every_measure() -> None:
    weight = torch.randn(3, 36, generator=seeded(7), dtype=torch.float64)
    model, few = Linear(weight), slice(0, 50)
    rows = weight[LABELS[few]].reshape(-1, 1, 6, 6)
    on = project(rows, BASIS[few])
    exact = 1 - dots(on, on) / dots(rows, rows)
    gradient = input_gradient(model, POOL[few], "logit", LABELS[few])
    assert torch.allclose(off_manifold_share(gradient, BASIS[few]), exact)
    change = equal_norm(
        model, POOL[few], BASIS[few], [2.0], draws=seeded(8), directions=3000, change="logits-l2"
    )
    # The root mean square over directions of ‖W u‖ for a u of norm 2 in a space of dimension r: 2 ‖W P‖ / √r.
    flat = BASIS[0]
    for part, inside, r in (("on", weight @ flat, 5), ("off", weight - weight @ flat @ flat.T, 31)):
        bound = 2 * float(inside.square().sum().sqrt()) / r**0.5
        mean = float(getattr(change, part).mean())
        assert 0.9 * bound < mean < bound  # the mean lies below the root mean square, by Jensen, but not far


def test_the_bayes_classifier_is_off_manifold_robust_and_ignores_the_distractor() -> None:
    """Theorem 2, measured by the package's own measures."""
    world = distractor_world((1, 6, 6), seed=2)
    images, labels = world.sample(100, seeded(9))
    model, basis = Bayes(world), world.tangent_basis(images)
    gradient = input_gradient(model, images, "log-probability", labels)
    assert float(off_manifold_share(gradient, basis).max()) < 1e-12
    assert float((gradient * ~world.mask).abs().max()) < 1e-12 * float(gradient.abs().max())
    noise = definition_1(
        model, images, basis, 1e-3, draws=seeded(10), target="log-probability", labels=labels
    )
    assert float(noise.off.mean() / noise.all.mean()) < 1e-12
    assert float(norms(gradient).min()) > 0
