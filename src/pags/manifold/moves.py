"""What each layer of a plain decoder does to tangents on their way through; used by `sequential`."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import pad


@dataclass(frozen=True)
class Tangents:
    """k tangents of one image on their way through the decoder.

    Args:
        rows: (p, c, k), for each of p pixels and c channels.
        alive: (p, c), false where a ReLU has cut; the rows there are not yet set to zero.
        side: pixels in a column and in a row.
    """

    rows: Float[Tensor, "p c k"]
    alive: Bool[Tensor, "p c"]
    side: tuple[int, int] = (1, 1)


Move = Callable[[Tangents, int], Tangents]
"""What a layer does to the tangents of the image with the given number."""


@dataclass(frozen=True)
class Cut:
    """ReLU: true where its derivative is 1."""

    masks: Bool[Tensor, "n p c"]

    def __call__(self, tangents: Tangents, image: int) -> Tangents:
        return replace(tangents, alive=tangents.alive & self.masks[image])


@dataclass(frozen=True)
class Slope:
    """Any other function of single entries, by its derivative; p = 1 where all pixels have the same."""

    slopes: Float[Tensor, "n p c"]

    def __call__(self, tangents: Tangents, image: int) -> Tangents:
        return replace(tangents, rows=tangents.rows * self.slopes[image][:, :, None])


@dataclass(frozen=True)
class Arrange:
    """Unflatten: a vector becomes a map of c channels."""

    channels: int
    height: int
    width: int

    def __call__(self, tangents: Tangents, image: int) -> Tangents:
        pixels = self.height * self.width
        rows = tangents.rows.reshape(self.channels, pixels, -1).transpose(0, 1)
        alive = tangents.alive.reshape(self.channels, pixels).T
        return Tangents(rows, alive, (self.height, self.width))


@dataclass(frozen=True)
class Product:
    """Linear: a matrix, of whose columns those are used that are alive."""

    weight: Float[Tensor, "outside inside"]

    def __call__(self, tangents: Tangents, image: int) -> Tangents:
        alive = tangents.alive[0].nonzero()[:, 0]
        rows = self.weight.index_select(1, alive) @ tangents.rows[0].index_select(0, alive)
        return Tangents(rows[None], torch.ones(1, len(rows), dtype=torch.bool))


@dataclass(frozen=True)
class Spread:
    """ConvTranspose2d, as one matrix product for each block of outputs that hear of the same inputs.

    Along an axis with stride s, output u (counted before padding is cut off) is reached from input p by the
    kernel's entry u − s p. The s outputs of block b therefore hear of the inputs b, b − 1, … b − P + 1 alone;
    P is the kernel's size over s, rounded up; output s b + r hears of input b − a by the entry s a + r.

    Args:
        weight: (P, P, inside, s, s, outside), vertical before horizontal: the kernel in that order.
        padding: as the layer has it.
        tail: outputs that an input reaches, and those that output_padding adds.
    """

    weight: Float[Tensor, "reach_y reach_x inside stride_y stride_x outside"]
    padding: tuple[int, int]
    tail: tuple[int, int]

    @classmethod
    def folded(cls, layer: nn.ConvTranspose2d, following: nn.Module | None) -> "Spread":
        """The layer, times the scale of a BatchNorm that follows it."""
        kernel = layer.weight.permute(0, 2, 3, 1)  # (inside, height, width, outside)
        if isinstance(following, nn.BatchNorm2d):
            kernel = kernel * scale_of(following)
        (down, right), (high, wide) = layer.stride, kernel.shape[1:3]
        kernel = pad(kernel, [0, 0, 0, -wide % right, 0, -high % down])
        weight = kernel.unflatten(2, (-1, right)).unflatten(1, (-1, down)).permute(1, 3, 0, 2, 4, 5)
        tail = [size + extra for size, extra in zip((high, wide), layer.output_padding, strict=True)]
        return cls(weight.contiguous(), _pair(layer.padding), _pair(tail))

    def __call__(self, tangents: Tangents, image: int) -> Tangents:
        side = (self._size(0, tangents.side[0]), self._size(1, tangents.side[1]))
        k = tangents.rows.shape[2]
        out = tangents.rows.new_zeros(*side, self.weight.shape[5], k)
        kernel, rows = self.weight.flatten(0, 2), tangents.rows.flatten(0, 1)
        for (y, x), entries, sources in self._blocks(tangents):
            (down, high), (right, wide) = self._window(0, y, side[0]), self._window(1, x, side[1])
            weight = kernel[:, high, wide].index_select(0, entries)  # (alive, ·, ·, outside)
            block = weight.flatten(1).T @ rows.index_select(0, sources)
            out[down, right] = block.reshape(*weight.shape[1:], k)
        out = out.flatten(0, 1)
        return Tangents(out, torch.ones(out.shape[:2], dtype=torch.bool), side)

    def _blocks(self, tangents: Tangents) -> Iterator[tuple[tuple[int, int], Tensor, Tensor]]:
        """Each block's place, and for what is alive in it the rows of the kernel and of the tangents."""
        (height, width), (reach_y, reach_x, inside) = tangents.side, self.weight.shape[:3]
        y, x = torch.arange(height + reach_y - 1), torch.arange(width + reach_x - 1)
        from_y = (y[:, None] - torch.arange(reach_y))[:, None, :, None]
        from_x = (x[:, None] - torch.arange(reach_x))[None, :, None, :]
        there = (from_y >= 0) & (from_y < height) & (from_x >= 0) & (from_x < width)
        pixels = torch.where(there, from_y * width + from_x, 0).flatten(2).flatten(0, 1)  # (blocks, P · P)
        alive = tangents.alive[pixels] & there.reshape(*pixels.shape, 1)
        block, place, channel = alive.nonzero(as_tuple=True)
        counts = alive.sum((1, 2)).tolist()
        entries, sources = place * inside + channel, pixels[block, place] * inside + channel
        places = itertools.product(range(len(y)), range(len(x)))
        yield from zip(places, entries.split(counts), sources.split(counts), strict=True)

    def _size(self, axis: int, size: int) -> int:
        """Outputs along an axis."""
        return (size - 1) * self.weight.shape[3 + axis] - 2 * self.padding[axis] + self.tail[axis]

    def _window(self, axis: int, block: int, size: int) -> tuple[slice, slice]:
        """The outputs along an axis that a block has, and which of its own they are."""
        stride = self.weight.shape[3 + axis]
        first = block * stride - self.padding[axis]
        low, high = max(0, -first), max(0, min(stride, size - first))
        low = min(low, high)
        return slice(first + low, first + high), slice(low, high)


def scale_of(norm: nn.Module) -> Tensor:
    """The derivative of BatchNorm in evaluation mode, one number per channel."""
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    assert norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    return scale * norm.weight if norm.affine else scale


def _pair(values: Iterable[Any]) -> tuple[int, int]:
    first, second = values
    return int(first), int(second)
