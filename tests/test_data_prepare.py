"""ImageNet-64's arrays: pixels against Pillow's own steps, resuming, damaged files, unread maps."""

import json
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pags.data.prepare as module
from pags.data.folders import decode
from pags.data.prepare import prepare_imagenet64
from pags.data.prepared import mapped
from pags.data.sources import load_data
from pags.errors import PagsError, UsageError

SHARED = Path(__file__).parents[2] / "shared" / "data" / "imagenet-sample"


def photographs(root: Path, parts: tuple[str, ...] = ("train", "val"), count: int = 4) -> Path:
    """Smooth colourful images of several shapes, as a resize is not much to look at on noise."""
    draws = np.random.default_rng(0)
    for part in parts:
        for name in ("n01", "n02"):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                height, width = draws.integers(70, 300, 2)
                waves = draws.uniform(0.01, 0.1, (3, 2))
                rows, columns = np.arange(height)[:, None, None], np.arange(width)[None, :, None]
                pixels = 127.5 + 127 * np.sin(rows * waves[:, 0] + columns * waves[:, 1])
                picture = Image.fromarray(pixels.astype(np.uint8))
                picture.convert("L" if number == 1 else "RGB").save(root / part / name / f"{number}.JPEG")
    return root


def by_hand(path: Path, style: str) -> np.ndarray[Any, Any]:
    image = Image.open(path).convert("RGB")
    if style == "edm":
        side = min(image.size)
        left, top = round((image.width - side) / 2), round((image.height - side) / 2)
        return np.asarray(
            image.crop((left, top, left + side, top + side)).resize((64, 64), Image.Resampling.LANCZOS)
        )
    size = [256 if side == min(image.size) else int(side * 256 / min(image.size)) for side in image.size]
    image = image.resize((size[0], size[1]), Image.Resampling.BILINEAR)
    left, top = round((image.width - 224) / 2), round((image.height - 224) / 2)
    return np.asarray(
        image.crop((left, top, left + 224, top + 224)).resize((64, 64), Image.Resampling.BILINEAR)
    )


@pytest.mark.parametrize("style", ["pags", "edm"])
def test_every_image_is_there_as_pillow_makes_it(style: str, tmp_path: Path) -> None:
    source, out = photographs(tmp_path / "source"), tmp_path / "out"
    about = json.loads(prepare_imagenet64(source, out, style=style).read_text())
    data = load_data("imagenet64", folder=out)
    assert data.train.classes == ("n01", "n02")
    assert about["style"] == style
    for part, images in (("train", data.train), ("val", data.test)):
        names = (out / f"{part}-files.txt").read_text().splitlines()
        assert sorted(names) == sorted(str(p.relative_to(source / part)) for p in source.glob(f"{part}/*/*"))
        for name, pixels, label in zip(names, images.pixels, images.labels, strict=True):
            assert images.classes[int(label)] == name.split("/")[0]
            assert np.array_equal(pixels.permute(1, 2, 0).numpy(), by_hand(source / part / name, style))
    assert not [path for path in out.iterdir() if path.name.startswith(".") or "unfinished" in path.name]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", range(7))
def test_a_killed_run_is_continued_and_nothing_done_twice(
    moment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = photographs(tmp_path / "source")
    (source / "train" / "n01" / "2.JPEG").write_bytes(b"no image")
    monkeypatch.setattr(module, "EVERY", 3)
    prepare_imagenet64(source, tmp_path / "whole")
    seen: list[str] = []
    calls = 0

    def kill(what: str, share: float) -> None:
        nonlocal calls
        calls += 1
        if calls == moment + 1:
            raise Killed

    with pytest.raises(Killed):
        prepare_imagenet64(source, tmp_path / "killed", on_progress=kill)
    with pytest.raises(PagsError, match=r"imagenet64\.json"):
        load_data("imagenet64", folder=tmp_path / "killed")
    for torn in (tmp_path / "killed").glob("*.unfinished"):  # rows after the last safe point
        torn.write_bytes(torn.read_bytes() + b"torn")

    def counted(content: bytes, name: object) -> Image.Image:
        seen.append(str(name))
        return decode(content, name)

    monkeypatch.setattr(module, "decode", counted)
    prepare_imagenet64(source, tmp_path / "killed")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert len(seen) == 16 - SAFE[moment]


SAFE = (3, 6, 8, 8, 11, 14, 16)
"""Images that are safe at each time the work tells how far it is; the fourth time is a hash."""


def test_a_finished_folder_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = photographs(tmp_path / "source", ("val",))
    path = prepare_imagenet64(source, tmp_path / "out")
    before = path.stat().st_mtime_ns
    monkeypatch.setattr(module, "decode", lambda *_: pytest.fail("an image was decoded again"))
    assert prepare_imagenet64(source, tmp_path / "out").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match="another folder"):
        prepare_imagenet64(source, tmp_path / "out", style="edm")


