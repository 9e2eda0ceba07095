"""Images in the forms in which people have them: arrays, PIL images, torch's datasets and loaders."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pags.arrays import Labels
from pags.errors import UsageError
from pags.seeds import seeded_construction


def pixels_of(images: Any, layout: str | None, name: str) -> Tensor:  # (N, C, H, W)
    """Pixels as an `ImageSet` has them, on the CPU; see `ImageSet.of`.

    Raises:
        UsageError: images of several sizes, or another shape, type or range.
    """
    if not isinstance(images, Tensor | np.ndarray):
        images = _stacked([_tensor(image) for image in images], name)
    pixels = _tensor(images).detach().cpu()
    if pixels.dtype != torch.uint8 and not pixels.is_floating_point():
        raise UsageError(
            f"the images of {name} as uint8, or as floats in [0, 1]",
            got=pixels.dtype,
            suggestion="images.to(torch.uint8)",
        )
    if pixels.ndim == 3:
        return _in_8_bits(pixels[:, None])
    if axis_of_channels(pixels.shape, layout, name, 'layout="nhwc"') == 3:
        pixels = pixels.permute(0, 3, 1, 2)
    return _in_8_bits(pixels.contiguous())


def classes_and_labels(labels: Any, classes: Sequence[str] | None) -> tuple[tuple[str, ...], Labels]:
    """Names of the classes, and labels as their places.

    Raises:
        UsageError: labels that are neither names of classes nor one integer per image.
    """
    values = labels.detach().cpu() if isinstance(labels, Tensor) else list(labels)
    if not isinstance(values, Tensor) and values and all(isinstance(value, str) for value in values):
        names = tuple(classes) if classes is not None else tuple(sorted(set(values)))
        if unknown := sorted(set(values) - set(names)):
            raise UsageError(
                f"labels among {', '.join(names)}", got=unknown[0], suggestion="naming all classes"
            )
        return names, torch.tensor([names.index(value) for value in values])
    numbers = torch.as_tensor(np.asarray(values)).reshape(-1)
    if numbers.is_floating_point() or (numbers.numel() and int(numbers.min()) < 0):
        raise UsageError(
            "labels as one integer from 0 per image, or names of classes",
            got=f"{numbers.dtype} from {numbers.min().item()}" if numbers.numel() else f"{numbers.dtype}",
            suggestion="labels.long(), the classes numbered from 0",
        )
    highest = int(numbers.max()) if numbers.numel() else -1
    names = tuple(classes) if classes is not None else tuple(str(label) for label in range(highest + 1))
    return names, numbers.long()


def read_whole(images: Any, classes: Sequence[str] | None) -> tuple[Tensor, list[Any], Sequence[str] | None]:
    """Images, labels and classes of a torch `Dataset` or `DataLoader`.

    Raises:
        UsageError: it is neither, or does not give pairs of an image and a label.
    """
    dataset: Any = images.dataset if isinstance(images, DataLoader) else images
    if isinstance(images, Tensor | np.ndarray | list | tuple) or not hasattr(dataset, "__getitem__"):
        raise UsageError(
            "labels beside the images, or a torch Dataset or DataLoader",
            got=f"a {type(images).__name__} alone",
            suggestion="ImageSet.of(images, labels)",
        )
    pixels, labels = list[Tensor](), list[Any]()
    loader = isinstance(images, DataLoader)
    with seeded_construction(0, "dataset"):  # loaders draw from the global generator
        for item in images if loader else map(dataset.__getitem__, range(len(dataset))):
            if not isinstance(item, tuple | list) or len(item) != 2:
                raise UsageError(
                    "pairs of an image and a label",
                    got=f"a {type(item).__name__}",
                    suggestion="a Dataset whose items are (image, label)",
                )
            image, label = _tensor(item[0]), item[1]
            pixels += [_in_8_bits(part) for part in (image if loader else [image])]
            labels += list(label) if loader else [label]
    named = getattr(dataset, "classes", None) if classes is None else classes
    plain = [value.item() if isinstance(value, Tensor) else value for value in labels]
    return _stacked(_alike(pixels), "the dataset"), plain, named


def _tensor(image: Any) -> Tensor:
    """A tensor of an array or a PIL image, which is (h, w) or (h, w, c)."""
    return image if isinstance(image, Tensor) else torch.from_numpy(np.array(image))


def _stacked(images: list[Tensor], name: str) -> Tensor:
    if len({image.shape for image in images}) > 1:
        sizes = sorted({tuple(image.shape) for image in images})
        raise UsageError(
            f"images of {name} of one size",
            got=" and ".join(map(str, sizes[:3])),
            suggestion="resizing them first",
        )
    return torch.stack(images) if images else torch.zeros(0, 1, 1, 1)


def _alike(images: list[Tensor]) -> list[Tensor]:
    """Images of one type: 8 bits where all of them are."""
    if len({image.dtype for image in images}) < 2:
        return images
    return [image.float() / 255 if image.dtype == torch.uint8 else image for image in images]


def _in_8_bits(pixels: Tensor) -> Tensor:
    """Floats that are whole 255ths, as 8 bits; others as they are, in float32."""
    if pixels.dtype == torch.uint8:
        return pixels
    scaled = pixels.float() * 255
    whole = scaled.round()
    inside = bool(((whole >= 0) & (whole <= 255)).all())
    if inside and bool(((scaled - whole).abs() < 1e-3).all()):
        return whole.to(torch.uint8)
    return pixels.float()


def axis_of_channels(shape: Sequence[int], layout: str | None, name: object, hint: str) -> int:
    """1 or 3, where the channels of images (N, ·, ·, ·) are.

    Raises:
        UsageError: neither axis has one or three entries, or both have and no layout says which it is.
    """
    fits = [axis for axis in (1, 3) if len(shape) == 4 and shape[axis] in (1, 3)]
    wanted = {None: fits, "nchw": [1], "nhwc": [3]}[layout]
    if len(wanted) != 1 or wanted[0] not in fits:
        raise UsageError(
            f"images in {name} as (N, H, W), (N, H, W, C) or (N, C, H, W) with one or three channels",
            got=f"{tuple(shape)}" + (", which fits two of these" if len(fits) == 2 else ""),
            suggestion=hint if len(fits) == 2 else "reshaping the array first",
        )
    return wanted[0]
