"""Tangent spaces: decoders against `jvp` and differences, estimators against exact worlds and covariances."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from conftest import Traces, built, central_differences, seeded
from pags.arrays import project
from pags.data.worlds import World, curved_world, linear_world, mixture_world
from pags.data.worlds.laws import Mixture
from pags.errors import PagsError, UsageError
from pags.manifold import sequential, tangent
from pags.manifold.angles import principal_angles
from pags.manifold.autoencoder import Autoencoder
from pags.manifold.denoised import DenoiserTangent
from pags.manifold.estimators import ExactTangent, LocalPCA
from pags.manifold.projection import gram_projection, project_by_gram
from pags.manifold.sequential import is_plain, sequential_jacobian
from pags.manifold.tangent import (
    DecoderTangent,
    decoder_tangent,
    forward_jacobian,
    jacobian,
    orthonormal_basis,
)
from pags.score.exact import IdealDenoiser
from pags.score.unet import UNetDenoiser

pytestmark = [
    pytest.mark.usefixtures("global_state_untouched"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning"),
]

K = 6
RANDOM = math.radians(50)  # what a random basis misses by far in every world below


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def random_basis(n: int, d: int, k: int) -> Tensor:
    return torch.linalg.qr(normal(n, d, k, seed=9))[0]


def largest_angles(a: Tensor, b: Tensor) -> Tensor:
    return principal_angles(a, b)[:, 0]


def awaken(network: nn.Module) -> nn.Module:
    """BatchNorm layers with statistics and scales that are not those of their first day."""
    for number, layer in enumerate(network.modules()):
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            size, draws = layer.num_features, seeded(number)
            layer.running_mean = torch.randn(size, generator=draws) / 3
            layer.running_var = torch.rand(size, generator=draws) + 0.5
            layer.weight = nn.Parameter(torch.randn(size, generator=draws))  # of both signs
            layer.bias = nn.Parameter(torch.randn(size, generator=draws) / 3)
    return network.double().eval()


def small_autoencoder(latent: int = K) -> Autoencoder:
    network = awaken(built(lambda: Autoencoder((3, 8, 8), latent, (8, 12))))
    assert isinstance(network, Autoencoder)
    return network


def odd_decoder() -> nn.Module:
    """Every layer that is known, in an order and with strides that the paper's decoder does not have."""
    return awaken(
        built(
            lambda: nn.Sequential(
                nn.Linear(K, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 30), nn.ReLU(inplace=True),
                nn.Unflatten(1, (5, 2, 3)), nn.BatchNorm2d(5),
                nn.Sequential(nn.ConvTranspose2d(5, 4, (3, 2), (2, 1), (1, 0), (1, 0)), nn.ReLU()),
                nn.BatchNorm2d(4),
                nn.ReLU(), nn.ConvTranspose2d(4, 3, 5, 3, 4, bias=False), nn.Sigmoid(),
                nn.ConvTranspose2d(3, 2, 1, 1), nn.ReLU(),
            )
        )
    )  # fmt: skip


# --- the decoder's Jacobian -------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: small_autoencoder().decoder, odd_decoder], ids=["ours", "odd"])
def test_the_pass_by_hand_is_forward_mode_and_the_limit_of_differences(make: Callable[[], nn.Module]) -> None:
    network, codes = make(), normal(3, K)
    assert is_plain(network)
    found = sequential_jacobian(network, codes)
    torch.testing.assert_close(found, forward_jacobian(network, codes), rtol=1e-10, atol=1e-12)
    for code, one in zip(codes, found, strict=True):
        differences = central_differences(lambda z: network(z[None])[0].flatten(), code)
        torch.testing.assert_close(one, differences, rtol=1e-5, atol=1e-7)
    assert found.abs().amax((1, 2)).min() > 1e-4  # it was not all cut off


def test_batch_norm_folds_into_the_transposed_convolution() -> None:
    """The derivative of the pair, and no trace in the modules."""
    layers = lambda: nn.Sequential(  # noqa: E731
        nn.Unflatten(1, (K, 1, 1)), nn.ConvTranspose2d(K, 4, 3), nn.BatchNorm2d(4)
    )
    pair = awaken(built(layers))
    before = {name: value.clone() for name, value in pair.state_dict().items()}
    found = sequential_jacobian(pair, normal(1, K))[0]
    _, convolution, norm = pair.children()
    assert isinstance(convolution, nn.ConvTranspose2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    truth = (convolution.weight * scale[:, None, None]).reshape(K, -1).T
    torch.testing.assert_close(found, truth, rtol=1e-12, atol=1e-14)
    assert not torch.allclose(found, convolution.weight.reshape(K, -1).T, rtol=0.1)
    assert all(torch.equal(value, before[name]) for name, value in pair.state_dict().items())


def test_the_pass_by_hand_can_be_differentiated_like_forward_mode() -> None:
    network, codes = small_autoencoder().decoder, normal(2, K).requires_grad_()
    slopes = [torch.autograd.grad(f(network, codes).square().sum(), codes)[0] for f in
              (sequential_jacobian, forward_jacobian)]  # fmt: skip
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-9, atol=1e-12)


