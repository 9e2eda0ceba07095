"""Where images come from, by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import torch
from torch.utils.data import DataLoader, Dataset

from pags.data.distractor import distractor_set
from pags.data.download import default_folder
from pags.data.folders import open_folder
from pags.data.imageset import DataSet, ImageSet, split
from pags.data.npz import open_npz
from pags.data.prepared import ABOUT, open_prepared
from pags.data.torchvision_sources import found, open_torchvision, remotes
from pags.errors import PagsError, UsageError
from pags.plugins import Plugin, failed, is_plugin, load_plugin
from pags.seeds import generator
from pags.store import expanded


@dataclass(frozen=True)
class Place:
    """Where a source may look: the folder of data sets, a path of its own, and the network or not."""

    folder: Path
    path: Path | None
    download: bool


@dataclass(frozen=True)
class Source:
    """One way to get images.

    Args:
        about: what it is, for a person.
        open: makes the data set from a `Place` and the options as keywords.
        options: the options that a spec may give, with their types.
        here: whether it can be opened from a folder without the network.
        takes_path: whether a path follows the name, as in folder:PATH.
    """

    about: str
    open: Callable[..., DataSet]
    options: Mapping[str, type] = field(default_factory=dict)
    here: Callable[[Path], bool] = lambda folder: True
    takes_path: bool = False


def load_data(spec: str, *, folder: Path | None = None, download: bool = True) -> DataSet:
    """The data set that `spec` names.

    Args:
        spec: NAME, NAME?OPTION=VALUE&OPTION=VALUE, or folder:PATH and npz:PATH with or without options; the
            names are those of `SOURCES`. Examples: `digits`, `mnist`, `folder:birds?size=32&train=0.8`,
            `npz:arrays.npz`, `mnist-distractor?letter=AX&informative=0.5`. Or `file.py:name` or
            `package.module:name`, **which runs that code**: what `data_set_of` takes, or a function without
            arguments that returns it.
        folder: where data sets are kept; otherwise the folder that the environment variable PAGS_DATA names,
            or ~/.cache/pags/data.
        download: whether what is missing may be fetched from the network.

    Raises:
        UsageError: no source has this name, or it has no such option.
        PagsError: files are missing, damaged or out of reach; code fails.
    """
    body, _, query = spec.partition("?")
    if body.partition(":")[0].replace("_", "-") not in SOURCES and is_plugin(body):
        return _of_user(load_plugin(body), _options(_SPLIT, body, query))
    name, path, options = _parsed(spec)
    source = SOURCES[name]
    return source.open(Place(folder or default_folder(), path, download), **options)


def data_set_of(given: Any, *, name: str = "images", train: float = 0.8, seed: int = 0) -> DataSet:
    """Training and test images from whatever a user has.

    Args:
        given: a `DataSet`; an `ImageSet`, a torch `Dataset` or `DataLoader`, or a pair of images and labels
            as `ImageSet.of` takes them, which is cut in two; or two such, for training and for testing.
        name: what the set is called.
        train, seed: share of the training images of one set, and the seed of the cut.

    Raises:
        UsageError: something else, or images and labels that `ImageSet.of` refuses.
    """
    if isinstance(given, DataSet):
        return given
    if isinstance(given, tuple) and len(given) == 2 and all(map(_is_a_set, given)):
        parts = [_one_set(part, name) for part in given]
        classes = max((part.classes for part in parts), key=len)
        return DataSet(*(replace(part, classes=classes) for part in parts))
    return split(_one_set(given, name), train, seed)


def _is_a_set(given: Any) -> bool:
    """Whether it has images and labels, rather than being one of these itself."""
    return isinstance(given, ImageSet | Dataset | DataLoader) or (
        isinstance(given, tuple) and len(given) == 2
    )


def _one_set(given: Any, name: str) -> ImageSet:
    if isinstance(given, ImageSet):
        return given
    return ImageSet.of(*given, name=name) if isinstance(given, tuple) else ImageSet.of(given, name=name)


def _of_user(plugin: Plugin, options: Mapping[str, Any]) -> DataSet:
    """The data set of a user's code, known by its pixels and not by its name alone."""
    value = plugin.value
    try:
        made = value() if callable(value) and not isinstance(value, Dataset) else value
        found = data_set_of(made, name=plugin.name, **options)
    except PagsError:
        raise
    except Exception as error:
        raise failed(f"{plugin.name} to give images", plugin.name, error) from error
    parts = [
        replace(
            part,
            provenance=part.provenance
            | {"source": plugin.name, "code": plugin.source, "sha256": part.identity},
        )
        for part in (found.train, found.test)
    ]
    return DataSet(*parts)


