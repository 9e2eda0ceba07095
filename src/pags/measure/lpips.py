"""LPIPS (Zhang et al., 2018) with AlexNet: how different two images look, as a squared Euclidean distance.

The five unit-normalised feature maps are scaled by the roots of the linear heads' weights and of one over the
number of positions. The distance of two images is then the squared length of the difference of their
features, so what a reference needs of AlexNet is computed once and compared with any number of others.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from pags.arrays import PerImage
from pags.errors import PagsError, UsageError
from pags.store import read_safetensors

PerLayer: TypeAlias = Float[Tensor, "n 5"]
"""One number for each image and each of AlexNet's five convolutions."""

SMALLEST = 31
"""The smallest side, in pixels, from which AlexNet's two poolings leave anything."""

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # ImageNet's mean and deviation, on [-1, 1]
_STRIDE_AND_PADDING = ((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))
_POOLED_BEFORE = (1, 2)
_EPSILON = 1e-10


@dataclass(frozen=True)
class Features:
    """What LPIPS compares: for each of five layers, one row an image.

    Made by `LPIPS.features`. `len` counts the images, and indexing with a slice or a tensor of indices
    chooses among them: `features[permutation]` are shuffled references.

    Args:
        layers: five tensors (n, d_l); at 64×64 pixels the d_l add up to 31872, so 125 KiB an image.
    """

    layers: tuple[Float[Tensor, "n _"], ...]

    def __len__(self) -> int:
        return len(self.layers[0])

    def __getitem__(self, chosen: slice | Tensor) -> "Features":
        return Features(tuple(rows[chosen] for rows in self.layers))


