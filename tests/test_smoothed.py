"""Smoothed classifiers against a linear one, of which the smoothed class and its radius are known exactly."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, norm  # type: ignore[import-untyped]
from torch import Tensor

from conftest import Linear, Traces, network_with_batch_norm, seeded
from pags.errors import UsageError
from pags.training.smoothed import (
    ABSTAIN,
    Certificate,
    certified_accuracy,
    certify,
    lower_bound,
    smoothed_counts,
    smoothed_predict,
)

pytestmark = pytest.mark.usefixtures("global_state_untouched")

SIGMA = 0.5
WEIGHT = torch.tensor([[1.0, 2, 0, 0], [0, 0, -1, 1]])


def at_margins(margins: Tensor) -> Tensor:
    """Points at these signed distances from the border of the linear classifier, (n, 1, 2, 2)."""
    towards = (WEIGHT[0] - WEIGHT[1]) / (WEIGHT[0] - WEIGHT[1]).norm()
    return (margins[:, None] * towards).view(-1, 1, 2, 2)


def test_counts_are_binomial_with_the_exact_probability() -> None:
    """Φ(margin/σ), at ten margins."""
    margins, n = torch.linspace(-1, 1, 10), 4000
    counts = smoothed_counts(Linear(WEIGHT), at_margins(margins), sigma=SIGMA, n=n, draws=seeded(0))
    assert counts.sum(1).tolist() == [n] * 10
    for count, margin in zip(counts[:, 0].tolist(), margins.tolist(), strict=True):
        assert binomtest(count, n, norm.cdf(margin / SIGMA)).pvalue > 1e-3


def test_certified_radii_come_up_to_the_true_ones_and_not_above() -> None:
    """The true radius is the margin itself; each bound is wrong with a probability of alpha at most."""
    true, alpha = torch.full((300,), 0.4), 0.05
    found = certify(Linear(WEIGHT), at_margins(true), sigma=SIGMA, n0=50, n=400, alpha=alpha, draws=seeded(1))
    above = int((found.radius > true).sum())
    assert above <= binom.ppf(0.999, 300, alpha)
    assert above > 0  # a bound that is never wrong is not a 95 % bound
    assert (found.label == 0).all()
    assert float(found.radius.median()) == pytest.approx(0.4, rel=0.25)
    more = certify(Linear(WEIGHT), at_margins(true[:20]), sigma=SIGMA, n=10_000, draws=seeded(1))
    assert float(more.radius.median()) == pytest.approx(0.4, rel=0.1)


def test_on_the_border_it_abstains() -> None:
    found = certify(Linear(WEIGHT), at_margins(torch.zeros(50)), sigma=SIGMA, n=200, draws=seeded(2))
    assert found.label.tolist() == [ABSTAIN] * 50
    assert not found.radius.any()
    predicted = smoothed_predict(Linear(WEIGHT), at_margins(torch.zeros(50)), sigma=SIGMA, draws=seeded(2))
    assert predicted.tolist() == [ABSTAIN] * 50


def test_a_class_that_is_always_named_has_the_largest_radius_that_n_allows() -> None:
    """σ Φ⁻¹(alpha^(1/n))."""
    found = certify(Linear(WEIGHT), at_margins(torch.tensor([50.0])), sigma=SIGMA, n=500, draws=seeded())
    assert float(found.radius) == pytest.approx(SIGMA * norm.ppf(0.001 ** (1 / 500)), rel=1e-5)
    assert float(found.probability) == pytest.approx(0.001 ** (1 / 500), rel=1e-6)


@given(n=st.integers(1, 300), alpha=st.floats(1e-4, 0.4), data=st.data())
def test_the_bound_is_where_the_tail_has_the_level(n: int, alpha: float, data: st.DataObject) -> None:
    """P(at least s successes) = alpha at the bound (Clopper and Pearson), and scipy's own interval agrees."""
    s = data.draw(st.integers(0, n))
    bound = float(lower_bound(torch.tensor([s]), n, alpha))
    if s == 0:
        assert bound == 0
        return
    assert binom.sf(s - 1, n, bound) == pytest.approx(alpha, rel=1e-6)
    interval = binomtest(s, n).proportion_ci(1 - 2 * alpha, method="exact")
    assert bound == pytest.approx(interval.low, rel=1e-6)


def test_predictions_follow_the_two_sided_test() -> None:
    images = at_margins(torch.linspace(-0.3, 0.3, 21))
    counts = smoothed_counts(Linear(WEIGHT), images, sigma=SIGMA, n=100, draws=seeded(4))
    found = smoothed_predict(Linear(WEIGHT), images, sigma=SIGMA, n=100, alpha=0.01, draws=seeded(4))
    sure = [binomtest(int(c), 100, 0.5).pvalue <= 0.01 for c in counts[:, 0]]
    expected = [int(c.argmax()) if s else ABSTAIN for c, s in zip(counts, sure, strict=True)]
    assert found.tolist() == expected
    assert {ABSTAIN, 0, 1} == set(expected)


@pytest.mark.parametrize("batch_size", [1, 7, 16, 1000])
def test_the_noise_of_an_image_does_not_depend_on_how_anything_is_cut(batch_size: int) -> None:
    images, model = at_margins(torch.linspace(-1, 1, 5)), Linear(WEIGHT)
    whole = smoothed_counts(model, images, sigma=SIGMA, n=45, draws=seeded(3))
    cut = smoothed_counts(model, images, sigma=SIGMA, n=45, draws=seeded(3), batch_size=batch_size)
    assert torch.equal(cut, whole)
    draws = seeded(3)
    parts = [smoothed_counts(model, part, sigma=SIGMA, n=45, draws=draws) for part in images.split(2)]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(smoothed_counts(model, images, sigma=SIGMA, n=45, draws=seeded(4)), whole)


def test_no_more_than_a_batch_is_seen_at_a_time_and_nothing_is_left_behind() -> None:
    model, sizes = network_with_batch_norm(), list[int]()
    traces = Traces(model)
    model[5].register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    smoothed_counts(
        model, torch.rand(3, 1, 4, 4, generator=seeded()), sigma=1.0, n=50, draws=seeded(), batch_size=32
    )
    assert sizes == [32, 32, 32, 32, 22]
    traces.assert_none()


def test_certified_accuracy_counts_right_labels_at_each_radius() -> None:
    certificate = Certificate(
        torch.tensor([0, 1, ABSTAIN, 2]),
        torch.tensor([0.5, 1.0, 0.0, 2.0]),
        torch.tensor([0.9, 0.9, 0.4, 0.9]),
    )
    found = certified_accuracy(certificate, torch.tensor([0, 1, 2, 0]), [0, 0.5, 0.75, 1.5])
    assert found.tolist() == [0.5, 0.5, 0.25, 0]


@pytest.mark.parametrize("wrong", [{"sigma": 0.0}, {"sigma": math.nan}, {"n": 0}, {"batch_size": 0}])
def test_senseless_requests_are_refused(wrong: dict[str, float]) -> None:
    images = at_margins(torch.ones(1))
    with pytest.raises(UsageError, match="positive"):
        smoothed_counts(Linear(WEIGHT), images, **{"sigma": 1.0, "n": 5, "draws": seeded(), **wrong})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="0 images"):
        smoothed_counts(Linear(WEIGHT), images[:0], sigma=1.0, n=5, draws=seeded())
    for level in (0.0, 0.5, 1.0, math.nan):
        with pytest.raises(UsageError, match="a level"):
            certify(Linear(WEIGHT), images, sigma=1.0, alpha=level, draws=seeded())