def _parsed(spec: str) -> tuple[str, Path | None, dict[str, Any]]:
    """Name, path and options of a spec."""
    body, mark, query = spec.rpartition("?")
    body, query = (body, query) if mark else (spec, "")
    name, colon, path = body.partition(":")
    name = name.replace("_", "-")
    if name not in SOURCES:
        names = f"{', '.join(SOURCES)}, or file.py:name"
        raise UsageError(f"a data set among {names}", got=repr(spec), suggestion="--data digits")
    source = SOURCES[name]
    if source.takes_path != bool(path):
        raise UsageError(
            f"{name}:PATH" if source.takes_path else f"{name} without a path",
            got=repr(spec),
            suggestion=f"{name}:some/path"
            if source.takes_path
            else "the folder of data sets in the variable PAGS_DATA",
        )
    return name, expanded(path) if colon else None, _options(source.options, name, query)


def _options(kinds: Mapping[str, type], name: str, query: str) -> dict[str, Any]:
    """The options of a spec, each of its type."""
    options: dict[str, Any] = {}
    known = ", ".join(kinds) or "none"
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError as error:
        raise UsageError(
            "options as OPTION=VALUE&OPTION=VALUE", got=repr(query), suggestion=f"options of {name}: {known}"
        ) from error
    for key, value in pairs:
        if key not in kinds or key in options:
            raise UsageError(
                f"options of {name} among {known}, each once", got=repr(key), suggestion=f"{name} without it"
            )
        kind = kinds[key]
        try:
            options[key] = kind(value)
        except ValueError as error:
            raise UsageError(
                f"{key} as {kind.__name__}", got=repr(value), suggestion=f"a number after {key}="
            ) from error
    return options


def digits(train: int = 1500, seed: int = 0) -> DataSet:
    """Handwritten digits, 1,797 grey 8×8 images that come with scikit-learn (UCI ML repository, Alpaydin and
    Kaynak 1998), cut by a seeded permutation into `train` training images and the rest for testing."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = torch.from_numpy(bunch.images).float()[:, None] / 16  # 17 grey levels, (N, 1, 8, 8)
    labels = torch.from_numpy(bunch.target).long()
    order = torch.randperm(len(labels), generator=generator(seed, "split", "digits"))
    classes = tuple(str(digit) for digit in range(10))
    provenance = {"source": "digits", "train": train, "split_seed": seed}
    whole = ImageSet(pixels, labels, classes, "digits", provenance)
    return DataSet(whole.take(order[:train]), whole.take(order[train:]))


def _with_distractor(
    name: str,
    place: Place,
    *,
    letter: str | None = None,
    texture: str | None = None,
    informative: float = 0.0,
    seed: int = 0,
) -> DataSet:
    if letter is not None and texture is not None:
        raise UsageError("a letter or a texture", got="both", suggestion="texture=checks alone")
    plain = SOURCES[name].open(place)
    return distractor_set(plain, distractor=texture or letter or "A", informative=informative, seed=seed)


def _torchvision(name: str, about: str) -> Source:
    return Source(
        about,
        lambda place: open_torchvision(name, place.folder, download=place.download),
        here=lambda folder: all(found(file, folder, name) for file in remotes(name)),
    )


def _prepared_here(folder: Path) -> bool:
    return any((path / ABOUT).is_file() for path in (folder, folder / "imagenet64"))


_SPLIT = {"train": float, "seed": int}
_DISTRACTOR = {"letter": str, "texture": str, "informative": float, "seed": int}

SOURCES: dict[str, Source] = {
    "digits": Source("handwritten digits, 1,797 grey 8×8, part of scikit-learn", lambda place: digits()),
    "mnist": _torchvision("mnist", "handwritten digits, 70,000 grey 28×28 (LeCun et al.), 12 MB"),
    "fashion-mnist": _torchvision("fashion-mnist", "clothes, 70,000 grey 28×28 (Xiao et al.), 31 MB"),
    "cifar10": _torchvision("cifar10", "10 classes, 60,000 colour 32×32 (Krizhevsky), 170 MB"),
    "cifar100": _torchvision("cifar100", "100 classes, 60,000 colour 32×32 (Krizhevsky), 169 MB"),
    "svhn": _torchvision("svhn", "house numbers, 99,289 colour 32×32 (Netzer et al.), 246 MB"),
    "imagenet64": Source(
        "ImageNet at 64×64, as `pags data prepare imagenet64` writes it",
        lambda place, **options: open_prepared(place.folder, **options),
        _SPLIT,
        _prepared_here,
    ),
    "folder": Source(
        "folder:PATH, image files, one folder per class",
        lambda place, **options: open_folder(place.path, **options),
        {"size": int, **_SPLIT, "classes": str, "background": str},
        takes_path=True,
    ),
    "npz": Source(
        "npz:PATH, arrays that numpy saved",
        lambda place, **options: open_npz(place.path, **options),
        {"layout": str, "first": int, **_SPLIT},
        takes_path=True,
    ),
    "digits-distractor": Source(
        "digits above or below a letter, 16×8, with exact masks",
        partial(_with_distractor, "digits"),
        _DISTRACTOR,
    ),
    "mnist-distractor": Source(
        "MNIST above or below the letter A, 56×28, with exact masks (section 4.3)",
        partial(_with_distractor, "mnist"),
        _DISTRACTOR,
        lambda folder: SOURCES["mnist"].here(folder),
    ),
}
"""Every source by name."""
