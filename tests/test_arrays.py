"""The per-example operations: their laws, against sums done in float64 one example at a time."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from conftest import seeded
from pags import arrays
from pags.errors import UsageError

pytestmark = pytest.mark.usefixtures("global_state_untouched")

seeds = st.integers(0, 2**32)
sizes = st.sampled_from([(1, 1, 1, 1), (3, 1, 2, 2), (2, 3, 8, 8), (4, 3, 32, 32), (5, 7)])
exponents = st.integers(-30, 30)


def vectors(size: tuple[int, ...], seed: int, exponent: int = 0) -> Tensor:
    """Examples of unlike lengths, the middle one of length 10^exponent or so."""
    draws = torch.randn(size, generator=seeded(seed)) * 10.0 ** torch.linspace(-2, 2, size[0]).reshape(
        -1, *[1] * (len(size) - 1)
    )
    return draws * 10.0**exponent


def lengths(x: Tensor) -> list[float]:
    """The l2 norms by the definition, in float64 and scaled so that nothing overflows."""
    found = []
    for example in x.double():
        peak = float(example.abs().max())
        found.append(peak * math.sqrt(float((example / peak).square().sum())) if peak else 0.0)
    return found


def random_basis(n: int, d: int, r: int, seed: int) -> Tensor:
    return torch.linalg.qr(torch.randn(n, d, r, generator=seeded(seed), dtype=torch.float64))[0]


# --- norms -----------------------------------------------------------------------------------------------


@given(size=sizes, seed=seeds)
def test_norms_dots_and_cosines_are_by_example(size: tuple[int, ...], seed: int) -> None:
    a, b = vectors(size, seed), vectors(size, seed + 1)
    products = [float((x * y).sum()) for x, y in zip(a.double(), b.double(), strict=True)]
    expected = torch.tensor(lengths(a), dtype=torch.float64)
    scale = expected * torch.tensor(lengths(b), dtype=torch.float64)
    torch.testing.assert_close(arrays.norms(a).double(), expected, rtol=1e-5, atol=0)
    error = arrays.dots(a, b).double() - torch.tensor(products, dtype=torch.float64)
    assert (error.abs() <= 1e-5 * scale).all()
    cosines = torch.tensor(products, dtype=torch.float64) / scale
    torch.testing.assert_close(arrays.cosines(a, b).double(), cosines, rtol=0, atol=1e-5)


def test_what_has_no_direction_has_no_cosine_and_takes_none_from_others() -> None:
    a = torch.tensor([[3.0, 4], [0, 0], [torch.nan, 1], [torch.inf, 1], [3, -4]], requires_grad=True)
    b = torch.tensor([[3.0, 4], [1, 0], [1, 0], [1, 0], [3, 4]])
    found = arrays.cosines(a, b)
    assert found[[0, 4]].tolist() == pytest.approx([1, -7 / 25])
    assert found[1:4].isnan().all()
    assert arrays.has_direction(a).tolist() == [True, False, False, False, True]
    assert arrays.zero_unless_directed(a)[1:4].tolist() == [[0, 0]] * 3
    assert arrays.nan_unless_directed(torch.ones(5), b, a.detach()).isnan().tolist() == [0, 1, 1, 1, 0]
    (gradient,) = torch.autograd.grad(found.nan_to_num().sum(), a)
    assert gradient[[0, 1, 4]].isfinite().all()
    assert gradient[4].any()


@given(size=sizes, seed=seeds, exponent=exponents, target=st.floats(1e-6, 1e6))
def test_scale_to_gives_the_norm_and_keeps_the_direction(
    size: tuple[int, ...], seed: int, exponent: int, target: float
) -> None:
    x = vectors(size, seed, exponent)
    scaled = arrays.scale_to(x, target)
    assert lengths(scaled) == pytest.approx([target] * len(x), rel=2e-6)
    unit = (scaled.double() / target).flatten(1)
    before = x.double().flatten(1) / torch.tensor(lengths(x), dtype=torch.float64)[:, None]
    torch.testing.assert_close(unit, before, rtol=1e-5, atol=1e-12)


def test_scale_to_takes_one_norm_an_example_and_leaves_zero_alone() -> None:
    x = torch.zeros(3, 1, 2, 2)
    x[0, 0, 0, 0], x[2, 0, 1] = -5, 1e-38
    scaled = arrays.scale_to(x, torch.tensor([2.0, 7.0, 0.5]))
    assert lengths(scaled) == pytest.approx([2, 0, 0.5])
    assert not arrays.scale_to(torch.zeros(2, 0), 1.0).numel()


@given(size=sizes, seed=seeds, radius=st.floats(1e-5, 1e4), near=st.floats(0, 1e-6) | st.floats(0, 100))
def test_clip_norm_is_never_above_the_radius(
    size: tuple[int, ...], seed: int, radius: float, near: float
) -> None:
    """Not by a single digit, for examples that begin just outside the ball or far from it."""
    radius = float(torch.tensor(radius))
    x = arrays.scale_to(vectors(size, seed), radius * (1 + near))
    clipped = arrays.clip_norm(x, radius)
    assert max(lengths(clipped)) <= radius
    assert float(arrays.norms(clipped).max()) <= radius
    torch.testing.assert_close(clipped * (1 + near), x, rtol=1e-5, atol=0)


@given(size=sizes, seed=seeds, radius=st.floats(1e-5, 1e4))
def test_clip_norm_is_idempotent_and_leaves_the_inside_alone(
    size: tuple[int, ...], seed: int, radius: float
) -> None:
    inside = arrays.scale_to(vectors(size, seed), radius * 0.999)
    assert torch.equal(arrays.clip_norm(inside, radius), inside)
    once = arrays.clip_norm(vectors(size, seed), radius)
    assert torch.equal(arrays.clip_norm(once, radius), once)


def test_clip_norm_holds_for_the_largest_images() -> None:
    """At 224 px a sum in float32 is off by more than the last digit."""
    x = vectors((4, 3, 224, 224), 350434)
    clipped = arrays.clip_norm(x, 1.0)
    assert max(lengths(clipped)) <= 1
    assert torch.equal(arrays.clip_norm(clipped, 1.0), clipped)
    assert arrays.norms(x).tolist() == pytest.approx(lengths(x), rel=1e-7)


def test_clip_norm_to_nothing_is_nothing() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert arrays.clip_norm(x, 0.0).tolist() == [[0, 0], [0, 0]]
    assert lengths(arrays.clip_norm(x, torch.tensor([1.0, 1.0]))) == pytest.approx([1, 0], abs=1e-6)


@given(size=sizes, seed=seeds, exponent=exponents)
def test_max_abs_scaled_fills_the_range(size: tuple[int, ...], seed: int, exponent: int) -> None:
    x = vectors(size, seed, exponent)
    for before, after in zip(x, arrays.max_abs_scaled(x), strict=True):
        assert float(after.abs().max()) == 1
        torch.testing.assert_close(after.double(), before.double() / before.double().abs().max())
    assert arrays.max_abs_scaled(torch.zeros(2, 3)).tolist() == [[0, 0, 0], [0, 0, 0]]


@given(size=sizes, seed=seeds, cut=st.integers(1, 4))
def test_no_operation_sees_how_the_batch_is_cut(size: tuple[int, ...], seed: int, cut: int) -> None:
    x, y = vectors(size, seed), vectors(size, seed + 1)
    for whole, parts in (
        (arrays.norms(x), [arrays.norms(p) for p in x.split(cut)]),
        (arrays.scale_to(x, 2.0), [arrays.scale_to(p, 2.0) for p in x.split(cut)]),
        (arrays.clip_norm(x, 2.0), [arrays.clip_norm(p, 2.0) for p in x.split(cut)]),
        (arrays.max_abs_scaled(x), [arrays.max_abs_scaled(p) for p in x.split(cut)]),
        (
            arrays.cosines(x, y),
            [arrays.cosines(p, q) for p, q in zip(x.split(cut), y.split(cut), strict=True)],
        ),
    ):
        torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-6, atol=1e-7)


# --- projections -----------------------------------------------------------------------------------------

shapes = st.sampled_from([((1, 2, 2), 1), ((1, 2, 2), 4), ((3, 2, 2), 5), ((1, 4, 4), 15)])


@given(shape=shapes, n=st.integers(1, 4), seed=seeds)
def test_project_is_the_orthogonal_projection(shape: tuple[tuple[int, ...], int], n: int, seed: int) -> None:
    size, r = shape
    x = vectors((n, *size), seed).double()
    y = vectors((n, *size), seed + 1).double()
    basis = random_basis(n, math.prod(size), r, seed)
    on, off = arrays.split(x, basis)
    torch.testing.assert_close(on + off, x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(arrays.project(on, basis), on, rtol=1e-9, atol=1e-9)  # idempotent
    torch.testing.assert_close(arrays.project(off, basis), torch.zeros_like(off), rtol=0, atol=1e-9)
    torch.testing.assert_close(  # symmetric
        arrays.dots(on, y), arrays.dots(x, arrays.project(y, basis)), rtol=1e-9, atol=1e-9
    )
    torch.testing.assert_close(  # Pythagoras
        arrays.norms(on) ** 2 + arrays.norms(off) ** 2, arrays.norms(x) ** 2, rtol=1e-9, atol=1e-9
    )


@given(shape=shapes, seed=seeds)
def test_project_finds_the_nearest_point_of_the_span(shape: tuple[tuple[int, ...], int], seed: int) -> None:
    size, r = shape
    x = vectors((3, *size), seed).double()
    basis = random_basis(3, math.prod(size), r, seed)
    for example, columns, on in zip(x, basis, arrays.project(x, basis), strict=True):
        nearest = columns @ torch.linalg.lstsq(columns, example.flatten()[:, None]).solution
        torch.testing.assert_close(on.flatten(), nearest[:, 0], rtol=1e-9, atol=1e-9)


@given(shape=shapes, padding=st.integers(1, 3), seed=seeds)
def test_zero_columns_change_nothing(shape: tuple[tuple[int, ...], int], padding: int, seed: int) -> None:
    size, r = shape
    x = vectors((3, *size), seed).double()
    basis = random_basis(3, math.prod(size), r, seed)
    padded = torch.cat([basis, basis.new_zeros(3, math.prod(size), padding)], 2)
    torch.testing.assert_close(arrays.project(x, padded), arrays.project(x, basis))


def test_an_empty_basis_holds_nothing_and_a_full_one_everything() -> None:
    x = vectors((3, 1, 2, 2), 0).double()
    assert torch.equal(arrays.split(x, torch.zeros(3, 4, 0, dtype=x.dtype))[1], x)
    torch.testing.assert_close(arrays.project(x, random_basis(3, 4, 4, 0)), x)


@given(shape=shapes, seed=seeds, cut=st.integers(1, 3))
def test_projections_do_not_see_how_the_batch_is_cut(
    shape: tuple[tuple[int, ...], int], seed: int, cut: int
) -> None:
    size, r = shape
    x, basis = vectors((4, *size), seed).double(), random_basis(4, math.prod(size), r, seed)
    parts = [arrays.project(p, b) for p, b in zip(x.split(cut), basis.split(cut), strict=True)]
    torch.testing.assert_close(torch.cat(parts), arrays.project(x, basis))


# --- the contract ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(1, 8, 8), r"float tensor \(N, C, H, W\).*shape \(1, 8, 8\).*images\[None\]"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.uint8), r"torch.uint8.*images.float\(\) / 255"),
        (torch.full((1, 1, 2, 2), 255.0), r"every pixel in \[0, 1\].*255.*dividing"),
        (torch.full((1, 1, 2, 2), -0.01), "every pixel.*-0.01"),
        (torch.full((1, 1, 2, 2), torch.nan), "every pixel.*nan"),
        (torch.tensor([0.5, torch.nan, 0.5, 0.5]).reshape(1, 1, 2, 2), "every pixel.*nan"),
        (torch.full((1, 1, 2, 2), torch.inf), "every pixel.*inf"),
    ],
)
def test_bad_images_are_refused(bad: Tensor, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        arrays.check_images(bad)


def test_images_from_black_to_white_are_taken() -> None:
    arrays.check_images(torch.tensor([0.0, 1.0, 0.5, 0.25]).reshape(1, 1, 2, 2))
    arrays.check_images(torch.zeros(0, 1, 2, 2))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.tensor([0.0, 1.0]), "one integer an image.*float32"),
        (torch.tensor([[0], [1]]), r"one integer an image.*\(2, 1\)"),
        (torch.tensor([0, 3]), "labels from 0 to 2; got labels from 0 to 3"),
        (torch.tensor([-1, 0]), "labels from 0 to 2; got labels from -1 to 0"),
    ],
)
def test_bad_labels_are_refused(bad: Tensor, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        arrays.check_labels(bad, 3)


def test_good_labels_are_taken() -> None:
    arrays.check_labels(torch.tensor([0, 2, 1]), 3)
    arrays.check_labels(torch.zeros(0, dtype=torch.long), 3)
