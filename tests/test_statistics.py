"""Averages and intervals: they cover as often as they say, and keep pairs together."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr  # type: ignore[import-untyped]
from torch import Tensor

from conftest import seeded
from pags.errors import UsageError
from pags.measure.statistics import (
    Interval,
    crossed_means,
    interval,
    mean_intervals,
    percentile_interval,
    resampled_means,
    spearman,
    weighted_means,
)

pytestmark = pytest.mark.usefixtures("global_state_untouched")

seeds = st.integers(0, 2**32)


def first_mean(means: Tensor) -> Tensor:
    return means[:, 0]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


# --- coverage --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["normal", "skewed", "yes or no"])
def test_intervals_cover_the_truth_as_often_as_they_say(kind: str) -> None:
    """Over 300 samples of a known mean, the 95 % interval holds it in 90 to 99 % of them."""
    mean, covered, n = {"normal": 0.0, "skewed": 1.0, "yes or no": 0.7}[kind], 0, 80
    for repetition in range(300):
        draws = seeded(repetition)
        uniform = torch.rand(n, 1, generator=draws, dtype=torch.float64)
        table = {
            "normal": normal(n, 1, seed=repetition),
            "skewed": -uniform.log(),
            "yes or no": (uniform < 0.7).double(),
        }[kind]
        found = interval(first_mean, table, draws=draws, resamples=400)
        covered += found.low <= mean <= found.high
    assert 0.90 <= covered / 300 <= 0.99


def test_an_interval_is_as_wide_as_theory_says() -> None:
    """Twice 1.96 standard errors for a mean; wider at a higher level."""
    n = 1000
    values = normal(n, 1)
    widths = {}
    for level, quantile in ((0.5, 0.674), (0.95, 1.960), (0.99, 2.576)):
        found = interval(first_mean, values, draws=seeded(1), resamples=4000, level=level)
        widths[level] = found.high - found.low
        assert widths[level] == pytest.approx(2 * quantile * float(values.std()) / math.sqrt(n), rel=0.08)
        assert found.estimate == pytest.approx(float(values.mean()))
        assert found.level == level


def test_means_have_intervals_of_their_own() -> None:
    columns = {"a": normal(300), "b": 5 + 3 * normal(300, seed=1)}
    found = mean_intervals(columns, draws=seeded(2))
    assert list(found) == ["a", "b"]
    for name, values in columns.items():
        assert found[name].estimate == pytest.approx(float(values.mean()))
        half = 1.96 * float(values.std()) / math.sqrt(300)
        assert found[name].low == pytest.approx(float(values.mean()) - half, abs=0.15 * half)
        assert found[name].high == pytest.approx(float(values.mean()) + half, abs=0.15 * half)


@given(seed=seeds, n=st.integers(2, 30), level=st.floats(0.01, 0.999))
def test_intervals_are_in_order_and_within_the_sample(seed: int, n: int, level: float) -> None:
    table = normal(n, 1, seed=seed)
    found = interval(first_mean, table, draws=seeded(seed), resamples=50, level=level)
    assert float(table.min()) <= found.low <= found.high <= float(table.max())


def test_a_percentile_interval_by_hand() -> None:
    found = percentile_interval(7.0, torch.arange(101.0), level=0.9)
    assert found.to_record() == pytest.approx({"estimate": 7, "low": 5, "high": 95, "level": 0.9})


def test_a_constant_has_an_interval_of_no_width() -> None:
    found = interval(first_mean, torch.full((10, 1), 0.25), draws=seeded(0))
    assert found == Interval(0.25, 0.25, 0.25)


# --- pairs -----------------------------------------------------------------------------------------------


def test_the_difference_of_correlated_columns_is_known_better_than_either() -> None:
    """Two models on the same images: their common part cancels, as it does not where rows are not paired."""
    common, a, b = normal(200), 0.1 * normal(200, seed=1), 0.1 * normal(200, seed=2)

    def width(first: Tensor, second: Tensor) -> float:
        table = torch.stack([first, second], 1)
        found = interval(lambda means: means[:, 0] - means[:, 1], table, draws=seeded(3))
        return found.high - found.low

    paired = width(common + a, common + b)
    unpaired = width(common + a, (common + b)[torch.randperm(200, generator=seeded(4))])
    assert paired == pytest.approx(2 * 1.96 * math.sqrt(0.02 / 200), rel=0.2)
    assert unpaired > 5 * paired


def test_all_columns_of_a_row_are_resampled_together() -> None:
    table = torch.stack([normal(50), -normal(50), 3 * normal(50) + 1], 1)
    means = resampled_means(table, draws=seeded(0), resamples=100)
    assert means.shape == (100, 3)
    torch.testing.assert_close(means[:, 1], -means[:, 0])
    torch.testing.assert_close(means[:, 2], 3 * means[:, 0] + 1)
    assert len(set(means[:, 0].tolist())) > 90


def test_resampled_means_are_means_of_rows_drawn_with_replacement() -> None:
    """Of 0 and 1 there are (0, 1/2, 1) in the shares (1/4, 1/2, 1/4)."""
    means = resampled_means(torch.tensor([[0.0], [1.0]]), draws=seeded(0), resamples=4000)[:, 0].tolist()
    for value, share in ((0.0, 0.25), (0.5, 0.5), (1.0, 0.25)):
        assert means.count(value) / 4000 == pytest.approx(share, abs=4 * math.sqrt(0.25 / 4000))


def test_resampling_is_seeded() -> None:
    table = normal(20, 2)
    first = resampled_means(table, draws=seeded(1))
    assert torch.equal(first, resampled_means(table, draws=seeded(1)))
    assert not torch.equal(first, resampled_means(table, draws=seeded(2)))
    assert first.dtype == torch.float64


def test_one_image_cannot_be_resampled() -> None:
    with pytest.raises(UsageError, match="at least two images to resample; got 1"):
        resampled_means(torch.ones(1, 3), draws=seeded(0))


# --- missing cells ---------------------------------------------------------------------------------------


def test_missing_cells_are_left_out_of_their_column_alone() -> None:
    table = torch.tensor([[1.0, torch.nan], [2.0, 4.0], [6.0, torch.nan], [3.0, 8.0]])
    found = weighted_means(
        table, torch.tensor([[1.0, 1, 1, 1], [0, 1, 2, 0], [2, 0, 0, 1], [1, 0, 1, 0]]).double()
    )
    assert found[:3].flatten().tolist() == pytest.approx([3, 6, 14 / 3, 4, 5 / 3, 8])
    assert found[3, 0] == 3.5
    assert found[3, 1].isnan()


def test_an_interval_with_missing_cells_is_that_of_the_rest() -> None:
    values = normal(400)
    table = torch.stack([values, torch.where(torch.arange(400) % 2 == 0, values, torch.nan)], 1)
    found = interval(lambda means: means[:, 1], table, draws=seeded(0))
    rest = values[::2]
    assert found.estimate == pytest.approx(float(rest.mean()))
    width = 2 * 1.96 * float(rest.std()) / math.sqrt(200)
    assert found.high - found.low == pytest.approx(width, rel=0.15)


# --- seeds and images ------------------------------------------------------------------------------------


def test_seeds_that_differ_widen_an_interval() -> None:
    """To the spread of a mean over seeds, which resampling images alone does not see."""
    seeds_apart = 3 * normal(8, seed=5)
    tables = [normal(100, 1, seed=place) + shift for place, shift in enumerate(seeds_apart)]
    both = percentile_interval(0, crossed_means(tables, draws=seeded(0))[:, 0])
    naive = interval(first_mean, torch.cat(tables), draws=seeded(0))
    expected = 2 * 1.96 * float(seeds_apart.std()) / math.sqrt(8)
    assert both.high - both.low == pytest.approx(expected, rel=0.15)
    assert both.high - both.low > 3 * (naive.high - naive.low)


def test_seeds_that_agree_leave_the_interval_of_the_images() -> None:
    """The same numbers five times over say no more than once."""
    means = crossed_means([normal(400, 2)] * 5, draws=seeded(0))
    assert means.shape == (2000, 2)
    torch.testing.assert_close(means, resampled_means(normal(400, 2), draws=seeded(0)))


@pytest.mark.parametrize("seeds_count", [2, 4, 9])
def test_the_spread_over_seeds_is_that_of_the_unbiased_variance(seeds_count: int) -> None:
    """Images without any spread leave s²/S, which the variance of the resampled means must be."""
    values = normal(seeds_count, seed=3)
    means = crossed_means([value.expand(5, 1) for value in values], draws=seeded(1), resamples=20_000)
    assert float(means.var()) == pytest.approx(float(values.var()) / seeds_count, rel=0.05)


CROSSED = {  # deviation over seeds, over images (for all seeds alike), of what is left
    "seeds differ": (1.0, 0.0, 1.0),
    "images differ": (0.02, 1.0, 0.3),
    "both differ": (0.2, 1.0, 0.3),
    "only noise": (0.0, 0.0, 1.0),
}


@pytest.mark.parametrize("what", CROSSED)
def test_intervals_over_seeds_and_images_cover_as_often_as_they_say(what: str) -> None:
    """8 seeds of the same 50 images: a 95 % interval holds the truth in 85 % of 250 experiments or more.

    Where seeds alone differ, 1.96 standard errors of eight numbers hold 91 % (Student's t), less three
    standard errors of 250 experiments. What is left is counted more than once, so where there is nothing
    else the interval covers more than it says. Images drawn anew for each seed would cover 70 % where
    images differ.
    """
    over_seeds, over_images, left = CROSSED[what]
    covered = 0
    for repetition in range(250):
        draws = seeded(repetition)
        image = over_images * torch.randn(50, generator=draws, dtype=torch.float64)
        columns = [
            {
                "a": image
                + over_seeds * torch.randn(1, generator=draws, dtype=torch.float64)
                + left * torch.randn(50, generator=draws, dtype=torch.float64)
            }
            for _ in range(8)
        ]
        found = mean_intervals(columns, draws=draws, resamples=200)["a"]
        covered += found.low <= 0 <= found.high
    assert covered / 250 >= 0.85


def test_an_interval_over_seeds_is_that_of_a_plain_double_loop() -> None:
    """The same law, drawn with numpy cell by cell."""
    cells = normal(6, 40, 2, seed=9) + normal(6, 1, 2, seed=10) / 2 + normal(40, 2, seed=11)
    found = interval(lambda means: means[:, 0] - means[:, 1], list(cells), draws=seeded(2), resamples=4000)
    draws, array = np.random.default_rng(0), cells.numpy()
    values = []
    for _ in range(4000):
        images, repeats = draws.integers(0, 40, 40), draws.integers(0, 6, 5)
        mean = array[repeats][:, images].mean((0, 1))
        values.append(mean[0] - mean[1])
    low, high = np.quantile(values, [0.025, 0.975])
    middle = array.mean((0, 1))
    width = high - low
    assert found.estimate == pytest.approx(middle[0] - middle[1])
    assert found.low == pytest.approx(low, abs=0.06 * width)
    assert found.high == pytest.approx(high, abs=0.06 * width)


def test_tables_of_different_images_cannot_be_crossed() -> None:
    with pytest.raises(UsageError, match=r"the same images for all seeds; got \[4, 5\] rows"):
        mean_intervals([{"a": normal(4)}, {"a": normal(5)}], draws=seeded(0))


# --- what is not defined ---------------------------------------------------------------------------------


def test_a_statistic_that_is_not_defined_is_nothing_in_a_record_and_decides_nothing() -> None:
    ratio = interval(lambda m: m[:, 0] / m[:, 1], torch.zeros(9, 2), draws=seeded(0))
    assert (ratio.low, ratio.high) == (-math.inf, math.inf)
    assert ratio.to_record() == {"estimate": None, "low": None, "high": None, "level": 0.95}
    never = mean_intervals({"a": torch.full((9,), math.nan)}, draws=seeded(0))["a"]
    assert never.to_record() == {"estimate": None, "low": None, "high": None, "level": 0.95}


def test_what_is_infinite_throughout_is_above_everything() -> None:
    found = interval(lambda m: m[:, 0] / m[:, 1], torch.tensor([[1.0, 0]] * 9), draws=seeded(0))
    assert (found.estimate, found.low, found.high) == (math.inf,) * 3


def test_resamplings_without_a_value_could_be_anywhere() -> None:
    values = torch.cat([torch.arange(99.0), torch.tensor([math.nan, math.nan])])
    few = percentile_interval(49, values, level=0.9)
    assert few.low == pytest.approx(3)  # the two count as the lowest: the fifth of all is the value 3
    assert few.high == pytest.approx(95)
    many = percentile_interval(49, values, level=0.99)
    assert (many.low, many.high) == (-math.inf, math.inf)


# --- rank correlation ------------------------------------------------------------------------------------

values = st.lists(st.floats(-1e6, 1e6) | st.integers(-2, 2).map(float), min_size=6, max_size=6)


@given(rows=st.lists(st.tuples(values, values), min_size=1, max_size=4))
def test_spearman_is_scipys_ties_included(rows: list[tuple[list[float], list[float]]]) -> None:
    a, b = (torch.tensor([row[side] for row in rows], dtype=torch.float64) for side in (0, 1))
    for found, x, y in zip(spearman(a, b).tolist(), a.numpy(), b.numpy(), strict=True):
        constant = len(set(x)) == 1 or len(set(y)) == 1
        assert found == pytest.approx(0 if constant else spearmanr(x, y).statistic, abs=1e-9)


def test_spearman_by_hand() -> None:
    a = torch.tensor([[1.0, 2, 3], [1, 2, 3], [1, 2, 3], [1, 1, 3], [2, 2, 2]])
    b = torch.tensor([[10.0, 20, 30], [9, 5, 1], [1, 3, 2], [1, 2, 3], [1, 2, 3]])
    assert spearman(a, b).tolist() == pytest.approx([1, -1, 0.5, math.sqrt(0.75), 0])
