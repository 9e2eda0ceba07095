"""MNIST, Fashion-MNIST, CIFAR-10, CIFAR-100 and SVHN: torchvision's files and checksums, read as data alone.

Addresses, names and checksums are taken from torchvision's classes, and files that torchvision has downloaded
are found where it left them. The batches of CIFAR are pickles; they are read after their checksum was found
right, by an unpickler that knows arrays and nothing else.
"""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import datasets

from pags.data.download import Remote, Report, fetch, missing
from pags.data.imageset import DataSet, ImageSet
from pags.errors import PagsError

IDX = {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST}
ORIGINALS = {
    "mnist": {
        "6bbc9ace898e44ae57da46a324031adb",
        "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea",
        "27ae3e4e09519cfbb04c329615203637",
    },
    "fashion-mnist": {
        "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "9018921c3c673c538a1fc5bad174d6f9",
        "8181f5470baa50b63fa0f6fddb340f0a",
        "15d484375f8d13e6eb1aabb0c3f46965",
    },
}
"""md5 of the files once uncompressed, as torchvision leaves them on disk."""

CIFAR = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}

NAMES = (*IDX, *CIFAR, "svhn")


def remotes(name: str) -> tuple[Remote, ...]:
    """The files of a data set as they come from the network."""
    if name in IDX:
        kind = IDX[name]
        return tuple(
            Remote(file, tuple(mirror + file for mirror in kind.mirrors), md5=md5)
            for file, md5 in kind.resources
        )
    if name in CIFAR:
        archive = CIFAR[name]
        return (Remote(archive.filename, (archive.url,), md5=archive.tgz_md5),)
    entries = (datasets.SVHN.split_list[part] for part in ("train", "test"))
    return tuple(Remote(file, (url,), md5=md5) for url, file, md5 in entries)


def fetch_all(name: str, folder: Path, *, on_progress: Report = lambda what, share: None) -> list[Path]:
    """The files of a data set; what is not there yet is downloaded to where torchvision would put it."""
    place = folder / IDX[name].__name__ / "raw" if name in IDX else folder
    files = [(file, found(file, folder, name)) for file in remotes(name)]
    lacking = [file for file, path in files if path is None]
    return [path or fetch(file, place, needed=lacking, on_progress=on_progress) for file, path in files]


def found(file: Remote, folder: Path, name: str) -> Path | None:
    """Where a file of the data set `name` is, compressed or not, or None."""
    bare = file.name.removesuffix(".gz")
    if name in IDX:
        # Both sets have files of the same names, so files of no folder of their own are told by its name.
        own = ("fashion" in folder.name.lower()) == (name == "fashion-mnist")
        places = [folder / IDX[name].__name__ / "raw", folder / name, *([folder] if own else [])]
        candidates = [place / each for place in places for each in (bare, file.name)]
    elif name in CIFAR:
        candidates = [folder / CIFAR[name].base_folder, folder / file.name]
    else:
        candidates = [folder / file.name]
    return next((path for path in candidates if path.exists()), None)


def open_torchvision(name: str, folder: Path, *, download: bool = True) -> DataSet:
    """A data set that torchvision knows, from files in `folder` or, failing that, from the network.

    Raises:
        PagsError: files are missing and cannot be downloaded, or are not what they should be.
    """
    files = remotes(name)
    paths = [found(file, folder, name) for file in files]
    lacking = [file for file, path in zip(files, paths, strict=True) if path is None]
    if lacking and not download:
        raise missing(folder, lacking, "no such files, and no download asked for")
    whole = fetch_all(name, folder) if lacking else [path for path in paths if path is not None]
    if name in IDX:
        return _idx_set(name, files, whole)
    return _cifar_set(name, whole[0]) if name in CIFAR else _svhn_set(files, whole)


# --- idx: MNIST and Fashion-MNIST --------------------------------------------------------------------------


def _idx_set(name: str, files: tuple[Remote, ...], paths: list[Path]) -> DataSet:
    """Local copies are taken as they are, as torchvision does; one that differs from the original says so."""
    contents, original = [], True
    for file, path in zip(files, paths, strict=True):
        packed = path.read_bytes()
        contents.append(_unpacked(packed, path) if path.suffix == ".gz" else packed)
        original &= _md5(packed) == file.md5 or _md5(contents[-1]) in ORIGINALS[name]
    ranks = (3, 1, 3, 1)
    arrays = [read_idx(*each) for each in zip(contents, paths, ranks, strict=True)]
    # Named by what is inside, so that it does not matter whether the files were compressed.
    hashes = {
        file.name.removesuffix(".gz"): hashlib.sha256(content).hexdigest()
        for file, content in zip(files, contents, strict=True)
    }
    classes = tuple(str(label) for label in range(10)) if name == "mnist" else tuple(IDX[name].classes)
    about = {"source": name, "original": original, "sha256": hashes}
    called = name if original else f"{name} (not the original files)"
    train, test = (
        ImageSet(images[:, None], labels.long(), classes, called, about)
        for images, labels in (arrays[:2], arrays[2:])
    )
    return DataSet(train, test)


def _unpacked(packed: bytes, path: Path) -> bytes:
    try:
        return gzip.decompress(packed)
    except (OSError, EOFError, zlib.error) as error:
        raise PagsError("a whole gzip file", got=f"{path} ({error})", suggestion=_AGAIN) from error


