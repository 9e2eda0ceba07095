"""Averages and intervals: they cover as often as they say, and keep pairs together."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, bootstrap, spearmanr  # type: ignore[import-untyped]
from scipy.stats import t as student
from torch import Tensor

from conftest import seeded
from pags.errors import UsageError
from pags.measure.intervals import percentile_interval, wilson_interval
from pags.measure.statistics import (
    Interval,
    interval,
    mean_intervals,
    missing,
    paired_differences,
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


# --- skewed ratios, and shares ----------------------------------------------------------------------------


def test_bca_is_scipys_where_t_is_the_normal_distribution() -> None:
    """With many images; on a skewed sample, where it is far from the percentile interval."""
    values = torch.randn(900, generator=seeded(3), dtype=torch.float64).mul(1.4).exp()
    found = interval(first_mean, values[:, None], draws=seeded(4), resamples=20_000)
    peer = bootstrap(
        (values.numpy(),), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    half = (peer.high - peer.low) / 2
    assert found.low == pytest.approx(peer.low, abs=0.04 * half)
    assert found.high == pytest.approx(peer.high, abs=0.04 * half)
    means = resampled_means(values[:, None], draws=seeded(4), resamples=20_000)[:, 0]
    assert found.high > percentile_interval(found.estimate, means).high + 0.1 * half


def test_a_skewed_ratio_is_covered_from_both_sides() -> None:
    """Off/on of lognormal changes on 100 images: 95 % intervals hold it in 92 % of 500 samples or more."""
    covered = 0
    for repetition in range(500):
        draws = seeded(repetition)
        off, on = torch.randn(2, 100, generator=draws, dtype=torch.float64).exp()
        found = interval(lambda m: m[:, 0] / m[:, 1], torch.stack([off, on], 1), draws=draws, resamples=500)
        covered += found.low <= 1 <= found.high
    assert covered / 500 >= 0.92


def test_few_images_have_the_width_of_students_t() -> None:
    """On average over samples of six: 2 t₅ s/√6, which is 1.31 times that of the normal distribution."""
    widths = []
    for seed in range(200):
        values = normal(6, 1, seed=seed)
        found = interval(first_mean, values, draws=seeded(seed), resamples=500)
        widths.append((found.high - found.low) / (2 * student.ppf(0.975, 5) * float(values.std()) / 6**0.5))
    assert float(np.mean(widths)) == pytest.approx(1, abs=0.1)


@given(yes=st.integers(0, 200), n=st.integers(4, 200), level=st.sampled_from([0.8, 0.95, 0.99]))
def test_a_share_has_wilsons_interval(yes: int, n: int, level: float) -> None:
    yes = min(yes, n)
    found = wilson_interval(yes / n, n, level)
    peer = binomtest(yes, n).proportion_ci(level, method="wilson")
    assert found.low <= peer.low + 1e-12
    assert found.high >= peer.high - 1e-12
    few = 3 if n > 50 else 2
    if few < yes < n - few:
        assert (found.low, found.high) == pytest.approx((peer.low, peer.high), abs=1e-12)
    column = (torch.arange(n) < yes).float()
    assert mean_intervals({"a": column}, draws=seeded(0), level=level)["a"] == found


@pytest.mark.parametrize("n", [20, 100, 1000])
def test_shares_are_covered_up_to_their_ends(n: int) -> None:
    """Exactly, by the binomial law: on average over shares 94.5 % or more, and never below 85 %.

    Wilson's own limits fall to 83 % where n times the share is about 0.2.
    """
    shares = np.concatenate([np.linspace(0.1 / n, 6 / n, 60), np.linspace(6 / n, 0.5, 60)])
    found = [wilson_interval(yes / n, n) for yes in range(n + 1)]
    low, high = (np.array([getattr(each, end) for each in found]) for end in ("low", "high"))
    yes = np.arange(n + 1)
    cover = [binom.pmf(yes, n, p)[(low <= p) & (p <= high)].sum() for p in shares]
    assert np.mean(cover) >= 0.945
    assert np.min(cover) >= 0.85


def test_a_difference_of_shares_is_not_certain_where_all_images_agree() -> None:
    same = torch.ones(100)
    found = paired_differences(
        {"correct": same, "a": normal(100)}, {"correct": same, "a": normal(100)}, draws=seeded(0)
    )
    assert (found["correct"].low, found["correct"].high) == pytest.approx((-0.037, 0.037), abs=1e-4)
    assert (found["a"].low, found["a"].high) == (0, 0)
    a, b = (torch.arange(100) < 90).float(), (torch.arange(100) >= 15).float()
    apart = paired_differences({"correct": a}, {"correct": b}, draws=seeded(0))["correct"]
    assert apart.estimate == pytest.approx(0.05)
    half = 1.96 * math.sqrt((0.25 - 0.05**2) / 100)
    assert (apart.low, apart.high) == pytest.approx((0.05 - half, 0.05 + half), abs=0.012)


def test_images_that_a_column_leaves_out_are_counted() -> None:
    columns = {"a": torch.tensor([1.0, torch.nan, torch.nan]), "b": torch.ones(3)}
    assert missing(columns) == {"a": 2}


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


def test_an_interval_over_seeds_and_images_is_the_two_way_formula() -> None:
    """√((t₅ s_seeds/√6)² + (1.96 s_images/√400)²), for a difference of two columns."""
    cells = normal(6, 400, 2, seed=9) + normal(6, 1, 2, seed=10) / 10 + normal(400, 2, seed=11)
    found = interval(lambda means: means[:, 0] - means[:, 1], list(cells), draws=seeded(2), resamples=4000)
    apart = cells[:, :, 0] - cells[:, :, 1]
    of_seeds = student.ppf(0.975, 5) * float(apart.mean(1).std()) / math.sqrt(6)
    of_images = 1.966 * float(apart.mean(0).std()) / math.sqrt(400)
    assert found.estimate == pytest.approx(float(apart.mean()))
    half = math.hypot(of_seeds, of_images)
    assert found.high - found.estimate == pytest.approx(half, rel=0.03)
    assert found.estimate - found.low == pytest.approx(half, rel=0.03)
    by_column = mean_intervals([{"a": each} for each in apart], draws=seeded(2), resamples=4000)["a"]
    assert (by_column.low, by_column.high) == pytest.approx((found.low, found.high), rel=0.02)


def test_a_ratio_over_seeds_has_the_spread_of_its_pseudo_values() -> None:
    """Quenouille's: S θ − (S − 1) θ without one seed; images without any spread leave these alone."""
    above, below = torch.tensor([1.0, 2, 4]).double(), torch.tensor([2.0, 1, 2]).double()
    tables = [torch.stack([a, b]).expand(9, 2) for a, b in zip(above, below, strict=True)]
    found = interval(lambda m: m[:, 0] / m[:, 1], tables, draws=seeded(0))
    whole = 7 / 5
    pseudo = np.array([3 * whole - 2 * (7 - a) / (5 - b) for a, b in ((1, 2), (2, 1), (4, 2))])
    half = student.ppf(0.975, 2) * pseudo.std(ddof=1) / math.sqrt(3)
    assert (found.low, found.high) == pytest.approx((whole - half, whole + half))


