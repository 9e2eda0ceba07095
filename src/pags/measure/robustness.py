"""On- and off-manifold robustness (Definitions 1 and 2, section 4).

Three measures, all per image:

* `equal_norm`: the change of the output when the on- and the off-manifold part of a random direction are
  both scaled to one l2 norm, as in Figures 3 and 9;
* `definition_1`: the squared change under the off-manifold part of normal noise and under all of it, without
  rescaling, whose ratio is rho1;
* `off_manifold_share`: the share of a gradient's energy outside the tangent space, rho2.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pags.arrays import Basis, Images, Labels, Logits, PerImage, dots, scale_to, split
from pags.classifiers.modes import predict
from pags.data.resize import Size, resized
from pags.errors import UsageError
from pags.measure.gradients import TargetLike, find_target
from pags.seeds import Draws, normal_like

OUTPUT_CHANGES: dict[str, Callable[[Logits, Logits], PerImage]] = {
    "softmax-l2": lambda a, b: (a.softmax(1) - b.softmax(1)).norm(dim=1),  # the text: f maps to the simplex
    "softmax-l1": lambda a, b: (a.softmax(1) - b.softmax(1)).abs().sum(1),  # the released figures
    "logits-l2": lambda a, b: (a - b).norm(dim=1),
}


@dataclass(frozen=True)
class EqualNorm:
    """Mean output change of each image at each perturbation norm, over the directions drawn.

    `on` and `off` are the two parts of the directions; `any` is the isotropic direction, the chance level:
    what both would be if the model did not tell them apart.
    """

    on: Float[Tensor, "norms n"]
    off: Float[Tensor, "norms n"]
    any: Float[Tensor, "norms n"]


Small: TypeAlias = Float[Tensor, "n c height width"]
"""Directions where they are drawn, maybe at another size than the images'."""
Change = Callable[[Logits, Logits], PerImage]
"""Of the logits of an image and of its perturbed copy, to one number per image."""


def mean_changes(
    model: nn.Module,
    images: Images,
    parts: Callable[[Images], Sequence[Images]],
    scales: Sequence[Callable[[Images], Images]],
    change: Change,
    *,
    draws: Draws,
    directions: int,
    like: Small | None = None,
    batch_size: int = 1024,
) -> Float[Tensor, "parts scales n"]:
    """The mean change of the output over random directions: the one loop of Figures 3, 5, 9 and Definition 1.

    Every model and every scale sees the same directions, so that comparisons are paired.

    Args:
        model: a classifier, seen in evaluation mode.
        images: (n, c, h, w) in [0, 1]; perturbed images may leave the range, as in the paper.
        parts: splits standard normal directions into the perturbations that are compared.
        scales: each makes the perturbation of one size from a part, in the images' own shape.
        change: how the change of the output is measured.
        draws: where the directions come from.
        directions: random directions per image.
        like: the shape in which directions are drawn, (n, c, …); None: the images' own.
        batch_size: perturbed images in memory at a time.
    """
    if directions < 1:
        raise UsageError("one direction or more", got=directions, suggestion="directions=8")
    blank = images if like is None else like
    clean = predict(model, images, batch_size=batch_size)
    total: Tensor | int = 0
    for _ in range(directions):
        moved = [
            [predict(model, images + scale(part), batch_size=batch_size) for scale in scales]
            for part in parts(normal_like(blank, draws))
        ]
        total = total + torch.stack(
            [torch.stack([change(clean, logits).double() for logits in row]) for row in moved]
        )
    return (total / directions).to(images.dtype)  # type: ignore[union-attr]


