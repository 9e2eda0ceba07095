"""Images whose signal and distractor are known (section 4.3, B.9): a digit above or below something else."""

import torch
from torch import Tensor

from pags.data.imageset import DataSet, ImageSet
from pags.data.patterns import variants
from pags.errors import UsageError
from pags.seeds import generator
from pags.store import Record


def distractor_set(
    digits: DataSet, *, distractor: str = "A", informative: float = 0.0, seed: int = 0
) -> DataSet:
    """Each image on top of or below a distractor, in random order, with the exact mask of the signal.

    The paper's data set is this one of MNIST with its defaults: the letter "A" on every image, 56×28 pixels.
    A distractor with several forms ("AB", "checks") makes a slider between a null distractor and a shortcut:
    each image's form is tied to its label with probability `informative` (form `label` modulo the number of
    forms) and otherwise drawn uniformly. At 0 it is independent of the label; at 1, with as many forms as
    classes, it determines the label, and the mask no longer separates signal from distractor.

    Args:
        digits: any small images, (N, C, H, W); the result is (N, C, 2H, W).
        distractor: letters, each one form, or `checks`, `stripes` or `blobs`, with ten forms each.
        informative: from 0 to 1.
        seed: names the draws of places and forms.

    Raises:
        UsageError: no such distractor, `informative` out of range, or above 0 with a single form.
    """
    _, height, width = digits.train.shape
    forms = variants(distractor, min(height, width))
    if not 0 <= informative <= 1:
        raise UsageError("informative from 0 to 1", got=informative, suggestion="informative=0.5")
    if informative > 0 and len(forms) == 1:
        raise UsageError(
            "a distractor of several forms, for one form tells nothing of the label",
            got=f"{distractor!r} with informative={informative:g}",
            suggestion="two letters (letter=AX), or texture=checks",
        )
    about: Record = {"distractor": distractor, "informative": informative, "seed": seed}
    train = _with_distractor(digits.train, "train", forms, about)
    return DataSet(train, _with_distractor(digits.test, "test", forms, about))


def _with_distractor(part: ImageSet, which: str, forms: Tensor, about: Record) -> ImageSet:
    n, (channels, height, width) = len(part), part.shape
    seed = int(about["seed"])
    below = torch.rand(n, generator=generator(seed, "place", which)) < 0.5  # whether the signal is below
    chosen = _forms(part.labels.cpu(), len(forms), float(about["informative"]), seed, which)
    pixels = part.pixels.new_zeros(n, channels, 2, height, width)  # two halves
    each, half = torch.arange(n), below.long()
    pixels[each, :, half] = part.pixels
    pixels[each, :, 1 - half] = _centred(forms, part)[chosen]
    masks = torch.zeros(n, 2, height, width, dtype=torch.bool)
    masks[each, half] = True
    return ImageSet(
        pixels.reshape(n, channels, 2 * height, width),
        part.labels,
        part.classes,
        f"{part.name} + {about['distractor']}",
        {"source": "distractor", "signal": part.provenance, **about},
        masks.reshape(n, 2 * height, width),
    )


def _forms(labels: Tensor, count: int, informative: float, seed: int, which: str) -> Tensor:
    """The index of each image's form."""
    free = torch.randint(count, (len(labels),), generator=generator(seed, "form", which))
    tied = torch.rand(len(labels), generator=generator(seed, "tied", which)) < informative
    return torch.where(tied, labels % count, free)


def _centred(forms: Tensor, part: ImageSet) -> Tensor:
    """The forms as images of the set's kind and size, (variants, C, H, W)."""
    channels, height, width = part.shape
    size = forms.shape[-1]
    top, left = (height - size) // 2, (width - size) // 2
    whole = part.pixels.new_zeros(len(forms), channels, height, width)
    scaled = forms if part.pixels.dtype == torch.uint8 else forms.to(part.pixels) / 255
    whole[:, :, top : top + size, left : left + size] = scaled[:, None]
    return whole
