"""Between the classifier's size and that of the score and the tangent spaces, where they differ.

A classifier for 224 px is audited with a score and tangent spaces at 64 px. Gradients are reduced to the
score's size (bilinear, antialiased) before they are compared with anything. Perturbations are made at the
score's size, enlarged (bilinear), and only then scaled to their norm.

What that approximates: everything is seen through 64 px. Detail finer than that lies in no tangent space here
and in no score, so neither rho2 nor any similarity knows of it; the share of a gradient's energy that is left
after reducing and enlarging is reported beside them (`kept`). Enlarged off-manifold directions are smooth, so
a model that is sensitive to fine noise alone looks more robust than it is.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pags.arrays import Images, dots
from pags.errors import UsageError
from pags.seeds import generator

Size = tuple[int, int]
"""Height and width in pixels."""


def reduced(vectors: Images, size: Size) -> Tensor:  # (n, c, *size)
    """Images, or vectors attached to them, at another size: bilinear, antialiased where it is smaller."""
    if vectors.shape[-2:] == size:
        return vectors
    return interpolate(vectors, size=size, mode="bilinear", align_corners=False, antialias=True)


def enlarged(vectors: Images, size: Size) -> Tensor:  # (n, c, *size)
    """Perturbations made at the score's size, at the classifier's."""
    if vectors.shape[-2:] == size:
        return vectors
    return interpolate(vectors, size=size, mode="bilinear", align_corners=False)


def kept_energy(vectors: Images, size: Size) -> Tensor:  # (n,)
    """The share of each vector's energy that is left after it was reduced to `size` and enlarged again."""
    seen = enlarged(reduced(vectors, size), (vectors.shape[-2], vectors.shape[-1]))
    return dots(seen, seen) / dots(vectors, vectors)


def check_size(size: Sequence[int]) -> None:
    """Raise unless both sides are above zero."""
    if len(size) != 2 or min(size) < 1:
        raise UsageError("a size of two sides above zero", got=tuple(size), suggestion="size=(64, 64)")


class Noise:
    """Standard normal draws with a generator for each image, however the images are cut.

    Args:
        seed: of the audit.
        name: what the draws are for.
        places: the images' places in the whole set.
    """

    def __init__(self, seed: int, name: str, places: Sequence[int]) -> None:
        self.draws = [generator(seed, name, place) for place in places]

    def like(self, images: Images) -> Images:
        """The next draw for every image."""
        shape = images.shape[1:]
        return torch.stack([torch.randn(shape, generator=draws) for draws in self.draws]).to(images)
