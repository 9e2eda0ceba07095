"""Tangent spaces from a decoder: the Jacobian by finite differences, the basis by its laws, at every rank."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from conftest import built, central_differences, seeded, used
from pags.manifold.autoencoder import Autoencoder
from pags.manifold.sequential import is_plain, sequential_jacobian
from pags.manifold.tangent import decoder_tangent, forward_jacobian, jacobian, orthonormal_basis

pytestmark = pytest.mark.usefixtures("global_state_untouched")


def convolutional(seed: int = 0) -> Autoencoder:
    """A small autoencoder with BatchNorm statistics of its own."""

    def make() -> Autoencoder:
        net = Autoencoder((2, 8, 8), 3, (4, 6))
        used(net)
        return net

    return built(make, seed)


def of_rank(n: int, d: int, k: int, rank: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Matrices with singular values between 0.2 and 1, `rank` of them."""
    draws = seeded(seed)
    left = torch.linalg.qr(torch.randn(n, d, d, generator=draws, dtype=torch.float64))[0][:, :, :rank]
    right = torch.linalg.qr(torch.randn(n, k, k, generator=draws, dtype=torch.float64))[0][:, :, :rank]
    values = 0.2 + 0.8 * torch.rand(n, 1, rank, generator=draws, dtype=torch.float64)
    return ((left * values) @ right.mT).to(dtype)


def projector(basis: Tensor) -> Tensor:
    return basis.double() @ basis.double().mT


# --- the Jacobian ----------------------------------------------------------------------------------------


def test_the_jacobian_of_a_formula() -> None:
    """Of (z1 z2, sin z1, z2², 1), by hand."""

    def decode(z: Tensor) -> Tensor:
        a, b = z[:, 0], z[:, 1]
        return torch.stack([a * b, a.sin(), b**2, torch.ones_like(a)], 1).reshape(-1, 1, 2, 2)

    codes = torch.tensor([[0.3, -2.0], [1.0, 0.5]])
    expected = [[[b, a], [math.cos(a), 0], [0, 2 * b], [0, 0]] for a, b in codes.tolist()]
    torch.testing.assert_close(jacobian(decode, codes), torch.tensor(expected))


def test_pythaes_decoder_is_one_of_the_paper_and_its_jacobian_that_of_forward_mode() -> None:
    """B.6 and docs/choices.md, 25: weights counted by hand, for 3×32×32 and k = 128."""
    of_paper = built(lambda: Autoencoder((3, 32, 32), 128, (128, 256, 512, 1024), "pythae"), 0).decoder
    expected = 129 * 1024 * 64 + (1024 * 512 + 512 * 256 + 256 * 3) * 16 + 3 * (512 + 256) + 3
    assert sum(weight.numel() for weight in of_paper.parameters()) == expected

    def make() -> Autoencoder:
        net = Autoencoder((2, 16, 16), 3, (4, 5, 6), "pythae")
        used(net)
        return net

    network = built(make, 0).double().eval()
    codes = torch.randn(2, 3, generator=seeded(1), dtype=torch.float64)
    assert network.decode(codes).shape == (2, 2, 16, 16)
    assert is_plain(network.decoder)
    found = sequential_jacobian(network.decoder, codes)
    torch.testing.assert_close(found, forward_jacobian(network.decode, codes))


def test_the_jacobian_of_a_convolutional_decoder_is_that_of_finite_differences() -> None:
    decode = convolutional().double().eval().decode
    codes = torch.randn(4, 3, generator=seeded(1), dtype=torch.float64)
    found = jacobian(decode, codes)
    assert found.shape == (4, 2 * 8 * 8, 3)
    for code, one in zip(codes, found, strict=True):
        truth = central_differences(lambda z: decode(z[None])[0].flatten(), code, step=1e-6)
        torch.testing.assert_close(one, truth, rtol=1e-5, atol=1e-8)
        assert one.norm() > 1e-2  # so that agreement says something


# --- the basis -------------------------------------------------------------------------------------------


