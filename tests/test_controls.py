"""The control objectives: they are what they say, and the two halves make the whole penalty."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from conftest import built, central_differences, confident_network, seeded, smooth_network
from pags.arrays import norms, project
from pags.data.batches import Batch
from pags.errors import UsageError
from pags.training.controls import GradientAlignment, PartialGradientNorm
from pags.training.objectives import CrossEntropy, GradientNorm, Objective

N, D, K = 5, 4, 2
IMAGES = torch.rand(N, 1, 2, 2, generator=seeded(1), dtype=torch.float64)
LABELS = torch.tensor([0, 1, 2, 0, 1])
# A batch in another order than the training set, so that a mix-up of places would show.
PLACES = torch.tensor([3, 0, 4, 1])
BATCH = Batch(IMAGES[PLACES], LABELS[PLACES], PLACES)
BASIS = torch.linalg.qr(torch.randn(N, D, K, generator=seeded(2), dtype=torch.float64))[0]
DIRECTIONS = torch.randn(N, 1, 2, 2, generator=seeded(3), dtype=torch.float64)


def losses(objective: Objective) -> Tensor:
    return objective(smooth_network(), BATCH, seeded())


def input_gradients() -> Tensor:
    """By finite differences, image by image."""
    network = smooth_network()

    def losses_of(images: Tensor) -> Tensor:
        return cross_entropy(network(images), BATCH.labels, reduction="none")

    jacobian = central_differences(losses_of, BATCH.images)  # (n, n, c, h, w): each loss by every image
    return torch.stack([jacobian[i, i] for i in range(len(PLACES))])


def test_the_two_halves_are_the_whole_gradient_norm_penalty() -> None:
    off = losses(PartialGradientNorm(0.7, BASIS, "off"))
    on = losses(PartialGradientNorm(0.7, BASIS, "on"))
    assert torch.allclose(off + on, losses(CrossEntropy()) + losses(GradientNorm(0.7)), atol=1e-12)


def test_the_off_penalty_is_the_energy_outside_the_tangent_space_of_its_own_image() -> None:
    gradients = input_gradients()
    outside = gradients - project(gradients, BASIS[PLACES])
    expected = losses(CrossEntropy()) + 0.7 * norms(outside).square()
    assert torch.allclose(losses(PartialGradientNorm(0.7, BASIS, "off")), expected, atol=1e-8)


def test_alignment_is_one_minus_the_cosine_of_the_downhill_direction() -> None:
    downhill = -input_gradients().flatten(1)
    cosine = torch.nn.functional.cosine_similarity(downhill, DIRECTIONS[PLACES].flatten(1))
    expected = losses(CrossEntropy()) + 0.7 * (1 - cosine)
    assert torch.allclose(losses(GradientAlignment(0.7, DIRECTIONS)), expected, atol=1e-8)


@pytest.mark.parametrize(
    "objective",
    [
        PartialGradientNorm(0.7, BASIS, "off"),
        PartialGradientNorm(0.7, BASIS, "on"),
        GradientAlignment(0.7, DIRECTIONS),
    ],
)
def test_gradients_of_the_weights_are_those_of_finite_differences(objective: Objective) -> None:
    network = built(smooth_network)
    name = "1.weight"
    weights = dict(network.named_parameters())

    def loss(value: Tensor) -> Tensor:
        class Moved(torch.nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return functional_call(network, {name: value}, (x,))

        return objective(Moved(), BATCH, seeded()).sum()

    objective(network, BATCH, seeded()).sum().backward()
    found = weights[name].grad
    assert found is not None
    assert torch.allclose(found, central_differences(loss, weights[name].detach()), atol=1e-6)


def test_bad_strengths_and_parts_are_refused() -> None:
    with pytest.raises(UsageError, match="zero or more"):
        GradientAlignment(-1.0, DIRECTIONS)
    with pytest.raises(UsageError, match="zero or more"):
        PartialGradientNorm(-1.0, BASIS, "off")


@pytest.mark.parametrize("margin", [17.0, 400.0])
def test_alignment_sees_the_direction_of_confident_images(margin: float) -> None:
    """A cosine scales the gradient up again that float32 would have lost: values as in float64."""
    model, images = confident_network(margin, torch.rand(40, 1, 4, 4, generator=seeded(5)))
    directions = torch.randn(images.shape, generator=seeded(6))
    batch = Batch(images, model(images).argmax(1), torch.arange(len(images)))
    exact = Batch(images.double(), batch.labels, batch.index)
    found = GradientAlignment(1.0, directions)(model, batch, seeded())
    expected = GradientAlignment(1.0, directions.double())(deepcopy(model).double(), exact, seeded())
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-4)
