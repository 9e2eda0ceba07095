"""Where in the spectrum a gradient lies: one number per image, of vectors (n, c, h, w) of any scale.

The gradients of standard networks are nearly as white as noise, those of robust ones are smooth. That is the
cheapest way to tell them apart, and a confounder wherever the tangent space is smooth too: a vector of low
frequencies alone has more of its energy there than one of random direction. So put noise and score beside it.

Frequencies are in cycles per pixel, from 0 to 1/2 along each axis, of the discrete Fourier transform (which
takes the image for periodic); energy is summed over channels. NaN where a vector has no direction.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pags.arrays import Images, PerImage, max_abs_scaled, nan_unless_directed, zero_unless_directed

LOW = 8
"""Frequencies of at most one cycle in this many pixels count as low."""


def low_frequency_share(vectors: Images) -> PerImage:
    """The share of each vector's energy at frequencies |f| ≤ 1/8, the mean included.

    White noise has `low_frequency_chance` on average: 49/1024 = 0.048 at 32×32 pixels, π/64 = 0.049 in large
    images.
    """
    power = _power(vectors)
    low = _is_low(*vectors.shape[-2:]).to(power.device)
    found = power[:, low].sum(1) / power.sum((1, 2))
    return nan_unless_directed(found.to(vectors.dtype), vectors)


def low_frequency_chance(height: int, width: int) -> float:
    """The share of the frequencies of an image of this size that are low."""
    return float(_is_low(height, width).double().mean())


def radial_power(vectors: Images) -> Float[Tensor, "n rings"]:
    """The mean power of each vector in rings of frequency, in units of its mean power over all frequencies.

    White noise has 1 in every ring on average. `ring_frequencies` says where the rings are; a ring's power
    times its number of frequencies, summed, is the number of all frequencies.
    """
    power = _power(vectors).flatten(1)
    rings = _rings(*vectors.shape[-2:]).flatten().to(power.device)
    counts = rings.bincount()
    totals = power.new_zeros(len(power), len(counts)).index_add_(1, rings, power)
    found = totals / counts / power.mean(1, keepdim=True)
    return torch.stack([nan_unless_directed(ring.to(vectors.dtype), vectors) for ring in found.unbind(1)], 1)


def ring_frequencies(height: int, width: int) -> Float[Tensor, " rings"]:
    """The middle of each ring of `radial_power`, in cycles per pixel; rings are 1/(smaller side) wide."""
    return torch.arange(int(_rings(height, width).max()) + 1) / min(height, width)


def edge_energy(vectors: Images) -> PerImage:
    """The energy of the differences of neighbouring pixels over the largest that it can be, from 0 to 1.

    Of a wave of frequencies (f, g) it is (sin² πf + sin² πg) / 2; of white noise 1/2 on average; of a
    constant 0. Differences are taken down and across, and around the border.
    """
    v = max_abs_scaled(zero_unless_directed(vectors).double())
    differences = [v - v.roll(1, axis) for axis in (2, 3)]
    energy = sum(each.square().sum((1, 2, 3)) for each in differences)
    found = energy / (8 * v.square().sum((1, 2, 3)))
    return nan_unless_directed(found.to(vectors.dtype), vectors)


def _power(vectors: Images) -> Float[Tensor, "n h w"]:
    """Summed over channels, in float64; vectors of any length have some."""
    return torch.fft.fft2(max_abs_scaled(zero_unless_directed(vectors).double())).abs().square().sum(1)


def _squared_frequency(height: int, width: int) -> Int[Tensor, "h w"]:
    """(|f| · height · width)², in whole numbers, so that no border falls to rounding."""
    rows, columns = (torch.arange(side) for side in (height, width))
    rows, columns = torch.minimum(rows, height - rows), torch.minimum(columns, width - columns)
    return (rows[:, None] * width) ** 2 + (columns * height) ** 2


def _is_low(height: int, width: int) -> Bool[Tensor, "h w"]:
    return LOW**2 * _squared_frequency(height, width) <= (height * width) ** 2


def _rings(height: int, width: int) -> Int[Tensor, "h w"]:
    """The ring of each frequency: |f| times the smaller side, rounded."""
    sizes = _squared_frequency(height, width).double().sqrt() / max(height, width)
    return sizes.round().long()
