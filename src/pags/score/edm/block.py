"""The residual block of both networks, its attention, and what their constructors share."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import dropout, silu

from pags.errors import UsageError
from pags.score.edm.parts import Conv2d, GroupNorm, Initialiser, Linear


def attention(qkv: Float[Tensor, "n three_c h w"], heads: int) -> Float[Tensor, "n c h w"]:
    """Every pixel looks at all pixels; channel 3 (head · d + c) + r is query, key or value (r = 0, 1, 2).

    Written out rather than fused: forward-mode differentiation must go through.
    """
    n, channels, h, w = qkv.shape
    d = channels // (3 * heads)
    q, k, v = qkv.reshape(n * heads, d, 3, h * w).unbind(2)  # (n heads, d, pixels) each
    logits = q.mT.float() @ (k / math.sqrt(d)).float()  # half precision would overflow here
    weights = logits.softmax(2).to(qkv.dtype)
    return (v @ weights.mT).reshape(n, channels // 3, h, w)


class UNetBlock(nn.Module):
    """Two 3×3 convolutions with the embedding between them, a shortcut, and attention where there are heads.

    Args:
        in_channels, out_channels, emb_channels: widths of input, output and embedding.
        up, down: double or halve the resolution.
        num_heads: of the attention; 0 for none.
        dropout: before the second convolution, in training mode only.
        skip_scale: factor after each of the two sums.
        adaptive_scale: the embedding scales and shifts the normalised values, rather than being added.
        resample_proj: a 1×1 convolution in the shortcut also where resampling alone would do.
        resample_filter: taps.
        eps: of the normalisations.
        init, init_zero, init_attention: of most layers; of those that start (nearly) silent; of `qkv`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        emb_channels: int,
        *,
        up: bool = False,
        down: bool = False,
        num_heads: int = 0,
        dropout: float,
        skip_scale: float,
        adaptive_scale: bool,
        resample_proj: bool,
        resample_filter: Sequence[float],
        eps: float,
        init: Initialiser,
        init_zero: Initialiser,
        init_attention: Initialiser,
    ) -> None:
        super().__init__()
        if num_heads and out_channels % num_heads:
            raise UsageError(
                "a width that its attention heads divide",
                got=f"{num_heads} heads for {out_channels} channels",
                suggestion="widths that are multiples of 64",
            )
        self.in_channels, self.out_channels, self.emb_channels = in_channels, out_channels, emb_channels
        self.num_heads, self.dropout, self.skip_scale = num_heads, dropout, skip_scale
        self.adaptive_scale = adaptive_scale

        def conv(inside: int, kernel: int, fill: Initialiser, *, resampled: bool = False) -> Conv2d:
            turn = {"up": up and resampled, "down": down and resampled}
            return Conv2d(inside, out_channels, kernel, **turn, resample_filter=resample_filter, init=fill)

        self.norm0 = GroupNorm(in_channels, eps=eps)
        self.conv0 = conv(in_channels, 3, init, resampled=True)
        self.affine = Linear(emb_channels, out_channels * (2 if adaptive_scale else 1), init=init)
        self.norm1 = GroupNorm(out_channels, eps=eps)
        self.conv1 = conv(out_channels, 3, init_zero)
        self.skip = self.norm2 = self.qkv = self.proj = None
        if in_channels != out_channels or up or down:
            kernel = 1 if resample_proj or in_channels != out_channels else 0
            self.skip = conv(in_channels, kernel, init, resampled=True)
        if num_heads:
            self.norm2 = GroupNorm(out_channels, eps=eps)
            self.qkv = Conv2d(out_channels, 3 * out_channels, 1, init=init_attention)
            self.proj = conv(out_channels, 1, init_zero)

    def forward(
        self, x: Float[Tensor, "n inside h w"], embedding: Float[Tensor, "rows e"]
    ) -> Float[Tensor, "n outside h2 w2"]:
        a = self._embedded(self.conv0(silu(self.norm0(x))), embedding)
        a = self.conv1(dropout(a, self.dropout, self.training))
        y = (a + (x if self.skip is None else self.skip(x))) * self.skip_scale
        if self.norm2 is None or self.qkv is None or self.proj is None:
            return y
        return (self.proj(attention(self.qkv(self.norm2(y)), self.num_heads)) + y) * self.skip_scale

    def _embedded(self, a: Tensor, embedding: Tensor) -> Tensor:
        p = self.affine(embedding).to(a.dtype)[:, :, None, None]
        if not self.adaptive_scale:
            return silu(self.norm1(a + p))
        scale, shift = p.chunk(2, 1)
        return silu(torch.addcmul(shift, self.norm1(a), scale + 1))


Levels = Sequence[int]
"""Multiples of the width unit, one a resolution, from the finest."""


def check_levels(img_resolution: int, channel_mult: Levels) -> None:
    """Raise unless the image can be halved at every level."""
    if not channel_mult or img_resolution % 2 ** (len(channel_mult) - 1):
        raise UsageError(
            f"an image side that can be halved {max(len(channel_mult) - 1, 0)} times, and one level at least",
            got=f"{img_resolution} pixels and channel_mult {list(channel_mult)}",
            suggestion="fewer levels in channel_mult",
        )


def drop_rows(labels: Float[Tensor, "n classes"], share: float) -> Float[Tensor, "n classes"]:
    """Each row set to zero with probability `share`, by the draws that dropout makes."""
    return labels * (dropout(labels.new_ones(len(labels), 1), share) != 0)