def test_damaged_images_are_left_out_counted_and_named(tmp_path: Path) -> None:
    source = photographs(tmp_path / "source", ("val",))
    whole = (source / "val" / "n02" / "0.JPEG").read_bytes()
    (source / "val" / "n02" / "0.JPEG").write_bytes(whole[: len(whole) // 2])
    (source / "val" / "n01" / "3.JPEG").write_bytes(b"")
    about = json.loads(prepare_imagenet64(source, tmp_path / "out").read_text())
    assert about["parts"]["val"]["images"] == 6
    assert {each["file"] for each in about["parts"]["val"]["skipped"]} == {"n02/0.JPEG", "n01/3.JPEG"}
    assert all(each["reason"] for each in about["parts"]["val"]["skipped"])
    assert len((tmp_path / "out" / "val-files.txt").read_text().splitlines()) == 6


def test_nothing_but_damaged_images_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "val" / "n01").mkdir(parents=True)
    (tmp_path / "val" / "n01" / "a.JPEG").write_bytes(b"no image")
    with pytest.raises(PagsError, match="none of 1"):
        prepare_imagenet64(tmp_path, tmp_path / "out")


def test_requests_that_make_no_sense_say_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="train/WNID"):
        prepare_imagenet64(tmp_path, tmp_path / "out")
    with pytest.raises(UsageError, match="a style among pags, edm"):
        prepare_imagenet64(photographs(tmp_path / "source"), tmp_path / "out", style="paper")
    (tmp_path / "source" / "val" / "n03").mkdir()
    with pytest.raises(UsageError, match="class folders among n01, n02; got n03"):
        prepare_imagenet64(tmp_path / "source", tmp_path / "out")


def test_one_part_alone_is_cut_in_two(tmp_path: Path) -> None:
    prepare_imagenet64(photographs(tmp_path / "source", ("val",)), tmp_path / "imagenet64")
    data = load_data("imagenet64?train=0.25&seed=3", folder=tmp_path)
    assert (len(data.train), len(data.test)) == (2, 6)
    assert data.train.provenance["split"] == {"train": 0.25, "seed": 3}
    assert "val" in data.train.provenance["sha256"]


def test_arrays_of_another_length_are_noticed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare_imagenet64(photographs(tmp_path / "source"), out)
    images = out / "train-images.npy"
    images.write_bytes(images.read_bytes()[:-1])
    with pytest.raises(PagsError, match=r"prepared arrays in .*train-images\.npy"):
        load_data("imagenet64", folder=out)
    (out / "imagenet64.json").write_text("{}")
    with pytest.raises(PagsError, match="prepared arrays"):
        load_data("imagenet64", folder=out)


def test_maps_are_read_only_where_they_are_used(tmp_path: Path) -> None:
    """Eight GiB that are nearly all hole: reading them would show in the memory of this process."""
    path, count = tmp_path / "large.npy", 8 * 2**30 // (3 * 64 * 64)
    with path.open("wb") as file:
        about = {"descr": "|u1", "fortran_order": False, "shape": (count, 3, 64, 64)}
        np.lib.format.write_array_header_1_0(file, about)
        start = file.tell()
        file.truncate(start + count * 3 * 64 * 64)
        file.seek(start + (count - 1) * 3 * 64 * 64)
        file.write(b"\7" * 5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    images = mapped(path)
    assert images.shape == (count, 3, 64, 64)
    assert images[-1, 0, 0, :6].tolist() == [7, 7, 7, 7, 7, 0]
    images[0, 0, 0, 0] = 9  # private: neither an error nor a change of the file
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB
    assert int(mapped(path)[0, 0, 0, 0]) == 0


def test_only_plain_npy_files_are_mapped(tmp_path: Path) -> None:
    np.save(tmp_path / "fortran.npy", np.asfortranarray(np.zeros((3, 4))))
    (tmp_path / "empty.npy").write_bytes(b"")
    for name in ("fortran.npy", "empty.npy"):
        with pytest.raises(PagsError, match=name):
            mapped(tmp_path / name)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no images of ImageNet here")
def test_photographs_of_imagenet(tmp_path: Path) -> None:
    few = tmp_path / "val"
    few.mkdir()
    for folder in sorted((SHARED / "val").iterdir())[:20]:
        (few / folder.name).symlink_to(folder)
    prepare_imagenet64(tmp_path, tmp_path / "out")
    data = load_data("imagenet64", folder=tmp_path / "out")
    assert (len(data.train) + len(data.test), data.train.shape) == (20, (3, 64, 64))
    mean, std = data.train.statistics()
    assert torch.tensor(mean).sub(torch.tensor([0.48, 0.46, 0.41])).abs().max() < 0.12
    assert torch.tensor(std).sub(0.26).abs().max() < 0.08
