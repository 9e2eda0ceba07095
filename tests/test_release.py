"""The release's objectives against rows 1 to 6, 23 and 24 of docs/choices.md, written out step by step."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from conftest import network_with_batch_norm, seeded
from pags.data.batches import Batch
from pags.errors import UsageError
from pags.training.objectives import GradientNorm, Smoothness
from pags.training.release import ReleaseAdversarialTraining, ReleaseGradientNorm, ReleaseSmoothness

pytestmark = pytest.mark.usefixtures("global_state_untouched")


def batch_of(n: int) -> Batch:
    images = torch.rand(n, 1, 4, 4, generator=seeded(1), dtype=torch.float64) * 0.4 + 0.3
    return Batch(images, torch.arange(n) % 3, torch.arange(n))


def network() -> nn.Sequential:
    return network_with_batch_norm().double().train()


def attacked_by_the_table(model: nn.Module, batch: Batch, epsilon: float, start: Tensor) -> Tensor:
    """Rows 1 to 5, 23: the norm of all pixels; epsilon/2 at first; ten `backward()`; 2·eps/10; no cut."""
    delta = start * (epsilon / 2 / math.sqrt(sum(float(v) ** 2 for v in start.flatten())))
    for _ in range(10):
        x = (batch.images + delta).requires_grad_()
        cross_entropy(model(x), batch.labels).backward()
        assert x.grad is not None
        length = math.sqrt(sum(float(v) ** 2 for v in x.grad.flatten()))
        delta = delta.detach() + 2 * epsilon / 10 * x.grad / length
        outside = math.sqrt(sum(float(v) ** 2 for v in delta.flatten())) / epsilon
        delta = delta / max(1.0, outside)
    return batch.images + delta


@pytest.mark.parametrize("epsilon", [1e-5, 0.3, 1.5, 20.0, 1e4])
def test_adversarial_training_is_that_of_the_table(epsilon: float) -> None:
    """Losses, the gradients left in the weights, and eleven updates of BatchNorm's statistics."""
    batch, ours, theirs = batch_of(6), network(), network()
    normal = torch.randn(6, 1, 4, 4, generator=seeded(5))
    start = torch.distributions.Normal(0.0, 1.0).cdf(normal.double())  # uniform in [0, 1], all positive
    x = attacked_by_the_table(theirs, batch, epsilon, start)
    expected = cross_entropy(theirs(x), batch.labels, reduction="none")
    found = ReleaseAdversarialTraining(epsilon)(ours, batch, seeded(5))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    left = [p.grad for p in ours.parameters()]
    assert all(g is not None and bool(g.any()) for g in left[-2:])
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-9)
    for (name, kept), same in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(kept, same, rtol=1e-9, atol=1e-9, msg=name)
    assert int(ours.get_buffer("1.num_batches_tracked")) == 11


def test_the_step_adds_its_gradient_to_what_the_attack_left() -> None:
    """Row 3: the weights' gradient of a step is that of the attack's ten losses and of the last one."""
    batch, model = batch_of(4), network()
    losses = ReleaseAdversarialTraining(1.0)(model, batch, seeded())
    left = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    own = torch.autograd.grad(losses.mean(), list(model.parameters()), retain_graph=True)
    losses.mean().backward()
    for parameter, before, last in zip(model.parameters(), left, own, strict=True):
        torch.testing.assert_close(parameter.grad, before + last)


@pytest.mark.parametrize("n", [2, 7, 16])
def test_the_ball_is_one_around_the_whole_batch(n: int) -> None:
    """Row 1: epsilon in all, so about epsilon/√B per image."""
    batch = batch_of(n)
    attacked = ReleaseAdversarialTraining(0.5).attacked(network(), batch, seeded(), 0.5)
    assert float((attacked - batch.images).norm()) == pytest.approx(0.5, rel=1e-6)
    assert float((attacked - batch.images).flatten(1).norm(dim=1).min()) < 0.5
    assert not attacked.requires_grad


def test_a_large_ball_is_reached_outside_the_pixel_range() -> None:
    """Row 23: no pixel is cut, while a batch within it is moved by 8 at most."""
    batch = batch_of(4)
    attacked = ReleaseAdversarialTraining(1e4).attacked(network(), batch, seeded(), 1e4)
    assert float((attacked - batch.images).norm()) > 5000
    assert float(attacked.abs().max()) > 1000


