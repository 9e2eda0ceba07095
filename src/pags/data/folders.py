"""`folder:PATH`: image files, one folder per class, as torchvision's ImageFolder has them."""

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
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import center_crop, resize

from pags.data.imageset import DataSet, ImageSet, split
from pags.errors import PagsError, UsageError

ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
TRAININGS, TESTS = ("train", "training"), ("test", "testing", "val", "valid", "validation")
"""Names of the two parts, in any case; the first that is there."""

BACKGROUNDS = {"white": 255, "black": 0}
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")

Pixels = NDArray[np.uint8]
A = TypeVar("A")
B = TypeVar("B")


class BadImage(Exception):
    """A file that cannot be decoded as an image, and what to do about it."""

    suggestion = "removing the file or replacing it"


class Transparent(BadImage):
    """An image with transparent pixels, and no background."""

    suggestion = "folder:PATH?background=white, or ?background=black"


class Deep(BadImage):
    """An image of whose pixels black and white are not known."""

    suggestion = "saving the images with 8 or 16 bits, or numpy.savez(path, images=…, labels=…) and npz:PATH"


@dataclass(frozen=True)
class Files:
    """Image files with the index of their class.

    Args:
        root: the folder of the class folders.
        names: of the files, relative to `root`.
        labels: an index into `classes` each.
        classes: names of the class folders, or of all classes where these are some of them.
        by_number: whether the folders are in the order of their names as numbers, not as texts.
    """

    root: Path
    names: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    by_number: bool = False


def list_files(root: Path, classes: Sequence[str] | None = None) -> Files:
    """The images below `root`, by class and name, without hidden files and folders.

    Folders whose names are all whole numbers are in the order of these, others in that of their names.

    Args:
        classes: the names of all classes, where the folders may be some of them.

    Raises:
        UsageError: no such folder, no class folders, a folder without images or of an unknown class.
    """
    if not root.is_dir():
        raise UsageError(
            "a folder with one subfolder of images per class",
            got=f"{root}, which is not there",
            suggestion="checking the path after folder:",
        )
    folders, by_number = _ordered([entry.name for entry in os.scandir(root) if entry.is_dir()], root)
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
            "one subfolder of images per class",
            got=f"no images in subfolders of {root}",
            suggestion=f"the layout {root.name}/CLASS/IMAGE.png",
        )
    names, labels = zip(*found, strict=True)
    return Files(root, names, labels, known, by_number and classes is None)


def _ordered(names: Sequence[str], root: Path) -> tuple[list[str], bool]:
    """The visible folders in order, and whether that is one of numbers and another than that of texts."""
    folders = sorted(name for name in names if name[0] != "." and name != "__MACOSX")
    if not all(name.isdecimal() for name in folders):
        return folders, False
    if len({int(name) for name in folders}) < len(folders):
        raise UsageError(
            "one class folder for each number",
            got=f"{_few(folders)} in {root}, where two are the same number",
            suggestion="removing or renaming one of them",
        )
    numbered = sorted(folders, key=int)
    return numbered, numbered != folders


def _by_text(root: Path) -> tuple[str, ...]:
    """The class folders in the order of their names as texts, as torchvision's ImageFolder has them."""
    return tuple(sorted(_ordered([entry.name for entry in root.iterdir() if entry.is_dir()], root)[0]))


def _images_in(folder: Path) -> list[str]:
    names = sorted(
        str(path.relative_to(folder).as_posix())
        for path in folder.rglob("*")
        if path.suffix.lower() in ENDINGS and path.name[0] != "." and path.is_file()
    )
    if not names:
        raise UsageError(
            "images in every class folder", got=f"none in {folder}", suggestion="removing the folder"
        )
    return names


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f", … ({len(names)} in all)" if len(names) > 5 else "")


