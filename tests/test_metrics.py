"""Metrics against other people's code and direct formulas, and the laws that all of them share."""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from conftest import seeded
from pags.errors import PagsError, UsageError
from pags.measure.alignment import control_similarities, derangement, phase_randomised
from pags.measure.lpips import LPIPS
from pags.measure.metrics import Metric, get_metric, make_metric, rank_correlation
from pags.measure.ssim import ssim
from pags.measure.statistics import missing

pytestmark = pytest.mark.usefixtures("global_state_untouched")

OURS = ("lpips", "cosine", "ssim", "rank")


@pytest.fixture(scope="module")
def metrics() -> dict[str, Metric]:
    return {name: get_metric(name) for name in OURS}


def vectors(n: int = 4, seed: int = 0, channels: int = 1, side: int = 8) -> Tensor:
    return torch.randn(n, channels, side, side, generator=seeded(seed))


# --- laws ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_vector_is_most_alike_to_itself(metrics: dict[str, Metric], name: str, channels: int) -> None:
    metric, x = metrics[name], vectors(channels=channels)
    low, high = metric.bounds[0] - 1e-6, metric.bounds[1] + 1e-6
    assert metric.name == name
    assert metric.compare(x, x).tolist() == pytest.approx([high] * 4, abs=1e-5)
    for other in (vectors(seed=1, channels=channels), -x):
        values = metric.compare(x, other)
        assert values.shape == (4,)
        assert (values < 0.9).all()
        assert ((low <= values) & (values <= high)).all()


