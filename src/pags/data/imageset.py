"""A labelled set of images, kept as small as it came and handed out in the contract's form."""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from pags.arrays import Images, Labels, check_images, check_labels
from pags.data.given import classes_and_labels, pixels_of, read_whole
from pags.display import Displayed
from pags.errors import UsageError
from pags.seeds import generator

CHUNK = 2**24
"""Pixels that are looked at together where a set may be larger than the memory."""


@dataclass(frozen=True, repr=False)
class ImageSet(Displayed):
    """Images with labels.

    Args:
        pixels: (N, C, H, W), uint8 in 0…255 or float in [0, 1].
        labels: (N,) integers in [0, len(classes)).
        classes: the names of the classes.
        name: what the set is called in records and figures.
        provenance: plain data that says which images these are; part of every fingerprint.
        masks: (N, H, W), True on the pixels of the signal (section 3.2), where that is known.

    Raises:
        UsageError: pixels, labels or masks break their contract, or differ in number.
    """

    pixels: Tensor
    labels: Labels
    classes: tuple[str, ...]
    name: str
    provenance: dict[str, Any] = field(default_factory=dict)
    masks: Bool[Tensor, "n h w"] | None = None

    def __post_init__(self) -> None:
        if self.pixels.dtype != torch.uint8 or self.pixels.ndim != 4:
            check_images(self.pixels, what=f"the images of {self.name}")
        check_labels(self.labels, len(self.classes))
        if len(self.pixels) != len(self.labels):
            raise UsageError(
                "as many labels as images",
                got=f"{len(self.pixels)} images and {len(self.labels)} labels",
                suggestion=f"checking how {self.name} was put together",
            )
        if self.masks is not None and self.masks.shape != (len(self.pixels), *self.pixels.shape[2:]):
            raise UsageError(
                f"masks as {(len(self.pixels), *self.pixels.shape[2:])} booleans, one per pixel",
                got=f"{self.masks.dtype} {tuple(self.masks.shape)}",
                suggestion="one mask for all channels of an image",
            )

    @classmethod
    def of(
        cls,
        images: Any,
        labels: Any = None,
        classes: Sequence[str] | None = None,
        *,
        name: str = "images",
        layout: Literal["nchw", "nhwc"] | None = None,
    ) -> "ImageSet":
        """Images in whatever form they come, with labels.

        Args:
            images: a tensor, an array or a list of them: (N, H, W), (N, H, W, C) or (N, C, H, W) with one or
                three channels, uint8 or float in [0, 1]; a list of PIL images; or a torch `Dataset` or
                `DataLoader` of (image, label), which is read to its end. Floats that are whole 255ths are
                kept in 8 bits.
            labels: integers from 0, or names of classes; None: those of the dataset.
            classes: names; None: the dataset's, else the labels themselves.
            name: what the set is called.
            layout: "nhwc" or "nchw", needed only where the shape fits both.

        Raises:
            UsageError: images of several sizes, pixels out of range, labels that are missing or no classes.
        """
        if labels is None:
            images, labels, classes = read_whole(images, classes)
        names, numbers = classes_and_labels(labels, classes)
        given = cls(pixels_of(images, layout, name), numbers, names, name)
        return replace(given, provenance={"source": "given", "sha256": given.identity})

    @cached_property
    def identity(self) -> str:
        """SHA-256 of pixels, labels, classes and masks, for keys: equal images, equal digits.

        Read in parts, so that a set that is mapped from a file stays there.
        """
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        for values in (self.pixels, self.labels, self.masks):
            if values is not None:
                digest.update(f"{values.dtype} {tuple(values.shape)}\n".encode())
                for part in chunks(values):
                    plain = part.detach().cpu().contiguous().reshape(-1)
                    digest.update(plain.view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    @property
    def images(self) -> Images:
        """All images as floats in [0, 1]."""
        return as_float(self.pixels)

    def take(self, index: Tensor | slice) -> "ImageSet":
        """The images at `index`."""
        masks = None if self.masks is None else self.masks[index]
        return replace(self, pixels=self.pixels[index], labels=self.labels[index], masks=masks)

    def to(self, device: torch.device | str) -> "ImageSet":
        """The set on another device."""
        masks = None if self.masks is None else self.masks.to(device)
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device), masks=masks)

    def sample(self, n: int, seed: int = 0) -> "ImageSet":
        """n images drawn without repetition, the classes as balanced as their sizes allow.

        Where every class has enough images, the numbers drawn of any two classes differ by one at most.
        A larger sample with the same seed begins with the smaller one.

        Args:
            n: from 0 to len(self).

        Raises:
            UsageError: there are fewer than n images.
        """
        if not 0 <= n <= len(self):
            raise UsageError(
                f"a sample of 0 to {len(self)} images of {self.name}",
                got=n,
                suggestion=f"{len(self)} or fewer",
            )
        chosen = balanced_order(self.labels, generator(seed, "sample"))[:n]
        part = self.take(chosen.to(self.labels.device))
        return replace(part, provenance=self.provenance | {"sample": {"images": n, "seed": seed}})

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel, for a classifier's normalisation.

        Of 8-bit pixels, exact and in bounded memory.
        """
        if self.pixels.dtype == torch.uint8:
            return _from_counts(self.pixels)
        images = self.images.double()
        return (
            tuple(images.mean((0, 2, 3)).tolist()),
            tuple(images.std((0, 2, 3)).clamp_min(1e-3).tolist()),
        )


def balanced_order(labels: Labels, draws: torch.Generator) -> Tensor:
    """A random order of all images whose every beginning holds the classes as evenly as they last."""
    shuffled = torch.randperm(len(labels), generator=draws)
    grouped = shuffled[labels.cpu()[shuffled].argsort(stable=True)]  # by class, shuffled within
    sizes = labels.cpu().bincount()
    firsts = sizes.cumsum(0) - sizes
    rank = torch.arange(len(labels)) - firsts.repeat_interleave(sizes)  # place of an image within its class
    again = torch.randperm(len(labels), generator=draws)  # so that no class comes first in every round
    return grouped[again][rank[again].argsort(stable=True)]


def _from_counts(pixels: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation (with n − 1) of 8-bit pixels, from how often each value occurs."""
    counts = torch.zeros(pixels.shape[1], 256, dtype=torch.long, device=pixels.device)
    for chunk in chunks(pixels):
        for channel in range(len(counts)):
            counts[channel] += chunk[:, channel].flatten().bincount(minlength=256)
    means, deviations = [], []
    for row in counts.tolist():  # whole numbers of any size, so nothing is rounded before the end
        n = sum(row)
        first = sum(count * value for value, count in enumerate(row))
        second = sum(count * value**2 for value, count in enumerate(row))
        means.append(first / (255 * n) if n else math.nan)
        variance = (n * second - first**2) / (n * (n - 1)) if n > 1 else math.nan
        deviations.append(max(math.sqrt(variance) / 255, 1e-3))
    return tuple(means), tuple(deviations)