def test_switched_off_channels_and_cut_off_taps_cost_nothing() -> None:
    network, codes = (
        built(lambda: Autoencoder((3, 16, 16), 32, (16, 32, 64))).eval().decoder,
        torch.rand(1, 32, generator=seeded(1)),
    )
    with FlopCounterMode(display=False) as usual, torch.no_grad():
        network(codes)
    with FlopCounterMode(display=False) as ours, torch.no_grad():
        sequential_jacobian(network, codes)
    assert ours.get_total_flops() < 0.6 * 32 * usual.get_total_flops()


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Linear(K, 8), nn.Tanh()),
        nn.Sequential(nn.Linear(K, 8), nn.BatchNorm1d(8)).train(),
        nn.Sequential(nn.Linear(K, 8), nn.BatchNorm1d(8, track_running_stats=False)).eval(),
        nn.Sequential(nn.Unflatten(1, (2, 1, 3)), nn.Linear(3, 3)),
        nn.Sequential(nn.Unflatten(1, (2, 1, 3)), nn.ConvTranspose2d(2, 4, 3, groups=2)),
        nn.Sequential(nn.Unflatten(1, (2, 1, 3)), nn.ConvTranspose2d(2, 4, 3, dilation=2)),
        nn.Sequential(nn.Unflatten(1, (2, 3)), nn.ReLU()),
        lambda codes: codes,
    ],
)
def test_other_decoders_are_not_taken_for_plain_ones(network: object) -> None:
    assert not is_plain(network)


def test_large_plain_decoders_take_the_pass_by_hand_and_others_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[int] = []

    def spy(network: nn.Module, codes: Tensor) -> Tensor:
        taken.append(len(codes))
        return sequential_jacobian(network, codes)

    monkeypatch.setattr(tangent, "sequential_jacobian", spy)
    autoencoder, codes = small_autoencoder(), normal(2, K)
    jacobian(autoencoder.decode, codes)
    assert not taken  # too small to pay
    monkeypatch.setattr(sequential, "ENOUGH", 1)
    found = jacobian(autoencoder.decode, codes)
    jacobian(autoencoder.decoder, codes)
    assert taken == [2, 2]
    other = jacobian(lambda z: autoencoder.decode(z) ** 2, codes)
    autoencoder.train()
    with pytest.raises(RuntimeError):  # BatchNorm would update its statistics under vmap
        jacobian(autoencoder.decode, codes)
    assert taken == [2, 2]
    images = autoencoder.eval().decode(codes).flatten(1)[:, :, None]
    torch.testing.assert_close(other, 2 * images * found, rtol=1e-9, atol=1e-12)


def test_a_subclass_that_decodes_otherwise_is_followed() -> None:
    class Halved(Autoencoder):
        def decode(self, codes: Tensor) -> Tensor:
            return super().decode(codes) / 2

    halved = built(lambda: Halved((3, 8, 8), K, (8, 12))).double().eval()
    torch.testing.assert_close(
        jacobian(halved.decode, normal(2, K)), jacobian(halved.decoder, normal(2, K)) / 2
    )


# --- orthonormal bases ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [5, 40])
def test_bases_are_orthonormal_and_span_the_columns_at_every_rank(dtype: torch.dtype, d: int) -> None:
    most = min(d, 8)
    parts = [normal(d, rank, seed=rank) @ normal(rank, 8, seed=20 + rank) for rank in range(most + 1)]
    jacobians = (torch.stack(parts) * torch.logspace(-12, 12, most + 1, dtype=dtype)[:, None, None]).to(dtype)
    basis, ranks = orthonormal_basis(jacobians)
    assert ranks.tolist() == list(range(most + 1))
    eye = torch.diag_embed((torch.arange(most) < ranks[:, None]).to(dtype))
    assert (basis.mT @ basis - eye).abs().max() < 1e-5
    left = jacobians - basis @ (basis.mT @ jacobians)
    assert (left.flatten(1).norm(dim=1) <= 1e-5 * jacobians.flatten(1).norm(dim=1)).all()


