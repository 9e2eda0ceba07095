"""The layers of both networks: linear, normalisation, convolutions that resample, noise embeddings.

The names of modules, tensors and attributes are those of the published files. Every layer takes its weights
to the type of its input when it is called, so that one set of weights serves float32 and half precision.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, group_norm, linear

from pags.errors import UsageError

Initialiser = Callable[[Tensor, Tensor | None], None]
"""Fills a weight and its bias, in place."""


def glorot(scale: float = 1.0) -> Initialiser:
    """Uniform within ±scale · √(6 / (fan_in + fan_out)); biases zero."""

    def fill(weight: Tensor, bias: Tensor | None) -> None:
        nn.init.xavier_uniform_(weight, gain=scale)
        if bias is not None:
            nn.init.zeros_(bias)

    return fill


def by_fan_in(scale: float = 1.0) -> Initialiser:
    """Weights and biases uniform within ±scale · √(1 / fan_in)."""

    def fill(weight: Tensor, bias: Tensor | None) -> None:
        bound = scale / math.sqrt(weight[0].numel())
        for values in (weight,) if bias is None else (weight, bias):
            nn.init.uniform_(values, -bound, bound)

    return fill


def standard_normal(weight: Tensor, bias: Tensor | None) -> None:
    """Weights from N(0, 1); there is no bias."""
    nn.init.normal_(weight)


class Linear(nn.Module):
    """x Wᵀ + b."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, init: Initialiser) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        init(self.weight, self.bias)

    def forward(self, x: Float[Tensor, "n inside"]) -> Float[Tensor, "n outside"]:
        return linear(x, self.weight.to(x.dtype), _cast(self.bias, x))


class GroupNorm(nn.Module):
    """Normalisation over min(32, C // 4) groups of channels.

    Raises:
        UsageError: a number of channels that the groups do not divide.
    """

    def __init__(self, num_channels: int, *, eps: float) -> None:
        super().__init__()
        self.num_groups, self.eps = min(32, num_channels // 4), eps
        if not self.num_groups or num_channels % self.num_groups:
            raise UsageError(
                "a width that min(32, width // 4) groups divide",
                got=num_channels,
                suggestion="model_channels as a multiple of 32",
            )
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return group_norm(x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class Conv2d(nn.Module):
    """A k×k convolution, at twice or half the resolution where `up` or `down`.

    Args:
        in_channels, out_channels: widths.
        kernel: k; 0 for the resampling alone, which then has no weights.
        up, down: double or halve the resolution, before the convolution.
        fused_resample: another order, which differs at the borders: going down, the convolution is first.
        resample_filter: taps of the one-dimensional filter, which is normalised.
        init: of the weights.
    """

    resample_filter: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        up: bool = False,
        down: bool = False,
        fused_resample: bool = False,
        resample_filter: Sequence[float] = (1, 1),
        init: Initialiser,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.up, self.down, self.fused_resample = up, down, fused_resample
        self.weight = self.bias = None
        if kernel:
            self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel, kernel))
            self.bias = nn.Parameter(torch.empty(out_channels))
            init(self.weight, self.bias)
        taps = torch.tensor(resample_filter, dtype=torch.float32)
        square = torch.outer(taps, taps)[None, None] / taps.sum() ** 2
        self.register_buffer("resample_filter", square if up or down else None)

    def forward(self, x: Float[Tensor, "n inside h w"]) -> Float[Tensor, "n outside h2 w2"]:
        if self.resample_filter is None:
            return self._convolved(x, self._margin)
        taps, margin = self.resample_filter.to(x.dtype), (self.resample_filter.shape[-1] - 1) // 2
        if not self.fused_resample or self.weight is None:
            return self._convolved(
                _doubled(x, taps, margin) if self.up else _halved(x, taps, margin), self._margin
            )
        if self.up:
            x = _doubled(x, taps, max(margin - self._margin, 0))
            return self._convolved(x, max(self._margin - margin, 0))
        wide = conv2d(x, self.weight.to(x.dtype), padding=self._margin + margin)
        bias = self.bias
        assert bias is not None
        return _halved(wide, taps, 0) + bias.to(x.dtype)[:, None, None]

    @property
    def _margin(self) -> int:
        """The zeros around an image that keep its size under the convolution."""
        return 0 if self.weight is None else self.weight.shape[-1] // 2

    def _convolved(self, x: Tensor, padding: int) -> Tensor:
        if self.weight is None:
            return x
        return conv2d(x, self.weight.to(x.dtype), _cast(self.bias, x), padding=padding)


def _cast(values: Tensor | None, like: Tensor) -> Tensor | None:
    return None if values is None else values.to(like.dtype)


def _doubled(x: Tensor, taps: Tensor, padding: int) -> Tensor:
    """Four times the filter, transposed, on every channel alike: the mean brightness stays."""
    each = (4 * taps).expand(x.shape[1], -1, -1, -1)
    return conv_transpose2d(x, each, stride=2, padding=padding, groups=x.shape[1])


def _halved(x: Tensor, taps: Tensor, padding: int) -> Tensor:
    each = taps.expand(x.shape[1], -1, -1, -1)
    return conv2d(x, each, stride=2, padding=padding, groups=x.shape[1])


class PositionalEmbedding(nn.Module):
    """Cosines, then sines, of c times powers of 1/10000; the last power is 1/10000 itself with `endpoint`."""

    def __init__(self, num_channels: int, *, endpoint: bool) -> None:
        super().__init__()
        self.num_channels, self.max_positions, self.endpoint = num_channels, 10000, endpoint

    def forward(self, c: Float[Tensor, "n"]) -> Float[Tensor, "n width"]:
        half = self.num_channels // 2
        powers = torch.arange(half, dtype=c.dtype, device=c.device) / (half - self.endpoint)
        return _waves(c, (1 / self.max_positions) ** powers)


class FourierEmbedding(nn.Module):
    """Cosines, then sines, of c at frequencies drawn once from N(0, 16²)."""

    freqs: Tensor

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.register_buffer("freqs", nn.init.normal_(torch.empty(num_channels // 2), std=16))

    def forward(self, c: Float[Tensor, "n"]) -> Float[Tensor, "n width"]:
        return _waves(c, (2 * math.pi * self.freqs).to(c.dtype))


def _waves(c: Tensor, frequencies: Tensor) -> Tensor:
    # The products in float32 and in this order: at c near 1000 another one moves the embedding by 3e-5.
    angles = torch.outer(c, frequencies)
    return torch.cat([angles.cos(), angles.sin()], 1)
