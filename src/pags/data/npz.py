"""`npz:PATH`: arrays that someone saved with numpy."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pags.data.download import digest
from pags.data.given import axis_of_channels
from pags.data.imageset import DataSet, ImageSet, split
from pags.errors import PagsError, UsageError

Arrays = dict[str, NDArray[Any]]

KEYS = "images and labels, or x_train, y_train, x_test and y_test"


def open_npz(
    path: Path, *, layout: str | None = None, first: int | None = None, train: float = 0.8, seed: int = 0
) -> DataSet:
    """Images and labels from an npz file; never anything pickled.

    Args:
        path: a file with the arrays `images` and `labels`, which are cut in two by a seeded permutation, or
            `x_train`, `y_train`, `x_test` and `y_test`. Images are (N, H, W), (N, H, W, C) or (N, C, H, W)
            with one or three channels, uint8 or float in [0, 1]; labels are integers. An array `classes` of
            strings may name the classes.
        layout: "nhwc" or "nchw", needed only where the shape fits both.
        first: the label of the first class, needed only where no label is 0 and the classes have no names.
        train: share of the training images where the file holds one set.
        seed: names the permutation.

    Raises:
        PagsError: the file cannot be read or is no npz file.
        UsageError: arrays are missing, or of another shape, type or range.
    """
    arrays = _read(path)
    about = {"source": "npz", "sha256": digest(path, "sha256"), "layout": layout}
    if {"x_train", "y_train", "x_test", "y_test"} <= arrays.keys():
        parts = [(arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test")]
    elif {"images", "labels"} <= arrays.keys():
        parts = [(arrays["images"], arrays["labels"])]
    else:
        raise UsageError(
            f"the arrays {KEYS} in {path}",
            got=", ".join(sorted(arrays)) or "no array",
            suggestion="numpy.savez(path, images=…, labels=…)",
        )
    pixels = [_pixels(images, layout, path) for images, _ in parts]
    labels = [_labels(values, path) for _, values in parts]
    labels = _from_first(labels, first, path, named="classes" in arrays)
    classes = _classes(arrays, labels)
    sets = [ImageSet(x, y, classes, path.stem, about) for x, y in zip(pixels, labels, strict=True)]
    return DataSet(*sets) if len(sets) == 2 else split(sets[0], train, seed)


def _read(path: Path) -> Arrays:
    try:
        with path.open("rb") as file:
            arrays = np.load(file)
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise ValueError("a single array")
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise PagsError(
            f"an npz file with the arrays {KEYS}",
            got=f"{path} ({error})",
            suggestion="saving plain number arrays with numpy.savez; pickled objects are never loaded",
        ) from error


def _pixels(images: NDArray[Any], layout: str | None, path: Path) -> Tensor:  # (N, C, H, W)
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise UsageError(
            f"images in {path} as uint8, or as floats in [0, 1]",
            got=images.dtype,
            suggestion=_scaled(images),
        )
    if images.dtype == np.uint8 and images.size and images.max() == 1:
        raise UsageError(
            f"images in {path} from 0 to 255",
            got="uint8 of 0 and 1 alone, which is black",
            suggestion="images.astype('float32'), if 1 is white",
        )
    if images.dtype.kind == "f":
        images = images.astype(np.float32)
    if images.ndim == 3:
        return torch.from_numpy(images)[:, None]
    hint = f"npz:{path}?layout=nhwc"
    if layout not in (None, "nchw", "nhwc"):
        raise UsageError("a layout of nchw or nhwc", got=layout, suggestion=hint)
    if axis_of_channels(images.shape, layout, path, hint) == 3:
        images = images.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(images))


def _scaled(images: NDArray[Any]) -> str:
    """What makes 8-bit pixels or floats of these numbers, by their type and range."""
    high = int(images.max()) if images.size and images.dtype.kind in "iub" else 0
    if images.dtype.kind == "b" or (images.dtype.kind in "iu" and high == 1):
        return "images.astype('float32')"
    if images.dtype.kind in "iu" and 1 < high < 256 and images.min() >= 0:
        return "images.astype('uint8')"
    white = 2**16 - 1 if high < 2**16 else np.iinfo(images.dtype).max
    return f"(images / {white}).astype('float32'), if {white} is white"


def _labels(values: NDArray[Any], path: Path) -> Tensor:
    if values.dtype.kind not in "iu" or values.size != len(values) or (values.size and values.min() < 0):
        lowest = f" from {values.min()}" if values.size and values.dtype.kind in "iuf" else ""
        raise UsageError(
            f"labels in {path} as one integer from 0 an image",
            got=f"{values.dtype} {values.shape}{lowest}",
            suggestion="labels.astype('int64'), the classes numbered from 0",
        )
    return torch.from_numpy(values.astype(np.int64).ravel())


def _from_first(labels: list[Tensor], first: int | None, path: Path, *, named: bool) -> list[Tensor]:
    """The labels from 0; those that start higher can be read in two ways."""
    lowest = min((int(part.min()) for part in labels if len(part)), default=0)
    if first is None and lowest > 0 and not named:
        raise UsageError(
            f"labels in {path} from 0",
            got=f"labels from {lowest}",
            suggestion=f"npz:{path}?first={lowest} if that is the first class, ?first=0 if some are missing",
        )
    if first is not None and not 0 <= first <= lowest:
        raise UsageError(f"a first label from 0 to {lowest}", got=first, suggestion=f"first={lowest}")
    return [part - (first or 0) for part in labels]


def _classes(arrays: Arrays, labels: list[Tensor]) -> tuple[str, ...]:
    if "classes" in arrays:
        return tuple(str(name) for name in arrays["classes"].ravel())
    highest = max((int(part.max()) for part in labels if len(part)), default=-1)
    return tuple(str(label) for label in range(highest + 1))