def chunks(pixels: Tensor) -> Iterator[Tensor]:
    """The images in consecutive parts of about `CHUNK` pixels; of mapped files, a part is read when used."""
    each = max(1, CHUNK // max(1, pixels[:1].numel()))
    for start in range(0, len(pixels), each):
        yield pixels[start : start + each]


def as_float(pixels: Tensor) -> Images:
    """Pixels as floats in [0, 1]."""
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels


@dataclass(frozen=True, repr=False)
class DataSet(Displayed):
    """The training and the test images of one source, with the same classes."""

    train: ImageSet
    test: ImageSet

    @property
    def name(self) -> str:
        """The name of the source."""
        return self.train.name


def split(whole: ImageSet, train: float, seed: int) -> DataSet:
    """One set cut in two by a seeded permutation, as the provenance of both parts tells.

    Args:
        train: the share of the training images, above 0 and below 1; each part gets one image at least.

    Raises:
        UsageError: the share is no share, or there are fewer than two images.
    """
    if not 0 < train < 1:
        raise UsageError("a share of training images above 0 and below 1", got=train, suggestion="train=0.8")
    if len(whole) < 2:
        raise UsageError(
            "two images or more, to have some for training and some for testing",
            got=f"{len(whole)} in {whole.name}",
            suggestion="more images",
        )
    cut = min(max(1, round(train * len(whole))), len(whole) - 1)
    whole = replace(whole, provenance=whole.provenance | {"split": {"train": train, "seed": seed}})
    order = torch.randperm(len(whole), generator=generator(seed, "split", "train"))
    return DataSet(whole.take(order[:cut]), whole.take(order[cut:]))
