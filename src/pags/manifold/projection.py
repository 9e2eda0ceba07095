"""Projections onto tangent spaces whose bases are never kept: P = J (JᵀJ)⁺ Jᵀ through the Gram matrix.

A basis takes d·k numbers per image, its Gram matrix k·k: 24 times fewer for k = 128 and 3×32×32 pixels. The
price is one backward and one forward pass through the decoder for each projection.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import jvp, vjp

from pags.arrays import Images
from pags.errors import UsageError
from pags.manifold.basis import check_count, gram_roots
from pags.manifold.tangent import Decoder, jacobian, undisturbed


@dataclass(frozen=True)
class GramProjection:
    """P v for any vectors v attached to n images; made by `gram_projection`.

    Args:
        decode: latent codes to images, as in `gram_projection`.
        codes: (n, k).
        roots: (n, k, k) float64, C with C Cᵀ = (JᵀJ)⁺.
        ranks: (n,), the tangent spaces' dimensions.
        batch_size: images that are decoded at a time.
    """

    decode: Decoder
    codes: Float[Tensor, "n k"]
    roots: Float[Tensor, "n k k2"]
    ranks: Int[Tensor, "n"]
    batch_size: int

    def __call__(self, vectors: Images) -> Images:
        """The part of each vector in its image's tangent space.

        Args:
            vectors: (n, c, h, w), of the decoder's shape, one for each code.

        Raises:
            UsageError: another number of vectors than of codes.
        """
        if len(vectors) != len(self.codes):
            raise UsageError(
                f"{len(self.codes)} vectors, one a code", got=len(vectors), suggestion="one vector an image"
            )
        sizes = [part.split(self.batch_size) for part in (self.codes, self.roots, vectors)]
        with undisturbed(self.decode), torch.no_grad():
            return torch.cat([self._projected(*part) for part in zip(*sizes, strict=True)])

    def _projected(self, codes: Tensor, roots: Tensor, vectors: Tensor) -> Tensor:
        pulled = vjp(self.decode, codes)[1](vectors)[0]  # Jᵀ v, (n, k)
        coordinates = (roots @ (roots.mT @ pulled.double()[:, :, None]))[:, :, 0].to(codes.dtype)
        return jvp(self.decode, (codes,), (coordinates,))[1]


def gram_projection(
    decode: Decoder, codes: Float[Tensor, "n k"], *, batch_size: int = 8, tolerance: float | None = None
) -> GramProjection:
    """The projections onto the tangent spaces at the given codes, in memory for n·k² numbers.

    Args:
        decode: latent codes to images; a module, or the method of one, is seen in evaluation mode.
        codes: (n, k); `autoencoder.encode(images)` for those of images.
        batch_size: images whose Jacobians are in memory at a time.
        tolerance: see `orthonormal_basis`; a deficient Jacobian is projected onto what it does span.

    Raises:
        UsageError: a batch of no images.
    """
    check_count(batch_size, 1, "images per batch")
    with undisturbed(decode), torch.no_grad():
        parts = [gram_roots(jacobian(decode, part), tolerance=tolerance) for part in codes.split(batch_size)]
    roots, ranks = (torch.cat(column) for column in zip(*parts, strict=True))
    return GramProjection(decode, codes, roots, ranks, batch_size)


def project_by_gram(
    vectors: Images,
    decode: Decoder,
    codes: Float[Tensor, "n k"],
    *,
    batch_size: int = 8,
    tolerance: float | None = None,
) -> Images:
    """P v for one vector an image: `pags.arrays.project` without the bases.

    Args:
        vectors: (n, c, h, w).
        decode, codes, batch_size, tolerance: see `gram_projection`, which serves many vectors an image.

    Raises:
        UsageError: as `gram_projection` and `GramProjection`.
    """
    return gram_projection(decode, codes, batch_size=batch_size, tolerance=tolerance)(vectors)