def decode(content: bytes, name: object, background: str | None = None) -> Image.Image:
    """The image in a file's content, upright as its EXIF data say, grey or in three channels of 8 bits.

    16-bit grey images are scaled from 0…65535.

    Args:
        content: of the file.
        name: of the file, for errors.
        background: "white" or "black", where transparent images are put on.

    Raises:
        BadImage: it cannot be decoded, or not in one way only; the message names the file.
    """
    try:
        file = Image.open(io.BytesIO(content))
        image: Image.Image = ImageOps.exif_transpose(file)
        if "A" in image.getbands() or "transparency" in image.info:
            image = _on_background(image, name, background)
        if image.mode in SIXTEEN_BITS or (image.mode == "I" and file.format == "PNG"):
            scaled = np.rint(np.asarray(image).astype(np.float64) / 257).astype(np.uint8)
            return Image.fromarray(scaled)
        if image.mode in ("I", "F"):
            raise Deep(f"{name} (pixels of 32 bits, whose black and white are not known)")
        return image.convert("L" if image.mode in ("1", "L") else "RGB")
    except UnidentifiedImageError as error:  # whose own message names an address in memory
        raise BadImage(f"{name} (no known format of images)") from error
    # What Pillow's decoders raise for damaged files is of many kinds.
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise BadImage(f"{name} ({error})") from error


def _on_background(image: Image.Image, name: object, background: str | None) -> Image.Image:
    """A transparent image on a background; one that is opaque everywhere needs none."""
    grey = image.mode in ("LA", "La", "L", "1")
    whole = image.convert("RGBA")
    alpha = whole.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return whole.convert("L" if grey else "RGB")
    if background is None:
        raise Transparent(f"{name} (transparent pixels, and no background to put them on)")
    under = Image.new("RGBA", whole.size, (*[BACKGROUNDS[background]] * 3, 255))
    return Image.alpha_composite(under, whole).convert("L" if grey else "RGB")


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
    background: str | None = None,
) -> DataSet:
    """Images from class folders, held in memory as 8-bit pixels.

    Images are turned upright as their EXIF data say. The provenance says so where folders are in the order of
    numbers ("classes by"), and which part was taken where there were several for testing ("unused").

    Args:
        path: a folder with the subfolders train and test (also training; testing, val, valid, validation; in
            any case) of class folders, or a folder of class folders, which is cut in two by a seeded
            permutation.
        size: pixels; the shorter side of each image is resized to it, and the centre cut out. Without it,
            all images must have one size.
        train: share of the training images where there are no subfolders train and test.
        seed: names the permutation.
        classes: "cifar10" or "imagenet" for labels among their classes, the folders being some of these by
            name or, for ImageNet, wnid (needs timm); "text" for folders with numbers as names in the order
            of these as texts, as torchvision's ImageFolder has them.
        background: "white" or "black", on which transparent images are put; without it they are refused.

    Raises:
        UsageError: the folder has another layout, images differ in size, or an option makes no sense.
        PagsError: an image cannot be decoded, or timm is missing.
    """
    by_text = classes == "text"
    names = None if by_text else class_names(classes)
    if background is not None and background not in BACKGROUNDS:
        raise UsageError("a background of white or black", got=background, suggestion="background=white")
    training, tests = _parts(path, TRAININGS), _parts(path, TESTS)
    name = path.name or "folder"
    about: dict[str, Any] = {"source": "folder", "size": size, "classes": classes}
    about |= {"background": background} if background else {}
    if not training or not tests:
        if tests or training:
            raise UsageError(
                "both train and test (or val), or neither",
                got=f"{', '.join(sorted(each.name for each in path.iterdir()))} in {path}",
                suggestion=f"folder:{[*training, *tests][0]}, which is then cut in two",
            )
        names = _by_text(path) if by_text else names
        return split(_read(list_files(path, names), name, about, size, size, background), train, seed)
    files = list_files(training[0], _by_text(training[0]) if by_text else names)
    test, others = tests[0], tests[1:]
    found = list_files(test, files.classes)
    about |= (
        {"parts": [training[0].name, test.name], "unused": [each.name for each in others]} if others else {}
    )
    parts = [_read(part, name, about, size, size, background) for part in (files, found)]
    if parts[0].shape[0] != parts[1].shape[0]:  # one is grey throughout
        parts = [replace(part, pixels=part.pixels.expand(-1, 3, -1, -1)) for part in parts]
    if parts[0].shape != parts[1].shape:
        raise _differ(parts[0].shape, parts[1].shape, test)
    both = parts[1].provenance | parts[0].provenance
    both |= {"sha256": {"train": parts[0].provenance["sha256"], "test": parts[1].provenance["sha256"]}}
    return DataSet(*(replace(part, provenance=both) for part in parts))


