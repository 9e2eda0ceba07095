"""DDPM++ and NCSN++ (Song et al. 2021), as EDM uses them."""

import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu

from pags.errors import UsageError
from pags.score.edm.block import Levels, UNetBlock, check_levels, drop_rows
from pags.score.edm.parts import (
    Conv2d,
    FourierEmbedding,
    GroupNorm,
    Linear,
    PositionalEmbedding,
    glorot,
)

EPS = 1e-6  # of every normalisation
SILENT = 1e-5  # scale of the first weights of layers that a fresh network should not hear
SQRT_HALF = math.sqrt(0.5)

KINDS = {
    "embedding_type": ("positional", "fourier"),
    "encoder_type": ("standard", "residual", "skip"),
    "decoder_type": ("standard", "skip"),
}


class SongUNet(nn.Module):
    """DDPM++ (the defaults) or NCSN++ (fourier, noise 2, residual, taps [1, 3, 3, 1]).

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
        attn_resolutions: sides at which there is attention.
        dropout: inside the blocks, in training mode only.
        label_dropout: share of labels that training mode sets to zero.
        embedding_type: of the noise level, "positional" or "fourier".
        channel_mult_noise: width of the noise embedding, in the unit of width.
        encoder_type: "standard", "residual" or "skip": how the image enters the coarser levels.
        decoder_type: "standard" or "skip": whether every level adds to the output.
        resample_filter: taps.

    Raises:
        UsageError: an unknown type; widths that cannot be grouped; sides that cannot be halved.
    """

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 128,
        channel_mult: Levels = (1, 2, 2, 2),
        channel_mult_emb: int = 4,
        num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,),
        dropout: float = 0.10,
        label_dropout: float = 0.0,
        embedding_type: str = "positional",
        channel_mult_noise: int = 1,
        encoder_type: str = "standard",
        decoder_type: str = "standard",
        resample_filter: Sequence[float] = (1, 1),
    ) -> None:
        super().__init__()
        check_levels(img_resolution, channel_mult)
        _check_kinds(embedding_type=embedding_type, encoder_type=encoder_type, decoder_type=decoder_type)
        self.label_dim, self.label_dropout = label_dim, label_dropout
        self._sides = [img_resolution >> level for level in range(len(channel_mult))]
        self._widths = [model_channels * multiple for multiple in channel_mult]
        self._attended, self._count = set(attn_resolutions), num_blocks
        noise, width, init = model_channels * channel_mult_noise, model_channels * channel_mult_emb, glorot()
        self._conv = partial(Conv2d, resample_filter=resample_filter)
        self._block = partial(
            UNetBlock, emb_channels=width, dropout=dropout, skip_scale=SQRT_HALF, adaptive_scale=False,
            resample_proj=True, resample_filter=resample_filter, eps=EPS,
            init=init, init_zero=glorot(SILENT), init_attention=glorot(math.sqrt(0.2)),
        )  # fmt: skip

        positional = embedding_type == "positional"
        self.map_noise = PositionalEmbedding(noise, endpoint=True) if positional else FourierEmbedding(noise)
        self.map_label = Linear(label_dim, noise, init=init) if label_dim else None
        self.map_augment = Linear(augment_dim, noise, bias=False, init=init) if augment_dim else None
        self.map_layer0, self.map_layer1 = Linear(noise, width, init=init), Linear(width, width, init=init)
        skips = [model_channels]  # widths that the decoder will meet
        self.enc = nn.ModuleDict(dict(self._encoder(in_channels, encoder_type, skips)))
        self.dec = nn.ModuleDict(dict(self._decoder(out_channels, decoder_type, skips)))

    def _encoder(self, channels: int, kind: str, skips: list[int]) -> Iterator[tuple[str, nn.Module]]:
        auxiliary, init = channels, glorot()
        for level, (side, width) in enumerate(zip(self._sides, self._widths, strict=True)):
            name, inside = f"{side}x{side}", skips[-1]
            if not level:
                yield f"{name}_conv", self._conv(channels, inside, 3, init=init)
            else:
                yield f"{name}_down", self._block(inside, inside, down=True)
                skips.append(inside)
            if level and kind == "skip":
                yield f"{name}_aux_down", self._conv(auxiliary, auxiliary, 0, down=True, init=init)
                yield f"{name}_aux_skip", self._conv(auxiliary, inside, 1, init=init)
            if level and kind == "residual":
                fused = partial(self._conv, down=True, fused_resample=True)
                yield f"{name}_aux_residual", fused(auxiliary, inside, 3, init=init)
                auxiliary = inside
            for place in range(self._count):
                heads = int(side in self._attended)
                yield f"{name}_block{place}", self._block(skips[-1], width, num_heads=heads)
                skips.append(width)

    def _decoder(self, channels: int, kind: str, skips: list[int]) -> Iterator[tuple[str, nn.Module]]:
        inside, last = skips[-1], len(self._sides) - 1
        for level in range(last, -1, -1):
            side, width = self._sides[level], self._widths[level]
            name = f"{side}x{side}"
            if level == last:
                yield f"{name}_in0", self._block(inside, inside, num_heads=1)
                yield f"{name}_in1", self._block(inside, inside)
            else:
                yield f"{name}_up", self._block(inside, inside, up=True)
            for place in range(self._count + 1):
                heads = int(place == self._count and side in self._attended)
                yield f"{name}_block{place}", self._block(inside + skips.pop(), width, num_heads=heads)
                inside = width
            if kind == "skip" or not level:
                if level < last and kind == "skip":
                    yield f"{name}_aux_up", self._conv(channels, channels, 0, up=True, init=glorot())
                yield f"{name}_aux_norm", GroupNorm(inside, eps=EPS)
                yield f"{name}_aux_conv", self._conv(inside, channels, 3, init=glorot(SILENT))

    def forward(
        self,
        x: Float[Tensor, "n inside h w"],
        noise_labels: Float[Tensor, "rows"],
        class_labels: Float[Tensor, "rows2 classes"] | None = None,
        augment_labels: Float[Tensor, "rows3 kinds"] | None = None,
    ) -> Float[Tensor, "n outside h w"]:
        embedding = self._embedding(noise_labels, class_labels, augment_labels)
        x, skips = self._encoded(x, embedding)
        return self._decoded(x, skips, embedding)

    def _embedding(self, noise: Tensor, labels: Tensor | None, augment: Tensor | None) -> Tensor:
        """(rows, E), in float32 whatever the images are in."""
        e = torch.cat(self.map_noise(noise).chunk(2, 1)[::-1], 1)  # sines before cosines
        if self.map_label is not None:
            labels = e.new_zeros(1, self.label_dim) if labels is None else labels.to(e.dtype)
            labels = drop_rows(labels, self.label_dropout) if self.training and self.label_dropout else labels
            e = e + self.map_label(labels * math.sqrt(self.label_dim))
        if self.map_augment is not None and augment is not None:
            e = e + self.map_augment(augment.to(e.dtype))
        return silu(self.map_layer1(silu(self.map_layer0(e))))

    def _encoded(self, x: Tensor, embedding: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The coarsest features, and what the decoder will look at again."""
        auxiliary = x
        skips: list[Tensor] = []
        for name, layer in self.enc.items():
            match name.partition("_")[2]:
                case "aux_down":
                    auxiliary = layer(auxiliary)
                case "aux_skip":
                    x = skips[-1] = x + layer(auxiliary)
                case "aux_residual":
                    x = skips[-1] = auxiliary = (x + layer(auxiliary)) * SQRT_HALF
                case _:
                    x = layer(x, embedding) if isinstance(layer, UNetBlock) else layer(x)
                    skips.append(x)
        return x, skips

    def _decoded(self, x: Tensor, skips: list[Tensor], embedding: Tensor) -> Tensor:
        out, normed = None, x
        for name, layer in self.dec.items():
            match name.partition("_")[2]:
                case "aux_up":
                    out = layer(out)
                case "aux_norm":
                    normed = layer(x)
                case "aux_conv":
                    added = layer(silu(normed))
                    out = added if out is None else out + added
                case role:
                    x = layer(torch.cat([x, skips.pop()], 1) if role.startswith("block") else x, embedding)
        assert out is not None
        return out


def _check_kinds(**chosen: str) -> None:
    for option, value in chosen.items():
        if value not in KINDS[option]:
            raise UsageError(
                f"{option} among {', '.join(KINDS[option])}", got=repr(value), suggestion=KINDS[option][0]
            )
