"""`folder:PATH`: image files, a folder a class, as torchvision's ImageFolder has them."""

import hashlib
import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import center_crop, resize

from pags.data.imageset import DataSet, ImageSet, split
from pags.errors import PagsError, UsageError

ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
TESTS = ("test", "val")

Pixels = NDArray[np.uint8]
A = TypeVar("A")
B = TypeVar("B")


class BadImage(Exception):
    """A file that cannot be decoded as an image."""


@dataclass(frozen=True)
class Files:
    """Image files with the index of their class.

    Args:
        root: the folder of the class folders.
        names: of the files, relative to `root`.
        labels: an index into `classes` each.
        classes: names of the class folders, or of all classes where these are some of them.
    """

    root: Path
    names: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]


def list_files(root: Path, classes: Sequence[str] | None = None) -> Files:
    """The images below `root`, by class and name.

    Args:
        classes: the names of all classes, where the folders may be some of them.

    Raises:
        UsageError: no such folder, no class folders, a folder without images or of an unknown class.
    """
    if not root.is_dir():
        raise UsageError(
            "a folder with one subfolder of images a class",
            got=f"{root}, which is not there",
            suggestion="checking the path after folder:",
        )
    folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name[0] != ".")
    known = tuple(folders) if classes is None else tuple(classes)
    if unknown := [name for name in folders if name not in set(known)]:
        raise UsageError(
            f"class folders among {_few(known)}",
            got=f"{_few(unknown)} in {root}",
            suggestion="removing or renaming them",
        )
    index = {name: place for place, name in enumerate(known)}
    found = [(f"{name}/{file}", index[name]) for name in folders for file in _images_in(root / name)]
    if not found:
        raise UsageError(
            "one subfolder of images a class",
            got=f"no images in subfolders of {root}",
            suggestion=f"the layout {root.name}/CLASS/IMAGE.png",
        )
    names, labels = zip(*found, strict=True)
    return Files(root, names, labels, known)


def _images_in(folder: Path) -> list[str]:
    names = sorted(
        str(path.relative_to(folder).as_posix())
        for path in folder.rglob("*")
        if path.suffix.lower() in ENDINGS and path.is_file()
    )
    if not names:
        raise UsageError(
            "images in every class folder", got=f"none in {folder}", suggestion="removing the folder"
        )
    return names


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f", … ({len(names)} in all)" if len(names) > 5 else "")


def decode(content: bytes, name: object) -> Image.Image:
    """The image in a file's content, grey or in three channels.

    Raises:
        BadImage: it cannot be decoded; the message names the file.
    """
    try:
        image = Image.open(io.BytesIO(content))
        return image.convert("L" if image.mode in ("1", "L") else "RGB")
    except UnidentifiedImageError as error:  # whose own message names an address in memory
        raise BadImage(f"{name} (no known format of images)") from error
    # What Pillow's decoders raise for damaged files is of many kinds.
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise BadImage(f"{name} ({error})") from error


def shorter_side_cropped(image: Image.Image, side: int, size: int) -> Image.Image:
    """Resized to a shorter side of `side` (bilinear, antialiased), the centre of `size` × `size` cut out."""
    return center_crop(resize(image, [side], InterpolationMode.BILINEAR, antialias=True), [size, size])


def open_folder(
    path: Path,
    *,
    size: int | None = None,
    train: float = 0.8,
    seed: int = 0,
    classes: str | None = None,
) -> DataSet:
    """Images from class folders, held in memory as 8-bit pixels.

    Args:
        path: a folder with the subfolders train and test (or val) of class folders, or a folder of class
            folders, which is cut in two by a seeded permutation.
        size: pixels; the shorter side of each image is resized to it, and the centre cut out. Without it,
            all images must have one size.
        train: share of the training images where there are no subfolders train and test.
        seed: names the permutation.
        classes: "imagenet" for labels among the 1,000 classes of ImageNet, the folders being some of their
            wnids; needs timm.

    Raises:
        UsageError: the folder has another layout, images differ in size, or an option makes no sense.
        PagsError: an image cannot be decoded, or timm is missing.
    """
    names = class_names(classes)
    test = next((path / part for part in TESTS if (path / part).is_dir()), None)
    name, about = path.name or "folder", {"source": "folder", "size": size, "classes": classes}
    if not (path / "train").is_dir() or test is None:
        if test is not None or (path / "train").is_dir():
            raise UsageError(
                "both train and test (or val), or neither",
                got=f"{', '.join(sorted(each.name for each in path.iterdir()))} in {path}",
                suggestion=f"folder:{test or path / 'train'}, which is then cut in two",
            )
        return split(_read(list_files(path, names), name, about, size, size), train, seed)
    training = list_files(path / "train", names)
    testing = list_files(test, training.classes)
    parts = [_read(files, name, about, size, size) for files in (training, testing)]
    if parts[0].shape[0] != parts[1].shape[0]:  # one is grey throughout
        parts = [replace(part, pixels=part.pixels.expand(-1, 3, -1, -1)) for part in parts]
    if parts[0].shape != parts[1].shape:
        raise _differ(parts[0].shape, parts[1].shape, test)
    both = about | {"sha256": {"train": parts[0].provenance["sha256"], "test": parts[1].provenance["sha256"]}}
    return DataSet(*(replace(part, provenance=both) for part in parts))


