"""Denoisers and scores, against distributions whose score is known."""

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from conftest import built, central_differences, seeded
from pags.data.batches import Batch
from pags.data.imageset import ImageSet
from pags.errors import UsageError
from pags.score.denoiser import score_of
from pags.score.exact import IdealDenoiser
from pags.score.unet import Denoising, UNetDenoiser
from pags.training.fit import Plan, fit

pytestmark = pytest.mark.usefixtures("global_state_untouched")

seeds = st.integers(0, 2**32)
sigmas = st.floats(0.05, 5)


@dataclass(frozen=True)
class Gaussian:
    """The exact denoiser of N(mean, s² I) for pixels in [0, 1], where the noise is sigma/2."""

    mean: Tensor
    s: float

    def __call__(self, images: Tensor, sigma: float, labels: Tensor | None = None) -> Tensor:
        noise = (sigma / 2) ** 2
        return (self.s**2 * images + noise * self.mean) / (self.s**2 + noise)


def random_images(n: int, seed: int = 0, shape: tuple[int, int, int] = (1, 2, 2)) -> Tensor:
    return torch.rand(n, *shape, generator=seeded(seed), dtype=torch.float64)


def log_density(x: Tensor, centres: Tensor, deviation: float) -> Tensor:
    """Of a mixture of equal round Gaussians, up to a constant, by its definition."""
    squares = (x - centres).square().flatten(1).sum(1)
    return torch.logsumexp(-squares / (2 * deviation**2), 0)


# --- from a denoiser to the score ------------------------------------------------------------------------