@given(
    data=st.data(), n=st.integers(1, 3), d=st.integers(1, 12), k=st.integers(1, 9), seed=st.integers(0, 2**32)
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_basis_is_orthonormal_and_spans_the_columns_at_every_rank(
    data: st.DataObject, n: int, d: int, k: int, seed: int, dtype: torch.dtype
) -> None:
    """Rank zero, deficient and full, and more columns than rows."""
    rank = data.draw(st.integers(0, min(d, k)))
    matrices = of_rank(n, d, k, rank, seed, dtype)
    basis, ranks = orthonormal_basis(matrices)
    assert ranks.tolist() == [rank] * n
    assert basis.shape == (n, d, rank)
    assert (basis.mT @ basis - torch.eye(rank)).abs().sum() < 1e-5
    assert (projector(basis) @ matrices.double() - matrices.double()).abs().sum() < 1e-5


@given(ranks=st.lists(st.integers(0, 4), min_size=1, max_size=5), seed=st.integers(0, 2**32))
def test_images_of_lower_rank_are_padded_with_zero_columns(ranks: list[int], seed: int) -> None:
    matrices = torch.cat([of_rank(1, 10, 4, rank, seed + place) for place, rank in enumerate(ranks)])
    basis, found = orthonormal_basis(matrices)
    assert found.tolist() == ranks
    assert basis.shape == (len(ranks), 10, max(ranks))
    for one, rank in zip(basis, ranks, strict=True):
        assert not one[:, rank:].any()
        torch.testing.assert_close(one[:, :rank].mT @ one[:, :rank], torch.eye(rank), rtol=0, atol=1e-5)


@given(exponent=st.integers(-12, 12), rank=st.integers(0, 3), seed=st.integers(0, 2**32))
def test_the_basis_does_not_see_the_scale(exponent: int, rank: int, seed: int) -> None:
    matrices = of_rank(2, 7, 3, rank, seed)
    basis, ranks = orthonormal_basis(matrices)
    scaled, same = orthonormal_basis(matrices * 10.0**exponent)
    assert same.tolist() == ranks.tolist()
    torch.testing.assert_close(projector(scaled), projector(basis), rtol=0, atol=1e-5)


def test_columns_of_unlike_lengths_are_all_kept() -> None:
    """A condition number of 10^4 is far above the resolution of float32."""
    matrices = of_rank(3, 20, 4, 4, seed=0, dtype=torch.float64) * 10.0 ** -torch.arange(0, 5)[:4]
    basis, ranks = orthonormal_basis(matrices.float())
    assert ranks.tolist() == [4] * 3
    truth = torch.linalg.qr(matrices)[0]
    torch.testing.assert_close(projector(basis), projector(truth), rtol=0, atol=1e-3)
    torch.testing.assert_close(basis.mT @ basis, torch.eye(4).expand(3, -1, -1), rtol=0, atol=1e-5)


def test_what_is_below_the_tolerance_counts_as_nothing() -> None:
    matrix = torch.diag(torch.tensor([1.0, 1e-2, 1e-4]))[None]
    assert [int(orthonormal_basis(matrix, tolerance=t)[1]) for t in (1e-5, 1e-3, 1e-1)] == [3, 2, 1]


@pytest.mark.parametrize("shape", [(2, 5, 3), (1, 1, 1), (2, 3, 5)])
def test_a_constant_decoder_has_no_tangent(shape: tuple[int, int, int]) -> None:
    basis, ranks = orthonormal_basis(torch.zeros(shape))
    assert basis.shape == (*shape[:2], 0)
    assert not ranks.any()


# --- from an autoencoder ---------------------------------------------------------------------------------


class Flat:
    """Codes that are pixels, decoded to images all in a plane whose rank hangs on the first two."""

    def encode(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :4]

    def decode(self, codes: Tensor) -> Tensor:
        rank = 1 + (codes[:, :1] > 0.5) + (codes[:, 1:2] > 0.5)  # (n, 1)
        kept = torch.arange(4) < rank
        return torch.cat([codes * kept, torch.zeros_like(codes)], 1).reshape(-1, 1, 2, 4)


def test_the_tangent_of_a_plane_is_the_plane() -> None:
    images = torch.rand(20, 1, 2, 4, generator=seeded(0))
    basis, ranks = decoder_tangent(Flat(), images)
    expected = (1 + (images.flatten(1)[:, :2] > 0.5).sum(1)).tolist()
    assert ranks.tolist() == expected
    assert sorted(set(expected)) == [1, 2, 3]
    for one, rank in zip(basis, expected, strict=True):
        plane = torch.diag(torch.tensor([1.0] * rank + [0.0] * (8 - rank), dtype=torch.float64))
        torch.testing.assert_close(projector(one), plane, rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 20, 100])
def test_parts_are_padded_to_one_rank(batch_size: int) -> None:
    images = torch.rand(20, 1, 2, 4, generator=seeded(0))
    whole, ranks = decoder_tangent(Flat(), images)
    basis, same = decoder_tangent(Flat(), images, batch_size=batch_size)
    assert same.tolist() == ranks.tolist()
    assert basis.shape == (20, 8, 3)
    torch.testing.assert_close(projector(basis), projector(whole), rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_tangents_do_not_depend_on_the_batch_size(batch_size: int) -> None:
    """Even of a network in training mode, whose BatchNorm must not see the batch."""
    model = convolutional().double().train()
    images = torch.rand(5, 2, 8, 8, generator=seeded(2), dtype=torch.float64)
    whole, ranks = decoder_tangent(model, images)
    basis, same = decoder_tangent(model, images, batch_size=batch_size)
    assert same.tolist() == ranks.tolist() == [3] * 5
    torch.testing.assert_close(projector(basis), projector(whole), rtol=0, atol=1e-8)


def test_the_tangent_is_taken_at_the_images_own_code() -> None:
    """The span of finite differences of the decoder around E(x), image by image."""
    model = convolutional().double().eval()
    images = torch.rand(3, 2, 8, 8, generator=seeded(3), dtype=torch.float64)
    basis, _ = decoder_tangent(model, images)
    with torch.no_grad():
        codes = model.encode(images)
    for code, one in zip(codes, basis, strict=True):
        truth = central_differences(lambda z: model.decode(z[None])[0].flatten(), code, step=1e-6)
        torch.testing.assert_close(projector(one), projector(torch.linalg.qr(truth)[0]), rtol=0, atol=1e-6)


def test_an_autoencoder_is_left_as_it_was() -> None:
    model = convolutional().train()
    model.encoder.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [part.training for part in model.modules()]
    basis, _ = decoder_tangent(model, torch.rand(3, 2, 8, 8, generator=seeded(0)))
    assert not basis.requires_grad
    assert [part.training for part in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
