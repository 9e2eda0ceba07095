"""The spectrum of vectors: exact on waves, flat on noise, and blind to scale."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from conftest import seeded
from pags.measure.frequency import (
    edge_energy,
    low_frequency_chance,
    low_frequency_share,
    radial_power,
    ring_frequencies,
)

pytestmark = pytest.mark.usefixtures("global_state_untouched")


def wave(rows: int, columns: int, height: int = 16, width: int = 16, phase: float = 0.3) -> Tensor:
    """cos(2π (rows · y / height + columns · x / width) + phase), (1, 1, h, w)."""
    y, x = torch.arange(height).double() / height, torch.arange(width).double() / width
    return (2 * math.pi * (rows * y[:, None] + columns * x) + phase).cos()[None, None]


@given(
    height=st.integers(3, 20), width=st.integers(3, 20), rows=st.integers(0, 10), columns=st.integers(0, 10)
)
def test_a_wave_has_its_own_frequency_and_no_other(height: int, width: int, rows: int, columns: int) -> None:
    rows, columns = rows % (height // 2 + 1), columns % (width // 2 + 1)
    x = wave(rows, columns, height, width)
    f, g = rows / height, columns / width
    assert float(low_frequency_share(x)[0]) == pytest.approx(float(f * f + g * g <= 1 / 64 + 1e-12), abs=1e-9)
    expected = (math.sin(math.pi * f) ** 2 + math.sin(math.pi * g) ** 2) / 2
    assert float(edge_energy(x)[0]) == pytest.approx(expected, abs=1e-9)
    found, middles = radial_power(x)[0], ring_frequencies(height, width)
    ring = int(found.argmax())
    assert float(found.sum() - found[ring]) == pytest.approx(0, abs=1e-9)
    assert abs(float(middles[ring]) - math.hypot(f, g)) <= 0.5 / min(height, width) + 1e-9


def test_waves_of_several_channels_add_their_energy() -> None:
    """Amplitudes 3 and 1: 9/10 of the energy."""
    x = torch.cat([3 * wave(1, 1), wave(7, 2)], 1)
    assert float(low_frequency_share(x)[0]) == pytest.approx(0.9)
    both = torch.cat([edge_energy(wave(1, 1)), edge_energy(wave(7, 2))])
    assert float(edge_energy(x)[0]) == pytest.approx(float(both @ torch.tensor([0.9, 0.1]).double()))


def test_white_noise_is_flat() -> None:
    x = torch.randn(400, 3, 32, 32, generator=seeded(0))
    assert low_frequency_chance(32, 32) == 49 / 1024
    assert low_frequency_chance(512, 512) == pytest.approx(math.pi / 64, rel=0.01)
    assert float(low_frequency_share(x).mean()) == pytest.approx(49 / 1024, abs=0.001)
    assert float(edge_energy(x).mean()) == pytest.approx(0.5, abs=0.002)
    spectrum = radial_power(x).mean(0)
    assert spectrum.shape == ring_frequencies(32, 32).shape == (24,)
    assert spectrum[1:].tolist() == pytest.approx([1] * 23, abs=0.1)


def test_rings_hold_all_the_power_that_there_is() -> None:
    x = torch.randn(3, 2, 9, 14, generator=seeded(1), dtype=torch.float64).cumsum(2)
    frequencies = torch.fft.fftfreq(9).square()[:, None] + torch.fft.fftfreq(14).square()
    places = (frequencies.sqrt() * 9).round().long()
    power = torch.fft.fft2(x).abs().square().sum(1)
    expected = torch.stack(
        [power[:, places == ring].mean(1) / power.mean((1, 2)) for ring in range(int(places.max()) + 1)], 1
    )
    torch.testing.assert_close(radial_power(x), expected)


def test_a_single_pixel_has_all_frequencies_alike() -> None:
    """1/24 of a cycle goes into 1/8 three times: 29 frequencies of 576."""
    pixels = torch.eye(576)[:20].reshape(20, 1, 24, 24)
    assert low_frequency_share(pixels).tolist() == pytest.approx([29 / 576] * 20, abs=1e-6)
    assert low_frequency_chance(24, 24) == 29 / 576
    assert low_frequency_chance(1, 1) == 1


@pytest.mark.parametrize("measure", [low_frequency_share, edge_energy, radial_power])
def test_scale_is_not_seen_and_nothing_is_no_number(measure: object) -> None:
    assert callable(measure)
    x = torch.randn(5, 3, 8, 8, generator=seeded(2))
    expected = measure(x)
    factors = torch.tensor([1e-30, 1e-3, 1, 1e3, 1e30])[:, None, None, None]
    torch.testing.assert_close(measure(factors * x), expected)
    x[1], x[2, 0, 0, 0], x[3, 1, 1, 1] = 0, torch.nan, torch.inf
    found = measure(x).reshape(5, -1)
    assert found.isnan().any(1).tolist() == found.isnan().all(1).tolist() == [False, True, True, True, False]
