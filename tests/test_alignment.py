"""Alignment: what a similarity may not depend on, and where its lines lie on real digits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from conftest import seeded
from pags.data.sources import load_data
from pags.errors import UsageError
from pags.measure.alignment import Reference, alignment_share, derangement, picture_features
from pags.measure.lpips import LPIPS
from pags.score.denoiser import score_of
from pags.score.exact import IdealDenoiser

pytestmark = pytest.mark.usefixtures("global_state_untouched")


@pytest.fixture(scope="module")
def lpips() -> LPIPS:
    return LPIPS.load()


def vectors(n: int, seed: int = 0, channels: int = 1) -> Tensor:
    return torch.randn(n, channels, 8, 8, generator=seeded(seed))


@pytest.fixture(scope="module")
def reference(lpips: LPIPS) -> Reference:
    return Reference.of(vectors(6), lpips)


# --- shuffling -------------------------------------------------------------------------------------------


@given(n=st.integers(2, 50), seed=st.integers(0, 2**40))
def test_a_derangement_moves_everything(n: int, seed: int) -> None:
    found = derangement(n, seeded(seed)).tolist()
    assert sorted(found) == list(range(n))
    assert all(place != other for place, other in enumerate(found))


def test_a_derangement_is_random_and_seeded() -> None:
    assert torch.equal(derangement(20, seeded(1)), derangement(20, seeded(1)))
    partners = [int(derangement(5, seeded(seed))[0]) for seed in range(400)]
    for other in range(1, 5):  # each with probability 1/4
        assert abs(partners.count(other) - 100) < 4 * 75**0.5


# --- similarity ------------------------------------------------------------------------------------------


def test_a_score_is_fully_similar_to_itself(reference: Reference) -> None:
    assert reference.similarity(reference.score).tolist() == pytest.approx([1] * 6, abs=1e-6)
    assert reference.cosine(reference.score).tolist() == pytest.approx([1] * 6, abs=1e-6)
    other = reference.similarity(vectors(6, seed=1))
    assert (other < 0.9).all()


@settings(max_examples=10)
@given(exponent=st.integers(-20, 20), seed=st.integers(0, 100))
def test_similarity_does_not_see_the_length_of_a_vector(
    reference: Reference, exponent: int, seed: int
) -> None:
    """Each image may have a factor of its own."""
    x = vectors(6, seed)
    factors = 10.0**exponent * torch.linspace(0.5, 2, 6).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(reference.similarity(factors * x), reference.similarity(x), rtol=0, atol=1e-4)
    torch.testing.assert_close(reference.cosine(factors * x), reference.cosine(x), rtol=0, atol=1e-5)


def test_similarity_sees_the_sign(reference: Reference) -> None:
    assert (reference.similarity(-reference.score) < 0.9).all()
    assert reference.cosine(-reference.score).tolist() == pytest.approx([-1] * 6, abs=1e-6)


def test_pictures_fill_the_range_after_their_enlargement(lpips: LPIPS) -> None:
    """choices.md, 14: enlarged bilinearly to 64 px, then divided by the largest absolute value."""
    x = vectors(3, seed=4)
    large = torch.nn.functional.interpolate(x, size=(64, 64), mode="bilinear", align_corners=False)
    pictures = torch.stack([one / one.abs().max() for one in large])
    expected, found = lpips.features(pictures), picture_features(lpips, x)
    torch.testing.assert_close(lpips.distance(found, expected), torch.zeros(3), rtol=0, atol=1e-6)


def test_similarities_do_not_depend_on_the_batch_size(lpips: LPIPS) -> None:
    scores, x = vectors(5), vectors(5, seed=1)
    in_twos = Reference.of(scores, LPIPS.load(batch_size=2))
    whole = Reference.of(scores, lpips)
    for ours, theirs in zip(
        in_twos.similarity_and_shuffled(x, seeded()), whole.similarity_and_shuffled(x, seeded()), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_colours_are_taken(lpips: LPIPS) -> None:
    x = vectors(2, channels=3)
    assert Reference.of(x, lpips).similarity(x).tolist() == pytest.approx([1, 1], abs=1e-6)


@pytest.mark.parametrize("shape", [(5, 1, 8, 8), (6, 3, 8, 8), (6, 1, 16, 16)])
def test_vectors_of_another_shape_are_refused(reference: Reference, shape: tuple[int, ...]) -> None:
    for measure in (
        reference.similarity,
        lambda x: reference.similarity_and_shuffled(x, seeded(0)),
    ):
        with pytest.raises(UsageError, match=r"score's shape \(6, 1, 8, 8\)"):
            measure(torch.zeros(shape))


# --- lines -----------------------------------------------------------------------------------------------


def test_shuffled_similarities_are_those_with_another_image(reference: Reference, lpips: LPIPS) -> None:
    x = reference.score
    similar, shuffled = reference.similarity_and_shuffled(x, seeded(3))
    torch.testing.assert_close(similar, reference.similarity(x))
    assert (shuffled < 0.9).all()  # no vector met its own score
    every = [
        1 - lpips.distance(picture_features(lpips, x), reference.features[torch.full((6,), j)])
        for j in range(6)
    ]
    for place, value in enumerate(shuffled):
        others = torch.stack([every[j][place] for j in range(6) if j != place])
        assert (others - value).abs().min() < 1e-6


def test_the_floor_is_seeded(reference: Reference) -> None:
    assert torch.equal(reference.floor(seeded(1)), reference.floor(seeded(1)))
    assert not torch.equal(reference.floor(seeded(1)), reference.floor(seeded(2)))


def test_on_real_digits_the_floor_is_below_and_the_ceiling_above(lpips: LPIPS) -> None:
    """Two scores estimated from two halves of the training images agree more than noise does."""
    data = load_data("digits")
    images, half = data.test.images[:60], len(data.train) // 2
    first, second = (
        score_of(IdealDenoiser(part.images), images, 1.0)
        for part in (data.train.take(slice(0, half)), data.train.take(slice(half, None)))
    )
    reference = Reference.of(first, lpips)
    ceiling, shuffled = reference.similarity_and_shuffled(second, seeded(0))
    floor = reference.floor(seeded(0))
    assert ceiling.mean() > floor.mean() + 0.15
    assert ceiling.mean() > shuffled.mean() + 0.1
    assert (ceiling > floor).float().mean() > 0.9


# --- replacing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("places", [[], [2], [5, 0, 3]])
def test_replacing_some_scores_is_starting_again(
    reference: Reference, lpips: LPIPS, places: list[int]
) -> None:
    index = torch.tensor(places, dtype=torch.long)
    new = vectors(len(places), seed=9)
    whole = reference.score.clone()
    for place, score in zip(places, new, strict=True):
        whole[place] = score
    found, expected = reference.replaced(index, new), Reference.of(whole, lpips)
    assert torch.equal(found.score, expected.score)
    x = vectors(6, seed=2)
    torch.testing.assert_close(found.similarity(x), expected.similarity(x), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.cosine(x), expected.cosine(x))
    torch.testing.assert_close(reference.score, vectors(6))  # the old reference is as it was


# --- the headline ----------------------------------------------------------------------------------------


def normal(n: int, mean: float, seed: int) -> Tensor:
    return mean + 0.1 * torch.randn(n, generator=seeded(seed))


def test_the_share_is_that_of_the_means() -> None:
    """(0.5 − 0.2) / (0.8 − 0.2), and as uncertain as its parts: by the delta method."""
    n = 900
    similarity, shuffled, ceiling = normal(n, 0.5, 0), normal(n, 0.2, 1), normal(n, 0.8, 2)
    found = alignment_share(similarity, shuffled, ceiling, draws=seeded(0))
    s, low, high = (float(column.mean()) for column in (similarity, shuffled, ceiling))
    share = (s - low) / (high - low)
    assert found.estimate == pytest.approx(share, abs=1e-6)
    deviation = 0.1 / (high - low) / n**0.5 * (1 + (1 - share) ** 2 + share**2) ** 0.5
    assert found.high - found.low == pytest.approx(2 * 1.96 * deviation, rel=0.1)
    same = alignment_share(ceiling, shuffled, ceiling, draws=seeded(0))
    assert (same.estimate, same.low, same.high) == pytest.approx((1, 1, 1))


def test_a_share_over_seeds_is_wider() -> None:
    means = (0.5, 0.2, 0.8)
    columns = [[normal(200, mean, 10 * seed + k) for seed in range(3)] for k, mean in enumerate(means)]
    alone = alignment_share(*(column[0] for column in columns), draws=seeded(0))
    moved = [column + shift for column, shift in zip(columns[0], (-0.1, 0, 0.1), strict=True)]
    found = alignment_share(moved, *columns[1:], draws=seeded(0))
    assert found.estimate == pytest.approx(0.5, abs=0.03)
    assert found.high - found.low > 3 * (alone.high - alone.low)


def test_there_is_no_share_of_a_way_that_is_none() -> None:
    n = 100
    similarity, shuffled = normal(n, 0.5, 0), normal(n, 0.4, 1)
    never = alignment_share(similarity, shuffled, shuffled - 0.1, draws=seeded(0))
    assert never.to_record() == {"estimate": None, "low": None, "high": None, "level": 0.95}
    unsure = alignment_share(similarity, shuffled, shuffled + normal(n, 0, 2) + 0.005, draws=seeded(0))
    assert unsure.low == -torch.inf or unsure.high == torch.inf


def test_an_image_without_a_gradient_is_in_no_mean_of_the_share() -> None:
    similarity, shuffled, ceiling = normal(80, 0.5, 0), normal(80, 0.2, 1), normal(80, 0.8, 2)
    rest = alignment_share(similarity[8:], shuffled[8:], ceiling[8:], draws=seeded(0))
    ceiling[:8] += 5
    similarity[:8] = torch.nan
    found = alignment_share(similarity, shuffled, ceiling, draws=seeded(0))
    assert found.estimate == pytest.approx(rest.estimate)
    assert found.high - found.low == pytest.approx(rest.high - rest.low, rel=0.1)
