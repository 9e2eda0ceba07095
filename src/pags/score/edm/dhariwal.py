"""ADM (Dhariwal and Nichol 2021), as EDM uses it."""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu

from pags.score.edm.block import Levels, UNetBlock, check_levels, drop_rows
from pags.score.edm.parts import (
    Conv2d,
    GroupNorm,
    Linear,
    PositionalEmbedding,
    by_fan_in,
    standard_normal,
)

EPS = 1e-5  # of every normalisation
HEAD = 64  # channels of an attention head


class DhariwalUNet(nn.Module):
    """ADM.

    The arguments may be given by position, for the published files may hold them so.

    Args:
        img_resolution: side of the images, in pixels.
        in_channels, out_channels: colour channels.
        label_dim: classes; 0 for an unconditional network.
        augment_dim: length of the augmentation labels; 0 for none.
        model_channels: the unit of width.
        channel_mult: width of each level, finest first, in that unit.
        channel_mult_emb: width of the embedding, in that unit.
        num_blocks: residual blocks a level in the encoder; the decoder has one more.
        attn_resolutions: sides at which there is attention, with one head for every 64 channels.
        dropout: inside the blocks, in training mode only.
        label_dropout: share of labels that training mode sets to zero.

    Raises:
        UsageError: widths that groups or heads do not divide; sides that cannot be halved.
    """

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 192,
        channel_mult: Levels = (1, 2, 3, 4),
        channel_mult_emb: int = 4,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (32, 16, 8),
        dropout: float = 0.10,
        label_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_levels(img_resolution, channel_mult)
        self.label_dim, self.label_dropout = label_dim, label_dropout
        self._sides = [img_resolution >> level for level in range(len(channel_mult))]
        self._widths = [model_channels * multiple for multiple in channel_mult]
        self._attended, self._count = set(attn_resolutions), num_blocks
        noise, width = model_channels, model_channels * channel_mult_emb
        init, silent = by_fan_in(), by_fan_in(0)
        self._block = partial(
            UNetBlock, emb_channels=width, dropout=dropout, skip_scale=1.0, adaptive_scale=True,
            resample_proj=False, resample_filter=(1, 1), eps=EPS,
            init=init, init_zero=silent, init_attention=init,
        )  # fmt: skip

        self.map_noise = PositionalEmbedding(noise, endpoint=False)
        self.map_augment = Linear(augment_dim, noise, bias=False, init=silent) if augment_dim else None
        self.map_layer0, self.map_layer1 = Linear(noise, width, init=init), Linear(width, width, init=init)
        self.map_label = Linear(label_dim, width, bias=False, init=standard_normal) if label_dim else None
        skips: list[int] = []  # widths that the decoder will meet
        self.enc = nn.ModuleDict(dict(self._encoder(in_channels, skips)))
        self.dec = nn.ModuleDict(dict(self._decoder(skips)))
        self.out_norm = GroupNorm(self._widths[0], eps=EPS)
        self.out_conv = Conv2d(self._widths[0], out_channels, 3, init=silent)

    def _attentive(self, inside: int, outside: int, side: int) -> UNetBlock:
        return self._block(inside, outside, num_heads=outside // HEAD if side in self._attended else 0)

    def _encoder(self, channels: int, skips: list[int]) -> Iterator[tuple[str, nn.Module]]:
        for level, (side, width) in enumerate(zip(self._sides, self._widths, strict=True)):
            name = f"{side}x{side}"
            if not level:
                yield f"{name}_conv", Conv2d(channels, width, 3, init=by_fan_in())
                skips.append(width)
            else:
                yield f"{name}_down", self._block(skips[-1], skips[-1], down=True)
                skips.append(skips[-1])
            for place in range(self._count):
                yield f"{name}_block{place}", self._attentive(skips[-1], width, side)
                skips.append(width)

    def _decoder(self, skips: list[int]) -> Iterator[tuple[str, nn.Module]]:
        inside, last = skips[-1], len(self._sides) - 1
        for level in range(last, -1, -1):
            side, width = self._sides[level], self._widths[level]
            name = f"{side}x{side}"
            if level == last:
                yield f"{name}_in0", self._block(inside, inside, num_heads=inside // HEAD)
                yield f"{name}_in1", self._block(inside, inside)
            else:
                yield f"{name}_up", self._block(inside, inside, up=True)
            for place in range(self._count + 1):
                yield f"{name}_block{place}", self._attentive(inside + skips.pop(), width, side)
                inside = width

    def forward(
        self,
        x: Float[Tensor, "n inside h w"],
        noise_labels: Float[Tensor, "rows"],
        class_labels: Float[Tensor, "rows2 classes"] | None = None,
        augment_labels: Float[Tensor, "rows3 kinds"] | None = None,
    ) -> Float[Tensor, "n outside h w"]:
        embedding = self._embedding(noise_labels, class_labels, augment_labels)
        skips: list[Tensor] = []
        for layer in self.enc.values():
            x = layer(x, embedding) if isinstance(layer, UNetBlock) else layer(x)
            skips.append(x)
        for name, layer in self.dec.items():
            x = layer(torch.cat([x, skips.pop()], 1) if "_block" in name else x, embedding)
        return self.out_conv(silu(self.out_norm(x)))

    def _embedding(self, noise: Tensor, labels: Tensor | None, augment: Tensor | None) -> Tensor:
        """(rows, E), in float32 whatever the images are in."""
        e = self.map_noise(noise)
        if self.map_augment is not None and augment is not None:
            e = e + self.map_augment(augment.to(e.dtype))
        e = self.map_layer1(silu(self.map_layer0(e)))
        if self.map_label is not None and labels is not None:  # without bias: no labels are labels of zeros
            labels = labels.to(e.dtype)
            labels = drop_rows(labels, self.label_dropout) if self.training and self.label_dropout else labels
            e = e + self.map_label(labels)
        return silu(e)