def equal_norm(
    model: nn.Module,
    images: Images,
    basis: Basis,
    norms: Sequence[float],
    *,
    draws: Draws,
    directions: int = 8,
    change: str = "softmax-l2",
    size: Size | None = None,
    batch_size: int = 1024,
) -> EqualNorm:
    """How much the output changes on and off the manifold, at equal l2 norms of the perturbation.

    Args:
        model, images, draws, directions, batch_size: as in `mean_changes`.
        basis: (n, d, r) tangent bases of these images, of rank above 0 and below d.
        norms: l2 norms of the perturbations, for images in [0, 1].
        change: one of `OUTPUT_CHANGES`.
        size: height and width at which the bases live, where directions are drawn and split; they are
            enlarged before they are scaled. None: the images' own.

    Raises:
        UsageError: an unknown change, a basis that leaves no direction on or off the manifold, a bad norm.
    """
    if not norms or not all(0 < norm < float("inf") for norm in norms):
        raise UsageError("perturbation norms above zero", got=list(norms), suggestion="norms=(0.5, 1.0)")
    check_basis(basis)
    whole = (images.shape[-2], images.shape[-1])
    scales = [partial(_to_norm, size=whole, norm=norm) for norm in norms]
    on, off, isotropic = mean_changes(
        model, images, lambda u: (*split(u, basis), u), scales, find_change(change),
        draws=draws, directions=directions, like=_blank(images, size), batch_size=batch_size,
    )  # fmt: skip
    return EqualNorm(on, off, isotropic)


@dataclass(frozen=True)
class Definition1:
    """Mean squared changes of a scalar output under off-manifold noise and under all of it, per image."""

    off: PerImage
    all: PerImage

    @property
    def rho1(self) -> PerImage:
        """The ratio of Definition 1 for each image; NaN where the output does not change at all."""
        return self.off / self.all


def definition_1(
    model: nn.Module,
    images: Images,
    basis: Basis,
    sigma: float,
    *,
    draws: Draws,
    directions: int = 32,
    target: TargetLike = "logit",
    labels: Labels | None = None,
    size: Size | None = None,
    batch_size: int = 1024,
) -> Definition1:
    """Relative off-manifold robustness as Definition 1 states it, for u ~ N(0, sigma²).

    Args:
        model, images, basis, draws, directions, size, batch_size: as in `equal_norm`; enlarged noise is
            smoother, so that its deviation in the images' own pixels is below `sigma`.
        sigma: standard deviation of the noise, for images in [0, 1].
        target, labels: the scalar output, as in `pags.measure.gradients.input_gradient`.
    """
    scalar, whole = find_target(target), (images.shape[-2], images.shape[-1])
    labels = predict(model, images, batch_size=batch_size).argmax(1) if labels is None else labels

    def squared(clean: Logits, moved: Logits) -> PerImage:
        return (scalar(moved, labels) - scalar(clean, labels)).square()

    scales = [lambda part: sigma * resized(part, whole)]
    ((off,), (all_of_it,)) = mean_changes(
        model, images, lambda u: (split(u, basis)[1], u), scales, squared,
        draws=draws, directions=directions, like=_blank(images, size), batch_size=batch_size,
    )  # fmt: skip
    return Definition1(off, all_of_it)


def find_change(name: str) -> Change:
    """The output change called `name`, or a `UsageError`."""
    if name not in OUTPUT_CHANGES:
        raise UsageError(
            f"an output change among {', '.join(OUTPUT_CHANGES)}", got=repr(name), suggestion="softmax-l2"
        )
    return OUTPUT_CHANGES[name]


def _to_norm(part: Small, *, size: Size, norm: float) -> Images:
    return scale_to(resized(part, size), norm)


def _blank(images: Images, size: Size | None) -> Small | None:
    """A batch of the shape in which directions are drawn; None for the images' own."""
    return None if size is None else images.new_zeros(len(images), images.shape[1], *size)


def off_manifold_share(vectors: Images, basis: Basis) -> PerImage:
    """rho2 (Definition 2): the share of each vector's energy outside its tangent space; NaN for zero vectors.

    A vector of random direction has 1 − r/d on average, the chance line.
    """
    off = split(vectors, basis)[1]
    return dots(off, off) / dots(vectors, vectors)


def check_basis(basis: Basis) -> None:
    """Raise where a tangent space is empty or everything, so that one of the halves does not exist."""
    ranks = (basis.abs().amax(1) > 0).sum(1)
    if bool((ranks == 0).any()) or bool((ranks == basis.shape[1]).any()):
        raise UsageError(
            f"tangent spaces of dimension 1 to {basis.shape[1] - 1}",
            got=f"dimensions from {int(ranks.min())} to {int(ranks.max())}",
            suggestion="an autoencoder with a smaller latent space that was trained to the end",
        )