def test_bases_stay_orthonormal_where_columns_nearly_coincide() -> None:
    jacobians = (normal(1, 300, 20) @ torch.diag(torch.logspace(0, -3.5, 20).double())) @ random_basis(
        1, 20, 20
    )
    basis, ranks = orthonormal_basis(jacobians.float())
    assert ranks.tolist() == [20]
    assert (basis.mT @ basis - torch.eye(20)).abs().max() < 1e-5


def test_bases_do_not_depend_on_how_the_images_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    autoencoder = small_autoencoder()
    images = torch.rand(7, 3, 8, 8, generator=seeded(1)).double()
    whole, ranks = decoder_tangent(autoencoder, images)
    monkeypatch.setattr("pags.manifold.basis.ENTRIES", 1)
    monkeypatch.setattr(tangent, "TANGENTS", 4)
    cut, same = DecoderTangent(autoencoder, batch_size=3)(images)
    assert torch.equal(ranks, same)
    assert largest_angles(whole, cut).max() < 1e-7
    assert decoder_tangent(autoencoder, images[:0])[1].shape == (0,)


def test_no_more_is_in_memory_than_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a decoder is asked for at a time does not grow with the images."""
    seen: list[int] = []
    autoencoder = small_autoencoder()
    autoencoder.decoder.register_forward_hook(lambda module, codes, out: seen.append(len(codes[0])))
    decoder_tangent(autoencoder, torch.rand(9, 3, 8, 8, generator=seeded(1)).double(), batch_size=2)
    gram_projection(autoencoder.decode, normal(9, K), batch_size=2)(normal(9, 3, 8, 8))
    assert max(seen) == 2


def test_decoder_tangents_leave_no_trace() -> None:
    autoencoder = built(lambda: Autoencoder((3, 8, 8), K, (8, 12)))
    traces = Traces(autoencoder)
    images = torch.rand(3, 3, 8, 8, generator=seeded(1))
    decoder_tangent(autoencoder, images)
    project_by_gram(images, autoencoder.decode, torch.rand(3, K, generator=seeded(2)))
    traces.assert_none()


# --- projections without a basis --------------------------------------------------------------------------


@pytest.mark.parametrize("ENOUGH", [1, math.inf], ids=["by hand", "forward mode"])
def test_projection_by_the_gram_matrix_is_that_by_the_basis(
    ENOUGH: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequential, "ENOUGH", ENOUGH)
    autoencoder, codes, vectors = small_autoencoder(), normal(5, K), normal(5, 3, 8, 8, seed=2)
    basis, ranks = orthonormal_basis(jacobian(autoencoder.decode, codes))
    truth = project(vectors, basis)
    projection = gram_projection(autoencoder.decode, codes, batch_size=2)
    torch.testing.assert_close(projection(vectors), truth, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(projection(truth), truth, rtol=1e-7, atol=1e-9)  # idempotent
    assert torch.equal(projection.ranks, ranks)
    assert truth.norm() < 0.5 * vectors.norm()


def test_projection_by_a_deficient_gram_matrix() -> None:
    """A decoder that ignores half of its code, and one that ignores all of it."""
    maps, codes, vectors = normal(12, K), normal(4, K), normal(4, 3, 2, 2, seed=2)
    maps[:, 3:] = maps[:, :3] @ normal(3, 3, seed=5)

    def decode(z: Tensor) -> Tensor:
        return (z @ maps.T).sin().reshape(-1, 3, 2, 2)

    basis, ranks = orthonormal_basis(jacobian(decode, codes))
    assert ranks.tolist() == [3] * 4
    found = project_by_gram(vectors, decode, codes)
    torch.testing.assert_close(found, project(vectors, basis), rtol=1e-6, atol=1e-8)
    flat = project_by_gram(vectors, lambda z: 0 * decode(z), codes)
    assert torch.equal(flat, torch.zeros_like(vectors))


# --- angles -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("r", "s"), [(3, 3), (2, 5), (5, 2), (1, 1)])
def test_principal_angles_are_those_of_scipy(r: int, s: int) -> None:
    a, b = torch.linalg.qr(normal(4, 12, r))[0], torch.linalg.qr(normal(4, 12, s, seed=1))[0]
    near = min(r, s)
    b[1, :, :near] = a[1, :, :near]  # shared directions
    b[2, :, :near] = a[2, :, :near] + 1e-6 * b[2, :, :near]  # angles that cosines cannot tell from zero
    b = torch.linalg.qr(b)[0]
    found = principal_angles(a, b)
    truth = np.stack([subspace_angles(x.numpy(), y.numpy()) for x, y in zip(a, b, strict=True)])
    np.testing.assert_allclose(found.numpy(), truth, atol=3e-8)
    torch.testing.assert_close(principal_angles(b, a), found, rtol=0, atol=3e-8)


def test_principal_angles_of_differing_ranks() -> None:
    a, b = random_basis(3, 10, 4), torch.linalg.qr(normal(3, 10, 3, seed=1))[0]
    a[0, :, 2:], b[1, :, 1:], b[2] = 0, 0, 0
    found = principal_angles(a, b)
    assert found.shape == (3, 3)
    np.testing.assert_allclose(found[0, :2], subspace_angles(a[0, :, :2].numpy(), b[0].numpy()), atol=3e-8)
    np.testing.assert_allclose(found[1, :1], subspace_angles(a[1].numpy(), b[1, :, :1].numpy()), atol=3e-8)
    assert found[0, 2] == 0
    assert not found[1, 1:].any()
    assert not found[2].any()


# --- estimators against exact worlds ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "world", [curved_world(noise=0.02), mixture_world(noise=0.005)], ids=["curved", "mixture"]
)
def test_local_pca_nears_the_exact_tangent_space_with_more_images(world: World) -> None:
    images = world.sample(60, seeded(1))[0]
    exact = ExactTangent(world)(images)[0]
    medians = []
    for size, neighbours in ((100, 20), (10_000, 300)):
        cloud = world.sample(size, seeded(2))[0]
        basis, ranks = LocalPCA(cloud, world.k, neighbours=neighbours)(images)
        assert ranks.tolist() == [world.k] * 60
        medians.append(float(largest_angles(basis, exact).median()))
    assert medians[1] < 0.6 * medians[0], medians
    assert medians[1] < math.radians(8), medians
    assert largest_angles(random_basis(60, 64, world.k), exact).median() > RANDOM


def test_local_pca_of_a_few_points_has_the_rank_of_their_span() -> None:
    """Points on a line have one direction, and copies of one point none."""
    line = torch.linspace(0, 1, 12)[:, None, None, None].expand(12, 1, 2, 2)
    basis, ranks = LocalPCA(line, 2, neighbours=5)(line)
    assert ranks.tolist() == [1] * 12
    torch.testing.assert_close(basis[:, :, 0].abs(), torch.full((12, 4), 0.5))
    assert not basis[:, :, 1:].any()
    assert LocalPCA(torch.zeros(6, 1, 2, 2), 2, neighbours=5)(line)[1].tolist() == [0] * 12


def posterior_covariance(world: World, point: Tensor, sigma: float) -> Tensor:
    """Cov[x₀ | x] of a mixture of Gaussians, written out: (d, d)."""
    law, variance = world.law, (sigma / 2) ** 2
    assert isinstance(law, Mixture)
    eye = torch.eye(law.means.shape[1], dtype=torch.float64)
    shares = (world.log_prior[:, None] + law.log_shares).logsumexp(0)
    logs, means, covariances = [], [], []
    for mean, axes, spreads in zip(law.means, law.axes, law.spreads, strict=True):
        clean = axes @ torch.diag(spreads) @ axes.T + law.noise**2 * eye
        noisy = clean + variance * eye
        gain = torch.linalg.solve(noisy, clean).T
        logs.append(torch.distributions.MultivariateNormal(mean, noisy, validate_args=False).log_prob(point))
        means.append(mean + gain @ (point - mean))
        covariances.append(clean - gain @ clean)
    weights = (shares + torch.stack(logs)).softmax(0)
    stacked, middle = torch.stack(means), weights @ torch.stack(means)
    between = torch.einsum("m,mi,mj->ij", weights, stacked - middle, stacked - middle)
    return torch.einsum("m,mij->ij", weights, torch.stack(covariances)) + between


def test_a_denoisers_leading_directions_are_those_of_the_posterior_covariance() -> None:
    """cov / (sigma / 2)², which is not the covariance over sigma² that EDM's coordinates suggest."""
    world, sigma = linear_world(k=3, noise=0.02), 0.2
    images = world.sample(6, seeded(1))[0]
    estimator = DenoiserTangent(world.denoiser, sigma, 3, tolerance=1e-6)
    basis, ranks = estimator(images)
    values = estimator.spectrum(images)
    assert ranks.tolist() == [3] * 6
    for image, found, value in zip(images, basis, values, strict=True):
        covariance = posterior_covariance(world, image.flatten(), sigma)
        truth, vectors = torch.linalg.eigh(covariance / (sigma / 2) ** 2)
        torch.testing.assert_close(value, truth.flip(0)[:3], rtol=1e-6, atol=1e-8)
        assert largest_angles(found[None], vectors[None, :, -3:]) < 1e-5


