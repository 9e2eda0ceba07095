"""The guides to k: on worlds of known dimension, and on points whose distances can be counted by hand."""

import math

import pytest
import torch
from torch import Tensor

from conftest import seeded
from pags.data.worlds import World, curved_world, linear_world, mixture_world
from pags.errors import UsageError
from pags.manifold.denoised import DenoiserTangent
from pags.manifold.dimension import neighbour_dimension, spectral_dimension

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