def read_idx(content: bytes, path: Path, rank: int) -> Tensor:
    """The array of unsigned bytes in an idx file (LeCun's format: two zeros, type, rank, sizes, values).

    Args:
        rank: how many axes it must have: 3 for images, 1 for labels.

    Raises:
        PagsError: another format, or another length than the sizes say.
    """
    if content[:4] != bytes([0, 0, 8, rank]) or len(content) < 4 + 4 * rank:
        raise PagsError(
            f"an idx file of unsigned bytes with {rank} axes",
            got=f"{path} beginning with {content[:4]!r}",
            suggestion=_AGAIN,
        )
    shape = struct.unpack(f">{rank}I", content[4 : 4 + 4 * rank])
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * rank)
    if len(values) != np.prod(shape, dtype=object):
        raise PagsError(f"{shape} bytes in {path}", got=f"{len(values)} bytes", suggestion=_AGAIN)
    return torch.from_numpy(values.reshape(shape).copy())


# --- CIFAR -------------------------------------------------------------------------------------------------


def _cifar_set(name: str, path: Path) -> DataSet:
    kind = CIFAR[name]
    wanted = dict([*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])])
    contents = _from_archive(kind, path, wanted) if path.is_file() else _from_folder(path, wanted)
    for file, content in contents.items():
        _check_md5(content, wanted[file], path / file)
    batches = {
        file: ArraysOnly(io.BytesIO(content), encoding="latin1").load() for file, content in contents.items()
    }
    classes = tuple(str(label) for label in batches[kind.meta["filename"]][kind.meta["key"]])
    about = {"source": name, "md5": wanted}
    train, test = (
        ImageSet(*_joined([batches[file] for file, _ in files]), classes, name, about)
        for files in (kind.train_list, kind.test_list)
    )
    return DataSet(train, test)


def _from_folder(folder: Path, wanted: Mapping[str, str]) -> dict[str, bytes]:
    try:
        return {file: (folder / file).read_bytes() for file in wanted}
    except OSError as error:
        raise PagsError(
            f"{', '.join(wanted)} in {folder}", got=f"{error.strerror}: {error.filename}", suggestion=_AGAIN
        ) from error


def _from_archive(kind: type[datasets.CIFAR10], path: Path, wanted: Mapping[str, str]) -> dict[str, bytes]:
    """The batches straight out of the archive; nothing is unpacked to disk."""
    _check_md5(path.read_bytes(), kind.tgz_md5, path)
    inside = {f"{kind.base_folder}/{file}": file for file in wanted}
    contents = {}
    with tarfile.open(path) as archive:
        for member in archive:
            if member.name in inside and (stream := archive.extractfile(member)):
                contents[inside[member.name]] = stream.read()
    if lacking := wanted.keys() - contents.keys():
        raise PagsError(f"{', '.join(sorted(lacking))} in {path}", got="none of that name", suggestion=_AGAIN)
    return contents


def _joined(batches: list[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    pixels = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
    labels = [label for batch in batches for label in batch["labels" if "labels" in batch else "fine_labels"]]
    return torch.from_numpy(pixels), torch.tensor(labels)


class ArraysOnly(pickle.Unpickler):
    """Reads plain data and numpy arrays; whatever else a pickle names is refused, and no code runs."""

    def find_class(self, module: str, name: str) -> Any:
        if (module.replace("_core", "core"), name) == ("numpy.core.multiarray", "_reconstruct"):
            return _reconstruct
        if module == "numpy" and name in {"ndarray", "dtype"}:
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes for Python 2
            return _encode
        raise PagsError(
            "a pickle of arrays and plain data",
            got=f"{module}.{name} in it",
            suggestion="fetching the file again",
        )


def _reconstruct(kind: type, shape: tuple[int, ...], code: bytes | str) -> NDArray[Any]:
    """An empty array that the pickle fills in next."""
    return np.ndarray((0,), np.uint8)


def _encode(text: str, encoding: str) -> bytes:
    return text.encode("latin1")


# --- SVHN --------------------------------------------------------------------------------------------------


def _svhn_set(files: tuple[Remote, ...], paths: list[Path]) -> DataSet:
    from scipy.io import loadmat  # type: ignore[import-untyped]

    parts = []
    about = {"source": "svhn", "md5": {file.name: file.md5 for file in files}}
    for file, path in zip(files, paths, strict=True):
        content = path.read_bytes()
        _check_md5(content, file.md5, path)
        arrays = loadmat(io.BytesIO(content), variable_names=["X", "y"])
        pixels = torch.from_numpy(arrays["X"].transpose(3, 2, 0, 1).copy())  # from (H, W, C, N)
        labels = torch.from_numpy(arrays["y"].astype(np.int64).ravel()) % 10  # the digit 0 is written as 10
        parts.append(ImageSet(pixels, labels, tuple(str(digit) for digit in range(10)), "svhn", about))
    return DataSet(*parts)


_AGAIN = "removing the file and running pags data fetch again"


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _check_md5(content: bytes, wanted: str | None, path: Path) -> None:
    if wanted is not None and (got := _md5(content)) != wanted:
        raise PagsError(f"{path} with md5 {wanted}", got=f"md5 {got}", suggestion=_AGAIN)