def test_denoiser_tangents_near_the_exact_space_as_the_noise_falls() -> None:
    world = curved_world(noise=0.02)
    images = world.sample(20, seeded(1))[0]
    exact = ExactTangent(world)(images)[0]
    medians = []
    for sigma in (0.6, 0.15):
        basis, _ = DenoiserTangent(world.denoiser, sigma, world.k)(images)
        medians.append(float(largest_angles(basis, exact).median()))
    assert medians[1] < 0.6 * medians[0], medians
    assert medians[1] < math.radians(8), medians


def test_denoiser_tangents_do_not_depend_on_how_the_images_are_cut() -> None:
    world = linear_world(k=3)
    images = world.sample(3, seeded(1))[0]
    whole = DenoiserTangent(world.denoiser, 0.1, 3)
    basis = whole(images)[0]
    cut = DenoiserTangent(world.denoiser, 0.1, 3, batch_size=1)(images)[0]
    assert largest_angles(basis, cut).max() < 1e-6
    assert torch.equal(basis, whole(images)[0])  # the same start every time
    assert (basis.mT @ basis - torch.eye(3)).abs().max() < 1e-5


def test_a_network_can_be_asked_for_its_spectrum_and_shows_no_trace() -> None:
    """The network's last layer starts at zero, where the denoiser is a multiple of the identity."""
    network = built(lambda: UNetDenoiser(1, widths=(8,)))
    traces = Traces(network)
    spectrum = DenoiserTangent(network, 0.5, 2).spectrum(torch.rand(2, 1, 4, 4, generator=seeded(1)))
    torch.testing.assert_close(spectrum, torch.full((2, 2), 0.5))  # σ_data² / (σ² + σ_data²)
    traces.assert_none()


