"""On- and off-manifold robustness (Definitions 1 and 2, section 4).

All measures are per image:

* `equal_norm`: the change of the output when the on- and the off-manifold part of a random direction are
  both scaled to one l2 norm, as in Figures 3 and 9;
* `attacked_equal_norm`: the same for attacks that keep to the tangent space or to its complement, as random
  directions are the weakest case;
* `definition_1`: the squared change under the off-manifold part of normal noise and under all of it, without
  rescaling, whose ratio is rho1;
* `definition_2`: a gradient's energy outside the tangent space and in all, whose ratio is rho2.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pags.arrays import (
    Basis,
    Images,
    Labels,
    Logits,
    PerImage,
    dots,
    expand,
    has_direction,
    project,
    scale_to,
    split,
)
from pags.arrays import norms as lengths
from pags.classifiers.modes import predict
from pags.data.resize import Size, resized
from pags.errors import UsageError
from pags.measure.gradients import TargetLike, find_target
from pags.seeds import Draws, normal_like
from pags.training.attack import PGD

OUTPUT_CHANGES: dict[str, Callable[[Logits, Logits], PerImage]] = {
    "softmax-l2": lambda a, b: (_shares(a) - _shares(b)).norm(dim=1),  # the text: f maps to the simplex
    "softmax-l1": lambda a, b: (_shares(a) - _shares(b)).abs().sum(1),  # the released figures
    "logits-l2": lambda a, b: (a - b).norm(dim=1),
}
"""How far apart two outputs are, (n,); those of the softmax in float64."""


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

    Returns:
        In float64.
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
    return total / directions  # type: ignore[return-value]


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
    _check_changes(change, norms)
    check_basis(basis)
    whole = (images.shape[-2], images.shape[-1])
    scales = [partial(_to_norm, size=whole, norm=norm) for norm in norms]
    on, off, isotropic = mean_changes(
        model, images, lambda u: (*split(u, basis), u), scales, find_change(change),
        draws=draws, directions=directions, like=_blank(images, size), batch_size=batch_size,
    )  # fmt: skip
    return EqualNorm(*(part.to(images.dtype) for part in (on, off, isotropic)))


def attacked_equal_norm(
    model: nn.Module,
    images: Images,
    basis: Basis,
    norms: Sequence[float],
    *,
    steps: int = 10,
    labels: Labels | None = None,
    change: str = "softmax-l2",
    batch_size: int = 256,
) -> EqualNorm:
    """How much the output changes under attacks inside the tangent space, off it, and anywhere.

    Each attack is PGD on the loss, started at the image, whose every step is projected; attacked images may
    leave [0, 1], as they do under `equal_norm`, beside which these numbers stand.

    Args:
        model, images, basis, norms, change: as in `equal_norm`; the norms are the radii of the balls.
        steps: gradient steps, of 2.5 radii in all.
        labels: (n,) the classes whose probability is driven down; None: the predicted ones.
        batch_size: images that are attacked at a time.

    Returns:
        Changes at the attacked images, (norms, n) each; NaN where there was no step with a direction, which
        is so where the gradient does not reach into a half by more than its rounding.

    Raises:
        UsageError: as `equal_norm`; no steps.
    """
    _check_changes(change, norms)
    check_basis(basis)
    clean = predict(model, images, batch_size=batch_size)
    labels = clean.argmax(1) if labels is None else labels
    found = torch.zeros(3, len(norms), len(images), dtype=images.dtype, device=images.device)
    for place, norm in enumerate(norms):
        attack = PGD(norm, steps)
        for rows in torch.arange(len(images), device=images.device).split(batch_size):
            for which, within in enumerate(_halves(basis[rows])):
                x, y = images[rows], labels[rows]
                start = torch.zeros_like(x)
                attacked = attack.attack(model, x, y, start, within=within, clip=False)
                moved = OUTPUT_CHANGES[change](clean[rows], predict(model, attacked.images))
                moved = torch.where(attacked.stalled < steps, moved.to(images.dtype), torch.nan)
                found[which, place, rows] = moved
    return EqualNorm(*found)


def _halves(basis: Basis) -> tuple[Callable[[Images], Images], ...]:
    """Projections of vectors into the tangent space, into its complement, and none."""

    def kept(whole: Images, part: Images) -> Images:
        """The part, zero where it is no more than the projection's rounding."""
        least = 64 * torch.finfo(whole.dtype).eps * lengths(whole)
        return torch.where(expand(lengths(part) > least, part), part, 0.0)

    return lambda v: kept(v, split(v, basis)[0]), lambda v: kept(v, split(v, basis)[1]), lambda v: v


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
        return (scalar(moved.double(), labels) - scalar(clean.double(), labels)).square()

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


@dataclass(frozen=True)
class Definition2:
    """The energy (squared norm) of vectors outside the tangent space and in all, per image, in float64."""

    off: PerImage
    all: PerImage

    @property
    def rho2(self) -> PerImage:
        """The ratio of Definition 2 for each image; NaN where a vector has no direction.

        The ratio of the *means* is rho2 weighted by energy. That is what Theorem 1 makes equal to rho1, the
        ratio of the means of `Definition1`, for a linear output and for any output at a small sigma.
        """
        return self.off / self.all


def definition_2(vectors: Images, basis: Basis) -> Definition2:
    """The energies of which rho2 is the ratio; NaN where a vector has no direction.

    Args:
        vectors: (n, c, h, w), gradients as a rule.
        basis: (n, d, r) tangent bases of their images.
    """
    exact = torch.where(expand(has_direction(vectors), vectors), vectors.double(), torch.nan)
    off = exact - project(vectors, basis).double()
    return Definition2(dots(off, off), dots(exact, exact))


def off_manifold_share(vectors: Images, basis: Basis) -> PerImage:
    """rho2 (Definition 2): the share of each vector's energy outside its tangent space.

    NaN where a vector has no direction. One of random direction has 1 − r/d on average, the chance line.
    """
    return definition_2(vectors, basis).rho2.to(vectors.dtype)


def _check_changes(change: str, norms: Sequence[float]) -> None:
    if change not in OUTPUT_CHANGES:
        raise UsageError(
            f"an output change among {', '.join(OUTPUT_CHANGES)}", got=repr(change), suggestion="softmax-l2"
        )
    if not norms or not all(0 < norm < float("inf") for norm in norms):
        raise UsageError("perturbation norms above zero", got=list(norms), suggestion="norms=(0.5, 1.0)")


def _shares(logits: Logits) -> Logits:
    """The softmax in float64: float32 loses what a probability near 1 changes by, which ratios scale up."""
    return logits.double().softmax(1)


def check_basis(basis: Basis) -> None:
    """Raise where a tangent space is empty or everything, so that one of the halves does not exist."""
    ranks = (basis.abs().amax(1) > 0).sum(1)
    if bool((ranks == 0).any()) or bool((ranks == basis.shape[1]).any()):
        raise UsageError(
            f"tangent spaces of dimension 1 to {basis.shape[1] - 1}",
            got=f"dimensions from {int(ranks.min())} to {int(ranks.max())}",
            suggestion="an autoencoder with a smaller latent space that was trained to the end",
        )
