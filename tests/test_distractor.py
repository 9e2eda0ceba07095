"""Signal against distractor: models of which it is known where they look, and an exact world."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from conftest import Linear, Traces, network_with_batch_norm, seeded
from pags.data.worlds import Bayes, distractor_world
from pags.errors import UsageError
from pags.measure.distractor import (
    PAPER_LEVELS,
    energy_on_signal,
    pixels_on_signal,
    relative_noise_robustness,
)

pytestmark = pytest.mark.usefixtures("global_state_untouched")

seeds = st.integers(0, 2**32)
D = 16


def random_images(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 1, 4, 4, generator=seeded(seed), dtype=torch.float64)


def random_masks(n: int, seed: int = 0) -> Tensor:
    """Between 1 and 15 pixels of signal, of another number in each image."""
    masks = torch.rand(n, 4, 4, generator=seeded(seed)) < torch.rand(n, 1, 1, generator=seeded(seed + 1))
    masks[:, 0, 0], masks[:, 3, 3] = True, False
    return masks


def halves(n: int) -> Tensor:
    return torch.tensor([True, True, False, False])[None, :, None].expand(n, 4, 4)


class LooksAt(nn.Module):
    """A linear classifier of the pixels inside a mask alone."""

    def __init__(self, mask: Tensor, seed: int) -> None:
        super().__init__()
        weight = torch.randn(3, D, generator=seeded(seed), dtype=torch.float64)
        self.inner = Linear(weight * mask.flatten())

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images)


@given(seed=seeds)
def test_a_model_that_sees_the_signal_alone_ignores_noise_beside_it(seed: int) -> None:
    mask = random_masks(1, seed)
    masks, model = mask.expand(5, -1, -1), LooksAt(mask, seed)
    found = relative_noise_robustness(model, random_images(5), masks, (0, 0.1, 10), draws=seeded(seed))
    assert torch.equal(found.distractor, torch.zeros(3, 5, dtype=torch.float64))
    assert found.signal[0].abs().max() == 0
    assert (found.signal[1:] > 0).all()


@given(seed=seeds)
def test_signal_and_distractor_change_places_with_the_mask(seed: int) -> None:
    """The same draws; only the names of the halves are exchanged."""
    model, images, masks = (
        Linear(torch.randn(3, D, generator=seeded(seed)).double()),
        random_images(3),
        halves(3),
    )
    one = relative_noise_robustness(model, images, masks, (0.5,), draws=seeded(0))
    other = relative_noise_robustness(model, images, ~masks, (0.5,), draws=seeded(0))
    torch.testing.assert_close(one.signal, other.distractor)
    torch.testing.assert_close(one.distractor, other.signal)


def test_logits_change_with_the_weight_on_each_part_and_the_level_of_each_pixel() -> None:
    """For normal u of deviation s on a part, |wᵀu| has mean s ‖w_part‖ √(2/π): s is a pixel's deviation."""
    n, directions, levels = 500, 20, (0.2, 3.0)
    w = torch.randn(D, generator=seeded(1), dtype=torch.float64)
    mask = random_masks(1, 3)
    found = relative_noise_robustness(
        Linear(torch.stack([w, 0 * w])), random_images(n), mask.expand(n, -1, -1), levels,
        draws=seeded(2), directions=directions, change="logits-l2",
    )  # fmt: skip
    for part, inside in ((found.signal, mask), (found.distractor, ~mask)):
        size = w[inside.flatten()].norm().item()
        for place, level in enumerate(levels):
            expected, error = level * size * math.sqrt(2 / math.pi), level * size / math.sqrt(n * directions)
            assert part[place].mean().item() == pytest.approx(expected, abs=4 * error)


@pytest.mark.parametrize("batch_size", [1, 4, 15, 1024])
def test_numbers_do_not_depend_on_the_batch_size_and_leave_no_trace(batch_size: int) -> None:
    model, images, masks = network_with_batch_norm().double(), random_images(5), random_masks(5)
    traces = Traces(model)
    found = relative_noise_robustness(
        model, images, masks, (0, 0.1, 1), draws=seeded(0), directions=2, batch_size=batch_size
    )
    traces.assert_none()
    whole = relative_noise_robustness(model, images, masks, (0, 0.1, 1), draws=seeded(0), directions=2)
    torch.testing.assert_close(found.signal, whole.signal, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.distractor, whole.distractor, rtol=0, atol=1e-12)


