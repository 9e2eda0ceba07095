"""Where images come from, by name."""

from collections.abc import Callable

import torch

from pags.data.imageset import DataSet, ImageSet
from pags.errors import UsageError
from pags.seeds import generator


def load(name: str) -> DataSet:
    """The data set called `name`.

    Args:
        name: one of `SOURCES`.

    Raises:
        UsageError: no source has this name.
    """
    if name not in SOURCES:
        raise UsageError(f"a data set among {', '.join(SOURCES)}", got=repr(name), suggestion="--data digits")
    return SOURCES[name]()


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


SOURCES: dict[str, Callable[[], DataSet]] = {"digits": digits}
