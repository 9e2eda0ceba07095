"""How far an estimated manifold is from the images, and whether steps along it stay on it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pags.arrays import Basis, Images, PerImage, norms, scale_to, split
from pags.errors import UsageError
from pags.manifold.denoised import Denoising
from pags.manifold.tangent import EncoderDecoder, undisturbed
from pags.seeds import image_noise


def reconstruction_distance(
    autoencoder: EncoderDecoder, images: Images, *, batch_size: int = 256
) -> PerImage:
    """‖x − D(E(x))‖: how far each image is from the point whose tangent space is used at it.

    Where it is not small against a perturbation's norm, the perturbation starts further from the manifold
    than it leads.

    Args:
        autoencoder: any pair of `encode` and `decode`; a module is seen in evaluation mode.
        images: (n, c, h, w) in [0, 1].
        batch_size: images that are decoded at a time.

    Returns:
        (n,) l2 distances, for images in [0, 1].
    """
    with undisturbed(autoencoder), torch.no_grad():
        parts = images.split(batch_size)
        return torch.cat([norms(part - autoencoder.decode(autoencoder.encode(part))) for part in parts])


@dataclass(frozen=True)
class StepResiduals:
    """How much of a denoiser's correction lies off the tangent space: before a step, and after three kinds.

    Each is (n,), the length of P⊥ (D(x, σ) − x), a mean over directions. Steps along a good tangent space
    leave `on` near `at_rest`; `off` says what as long a step away from the manifold comes to.
    """

    at_rest: PerImage
    on: PerImage
    off: PerImage
    any: PerImage


def residuals_after_steps(
    denoiser: Denoising,
    images: Images,
    basis: Basis,
    norm: float,
    *,
    sigma: float,
    directions: int = 4,
    seed: int = 0,
    places: Sequence[int] | None = None,
) -> StepResiduals:
    """A test of a tangent space by a denoiser, which knows nothing of how the space was found.

    Args:
        denoiser: noisy images and sigma to the posterior mean.
        images: (n, c, h, w) in [0, 1].
        basis: (n, d, r) tangent bases of these images.
        norm: l2 norm of each step, for images in [0, 1].
        sigma: the denoiser's noise level in EDM's unit; norm · 2 / √d is that of noise of the step's length.
        directions: random steps per image.
        seed, places: name the draws of each image, see `image_noise`.

    Raises:
        UsageError: no direction, or a norm that is not above zero.
    """
    if directions < 1 or not 0 < norm < float("inf"):
        raise UsageError(
            "a step of positive length and a direction or more",
            got=f"norm {norm} and {directions} directions",
            suggestion="norm=0.5, directions=4",
        )

    def off_part(points: Tensor) -> PerImage:
        return norms(split(denoiser(points, sigma) - points, basis)[1])

    totals = torch.zeros(3, len(images), dtype=images.dtype, device=images.device)
    with undisturbed(denoiser), torch.no_grad():
        at_rest = off_part(images)
        for direction in range(directions):
            u = image_noise(images, seed, "steps", direction, places=places)
            steps = [scale_to(part, norm) for part in (*split(u, basis), u)]
            totals += torch.stack([off_part(images + step) for step in steps])
    on, off, anyhow = totals / directions
    return StepResiduals(at_rest, on, off, anyhow)
