"""Input gradients: by finite differences, in closed form, and without a trace."""

import math
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from conftest import (
    Linear,
    Traces,
    central_differences,
    confident_network,
    network_with_batch_norm,
    seeded,
    smooth_network,
)
from pags.arrays import cosines, norms
from pags.errors import UsageError
from pags.measure.gradients import TARGETS, find_target, input_gradient, smooth_gradient

pytestmark = pytest.mark.usefixtures("global_state_untouched")

seeds = st.integers(0, 2**32)


def random_images(n: int, side: int = 2, seed: int = 0) -> Tensor:
    return torch.rand(n, 1, side, side, generator=seeded(seed), dtype=torch.float64)


def by_hand(target: str, logits: list[float], label: int) -> float:
    """The targets by their definitions, in plain Python."""
    total = math.log(sum(math.exp(z) for z in logits))
    return {
        "logit": logits[label],
        "sum-of-logits": sum(logits),
        "log-probability": logits[label] - total,
        "log-sum-exp": total,
        "margin": logits[label] - max(z for place, z in enumerate(logits) if place != label),
        "loss": total - logits[label],
    }[target]


@pytest.mark.parametrize("target", TARGETS)
@given(logits=st.lists(st.floats(-20, 20), min_size=2, max_size=5), data=st.data())
def test_targets_are_what_their_names_say(target: str, logits: list[float], data: st.DataObject) -> None:
    label = data.draw(st.integers(0, len(logits) - 1))
    found = find_target(target)(
        torch.tensor([logits, logits[::-1]], dtype=torch.float64), torch.tensor([label, 0])
    )
    assert found[0].item() == pytest.approx(by_hand(target, logits, label), abs=1e-9)
    assert found[1].item() == pytest.approx(by_hand(target, logits[::-1], 0), abs=1e-9)


@pytest.mark.parametrize("target", TARGETS)
def test_gradients_are_those_of_finite_differences(target: str) -> None:
    model, images, labels = smooth_network(), random_images(5), torch.tensor([0, 1, 2, 0, 1])
    found = input_gradient(model, images, target, labels)
    for image, label, gradient in zip(images, labels.tolist(), found, strict=True):

        def scalar(x: Tensor, label: int = label) -> Tensor:
            logits = model(x[None])[0].tolist()
            return torch.tensor(by_hand(target, logits, label), dtype=torch.float64)

        torch.testing.assert_close(gradient, central_differences(scalar, image), rtol=1e-6, atol=1e-9)
        assert gradient.norm() > 1e-4


@given(seed=seeds)
def test_gradients_of_a_linear_classifier_are_its_rows(seed: int) -> None:
    weight = torch.randn(3, 4, generator=seeded(seed), dtype=torch.float64)
    model, images, labels = Linear(weight), random_images(4, seed=seed), torch.tensor([2, 0, 1, 1])
    logits = images.flatten(1) @ weight.T
    shares, own = logits.softmax(1), torch.eye(3, dtype=torch.float64)[labels]
    runner_up = torch.eye(3, dtype=torch.float64)[(logits - 1e9 * own).argmax(1)]
    for target, expected in (
        ("logit", weight[labels]),
        ("sum-of-logits", weight.sum(0).expand(4, -1)),
        ("log-probability", (own - shares) @ weight),
        ("loss", (shares - own) @ weight),
        ("log-sum-exp", shares @ weight),
        ("margin", (own - runner_up) @ weight),
    ):
        found = input_gradient(model, images, target, labels)
        torch.testing.assert_close(found.flatten(1), expected, rtol=1e-10, atol=1e-12)


def test_the_loss_goes_up_where_the_probability_goes_down() -> None:
    model, images, labels = smooth_network(), random_images(4), torch.tensor([0, 1, 2, 0])
    down = input_gradient(model, images, "log-probability", labels)
    torch.testing.assert_close(input_gradient(model, images, "loss", labels), -down)


@pytest.mark.parametrize("target", ["loss", "log-probability"])
@pytest.mark.parametrize("margin", [0.1, 17.0, 40.0, 400.0])
def test_confident_images_keep_their_gradient_in_float32(target: str, margin: float) -> None:
    """Margins from `margin` up, where p rounds to 1 from 16 on: direction and length are those of float64.

    Beyond a margin of some 69 the length is no longer measured, the direction is.
    """
    model, images = confident_network(margin, random_images(100, side=4).float())
    exact = deepcopy(model).double()
    found = input_gradient(model, images, target).double()
    expected = input_gradient(exact, images.double(), target)
    assert float(cosines(found, expected).min()) > 0.99999
    measurable = norms(expected) > 1e-23
    assert bool(measurable.any()) == (margin < 100)
    torch.testing.assert_close(norms(found)[measurable], norms(expected)[measurable], rtol=1e-3, atol=0)


