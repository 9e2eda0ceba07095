"""The attack, against that of foolbox (Rauber et al. 2017) on a trained network."""

import pytest
import torch
from torch import nn

from conftest import built
from pags.classifiers.resnet import build_resnet
from pags.data.sources import load_data
from pags.seeds import generator
from pags.training.attack import PGD, robust_correct
from pags.training.fit import Plan, fit
from pags.training.objectives import CrossEntropy

foolbox = pytest.importorskip("foolbox")

STEPS, STARTS = 10, 2


@pytest.fixture(scope="module")
def network() -> nn.Module:
    train = load_data("digits").train
    mean, std = train.statistics()
    model = built(lambda: build_resnet("small-resnet", 1, 10, mean=mean, std=std))
    for _ in fit(model, CrossEntropy(), train, Plan(epochs=5, learning_rate=0.1), seed=0):
        pass
    return model


@pytest.mark.filterwarnings("ignore")  # foolbox and its parts use what others have since deprecated
@pytest.mark.parametrize("radius", [0.3, 0.6])
def test_robust_accuracy_is_that_of_foolbox(radius: float, network: nn.Module) -> None:
    """At the same radius, steps and length of a step, to a point of accuracy; the random starts differ."""
    data = load_data("digits")
    images = torch.cat([data.test.images, data.train.images[:300]])
    labels = torch.cat([data.test.labels, data.train.labels[:300]])
    ours = PGD(radius, steps=STEPS, relative_step=2.5)
    theirs = foolbox.attacks.L2ProjectedGradientDescentAttack(rel_stepsize=2.5 / STEPS, steps=STEPS)
    wrapped = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    found, expected = 0.0, 0.0
    for start in range(STARTS):
        found += float(robust_correct(network, images, labels, ours, generator(start, "ours")).mean())
        with torch.random.fork_rng():
            torch.manual_seed(start)
            attacked = theirs.run(wrapped, images, labels, epsilon=radius)
        with torch.no_grad():
            expected += float((network(attacked).argmax(1) == labels).float().mean())
    assert 0.05 < expected / STARTS < 0.95
    assert found / STARTS == pytest.approx(expected / STARTS, abs=0.01)
