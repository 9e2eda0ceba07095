"""A labelled set of images, kept as small as it came and handed out in the contract's form."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pags.arrays import Images, Labels, check_images, check_labels
from pags.errors import UsageError


@dataclass(frozen=True)
class ImageSet:
    """Images with labels.

    Args:
        pixels: (N, C, H, W), uint8 in 0…255 or float in [0, 1].
        labels: (N,) integers in [0, len(classes)).
        classes: the names of the classes.
        name: what the set is called in records and figures.
        provenance: plain data that says which images these are; part of every fingerprint.

    Raises:
        UsageError: pixels or labels break their contract, or differ in number.
    """

    pixels: Tensor
    labels: Labels
    classes: tuple[str, ...]
    name: str
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.pixels.dtype != torch.uint8:
            check_images(self.pixels, what=f"the images of {self.name}")
        check_labels(self.labels, len(self.classes))
        if len(self.pixels) != len(self.labels):
            raise UsageError(
                "as many labels as images",
                got=f"{len(self.pixels)} images and {len(self.labels)} labels",
                suggestion=f"checking how {self.name} was put together",
            )

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
        return ImageSet(self.pixels[index], self.labels[index], self.classes, self.name, self.provenance)

    def to(self, device: torch.device | str) -> "ImageSet":
        """The set on another device."""
        return ImageSet(
            self.pixels.to(device), self.labels.to(device), self.classes, self.name, self.provenance
        )

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel, for a classifier's normalisation."""
        images = self.images.double()
        return (
            tuple(images.mean((0, 2, 3)).tolist()),
            tuple(images.std((0, 2, 3)).clamp_min(1e-3).tolist()),
        )


def as_float(pixels: Tensor) -> Images:
    """Pixels as floats in [0, 1]."""
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels


@dataclass(frozen=True)
class DataSet:
    """The training and the test images of one source, with the same classes."""

    train: ImageSet
    test: ImageSet

    @property
    def name(self) -> str:
        """The name of the source."""
        return self.train.name