@pytest.mark.parametrize("target", TARGETS)
def test_without_labels_the_class_is_the_predicted_one(target: str) -> None:
    model, images = smooth_network(), random_images(8)
    with torch.no_grad():
        model[-1].bias -= model(images).mean(0)  # type: ignore[index]
        predicted = model(images).argmax(1)
    assert len(set(predicted.tolist())) > 1
    found = input_gradient(model, images, target)
    torch.testing.assert_close(found, input_gradient(model, images, target, predicted))
    other = input_gradient(model, images, target, (predicted + 1) % 3)
    assert torch.allclose(found, other) == (target in ("sum-of-logits", "log-sum-exp"))


@settings(max_examples=20)
@given(n=st.integers(1, 7), batch_size=st.integers(1, 8), target=st.sampled_from(sorted(TARGETS)))
def test_gradients_do_not_depend_on_the_batch_size(n: int, batch_size: int, target: str) -> None:
    """Even of a network with BatchNorm in training mode."""
    model, images = network_with_batch_norm().double().train(), random_images(n, side=4)
    whole = input_gradient(model, images, target)
    found = input_gradient(model, images, target, batch_size=batch_size)
    torch.testing.assert_close(found, whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("inside", [torch.enable_grad, torch.no_grad])
def test_a_gradient_leaves_no_trace(inside: type) -> None:
    model, images = network_with_batch_norm(), random_images(4, side=4).float()
    traces, copy = Traces(model), images.clone()
    with inside():
        gradient = input_gradient(model, images, "loss")
        smooth = smooth_gradient(model, images, sigma=0.1, samples=2, draws=seeded(0))
    traces.assert_none()
    assert torch.equal(images, copy)
    assert not any(x.requires_grad for x in (images, gradient, smooth))
    assert gradient.abs().max() > 0


# --- smoothed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["logit", "sum-of-logits"])
def test_smoothing_does_not_change_what_is_the_same_everywhere(target: str) -> None:
    model = Linear(torch.randn(3, 4, generator=seeded(0), dtype=torch.float64))
    images = random_images(5)
    smooth = smooth_gradient(model, images, target, sigma=3, samples=7, draws=seeded(1))
    torch.testing.assert_close(smooth, input_gradient(model, images, target), rtol=1e-12, atol=1e-12)


class Cubes(nn.Module):
    """Logits (Σ x³, 0), whose gradient 3x² has the mean 3x² + 3σ² over noise."""

    def forward(self, images: Tensor) -> Tensor:
        cubes = (images**3).flatten(1).sum(1)
        return torch.stack([cubes, torch.zeros_like(cubes)], 1)


def test_smoothing_is_the_mean_over_noise_of_the_deviation_asked_for() -> None:
    images, sigma, samples, n = torch.full((400, 1, 2, 2), 0.5, dtype=torch.float64), 0.4, 50, 400 * 50 * 4
    smooth = smooth_gradient(Cubes(), images, sigma=sigma, samples=samples, draws=seeded(2))
    deviation = math.sqrt(9 * (4 * 0.25 * sigma**2 + 2 * sigma**4))
    assert smooth.mean().item() == pytest.approx(3 * (0.25 + sigma**2), abs=4 * deviation / math.sqrt(n))
    assert smooth.std().item() == pytest.approx(deviation / math.sqrt(samples), rel=0.1)


def test_smoothing_keeps_to_the_class_of_the_clean_image() -> None:
    """Although noise this strong makes the other class the predicted one in half of the copies."""
    model = Linear(torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]]))
    images = torch.zeros(6, 1, 2, 2)
    images[:3, 0, 0, 0], images[3:, 0, 0, 1] = 0.01, 0.01
    found = smooth_gradient(model, images, sigma=2, samples=16, draws=seeded(0)).flatten(1)
    torch.testing.assert_close(found, torch.eye(4)[[0, 0, 0, 1, 1, 1]])


def test_smoothing_is_seeded_and_does_not_depend_on_the_batch_size() -> None:
    model, images = smooth_network(), random_images(5)
    first = smooth_gradient(model, images, sigma=0.5, samples=3, draws=seeded(1))
    again = smooth_gradient(model, images, sigma=0.5, samples=3, draws=seeded(1), batch_size=2)
    torch.testing.assert_close(again, first, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(first, smooth_gradient(model, images, sigma=0.5, samples=3, draws=seeded(2)))


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(UsageError, match=r"a gradient target among logit, .*got 'probability'"):
        input_gradient(smooth_network(), random_images(1), "probability")
    with pytest.raises(UsageError, match="a gradient target"):
        smooth_gradient(smooth_network(), random_images(1), "x", sigma=1, draws=seeded(0))


@pytest.mark.parametrize("target", ["logit", "sum-of-logits"])
def test_captum_s_saliency_is_the_same(target: str) -> None:
    """Against a peer, on a network with BatchNorm, for given classes."""
    from captum.attr import Saliency

    network = network_with_batch_norm().eval()
    images, labels = torch.rand(12, 1, 6, 6, generator=seeded()), torch.arange(12) % 3
    forward = network if target == "logit" else lambda x: network(x).sum(1)
    peer = Saliency(forward).attribute(
        images.clone().requires_grad_(), target=labels if target == "logit" else None, abs=False
    )
    torch.testing.assert_close(input_gradient(network, images, target, labels), peer, rtol=0, atol=1e-6)
