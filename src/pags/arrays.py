"""Array roles, and the few per-example operations that everything else is built from.

Every function here treats the first axis as the example axis and never mixes examples,
so a result does not depend on how a batch was cut.
"""

from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from pags.errors import UsageError

Images: TypeAlias = Float[Tensor, "n c h w"]
"""A batch of images in [0, 1], or of vectors attached to images (gradients, scores, perturbations)."""
Labels: TypeAlias = Int[Tensor, "n"]
"""Class indices."""
Logits: TypeAlias = Float[Tensor, "n classes"]
"""A classifier's outputs before the softmax."""
PerImage: TypeAlias = Float[Tensor, "n"]
"""One number for each image."""
Basis: TypeAlias = Float[Tensor, "n d r"]
"""Tangent bases of n images: orthonormal columns; where the rank is below r, the last columns are zero."""


def flatten(x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n d"]:
    """Each example as one row."""
    return x.reshape(len(x), -1)


def expand(values: Shaped[Tensor, "n"], like: Tensor) -> Tensor:
    """One value per example, shaped (n, 1, …) to broadcast against `like`."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def norms(x: Float[Tensor, "n *shape"]) -> PerImage:
    """The l2 norm of each example."""
    return _float64_norms(x).to(x.dtype)


def dots(a: Float[Tensor, "n *shape"], b: Float[Tensor, "n *shape"]) -> PerImage:
    """The inner product of each pair of examples."""
    return (flatten(a) * flatten(b)).sum(1)


def cosines(a: Float[Tensor, "n *shape"], b: Float[Tensor, "n *shape"]) -> PerImage:
    """The cosine of each pair of examples; NaN where either has no direction."""
    lengths = _float64_norms(a) * _float64_norms(b)  # float32 would lose the product of two short vectors
    there = (lengths > 0) & lengths.isfinite()
    found = dots(a.double(), b.double()) / torch.where(there, lengths, 1.0)
    return torch.where(there, found, torch.nan).to(a.dtype)


def has_direction(x: Float[Tensor, "n *shape"]) -> Bool[Tensor, "n"]:
    """Whether each example is finite and not zero.

    What has no direction is in no metric: its value is NaN, and means and intervals leave it out.
    """
    rows = flatten(x)
    return rows.isfinite().all(1) & (rows != 0).any(1)


def zero_unless_directed(x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *shape"]:
    """The examples, zero in place of those that are not finite."""
    return torch.where(expand(has_direction(x), x), x, 0.0)


def nan_unless_directed(values: PerImage, *vectors: Float[Tensor, "n *_"]) -> PerImage:
    """The values, NaN in place of those where one of the vectors has no direction."""
    there = torch.stack([has_direction(vector) for vector in vectors]).all(0)
    return torch.where(there, values, torch.nan)


def scale_to(x: Float[Tensor, "n *shape"], norm: float | PerImage) -> Float[Tensor, "n *shape"]:
    """Each example rescaled to the given l2 norm; a zero example stays zero."""
    # First by the largest entry, so that squaring neither overflows nor underflows.
    x = max_abs_scaled(x)
    lengths = norms(x)
    factors = torch.where(lengths > 0, norm / lengths.clamp_min(torch.finfo(x.dtype).tiny), 0.0)
    return x * expand(factors, x)


def clip_norm(x: Float[Tensor, "n *shape"], radius: float | PerImage) -> Float[Tensor, "n *shape"]:
    """The nearest point of the l2 ball of the given radius, for each example (its norm never exceeds it)."""
    lengths = _float64_norms(x)
    # The factor is rounded down a little, so that the norm of the result is not above the radius.
    shrink = radius / lengths.clamp_min(torch.finfo(x.dtype).tiny) * (1 - 4 * torch.finfo(x.dtype).eps)
    return x * expand(torch.where(lengths > radius, shrink, 1.0), x).to(x.dtype)


def _float64_norms(x: Tensor) -> Tensor:  # (n,)
    """Summed in float64: over 150,528 pixels a float32 sum is off by more than `clip_norm` rounds down."""
    return torch.linalg.vector_norm(flatten(x), dim=1, dtype=torch.float64)


def max_abs_scaled(x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *shape"]:
    """Each example divided by its largest absolute value, so in [-1, 1]; a zero example stays zero."""
    peaks = flatten(x).abs().amax(1) if x[0].numel() else x.new_zeros(len(x))
    return x / expand(torch.where(peaks > 0, peaks, 1.0), x)


def project(x: Float[Tensor, "n *shape"], basis: Basis) -> Float[Tensor, "n *shape"]:
    """P x: the part of each example in the span of its basis (section 3)."""
    coordinates = torch.einsum("ndr,nd->nr", basis, flatten(x))
    return torch.einsum("ndr,nr->nd", basis, coordinates).reshape(x.shape)


def split(
    x: Float[Tensor, "n *shape"], basis: Basis
) -> tuple[Float[Tensor, "n *shape"], Float[Tensor, "n *shape"]]:
    """The on-manifold part P x and the off-manifold part x − P x of each example."""
    on = project(x, basis)
    return on, x - on


def check_images(images: Tensor, *, what: str = "images") -> None:
    """Raise unless `images` obeys the contract: float, (N, C, H, W), finite, in [0, 1]."""
    if images.ndim != 4 or not images.is_floating_point():
        raise UsageError(
            f"{what} as a float tensor (N, C, H, W) in [0, 1]",
            got=f"{images.dtype} of shape {tuple(images.shape)}",
            suggestion="images.float() / 255 for 8-bit pixels, images[None] for a single image",
        )
    if images.numel() == 0:
        return
    low, high = float(images.min()), float(images.max())
    if not (0 <= low and high <= 1):  # also catches NaN
        raise UsageError(
            f"{what} with every pixel in [0, 1]",
            got=f"values from {low:.4g} to {high:.4g}",
            suggestion="dividing 8-bit pixels by 255; normalisation belongs inside the classifier",
        )


def check_labels(labels: Tensor, classes: int) -> None:
    """Raise unless every label is an integer in [0, classes)."""
    if labels.ndim != 1 or labels.is_floating_point():
        raise UsageError(
            "labels as one integer an image",
            got=f"{labels.dtype} {tuple(labels.shape)}",
            suggestion="labels.long().flatten()",
        )
    if labels.numel() and not (0 <= int(labels.min()) and int(labels.max()) < classes):
        raise UsageError(
            f"labels from 0 to {classes - 1}",
            got=f"labels from {int(labels.min())} to {int(labels.max())}",
            suggestion="numbering the classes from zero, or a classifier with more classes",
        )