def test_the_levels_are_figure_5s() -> None:
    assert PAPER_LEVELS[0] == 0
    assert len(PAPER_LEVELS) == 31
    assert list(PAPER_LEVELS[1::29]) == pytest.approx([0.01, 10])
    steps = {round(b / a, 9) for a, b in pairwise(PAPER_LEVELS[1:])}
    assert len(steps) == 1


@given(seed=seeds, exponent=st.integers(-12, 12))
def test_energy_on_the_signal_is_a_share_of_squares(seed: int, exponent: int) -> None:
    gradients = torch.randn(4, 3, 4, 4, generator=seeded(seed), dtype=torch.float64) * 10.0**exponent
    masks = random_masks(4, seed)
    expected = [
        (g[:, m] ** 2).sum().item() / (g**2).sum().item() for g, m in zip(gradients, masks, strict=True)
    ]  # fmt: skip
    assert energy_on_signal(gradients, masks).tolist() == pytest.approx(expected)
    sum_of_both = energy_on_signal(gradients, masks) + energy_on_signal(gradients, ~masks)
    torch.testing.assert_close(sum_of_both, torch.ones(4, dtype=torch.float64))


def test_energy_of_what_is_on_one_side_nowhere_or_anywhere() -> None:
    masks = random_masks(3)
    ones = torch.ones(3, 1, 4, 4, dtype=torch.float64)
    assert energy_on_signal(ones * masks[:, None], masks).tolist() == [1] * 3
    assert energy_on_signal(ones * ~masks[:, None], masks).tolist() == [0] * 3
    assert energy_on_signal(0 * ones, masks).isnan().all()
    torch.testing.assert_close(energy_on_signal(ones, masks).float(), pixels_on_signal(masks))


def test_gradients_of_random_direction_have_the_chance_share() -> None:
    n, masks = 20_000, random_masks(1, 5)
    gradients = torch.randn(n, 1, 4, 4, generator=seeded(0), dtype=torch.float64)
    found = energy_on_signal(gradients, masks.expand(n, -1, -1)).mean().item()
    assert found == pytest.approx(pixels_on_signal(masks).item(), abs=4 * 0.15 / math.sqrt(n))


# --- an exact world --------------------------------------------------------------------------------------


@pytest.mark.parametrize("informative", [0.0, 1.0])
def test_the_bayes_classifier_ignores_a_distractor_unless_it_informs(informative: float) -> None:
    """Theorem 2, with the world's closed forms for posterior and gradient."""
    world = distractor_world(informative=informative)
    images, labels = world.sample(40, seeded(0))
    masks = world.mask[0].expand(40, -1, -1)
    energy = energy_on_signal(world.bayes_gradient(images, labels), masks)
    changes = relative_noise_robustness(
        Bayes(world), images, masks, (0.02,), draws=seeded(1), directions=2, change="logits-l2"
    )
    if informative:
        assert energy.mean() < 0.99
        assert (changes.distractor > 1e-3).all()
    else:
        assert (1 - energy).abs().max() < 1e-12
        assert (changes.distractor < 1e-6 * changes.signal).all()


# --- the unhappy paths -----------------------------------------------------------------------------------

MODEL, X = Linear(torch.zeros(3, D, dtype=torch.float64)), random_images(2)
WRONG: dict[str, Callable[[], object]] = {
    "no masks for some": lambda: relative_noise_robustness(MODEL, X, halves(1), (1,), draws=seeded()),
    "masks of another size": lambda: energy_on_signal(X, halves(2)[:, :3]),
    "all signal": lambda: energy_on_signal(X, torch.ones(2, 4, 4, dtype=torch.bool)),
    "a negative level": lambda: relative_noise_robustness(MODEL, X, halves(2), (-1,), draws=seeded()),
    "no levels": lambda: relative_noise_robustness(MODEL, X, halves(2), (), draws=seeded()),
    "no directions": lambda: relative_noise_robustness(
        MODEL, X, halves(2), (1,), draws=seeded(), directions=0
    ),
    "an unknown change": lambda: relative_noise_robustness(
        MODEL, X, halves(2), (1,), draws=seeded(), change="l7"
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_makes_no_sense_is_refused(what: str) -> None:
    with pytest.raises(UsageError, match="expected"):
        WRONG[what]()


def test_no_images_have_no_numbers() -> None:
    none = relative_noise_robustness(MODEL, X[:0], halves(0), (0.1, 1), draws=seeded())
    assert none.signal.shape == none.distractor.shape == (2, 0)