def test_seeds_that_agree_leave_the_interval_of_the_images() -> None:
    """The same numbers five times over say no more than once."""
    table = normal(400, 1)
    found = interval(first_mean, [table] * 5, draws=seeded(0))
    alone = interval(first_mean, table, draws=seeded(0))
    assert (found.estimate, found.low, found.high) == pytest.approx((alone.estimate, alone.low, alone.high))


CROSSED = {  # deviation over seeds, over images (for all seeds alike), of what is left
    "seeds differ": (1.0, 0.0, 1.0),
    "images differ": (0.02, 1.0, 0.3),
    "both differ": (0.2, 1.0, 0.3),
    "only noise": (0.0, 0.0, 1.0),
}


@pytest.mark.parametrize("count", [2, 3, 8])
@pytest.mark.parametrize("what", CROSSED)
def test_intervals_over_seeds_and_images_cover_as_often_as_they_say(what: str, count: int) -> None:
    """Seeds of the same 50 images: a 95 % interval holds the truth in 93 % of 300 experiments or more.

    Resampled seeds hold 70, 87 and 92 % with 2, 3 and 5 seeds, and images drawn anew for each seed 70 %.
    """
    over_seeds, over_images, left = CROSSED[what]
    covered = 0
    for repetition in range(300):
        draws = seeded(repetition)
        image = over_images * torch.randn(50, generator=draws, dtype=torch.float64)
        columns = [
            {
                "a": image
                + over_seeds * torch.randn(1, generator=draws, dtype=torch.float64)
                + left * torch.randn(50, generator=draws, dtype=torch.float64)
            }
            for _ in range(count)
        ]
        found = mean_intervals(columns, draws=draws, resamples=600)["a"]
        covered += found.low <= 0 <= found.high
    assert covered / 300 >= 0.93


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
