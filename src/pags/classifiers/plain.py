"""Plain convolutional networks for small images, made to learn in few passes over the data on a CPU.

A whitening first layer with fixed filters, three stages of two 3×3 convolutions, and one linear layer: the
shape of the field's fastest CIFAR-10 recipes (Page 2019; Jordan 2024).
"""

import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d, unfold

from pags.arrays import Images, Logits
from pags.classifiers.resnet import Normalise, get_activation

PATCH = 2
"""Side of the whitened patches in pixels."""
SMOOTHING = 1e-2
"""Added to the variance of each direction of the patches, whose pixels have a variance of one: directions in
which images hardly vary are amplified tenfold at most."""
LOGIT_SCALE = 1 / 8
"""Of the last layer: small logits at the start, whose gradients are steady in a fast training."""

_NAME = re.compile(r"plain-([1-9]\d*)-([1-9]\d*)-([1-9]\d*)")


def plain_widths(name: str) -> tuple[int, int, int] | None:
    """The widths of the three stages in a name such as plain-32-128-128; None for other names."""
    found = _NAME.fullmatch(name)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


class Whitening(nn.Module):
    """2×2 patches in uncorrelated coordinates of unit variance, each with both signs; filters do not learn.

    Before `prepare` the coordinates are those of the cosine transform over pixels and colours, which natural
    images nearly decorrelate. `patches` counts what the filters were computed from: 0 before.
    """

    filters: Tensor
    patches: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        basis = torch.kron(_cosines(channels), torch.kron(_cosines(PATCH), _cosines(PATCH)))
        self.register_buffer("filters", _both_signs(basis, channels))
        self.register_buffer("patches", torch.zeros((), dtype=torch.long))
        self.bias = nn.Parameter(torch.zeros(len(self.filters)))

    def forward(self, x: Tensor) -> Tensor:  # (n, 8c, h - 1, w - 1)
        return conv2d(x, self.filters, self.bias)

    @torch.no_grad()
    def prepare(self, x: Tensor) -> None:
        """Compute the filters from the patches of normalised images (n, c, h, w)."""
        rows = unfold(x.double(), PATCH).movedim(1, -1).flatten(0, 1)  # (patches, 4c)
        variances, directions = torch.linalg.eigh(rows.T @ rows / len(rows))
        # Of the two signs of an eigenvector one is always taken, whatever the library returns.
        largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
        basis = (directions * largest.sign() / (variances + SMOOTHING).sqrt()).T.flip(0)
        self.filters.copy_(_both_signs(basis, x.shape[1]))
        self.patches.fill_(len(rows))


class Stage(nn.Module):
    """Two 3×3 convolutions, the resolution halved after the first (where there are two pixels to halve)."""

    def __init__(self, inside: int, outside: int, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.conv1, self.conv2 = _convolution(inside, outside), _convolution(outside, outside)
        self.norm1, self.norm2 = nn.BatchNorm2d(outside), nn.BatchNorm2d(outside)
        self.act1, self.act2 = activation(), activation()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        x = self.act1(self.norm1(max_pool2d(x, 2) if min(x.shape[2:]) > 1 else x))
        return self.act2(self.norm2(self.conv2(x)))


class PlainNetwork(nn.Module):
    """A plain convolutional network on images of any size from 2×2 pixels on.

    Args:
        channels: colour channels of the images.
        classes: number of logits.
        widths: channels of the three stages.
        activation: one of `resnet.ACTIVATIONS`; gelu and softplus are twice differentiable.
        mean, std: normalisation of each channel, for images in [0, 1].

    Raises:
        UsageError: no activation has this name.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        widths: Sequence[int],
        activation: str = "relu",
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        act = get_activation(activation)
        self.normalise, self.whitening, self.act = Normalise(mean, std), Whitening(channels), act()
        inside = (len(self.whitening.filters), *widths)
        self.stages = nn.Sequential(*(Stage(a, b, act) for a, b in zip(inside, widths, strict=False)))
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.head = nn.Linear(widths[-1], classes, bias=False)

    def prepare(self, images: Images) -> None:
        """Whiten with the statistics of these images (n, c, h, w) in [0, 1].

        The filters are part of the state dict, so a stored network does not need the images again; a network
        that has filters of images keeps them.
        """
        if not int(self.whitening.patches):
            self.whitening.prepare(self.normalise(images))

    def features(self, images: Images) -> Tensor:  # (n, widths[-1])
        """The input of the last layer."""
        return self.pool(self.stages(self.act(self.whitening(self.normalise(images))))).flatten(1)

    def forward(self, images: Images) -> Logits:
        return self.head(self.features(images)) * LOGIT_SCALE


def _convolution(inside: int, outside: int) -> nn.Conv2d:
    """A 3×3 convolution whose first outputs are its inputs, so that the signal reaches every depth."""
    convolution = nn.Conv2d(inside, outside, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(convolution.weight[: min(inside, outside)])
    return convolution


def _both_signs(basis: Tensor, channels: int) -> Tensor:  # (8c, c, 2, 2)
    """Filters and their negatives of a basis (4c, 4c), a row each."""
    return torch.cat([basis, -basis]).reshape(-1, channels, PATCH, PATCH).float()


def _cosines(n: int) -> Tensor:  # (n, n), orthonormal rows
    """The cosine transform (DCT-II) of n numbers, the constant first."""
    places = torch.arange(n, dtype=torch.float64)
    rows = torch.cos(torch.pi * places[:, None] * (places + 0.5) / n)
    return rows / rows.norm(dim=1, keepdim=True)