class LPIPS(nn.Module):
    """The perceptual distance LPIPS v0.1 with AlexNet.

    Images are float tensors (n, 3 or 1, h, w) in [-1, 1]: gradients and scores after
    `pags.arrays.max_abs_scaled`, pictures as `2 * images - 1`. One channel is taken as grey. They may lie
    on another device than the module and have any float type; they are brought over batch by batch.

    The result carries no autograd graph: LPIPS is a measure here, not a loss. It is computed under
    `no_grad`, not in inference mode, so a caller may use it as a constant in what is differentiated later.

    Args:
        weights: `conv0.weight`, `conv0.bias`, `linear0.weight`, … as in the file that `load` reads.
        upsample_to: images whose smaller side is below this many pixels are first enlarged bilinearly
            (keeping their proportions) so that it is this many. At 32 px the last three of AlexNet's five
            feature maps are 1×1 and see no arrangement in space; at 64 px they are 3×3.
            None compares at native resolution, which is the paper's preset (section 4).
        batch_size: how many images pass through AlexNet at once; it bounds the memory used on the way,
            and changes results by rounding only.

    Raises:
        UsageError: `upsample_to` is below AlexNet's smallest side, or `batch_size` is below 1.

    Source: Zhang, Isola, Efros, Shechtman and Wang, CVPR 2018, equation 1; section 4 and B.10 of the paper.
    """

    def __init__(
        self, weights: Mapping[str, Tensor], *, upsample_to: int | None = 64, batch_size: int = 128
    ) -> None:
        super().__init__()
        _check_options(upsample_to, batch_size)
        self.upsample_to, self.batch_size = upsample_to, batch_size
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1))
        scale = torch.tensor(_SCALE).view(1, 3, 1, 1)
        for layer in range(5):
            # The first filters take the division by the deviations over from every image.
            filters = weights[f"conv{layer}.weight"] / (scale if layer == 0 else 1)
            # Channels last makes AlexNet about 1.4 times as fast on a CPU; the images follow the weights.
            filters = filters.contiguous(memory_format=torch.channels_last)
            self.register_buffer(f"filters{layer}", filters)
            self.register_buffer(f"bias{layer}", weights[f"conv{layer}.bias"])
            self.register_buffer(f"root{layer}", weights[f"linear{layer}.weight"].sqrt().view(1, -1, 1, 1))

    @classmethod
    def load(cls, *, upsample_to: int | None = 64, batch_size: int = 128) -> "LPIPS":
        """LPIPS with the weights that ship with pags; the options are those of the class.

        Raises:
            UsageError: an option out of range.
            PagsError: the weights are missing or damaged.
        """
        with as_file(files("pags.measure") / "weights" / "lpips_alex.safetensors") as path:
            weights, _ = read_safetensors(path)
        return cls(weights, upsample_to=upsample_to, batch_size=batch_size)

    def on(self, device: torch.device | str) -> "LPIPS":
        """This module where it is on that device, else a copy that is."""
        here = self.get_buffer("shift").device == torch.device(device)
        return self if here else copy.deepcopy(self).to(device)

    def forward(self, a: Tensor, b: Tensor) -> PerImage:
        """The distance of each pair of images, in bounded memory.

        Args:
            a, b: (n, 3 or 1, h, w) in [-1, 1], of the same shape.

        Returns:
            n distances on the device of `a`, 0 for equal images, as a rule below 1.

        Raises:
            UsageError: the shapes differ, or the images are not as described, or too small.
        """
        if a.shape != b.shape:
            raise UsageError(
                "two batches of images of the same shape",
                got=f"{tuple(a.shape)} and {tuple(b.shape)}",
                suggestion="resizing one to the other's size",
            )
        _check_images(a, self.upsample_to)
        _check_images(b, self.upsample_to)
        pairs = zip(a.split(self.batch_size), b.split(self.batch_size), strict=True)
        parts = [self.distance(self._embedded(x), self._embedded(y)) for x, y in pairs]
        return torch.cat(parts).to(a.device)

    def features(self, images: Tensor) -> Features:
        """What the distance needs to know of each image; computed once, it serves any number of comparisons.

        Args:
            images: (n, 3 or 1, h, w) in [-1, 1].

        Returns:
            Features of n images, on this module's device.

        Raises:
            UsageError: the images are not as described, or too small for AlexNet without upsampling.
        """
        _check_images(images, self.upsample_to)
        batches = [self._embedded(batch).layers for batch in images.split(self.batch_size)]
        return Features(tuple(joined(rows) for rows in zip(*batches, strict=True)))

    def distance(self, a: Features, b: Features) -> PerImage:
        """The distance of each pair, from their features.

        Args:
            a, b: features of n images each, of one size.

        Returns:
            n distances.

        Raises:
            UsageError: the features are not of equally many images of one size.
        """
        return self.by_layer(a, b).sum(1)

    def by_layer(self, a: Features, b: Features) -> PerLayer:
        """The five terms of each distance, from AlexNet's first convolution to its last.

        Args:
            a, b: features of n images each, of one size.

        Returns:
            (n, 5); the rows add up to `distance`.

        Raises:
            UsageError: the features are not of equally many images of one size.
        """
        _check_alike(a, b)
        terms = [self._squared_lengths(left, right) for left, right in zip(a.layers, b.layers, strict=True)]
        return torch.stack(terms, dim=1)

    def _squared_lengths(self, a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> PerImage:
        pairs = zip(a.split(self.batch_size), b.split(self.batch_size), strict=True)
        return torch.cat([(left - right).square_().sum(1) for left, right in pairs])

    @torch.no_grad()
    def _embedded(self, images: Float[Tensor, "n c h w"]) -> Features:
        return Features(tuple(self._rows(self._prepared(images))))

    def enlarge(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c H W"]:
        """The images as large as `upsample_to` asks; larger ones as they are. Values may have any range."""
        sides = _enlarged(images.shape[-2:], self.upsample_to)
        if sides == images.shape[-2:]:
            return images
        return F.interpolate(images, size=sides, mode="bilinear", align_corners=False)

    def _prepared(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 H W"]:
        """The images large enough, centred, and in colour (by broadcasting)."""
        images = self.enlarge(images.to(self.get_buffer("shift")))
        return images - self.get_buffer("shift")

    def _rows(self, x: Float[Tensor, "n 3 h w"]) -> list[Float[Tensor, "n _"]]:
        """AlexNet up to its last convolution, tapped after each rectifier."""
        # The shift is not folded into conv0's bias: the zero padding is added after it.
        taps = []
        for layer, (stride, padding) in enumerate(_STRIDE_AND_PADDING):
            if layer in _POOLED_BEFORE:
                x = F.max_pool2d(x, kernel_size=3, stride=2)
            filters, bias = self.get_buffer(f"filters{layer}"), self.get_buffer(f"bias{layer}")
            x = F.conv2d(x, filters, bias, stride, padding).relu_()
            taps.append(_unit_rows(x, self.get_buffer(f"root{layer}")))
        return taps


def lpips_of_files(path_a: Path | str, path_b: Path | str) -> float:
    """The LPIPS distance of two image files, as RGB; images under 64 px are enlarged to 64.

    Args:
        path_a, path_b: files of any format that Pillow reads, of the same width and height.

    Returns:
        The distance.

    Raises:
        PagsError: a file is missing or not a readable image.
        UsageError: the sizes differ.
    """
    a, b = _read_image(Path(path_a)), _read_image(Path(path_b))
    if a.shape != b.shape:
        raise UsageError(
            "two images of the same size",
            got=f"{path_a} of {_size(a)} and {path_b} of {_size(b)} pixels",
            suggestion="resizing one to the other's size",
        )
    return float(LPIPS.load()(a, b))


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Parts one after the other; a single part is not copied, for that costs as much as the distance."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _unit_rows(x: Float[Tensor, "n c h w"], root: Float[Tensor, "1 c 1 1"]) -> Float[Tensor, "n d"]:
    """Unit length over channels, then weighted so that a squared difference is the head's mean over space."""
    positions = x.shape[2] * x.shape[3]
    x = x.permute(0, 2, 3, 1)  # (n, h, w, c), the order in memory
    lengths = torch.linalg.vecdot(x, x).sqrt_().add_(_EPSILON)
    weighted = x * (root.flatten() / positions**0.5)
    return weighted.mul_(lengths.reciprocal_()[..., None]).flatten(1)


def _enlarged(sides: torch.Size, upsample_to: int | None) -> tuple[int, int]:
    height, width = sides
    smaller = min(height, width)
    if upsample_to is None or smaller >= upsample_to:
        return height, width
    return round(height * upsample_to / smaller), round(width * upsample_to / smaller)


def _read_image(path: Path) -> Float[Tensor, "1 3 h w"]:
    try:
        with Image.open(path) as image:
            pixels = np.array(image.convert("RGB"))  # (h, w, 3)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PagsError(
            "an image file that can be read", got=f"{path} ({error})", suggestion="a PNG or JPEG file"
        ) from error
    return torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1


def _size(image: Tensor) -> str:
    return f"{image.shape[-1]}×{image.shape[-2]}"


def _check_options(upsample_to: int | None, batch_size: int) -> None:
    if upsample_to is not None and upsample_to < SMALLEST:
        raise UsageError(
            f"upsample_to of at least {SMALLEST} px, the smallest side AlexNet takes",
            got=upsample_to,
            suggestion="64, or None for native resolution",
        )
    if batch_size < 1:
        raise UsageError("a batch_size of at least 1", got=batch_size, suggestion="128")


def _check_images(images: Tensor, upsample_to: int | None) -> None:
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.is_floating_point():
        raise UsageError(
            "images for LPIPS as a float tensor (N, 3 or 1, H, W) in [-1, 1]",
            got=f"{images.dtype} of shape {tuple(images.shape)}",
            suggestion="images.float() / 127.5 - 1 for 8-bit pixels, images[None] for a single image",
        )
    if upsample_to is None and min(images.shape[-2:]) < SMALLEST:
        raise UsageError(
            f"images of at least {SMALLEST}×{SMALLEST} px, for AlexNet leaves nothing of smaller ones",
            got=f"images of {_size(images)} px and upsample_to=None",
            suggestion="upsample_to=64",
        )
    _check_range(images)


def _check_range(images: Tensor) -> None:
    if images.numel() == 0:
        return
    low, high = (float(bound) for bound in torch.aminmax(images.detach()))
    if not (-1 <= low and high <= 1):  # also catches NaN
        raise UsageError(
            "images for LPIPS with every value in [-1, 1]",
            got=f"values from {low:.4g} to {high:.4g}",
            suggestion="2 * images - 1 for pixels in [0, 1], max_abs_scaled(images) for gradients and scores",
        )


def _check_alike(a: Features, b: Features) -> None:
    shapes_a, shapes_b = ([tuple(rows.shape) for rows in features.layers] for features in (a, b))
    if shapes_a != shapes_b:
        raise UsageError(
            "features of equally many images of one size",
            got=f"shapes {shapes_a} and {shapes_b}",
            suggestion="images of one size and one upsample_to for both",
        )
