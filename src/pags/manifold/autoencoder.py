"""Convolutional autoencoders, whose decoder's image is the estimated data manifold (section 4, B.6)."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from pags.arrays import Images, PerImage
from pags.data.batches import Batch
from pags.errors import UsageError
from pags.store import read_safetensors

DecoderKind = Literal["mirror", "pythae"]


class Autoencoder(nn.Module):
    """An encoder of stride-2 convolutions and its mirror image, with BatchNorm and a final sigmoid.

    Args:
        shape: (C, H, W) of the images; H and W divisible by 2^len(widths).
        latent: k, the dimension of the latent space and so of the manifold.
        widths: channels after each halving; the paper's are (128, 256, 512, 1024) with k = 128 (B.6).
        decoder: "mirror", the encoder's mirror image; or "pythae", which the paper took as it came (B.6;
            docs/choices.md, 25): two doublings of the last three widths from a quarter of the sides.

    Raises:
        UsageError: the sides cannot be halved that often, or no such decoder.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        latent: int,
        widths: Sequence[int],
        decoder: DecoderKind = "mirror",
    ) -> None:
        super().__init__()
        channels, height, width = shape
        times = 2 ** len(widths)
        if height % times or width % times:
            raise UsageError(
                f"sides divisible by {times}",
                got=f"{height}×{width}",
                suggestion="fewer widths or a resized image",
            )
        self.latent = latent
        self.small = (widths[-1], height // times, width // times)
        size = self.small[0] * self.small[1] * self.small[2]
        ins = [channels, *widths]
        down = [_halve(a, b) for a, b in zip(ins, widths, strict=False)]
        up = [_double(b, a) for a, b in list(zip(ins, widths, strict=False))[:0:-1]]
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(size, latent))
        if decoder == "pythae":
            self.decoder = _pythae(shape, latent, widths)
            return
        last = nn.ConvTranspose2d(widths[0], channels, 4, 2, 1)
        self.decoder = nn.Sequential(
            nn.Linear(latent, size), nn.Unflatten(1, self.small), nn.BatchNorm2d(self.small[0]), nn.ReLU(),
            *up, last, nn.Sigmoid(),
        )  # fmt: skip

    def encode(self, images: Images) -> Tensor:  # (n, k)
        """The latent codes."""
        return self.encoder(2 * images - 1)

    def decode(self, codes: Tensor) -> Images:
        """The images of latent codes, in [0, 1]."""
        return self.decoder(codes)

    def forward(self, images: Images) -> Images:
        return self.decode(self.encode(images))


class Reconstruction:
    """The squared error of the reconstruction, summed over the pixels of each image."""

    def __call__(self, model: nn.Module, batch: Batch, draws: torch.Generator) -> PerImage:
        return mse_loss(model(batch.images), batch.images, reduction="none").flatten(1).sum(1)


def load_autoencoder(path: Path) -> Autoencoder:
    """An autoencoder from a file of ours, in evaluation mode; its build is read off the weights (of square
    images).

    Raises:
        PagsError: the file cannot be read.
        UsageError: it holds something else.
    """
    tensors, _ = read_safetensors(path)
    try:
        latent, size = tensors[
            max(n for n in tensors if n.startswith("encoder.") and tensors[n].ndim == 2)
        ].shape
        filters = [v for n, v in tensors.items() if n.startswith("encoder.") and v.ndim == 4]
        widths = sorted(len(v) for v in filters)
        channels = min(v.shape[1] for v in filters)
        side = math.isqrt(size // widths[-1]) * 2 ** len(widths)
        kind: DecoderKind = "mirror" if len(tensors["decoder.0.weight"]) == size else "pythae"
        network = Autoencoder((channels, side, side), latent, widths, kind)
        network.load_state_dict(tensors)
    except (ValueError, KeyError, IndexError, RuntimeError) as error:
        raise UsageError(
            "an autoencoder that pags has trained, of square images",
            got=f"{path} ({len(tensors)} tensors of another build)",
            suggestion="a file of the folder autoencoders/, or no --autoencoder",
        ) from error
    return network.eval()


def _pythae(shape: tuple[int, int, int], latent: int, widths: Sequence[int]) -> nn.Sequential:
    """Kernels of 4 throughout; the output padding of the second doubling is taken back by the last layer."""
    if len(widths) < 3:
        raise UsageError("three widths or more for this decoder", got=widths, suggestion="decoder='mirror'")
    channels, height, width = shape
    third, second, first = widths[-3:]
    return nn.Sequential(
        nn.Linear(latent, first * (height // 4) * (width // 4)),
        nn.Unflatten(1, (first, height // 4, width // 4)),
        nn.ConvTranspose2d(first, second, 4, 2, 1), nn.BatchNorm2d(second), nn.ReLU(),
        nn.ConvTranspose2d(second, third, 4, 2, 1, output_padding=1), nn.BatchNorm2d(third), nn.ReLU(),
        nn.ConvTranspose2d(third, channels, 4, 1, 2), nn.Sigmoid(),
    )  # fmt: skip


def _halve(inside: int, outside: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inside, outside, 4, 2, 1), nn.BatchNorm2d(outside), nn.ReLU())


def _double(inside: int, outside: int) -> nn.Module:
    return nn.Sequential(nn.ConvTranspose2d(inside, outside, 4, 2, 1), nn.BatchNorm2d(outside), nn.ReLU())
