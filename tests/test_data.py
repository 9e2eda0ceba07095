"""Sets of images: what they keep, samples, splits, statistics; and how a spec is read."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

import pags.data.imageset as module
from conftest import seeded
from pags.data.imageset import ImageSet, split
from pags.data.patterns import TEXTURES
from pags.data.sheet import contact_sheet
from pags.data.sources import SOURCES, load_data
from pags.errors import UsageError
from pags.store import fingerprint

pytestmark = pytest.mark.usefixtures("global_state_untouched")


def bytes_set(labels: Tensor, classes: int = 3, channels: int = 2) -> ImageSet:
    pixels = torch.randint(256, (len(labels), channels, 5, 4), generator=seeded(1), dtype=torch.uint8)
    masks = torch.rand(len(labels), 5, 4, generator=seeded(2)) < 0.5
    names = tuple(f"class {i}" for i in range(classes))
    return ImageSet(pixels, labels, names, "made", {"source": "made"}, masks)


@pytest.mark.parametrize("chunk", [1, 97, 2**24])
def test_statistics_of_bytes_are_those_of_all_pixels_at_once(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytes_set(torch.arange(50) % 3)
    monkeypatch.setattr(module, "CHUNK", chunk)
    mean, std = data.statistics()
    everything = data.pixels.double() / 255
    assert mean == pytest.approx(everything.mean((0, 2, 3)).tolist(), rel=1e-13)
    assert std == pytest.approx(everything.std((0, 2, 3)).tolist(), rel=1e-12)


def test_constant_channels_do_not_make_a_normalisation_divide_by_zero() -> None:
    pixels = torch.full((4, 1, 2, 2), 7, dtype=torch.uint8)
    assert ImageSet(pixels, torch.zeros(4).long(), ("a",), "flat").statistics() == ((7 / 255,), (1e-3,))


def test_digits_keep_their_numbers_and_their_name_in_records() -> None:
    data = load_data("digits")
    images = data.train.pixels.double()
    assert data.train.statistics() == (
        tuple(images.mean((0, 2, 3)).tolist()),
        tuple(images.std((0, 2, 3)).tolist()),
    )
    assert data.train.provenance == {"source": "digits", "train": 1500, "split_seed": 0}
    assert (len(data.train), len(data.test), data.train.shape) == (1500, 297, (1, 8, 8))


def test_masks_follow_their_images() -> None:
    data = bytes_set(torch.arange(6) % 3)
    assert data.masks is not None
    part = data.take(torch.tensor([4, 1]))
    assert part.masks is not None
    assert torch.equal(part.masks, data.masks[[4, 1]])
    assert part.to("cpu").masks is not None


def test_masks_of_another_size_are_refused() -> None:
    pixels = torch.zeros(2, 1, 3, 3, dtype=torch.uint8)
    with pytest.raises(UsageError, match=r"masks as \(2, 3, 3\)"):
        ImageSet(pixels, torch.zeros(2).long(), ("a",), "x", {}, torch.zeros(2, 3, 4, dtype=torch.bool))


def test_bytes_without_a_channel_axis_are_refused() -> None:
    with pytest.raises(UsageError, match=r"\(N, C, H, W\)"):
        ImageSet(torch.zeros(2, 3, 3, dtype=torch.uint8), torch.zeros(2).long(), ("a",), "x")


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.data(), st.integers(0, 5))
def test_samples_are_balanced_seeded_and_nested(labels: list[int], draw: st.DataObject, seed: int) -> None:
    data = bytes_set(torch.tensor(labels), 4)
    n = draw.draw(st.integers(0, len(labels)))
    sample = data.sample(n, seed)
    taken, sizes = sample.labels.bincount(minlength=4), data.labels.bincount(minlength=4)
    # A class is behind the largest by more than one only where it has no image left.
    assert all(
        count >= int(taken.max()) - 1 or count == size for count, size in zip(taken, sizes, strict=True)
    )
    assert torch.equal(sample.pixels, data.sample(n, seed).pixels)
    assert torch.equal(sample.pixels, data.sample(len(data), seed).pixels[:n])
    assert sample.provenance["sample"] == {"images": n, "seed": seed}


def test_a_sample_of_everything_is_a_permutation_and_seeds_differ() -> None:
    data = ImageSet(
        torch.arange(40, dtype=torch.uint8).reshape(40, 1, 1, 1), torch.arange(40) % 3, ("a", "b", "c"), "x"
    )
    first, second = data.sample(40, 0).pixels.flatten(), data.sample(40, 1).pixels.flatten()
    assert sorted(first.tolist()) == list(range(40))
    assert not torch.equal(first, second)
    with pytest.raises(UsageError, match="a sample of 0 to 40 images"):
        data.sample(41)


@pytest.mark.parametrize(("share", "expected"), [(0.8, (8, 2)), (0.001, (1, 9)), (0.999, (9, 1))])
def test_a_split_uses_each_image_once(share: float, expected: tuple[int, int]) -> None:
    whole = ImageSet(
        torch.arange(10, dtype=torch.uint8).reshape(10, 1, 1, 1), torch.zeros(10).long(), ("a",), "x"
    )
    cut = split(whole, share, 3)
    assert (len(cut.train), len(cut.test)) == expected
    assert sorted([*cut.train.pixels.flatten().tolist(), *cut.test.pixels.flatten().tolist()]) == list(
        range(10)
    )
    assert cut.train.provenance == {"split": {"train": share, "seed": 3}}
    with pytest.raises(UsageError, match="share of training images"):
        split(whole, 1.0, 0)
    with pytest.raises(UsageError, match="two images or more"):
        split(whole.take(slice(0, 1)), 0.5, 0)


BAD_SPECS = {
    "an unknown name": ("digitz", "a data set among digits"),
    "an unknown option": ("digits?colour=red", "'colour'"),
    "an option twice": ("digits-distractor?seed=1&seed=2", "each once"),
    "a word for a number": ("digits-distractor?seed=one", "seed as int"),
    "no value": ("digits-distractor?seed", "OPTION=VALUE"),
    "no path": ("folder:", "folder:PATH"),
    "a path too many": ("digits:here", "without a path"),
    "a folder that is not there": ("folder:/no/such/folder", "subfolder of images"),
    "nothing": ("", "a data set among"),
}


@pytest.mark.parametrize("what", BAD_SPECS)
def test_specs_that_make_no_sense_say_so(what: str) -> None:
    spec, says = BAD_SPECS[what]
    with pytest.raises(UsageError, match=says) as caught:
        load_data(spec)
    assert "\n" not in str(caught.value)


def test_the_folder_of_data_sets_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PAGS_DATA", str(tmp_path / "named"))
    with pytest.raises(Exception, match=str(tmp_path / "named")):
        load_data("mnist", download=False)


@pytest.mark.parametrize("name", ["fashion-mnist", "fashion_mnist"])
def test_names_are_taken_with_either_stroke(name: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"train-images-idx3-ubyte\.gz \(md5 8d4fb7"):
        load_data(name, folder=tmp_path, download=False)


def test_provenance_is_plain_and_tells_options_apart() -> None:
    specs = ["digits", "digits-distractor", "digits-distractor?seed=1", "digits-distractor?letter=B"]
    specs += [f"digits-distractor?texture={name}" for name in TEXTURES]
    sets = [load_data(spec) for spec in specs]
    assert len({fingerprint(data.train.provenance) for data in sets}) == len(specs)
    assert set(SOURCES) >= {"digits", "mnist", "cifar10", "imagenet64", "folder", "npz", "mnist-distractor"}


def test_a_sheet_shows_its_images() -> None:
    data = load_data("digits").train.take(slice(0, 5))
    sheet = np.asarray(Image.open(io.BytesIO(contact_sheet(data, columns=4, rows=2))))
    factor = 64 // 10
    assert sheet.shape == (2 * 10 * factor, 4 * 10 * factor, 3)
    shown = {
        sheet[r * 60 : r * 60 + 60, c * 60 : c * 60 + 60][9::6, 9::6, 0][:8, :8].tobytes() for r, c in CELLS
    }
    assert shown == {image.tobytes() for image in (data.images[:, 0] * 255).round().byte().numpy()}


CELLS = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]
