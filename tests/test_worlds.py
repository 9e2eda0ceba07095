"""Exact worlds against torch's own distributions, automatic and finite differences, and their own samples."""

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import MultivariateNormal

from conftest import central_differences, seeded
from pags.arrays import check_images, dots, project
from pags.data.worlds import Bayes, World, curved_world, distractor_world, linear_world, mixture_world
from pags.data.worlds.curved import make_embedding
from pags.data.worlds.laws import Mixture, SignalDistractor
from pags.errors import PagsError, UsageError
from pags.measure.gradients import input_gradient
from pags.score.denoiser import Denoiser, score_of

SHAPE = (2, 3, 4)
MAKERS: dict[str, Callable[..., World]] = {
    "linear": linear_world,
    "mixture": mixture_world,
    "own manifolds": lambda *a, **o: mixture_world(*a, own_manifolds=True, **({"noise": 0.05} | o)),
    "curved": lambda *a, **o: curved_world(*a, **({"k": 1, "noise": 0.05} | o)),
    "distractor": lambda *a, **o: distractor_world(*a, **({"informative": 0.5} | o)),
}
WORLDS = {name: make(SHAPE, seed=3) for name, make in MAKERS.items()}
every_world = pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS.keys())
every_sigma = pytest.mark.parametrize("sigma", [0.0, 0.1, 1.0])


def with_prior(world: World) -> World:
    """The world with classes that are not equally likely, so that a forgotten prior shows."""
    prior = torch.arange(1.0, world.classes + 1, dtype=torch.float64)
    return dataclasses.replace(world, log_prior=(prior / prior.sum()).log())


