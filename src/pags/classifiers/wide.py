"""Wide residual networks for small images (Zagoruyko and Komodakis 2016), as most robust CIFAR models are.

The names of the layers are those that TRADES, RobustBench and their like have in their files.
"""

from collections.abc import Callable

from torch import Tensor, nn

from pags.arrays import Images, Logits
from pags.classifiers.resnet import ACTIVATIONS
from pags.errors import UsageError

WIDE = {"wide-resnet-16-4": (16, 4), "wide-resnet-28-10": (28, 10), "wide-resnet-34-10": (34, 10)}
"""Depth and widening of each."""

UNUSED = "sub_block1."
"""Layers that TRADES' network registers and never calls; they are in its files and left out here."""


class WideBlock(nn.Module):
    """Two 3×3 convolutions, each after its normalisation and activation, and a shortcut around them."""

    def __init__(self, inside: int, outside: int, stride: int, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(inside), nn.BatchNorm2d(outside)
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.act1, self.act2 = activation(), activation()
        self.convShortcut = nn.Conv2d(inside, outside, 1, stride, bias=False) if inside != outside else None

    def forward(self, x: Tensor) -> Tensor:
        first = self.act1(self.bn1(x))
        out = self.conv2(self.act2(self.bn2(self.conv1(first))))
        # Where the width changes, the shortcut starts after the first activation.
        return out + (x if self.convShortcut is None else self.convShortcut(first))


class WideStage(nn.Module):
    """Blocks of one width; the first may halve the resolution."""

    def __init__(
        self, inside: int, outside: int, blocks: int, stride: int, activation: Callable[[], nn.Module]
    ) -> None:
        super().__init__()
        first = WideBlock(inside, outside, stride, activation)
        rest = [WideBlock(outside, outside, 1, activation) for _ in range(blocks - 1)]
        self.layer = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class WideResNet(nn.Module):
    """A wide residual network on normalised images, of any size.

    Args:
        channels: colour channels of the images.
        classes: number of logits.
        depth: 6n + 4, for n blocks in each of the three stages.
        widening: the stages have 16, 32 and 64 channels times this.
        activation: one of `resnet.ACTIVATIONS`.

    Raises:
        UsageError: no activation has this name.
    """

    def __init__(
        self, channels: int, classes: int, *, depth: int, widening: int, activation: str = "relu"
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise UsageError(
                f"an activation among {', '.join(ACTIVATIONS)}", got=repr(activation), suggestion="relu"
            )
        act, blocks = ACTIVATIONS[activation], (depth - 4) // 6
        widths = [16, 16 * widening, 32 * widening, 64 * widening]
        self.conv1 = nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False)
        self.block1 = WideStage(widths[0], widths[1], blocks, 1, act)
        self.block2 = WideStage(widths[1], widths[2], blocks, 2, act)
        self.block3 = WideStage(widths[2], widths[3], blocks, 2, act)
        self.bn1, self.act = nn.BatchNorm2d(widths[3]), act()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[3], classes)

    def forward(self, images: Images) -> Logits:
        out = self.block3(self.block2(self.block1(self.conv1(images))))
        return self.fc(self.pool(self.act(self.bn1(out))).flatten(1))
