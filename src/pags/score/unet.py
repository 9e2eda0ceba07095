"""A small U-Net denoiser with EDM's preconditioning and loss (Karras et al. 2022, table 1), trained here."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from pags.arrays import Images, Labels, PerImage, expand
from pags.data.batches import Batch
from pags.errors import UsageError

SIGMA_DATA = 0.5  # EDM's, for images scaled to [-1, 1]
P_MEAN, P_STD = -1.2, 1.2  # of log σ in training


class UNetDenoiser(nn.Module):
    """D(x, σ) = c_skip x + c_out F(c_in x, c_noise) (EDM, equation 7), behind the `Denoiser` contract.

    Args:
        channels: colour channels.
        classes: number of classes for conditional denoising; 0 for none. A network with classes also denoises
            without labels, for which it has an embedding of its own.
        widths: channels at each resolution, every one after the first at half the side.

    Raises:
        UsageError: when called with labels, if it was made without classes.
    """

    def __init__(self, channels: int, *, classes: int = 0, widths: Sequence[int] = (32, 64)) -> None:
        super().__init__()
        self.classes = classes
        self.net = _UNet(channels, classes, widths)

    def forward(self, images: Images, sigma: float | PerImage, labels: Labels | None = None) -> Images:
        if labels is not None and not self.classes:
            raise UsageError(
                "labels=None, for this denoiser was made without classes",
                got=f"{len(labels)} labels",
                suggestion="UNetDenoiser(channels, classes=10), trained with labels",
            )
        sigmas = torch.as_tensor(sigma, dtype=images.dtype, device=images.device).expand(len(images))
        return (self.denoise(2 * images - 1, sigmas, labels) + 1) / 2

    def denoise(self, x: Images, sigma: PerImage, labels: Labels | None) -> Images:
        """The same for images in [-1, 1]."""
        spread = (sigma**2 + SIGMA_DATA**2).sqrt()
        c_skip, c_out = (SIGMA_DATA / spread) ** 2, sigma * SIGMA_DATA / spread
        f = self.net(x / expand(spread, x), sigma.log() / 4, labels)
        return expand(c_skip, x) * x + expand(c_out, x) * f


class Denoising:
    """EDM's training loss: λ(σ) ‖D(x + n, σ) − x‖² with log σ ~ N(−1.2, 1.2²), summed over the pixels.

    For a network with classes, one image in ten is denoised without its label, so that the same network gives
    the conditional and the unconditional score.
    """

    def __call__(self, model: nn.Module, batch: Batch, draws: torch.Generator) -> PerImage:
        sigma = (P_MEAN + P_STD * batch.normals(draws)).exp()
        noise = batch.normal(draws)
        kept = batch.uniform(draws) >= 0.1
        labels = torch.where(kept, batch.labels, -1) if getattr(model, "classes", 0) else None
        noisy = batch.images + expand(sigma, noise) / 2 * noise
        error = 2 * (model(noisy, sigma, labels) - batch.images)  # in EDM's coordinates
        weight = (sigma**2 + SIGMA_DATA**2) / (sigma * SIGMA_DATA) ** 2
        return weight * error.square().flatten(1).sum(1)


class _UNet(nn.Module):
    """Residual blocks at each resolution, skips between equal ones, σ and class added as an embedding."""

    def __init__(self, channels: int, classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        width = 4 * widths[0]
        self.embed_noise = nn.Sequential(nn.Linear(widths[0], width), nn.SiLU(), nn.Linear(width, width))
        self.embed_class = nn.Embedding(classes + 1, width)  # row 0: no label
        self.first = nn.Conv2d(channels, widths[0], 3, 1, 1)
        ins = [widths[0], *widths]
        self.down = nn.ModuleList(_Block(a, b, width) for a, b in zip(ins, widths, strict=False))
        self.middle = _Block(widths[-1], widths[-1], width)
        outs = [*widths[:-1][::-1], widths[0]]
        self.up = nn.ModuleList(_Block(2 * a, b, width) for a, b in zip(reversed(widths), outs, strict=True))
        self.last_norm = nn.GroupNorm(_groups(widths[0]), widths[0])
        self.last = nn.Conv2d(widths[0], channels, 3, 1, 1)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor, noise: PerImage, labels: Labels | None) -> Tensor:
        none = torch.full((len(x),), -1, device=x.device)
        embedding = self.embed_class((none if labels is None else labels) + 1)
        embedding = silu(embedding + self.embed_noise(_waves(noise, self.first.out_channels)))
        x = self.first(x)
        skips = []
        for level, block in enumerate(self.down):
            x = block(_half(x) if level else x, embedding)
            skips.append(x)
        x = self.middle(x, embedding)
        for level, block in enumerate(self.up):
            x = block(torch.cat([x, skips.pop()], 1), embedding)
            if level < len(self.up) - 1:
                x = interpolate(x, scale_factor=2.0, mode="nearest")
        return self.last(silu(self.last_norm(x)))


class _Block(nn.Module):
    """norm, silu, conv, embedding, norm, silu, conv, with a shortcut."""

    def __init__(self, inside: int, outside: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(_groups(inside), inside)
        self.conv1 = nn.Conv2d(inside, outside, 3, 1, 1)
        self.affine = nn.Linear(embedding, outside)
        self.norm2 = nn.GroupNorm(_groups(outside), outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1)
        self.shortcut = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(silu(self.norm1(x)))
        h = self.conv2(silu(self.norm2(h + self.affine(embedding)[:, :, None, None])))
        return (h + self.shortcut(x)) * math.sqrt(0.5)


def _groups(width: int) -> int:
    return math.gcd(width, 8)


def _half(x: Tensor) -> Tensor:
    return nn.functional.avg_pool2d(x, 2)


def _waves(noise: PerImage, width: int) -> Tensor:
    """Sines and cosines of c_noise at geometric frequencies, (n, width)."""
    frequencies = 2.0 ** torch.linspace(-2, 6, width // 2, device=noise.device, dtype=noise.dtype)
    angles = noise[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], 1)