@given(seed=seeds, sigma=sigmas, s=st.floats(0.05, 1))
def test_the_score_of_a_gaussian_is_the_gaussians(seed: int, sigma: float, s: float) -> None:
    """−(x − mean) / (s² + sigma²/4) in pixels of [0, 1]: this holds the factor 4."""
    images, mean = random_images(3, seed), random_images(1, seed + 1)[0]
    found = score_of(Gaussian(mean, s), images, sigma)
    torch.testing.assert_close(found, -(images - mean) / (s**2 + sigma**2 / 4), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sigma", [0.2, 0.5, 1.2])
def test_the_score_of_a_finite_set_is_the_slope_of_its_density(sigma: float) -> None:
    """By finite differences of the log density of the set under noise, for all points and for one class."""
    points, labels = random_images(6), torch.tensor([0, 1, 0, 1, 0, 1])
    images, asked = random_images(3, seed=5), torch.tensor([1, 0, 1])
    denoiser = IdealDenoiser(points, labels)
    everything, of_class = score_of(denoiser, images, sigma), score_of(denoiser, images, sigma, asked)
    for image, label, free, bound in zip(images, asked, everything, of_class, strict=True):
        for centres, found in ((points, free), (points[labels == label], bound)):
            slope = central_differences(lambda x, c=centres: log_density(x, c, sigma / 2), image)  # type: ignore[misc]
            torch.testing.assert_close(found, slope, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("sigma", [0, -0.5, math.nan])
def test_a_score_needs_noise(sigma: float) -> None:
    with pytest.raises(UsageError, match=rf"a noise level above zero; got {sigma}"):
        score_of(Gaussian(torch.zeros(1, 2, 2), 1), random_images(1).float(), sigma)


def test_a_score_carries_no_graph() -> None:
    model = built(lambda: UNetDenoiser(1, widths=(8,)))
    images = random_images(2).float().requires_grad_()
    assert not score_of(model, images, 0.5).requires_grad


# --- the ideal denoiser ----------------------------------------------------------------------------------


def by_loops(points: Tensor, image: Tensor, sigma: float) -> list[float]:
    """The posterior mean in plain Python, in EDM's coordinates and back."""
    scaled = [[2 * v - 1 for v in point.flatten().tolist()] for point in points]
    x = [2 * v - 1 for v in image.flatten().tolist()]
    exponents = [-(math.dist(x, point) ** 2) / (2 * sigma**2) for point in scaled]
    weights = [math.exp(e - max(exponents)) for e in exponents]
    means = [
        sum(w * point[place] for w, point in zip(weights, scaled, strict=True)) / sum(weights)
        for place in range(len(x))
    ]
    return [(mean + 1) / 2 for mean in means]


@settings(max_examples=25)
@given(seed=seeds, m=st.integers(1, 6), sigma=sigmas)
def test_the_ideal_denoiser_is_the_posterior_mean(seed: int, m: int, sigma: float) -> None:
    points, images = random_images(m, seed), random_images(3, seed + 1)
    labels = torch.arange(m) % 2
    denoiser = IdealDenoiser(points, labels)
    found = denoiser(images, sigma)
    asked = torch.tensor([0, 1, 0]) % min(m, 2)
    bound = denoiser(images, sigma, asked)
    for place, image in enumerate(images):
        assert found[place].flatten().tolist() == pytest.approx(by_loops(points, image, sigma), abs=1e-9)
        own = points[labels == asked[place]]
        assert bound[place].flatten().tolist() == pytest.approx(by_loops(own, image, sigma), abs=1e-9)


def test_much_noise_leaves_the_mean_and_little_the_nearest_image() -> None:
    points, images = random_images(10).float(), random_images(4, seed=1).float()
    denoiser = IdealDenoiser(points)
    torch.testing.assert_close(denoiser(images, 1e4), points.mean(0).expand(4, -1, -1, -1))
    nearest = torch.stack([points[(points - x).square().flatten(1).sum(1).argmin()] for x in images])
    torch.testing.assert_close(denoiser(images, 1e-3), nearest)


def test_the_ideal_denoiser_takes_one_image_at_a_time() -> None:
    points, images = random_images(10).float(), random_images(4, seed=1).float()
    denoiser = IdealDenoiser(points, torch.arange(10) % 3)
    labels = torch.tensor([0, 2, 1, 1])
    parts = [denoiser(x[None], 0.5, y[None]) for x, y in zip(images, labels, strict=True)]
    torch.testing.assert_close(torch.cat(parts), denoiser(images, 0.5, labels))


def test_a_class_that_the_set_does_not_know_is_refused() -> None:
    images = random_images(2)
    with pytest.raises(UsageError, match=r"labels of the set.*got a set without labels"):
        IdealDenoiser(images)(images, 0.5, torch.tensor([0, 1]))
    with pytest.raises(UsageError, match=r"labels of the set, \[0, 1\]; got \[0, 2\]"):
        IdealDenoiser(images, torch.tensor([0, 1]))(images, 0.5, torch.tensor([0, 2]))


# --- the network -----------------------------------------------------------------------------------------


def awake(channels: int, classes: int = 0, widths: tuple[int, ...] = (8, 16)) -> UNetDenoiser:
    """A network whose last layer, which starts at zero, is not: so that its parts can be told apart."""

    def make() -> UNetDenoiser:
        net = UNetDenoiser(channels, classes=classes, widths=widths)
        nn.init.normal_(net.net.last.weight, std=0.3)
        return net

    return built(make).eval()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("side", "widths"), [(8, (8,)), (8, (8, 16)), (32, (8, 16, 16)), (32, (6, 10))])
def test_shapes_go_through(channels: int, side: int, widths: tuple[int, ...]) -> None:
    net, images = awake(channels, 3, widths), random_images(2, shape=(channels, side, side)).float()
    for labels in (None, torch.tensor([0, 2])):
        assert net(images, 0.5, labels).shape == images.shape
    assert net(images[:, :, :, : side // 2], 0.5).shape == (2, channels, side, side // 2)


def test_without_noise_an_image_is_its_own_denoised() -> None:
    """c_skip goes to 1 and c_out to 0, whatever the network says."""
    net, images = awake(1), random_images(3, shape=(1, 8, 8)).float()
    with torch.no_grad():
        torch.testing.assert_close(net(images, 1e-4), images, rtol=0, atol=1e-3)
        assert (net(images, 0.5) - images).abs().max() > 0.05


def test_a_silent_network_denoises_a_gaussian_of_the_assumed_spread() -> None:
    """With F = 0 the preconditioning is the posterior mean of N(1/2, (0.5/2)²) (EDM, B.6)."""
    net = built(lambda: UNetDenoiser(1, widths=(8,)))
    nn.init.zeros_(net.net.last.bias)  # type: ignore[arg-type]
    images = random_images(4, shape=(1, 4, 4)).float()
    for sigma in (0.05, 0.5, 3.0):
        truth = Gaussian(torch.tensor(0.5), 0.25)(images, sigma)
        torch.testing.assert_close(net(images, sigma).detach(), truth)


def test_labels_and_their_absence_are_told_apart() -> None:
    net, image = awake(1, classes=3), random_images(1, shape=(1, 8, 8)).float()
    with torch.no_grad():
        found = [net(image, 0.5), *(net(image, 0.5, torch.tensor([label])) for label in range(3))]
    for one in range(4):
        for other in range(one):
            assert (found[one] - found[other]).abs().max() > 1e-3
    ideal = IdealDenoiser(random_images(6), torch.arange(6) % 3)
    with_label = ideal(image[:, :, :2, :2].double(), 1.0, torch.tensor([1]))
    assert not torch.allclose(with_label, ideal(image[:, :, :2, :2].double(), 1.0))


def test_a_network_without_classes_takes_no_labels() -> None:
    with pytest.raises(UsageError, match=r"labels=None.*got 2 labels"):
        awake(1)(torch.zeros(2, 1, 8, 8), 0.5, torch.tensor([0, 0]))


def test_each_image_is_denoised_at_its_own_noise_alone() -> None:
    net, images = awake(1, classes=3).double(), random_images(4, shape=(1, 8, 8))
    sigma, labels = torch.tensor([0.1, 0.5, 2.0, 0.5], dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    with torch.no_grad():
        parts = [net(x[None], float(s), y[None]) for x, s, y in zip(images, sigma, labels, strict=True)]
        torch.testing.assert_close(net(images, sigma, labels), torch.cat(parts), rtol=1e-9, atol=1e-9)


class Oracle(nn.Module):
    """Answers with a constant error and keeps what it was asked."""

    def __init__(self, clean: Tensor, error: float) -> None:
        super().__init__()
        self.clean, self.error, self.classes = clean, error, 2

    def forward(self, images: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        self.noisy, self.sigma, self.labels = images, sigma, labels
        return self.clean + self.error


def test_the_loss_weighs_and_draws_as_edm_does() -> None:
    """Weight (sigma² + 0.5²) / (0.5 sigma)², log sigma ~ N(−1.2, 1.2²), errors counted in [-1, 1]."""
    n, error = 4000, 0.1
    clean = torch.full((n, 1, 2, 2), 0.5)
    model = Oracle(clean, error)
    losses = Denoising()(model, Batch(clean, torch.ones(n, dtype=torch.long), torch.arange(n)), seeded(0))
    expected = [(s * s + 0.25) / (0.5 * s) ** 2 * 4 * (2 * error) ** 2 for s in model.sigma.tolist()]
    assert losses.tolist() == pytest.approx(expected, rel=1e-4)
    logs = model.sigma.log()
    assert logs.mean().item() == pytest.approx(-1.2, abs=4 * 1.2 / math.sqrt(n))
    assert logs.std().item() == pytest.approx(1.2, rel=0.05)
    noise = 2 * (model.noisy - clean) / model.sigma[:, None, None, None]
    assert noise.std().item() == pytest.approx(1, rel=0.03)
    dropped = (model.labels == -1).float().mean().item()
    assert dropped == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / n))
    assert set(model.labels.tolist()) == {-1, 1}


@pytest.fixture(scope="module")
def trained() -> tuple[UNetDenoiser, Gaussian]:
    """A network that has seen samples of a Gaussian for a few seconds, and the truth."""
    draws = seeded(0)
    mean, s = 0.3 + 0.4 * torch.rand(1, 4, 4, generator=draws), 0.08
    pixels = (mean + s * torch.randn(1024, 1, 4, 4, generator=draws)).clamp(0, 1)
    data = ImageSet(pixels, torch.zeros(1024, dtype=torch.long), ("one",), "gaussian")
    model = built(lambda: UNetDenoiser(1, widths=(16,)))
    plan = Plan(epochs=15, batch_size=128, optimizer="adam", learning_rate=5e-3, weight_decay=0, average=0.95)
    for _ in fit(model, Denoising(), data, plan, seed=0):
        pass
    return model, Gaussian(mean, s)


@pytest.mark.parametrize("sigma", [0.2, 0.4, 0.7])
def test_a_trained_network_comes_near_the_exact_denoiser(
    trained: tuple[UNetDenoiser, Gaussian], sigma: float
) -> None:
    model, truth = trained
    images = truth.mean + truth.s * torch.randn(200, 1, 4, 4, generator=seeded(7))
    noisy = images + sigma / 2 * torch.randn(images.shape, generator=seeded(8))

    def error(net: nn.Module) -> float:
        """Of the score, which is proportional to D(x) − x, relative to its length."""
        exact = score_of(truth, noisy, sigma)
        return float((score_of(net, noisy, sigma) - exact).norm() / exact.norm())

    assert error(model) < 0.2
    assert error(built(lambda: UNetDenoiser(1, widths=(16,)))) > 0.3
