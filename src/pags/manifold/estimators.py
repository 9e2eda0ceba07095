"""Tangent spaces from a cloud of images, and exact ones, behind the contract of `pags.manifold.tangent`."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from pags.arrays import Basis, Images, flatten
from pags.data.worlds import World
from pags.errors import UsageError
from pags.manifold.basis import check_count, collected, orthonormal_basis


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
        check_count(self.batch_size, 1, "images a batch")
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