def images_of(
    folder: Path, *, size: int = 224, limit: int | None = None, classes: str | None = None
) -> ImageSet:
    """Images as classifiers of ImageNet expect them: shorter side 256 at 224 pixels, centre cut out.

    Args:
        folder: a folder of class folders.
        size: pixels of a side; the shorter side is first resized to 256/224 of it.
        limit: how many images; the first of every class come before the second of any.
        classes: "imagenet" for labels among ImageNet's 1,000 classes (needs timm); otherwise the classes are
            the folders in sorted order.

    Raises:
        UsageError: the folder has another layout, or the limit or size is below one.
        PagsError: an image cannot be decoded, or timm is missing.
    """
    files = list_files(folder, class_names(classes))
    if limit is not None:
        files = _first_of_each(files, limit)
    about = {"source": "images", "size": size, "limit": limit, "classes": classes}
    return _read(files, folder.name or "images", about, round(size * 256 / 224), size)


def _first_of_each(files: Files, limit: int) -> Files:
    if limit < 1:
        raise UsageError("one image or more", got=limit, suggestion="a larger limit")
    seen: dict[int, int] = {}
    ranks = []
    for label in files.labels:
        ranks.append(seen.get(label, 0))
        seen[label] = ranks[-1] + 1
    order = sorted(range(len(ranks)), key=lambda i: (ranks[i], i))[:limit]
    return Files(
        files.root, tuple(files.names[i] for i in order), tuple(files.labels[i] for i in order), files.classes
    )


def class_names(kind: str | None) -> tuple[str, ...] | None:
    """ImageNet's 1,000 wnids in the order of every classifier's outputs, or None."""
    if kind is None:
        return None
    if kind != "imagenet":
        raise UsageError(
            "classes=imagenet, or no such option", got=f"classes={kind}", suggestion="classes=imagenet"
        )
    try:
        timm = import_module("timm.data")
    except ImportError as error:
        raise PagsError(
            "timm, which knows ImageNet's classes", got="no such package", suggestion="pip install timm"
        ) from error
    return tuple(str(name) for name in timm.ImageNetInfo("imagenet-1k").label_names())


def _read(
    files: Files, name: str, about: Mapping[str, object], side: int | None, size: int | None
) -> ImageSet:
    """All images in memory, decoded in threads, with one hash of all files in the provenance."""
    if size is not None and size < 1:
        raise UsageError("a size of one pixel or more", got=size, suggestion="size=32")
    whole, all_grey, hashed = np.empty(0, np.uint8), True, hashlib.sha256()
    for place, (pixels, digest) in enumerate(_decoded(files, side, size)):
        if not place:
            whole = np.empty((len(files.names), *pixels.shape), np.uint8)
        if pixels.shape != whole.shape[1:]:
            raise _differ(whole.shape[1:], pixels.shape, files.root / files.names[place])
        whole[place] = pixels
        all_grey &= digest.startswith("L")
        hashed.update(f"{files.names[place]} {digest}\n".encode())
    tensor = torch.from_numpy(whole)
    tensor = tensor[:, :1].clone() if all_grey else tensor
    provenance = {**about, "sha256": hashed.hexdigest()}
    return ImageSet(tensor, torch.tensor(files.labels), files.classes, name, provenance)


def _decoded(files: Files, side: int | None, size: int | None) -> Iterator[tuple[Pixels, str]]:
    """(3, H, W) and mode with hash of each file, in order; a bounded number at a time."""

    def one(name: str) -> tuple[Pixels, str]:
        content = (files.root / name).read_bytes()
        image = decode(content, files.root / name)
        if side is not None and size is not None:
            image = shorter_side_cropped(image, side, size)
        pixels = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        return pixels, f"{image.mode} {hashlib.sha256(content).hexdigest()}"

    try:
        yield from in_threads(one, files.names)
    except (BadImage, OSError) as error:
        raise PagsError(
            "images that can be decoded", got=error, suggestion="removing the file or replacing it"
        ) from error


def in_threads(work: Callable[[A], B], items: Iterable[A], ahead: int = 256) -> Iterator[B]:
    """`work` done on each item, in order, with at most `ahead` results waiting (Pillow releases the lock)."""
    remaining = iter(items)
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        waiting = deque(pool.submit(work, item) for item in islice(remaining, ahead))
        try:
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(work, item) for item in islice(remaining, 1))
        finally:
            pool.shutdown(cancel_futures=True)


def _differ(first: Sequence[int], other: Sequence[int], where: Path) -> UsageError:
    return UsageError(
        f"images of one size, {first[1]}×{first[2]} as the first",
        got=f"{other[1]}×{other[2]} in {where}",
        suggestion=f"folder:PATH?size={min(first[1:])}, which resizes and crops",
    )
