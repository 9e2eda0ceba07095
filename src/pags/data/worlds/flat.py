"""Worlds on flat manifolds: one subspace, several, and a signal beside a distractor."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pags.data.worlds.laws import Mixture, SignalDistractor
from pags.data.worlds.parts import (
    Shape,
    about,
    check_count,
    check_dimension,
    check_world,
    equal,
    fitting,
    gaussians,
    placed,
    subspace,
    unit_rows,
)
from pags.data.worlds.world import Tangent, World
from pags.errors import UsageError


def linear_world(
    shape: Shape = (1, 8, 8),
    *,
    classes: int = 3,
    k: int = 4,
    separation: float = 2.0,
    noise: float = 0.01,
    seed: int = 0,
) -> World:
    """World (a): Gaussian classes in one k-dimensional subspace through mid-grey, plus isotropic noise.

    Args:
        shape: (C, H, W), of d pixels.
        classes: equally likely classes, at least 2, each with a mean and a covariance of its own.
        k: dimension of the subspace, from 1 to d − 1.
        separation: distance of the class means from mid-grey, in a class's largest standard deviations.
        noise: standard deviation of the isotropic part for images in [0, 1], above 0 and below 0.5 / 7.
        seed: names the subspace, the means and the covariances.

    Raises:
        UsageError: an argument out of its range.
    """
    d = check_world(shape, classes, k, noise)
    basis = subspace(d, k, seed, "linear")
    law = gaussians(basis, classes, separation, noise, seed, "linear")
    said = about("linear", shape, seed, classes=classes, k=k, separation=separation, noise=noise)
    return World(shape, k, placed(law, fitting(law)), equal(classes), _constant(basis), _ones(shape), said)


def mixture_world(
    shape: Shape = (1, 8, 8),
    *,
    classes: int = 3,
    k: int = 4,
    patches: int = 3,
    own_manifolds: bool = False,
    separation: float = 2.0,
    noise: float = 0.01,
    seed: int = 0,
) -> World:
    """World (b): a mixture of `patches` worlds (a), each around a place of its own in a subspace of its own.

    The tangent basis at x is that of the patch to which x most probably belongs.

    Args:
        patches: number of patches, equally likely in every class that they hold.
        own_manifolds: whether patch p holds the class p modulo `classes` alone, so that the classes lie on
            different manifolds; otherwise every patch holds every class.
        shape, classes, k, separation, noise, seed: see `linear_world`.

    Raises:
        UsageError: an argument out of its range.
    """
    d = check_world(shape, classes, k, noise)
    check_count(patches, classes if own_manifolds else 1, "patches")
    bases = torch.stack([subspace(d, k, seed, "mixture", patch) for patch in range(patches)])
    groups = [
        gaussians(basis, classes, separation, noise, seed, "mixture", patch)
        for patch, basis in enumerate(bases)
    ]
    shifts = separation * unit_rows(patches, d, seed, "mixture", "places")
    law = Mixture(
        torch.cat([group.means + shift for group, shift in zip(groups, shifts, strict=True)]),
        torch.cat([group.axes for group in groups]),
        torch.cat([group.spreads for group in groups]),
        noise,
        _patch_shares(classes, patches, own_manifolds),
    )
    law = placed(law, fitting(law))
    said = about(
        "mixture", shape, seed, classes=classes, k=k, patches=patches, own_manifolds=own_manifolds,
        separation=separation, noise=noise,
    )  # fmt: skip
    tangent = _most_probable(law, bases.repeat_interleave(classes, 0))
    return World(shape, k, law, equal(classes), tangent, _ones(shape), said)


def distractor_world(
    shape: Shape = (1, 8, 8),
    *,
    classes: int = 3,
    k: int = 3,
    distractor_k: int = 3,
    modes: int = 2,
    informative: float = 0.0,
    mask: Bool[Tensor, "c h w"] | None = None,
    separation: float = 2.0,
    noise: float = 0.01,
    seed: int = 0,
) -> World:
    """World (d): p(x | y) = p(s | y) · p(d), a masked signal beside a distractor (Definition 3).

    The tangent basis has the k directions of the signal first, then those of the distractor.

    Args:
        k: dimension of the signal's subspace, below the number of its pixels.
        distractor_k: dimension of the distractor's subspace, below the number of its pixels.
        modes: Gaussians in the distractor's mixture.
        informative: from 0, where the distractor is independent of the label, to 1, where its mean moves with
            the label about as far as the signal's; nothing else about the world changes on the way.
        mask: (C, H, W), true on the signal; by default the upper half, or the left half of a single row.
        shape, classes, separation, noise, seed: see `linear_world`.

    Returns:
        A world whose `k` is that of signal and distractor together.

    Raises:
        UsageError: an argument out of its range.
    """
    d = check_world(shape, classes, k, noise)
    mask = _first_half(shape) if mask is None else mask
    flat = _flat_mask(mask, shape, k, distractor_k)
    check_count(modes, 1, "modes of the distractor")
    if not 0 <= informative <= 1:
        raise UsageError("informative from 0 to 1", got=informative, suggestion="informative=0")
    inside, outside = int(flat.sum()), int((~flat).sum())
    basis = torch.zeros(d, k + distractor_k, dtype=torch.float64)
    basis[flat, :k] = subspace(inside, k, seed, "signal")
    basis[~flat, k:] = subspace(outside, distractor_k, seed, "distractor")
    signal = gaussians(basis[flat, :k], classes, separation, noise, seed, "signal")
    rest = gaussians(basis[~flat, k:], modes, separation, noise, seed, "distractor")
    one_class = torch.full((1, modes), 1 / modes, dtype=torch.float64).log()
    rest = Mixture(rest.means, rest.axes, rest.spreads, noise, one_class)
    shifts = separation * unit_rows(classes, distractor_k, seed, "shifts") @ basis[~flat, k:].T
    scale = fitting(rest, shifts.abs().amax(0))  # with room for the largest shift at every setting
    law = SignalDistractor(
        placed(signal, fitting(signal)), placed(rest, scale), informative * scale * shifts, flat
    )
    said = about(
        "distractor", shape, seed, classes=classes, k=k, distractor_k=distractor_k, modes=modes,
        informative=informative, mask=flat.int().tolist(), separation=separation, noise=noise,
    )  # fmt: skip
    return World(shape, k + distractor_k, law, equal(classes), _constant(basis), mask, said)


def _constant(basis: Float[Tensor, "d k"]) -> Tangent:
    """The tangent space of a flat manifold."""
    return lambda points: basis.expand(len(points), -1, -1)


def _most_probable(law: Mixture, bases: Float[Tensor, "m d k"]) -> Tangent:
    """The tangent space of the component that explains a point best, over all classes."""
    overall = law.log_shares.logsumexp(0)  # (m,)
    return lambda points: bases[(overall + law.log_components(points, 0.0)).argmax(1)]


def _patch_shares(classes: int, patches: int, own: bool) -> Float[Tensor, "classes m"]:
    """log p(component | class); component patch · classes + y is what patch holds of class y."""
    held = torch.eye(classes, dtype=torch.float64).repeat(1, patches)
    if own:
        held = held * (torch.arange(patches) % classes == torch.arange(classes)[:, None]).repeat_interleave(
            classes, 1
        )
    return (held / held.sum(1, keepdim=True)).log()


def _ones(shape: Shape) -> Bool[Tensor, "c h w"]:
    return torch.ones(shape, dtype=torch.bool)


def _first_half(shape: Shape) -> Bool[Tensor, "c h w"]:
    """True on the upper half of the image, or on the left half of a single row."""
    mask, (_, height, width) = torch.zeros(shape, dtype=torch.bool), shape
    if height > 1:
        mask[:, : height // 2] = True
    else:
        mask[:, :, : width // 2] = True
    return mask


def _flat_mask(mask: Tensor, shape: Shape, k: int, distractor_k: int) -> Bool[Tensor, " d"]:
    """The mask as one row, with room for both subspaces."""
    if tuple(mask.shape) != tuple(shape) or mask.dtype != torch.bool:
        raise UsageError(
            f"a boolean mask of shape {tuple(shape)}",
            got=f"{mask.dtype} of shape {tuple(mask.shape)}",
            suggestion="mask.bool().expand(shape)",
        )
    check_dimension(k, int(mask.sum()), "the signal")
    check_dimension(distractor_k, int((~mask).sum()), "the distractor")
    return mask.flatten()
