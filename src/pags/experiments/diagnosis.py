"""Why a classifier is at chance: other normalisations, and other orders of the classes, tried around it."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from pags.classifiers.modes import correct
from pags.classifiers.spec import NORMALISATIONS
from pags.data.imageset import ImageSet
from pags.errors import PagsError
from pags.measure.intervals import wilson_interval
from pags.records import Record
from pags.store import expanded

MOST = 512
"""Images that are tried at most."""
LEVEL = 0.05
"""Probability at which a guess may look better than chance in any of the trials, together."""
Load = Callable[[str], nn.Module]


def diagnosis(
    spec: str, load: Load, test: ImageSet, statistics: tuple[Sequence[float], ...]
) -> Record | None:
    """What is wrong with a classifier that does no better than guessing; None where it does.

    Args:
        spec: of the classifier, with its options.
        load: gives the classifier of a spec.
        test: the images of the audit.
        statistics: mean and standard deviation of the training images' channels.

    Returns:
        "accuracy"; "tried", the accuracy of every trial by the spec and the order of the classes that give
        it; "better", the best of these where it is no guess, with its "accuracy", "model" and "order" (both
        None where they are as given).
    """
    some = test.take(slice(0, MOST))
    chance = max(1 / len(some.classes), float(some.labels.bincount().max()) / len(some))
    labels = {None: some.labels} | orders(some)
    found: dict[tuple[str, str | None], float] = {}
    for each in (spec, *_others(spec, some.shape[0], statistics)):
        try:
            model = load(each).to(some.labels.device)
            found |= {(each, n): float(correct(model, some.images, y).mean()) for n, y in labels.items()}
        except PagsError:  # such as a file that holds another normalisation
            continue
        if wilson_interval(found[spec, None], len(some)).low > chance:
            return None
    (model_spec, order), accuracy = max(found.items(), key=lambda item: item[1])
    certain = wilson_interval(accuracy, len(some), 1 - LEVEL / len(found)).low > chance
    better = {"accuracy": accuracy, "model": None if model_spec == spec else model_spec, "order": order}
    tried = {
        f"{each}{f', classes by {order}' if order else ''}": share for (each, order), share in found.items()
    }
    return {"accuracy": found[spec, None], "tried": tried, "better": better if certain else None}


def orders(data: ImageSet) -> dict[str | None, torch.Tensor]:
    """The labels of a classifier that has the classes in another order than the data: as text, as numbers."""
    names = list(data.classes)
    known = {"text": sorted(names)}
    if all(name.isdecimal() for name in names):
        known["number"] = sorted(names, key=int)
    return {
        order: torch.tensor([there.index(name) for name in names])[data.labels.cpu()].to(data.labels)
        for order, there in known.items()
        if there != names
    }


def _others(spec: str, channels: int, statistics: tuple[Sequence[float], ...]) -> Iterator[str]:
    """The spec with each of the usual normalisations in place of its own."""
    body, _, query = (spec, "", "") if expanded(spec).is_file() else spec.partition("?")
    own = [
        part for part in query.split("&") if part.partition("=")[0] not in {"", "mean", "std", "normalise"}
    ]
    mean, std = (",".join(f"{value:.4g}" for value in values) for values in statistics)
    fitting = [name for name, (means, _) in NORMALISATIONS.items() if len(means) in (1, channels)]
    usual = [f"normalise={name}" for name in fitting]
    for option in (*usual, f"mean={mean}&std={std}", "mean=0.5&std=0.5", "mean=0&std=0.003922"):
        yield f"{body}?{'&'.join([*own, option])}"
