"""The attack: in the ball and the pixel range to the last digit, image by image, without a trace."""

import copy
import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import kstest  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from conftest import Linear, Traces, confident_network, network_with_batch_norm, seeded, smooth_network
from pags.arrays import norms, scale_to
from pags.errors import UsageError
from pags.training.attack import (
    PGD,
    Norm,
    Statistics,
    adversarial_losses,
    ascent_direction,
    attack_outcome,
    frozen_parameters,
    robust_correct,
)

pytestmark = pytest.mark.usefixtures("global_state_untouched")

seeds = st.integers(0, 2**32)


def random_images(n: int, seed: int = 0, shape: tuple[int, int, int] = (1, 4, 4)) -> Tensor:
    """Images with some black and some white pixels, where the pixel range is active."""
    return (torch.rand(n, *shape, generator=seeded(seed)) * 1.4 - 0.2).clamp(0, 1)


def labels_for(n: int, seed: int = 0, classes: int = 3) -> Tensor:
    return torch.randint(0, classes, (n,), generator=seeded(seed))


def losses(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        return cross_entropy(model(images), labels, reduction="none")


# --- where the attacked images lie -----------------------------------------------------------------------


@given(
    n=st.integers(1, 5), seed=seeds, radius=st.floats(1e-5, 100), steps=st.integers(1, 5),
    relative_step=st.floats(0.1, 20), shape=st.sampled_from([(1, 4, 4), (3, 32, 32), (1, 1, 1)]),
)  # fmt: skip
@example(n=30, seed=0, radius=1e-5, steps=3, relative_step=2.5, shape=(3, 32, 32))
@example(n=30, seed=0, radius=1e-2, steps=3, relative_step=2.5, shape=(3, 32, 32))
def test_attacked_images_lie_in_the_ball_and_in_the_pixel_range(
    n: int, seed: int, radius: float, steps: int, relative_step: float, shape: tuple[int, int, int]
) -> None:
    """Not off by a single digit, whether measured in float32 or in float64."""
    images, labels = random_images(n, seed, shape), labels_for(n, seed)
    d = math.prod(shape)
    model = Linear(torch.randn(3, d, generator=seeded(seed)) / d**0.5)
    attack = PGD(radius, steps=steps, relative_step=relative_step)
    attacked = attack(model, images, labels, seeded(seed))
    assert ((attacked >= 0) & (attacked <= 1)).all()
    assert ((attacked.double() - images.double()).flatten(1).norm(dim=1) <= radius).all()
    assert (norms(attacked - images) <= radius).all()


def test_the_ball_is_used_to_its_border() -> None:
    images = torch.full((4, 1, 4, 4), 0.5)
    model = Linear(torch.randn(3, 16, generator=seeded(0)))
    attacked = PGD(0.3)(model, images, labels_for(4), seeded(0))
    assert (attacked - images).flatten(1).norm(dim=1).tolist() == pytest.approx([0.3] * 4, rel=1e-5)


def test_radius_zero_gives_back_the_clean_images() -> None:
    images = random_images(3)
    attacked = PGD(0)(network_with_batch_norm(), images, labels_for(3), seeded(0))
    assert torch.equal(attacked, images)
    assert attacked.data_ptr() != images.data_ptr()


def test_a_start_outside_the_ball_is_cut_off() -> None:
    images = torch.full((2, 1, 2, 2), 0.5)
    model = Linear(torch.zeros(3, 4))  # no gradient, so the attack stays where it starts
    start = torch.zeros(2, 1, 2, 2)
    start[0, 0, 0, 0], start[1, 0, 0, 0] = 10, 0.1
    moved = PGD(0.2).perturb(model, images, labels_for(2), start) - images
    assert moved[:, 0, 0, 0].tolist() == pytest.approx([0.2, 0.1], rel=1e-5)
    assert not moved.flatten(1)[:, 1:].any()


class Broken(nn.Module):
    """Linear, but the gradient of the first image of a batch is 0 and that of the second is not a number."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, images: Tensor) -> Tensor:
        rows = images.flatten(1)
        still = rows.detach()
        broken = still[1] + (rows[1] - still[1]).square().sum().sqrt()  # the root's slope at 0 is infinite
        return torch.cat([still[:1], broken[None], rows[2:]]) @ self.weight.T


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_an_image_without_a_gradient_stays_where_it_is_and_is_counted(norm: Norm) -> None:
    images, labels = torch.full((4, 1, 4, 4), 0.5), torch.tensor([0, 1, 2, 0])
    model = Broken(torch.randn(3, 16, generator=seeded(0)))
    attack = PGD(0.3, steps=4, norm=norm)
    start = attack.start(images, seeded(1))
    found = attack.attack(model, images, labels, start)
    assert found.stalled.tolist() == [4, 4, 0, 0]
    torch.testing.assert_close(found.images[:2], (images + start)[:2], rtol=0, atol=1e-6)
    assert found.images.isfinite().all()
    whole = PGD(0.3, steps=4, norm=norm).perturb(Linear(model.weight), images, labels, start)
    assert torch.equal(found.images[2:], whole[2:])
    outcome = attack_outcome(model, images, labels, attack, seeded(1))
    assert outcome.stalled.tolist() == [4, 4, 0, 0]
    assert torch.equal(outcome.correct, robust_correct(model, images, labels, attack, seeded(1)))


# --- how well it attacks ---------------------------------------------------------------------------------


@settings(max_examples=10)
@given(seed=seeds, label=st.integers(0, 1), radius=st.floats(0.01, 0.3))
def test_a_linear_classifier_is_attacked_along_the_difference_of_its_rows(
    seed: int, label: int, radius: float
) -> None:
    """To the optimum epsilon (w_other − w_label) / ‖w_other − w_label‖, from any start."""
    weight = torch.randn(2, 16, generator=seeded(seed), dtype=torch.float64)
    images = torch.full((3, 1, 4, 4), 0.5, dtype=torch.float64)
    attack = PGD(radius, steps=40, relative_step=20)
    labels = torch.full((3,), label)
    delta = (attack(Linear(weight), images, labels, seeded(seed)) - images).flatten(1)
    towards = weight[1 - label] - weight[label]
    optimum = (radius * towards / towards.norm()).expand(3, -1)
    torch.testing.assert_close(delta, optimum, rtol=0, atol=1e-6 * radius)


def test_the_attack_climbs_higher_than_any_of_many_random_directions() -> None:
    model, images, labels = smooth_network(16), random_images(20).double(), labels_for(20)
    attack = PGD(0.5)
    attacked = losses(model, attack(model, images, labels, seeded(1)), labels)
    directions = [torch.randn(images.shape, generator=seeded(i)).double() for i in range(50)]
    randomly = [
        losses(model, (images + 0.5 * u / u.flatten(1).norm(dim=1)[:, None, None, None]).clamp(0, 1), labels)
        for u in directions
    ]
    assert (attacked > losses(model, images, labels)).all()
    assert (attacked > torch.stack(randomly).amax(0)).all()


def test_more_steps_do_not_attack_worse() -> None:
    """Of a linear two-class model, where one long step from any start is at most as good as many."""
    weight = torch.randn(2, 16, generator=seeded(3), dtype=torch.float64)
    images, labels = torch.full((8, 1, 4, 4), 0.5, dtype=torch.float64), labels_for(8, classes=2)
    start = PGD(0.4).start(images, seeded(0))
    found = [
        losses(Linear(weight), PGD(0.4, steps=k).perturb(Linear(weight), images, labels, start), labels)
        for k in (1, 3, 10)
    ]
    assert (found[0] < found[1]).all()
    assert (found[1] < found[2]).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_confidence_does_not_hide_attacks_from_float32(norm: Norm) -> None:
    """Robust accuracies at margins above 16 are those of float64, within one image in 500.

    Attacks along the gradient of the loss as torch has it leave 5 to 10 images in a hundred more.
    """
    model, images = confident_network(17, random_images(1000))
    labels, exact = model(images).argmax(1), deepcopy(model).double()
    attack = PGD(0.4 if norm == "l2" else 0.1, norm=norm)
    found = robust_correct(model, images, labels, attack, seeded(0))
    expected = robust_correct(exact, images.double(), labels, attack, seeded(0))
    assert 0.2 < float(expected.mean()) < 0.8
    assert int((found.double() != expected.double()).sum()) <= 1


# --- one image at a time ---------------------------------------------------------------------------------


@given(n=st.integers(1, 6), cut=st.integers(1, 6), seed=seeds)
def test_an_attack_does_not_see_how_the_batch_is_cut(n: int, cut: int, seed: int) -> None:
    """Even of a network with BatchNorm in training mode."""
    model = network_with_batch_norm().double().train()
    images, labels = random_images(n, seed).double(), labels_for(n, seed)
    attack = PGD(0.5, steps=4)
    start = attack.start(images, seeded(seed))
    whole = attack.perturb(model, images, labels, start)
    parts = [
        attack.perturb(model, x, y, s)
        for x, y, s in zip(images.split(cut), labels.split(cut), start.split(cut), strict=True)
    ]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-9)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_robust_accuracy_does_not_depend_on_the_batch_size(batch_size: int) -> None:
    model = network_with_batch_norm().double()
    images = random_images(24).double()
    labels = model.eval()(images).argmax(1)
    labels[0] = (labels[0] + 1) % 3  # wrong already
    attack = PGD(0.15, steps=5)
    whole = robust_correct(model, images, labels, attack, seeded(0))
    assert 0 < float(whole.mean()) < 1  # so that equality says something
    assert whole[0] == 0
    assert torch.equal(robust_correct(model, images, labels, attack, seeded(0), batch_size=batch_size), whole)


def test_robust_accuracy_of_a_linear_classifier_is_a_matter_of_distance() -> None:
    """An image is robust exactly where it is further than epsilon from the border between the classes."""
    weight = torch.randn(2, 16, generator=seeded(5), dtype=torch.float64)
    images = 0.5 + 0.1 * torch.randn(40, 1, 4, 4, generator=seeded(6), dtype=torch.float64)
    towards = weight[1] - weight[0]
    signed = images.flatten(1) @ towards / towards.norm()
    distance = signed - signed.median() + 1e-3
    model = Linear(weight, torch.stack([signed.median() * towards.norm(), torch.zeros(())]).double())
    labels = (distance > -1e-9).long()
    found = robust_correct(model, images, labels, PGD(0.08, steps=60, relative_step=30), seeded(0))
    shifted = (signed - signed.median()).abs()
    expected = (shifted > 0.08) & (labels == (signed > signed.median()).long())
    clear = (shifted - 0.08).abs() > 1e-4
    assert torch.equal(found[clear], expected[clear].float())
    assert 0.2 < float(expected.double().mean()) < 0.8


# --- the start -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 2), (3, 4, 4)])
def test_the_start_is_uniform_in_the_ball(shape: tuple[int, int, int]) -> None:
    """(r/epsilon)^d is uniform on [0, 1], and every direction as likely as its opposite."""
    n, d = 4000, math.prod(shape)
    start = PGD(0.7).start(torch.zeros(n, *shape), seeded(0)).flatten(1).double()
    share = (start.norm(dim=1) / 0.7) ** d
    assert float(share.mean()) == pytest.approx(0.5, abs=4 / math.sqrt(12 * n))
    assert kstest(share.numpy(), "uniform").pvalue > 0.01
    assert start.norm(dim=1).max() <= 0.7 * (1 + 1e-6)
    variance = 0.7**2 / (d + 2)  # of one coordinate of a uniform point of a ball
    assert (start.mean(0).abs() < 4.5 * math.sqrt(variance / n)).all()
    assert start.square().mean(0).tolist() == pytest.approx([variance] * d, rel=0.12)


def test_the_start_comes_from_the_generator_alone() -> None:
    images = random_images(3)
    assert torch.equal(PGD(1).start(images, seeded(1)), PGD(1).start(images + 1, seeded(1)))
    assert not torch.equal(PGD(1).start(images, seeded(1)), PGD(1).start(images, seeded(2)))


# --- the other ball --------------------------------------------------------------------------------------


@given(
    n=st.integers(1, 4), seed=seeds, radius=st.floats(1e-6, 3), steps=st.integers(1, 5),
    relative_step=st.floats(0.1, 20),
)  # fmt: skip
def test_in_l_infinity_no_pixel_moves_further_than_the_radius(
    n: int, seed: int, radius: float, steps: int, relative_step: float
) -> None:
    images, labels = random_images(n, seed, (3, 5, 5)), labels_for(n, seed)
    model = Linear(torch.randn(3, 75, generator=seeded(seed)) / 5)
    attack = PGD(radius, steps=steps, relative_step=relative_step, norm="linf")
    attacked = attack(model, images, labels, seeded(seed))
    assert ((attacked >= 0) & (attacked <= 1)).all()
    assert ((attacked.double() - images.double()).abs() <= radius).all()


@given(seed=seeds, label=st.integers(0, 1), radius=st.floats(0.001, 0.3))
def test_in_l_infinity_a_linear_classifier_is_attacked_in_a_corner_of_the_cube(
    seed: int, label: int, radius: float
) -> None:
    """epsilon sign(w_other − w_label), the optimum, from any start."""
    weight = torch.randn(2, 16, generator=seeded(seed), dtype=torch.float64)
    images = torch.full((3, 1, 4, 4), 0.5, dtype=torch.float64)
    attack = PGD(radius, steps=3, relative_step=6, norm="linf")
    delta = attack(Linear(weight), images, torch.full((3,), label), seeded(seed)) - images
    optimum = radius * (weight[1 - label] - weight[label]).sign()
    torch.testing.assert_close(delta.flatten(1), optimum.expand(3, -1), rtol=0, atol=1e-9)


def test_in_l_infinity_the_start_is_uniform_in_the_cube() -> None:
    images = torch.zeros(3000, 1, 2, 2)
    start = PGD(0.2, norm="linf").start(images, seeded(1)).flatten(1)
    for pixel in range(4):
        assert kstest(start[:, pixel].numpy() / 0.4 + 0.5, "uniform").pvalue > 1e-3
    assert torch.corrcoef(start.T).fill_diagonal_(0).abs().max() < 4.5 / 3000**0.5


# --- the order of draws ----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 5])
def test_the_start_draws_directions_first_and_then_one_number_an_image(n: int) -> None:
    """So that records stay what they were: written out here once more."""
    images = random_images(n, shape=(3, 4, 4))
    draws = seeded(7)
    direction, share = torch.randn(n, 3, 4, 4, generator=draws), torch.rand(n, generator=draws)
    expected = 0.7 * direction / direction.flatten(1).norm(dim=1)[:, None, None, None]
    expected *= share[:, None, None, None] ** (1 / 48)
    used = seeded(7)
    torch.testing.assert_close(PGD(0.7).start(images, used), expected, rtol=1e-5, atol=0)
    assert torch.equal(used.get_state(), draws.get_state())


# --- no trace --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("statistics", ["running", "batch"])
@pytest.mark.parametrize("inside", [torch.enable_grad, torch.no_grad])
def test_an_attack_leaves_no_trace(inside: type, statistics: Statistics) -> None:
    """In `.grad`, weights, BatchNorm, modes of submodules, the images; and works where gradients are off."""
    model, images, labels = network_with_batch_norm(), random_images(4), labels_for(4)
    traces, copy = Traces(model), images.clone()
    with inside():
        attacked = PGD(0.5, statistics=statistics)(model, images, labels, seeded(0))
        robust_correct(model, images, labels, PGD(0.5), seeded(0))
        adversarial_losses(model, images, labels, PGD(0.5), seeded(0))
    traces.assert_none()
    assert torch.equal(images, copy)
    assert not images.requires_grad
    assert not attacked.requires_grad
    seen = by_batch(model) if statistics == "batch" else model.eval()
    raised = losses(seen, attacked, labels) - losses(seen, images, labels)
    assert (raised.mean() if statistics == "batch" else raised.min()) > 0


def by_batch(model: nn.Module) -> nn.Module:
    """A copy without statistics of its own, so that it takes those of the batch in evaluation mode too."""
    model = copy.deepcopy(model).eval()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean = layer.running_var = None
    return model


def test_an_attack_by_the_statistics_of_the_batch_is_one_on_the_network_of_the_training_step() -> None:
    model, images, labels = network_with_batch_norm(), random_images(4), labels_for(4)
    model.append(nn.Dropout(0.5))  # which stays off
    inside = images.clamp(0.3, 0.7)
    attack = PGD(0.2, steps=1, relative_step=1.0, statistics="batch")
    found = attack.perturb(model, inside, labels, torch.zeros_like(inside)) - inside
    x = inside.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(by_batch(model)(x), labels), x)
    torch.testing.assert_close(found, scale_to(gradient, 0.2), rtol=1e-3, atol=1e-5)
    other = PGD(0.2, steps=1, relative_step=1.0).perturb(model, inside, labels, torch.zeros_like(inside))
    assert (found - (other - inside)).norm() > 0.02


def test_adversarial_losses_are_those_of_the_network_that_was_attacked() -> None:
    """With running statistics in evaluation mode, with the batch's in training mode."""
    model, images, labels, attack = network_with_batch_norm(), random_images(8), labels_for(8), PGD(0.5)
    found = adversarial_losses(model, images, labels, attack, seeded(3))
    expected = []
    cases: list[tuple[nn.Module, Statistics]] = [
        (copy.deepcopy(model).eval(), "running"),
        (by_batch(model), "batch"),
    ]
    for seen, statistics in cases:
        attacked = replace(attack, statistics=statistics)(seen, images, labels, seeded(3))
        expected.append(float(losses(seen, attacked, labels).mean()))
    assert [found["running"], found["batch"]] == pytest.approx(expected, rel=1e-4)
    assert abs(found["running"] - found["batch"]) > 0.01


def test_an_interrupted_attack_puts_the_modes_back() -> None:
    model = network_with_batch_norm()
    traces = Traces(model)
    model[5].register_forward_hook(lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        PGD(0.5)(model, random_images(2), labels_for(2), seeded(0))
    traces.assert_none()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_weights_ask_for_gradients_again_after_an_attack(norm: Norm) -> None:
    """Those that asked before, and no other; and none of them during it."""
    model = network_with_batch_norm()
    model[0].weight.requires_grad_(False)
    before, during = [p.requires_grad for p in model.parameters()], list[bool]()
    model[5].register_forward_hook(lambda *_: during.extend(p.requires_grad for p in model.parameters()))
    PGD(0.5, steps=2, norm=norm)(model, random_images(2), labels_for(2), seeded(0))
    assert during
    assert not any(during)
    assert [p.requires_grad for p in model.parameters()] == before
    with pytest.raises(KeyboardInterrupt), frozen_parameters(model):
        raise KeyboardInterrupt
    assert [p.requires_grad for p in model.parameters()] == before


def test_the_ascent_direction_is_that_of_each_image_alone() -> None:
    """(softmax − label) W over 1 − p: sums and does not average, so an image has the same in any batch."""
    weight = torch.randn(3, 16, generator=seeded(0), dtype=torch.float64)
    images, labels = random_images(5).double(), labels_for(5)
    shares, own = (images.flatten(1) @ weight.T).softmax(1), torch.eye(3, dtype=torch.float64)[labels]
    found = ascent_direction(Linear(weight), images, labels)
    left = 1 - (shares * own).sum(1, keepdim=True)
    torch.testing.assert_close(found.flatten(1), (shares - own) @ weight / left)


# --- bad requests ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [-1, -1e-9, math.nan, math.inf])
def test_a_senseless_radius_is_refused(radius: float) -> None:
    with pytest.raises(UsageError, match=rf"attack radius.*got {radius}"):
        PGD(radius)


@pytest.mark.parametrize(
    "options", [{"steps": 0}, {"steps": -1}, {"relative_step": 0}, {"relative_step": math.inf}]
)
def test_senseless_steps_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="at least one attack step of positive length"):
        PGD(1, **options)  # type: ignore[arg-type]
