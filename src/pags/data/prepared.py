"""ImageNet at 64×64 as arrays on disk: opened as memory maps, so that only what is used is read."""

import json
import mmap
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pags.data.imageset import DataSet, ImageSet, split
from pags.errors import PagsError

ABOUT = "imagenet64.json"
"""What the arrays beside it are; written last, so where it is, they are whole."""

PARTS = {"train": "train", "val": "test"}
"""ImageNet's folders, and what they are to us."""


def open_prepared(folder: Path, *, train: float = 0.8, seed: int = 0) -> DataSet:
    """The arrays that `pags data prepare imagenet64` wrote.

    Where both train and val were prepared, they stay memory maps. Where there is only one, it is cut in two
    by a seeded permutation, which reads it into memory.

    Args:
        folder: the folder with `imagenet64.json`, or one with a subfolder `imagenet64` that has it.
        train: share of the training images where only one part was prepared.
        seed: names the permutation.

    Raises:
        PagsError: the arrays are not there, or not what the JSON says.
    """
    place = next((path for path in (folder, folder / "imagenet64") if (path / ABOUT).is_file()), None)
    if place is None:
        raise PagsError(
            f"{ABOUT} in {folder} or {folder / 'imagenet64'}",
            got="no such file",
            suggestion=f"pags data prepare imagenet64 SOURCE {folder / 'imagenet64'}, "
            "or the folder that has it in the variable PAGS_DATA",
        )
    about = read_about(place)
    try:
        sets = {part: _part(place, part, about) for part in PARTS if part in about["parts"]}
    except (KeyError, TypeError, OSError) as error:
        raise _broken(place, error) from error
    if len(sets) == 2:
        return DataSet(sets["train"], sets["val"])
    return split(next(iter(sets.values())), train, seed)


def read_about(folder: Path) -> dict[str, Any]:
    """What `imagenet64.json` says."""
    try:
        return json.loads((folder / ABOUT).read_text())
    except (OSError, ValueError) as error:
        raise _broken(folder, error) from error


def _part(place: Path, part: str, about: dict[str, Any]) -> ImageSet:
    images, labels = mapped(place / f"{part}-images.npy"), mapped(place / f"{part}-labels.npy")
    count = about["parts"][part]["images"]
    if images.shape != (count, 3, about["size"], about["size"]) or labels.shape != (count,):
        raise _broken(place, f"{tuple(images.shape)} in {part}-images.npy")
    hashes = {name: each["sha256"] for name, each in about["parts"].items()}
    provenance = {"source": "imagenet64", "style": about["style"], "sha256": hashes}
    return ImageSet(images, labels.clone(), tuple(about["classes"]), "imagenet64", provenance)


def _broken(place: Path, got: object) -> PagsError:
    return PagsError(
        f"prepared arrays in {place}",
        got=got,
        suggestion="removing the folder and running pags data prepare again",
    )


def mapped(path: Path) -> Tensor:
    """An npy file as a tensor whose values are read when they are used.

    The map is private: writing into the tensor would change neither the file nor what others read. As nothing
    is meant to be written, no memory is set aside for it, so a file may be larger than the memory.
    """
    with path.open("rb") as file:
        try:
            np.lib.format.read_magic(file)
            shape, fortran, kind = np.lib.format.read_array_header_1_0(file)
            if fortran or kind.hasobject:
                raise ValueError(f"{path.name} holds {kind} in Fortran order")
            # Python names the flag only from 3.13 on.
            unreserved = 0x4000 if sys.platform == "linux" else 0
            memory = (
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
                if sys.platform == "win32"
                else mmap.mmap(
                    file.fileno(),
                    0,
                    flags=mmap.MAP_PRIVATE | unreserved,
                    prot=mmap.PROT_READ | mmap.PROT_WRITE,
                )
            )
            values = np.frombuffer(memory, kind, count=int(np.prod(shape)), offset=file.tell())
        except ValueError as error:
            raise _broken(path.parent, f"{path.name} ({error})") from error
    return torch.from_numpy(values.reshape(shape))
