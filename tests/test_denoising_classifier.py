"""The classifier that a denoiser implies, against the posterior of a world where it is known."""

import pytest
import torch
from torch import Tensor

from conftest import seeded
from pags.errors import UsageError
from pags.score import DenoisingClassifier, IdealDenoiser, bayes_direction

SHAPE, CLASSES, SIGMA = (1, 3, 4), 3, 0.6


@pytest.fixture(scope="module")
def world() -> IdealDenoiser:
    """Fifteen images of three classes, which overlap under the noise."""
    centres = torch.rand(CLASSES, *SHAPE, generator=seeded(0)).repeat(5, 1, 1, 1)
    images = 0.5 + 0.3 * (centres - 0.5) + 0.15 * torch.randn(15, *SHAPE, generator=seeded(1))
    return IdealDenoiser(images, torch.arange(CLASSES).repeat(5))


@pytest.fixture(scope="module")
def seen(world: IdealDenoiser) -> Tensor:
    """Images under the noise of level σ."""
    return world.images + SIGMA / 2 * torch.randn(world.images.shape, generator=seeded(2))


def log_posterior(world: IdealDenoiser, x: Tensor, sigma: float) -> Tensor:
    assert world.labels is not None
    apart = (x[:, None] - world.images).flatten(2).square().sum(2) / (2 * (sigma / 2) ** 2)
    each = [(-apart[:, world.labels == label]).logsumexp(1) for label in range(CLASSES)]
    return torch.stack(each, 1).log_softmax(1)


def test_its_posterior_is_that_of_the_world(world: IdealDenoiser, seen: Tensor) -> None:
    """At σ itself, and to fewer digits with fewer draws."""
    true, errors = log_posterior(world, seen, SIGMA), []
    for levels, draws in ((8, 1), (40, 200)):
        model = DenoisingClassifier(world, SHAPE, CLASSES, SIGMA, levels=levels, draws=draws)
        errors.append(float((model(seen).log_softmax(1).exp() - true.exp()).abs().mean()))
    assert errors[1] < 0.01
    assert errors[1] < errors[0] < 0.15
    other = log_posterior(world, seen, 2 * SIGMA).exp()
    assert (other - true.exp()).abs().mean() > 0.05, "the noise level matters here"


def test_its_gradient_is_the_bayes_direction(world: IdealDenoiser, seen: Tensor) -> None:
    labels = torch.arange(CLASSES).repeat(5)
    model = DenoisingClassifier(world, SHAPE, CLASSES, SIGMA, levels=40, draws=200)
    x = seen.clone().requires_grad_()
    own = model(x).log_softmax(1)[torch.arange(len(x)), labels].sum()
    (gradient,) = torch.autograd.grad(own, x)
    expected = bayes_direction(world, seen, SIGMA, labels)
    cosines = torch.nn.functional.cosine_similarity(gradient.flatten(1), expected.flatten(1))
    assert cosines.median() > 0.98
    assert float(gradient.norm() / expected.norm()) == pytest.approx(1, abs=0.1)


def test_it_wants_classes_and_noise(world: IdealDenoiser) -> None:
    with pytest.raises(UsageError, match="knows classes"):
        DenoisingClassifier(IdealDenoiser(world.images), SHAPE, CLASSES, SIGMA)
    with pytest.raises(UsageError, match="above 0"):
        DenoisingClassifier(world, SHAPE, CLASSES, 0.0)
