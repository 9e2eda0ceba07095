"""Cross-entropy never moves the sum of the last layer's rows: what is left of it is weight decay's doing."""

import pytest
import torch

from conftest import built
from pags.classifiers.resnet import ResNet, build_resnet
from pags.data.batches import batch_count
from pags.data.sources import load_data
from pags.measure.gradients import input_gradient
from pags.training.fit import Plan, fit, learning_rate
from pags.training.objectives import make_objective

DATA = load_data("digits").train.take(slice(0, 500))


def network() -> ResNet:
    mean, std = DATA.statistics()
    return built(lambda: build_resnet("small-resnet", 1, 10, mean=mean, std=std), seed=3)


def decayed(rows: torch.Tensor, plan: Plan) -> torch.Tensor:
    """What SGD with momentum leaves of a weight whose gradient is always zero."""
    steps = plan.epochs * batch_count(DATA, plan.batch_size)
    velocity = torch.zeros_like(rows)
    for step in range(steps):
        velocity = plan.momentum * velocity + plan.weight_decay * rows
        rows = rows - learning_rate(plan, step, steps) * velocity
    return rows


@pytest.mark.parametrize("objective", ["pgd", "smoothing"])
def test_the_sum_of_the_last_rows_is_the_decayed_initialisation(objective: str) -> None:
    model, plan = network(), Plan(epochs=4, learning_rate=0.1, weight_decay=5e-2)
    before = model.head.weight.detach().sum(0).double()
    single = model.head.weight.detach()[0].clone()
    for _ in fit(model, make_objective(objective, 0.1, attack_steps=2), DATA, plan, seed=0):
        pass
    after = model.head.weight.detach().sum(0).double()
    expected = decayed(before, plan)
    assert torch.linalg.vector_norm(expected) < 0.9 * torch.linalg.vector_norm(before)  # decay is visible
    assert torch.allclose(after, expected, atol=1e-5)
    # Not because nothing was learned: one row alone moved far from what decay would have left.
    moved = torch.linalg.vector_norm(model.head.weight.detach()[0] - decayed(single, plan))
    assert moved > 0.5 * torch.linalg.vector_norm(single)


def test_so_its_input_gradient_is_that_of_a_direction_nobody_trained() -> None:
    """Putting the initial sum of rows, decayed, in place of the last layer gives the same gradient."""
    model, plan = network(), Plan(epochs=2, learning_rate=0.1)
    before = model.head.weight.detach().sum(0)
    for _ in fit(model, make_objective("pgd", 0.0), DATA, plan, seed=0):
        pass
    images = DATA.images[:20]
    found = input_gradient(model, images, "sum-of-logits")
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.weight[0] = decayed(before, plan)
    untrained_direction = input_gradient(model, images, "sum-of-logits")
    assert torch.allclose(found, untrained_direction, atol=1e-4 * float(found.abs().max()))
