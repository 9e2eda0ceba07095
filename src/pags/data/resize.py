"""The one way in which images, and vectors attached to them, are brought to another size.

A classifier for 224 px is measured with a score and tangent spaces at 64 px. Its gradients are reduced to the
score's size before they are compared with anything; perturbations are made at the score's size, enlarged, and
only then scaled to their norm.

What that approximates: everything is seen through 64 px. Detail finer than that lies in no tangent space here
and in no score, so neither rho2 nor any similarity knows of it; the share of a gradient's energy that is left
after reducing and enlarging is reported beside them (`kept_energy`). Enlarged off-manifold directions are
smooth, so a model that is sensitive to fine noise alone looks more robust than it is.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from pags.arrays import Images, PerImage, dots
from pags.data.imageset import ImageSet, as_float, chunks
from pags.errors import UsageError

Size = tuple[int, int]
"""Height and width in pixels."""


def resized(vectors: Images, size: Size) -> Float[Tensor, "n c height width"]:
    """Images, or vectors attached to them, at another size: bilinear, antialiased where a side is smaller.

    Args:
        vectors: (n, c, h, w), of any range.
        size: height and width.

    Returns:
        (n, c, *size).
    """
    here = (vectors.shape[-2], vectors.shape[-1])
    if here == size:
        return vectors
    smaller = size[0] < here[0] or size[1] < here[1]
    return interpolate(vectors, size=size, mode="bilinear", align_corners=False, antialias=smaller)


def kept_energy(vectors: Images, size: Size) -> PerImage:
    """The share of each vector's energy that is left after it was brought to `size` and back."""
    seen = resized(resized(vectors, size), (vectors.shape[-2], vectors.shape[-1]))
    return dots(seen, seen) / dots(vectors, vectors)


def size_of_side(shape: tuple[int, int, int], side: int | None) -> Size:
    """Height and width with the shorter side at `side` pixels, in the same proportions; None: as it is."""
    _, height, width = shape
    if side is None:
        return height, width
    shorter = min(height, width)
    return round(height * side / shorter), round(width * side / shorter)


def resized_set(data: ImageSet, size: Size) -> ImageSet:
    """The set at another size, its pixels of the same type, in bounded memory."""
    if tuple(data.shape[1:]) == size:
        return data
    parts = [resized(as_float(part), size).clamp(0, 1) for part in chunks(data.pixels)]
    if data.pixels.dtype == torch.uint8:
        parts = [(255 * part).round().to(torch.uint8) for part in parts]
    provenance = data.provenance | {"size": list(size)}
    return replace(data, pixels=torch.cat(parts), masks=_resized_masks(data, size), provenance=provenance)


def check_size(size: Sequence[int]) -> None:
    """Raise unless both sides are above zero."""
    if len(size) != 2 or min(size) < 1:
        raise UsageError("a size of two sides above zero", got=tuple(size), suggestion="size=(64, 64)")


def _resized_masks(data: ImageSet, size: Size) -> Tensor | None:
    if data.masks is None:
        return None
    return interpolate(data.masks[:, None].float(), size=size, mode="nearest")[:, 0] > 0.5