@pytest.mark.parametrize(("strength", "sigma"), [(0.5, 0.1), (1e4, 0.1), (1e-4, 3.0)])
def test_the_smoothness_penalty_is_two_passes(strength: float, sigma: float) -> None:
    """Row 24: BatchNorm sees the clean batch, then the noisy one, each with its own mean and variance."""
    batch, ours = batch_of(6), network()
    convolution, norm, head = ours[0], ours[1], ours[2:]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    statistics = [norm.running_mean.clone(), norm.running_var.clone()]
    noise = sigma * torch.randn(6, 1, 4, 4, generator=seeded(5)).double()

    def passed(x: Tensor) -> Tensor:
        maps = convolution(x)
        mean, rest = maps.mean((0, 2, 3)), maps.numel() / maps.shape[1]
        variance = maps.var((0, 2, 3), correction=0)
        statistics[0] = 0.9 * statistics[0] + 0.1 * mean.detach()
        statistics[1] = 0.9 * statistics[1] + 0.1 * variance.detach() * rest / (rest - 1)
        scale = norm.weight / (variance + norm.eps).sqrt()
        return head((maps - mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None])

    clean, noisy = passed(batch.images), passed(batch.images + noise)
    expected = cross_entropy(clean, batch.labels, reduction="none")
    expected = expected + strength * (noisy - clean).square().sum(1)
    gradients = torch.autograd.grad(expected.mean(), list(ours.parameters()))
    found = ReleaseSmoothness(strength, sigma)(ours, batch, seeded(5))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    for a, b in zip(torch.autograd.grad(found.mean(), list(ours.parameters())), gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(norm.running_mean, statistics[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(norm.running_var, statistics[1], rtol=1e-9, atol=1e-9)
    joint = Smoothness(strength, sigma)(network(), batch, seeded(5))
    assert not torch.allclose(found, joint, rtol=1e-3)  # so that the two passes say something


def test_radii_are_drawn_for_each_batch() -> None:
    batch, objective = batch_of(4), ReleaseAdversarialTraining(1.0, radii=(0.1, 0.5))
    seen = set()
    for seed in range(12):
        draws = seeded(seed)
        radius = objective.radii[int(torch.randint(2, (), generator=draws))]
        model = network()
        attacked = ReleaseAdversarialTraining(9.0).attacked(model, batch, draws, radius)
        expected = cross_entropy(model(attacked), batch.labels, reduction="none")
        torch.testing.assert_close(objective(network(), batch, seeded(seed)), expected)
        seen.add(radius)
    assert seen == {0.1, 0.5}


def test_the_gradient_penalty_is_that_of_the_table() -> None:
    """Row 6: the batch-mean loss's gradient, squared, summed, over B, times 1e5; with all its derivatives."""
    batch, ours, theirs = batch_of(5), network(), network()
    x = batch.images.clone().requires_grad_()
    mean_loss = cross_entropy(theirs(x), batch.labels)
    (gradient,) = torch.autograd.grad(mean_loss, x, create_graph=True)
    expected = mean_loss + 0.01 * 1e5 * gradient.square().sum() / 5
    found = ReleaseGradientNorm(0.01)(ours, batch, seeded()).mean()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    expected.backward()
    found.backward()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-9)


def test_at_batches_of_128_the_penalty_is_6_1_times_ours() -> None:
    batch, model = batch_of(128), network().eval()
    clean = cross_entropy(model(batch.images), batch.labels, reduction="none")
    ratio = (ReleaseGradientNorm(1.0)(model, batch, seeded()) - clean) / (
        GradientNorm(1.0)(model, batch, seeded()) - clean
    )
    torch.testing.assert_close(ratio, torch.full_like(ratio, 6.1035), rtol=1e-4, atol=0)


def test_a_part_of_a_batch_is_penalised_as_the_whole_one() -> None:
    """What a process holds of a batch weighs as it would in one process."""
    batch, model = batch_of(6), network().eval()
    part = Batch(batch.images[:2], batch.labels[:2], batch.index[:2], 6, slice(0, 2))
    whole = ReleaseGradientNorm(0.1)(model, batch, seeded())
    torch.testing.assert_close(ReleaseGradientNorm(0.1)(model, part, seeded()), whole[:2])


@pytest.mark.parametrize(
    "wrong", [{"radius": -1.0}, {"steps": 0}, {"relative_step": 0.0}, {"radii": (1.0, -2.0)}]
)
def test_senseless_attacks_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        ReleaseAdversarialTraining(**{"radius": 1.0, **wrong})  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        ReleaseSmoothness(1.0, sigma=-1)
