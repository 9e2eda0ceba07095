"""Tangent spaces from a cloud of images, and exact ones, behind the contract of `pags.manifold.tangent`."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from pags.arrays import Basis, Images, flatten
from pags.data.imageset import ImageSet
from pags.data.worlds import World
from pags.errors import PagsError, UsageError
from pags.manifold.basis import check_count, collected, orthonormal_basis
from pags.manifold.denoised import DenoiserTangent, Denoising
from pags.manifold.tangent import DecoderTangent, EncoderDecoder, TangentEstimator
from pags.plugins import Plugin, failed, instead_of


@dataclass(frozen=True)
class ExactTangent:
    """The known tangent spaces of a world, as an estimator; bases in the images' type.

    Args:
        world: one of `pags.data.worlds`.
    """

    world: World

    def __call__(self, images: Images) -> tuple[Basis, Int[Tensor, "n"]]:
        basis = self.world.tangent_basis(images).to(images)
        return basis, torch.full((len(images),), self.world.k, device=images.device)


@dataclass(frozen=True)
class LocalPCA:
    """The principal directions of each image's nearest neighbours in a cloud (Kambhatla and Leen 1997).

    The angle to the true space grows with the neighbours' distance over the radius of curvature, and with the
    noise over that distance: in a noisy cloud more images help only with more neighbours. An image that is in
    the cloud is one of its own neighbours.

    Args:
        cloud: (m, c, h, w) in [0, 1].
        k: dimension of the tangent spaces.
        neighbours: nearest images that are used, more than k and at most m.
        batch_size: images whose neighbours are in memory at a time.

    Raises:
        UsageError: a number out of its range; when called, images of another shape than the cloud's.
    """

    cloud: Images
    k: int
    neighbours: int = 30
    batch_size: int = 32

    def __post_init__(self) -> None:
        check_count(self.k, 1, "dimensions")
        check_count(self.batch_size, 1, "images per batch")
        if not self.k < self.neighbours <= len(self.cloud):
            raise UsageError(
                f"neighbours from k + 1 = {self.k + 1} to the cloud's {len(self.cloud)} images",
                got=self.neighbours,
                suggestion="more neighbours, a larger cloud or a smaller k",
            )

    def __call__(self, images: Images) -> tuple[Basis, Int[Tensor, "n"]]:
        if images.shape[1:] != self.cloud.shape[1:]:
            raise UsageError(
                f"images of the cloud's shape {tuple(self.cloud.shape[1:])}",
                got=tuple(images.shape[1:]),
                suggestion="a cloud of the same data set",
            )
        cloud = flatten(self.cloud).to(images)
        parts = (self._bases(flatten(part), cloud) for part in images.split(self.batch_size))
        return collected(parts, len(images))

    def _bases(self, points: Tensor, cloud: Tensor) -> tuple[Tensor, Tensor]:
        middle = cloud.mean(0)  # distances are then differences of smaller numbers
        distances = torch.cdist(points - middle, cloud - middle)
        nearest = cloud[distances.topk(self.neighbours, largest=False).indices]  # (n, neighbours, d)
        basis, ranks = orthonormal_basis((nearest - nearest.mean(1, keepdim=True)).mT)
        return basis[:, :, : self.k], ranks.clamp_max(self.k)


# The registry --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TangentInputs:
    """What tangent estimators are made of.

    Args:
        train: images that the manifold is estimated from.
        k: dimension of the tangent spaces.
        autoencoder: trained on them, for what needs one.
        denoiser, sigma: trained on them, and the noise level (EDM's unit) of its Jacobian, likewise.
        seed: random seed of every draw.
    """

    train: ImageSet
    k: int
    autoencoder: EncoderDecoder | None = None
    denoiser: Denoising | None = None
    sigma: float = 0.5
    seed: int = 0


@dataclass(frozen=True)
class TangentEntry:
    """All that is known of a tangent estimator before it is made.

    Args:
        make: from its inputs.
        title: for people.
        needs: "autoencoder", "denoiser" or None: the trained network that it is read from.
        source: of a user's estimator, `pags.plugins.Plugin.source`.
    """

    make: Callable[[TangentInputs], TangentEstimator]
    title: str
    needs: str | None = None
    source: str = ""


def _local_pca(inputs: TangentInputs) -> TangentEstimator:
    neighbours = min(max(30, 2 * inputs.k), len(inputs.train))
    return LocalPCA(inputs.train.images, inputs.k, neighbours=neighbours)


def _of_autoencoder(inputs: TangentInputs) -> TangentEstimator:
    assert inputs.autoencoder is not None
    return DecoderTangent(inputs.autoencoder)


def _of_denoiser(inputs: TangentInputs) -> TangentEstimator:
    assert inputs.denoiser is not None
    return DenoiserTangent(inputs.denoiser, inputs.sigma, inputs.k, seed=inputs.seed)


ESTIMATORS: dict[str, TangentEntry] = {
    "autoencoder": TangentEntry(_of_autoencoder, "decoder of an autoencoder", "autoencoder"),
    "local-pca": TangentEntry(_local_pca, "local PCA"),
    "denoiser": TangentEntry(_of_denoiser, "Jacobian of a denoiser", "denoiser"),
}
"""Tangent estimators by name, the paper's first."""


def get_tangent(tangent: str | Callable[..., Any]) -> TangentEntry:
    """All that is known of a tangent estimator.

    Args:
        tangent: a name of `ESTIMATORS`; or one of the user's own, or `file.py:name` or `package.module:name`
            of one (which runs that code): a function of images (n, c, h, w) to columns (n, d, r) that span
            their tangent spaces, or such columns with their ranks. A function or class whose first parameter
            is called `train` is called with the training images (an `ImageSet`) and returns such a function.

    Raises:
        UsageError: an unknown name, or something that cannot be called.
    """
    if isinstance(tangent, str) and tangent in ESTIMATORS:
        return ESTIMATORS[tangent]
    plugin = instead_of(tangent, "a tangent estimator", ESTIMATORS, "autoencoder")
    plugin.check_callable("(images)", "return columns  # (n, d, r)")
    title = str(getattr(plugin.value, "title", plugin.name))
    return TangentEntry(lambda inputs: _fitted(plugin, inputs), title, source=plugin.source)


def fit_tangent(
    tangent: str | Callable[..., Any],
    train: ImageSet,
    *,
    k: int,
    autoencoder: EncoderDecoder | None = None,
    denoiser: Denoising | None = None,
    sigma: float = 0.5,
    seed: int = 0,
) -> TangentEstimator:
    """An estimator of tangent spaces.

    Args:
        tangent: as `get_tangent` takes it.
        train, k, autoencoder, denoiser, sigma, seed: see `TangentInputs`.

    Raises:
        UsageError: as `get_tangent`, and where the network that it is read from is not given.
        PagsError: the user's code fails.
    """
    entry = get_tangent(tangent)
    inputs = TangentInputs(train, k, autoencoder, denoiser, sigma, seed)
    if entry.needs and getattr(inputs, entry.needs) is None:
        raise UsageError(
            f"a trained {entry.needs}", got="none", suggestion=f"fit_tangent(…, {entry.needs}=…)"
        )
    return entry.make(inputs)


def _fitted(plugin: Plugin, inputs: TangentInputs) -> TangentEstimator:
    """The user's estimator, fitted to the training images where it asks for them."""
    value = plugin.value
    first = next(iter(inspect.signature(value).parameters), None)
    try:
        if first == "train":
            value = value(inputs.train)
        elif isinstance(value, type):
            value = value()
    except Exception as error:
        raise failed(f"{plugin.name} to be fitted to the training images", plugin.name, error) from error
    return _Orthonormal(value, plugin.name)


@dataclass(frozen=True)
class _Orthonormal:
    """A user's estimator behind the contract, whatever columns it gives."""

    estimator: Callable[[Images], Any]
    name: str

    def __call__(self, images: Images) -> tuple[Basis, Int[Tensor, "n"]]:
        found = self.estimator(images)
        columns = found[0] if isinstance(found, tuple) else found
        n, d = len(images), images[:1].numel()
        if not isinstance(columns, Tensor) or columns.ndim != 3 or columns.shape[:2] != (n, d):
            raise PagsError(
                f"columns of shape ({n}, {d}, r) from {self.name}",
                got=f"shape {tuple(columns.shape)}"
                if isinstance(columns, Tensor)
                else type(columns).__name__,
                suggestion="one matrix per image, its pixels flattened",
            )
        return orthonormal_basis(columns.detach().to(images))
