"""Digits with a distractor: exact masks, independent places, and a slider with known frequencies."""

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from conftest import seeded
from pags.data.distractor import distractor_set
from pags.data.imageset import DataSet, ImageSet
from pags.data.patterns import LETTERS, TEXTURES, letter, variants
from pags.data.sources import load_data
from pags.errors import UsageError

pytestmark = pytest.mark.usefixtures("global_state_untouched")


def fake_digits(n: int = 2000, classes: int = 10, channels: int = 1) -> DataSet:
    """Bytes that are nowhere zero, so that every pixel tells which half it came from."""
    pixels = torch.randint(1, 255, (n, channels, 28, 28), generator=seeded(n), dtype=torch.uint8)
    labels = torch.randint(classes, (n,), generator=seeded(n + 1))
    whole = ImageSet(pixels, labels, tuple(str(i) for i in range(classes)), "fake", {"source": "fake"})
    return DataSet(whole, whole.take(slice(0, n // 4)))


def halves(part: ImageSet) -> tuple[Tensor, Tensor]:
    """What the mask marks and what it leaves, as images of one half each."""
    assert part.masks is not None
    n, channels = part.pixels.shape[:2]
    masks = part.masks[:, None].expand_as(part.pixels)
    return part.pixels[masks].reshape(n, channels, -1), part.pixels[~masks].reshape(n, channels, -1)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_mask_holds_the_digit_and_nothing_else(channels: int) -> None:
    digits = fake_digits(400, channels=channels)
    made = distractor_set(digits).train
    assert made.shape == (channels, 56, 28)
    signal, rest = halves(made)
    assert torch.equal(signal, digits.train.pixels.flatten(2))
    assert torch.equal(rest, letter("A", 28).flatten().expand_as(rest))
    assert torch.equal(made.labels, digits.train.labels)


def test_masks_are_one_whole_half_and_either_half_is_as_likely() -> None:
    masks = distractor_set(fake_digits(2000)).train.masks
    assert masks is not None
    top = masks[:, :28].flatten(1).all(1)
    assert torch.equal(masks[:, 28:], ~masks[:, :28])
    assert torch.equal(masks[:, :28].flatten(1).any(1), top)
    assert abs(int(top.sum()) - 1000) < 5 * math.sqrt(2000 / 4)


def test_places_are_drawn_for_each_image_whatever_comes_after_it() -> None:
    long, short = fake_digits(400), fake_digits(400)
    short = DataSet(short.train.take(slice(0, 37)), short.test)
    whole, part = distractor_set(long).train, distractor_set(short).train
    assert torch.equal(whole.pixels[:37], part.pixels)
    again, other = distractor_set(long).train, distractor_set(long, seed=1).train
    assert torch.equal(again.pixels, whole.pixels)
    assert not torch.equal(other.pixels, whole.pixels)
    assert again.provenance == whole.provenance != other.provenance


def test_places_do_not_depend_on_the_label() -> None:
    made = distractor_set(fake_digits(4000)).train
    assert made.masks is not None
    top = made.masks[:, 0, 0].double()
    shares = torch.stack([top[made.labels == label].mean() for label in range(10)])
    assert (shares - 0.5).abs().max() < 5 * math.sqrt(0.25 / 350)


def forms_of(made: ImageSet, name: str) -> Tensor:
    """Which form each image carries, found by looking."""
    _, rest = halves(made)
    known = variants(name, 28).flatten(1)
    equal = (rest[:, 0, None] == known[None]).all(2)
    assert torch.equal(equal.sum(1), torch.ones(len(made)).long())
    return equal.long().argmax(1)


@pytest.mark.parametrize("informative", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("name", "count"), [("checks", 10), ("AX", 2)])
def test_the_slider_ties_as_often_as_it_says(informative: float, name: str, count: int) -> None:
    made = distractor_set(fake_digits(4000), distractor=name, informative=informative).train
    agrees = (forms_of(made, name) == made.labels % count).double().mean()
    expected = informative + (1 - informative) / count
    assert abs(float(agrees) - expected) <= 5 * math.sqrt(expected * (1 - expected) / 4000)


def test_at_zero_the_forms_tell_nothing_of_the_label_and_at_one_everything() -> None:
    digits = fake_digits(4000)
    null = distractor_set(digits, distractor="stripes", informative=0.0).train
    table = torch.zeros(10, 10).double()
    for label, form in zip(null.labels, forms_of(null, "stripes"), strict=True):
        table[label, form] += 1
    expected = table.sum(1, keepdim=True) * table.sum(0, keepdim=True) / table.sum()
    # Chi-squared with 81 degrees of freedom: mean 81, deviation √162.
    assert float(((table - expected) ** 2 / expected).sum()) < 81 + 5 * math.sqrt(162)
    tied = distractor_set(digits, distractor="stripes", informative=1.0).train
    assert torch.equal(forms_of(tied, "stripes"), tied.labels)


@pytest.mark.parametrize("size", [8, 28, 32])
@pytest.mark.parametrize("name", [*TEXTURES, "".join(LETTERS)])
def test_forms_differ_from_each_other(name: str, size: int) -> None:
    forms = variants(name, size)
    assert forms.shape[1:] == (size, size)
    assert len(torch.unique(forms.flatten(1), dim=0)) == len(forms)


@pytest.mark.parametrize("name", LETTERS)
def test_letters_are_what_pillow_draws_from_the_same_strokes(name: str) -> None:
    scale = 32  # a large drawing, averaged over each pixel's area
    picture = Image.new("L", (28 * scale, 28 * scale))
    draw, width = ImageDraw.Draw(picture), math.sqrt(2) * scale
    for stroke in LETTERS[name]:
        points = [(x * scale, y * scale) for x, y in stroke]
        draw.line(points, fill=255, width=round(2 * width))
        for x, y in points:
            draw.ellipse((x - width, y - width, x + width, y + width), fill=255)
    average = np.asarray(picture).reshape(28, scale, 28, scale).mean((1, 3))
    difference = np.abs(average - letter(name, 28).numpy())
    assert difference.max() < 32  # Pillow's lines are as wide as whole pixels allow
    assert difference.mean() < 2


def test_small_letters_are_area_averages_of_large_ones() -> None:
    large = letter("A", 224).double().reshape(8, 28, 8, 28).mean((1, 3))
    assert (letter("A", 8).double() - large).abs().max() < 4


def test_patterns_are_these_on_every_machine() -> None:
    everything = [variants(name, size) for name in ("".join(LETTERS), *TEXTURES) for size in (8, 28)]
    digest = hashlib.sha256(b"".join(forms.numpy().tobytes() for forms in everything)).hexdigest()
    assert digest == "2ab944b71015a3a61cf720c1444688a0c6a2492d2f29acca4c2e01458fa98d98"


def test_digits_get_small_letters_and_stay_floats() -> None:
    data = load_data("digits-distractor")
    assert data.train.shape == (1, 16, 8)
    assert data.train.pixels.is_floating_point()
    signal, rest = halves(data.train)
    assert torch.equal(signal, load_data("digits").train.pixels.flatten(2))
    assert torch.equal(rest[0, 0], letter("A", 8).flatten() / 255)
    assert data.name == "digits + A"


BAD = {
    "a letter that is not drawn": ({"distractor": "Q"}, "different letters among"),
    "a letter twice": ({"distractor": "AA"}, "different letters among"),
    "nothing": ({"distractor": ""}, "different letters among"),
    "more than always": ({"distractor": "AX", "informative": 1.5}, "informative from 0 to 1"),
    "no number": ({"distractor": "AX", "informative": math.nan}, "informative from 0 to 1"),
    "one form that is to tell": ({"informative": 0.5}, "several forms"),
}


@pytest.mark.parametrize("what", BAD)
def test_distractors_that_make_no_sense_say_so(what: str) -> None:
    options, says = BAD[what]
    with pytest.raises(UsageError, match=says):
        distractor_set(fake_digits(8), **options)  # type: ignore[arg-type]


def test_a_letter_and_a_texture_at_once_are_refused() -> None:
    with pytest.raises(UsageError, match="a letter or a texture"):
        load_data("digits-distractor?letter=A&texture=checks")


SHARED = Path(__file__).parents[2] / "shared" / "data" / "mnist"


@pytest.mark.skipif(not SHARED.is_dir(), reason="MNIST is not here")
def test_the_papers_data_set() -> None:
    data = load_data("mnist-distractor?letter=A&informative=0", folder=SHARED, download=False)
    assert (len(data.train), len(data.test), data.train.shape) == (60000, 10000, (1, 56, 28))
    assert data.test.masks is not None
    lit = (data.test.pixels[:, 0] > 0).double()
    # A digit lights about a fifth of its half; the letter's half is the letter on every image.
    _, rest = halves(data.test)
    assert torch.equal(rest[:, 0].float().std(0), torch.zeros(784))
    assert float(lit[data.test.masks].mean()) == pytest.approx(0.19, abs=0.02)
