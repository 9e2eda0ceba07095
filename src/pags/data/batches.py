"""Seeded batches, augmented as whole tensors."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from pags.arrays import Images, Labels
from pags.data.imageset import ImageSet, as_float
from pags.seeds import generator


@dataclass(frozen=True)
class Batch:
    """Some images, their labels, and their places in the set they came from."""

    images: Images
    labels: Labels
    index: Tensor


def epoch_batches(
    data: ImageSet, size: int, *, seed: int, epoch: int, first: int = 0, crop: int = 0, flip: bool = False
) -> Iterator[Batch]:
    """The batches of one epoch, in an order and with augmentations that `seed` and `epoch` alone decide.

    Args:
        size: images a batch; the last batch may be smaller.
        first: batches to leave out at the start, for a run that is resumed in the middle of an epoch.
        crop: pixels of zero padding for random crops (0: none).
        flip: whether each image is mirrored with probability one half.
    """
    order = torch.randperm(len(data), generator=generator(seed, "order", epoch))
    for number, index in enumerate(order.split(size)):
        if number < first:
            continue
        where = index.to(data.labels.device)
        images = as_float(data.pixels[where])
        draws = generator(seed, "augment", epoch, number)
        if crop:
            images = random_crop(images, crop, draws)
        if flip:
            images = random_flip(images, draws)
        yield Batch(images, data.labels[where], where)


def batch_count(data: ImageSet, size: int) -> int:
    """How many batches an epoch has."""
    return -(-len(data) // size)


def random_crop(images: Images, padding: int, draws: torch.Generator) -> Images:
    """Each image padded with zeros and cut to its old size at a place of its own."""
    n, _, height, width = images.shape
    offsets = torch.randint(0, 2 * padding + 1, (2, n), generator=draws).to(images.device)
    rows = offsets[0][:, None] + torch.arange(height, device=images.device)  # (n, h)
    columns = offsets[1][:, None] + torch.arange(width, device=images.device)  # (n, w)
    padded = pad(images, [padding] * 4)
    each = torch.arange(n, device=images.device)[:, None, None]
    return padded[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def random_flip(images: Images, draws: torch.Generator) -> Images:
    """Each image mirrored left to right with probability one half."""
    chosen = torch.rand(len(images), generator=draws).to(images.device) < 0.5
    return torch.where(chosen[:, None, None, None], images.flip(-1), images)
