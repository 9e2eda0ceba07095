"""Tangent spaces: the contract of their estimators, and the one that reads a decoder's Jacobian.

The contract (`pags.arrays.Basis`): (n, d, r) with orthonormal columns; an image whose Jacobian has a
lower rank than r has zeros in its last columns, so that projections need not know the rank.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import jvp, vmap

from pags.arrays import Basis, Images
from pags.classifiers.modes import evaluating
from pags.manifold.autoencoder import Autoencoder
from pags.manifold.basis import check_count, collected, orthonormal_basis
from pags.manifold.sequential import is_plain, pays, sequential_jacobian

__all__ = [
    "Decoder", "DecoderTangent", "EncoderDecoder", "TangentEstimator", "decoder_tangent", "forward_jacobian",
    "jacobian", "network_of", "orthonormal_basis", "undisturbed",
]  # fmt: skip

Decoder = Callable[[Tensor], Tensor]
"""Latent codes (n, k) to images (n, c, h, w), each image depending on its own code alone."""

TANGENTS = 256  # images' worth of tangents that a forward-mode pass holds at a time


class TangentEstimator(Protocol):
    """Any estimator of tangent spaces: `DecoderTangent`, `LocalPCA`, `DenoiserTangent`, `ExactTangent`.

    Called with images (n, c, h, w) in [0, 1], it answers with bases (n, d, r) whose columns are orthonormal,
    and with their ranks (n,); columns past an image's rank are zero. It treats each image by itself.
    """

    def __call__(self, images: Images) -> tuple[Basis, Int[Tensor, "n"]]: ...


def jacobian(decode: Decoder, codes: Float[Tensor, "n k"]) -> Float[Tensor, "n d k"]:
    """The derivative of each image with respect to its code, in k forward-mode passes.

    A large plain decoder on a CPU takes the passes of `pags.manifold.sequential`, any other callable those of
    `torch.func`, as many at a time as hold 256 images' worth of tangents (and no fewer than n).
    """
    network = network_of(decode)
    at_hand = codes.device.type == "cpu" and len(codes) > 0
    if at_hand and isinstance(network, nn.Module) and is_plain(network) and pays(network, codes.shape[1]):
        return sequential_jacobian(network, codes)
    return forward_jacobian(decode, codes)


def forward_jacobian(decode: Decoder, codes: Float[Tensor, "n k"]) -> Float[Tensor, "n d k"]:
    """The same for any callable that forward-mode differentiation can follow.

    One pass gives one column for all n images; passes are batched.
    """
    k = codes.shape[1]
    directions = torch.eye(k, dtype=codes.dtype, device=codes.device)

    def column(direction: Float[Tensor, " k"]) -> Tensor:  # (n, c, h, w)
        return jvp(decode, (codes,), (direction.expand_as(codes),))[1]

    columns = vmap(column, chunk_size=max(1, TANGENTS // max(1, len(codes))))(directions)  # (k, n, c, h, w)
    return columns.flatten(2).permute(1, 2, 0)


class EncoderDecoder(Protocol):
    """What `decoder_tangent` needs of an autoencoder."""

    def encode(self, images: Images) -> Tensor: ...
    def decode(self, codes: Tensor) -> Images: ...


def decoder_tangent(
    autoencoder: EncoderDecoder, images: Images, *, batch_size: int = 32
) -> tuple[Basis, Int[Tensor, "n"]]:
    """Tangent bases from an autoencoder: the decoder's Jacobian at the image's own code (section 4, B.6).

    The basis belongs to the point D(E(x)) and is used at x, as in the paper.

    Args:
        autoencoder: any pair of `encode` and `decode`; a module is seen in evaluation mode.
        images: (n, c, h, w) in [0, 1].
        batch_size: images whose Jacobians are in memory at a time.

    Returns:
        Bases (n, d, r) and ranks (n,).

    Raises:
        UsageError: a batch of no images.
    """
    check_count(batch_size, 1, "images per batch")

    def parts() -> Iterator[tuple[Tensor, Tensor]]:
        for part in images.split(batch_size):
            yield orthonormal_basis(jacobian(autoencoder.decode, autoencoder.encode(part)))

    with undisturbed(autoencoder), torch.no_grad():
        return collected(parts(), len(images))


@dataclass(frozen=True)
class DecoderTangent:
    """`decoder_tangent` as an estimator.

    Args:
        autoencoder, batch_size: see `decoder_tangent`.
    """

    autoencoder: EncoderDecoder
    batch_size: int = 32

    def __call__(self, images: Images) -> tuple[Basis, Int[Tensor, "n"]]:
        return decoder_tangent(self.autoencoder, images, batch_size=self.batch_size)


@contextmanager
def undisturbed(thing: object) -> Iterator[None]:
    """A module, or the module that a method belongs to, in evaluation mode; anything else as it is."""
    owner = getattr(thing, "__self__", thing)
    if isinstance(owner, nn.Module):
        with evaluating(owner):
            yield
    else:
        yield


def network_of(decode: Decoder) -> object:
    """The network behind a decoder: that of `Autoencoder.decode`, or the callable itself."""
    owner = getattr(decode, "__self__", None)
    if isinstance(owner, Autoencoder) and type(owner).decode is Autoencoder.decode and decode == owner.decode:
        return owner.decoder
    return decode
