"""Networks that normalise before each convolution, for small images: wide ones and PreActResNet-18.

Most robust CIFAR models are wide residual networks (Zagoruyko and Komodakis 2016); the names of their layers
are those that TRADES, RobustBench and their like have in their files. PreActResNet is of He et al. (2016b).
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from pags.arrays import Images, Logits
from pags.classifiers.resnet import get_activation

WIDE = {
    "wide-resnet-16-4": (16, 4), "wide-resnet-28-4": (28, 4), "wide-resnet-28-10": (28, 10),
    "wide-resnet-34-10": (34, 10), "wide-resnet-40-2": (40, 2),
}  # fmt: skip
"""Depth and widening of each."""

PREACTIVATION = {"preact-resnet18": True, "preact-resnet18-plain": False}
"""Whether the last block is followed by a normalisation and an activation; both kinds are in use."""

UNUSED = "sub_block1"
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
    """A residual network of pre-activation blocks on normalised images, of any size.

    Args:
        channels: colour channels of the images.
        classes: number of logits.
        widths: channels of the stem and of each stage; every stage after the first halves the resolution.
        blocks: blocks in each stage.
        activation: one of `resnet.ACTIVATIONS`.
        last_norm: whether a normalisation and an activation follow the last block.

    Raises:
        UsageError: no activation has this name.
    """

    def __init__(
        self, channels: int, classes: int, *, widths: Sequence[int], blocks: int, activation: str = "relu",
        last_norm: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        act = get_activation(activation)
        self.conv1 = nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False)
        self.stages = len(widths) - 1
        for stage in range(1, len(widths)):
            inside, outside = widths[stage - 1 : stage + 1]
            made = WideStage(inside, outside, blocks, 1 if stage == 1 else 2, act)
            self.add_module(f"block{stage}", made)
        self.bn1 = nn.BatchNorm2d(widths[-1]) if last_norm else None
        self.act = act() if last_norm else nn.Identity()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[-1], classes)

    def forward(self, images: Images) -> Logits:
        out = self.conv1(images)
        for stage in range(1, self.stages + 1):
            out = self.get_submodule(f"block{stage}")(out)
        out = out if self.bn1 is None else self.bn1(out)
        return self.fc(self.pool(self.act(out)).flatten(1))


def build_preactivation(name: str, channels: int, classes: int, *, activation: str = "relu") -> WideResNet:
    """The network called `name`, of `WIDE` or `PREACTIVATION`.

    A wide network of depth 6n + 4 has n blocks in each of three stages, of 16, 32 and 64 channels times its
    widening.

    Args:
        channels, classes, activation: as in `WideResNet`.
    """
    if name in PREACTIVATION:
        widths, blocks = [64, 64, 128, 256, 512], 2
    else:
        depth, widening = WIDE[name]
        widths, blocks = [16, 16 * widening, 32 * widening, 64 * widening], (depth - 4) // 6
    return WideResNet(
        channels, classes, widths=widths, blocks=blocks, activation=activation,
        last_norm=PREACTIVATION.get(name, True),
    )  # fmt: skip
