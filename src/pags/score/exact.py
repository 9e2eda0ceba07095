"""The ideal denoiser of a finite set, whose score knows nothing but that set (EDM, appendix B.3)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pags.arrays import Images, Labels, flatten
from pags.errors import UsageError

PART = 256  # images at a time, for each needs its distance from every image of the set


@dataclass(frozen=True)
class IdealDenoiser:
    """E[image | noisy image] when the image is drawn uniformly from a finite set.

    Args:
        images: (m, c, h, w) in [0, 1], the set.
        labels: (m,), for conditional denoising; None where it is never asked for.

    Raises:
        UsageError: when called with labels, if the set has none, or no image of a class that is asked for.
    """

    images: Images
    labels: Labels | None = None

    def __call__(self, images: Images, sigma: float, labels: Labels | None = None) -> Images:
        parts = images.split(PART)
        wanted = [None] * len(parts) if labels is None else labels.split(PART)
        return torch.cat([self._mean(x, sigma, y) for x, y in zip(parts, wanted, strict=True)])

    def _mean(self, images: Tensor, sigma: float, labels: Tensor | None) -> Tensor:
        points, seen = flatten(self.images).double().to(images.device), flatten(images).double()
        # |x − y|² without |x|², which the softmax does not see: a product, so that forward mode goes through.
        distances = points.square().sum(1) - 2 * seen @ points.T  # (n, m)
        # σ is for images in [-1, 1]; here distances are half as long.
        exponents = -distances / (2 * (sigma / 2) ** 2)
        if labels is not None:
            exponents = exponents.masked_fill(self._of_other_classes(labels), -torch.inf)
        return (torch.softmax(exponents, 1) @ points).to(images.dtype).reshape(images.shape)

    def _of_other_classes(self, labels: Labels) -> Tensor:  # (n, m)
        if self.labels is None:
            raise UsageError(
                "the labels of the set, for conditional denoising",
                got="a set without labels",
                suggestion="IdealDenoiser(images, labels), or labels=None for all classes",
            )
        other = labels[:, None] != self.labels[None].to(labels.device)
        if bool(other.all(1).any()):
            raise UsageError(
                f"labels of the set, {sorted(set(self.labels.tolist()))}",
                got=sorted(set(labels.tolist())),
                suggestion="a set with images of every class that is asked for",
            )
        return other