def _parts(path: Path, names: Sequence[str]) -> list[Path]:
    """The subfolders of these names, in their order and in any case."""
    there = [entry for entry in path.iterdir() if entry.is_dir()] if path.is_dir() else []
    return [entry for name in names for entry in there if entry.name.lower() == name]


def images_of(
    folder: Path, *, size: int = 224, limit: int | None = None, classes: str | None = None
) -> ImageSet:
    """Images as classifiers of ImageNet expect them: shorter side 256 at 224 pixels, centre cut out.

    Args:
        folder: a folder of class folders.
        size: pixels of a side; the shorter side is first resized to 256/224 of it.
        limit: how many images; the first of every class come before the second of any.
        classes: as for `open_folder`; otherwise the classes are the folders in sorted order.

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


CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def class_names(kind: str | None) -> tuple[str, ...] | None:
    """CIFAR-10's names or ImageNet's wnids in the order of every classifier's outputs, or None."""
    if kind is None:
        return None
    if kind == "cifar10":
        return CIFAR10
    if kind != "imagenet":
        expected = "classes=cifar10, classes=imagenet, classes=text, or no such option"
        raise UsageError(expected, got=f"classes={kind}", suggestion="classes=imagenet")
    try:
        timm = import_module("timm.data")
    except ImportError as error:
        raise PagsError(
            "timm, which knows ImageNet's classes", got="no such package", suggestion="pip install timm"
        ) from error
    return tuple(str(name) for name in timm.ImageNetInfo("imagenet-1k").label_names())


def _read(
    files: Files,
    name: str,
    about: Mapping[str, object],
    side: int | None,
    size: int | None,
    background: str | None = None,
) -> ImageSet:
    """All images in memory, decoded in threads, with one hash of all files in the provenance."""
    if size is not None and size < 1:
        raise UsageError("a size of one pixel or more", got=size, suggestion="size=32")
    whole, all_grey, hashed = np.empty(0, np.uint8), True, hashlib.sha256()
    for place, (pixels, digest) in enumerate(_decoded(files, side, size, background)):
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
    provenance |= {"classes by": "number"} if files.by_number else {}
    return ImageSet(tensor, torch.tensor(files.labels), files.classes, name, provenance)


def _decoded(
    files: Files, side: int | None, size: int | None, background: str | None
) -> Iterator[tuple[Pixels, str]]:
    """(3, H, W) and mode with hash of each file, in order; a bounded number at a time."""

    def one(name: str) -> tuple[Pixels, str]:
        content = (files.root / name).read_bytes()
        image = decode(content, files.root / name, background)
        if side is not None and size is not None:
            image = shorter_side_cropped(image, side, size)
        pixels = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        return pixels, f"{image.mode} {hashlib.sha256(content).hexdigest()}"

    try:
        yield from in_threads(one, files.names)
    except Transparent as error:
        raise UsageError(
            "images without transparent pixels, or a background",
            got=error,
            suggestion=error.suggestion,
        ) from error
    except (BadImage, OSError) as error:
        suggestion = getattr(error, "suggestion", BadImage.suggestion)
        raise PagsError("images that can be decoded", got=error, suggestion=suggestion) from error


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