def test_a_denoiser_of_lower_rank_gives_fewer_columns() -> None:
    axes = torch.linalg.qr(normal(9, 2))[0]

    def denoiser(images: Tensor, sigma: float) -> Tensor:
        return (images.flatten(1) @ axes @ axes.T).reshape(images.shape)

    basis, ranks = DenoiserTangent(denoiser, 0.5, 4)(normal(3, 1, 3, 3))
    assert ranks.tolist() == [2] * 3
    assert not basis[:, :, 2:].any()
    assert largest_angles(basis, axes.expand(3, -1, -1)).max() < 1e-7


def test_a_space_that_does_not_come_to_rest_is_an_error() -> None:
    with pytest.raises(PagsError, match="still moving"):
        DenoiserTangent(linear_world().denoiser, 0.2, 5, steps=2, tolerance=1e-12)(
            torch.full((1, 1, 8, 8), 0.5)
        )


def test_exact_tangents_have_the_images_type_and_full_rank() -> None:
    world = curved_world()
    images = world.sample(3, seeded(1))[0].float()
    basis, ranks = ExactTangent(world)(images)
    assert basis.dtype == torch.float32
    assert ranks.tolist() == [world.k] * 3
    torch.testing.assert_close(basis, world.tangent_basis(images).float())


# --- requests that make no sense --------------------------------------------------------------------------

IMAGES = torch.full((8, 1, 2, 2), 0.5)


@pytest.mark.parametrize(
    "act",
    [
        lambda: LocalPCA(IMAGES, 0),
        lambda: LocalPCA(IMAGES, 4, neighbours=4),
        lambda: LocalPCA(IMAGES, 4, neighbours=9),
        lambda: LocalPCA(IMAGES, 2, neighbours=5, batch_size=0),
        lambda: LocalPCA(IMAGES, 2, neighbours=5)(torch.zeros(1, 1, 3, 3)),
        lambda: DenoiserTangent(IdealDenoiser(IMAGES), 0.0, 1),
        lambda: DenoiserTangent(IdealDenoiser(IMAGES), 0.5, 0),
        lambda: DenoiserTangent(IdealDenoiser(IMAGES), 0.5, 1, steps=0),
        lambda: DenoiserTangent(IdealDenoiser(IMAGES), 0.5, 5)(IMAGES),
        lambda: DenoiserTangent(lambda x, sigma: torch.cdist(x, x), 0.5, 1)(IMAGES),
        lambda: decoder_tangent(small_autoencoder(), torch.zeros(1, 3, 8, 8), batch_size=0),
        lambda: gram_projection(small_autoencoder().decode, normal(2, K), batch_size=0),
        lambda: gram_projection(small_autoencoder().decode, normal(2, K))(normal(3, 3, 8, 8)),
    ],
)
def test_requests_that_make_no_sense_are_refused(act: Callable[[], object]) -> None:
    with pytest.raises(UsageError, match=r"expected .*; got .*; try "):
        act()
