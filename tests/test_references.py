"""Scores and Bayes directions from denoisers, against worlds in which both are known."""

import math

import pytest
import torch
from torch import Tensor, nn

from conftest import seeded
from pags.arrays import cosines, norms
from pags.data.worlds import World, curved_world, distractor_world, linear_world, mixture_world
from pags.errors import UsageError
from pags.score.denoiser import BlindDenoiser, as_denoiser, bayes_direction, score_of
from pags.score.exact import IdealDenoiser
from pags.score.references import bayes_estimate, score_estimate

pytestmark = pytest.mark.usefixtures("global_state_untouched")

WORLDS = {
    "linear": linear_world((1, 4, 4), k=3),
    "mixture": mixture_world((1, 4, 4), k=3),
    "own manifolds": mixture_world((1, 4, 4), k=3, own_manifolds=True),
    "distractor": distractor_world((1, 4, 4), k=2, distractor_k=2),
    "curved": curved_world((1, 4, 4), k=2),
}
SIGMAS = (0.02, 0.1, 0.3, 0.5, 1.0, 2.0, 10.0)


def noisy(world: World, sigma: float, n: int = 40) -> tuple[Tensor, Tensor]:
    images, labels = world.sample(n, seeded(1))
    noise = torch.randn(images.shape, generator=seeded(2), dtype=torch.float64)
    return images + sigma / 2 * noise, labels


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_bayes_direction_is_the_truth_at_every_noise_level(name: str, sigma: float) -> None:
    """Where it says anything; where it says nothing, float64 cannot tell the two denoised images apart."""
    world = WORLDS[name]
    images, labels = noisy(world, sigma)
    found = bayes_direction(world.denoiser, images, sigma, labels)
    expected = world.bayes_gradient(images, labels, sigma)
    rounding = 4 / sigma**2 * torch.finfo(torch.float64).eps * norms(images)
    said = norms(found) > 0
    assert (norms(expected)[~said] <= 2 * rounding[~said]).all()
    torch.testing.assert_close(found, expected, rtol=0, atol=float(2 * rounding.max()))
    clear = norms(expected) > 1e4 * rounding
    assert (cosines(found, expected)[clear] > 0.999999).all()
    assert sigma < 0.2 or clear.float().mean() > 0.9


def test_float32_says_nothing_where_it_cannot_tell() -> None:
    """Not the rounding of two equal images, scaled up."""
    world = WORLDS["own manifolds"]
    images, labels = noisy(world, 0.1)
    truth = world.bayes_gradient(images, labels, 0.1)
    found = bayes_direction(world.denoiser, images.float(), 0.1, labels)
    certain = norms(truth) < 1e-9 * norms(truth).max()
    assert certain.any()
    assert not found[certain].any()


def test_directions_are_zero_where_classes_are_all_alike() -> None:
    images, labels = torch.rand(6, 1, 4, 4, generator=seeded(0)), torch.arange(6) % 2
    twice = IdealDenoiser(images.repeat(2, 1, 1, 1), torch.arange(2).repeat_interleave(6))
    assert not bayes_direction(twice, images, 0.5, labels).any()


# --- over noise ------------------------------------------------------------------------------------------


def test_the_mean_of_a_linear_score_is_the_score_itself() -> None:
    """Of a Gaussian class: both signs of a noise cancel, and nothing is left to be uncertain of."""
    world = WORLDS["linear"]
    images, labels = world.sample(20, seeded(1))
    clean = score_estimate(world.denoiser, images, 0.5, labels)
    found = score_estimate(world.denoiser, images, 0.5, labels, draws=2)
    torch.testing.assert_close(found.vectors, world.score(images, 0.5, labels), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found.vectors, clean.vectors, rtol=1e-8, atol=1e-8)
    assert (found.relative_error < 1e-8).all()
    assert not clean.error.any()
    assert (clean.estimator, found.estimator) == ("at the clean image", "mean over 4 noisy copies")


