"""What keeps a claim from being decided by accident: how often it happens, and by hand."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, spearmanr  # type: ignore[import-untyped]
from torch import Tensor

from conftest import seeded
from pags.measure.decisions import chosen_and_judged, holm, holm_intervals, rank_trend
from pags.measure.intervals import Interval
from pags.measure.statistics import interval

pytestmark = pytest.mark.usefixtures("global_state_untouched")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


# --- families --------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1, 1]
    assert holm([]) == []


@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=8), level=st.floats(0.5, 0.99))
def test_holm_rejects_what_its_steps_reject(p: list[float], level: float) -> None:
    """The smallest at alpha/m, the next at alpha/(m − 1), … until one is not below its threshold."""
    rejected = set[int]()
    for rank, place in enumerate(sorted(range(len(p)), key=lambda place: p[place])):
        if p[place] * (len(p) - rank) > 1 - level:
            break
        rejected.add(place)
    corrected = holm(p)
    assert {place for place in range(len(p)) if corrected[place] <= 1 - level} == rejected


@given(z=st.lists(st.floats(-5, 5), min_size=1, max_size=6))
def test_intervals_of_a_family_exclude_nothing_where_holm_rejects(z: list[float]) -> None:
    """Of normal estimates, whose p-values are known."""

    def maker(estimate: float) -> object:
        def at(level: float) -> Interval:
            half = float(norm.ppf((1 + level) / 2))
            return Interval(estimate, estimate - half, estimate + half, level)

        return at

    found = holm_intervals([maker(each) for each in z])  # type: ignore[misc]
    excluded = [not each.low <= 0 <= each.high for each in found]
    corrected = holm([float(2 * norm.sf(abs(each))) for each in z])
    assert excluded == [p < 0.05 for p in corrected]
    assert [each.estimate for each in found] == z
    left = excluded.count(False)
    for each, out in zip(found, excluded, strict=True):
        if not out:
            assert each.level == pytest.approx(1 - 0.05 / left)


# --- choices ---------------------------------------------------------------------------------------------


def peak(means: Tensor) -> Tensor:
    return means[:, 1:].argmax(1) + 1


def above_first(means: Tensor, places: Tensor) -> Tensor:
    return means.gather(1, places[:, None])[:, 0] - means[:, 0]


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_peak_chosen_elsewhere_is_no_accident(seeds: int) -> None:
    """Nine strengths that are all alike: 5 % of 200 peaks are decided, where most are on their own data."""
    honest = naive = 0
    for repetition in range(200):
        draws = seeded(repetition)
        image = torch.randn(60, 1, generator=draws, dtype=torch.float64)
        tables = [
            image
            + 0.2 * torch.randn(1, 9, generator=draws, dtype=torch.float64) * (seeds > 1)
            + torch.randn(60, 9, generator=draws, dtype=torch.float64)
            for _ in range(seeds)
        ]
        found = chosen_and_judged(peak, above_first, tables, draws=draws, resamples=400)
        own = interval(lambda m: above_first(m, peak(m)), tables, draws=draws, resamples=400)
        honest += not found.low <= 0 <= found.high
        naive += not own.low <= 0 <= own.high
    assert honest <= 20  # 10 expected, 3 standard deviations
    assert naive > 2 * honest


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_true_peak_is_found(seeds: int) -> None:
    truth = torch.tensor([0.0, 0, 1, 0, 0], dtype=torch.float64)
    tables = [truth + normal(200, 5, seed=seed) for seed in range(seeds)]
    found = chosen_and_judged(peak, above_first, tables, draws=seeded(9))
    assert found.low > 0
    assert found.low < 1 < found.high


def test_choice_and_judgement_are_of_different_images() -> None:
    """A column that is high on a few images is chosen by those, and judged without them."""
    table = torch.zeros(40, 3, dtype=torch.float64)
    order = torch.randperm(40, generator=seeded(4))
    table[order[:20], 2] = 1
    table[order[20:], 1] = 5
    found = chosen_and_judged(peak, above_first, table, draws=seeded(4))
    assert (found.estimate, found.low, found.high) == (0, 0, 0)


# --- trends ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [[3.0, 1, 4, 1, 5], [1.0, 2, 3, 4, 5], [5.0, 4, 3, 1, 2], [1.0] * 5])
def test_a_trend_is_decided_where_the_exact_permutation_test_decides(values: list[float]) -> None:
    found = rank_trend(torch.tensor([values]), draws=seeded(0), level=0.95)
    constant = len(set(values)) == 1
    expected = 0.0 if constant else float(spearmanr(values, range(5)).statistic)
    assert found.estimate == pytest.approx(expected)
    null = [0.0 if constant else spearmanr(values, each).statistic for each in permutations(range(5))]
    p = float(np.mean([abs(each) >= abs(expected) - 1e-9 for each in null]))
    assert (not found.low <= 0 <= found.high) == (p <= 0.05)


@pytest.mark.parametrize(("seeds", "s"), [(1, 6), (3, 4), (5, 10)])
def test_trends_of_networks_that_are_all_alike_are_rare(seeds: int, s: int) -> None:
    """Training noise alone: 5 % of 400 or fewer, plus three standard deviations."""
    decided = 0
    for repetition in range(400):
        values = normal(seeds, s, seed=repetition) + 3 * normal(seeds, 1, seed=10_000 + repetition)
        found = rank_trend(values, draws=seeded(repetition), permutations=999)
        decided += not found.low <= 0 <= found.high
    assert decided / 400 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


def test_a_weak_trend_that_all_seeds_share_is_found() -> None:
    values = torch.arange(6.0) * 0.5 + normal(5, 6, seed=3)
    assert rank_trend(values, draws=seeded(0)).low > 0
    assert rank_trend(-values, draws=seeded(0)).high < 0


def test_two_quantities_of_the_same_networks_are_compared_by_rank() -> None:
    a, b = normal(3, 7), normal(3, 7, seed=1)
    found = rank_trend(a, b, draws=seeded(0))
    expected = np.mean([spearmanr(x, y).statistic for x, y in zip(a.numpy(), b.numpy(), strict=True)])
    assert found.estimate == pytest.approx(float(expected))
    assert rank_trend(a, a.exp(), draws=seeded(0)).low > 0