@settings(max_examples=8)
@given(exponent=st.integers(-12, 12), seed=st.integers(0, 100), name=st.sampled_from(OURS))
def test_no_metric_sees_the_scale(metrics: dict[str, Metric], exponent: int, seed: int, name: str) -> None:
    x, y = vectors(seed=seed), vectors(seed=seed + 1)
    factors = 10.0**exponent * torch.linspace(0.5, 2, 4).reshape(-1, 1, 1, 1)
    expected = metrics[name].compare(x, y)
    torch.testing.assert_close(metrics[name].compare(x, factors * y), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(metrics[name].compare(factors * x, y), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", OURS)
def test_each_image_is_compared_by_itself(metrics: dict[str, Metric], name: str) -> None:
    x, y = vectors(6), vectors(6, seed=1)
    whole = metrics[name].compare(x, y)
    alone = torch.cat([metrics[name].compare(x[i : i + 1], y[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(alone, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", OURS)
def test_a_reference_says_what_comparing_says(metrics: dict[str, Metric], name: str) -> None:
    x, y = vectors(6), vectors(6, seed=1)
    reference = metrics[name].reference(x)
    same, shuffled = reference.similarity_and_shuffled(y, seeded(3))
    torch.testing.assert_close(same, metrics[name].compare(x, y))
    every = torch.stack([metrics[name].compare(x[[j] * 6], y) for j in range(6)])  # (score, vector)
    for place, value in enumerate(shuffled):
        others = [every[j, place] for j in range(6) if j != place]
        assert min(abs(other - value) for other in others) < 1e-5
    floor = reference.floor(seeded(2))
    assert torch.equal(floor, reference.floor(seeded(2)))
    assert floor.mean() < 0.9


@pytest.mark.parametrize("name", OURS)
def test_vectors_of_another_shape_are_refused(metrics: dict[str, Metric], name: str) -> None:
    with pytest.raises(UsageError, match=r"score's shape \(4, 1, 8, 8\)"):
        metrics[name].reference(vectors()).similarity(vectors(side=16))


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("nothing", [0.0, torch.nan, torch.inf])
def test_what_has_no_direction_is_in_no_metric(metrics: dict[str, Metric], name: str, nothing: float) -> None:
    """On either side; the other images are as they were, and a single bad entry spoils its image alone."""
    x, y = vectors(6), vectors(6, seed=1)
    expected = metrics[name].compare(x, y)
    x[1], y[2] = nothing, nothing
    if nothing:
        y[4, 0, 3, 3] = nothing
    gone = [1, 2, 4] if nothing else [1, 2]
    kept = [place for place in range(6) if place not in gone]
    same, shuffled = metrics[name].reference(x).similarity_and_shuffled(y, seeded(3))
    torch.testing.assert_close(same[kept], expected[kept], rtol=0, atol=1e-6)
    assert same[gone].isnan().all()
    other = derangement(6, seeded(3))
    assert shuffled.isnan().tolist() == [i in gone[1:] or int(other[i]) == 1 for i in range(6)]
    assert missing({"whole": expected, "same": same}) == {"same": len(gone)}


def test_short_vectors_are_compared_as_long_ones(metrics: dict[str, Metric]) -> None:
    """Of a length whose square float32 does not have, as gradients of confident images are."""
    x, y = vectors(), vectors(seed=1)
    for metric in metrics.values():
        torch.testing.assert_close(
            metric.compare(1e-30 * x, 1e-30 * y), metric.compare(x, y), rtol=0, atol=1e-5
        )


def pictures(x: Tensor) -> Tensor:
    """Zero is mid-grey, and the largest entry of an image black or white."""
    return torch.stack([one / one.abs().max() / 2 + 0.5 for one in x])


# --- controls --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
def test_controls_are_what_they_say_for_every_metric(metrics: dict[str, Metric], name: str) -> None:
    """Each is the metric of the score and a vector made here another way; and none needs its neighbours."""
    metric, score = metrics[name], vectors(5, seed=3, channels=3)
    found = control_similarities(metric.reference(score), score, seed=7)
    assert list(found) == ["negated", "phase-randomised", "shuffled", "floor"]
    torch.testing.assert_close(found["negated"], metric.compare(score, -score))
    every = torch.stack([metric.compare(score, score.roll(k, 0)) for k in range(1, 5)])
    assert ((every - found["shuffled"]).abs().amin(0) < 1e-5).all()
    if name in ("cosine", "rank"):
        assert (found["negated"] + 1).abs().max() < 1e-5
    part = slice(2, 4)
    again = control_similarities(
        metric.reference(score[part]), score[part], seed=7, places=[2, 3], others=score[:2]
    )
    for kind in ("negated", "phase-randomised", "floor"):
        torch.testing.assert_close(again[kind], found[kind][part], rtol=0, atol=1e-5)
    torch.testing.assert_close(again["shuffled"], metric.compare(score[part], score[:2]))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 10), (3, 32, 32)])
def test_random_phases_keep_the_spectrum_and_nothing_else(shape: tuple[int, int, int]) -> None:
    x = torch.randn(40, *shape, generator=seeded(1), dtype=torch.float64).cumsum(2).cumsum(3)
    found = phase_randomised(x, seed=0)
    torch.testing.assert_close(torch.fft.fft2(found).abs(), torch.fft.fft2(x).abs())
    torch.testing.assert_close(found.mean((2, 3)), x.mean((2, 3)))
    a, b = ((v - v.mean((2, 3), keepdim=True)).flatten(1) for v in (x, found))
    cosine = torch.nn.functional.cosine_similarity(a, b)
    assert abs(float(cosine.mean())) < 0.2
    if shape[0] == 3:  # colours keep together: the products of two channels' transforms stay
        before, after = torch.fft.fft2(x), torch.fft.fft2(found)
        torch.testing.assert_close(after[:, 0] * after[:, 1].conj(), before[:, 0] * before[:, 1].conj())


def test_random_phases_of_a_wave_are_a_wave_elsewhere() -> None:
    rows = torch.arange(16.0)
    wave = (2 * torch.pi * 3 * rows / 16).cos().expand(16, 16)[None, None].repeat(3, 1, 1, 1)
    found = phase_randomised(wave, seed=1)
    for one in found:
        shift = torch.fft.rfft(one[0, 0])[3].angle()
        torch.testing.assert_close(one[0, 0], (2 * torch.pi * 3 * rows / 16 + shift).cos(), rtol=0, atol=1e-5)


# --- structural similarity -------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "channels"), [(11, 1), (32, 3), (17, 2)])
def test_ssim_is_that_of_scikit_image(side: int, channels: int) -> None:
    """Its mean leaves out the 5 px at each border, where the window looks outside."""
    skimage = pytest.importorskip("skimage.metrics")
    x, y = vectors(3, side=side, channels=channels), vectors(3, seed=1, side=side, channels=channels)
    y = 0.6 * x + 0.4 * y
    expected = [
        skimage.structural_similarity(
            a.double().numpy(), b.double().numpy(), channel_axis=0, data_range=1.0,
            gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        )
        for a, b in zip(pictures(x), pictures(y), strict=True)
    ]  # fmt: skip
    assert ssim(x, y).tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("side", [3, 8, 10, 12])
def test_ssim_is_wangs_formula_window_by_window(side: int) -> None:
    """Equation 13 written out with loops, and the largest odd window that fits below 11 px."""
    x, y = vectors(1, side=side)[0, 0].double(), vectors(1, seed=1, side=side)[0, 0].double()
    a, b = (x / x.abs().max() / 2 + 0.5).numpy(), (y / y.abs().max() / 2 + 0.5).numpy()
    size = max(odd for odd in range(1, 12, 2) if odd <= side)
    offsets = np.arange(size) - (size - 1) / 2
    w = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    w /= w.sum()
    values = []
    for i in range(side - size + 1):
        for j in range(side - size + 1):
            p, q = a[i : i + size, j : j + size], b[i : i + size, j : j + size]
            mp, mq = (w * p).sum(), (w * q).sum()
            sp, sq = (w * (p - mp) ** 2).sum(), (w * (q - mq) ** 2).sum()
            spq = (w * (p - mp) * (q - mq)).sum()
            c1, c2 = 0.01**2, 0.03**2
            values.append((2 * mp * mq + c1) * (2 * spq + c2) / ((mp**2 + mq**2 + c1) * (sp + sq + c2)))
    found = ssim(x[None, None].float(), y[None, None].float())
    assert float(found[0]) == pytest.approx(float(np.mean(values)), abs=1e-6)


# --- rank correlation ------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10**6), levels=st.sampled_from([2, 3, 10, 10**6]))
def test_rank_correlation_is_scipys(seed: int, levels: int) -> None:
    """With few levels most entries are tied."""
    stats = pytest.importorskip("scipy.stats")
    x = torch.randint(levels, (3, 2, 4, 4), generator=seeded(seed)).float()
    y = torch.randint(levels, (3, 2, 4, 4), generator=seeded(seed + 1)).float()
    for a, b, found in zip(x.flatten(1), y.flatten(1), rank_correlation(x, y), strict=True):
        if a.unique().numel() > 1 and b.unique().numel() > 1:
            assert float(found) == pytest.approx(stats.spearmanr(a.numpy(), b.numpy()).statistic, abs=1e-6)
        else:
            assert found.isnan()


def test_ranks_see_order_only(metrics: dict[str, Metric]) -> None:
    x, y = vectors(), vectors(seed=1)
    torch.testing.assert_close(metrics["rank"].compare(x, y.exp()), metrics["rank"].compare(x, y))
    torch.testing.assert_close(metrics["rank"].compare(x, -y), -metrics["rank"].compare(x, y))


# --- foreign metrics -------------------------------------------------------------------------------------


def test_a_metric_of_any_function_sees_pictures() -> None:
    seen: list[Tensor] = []

    def distance(a: Tensor, b: Tensor) -> Tensor:
        seen.extend([a, b])
        return (a - b).abs().mean((1, 2, 3), keepdim=True)

    x = 1000 * vectors()
    metric = make_metric(distance, name="mean difference", unit=True, at_least=16)
    assert metric.compare(x, 3 * x).tolist() == pytest.approx([1.0] * 4)
    assert seen[0].shape == (4, 3, 16, 16)
    assert 0 <= float(seen[0].min()) < float(seen[0].max()) <= 1
    assert seen[0].flatten(1).sub(0.5).abs().amax(1).tolist() == pytest.approx([0.5] * 4)
    opposite = make_metric(lambda a, b: (a * b).sum((1, 2, 3)), name="dot", distance=False)
    assert (opposite.compare(x, -x) < 0).all()


def test_lpips_through_the_adapter_is_lpips(metrics: dict[str, Metric]) -> None:
    x, y = vectors(channels=3), vectors(seed=1, channels=3)
    adapted = make_metric(LPIPS.load(), name="again", at_least=64)
    torch.testing.assert_close(adapted.compare(x, y), metrics["lpips"].compare(x, y), rtol=0, atol=1e-5)


def test_an_unknown_metric_and_a_missing_package_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="a metric among lpips, cosine, ssim, rank"):
        get_metric("l2")
    monkeypatch.setitem(sys.modules, "dreamsim", None)
    with pytest.raises(PagsError, match="pip install dreamsim"):
        get_metric("dreamsim")


def test_weights_that_cannot_be_fetched_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(**options: object) -> None:
        raise OSError("the network is closed")

    package = ModuleType("lpips")
    package.LPIPS = unreachable  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lpips", package)
    with pytest.raises(PagsError, match=r"weights of lpips-vgg .* the network is closed"):
        get_metric("lpips-vgg")