def noisy_mean(world: World, images: Tensor, labels: Tensor, sigma: float) -> Tensor:
    """The true Bayes gradient's mean over 4,000 noises."""
    total = torch.zeros_like(images)
    for draw in range(40):
        noise = sigma / 2 * torch.randn(100, *images.shape, generator=seeded(draw), dtype=torch.float64)
        many = (images + noise).flatten(0, 1)
        total += world.bayes_gradient(many, labels.repeat(100), sigma).reshape(noise.shape).mean(0)
    return total / 40


def test_the_error_is_how_far_the_estimate_is_off() -> None:
    """Its square on average, and it falls as one over the root of the draws."""
    world, sigma = WORLDS["mixture"], 0.5
    images, labels = world.sample(60, seeded(3))
    truth = noisy_mean(world, images, labels, sigma)
    errors = []
    for draws in (4, 16, 64):
        found = bayes_estimate(world.denoiser, images, sigma, labels, draws=draws, seed=5)
        off = norms(found.vectors - truth)
        assert float(off.square().sum() / found.error.square().sum()) == pytest.approx(1, abs=0.35)
        errors.append(float(found.error.square().mean().sqrt()))
        cosine = cosines(found.vectors, truth)
        shrunk = 1 / (1 + found.relative_error.square()).sqrt()
        assert float(cosine.mean()) == pytest.approx(float(shrunk.mean()), abs=0.03)
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.2)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.2)


def test_draws_are_common_and_named_by_the_image() -> None:
    world, sigma = WORLDS["mixture"], 0.4
    images, labels = world.sample(6, seeded(4))
    whole = bayes_estimate(world.denoiser, images, sigma, labels, draws=3)
    own, everything = (
        score_estimate(world.denoiser, images, sigma, which, draws=3).vectors for which in (labels, None)
    )
    torch.testing.assert_close(whole.vectors, own - everything)
    part = bayes_estimate(world.denoiser, images[2:4], sigma, labels[2:4], draws=3, places=[2, 3])
    torch.testing.assert_close(part.vectors, whole.vectors[2:4])
    torch.testing.assert_close(part.error, whole.error[2:4])
    other = bayes_estimate(world.denoiser, images, sigma, labels, draws=3, seed=1)
    assert not torch.allclose(other.vectors, whole.vectors)


def test_one_draw_has_no_error_and_is_refused() -> None:
    world = WORLDS["linear"]
    images, labels = world.sample(2, seeded(0))
    with pytest.raises(UsageError, match="no draws, or two or more; got 1"):
        score_estimate(world.denoiser, images, 0.5, draws=1)
    for bad in (0.0, -1.0, math.nan):
        with pytest.raises(UsageError, match="noise level above zero"):
            bayes_direction(world.denoiser, images, bad, labels)


# --- blind denoisers -------------------------------------------------------------------------------------


class Blind(nn.Module):
    """Halves the distance to mid-grey: the ideal denoiser of Gaussian images whose noise has their spread."""

    def forward(self, images: Tensor) -> Tensor:
        return (images + 0.5) / 2


def test_a_denoiser_that_takes_images_alone_is_blind() -> None:
    images = torch.rand(3, 1, 4, 4, generator=seeded(0))
    denoiser = as_denoiser(Blind())
    assert isinstance(denoiser, BlindDenoiser)
    # Gaussian images of deviation 0.25 around mid-grey, under noise of 0.25 (sigma = 0.5).
    expected = -(images - 0.5) / (2 * 0.25**2)
    torch.testing.assert_close(score_of(denoiser, images, 0.5), expected)
    torch.testing.assert_close(score_estimate(denoiser, images, 0.5, draws=2).vectors, expected)
    with pytest.raises(UsageError, match="knows no classes"):
        score_of(denoiser, images, 0.5, torch.zeros(3, dtype=torch.long))
    world = WORLDS["linear"]
    assert as_denoiser(world.denoiser) == world.denoiser
    assert isinstance(as_denoiser(lambda *arguments: arguments[0]), BlindDenoiser) is False
