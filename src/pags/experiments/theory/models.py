"""The small networks, and the tangent spaces, that the theory is tried on."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pags.arrays import Basis, Images, flatten


def perceptron(
    shape: tuple[int, int, int], classes: int, activation: nn.Module, *, width: int = 64
) -> nn.Module:
    """A network with two hidden layers; images to logits."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(math.prod(shape), width), activation,
        nn.Linear(width, width), activation, nn.Linear(width, classes),
    )  # fmt: skip


def linear_model(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A linear classifier; images to logits."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), classes))


def local_pca(images: Images, cloud: Float[Tensor, "m c h w"], k: int, *, neighbours: int) -> Basis:
    """Tangent bases (n, d, k): the principal directions of each image's nearest neighbours in a cloud."""
    points, others = flatten(images), flatten(cloud)
    nearest = others[torch.cdist(points, others).topk(neighbours, largest=False).indices]  # (n, m, d)
    return torch.linalg.svd(nearest - nearest.mean(1, keepdim=True), full_matrices=False)[2][:, :k].mT
