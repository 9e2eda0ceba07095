"""Seeded batches, augmented as whole tensors."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from pags.arrays import Images, Labels, Logits, PerImage
from pags.data.imageset import ImageSet, as_float
from pags.seeds import generator

Flip = bool | Literal["alternate"]
"""Whether images are mirrored: each with probability one half, or in every second epoch."""


@dataclass(frozen=True)
class Batch:
    """Some images, their labels, and their places in the set they came from.

    Where several processes share a batch, this is the part of one of them. Its draws are made for the whole
    batch and its own rows taken, so that what an image meets does not depend on how the batch was shared.

    Args:
        images, labels, index: (n, c, h, w) in [0, 1], (n,), (n,).
        whole: images in the whole batch; None: these are all.
        places: which rows of the whole batch these are.
        label_smoothing: share of the target that `losses` spreads evenly over all classes.
    """

    images: Images
    labels: Labels
    index: Tensor
    whole: int | None = None
    places: slice = field(default_factory=lambda: slice(None))
    label_smoothing: float = 0.0

    def losses(self, logits: Logits) -> PerImage:
        """The cross-entropy that the objectives minimise; attacks and penalties have that of the label."""
        return cross_entropy(logits, self.labels, reduction="none", label_smoothing=self.label_smoothing)

    def normal(self, draws: torch.Generator) -> Images:
        """Standard normal noise of the images' shape, independent in every pixel."""
        rows = torch.randn(self._rows, *self.images.shape[1:], generator=draws, device=draws.device)
        return rows[self.places].to(self.images)

    def normals(self, draws: torch.Generator) -> PerImage:
        """One standard normal number per image."""
        rows = torch.randn(self._rows, generator=draws, device=draws.device)
        return rows[self.places].to(self.images)

    def uniform(self, draws: torch.Generator) -> PerImage:
        """One number per image, uniform in [0, 1)."""
        rows = torch.rand(self._rows, generator=draws, device=draws.device)
        return rows[self.places].to(self.images)

    @property
    def _rows(self) -> int:
        return len(self.images) if self.whole is None else self.whole


def epoch_batches(
    data: ImageSet,
    size: int,
    *,
    seed: int,
    epoch: int,
    first: int = 0,
    crop: int = 0,
    flip: Flip = False,
    rank: int = 0,
    processes: int = 1,
) -> Iterator[Batch]:
    """The batches of one epoch, in an order and with augmentations that `seed` and `epoch` alone decide.

    Args:
        size: images per batch; the last batch may be smaller.
        first: batches to leave out at the start, for a run that is resumed in the middle of an epoch.
        crop: pixels of zero padding for random crops (0: none).
        flip: whether each image is mirrored with probability one half; "alternate": in every second epoch,
            from the first or from the second on, so that two epochs in a row show both sides.
        rank, processes: whose part of each batch is wanted. A batch of fewer images than processes is not
            shared: every process has the whole of it.
    """
    order = torch.randperm(len(data), generator=generator(seed, "order", epoch))
    mirrored = _coins(len(data), generator(seed, "flip")) ^ bool(epoch % 2)
    for number, index in enumerate(order.split(size)):
        if number < first:
            continue
        part = share(len(index), rank, processes)
        where = index[part].to(data.labels.device)
        images = data.pixels[where]  # moved about as they are kept: of 8 bits, a quarter of the memory
        draws = generator(seed, "augment", epoch, number)
        if crop:
            images = crop_at(images, crop, _crop_places(len(index), crop, draws)[:, part])
        if flip:
            chosen = mirrored[index] if flip == "alternate" else _coins(len(index), draws)
            images = mirror(images, chosen[part])
        yield Batch(as_float(images), data.labels[where], where, len(index), part)


def share(rows: int, rank: int, processes: int) -> slice:
    """The rows of a batch that process `rank` of `processes` takes: parts differ by one row at most."""
    if rows < processes:
        return slice(0, rows)
    return slice(rows * rank // processes, rows * (rank + 1) // processes)


def batch_count(data: ImageSet, size: int) -> int:
    """How many batches an epoch has."""
    return -(-len(data) // size)


def random_crop(images: Images, padding: int, draws: torch.Generator) -> Images:
    """Each image padded with zeros and cut to its old size at a place of its own."""
    return crop_at(images, padding, _crop_places(len(images), padding, draws))


def random_flip(images: Images, draws: torch.Generator) -> Images:
    """Each image mirrored left to right with probability one half."""
    return mirror(images, _coins(len(images), draws))


def crop_at(images: Tensor, padding: int, offsets: Int[Tensor, "2 n"]) -> Tensor:
    """Each image padded with zeros and cut to its old size at the row and column that `offsets` names."""
    n, _, height, width = images.shape
    offsets = offsets.to(images.device)
    rows = offsets[0][:, None] + torch.arange(height, device=images.device)  # (n, h)
    columns = offsets[1][:, None] + torch.arange(width, device=images.device)  # (n, w)
    padded = pad(images, [padding] * 4)
    each = torch.arange(n, device=images.device)[:, None, None]
    return padded[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def mirror(images: Tensor, chosen: Bool[Tensor, "n"]) -> Tensor:
    """The images, those that are `chosen` mirrored left to right."""
    return torch.where(chosen.to(images.device)[:, None, None, None], images.flip(-1), images)


def _crop_places(n: int, padding: int, draws: torch.Generator) -> Tensor:  # (2, n)
    return torch.randint(0, 2 * padding + 1, (2, n), generator=draws)


def _coins(n: int, draws: torch.Generator) -> Tensor:  # (n,)
    return torch.rand(n, generator=draws) < 0.5