def gradient(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(f(x).sum(), x)[0]


def noisy(world: World, sigma: float, n: int = 16, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images as they are seen through noise."""
    images, labels = world.sample(n, seeded(seed))
    return images + sigma / 2 * torch.randn(
        images.shape, generator=seeded(seed + 1), dtype=images.dtype
    ), labels


def components(law: Mixture, variance: float) -> MultivariateNormal:
    """The mixture's components by their full covariances."""
    low_rank = law.axes @ torch.diag_embed(law.spreads) @ law.axes.mT
    return MultivariateNormal(
        law.means, low_rank + (law.noise**2 + variance) * torch.eye(law.means.shape[1]).double()
    )


def truth(law: Mixture | SignalDistractor, x: Tensor, variance: float) -> Tensor:
    """log p(x | y) for all classes, from full covariance matrices."""
    if isinstance(law, SignalDistractor):
        rest = [truth(law.distractor, x[:, ~law.mask] - shift, variance) for shift in law.shifts]
        return truth(law.signal, x[:, law.mask], variance) + torch.cat(rest, 1)
    each = components(law, variance).log_prob(x[:, None])  # (n, m)
    return (law.log_shares + each[:, None]).logsumexp(2)


# --- densities and scores --------------------------------------------------------------------------------


@every_world
@every_sigma
def test_density_is_that_of_full_covariances(world: World, sigma: float) -> None:
    world = with_prior(world)
    images, labels = noisy(world, sigma)
    assert isinstance(world.law, Mixture | SignalDistractor)
    expected = truth(world.law, images.flatten(1), (sigma / 2) ** 2)
    given_label = expected[torch.arange(len(labels)), labels]
    torch.testing.assert_close(world.log_density(images, sigma, labels), given_label, rtol=1e-9, atol=1e-8)
    marginal = (expected + world.log_prior).logsumexp(1)
    torch.testing.assert_close(world.log_density(images, sigma), marginal, rtol=1e-9, atol=1e-8)
    posterior = (expected + world.log_prior).softmax(1)
    torch.testing.assert_close(world.log_posterior(images, sigma).exp(), posterior, rtol=1e-7, atol=1e-12)


@every_world
@every_sigma
def test_score_is_the_density_s_gradient(world: World, sigma: float) -> None:
    world = with_prior(world)
    images, labels = noisy(world, sigma)
    marginal = gradient(lambda x: world.log_density(x, sigma), images)
    torch.testing.assert_close(world.score(images, sigma), marginal, rtol=1e-8, atol=1e-7)
    conditional = gradient(lambda x: world.log_density(x, sigma, labels), images)
    torch.testing.assert_close(world.score(images, sigma, labels), conditional, rtol=1e-8, atol=1e-7)


@every_world
def test_score_by_finite_differences(world: World) -> None:
    images, _ = noisy(world, 0.5, n=2)
    differences = central_differences(lambda x: world.log_density(x, 0.5), images)  # (n, n, c, h, w)
    expected = torch.stack([differences[0, 0], differences[1, 1]])
    torch.testing.assert_close(world.score(images, 0.5), expected, rtol=1e-5, atol=1e-5)


def test_density_integrates_to_one() -> None:
    world = linear_world((1, 1, 2), k=1, noise=0.05)
    ticks = torch.linspace(-0.5, 1.5, 121, dtype=torch.float64)
    grid = torch.cartesian_prod(ticks, ticks).reshape(-1, 1, 1, 2)
    for sigma in (0.0, 0.2):
        assert float(world.log_density(grid, sigma).exp().sum()) * (2 / 120) ** 2 == pytest.approx(
            1, abs=1e-6
        )


def test_work_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world = WORLDS["mixture"]
    images, labels = world.sample(20, seeded())
    whole = [world.score(images, 0.3), world.bayes_gradient(images, labels), world.tangent_basis(images)]
    monkeypatch.setattr("pags.data.worlds.world.PART", 7)
    parts = [world.score(images, 0.3), world.bayes_gradient(images, labels), world.tangent_basis(images)]
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-9)


# --- the denoiser ----------------------------------------------------------------------------------------


@every_world
@pytest.mark.parametrize("sigma", [0.05, 0.8])
def test_denoiser_obeys_the_contract_and_tweedie(world: World, sigma: float) -> None:
    images, labels = noisy(world, sigma)
    assert isinstance(world.denoiser, Denoiser)
    for given_labels in (None, labels):
        from_denoiser = score_of(world.denoiser, images, sigma, given_labels)
        torch.testing.assert_close(
            from_denoiser, world.score(images, sigma, given_labels), rtol=1e-8, atol=1e-7
        )
    assert world.denoiser(images.float(), sigma).dtype == torch.float32


@pytest.mark.parametrize("name", ["linear", "curved", "distractor"])
def test_denoiser_is_the_posterior_mean(name: str) -> None:
    """Against samples of the world, weighted with the likelihood of the noise that makes them the image."""
    world = MAKERS[name]((1, 2, 4), seed=1, k=1)
    sigma = 0.3
    images, _ = noisy(world, sigma, n=4, seed=5)
    clean, _ = world.sample(200_000, seeded(7))
    distances = torch.cdist(images.flatten(1), clean.flatten(1)).square()
    weights = (-distances / (2 * (sigma / 2) ** 2)).softmax(1)
    mean = weights @ clean.flatten(1)
    error = (weights.square() @ clean.flatten(1).square()).sqrt()  # an upper bound on the standard error
    found = world.denoiser(images, sigma).flatten(1)
    assert float(error.max()) < 0.03
    assert bool(((found - mean).abs() < 4 * error).all())
    assert float((found - images.flatten(1)).abs().max()) > 0.05  # and it does something


# --- Bayes -----------------------------------------------------------------------------------------------


@every_world
@every_sigma
def test_bayes_gradient_is_the_posterior_s_gradient(world: World, sigma: float) -> None:
    world = with_prior(world)
    images, labels = noisy(world, sigma)
    labels = (labels + 1) % world.classes  # where the gradient is not small
    every = torch.arange(len(labels))
    expected = gradient(lambda x: world.log_posterior(x, sigma)[every, labels], images)
    torch.testing.assert_close(world.bayes_gradient(images, labels, sigma), expected, rtol=1e-7, atol=1e-6)


@pytest.mark.parametrize("name", ["linear", "mixture", "curved", "distractor"])
def test_bayes_classifier_is_calibrated(name: str) -> None:
    world = with_prior(MAKERS[name](SHAPE, seed=1, classes=3))
    images, labels = world.sample(4000, seeded(1))
    posterior = world.log_posterior(images).exp()
    sure, guess = posterior.max(1)
    right = (guess == labels).double()
    spread = float((sure * (1 - sure)).sum().sqrt()) / len(labels)
    assert float((right - sure).mean()) == pytest.approx(0, abs=4 * spread)
    assert float(sure.mean()) < 0.995  # a task on which calibration says something
    for low, high in ((0.0, 0.1), (0.1, 0.5), (0.5, 0.9), (0.9, 1.01)):
        inside = (posterior >= low) & (posterior < high)
        happened = torch.nn.functional.one_hot(labels, world.classes)[inside].double()
        chance = posterior[inside]
        error = float((chance * (1 - chance)).sum().sqrt()) + 1
        assert abs(float((happened - chance).sum())) < 4 * error


def test_bayes_module_is_a_classifier() -> None:
    world = WORLDS["linear"]
    images, labels = world.sample(8, seeded())
    model = Bayes(world)
    assert model(images.float()).dtype == torch.float32
    torch.testing.assert_close(model(images), world.log_posterior(images))
    found = input_gradient(model, images, "log-probability", labels)
    torch.testing.assert_close(found, world.bayes_gradient(images, labels), rtol=1e-7, atol=1e-8)
    seen = Bayes(world, sigma=0.4)(images)
    torch.testing.assert_close(seen, world.log_posterior(images, 0.4))


# --- signal and distractor -------------------------------------------------------------------------------


def share_outside(world: World, vectors: Tensor) -> Tensor:
    off = vectors * ~world.mask
    return dots(off, off) / dots(vectors, vectors)


def test_the_slider_moves_the_bayes_gradient_onto_the_distractor() -> None:
    shares = []
    for informative in (0.0, 0.3, 1.0):
        world = distractor_world(SHAPE, informative=informative)
        images, labels = world.sample(64, seeded())
        shares.append(share_outside(world, world.bayes_gradient(images, labels)))
        assert float(share_outside(world, world.score(images, labels=labels)).min()) > 0
    assert torch.equal(shares[0], torch.zeros(64, dtype=torch.float64))  # to the last bit
    assert float(shares[1].min()) > 0
    assert float(shares[2].mean()) > float(shares[1].mean()) > 0.001


def test_an_independent_distractor_changes_no_posterior() -> None:
    world = distractor_world(SHAPE)
    images, _ = world.sample(32, seeded(0))
    others, _ = world.sample(32, seeded(1))
    swapped = torch.where(world.mask, images, others)
    torch.testing.assert_close(
        world.log_posterior(images), world.log_posterior(swapped), rtol=1e-9, atol=1e-9
    )
    telling = distractor_world(SHAPE, informative=1.0)
    assert float((telling.log_posterior(images) - telling.log_posterior(swapped)).abs().max()) > 0.1


def test_the_mask_can_be_given() -> None:
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[:, 1:, 2:] = True
    world = distractor_world(SHAPE, mask=mask)
    images, labels = world.sample(16, seeded())
    gradients = world.bayes_gradient(images, labels)
    assert torch.equal(world.mask, mask)
    assert not bool(gradients[:, ~mask].any())
    assert bool(gradients[:, mask].all())


# --- tangent spaces --------------------------------------------------------------------------------------


@every_world
def test_tangent_bases_are_orthonormal(world: World) -> None:
    images, _ = world.sample(10, seeded())
    basis = world.tangent_basis(images)
    assert basis.shape == (10, math.prod(SHAPE), world.k)
    torch.testing.assert_close(basis.mT @ basis, torch.eye(world.k).double().expand(10, -1, -1))


@pytest.mark.parametrize("name", ["linear", "mixture", "own manifolds", "distractor"])
def test_flat_manifolds_hold_their_samples(name: str) -> None:
    """Differences of samples of one component lie in its tangent space, but for the isotropic noise."""
    world = MAKERS[name](SHAPE, seed=2, noise=1e-4)
    images, _ = world.sample(400, seeded())
    bases = world.tangent_basis(images)
    same = (bases - bases[:1]).abs().amax((1, 2)) < 1e-9
    if name == "distractor":  # its modes and classes differ by moves within the tangent space, too
        assert bool(same.all())
    moves = images[same] - images[same].mean(0)
    off = (moves - project(moves, bases[same])).flatten(1)
    noise = world.about["noise"] * math.sqrt(math.prod(SHAPE) - world.k)
    assert int(same.sum()) > 50
    assert float(off.norm(dim=1).mean()) == pytest.approx(noise, rel=0.1)
    assert float(moves.flatten(1).norm(dim=1).mean()) > 100 * noise


@pytest.mark.parametrize("k", [1, 2])
def test_embedding_s_jacobian_by_finite_differences(k: int) -> None:
    embedding = make_embedding(24, k, 0.03, seed=0)
    z = torch.rand(5, k, generator=seeded(), dtype=torch.float64)
    differences = central_differences(embedding, z)  # (n, d, n, k)
    expected = torch.stack([differences[i, :, i] for i in range(5)])
    torch.testing.assert_close(embedding.jacobian(z), expected, rtol=1e-6, atol=1e-8)
    assert int(torch.linalg.matrix_rank(embedding.jacobian(z)).min()) == k


def test_curved_tangent_is_that_of_the_nearest_point() -> None:
    world = curved_world((1, 4, 6), k=2, seed=4)
    embedding = make_embedding(24, 2, 0.03, seed=4)
    z = torch.rand(30, 2, generator=seeded(), dtype=torch.float64)
    on = embedding(z)
    normal = torch.randn(on.shape, generator=seeded(1), dtype=torch.float64)
    basis = torch.linalg.qr(embedding.jacobian(z))[0]
    moved = on + 0.02 * (normal - project(normal, basis))  # straight off the manifold: same nearest point
    found = world.tangent_basis(moved.reshape(-1, 1, 4, 6))
    torch.testing.assert_close(found @ found.mT, basis @ basis.mT, rtol=0, atol=1e-6)
    still = world.tangent_basis(on.reshape(-1, 1, 4, 6))
    torch.testing.assert_close(still @ still.mT, basis @ basis.mT, rtol=0, atol=1e-9)


def test_curved_world_is_a_continuous_density_but_for_its_ripples() -> None:
    """The centres' mixture against one with three times as many centres."""
    world = curved_world((1, 3, 4), k=1, noise=0.04)
    assert isinstance(world.law, Mixture)
    embedding = make_embedding(12, 1, 0.04, seed=0)
    many = 3 * len(world.law.means)
    z = torch.arange(many, dtype=torch.float64)[:, None] / many

    def ripple(images: Tensor) -> Tensor:
        distances = torch.cdist(images.flatten(1), embedding(z)).square()
        log_sum = (-distances / (2 * 0.04**2)).logsumexp(1)
        return world.log_density(images) - (log_sum - math.log(many) - 6 * math.log(2 * math.pi * 0.04**2))

    on = embedding(torch.rand(1000, 1, generator=seeded(1), dtype=torch.float64)).reshape(-1, 1, 3, 4)
    assert float(ripple(on).abs().max()) < 4e-4
    samples = ripple(world.sample(1000, seeded())[0])
    assert float(samples.abs().mean()) < 6e-4
    assert float(samples.abs().max()) < 0.02


# --- samples ---------------------------------------------------------------------------------------------


@every_world
def test_samples_have_the_world_s_moments(world: World) -> None:
    n = 20_000
    images, labels = with_prior(world).sample(n, seeded())
    check_images(images)
    frequencies = torch.bincount(labels, minlength=world.classes) / n
    torch.testing.assert_close(frequencies.double(), with_prior(world).log_prior.exp(), rtol=0, atol=0.015)
    label = 1
    x = images[labels == label].flatten(1)
    mean, covariance = moments(world.law, label)
    scale = covariance.diagonal().sqrt()
    assert float(((x.mean(0) - mean) / scale).abs().max()) < 5 / math.sqrt(len(x))
    found = (x - mean).T @ (x - mean) / len(x)
    assert float(((found - covariance) / scale.outer(scale)).abs().max()) < 10 / math.sqrt(len(x))


def moments(law: object, label: int) -> tuple[Tensor, Tensor]:
    """Mean and covariance of p(x | y)."""
    if isinstance(law, SignalDistractor):
        d = len(law.mask)
        mean, covariance = torch.zeros(d).double(), torch.zeros(d, d).double()
        for mask, part, where, shift in (
            (law.mask, law.signal, label, 0.0), (~law.mask, law.distractor, 0, law.shifts[label]),
        ):  # fmt: skip
            m, c = moments(part, where)
            mean[mask] = m + shift
            covariance[mask[:, None] & mask] = c.flatten()
        return mean, covariance
    assert isinstance(law, Mixture)
    shares, each = law.log_shares[label].exp(), components(law, 0.0)
    mean = shares @ law.means
    second = each.covariance_matrix + law.means[:, :, None] * law.means[:, None]
    return mean, torch.einsum("m,mij->ij", shares, second) - mean.outer(mean)


@settings(max_examples=25)
@given(
    channels=st.integers(1, 3), height=st.integers(1, 5), width=st.integers(4, 7), classes=st.integers(2, 4),
    name=st.sampled_from(sorted(MAKERS)), seed=st.integers(0, 5),
)  # fmt: skip
def test_worlds_of_any_size(
    channels: int, height: int, width: int, classes: int, name: str, seed: int
) -> None:
    shape = (channels, height, width)
    sizes = {"k": 1, "distractor_k": 1} if name == "distractor" else {"k": 1}
    options = {"patches": classes} if name == "own manifolds" else {}
    world = MAKERS[name](shape, classes=classes, seed=seed, **sizes, **options)
    images, labels = world.sample(50, seeded(seed))
    check_images(images)
    assert images.shape == (50, *shape)
    assert images.dtype == torch.float64
    assert world.score(images, 0.2).shape == images.shape
    assert world.log_posterior(images).shape == (50, classes)
    assert world.bayes_gradient(images, labels).isfinite().all()
    assert world.tangent_basis(images).shape == (50, math.prod(shape), world.k)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
@pytest.mark.usefixtures("global_state_untouched")
def test_worlds_and_samples_are_seeded(make: Callable[..., World]) -> None:
    first, again, other = (make(SHAPE, seed=seed).sample(30, seeded(1)) for seed in (0, 0, 1))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert make(SHAPE, seed=0).about == make(SHAPE, seed=0).about != make(SHAPE, seed=1).about


def test_image_sets_are_named_by_their_seed() -> None:
    world = WORLDS["linear"]
    first, again, other = (world.image_set(12, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)
    assert first.images.dtype == torch.float32
    assert first.provenance == again.provenance != other.provenance
    assert len(world.image_set(0, seed=0)) == 0


# --- errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: linear_world((1, 0, 3)),
        lambda: linear_world(classes=1),
        lambda: linear_world(k=0),
        lambda: linear_world((1, 2, 2), k=4),
        lambda: linear_world(noise=0.0),
        lambda: linear_world(noise=0.08),
        lambda: linear_world(noise=float("nan")),
        lambda: mixture_world(patches=0),
        lambda: mixture_world(patches=2, classes=3, own_manifolds=True),
        lambda: distractor_world(informative=1.5),
        lambda: distractor_world(informative=-0.1),
        lambda: distractor_world(modes=0),
        lambda: distractor_world((1, 2, 3), k=3),
        lambda: distractor_world((1, 2, 3), k=2, distractor_k=3),
        lambda: distractor_world(mask=torch.ones(1, 8, 8, dtype=torch.bool)),
        lambda: distractor_world(mask=torch.ones(1, 4, 8, dtype=torch.bool)),
        lambda: curved_world((1, 3, 3), k=2),
        lambda: curved_world(k=3),
        lambda: WORLDS["linear"].sample(-1, seeded()),
        lambda: WORLDS["linear"].score(torch.zeros(2, 1, 8, 8)),
        lambda: WORLDS["linear"].log_density(torch.zeros(2, *SHAPE), -1.0),
        lambda: WORLDS["linear"].log_density(torch.zeros(2, *SHAPE), float("inf")),
        lambda: WORLDS["linear"].score(torch.zeros(2, *SHAPE), 0.1, torch.tensor([0, 3])),
        lambda: WORLDS["linear"].bayes_gradient(torch.zeros(2, *SHAPE), torch.tensor([-1, 0])),
        lambda: WORLDS["linear"].denoiser(torch.zeros(2, *SHAPE), 0.0),
        lambda: WORLDS["linear"].tangent_basis(torch.zeros(2, 1, 3, 4)),
    ],
)
def test_bad_arguments_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(UsageError, match=r"expected .*; got .*; try "):
        make()


def test_pixels_outside_the_cube_are_refused_and_not_clipped() -> None:
    world = WORLDS["linear"]
    assert isinstance(world.law, Mixture)
    law = dataclasses.replace(world.law, spreads=1000 * world.law.spreads)
    with pytest.raises(PagsError, match="every pixel in"):
        dataclasses.replace(world, law=law).sample(100, seeded())
