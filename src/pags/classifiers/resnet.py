"""Residual networks for small images (He et al. 2016, with the CIFAR stem)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from pags.arrays import Images, Logits
from pags.errors import UsageError

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "softplus": lambda: nn.Softplus(beta=10),
    "gelu": nn.GELU,
}


def get_activation(name: str) -> Callable[[], nn.Module]:
    """What makes an activation of this name.

    Raises:
        UsageError: no activation has it.
    """
    if name not in ACTIVATIONS:
        raise UsageError(f"an activation among {', '.join(ACTIVATIONS)}", got=repr(name), suggestion="relu")
    return ACTIVATIONS[name]


class Normalise(nn.Module):
    """(x − mean) / std for each channel; the first layer of a classifier, so that images stay in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor([float(value) for value in values]).reshape(-1, 1, 1))

    def forward(self, images: Images) -> Images:
        return (images - self.mean) / self.std


class PaddedShortcut(nn.Module):
    """The shortcut without weights (option A): every `stride`-th pixel, channels of zeros on both sides."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.stride, self.before = stride, (outside - inside) // 2
        self.after = outside - inside - self.before

    def forward(self, x: Tensor) -> Tensor:
        return pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class Block(nn.Module):
    """Two 3×3 convolutions and a shortcut, which is a 1×1 convolution where the shape changes, or padded."""

    def __init__(
        self,
        inside: int,
        outside: int,
        stride: int,
        activation: Callable[[], nn.Module],
        padded: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outside)
        self.shortcut: nn.Module = nn.Sequential()
        if padded and (stride != 1 or inside != outside):
            self.shortcut = PaddedShortcut(inside, outside, stride)
        elif stride != 1 or inside != outside:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )
        self.act1, self.act2 = activation(), activation()

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm2(self.conv2(self.act1(self.norm1(self.conv1(x)))))
        return self.act2(out + self.shortcut(x))


class Bottleneck(nn.Module):
    """A 1×1, a 3×3 and a 1×1 convolution, the last four times as wide, and a shortcut."""

    def __init__(self, inside: int, outside: int, stride: int, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        width = outside // WIDENING
        self.conv1 = nn.Conv2d(inside, width, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outside, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(outside)
        self.shortcut = nn.Sequential()
        if stride != 1 or inside != outside:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )
        self.act1, self.act2, self.act3 = activation(), activation(), activation()

    def forward(self, x: Tensor) -> Tensor:
        out = self.act1(self.norm1(self.conv1(x)))
        out = self.norm3(self.conv3(self.act2(self.norm2(self.conv2(out)))))
        return self.act3(out + self.shortcut(x))


WIDENING = 4
"""A bottleneck's output is four times as wide as its 3×3 convolution (He et al. 2016)."""


class ResNet(nn.Module):
    """A residual network: stem, stages of blocks, adaptive average pooling, one linear layer.

    Args:
        channels: colour channels of the images.
        classes: number of logits.
        widths: channels of each stage; every stage after the first halves the resolution.
        depth: blocks in each stage.
        bottleneck: whether the blocks are bottlenecks, their output `WIDENING` times as wide.
        padded: whether shortcuts have no weights (option A of He et al.).
        activation: one of `ACTIVATIONS`.
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
        depth: Sequence[int],
        bottleneck: bool = False,
        padded: bool = False,
        activation: str = "relu",
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        act = get_activation(activation)
        self.normalise = Normalise(mean, std)
        self.stem = nn.Sequential(
            nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), act()
        )
        blocks: list[nn.Module] = []
        inside = widths[0]
        block: Callable[..., nn.Module] = Bottleneck if bottleneck else partial(Block, padded=padded)
        for stage, width in enumerate(widths):
            outside = WIDENING * width if bottleneck else width
            for place in range(depth[stage]):
                blocks.append(block(inside, outside, 2 if stage and not place else 1, act))
                inside = outside
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(inside, classes)

    def features(self, images: Images) -> Tensor:  # (n, widths[-1]), four times that of bottlenecks
        """The input of the last layer."""
        return self.pool(self.blocks(self.stem(self.normalise(images)))).flatten(1)

    def forward(self, images: Images) -> Logits:
        return self.head(self.features(images))


@dataclass(frozen=True)
class Layout:
    """The stages of one residual network."""

    widths: tuple[int, ...]
    depth: tuple[int, ...]
    bottleneck: bool = False
    padded: bool = False


LAYOUTS = {
    "resnet18": Layout((64, 128, 256, 512), (2, 2, 2, 2)),  # the paper's network (B.2): 11.2 million weights
    "resnet34": Layout((64, 128, 256, 512), (3, 4, 6, 3)),
    "resnet50": Layout((64, 128, 256, 512), (3, 4, 6, 3), bottleneck=True),
    "small-resnet": Layout((16, 32, 64), (1, 1, 1)),
    # Of 6n + 2 layers, for CIFAR-10 (He et al. 2016, section 4.2).
    **{f"cifar-resnet{6 * n + 2}": Layout((16, 32, 64), (n, n, n), padded=True) for n in (3, 5, 7, 9, 18)},
}


def build_resnet(
    name: str,
    channels: int,
    classes: int,
    *,
    activation: str = "relu",
    mean: Sequence[float],
    std: Sequence[float],
) -> ResNet:
    """The network called `name`.

    Args:
        name: one of `LAYOUTS`: "resnet18" (the paper's), "resnet34", "resnet50", "small-resnet" (three
            blocks, for small images on a CPU), or one of He et al.'s for CIFAR-10, such as "cifar-resnet20".
        channels, classes, activation, mean, std: as in `ResNet`.

    Raises:
        UsageError: no network has this name.
    """
    if name not in LAYOUTS:
        raise UsageError(
            f"an architecture among {', '.join(LAYOUTS)}", got=repr(name), suggestion="small-resnet"
        )
    layout = LAYOUTS[name]
    return ResNet(
        channels,
        classes,
        widths=layout.widths,
        depth=layout.depth,
        bottleneck=layout.bottleneck,
        padded=layout.padded,
        activation=activation,
        mean=mean,
        std=std,
    )
