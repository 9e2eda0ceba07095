"""The guides to k: on worlds of known dimension, and on points whose distances can be counted by hand."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from conftest import seeded
from pags.data.worlds import World, curved_world, linear_world, mixture_world
from pags.data.worlds.laws import Mixture
from pags.errors import UsageError
from pags.manifold.denoised import DenoiserTangent
from pags.manifold.dimension import (
    denoising_dimension,
    neighbour_dimension,
    spectral_dimension,
    two_nn_dimension,
)

pytestmark = pytest.mark.usefixtures("global_state_untouched")


def cube(n: int, k: int, d: int = 20) -> Tensor:
    """Points of a k-dimensional cube, turned into d dimensions: (n, 1, 1, d)."""
    axes = torch.linalg.qr(torch.randn(d, k, generator=seeded(1), dtype=torch.float64))[0]
    inside = torch.rand(n, k, generator=seeded(2), dtype=torch.float64)
    return (inside @ axes.T)[:, None, None]


@pytest.mark.parametrize(
    ("world", "sigma"),
    [
        (linear_world(k=2, noise=0.005), 0.05),
        (linear_world(k=6, noise=0.005), 0.05),
        (mixture_world(k=3, noise=0.005), 0.05),
        (curved_world(k=2, noise=0.03), 0.1),
    ],
    ids=["plane", "six", "mixture", "torus"],
)
def test_the_spectrum_counts_the_dimensions_of_a_world(world: World, sigma: float) -> None:
    images = world.sample(8, seeded(1))[0]
    spectrum = DenoiserTangent(world.denoiser, sigma, world.k + 3).spectrum(images)
    assert spectrum.shape == (8, world.k + 3)
    assert (spectral_dimension(spectrum) == world.k).float().mean() >= 0.9


def test_the_spectrum_is_counted_above_one_half() -> None:
    spectrum = torch.tensor([[0.9, 0.51, 0.49, 0.0], [0.5, 0.4, 0.3, 0.2], [2.0, 1.0, 0.8, 0.6]])
    assert spectral_dimension(spectrum).tolist() == [2, 0, 4]


@pytest.mark.parametrize("k", [1, 2, 5])
def test_neighbours_tell_the_dimension_of_a_cube(k: int) -> None:
    found = neighbour_dimension(cube(2000, k), neighbours=15)
    # 2000 points border on their cube's edge the more the larger k is: the known bias is downwards.
    assert 0.85 * k < found.pooled < 1.06 * k
    assert found.per_image.shape == (2000,)
    assert abs(float(found.per_image.median()) / found.pooled - 1) < 0.1


def test_noise_lifts_the_answer_of_neighbours_towards_the_pixels() -> None:
    points = cube(1000, 2)
    noisy = points + 0.05 * torch.randn(points.shape, generator=seeded(3), dtype=torch.float64)
    assert neighbour_dimension(noisy).pooled > 1.5 * neighbour_dimension(points).pooled


def test_neighbours_of_four_points_by_hand() -> None:
    """On a line at 0, 1, 3, 7: distances from the first are 1, 3, 7, and so on."""
    found = neighbour_dimension(torch.tensor([0.0, 1, 3, 7])[:, None, None, None] / 7, neighbours=3)
    logs = [
        math.log(7 / 1) + math.log(7 / 3), math.log(6 / 1) + math.log(6 / 2),
        math.log(4 / 2) + math.log(4 / 3), math.log(7 / 4) + math.log(7 / 6),
    ]  # fmt: skip
    torch.testing.assert_close(found.per_image, torch.tensor([1 / log for log in logs], dtype=torch.float64))
    assert found.pooled == pytest.approx(2 / (sum(logs) / 4))


def test_neighbours_do_not_depend_on_how_the_rows_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    points = cube(50, 3)
    whole = neighbour_dimension(points)
    monkeypatch.setattr("pags.manifold.dimension.ROWS", 7)
    torch.testing.assert_close(neighbour_dimension(points).per_image, whole.per_image)


@pytest.mark.parametrize(
    ("images", "neighbours"),
    [(torch.zeros(30, 1, 2, 2), 20), (cube(10, 2), 2), (cube(10, 2), 10)],
    ids=["equal images", "too few neighbours", "too few images"],
)
def test_requests_that_make_no_sense_are_refused(images: Tensor, neighbours: int) -> None:
    with pytest.raises(UsageError, match=r"expected .*; got .*; try "):
        neighbour_dimension(images, neighbours=neighbours)


# --- against scikit-dimension ----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("k", [2, 6])
@pytest.mark.parametrize("discarded", [0.0, 0.1])
def test_two_nn_is_that_of_scikit_dimension(k: int, discarded: float) -> None:
    skdim = pytest.importorskip("skdim")
    points = cube(500, k)
    peer = skdim.id.TwoNN(discard_fraction=discarded, method="mle").fit(points.flatten(1).numpy())
    assert two_nn_dimension(points, discarded=discarded) == pytest.approx(peer.dimension_, rel=1e-9)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("neighbours", [5, 20])
def test_neighbours_are_those_of_scikit_dimension(neighbours: int) -> None:
    skdim = pytest.importorskip("skdim")
    points = cube(400, 3)
    peer = skdim.id.MLE().fit(points.flatten(1).numpy(), n_neighbors=neighbours)
    assert neighbour_dimension(points, neighbours=neighbours).pooled == pytest.approx(
        peer.dimension_, rel=1e-9
    )


@pytest.mark.parametrize("k", [1, 2, 5])
def test_two_nn_tells_the_dimension_of_a_cube(k: int) -> None:
    """To three standard errors of k/√n, and the downward bias of the edges."""
    found = two_nn_dimension(cube(2000, k))
    assert k * (1 - 3 / 1800**0.5 - 0.05) < found < k * (1 + 3 / 1800**0.5)


@pytest.mark.parametrize("bad", [{"discarded": 1.0}, {"discarded": -0.1}, {"discarded": 0.9999}])
def test_a_senseless_share_of_two_nn_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="leaves two images"):
        two_nn_dimension(cube(10, 2), **bad)
    with pytest.raises(UsageError, match="two equal ones"):
        two_nn_dimension(torch.zeros(5, 1, 2, 2))


# --- the denoising loss ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.01, 0.1, 0.5])
def test_the_denoising_loss_of_gaussian_data_is_the_sum_over_its_variances(sigma: float) -> None:
    """Σ v / (v + σ²/4), in a world whose single class is known by its covariance."""
    world = linear_world(k=5, noise=0.005)
    images, labels = world.sample(400, seeded(1))
    images = images[labels == 0]

    def denoise(noisy: Tensor, level: float) -> Tensor:
        return world.denoiser(noisy, level, torch.zeros(len(noisy), dtype=torch.long))

    found = denoising_dimension(denoise, images, sigma, draws=16)
    v, d = (sigma / 2) ** 2, images[0].numel()
    assert isinstance(world.law, Mixture)
    along, noise = world.law.spreads[0] + world.law.noise**2, world.law.noise**2
    expected = float((along / (along + v)).sum()) + (d - 5) * noise / (noise + v)
    per_image = found.per_image
    assert float(per_image.mean()) == pytest.approx(
        expected, abs=4 * float(per_image.std()) / len(images) ** 0.5
    )
    again = denoising_dimension(denoise, images, sigma, draws=16, seed=1)
    apart = (again.per_image - per_image).square().sum()
    assert float(apart / (again.error.square() + found.error.square()).sum()) == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize(("make", "k"), [(linear_world, 6), (curved_world, 2)])
def test_the_denoising_loss_is_an_upper_estimate_of_the_dimension(make: Callable[..., World], k: int) -> None:
    """By little for the true denoiser at a level above the noise, by more for one that is wrong."""
    world = make(k=k, noise=0.005 if make is linear_world else 0.03)
    sigma = 0.05 if make is linear_world else 0.25
    images = world.sample(200, seeded(1))[0]
    best = float(denoising_dimension(world.denoiser, images, sigma).per_image.mean())
    wrong = denoising_dimension(lambda x, s: world.denoiser(x, 3 * s), images, sigma)
    assert k * 0.95 < best < k + 0.1 * images[0].numel()
    assert float(wrong.per_image.mean()) > best + 0.1


@pytest.mark.parametrize("bad", [{"draws": 1}, {"sigma": 0.0}])
def test_a_senseless_denoising_loss_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        denoising_dimension(lambda x, s: x, torch.zeros(2, 1, 2, 2), **{"sigma": 0.1, **bad})  # type: ignore[arg-type]
