"""How good a manifold is: distances and residuals where both are known in closed form."""

import pytest
import torch
from torch import Tensor, nn

from conftest import Traces, network_with_batch_norm, seeded
from pags.arrays import norms
from pags.data.worlds import curved_world, linear_world
from pags.errors import UsageError
from pags.manifold.quality import reconstruction_distance, residuals_after_steps

pytestmark = pytest.mark.usefixtures("global_state_untouched")


class Plane(nn.Module):
    """An autoencoder whose manifold is the plane of the first two pixels."""

    def encode(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :2]

    def decode(self, codes: Tensor) -> Tensor:
        return nn.functional.pad(codes, [0, 14]).reshape(-1, 1, 4, 4)


def test_the_distance_is_that_of_the_image_and_its_reconstruction() -> None:
    images = torch.rand(7, 1, 4, 4, generator=seeded(0))
    found = reconstruction_distance(Plane(), images, batch_size=3)
    torch.testing.assert_close(found, images.flatten(1)[:, 2:].norm(dim=1))


def test_measuring_leaves_no_trace_in_the_autoencoder() -> None:
    class Same(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network_with_batch_norm()

        def encode(self, images: Tensor) -> Tensor:
            return self.net(images)

        def decode(self, codes: Tensor) -> Tensor:
            return codes.mean(1)[:, None, None, None].expand(-1, 1, 4, 4)

    model = Same()
    traces = Traces(model.net)
    reconstruction_distance(model, torch.rand(4, 1, 4, 4, generator=seeded(0)))
    traces.assert_none()


@pytest.mark.parametrize("sigma", [0.05, 0.5])
def test_steps_in_a_linear_world_leave_the_residual_of_its_law(sigma: float) -> None:
    """P⊥(D(x) − x) = −v/(noise² + v) P⊥(x − mid-grey), with v = σ²/4: nothing of it is along the plane."""
    world, norm, v = linear_world((1, 4, 4), k=3, noise=0.02), 0.3, (sigma / 2) ** 2
    images, _ = world.sample(400, seeded(1))
    basis = world.tangent_basis(images)
    found = residuals_after_steps(world.denoiser, images, basis, norm, sigma=sigma, directions=1)
    middle = images.flatten(1) - 0.5
    off = middle - (basis @ (basis.mT @ middle[:, :, None]))[:, :, 0]
    factor = v / (0.02**2 + v)
    torch.testing.assert_close(found.at_rest, factor * norms(off))
    torch.testing.assert_close(found.on, found.at_rest)
    # A step off adds in quadrature, on average over directions; of one in any direction 13/16 are off.
    assert float(found.off.square().mean()) == pytest.approx(
        factor**2 * float((norms(off).square() + norm**2).mean()), rel=0.02
    )
    assert float(found.any.square().mean()) == pytest.approx(
        factor**2 * float((norms(off).square() + 13 / 16 * norm**2).mean()), rel=0.05
    )


def test_a_wrong_tangent_space_is_found_out() -> None:
    """On a torus, steps along the true space stay, those along a random one leave it like any other."""
    world = curved_world((1, 4, 4), k=2, noise=0.02)
    images, _ = world.sample(20, seeded(1))
    random = torch.linalg.qr(torch.randn(20, 16, 2, generator=seeded(2), dtype=torch.float64))[0]
    true, wrong = (
        residuals_after_steps(world.denoiser, images, basis, 0.1, sigma=0.1)
        for basis in (world.tangent_basis(images), random)
    )
    assert float(true.on.mean()) < float(true.at_rest.mean()) + 0.25 * float(true.off.mean())
    assert float(wrong.on.mean()) > 0.6 * float(wrong.off.mean())


def test_steps_are_named_by_the_image() -> None:
    world = linear_world((1, 4, 4), k=3)
    images, _ = world.sample(6, seeded(1))
    basis = world.tangent_basis(images)
    whole = residuals_after_steps(world.denoiser, images, basis, 0.2, sigma=0.3)
    part = residuals_after_steps(world.denoiser, images[2:4], basis[2:4], 0.2, sigma=0.3, places=[2, 3])
    torch.testing.assert_close(part.any, whole.any[2:4])
    for bad in ({"norm": 0.0}, {"norm": float("nan")}, {"directions": 0}):
        with pytest.raises(UsageError, match="a step of positive length"):
            residuals_after_steps(world.denoiser, images, basis, **{"norm": 0.1, "sigma": 0.3, **bad})  # type: ignore[arg-type]
