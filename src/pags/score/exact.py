"""The ideal denoiser of a finite set, whose score knows nothing but that set (EDM, appendix B.3)."""

from dataclasses import dataclass

import torch

from pags.arrays import Images, Labels, flatten


@dataclass(frozen=True)
class IdealDenoiser:
    """E[image | noisy image] when the image is drawn uniformly from a finite set.

    Args:
        images: (m, c, h, w) in [0, 1], the set.
        labels: (m,), for conditional denoising; None where it is never asked for.
    """

    images: Images
    labels: Labels | None = None

    def __call__(self, images: Images, sigma: float, labels: Labels | None = None) -> Images:
        points = flatten(self.images)
        # σ is for images in [-1, 1]; here distances are half as long.
        distances = torch.cdist(flatten(images).double(), points.double()).square() / (2 * (sigma / 2) ** 2)
        if labels is not None and self.labels is not None:
            other = labels[:, None] != self.labels[None]
            distances = distances.masked_fill(other, float("inf"))
        weights = torch.softmax(-distances, 1).to(points.dtype)  # (n, m)
        return (weights @ points).reshape(images.shape)
