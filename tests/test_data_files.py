"""Files of every source, made here, and read as torchvision reads them: idx, CIFAR, SVHN, npz, folders."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision import datasets
from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

from pags.data.folders import images_of
from pags.data.imageset import DataSet, ImageSet
from pags.data.sources import load_data
from pags.data.torchvision_sources import ArraysOnly
from pags.errors import PagsError, UsageError

SHARED = Path(__file__).parents[2] / "shared" / "data"


def noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


# --- idx -------------------------------------------------------------------------------------------------


def idx(array: NDArray[np.uint8]) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


IDX = {
    "train-images-idx3-ubyte": idx(noise(12, 28, 28)),
    "train-labels-idx1-ubyte": idx(np.arange(12, dtype=np.uint8) % 10),
    "t10k-images-idx3-ubyte": idx(noise(5, 28, 28, seed=1)),
    "t10k-labels-idx1-ubyte": idx(np.arange(5, dtype=np.uint8)),
}


def write_idx(place: Path, *, packed: bool, **changed: bytes) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for name, content in IDX.items():
        content = changed.get(name.replace("-", "_"), content)
        (place / f"{name}.gz" if packed else place / name).write_bytes(
            gzip.compress(content) if packed else content
        )


@pytest.mark.parametrize(
    ("name", "kind"), [("mnist", datasets.MNIST), ("fashion-mnist", datasets.FashionMNIST)]
)
def test_idx_files_are_read_as_torchvision_reads_them(
    name: str, kind: type[datasets.MNIST], tmp_path: Path
) -> None:
    write_idx(tmp_path / kind.__name__ / "raw", packed=False)
    ours = load_data(name, folder=tmp_path, download=False)
    for part, train in ((ours.train, True), (ours.test, False)):
        theirs = kind(tmp_path, train=train)
        assert torch.equal(part.pixels[:, 0], theirs.data)
        assert torch.equal(part.labels, theirs.targets)
        assert part.pixels.dtype == torch.uint8
    # They are not the files that everyone knows, and every record will say so.
    assert "not the original" in ours.name
    assert ours.train.provenance["original"] is False


def test_it_does_not_matter_where_and_how_packed_the_files_are(tmp_path: Path) -> None:
    places = {tmp_path / "a" / "MNIST" / "raw": False, tmp_path / "b": True, tmp_path / "c" / "mnist": True}
    for place, packed in places.items():
        write_idx(place, packed=packed)
    sets = [load_data("mnist", folder=tmp_path / letter, download=False).train for letter in "abc"]
    assert all(torch.equal(sets[0].pixels, other.pixels) for other in sets[1:])
    assert sets[0].provenance == sets[1].provenance == sets[2].provenance


def test_files_of_mnist_are_not_taken_for_fashion(tmp_path: Path) -> None:
    write_idx(tmp_path / "digits", packed=True)
    with pytest.raises(PagsError, match="expected train-images-idx3-ubyte"):
        load_data("fashion-mnist", folder=tmp_path / "digits", download=False)


def test_originals_are_known_by_their_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pags.data.torchvision_sources as module

    write_idx(tmp_path, packed=True)
    hashes = {hashlib.md5(content, usedforsecurity=False).hexdigest() for content in IDX.values()}
    monkeypatch.setitem(module.ORIGINALS, "mnist", hashes)
    assert load_data("mnist", folder=tmp_path, download=False).name == "mnist"


BAD_IDX = {
    "cut short": IDX["train-images-idx3-ubyte"][:-1],
    "too long": IDX["train-images-idx3-ubyte"] + b"x",
    "labels for images": IDX["train-labels-idx1-ubyte"],
    "floats": b"\0\0\x0d\x03" + IDX["train-images-idx3-ubyte"][4:],
    "empty": b"",
    "a size that overflows": b"\0\0\x08\x03" + b"\xff" * 12,
}


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("what", BAD_IDX)
def test_damaged_idx_files_are_named(what: str, packed: bool, tmp_path: Path) -> None:
    write_idx(tmp_path, packed=packed, train_images_idx3_ubyte=BAD_IDX[what])
    with pytest.raises(PagsError, match="train-images-idx3-ubyte"):
        load_data("mnist", folder=tmp_path, download=False)


def test_a_broken_gzip_file_is_named(tmp_path: Path) -> None:
    write_idx(tmp_path, packed=True)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(PagsError, match="t10k-images-idx3-ubyte"):
        load_data("mnist", folder=tmp_path, download=False)


@pytest.mark.skipif(not (SHARED / "mnist").is_dir(), reason="MNIST is not here")
def test_all_of_mnist() -> None:
    data = load_data("mnist", folder=SHARED, download=False)
    sizes = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]  # as published
    assert data.train.labels.bincount().tolist() == sizes
    assert data.test.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    mean, std = data.train.statistics()
    assert (*mean, *std) == pytest.approx((0.1307, 0.3081), abs=5e-5)


# --- CIFAR and SVHN --------------------------------------------------------------------------------------


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def make_cifar(folder: Path, kind: type[datasets.CIFAR10], key: str, patch: pytest.MonkeyPatch) -> Path:
    """Batches of four images each in CIFAR's format, their checksums made known to torchvision's class."""
    place = folder / kind.base_folder
    place.mkdir()
    for which in ("train_list", "test_list"):
        known = []
        for number, (name, _) in enumerate(getattr(kind, which)):
            batch = {"data": noise(4, 3072, seed=number), key: [3, 1, 2, number], "filenames": ["a.png"] * 4}
            (place / name).write_bytes(pickle.dumps(batch, protocol=2))
            known.append([name, md5((place / name).read_bytes())])
        patch.setattr(kind, which, known)
    names = {kind.meta["key"]: [f"class {i}" for i in range(10)]}
    (place / kind.meta["filename"]).write_bytes(pickle.dumps(names, protocol=2))
    patch.setattr(kind, "meta", {**kind.meta, "md5": md5((place / kind.meta["filename"]).read_bytes())})
    return place


CIFAR = [("cifar10", datasets.CIFAR10, "labels"), ("cifar100", datasets.CIFAR100, "fine_labels")]


@pytest.mark.parametrize(("name", "kind", "key"), CIFAR)
def test_cifar_is_read_as_torchvision_reads_it_from_folder_and_archive(
    name: str, kind: type[datasets.CIFAR10], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_cifar(tmp_path, kind, key, monkeypatch)
    ours = load_data(name, folder=tmp_path, download=False)
    for part, train in ((ours.train, True), (ours.test, False)):
        theirs = kind(tmp_path, train=train)
        assert torch.equal(part.pixels.permute(0, 2, 3, 1), torch.from_numpy(theirs.data))
        assert part.labels.tolist() == theirs.targets
        assert part.classes == tuple(theirs.classes)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with tarfile.open(elsewhere / kind.filename, "w:gz") as archive:
        archive.add(place, kind.base_folder)
    monkeypatch.setattr(kind, "tgz_md5", md5((elsewhere / kind.filename).read_bytes()))
    packed = load_data(name, folder=elsewhere, download=False)
    assert torch.equal(packed.train.pixels, ours.train.pixels)
    assert packed.train.provenance == ours.train.provenance


@pytest.mark.parametrize("harm", ["changed", "removed"])
def test_cifar_batches_are_checked(harm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = make_cifar(tmp_path, datasets.CIFAR10, "labels", monkeypatch)
    if harm == "changed":
        (place / "data_batch_3").write_bytes((place / "data_batch_2").read_bytes() + b" ")
    else:
        (place / "data_batch_3").unlink()
    with pytest.raises(PagsError, match="data_batch_3"):
        load_data("cifar10", folder=tmp_path, download=False)


class Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("harm"),)


def test_pickles_that_would_run_code_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PagsError, match="plain data"):
        ArraysOnly(io.BytesIO(pickle.dumps(Harm(), protocol=2))).load()
    assert not (tmp_path / "harm").exists()


def test_svhn_is_read_as_torchvision_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat  # type: ignore[import-untyped]

    known = dict(datasets.SVHN.split_list)
    for number, part in enumerate(("train", "test")):
        url, name, _ = known[part]
        labels = np.array([[10], [1], [9], [10]], np.uint8)
        savemat(tmp_path / name, {"X": noise(32, 32, 3, 4, seed=number), "y": labels})
        known[part] = [url, name, md5((tmp_path / name).read_bytes())]
    monkeypatch.setattr(datasets.SVHN, "split_list", known)
    ours = load_data("svhn", folder=tmp_path, download=False)
    for images, split in ((ours.train, "train"), (ours.test, "test")):
        theirs = datasets.SVHN(tmp_path, split=split)
        assert np.array_equal(images.pixels.numpy(), theirs.data)
        assert images.labels.tolist() == theirs.labels.tolist() == [0, 1, 9, 0]


# --- npz -------------------------------------------------------------------------------------------------


def saved(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return f"npz:{path}"


LABELS = np.arange(6) % 2


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["uint8", "float32", "float64"])
def test_both_orders_of_axes_are_understood(channels: int, kind: str, tmp_path: Path) -> None:
    first = noise(6, channels, 7, 8)
    if kind != "uint8":
        first = (first / 255).astype(kind)
    one = load_data(saved(tmp_path / "a.npz", images=first, labels=LABELS))
    other = load_data(saved(tmp_path / "b.npz", images=first.transpose(0, 2, 3, 1), labels=LABELS[:, None]))
    assert torch.equal(one.train.pixels, other.train.pixels)
    assert one.train.shape == (channels, 7, 8)
    assert one.train.pixels.dtype == (torch.uint8 if kind == "uint8" else torch.float32)
    both = torch.cat([one.train.pixels, one.test.pixels]).double().flatten(1)
    expected = torch.from_numpy(first.astype(np.float32 if kind != "uint8" else kind)).double().flatten(1)
    assert sorted(both.sum(1).tolist()) == pytest.approx(sorted(expected.sum(1).tolist()))


def test_grey_images_need_no_axis_of_channels_and_splits_are_kept(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "x_train": noise(6, 4, 5),
        "y_train": LABELS,
        "x_test": noise(2, 4, 5, seed=1),
        "y_test": LABELS[:2],
    }
    data = load_data(saved(tmp_path / "a.npz", classes=np.array(["cat", "dog"]), **arrays))
    assert np.array_equal(data.test.pixels[:, 0].numpy(), arrays["x_test"])
    assert data.train.classes == ("cat", "dog")
    assert (len(data.train), data.name) == (6, "a")


def test_a_shape_that_fits_both_orders_needs_a_word(tmp_path: Path) -> None:
    images = noise(6, 3, 5, 3)
    spec = saved(tmp_path / "a.npz", images=images, labels=LABELS)
    with pytest.raises(UsageError, match=r"fits two of these.*layout=nhwc"):
        load_data(spec)
    assert load_data(f"{spec}?layout=nhwc").train.shape == (3, 3, 5)
    assert load_data(f"{spec}?layout=nchw").train.shape == (3, 5, 3)


BAD_NPZ: dict[str, tuple[dict[str, Any], str]] = {
    "pickled images": ({"images": np.array([object()] * 6, object), "labels": LABELS}, "never loaded"),
    "whole numbers above a byte": ({"images": noise(6, 4, 4).astype(np.int32), "labels": LABELS}, "uint8"),
    "floats up to 255": ({"images": noise(6, 4, 4).astype(np.float32), "labels": LABELS}, r"\[0, 1\]"),
    "not a number": ({"images": np.full((6, 4, 4), np.nan), "labels": LABELS}, r"\[0, 1\]"),
    "five axes": ({"images": noise(6, 1, 4, 4, 1), "labels": LABELS}, r"\(N, H, W\)"),
    "two channels": ({"images": noise(6, 2, 4, 4), "labels": LABELS}, "one or three channels"),
    "float labels": ({"images": noise(6, 4, 4), "labels": LABELS / 1}, "one integer"),
    "labels below zero": ({"images": noise(6, 4, 4), "labels": LABELS - 1}, "from -1"),
    "labels without a class": (
        {"images": noise(6, 4, 4), "labels": LABELS, "classes": np.array(["one"])},
        "labels from 0 to 0",
    ),
    "labels in one-hot rows": ({"images": noise(6, 4, 4), "labels": np.eye(6, dtype=int)}, "one integer"),
    "fewer labels": ({"images": noise(6, 4, 4), "labels": LABELS[:5]}, "as many labels"),
    "other names": ({"pictures": noise(6, 4, 4)}, "got pictures"),
    "no image": ({"images": noise(0, 4, 4), "labels": LABELS[:0]}, "two images or more"),
}


@pytest.mark.parametrize("what", ["16 bits", "12 bits", "32 bits", "bytes in 64 bits", "booleans", "0 and 1"])
def test_the_suggestion_for_other_numbers_gives_the_right_pixels(what: str, tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 1, 64).reshape(8, 8), (6, 1, 1))
    images = {
        "16 bits": (ramp * 65535).astype(np.uint16), "12 bits": (ramp * 4095).astype(np.uint16),
        "32 bits": (ramp * (2**31 - 1)).astype(np.int32), "bytes in 64 bits": (ramp * 255).astype(np.int64),
        "booleans": ramp > 0.5, "0 and 1": (ramp > 0.5).astype(np.uint8),
    }[what]  # fmt: skip
    with pytest.raises(UsageError) as caught:
        load_data(saved(tmp_path / "a.npz", images=images, labels=LABELS))
    code = str(caught.value.suggestion).partition(", if")[0]
    better = eval(code, {"images": images})
    pixels = load_data(saved(tmp_path / "b.npz", images=better, labels=LABELS)).train.images
    wanted = (ramp[0] > 0.5) if what in ("booleans", "0 and 1") else ramp[0]
    scale = 4095 / 65535 if what == "12 bits" else 1  # what nobody says cannot be known
    assert np.allclose(pixels[0, 0].numpy(), scale * wanted, atol=1 / 255)


def test_labels_from_one_are_not_guessed(tmp_path: Path) -> None:
    spec = saved(tmp_path / "a.npz", images=noise(6, 4, 4), labels=LABELS + 1)
    with pytest.raises(UsageError, match=r"first=1 if that is the first class, \?first=0"):
        load_data(spec)
    assert load_data(f"{spec}?first=1").train.classes == ("0", "1")
    assert load_data(f"{spec}?first=0").train.classes == ("0", "1", "2")
    with pytest.raises(UsageError, match="first label from 0 to 1"):
        load_data(f"{spec}?first=2")
    named = saved(tmp_path / "b.npz", images=noise(6, 4, 4), labels=LABELS + 1, classes=np.array(list("abc")))
    assert load_data(named).train.classes == ("a", "b", "c")


@pytest.mark.parametrize("what", BAD_NPZ)
def test_arrays_that_make_no_sense_say_so(what: str, tmp_path: Path) -> None:
    arrays, says = BAD_NPZ[what]
    with pytest.raises(PagsError, match=says):
        load_data(saved(tmp_path / "a.npz", **arrays))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"\x80\x02K\x01.", None])
def test_files_that_are_no_npz_say_so(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PagsError, match="an npz file with the arrays"):
        load_data(f"npz:{path}")


# --- folders ---------------------------------------------------------------------------------------------


def picture(path: Path, height: int = 6, width: int = 6, mode: str = "RGB", seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(height, width, 3, seed=seed)).convert(mode).save(path)


def birds(root: Path, parts: tuple[str, ...] = ("train", "test"), **options: Any) -> Path:
    for seed, part in enumerate(parts):
        for label, name in enumerate(("wren", "owl")):
            for number in range(3):
                picture(
                    root / part / name / f"{number}.png", seed=100 * seed + 10 * label + number, **options
                )
    return root


RAMP = np.tile(np.linspace(0, 1, 16), (16, 1))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png16(path: Path) -> None:
    """16 bits in three channels, which Pillow does not write."""
    rows = b"".join(
        b"\0" + row.tobytes() for row in np.repeat((RAMP * 65535).astype(">u2")[:, :, None], 3, 2)
    )
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", 16, 16, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))


def of(array: NDArray[Any], ending: str = "png", **options: Any) -> tuple[Callable[[Path], None], str]:
    return lambda path: Image.fromarray(array).save(path, **options), ending


BYTE_RAMP = (RAMP * 255).astype(np.uint8)
COLOUR_RAMP = Image.fromarray(np.dstack([BYTE_RAMP] * 3))
RAMPS: dict[str, tuple[tuple[Callable[[Path], None], str], int]] = {
    "16-bit PNG": (of((RAMP * 65535).astype(np.uint16)), 1),
    "16-bit TIFF": (of((RAMP * 65535).astype(np.uint16), "tif"), 1),
    "16-bit PNG in colour": ((png16, "png"), 3),
    "8-bit PNG": (of(BYTE_RAMP), 1),
    "opaque RGBA": (of(np.dstack([BYTE_RAMP] * 3 + [np.full((16, 16), 255, np.uint8)])), 3),
    "opaque LA": (of(np.dstack([BYTE_RAMP, np.full((16, 16), 255, np.uint8)])), 1),
    "palette": ((lambda path: Image.fromarray(BYTE_RAMP).convert("P").save(path), "png"), 3),
    "CMYK": ((lambda path: COLOUR_RAMP.convert("CMYK").save(path, quality=100), "jpg"), 3),
}  # fmt: skip


def pictures(root: Path, write: Callable[[Path], None], ending: str) -> str:
    for place in ("a/0", "a/1", "b/0", "b/1"):
        path = root / f"{place}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
    return f"folder:{root}"


@pytest.mark.parametrize("what", RAMPS)
def test_pixels_of_every_kind_keep_their_values(what: str, tmp_path: Path) -> None:
    (write, ending), channels = RAMPS[what]
    images = load_data(pictures(tmp_path, write, ending)).train.images
    assert images.shape == (3, channels, 16, 16)
    assert np.allclose(images[0, 0].numpy(), RAMP, atol=(6 if what == "CMYK" else 1) / 255)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_pixels_whose_white_is_not_known_are_refused(kind: type, tmp_path: Path) -> None:
    spec = pictures(tmp_path, *of((RAMP * 65535).astype(kind), "tiff"))
    with pytest.raises(
        PagsError, match=r"a/0\.tiff \(pixels of 32 bits.*saving the images with 8 or 16 bits"
    ):
        load_data(spec)


def test_transparent_pixels_need_a_background(tmp_path: Path) -> None:
    sign = np.zeros((16, 16, 4), np.uint8)
    sign[4:12, 4:12] = (10, 20, 30, 255)
    sign[0, 0] = (200, 100, 50, 51)  # a fifth of it
    spec = pictures(tmp_path, *of(sign))
    with pytest.raises(UsageError, match=r"a/0\.png.*background=white"):
        load_data(spec)
    white, black = (load_data(f"{spec}?background={name}").train.pixels[0] for name in ("white", "black"))
    assert white[:, 8, 8].tolist() == black[:, 8, 8].tolist() == [10, 20, 30]
    assert white[:, 2, 2].tolist() == [255] * 3
    assert black[:, 2, 2].tolist() == [0] * 3
    assert white[:, 0, 0].tolist() == pytest.approx([0.2 * v + 0.8 * 255 for v in (200, 100, 50)], abs=1)
    with pytest.raises(UsageError, match="white or black"):
        load_data(f"{spec}?background=pink")
    grey = pictures(tmp_path / "grey", *of(sign[:, :, [0, 3]]))
    assert load_data(f"{grey}?background=black").train.shape == (1, 16, 16)


def test_images_are_turned_upright(tmp_path: Path) -> None:
    upright = np.repeat(noise(16, 24)[:, :, None], 3, 2)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned clockwise by a quarter

    def write(path: Path) -> None:
        if path.name == "0.png":
            Image.fromarray(np.rot90(upright).copy()).save(path, exif=turned)
        else:
            Image.fromarray(upright).save(path)

    pixels = load_data(pictures(tmp_path, write, "png")).train.pixels
    assert all(np.array_equal(each.permute(1, 2, 0).numpy(), upright) for each in pixels)


def test_folders_named_by_numbers_are_in_their_order(tmp_path: Path) -> None:
    for number in range(12):
        picture(tmp_path / str(number) / "0.png", seed=number)
    data = load_data(f"folder:{tmp_path}")
    assert data.train.classes == tuple(map(str, range(12)))
    assert data.train.provenance["classes by"] == "number"
    (tmp_path / "10").rename(tmp_path / "ten")
    assert load_data(f"folder:{tmp_path}").train.classes[:3] == ("0", "1", "11")
    (tmp_path / "ten").rename(tmp_path / "03")
    with pytest.raises(UsageError, match="two are the same number"):
        load_data(f"folder:{tmp_path}")


def test_what_systems_leave_in_folders_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    birds(tmp_path / "data", ("all",))
    (tmp_path / "data" / "all" / "owl" / "._0.png").write_bytes(b"\0\5\x16\7")
    (tmp_path / "data" / "all" / "__MACOSX").mkdir()
    (tmp_path / "data" / "all" / ".git").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(load_data("folder:~/data/all").train) == 5


@pytest.mark.parametrize(
    "names", [("Training", "Testing"), ("train", "validation"), ("train", "valid"), ("TRAIN", "VAL")]
)
def test_parts_go_by_many_names(names: tuple[str, str], tmp_path: Path) -> None:
    data = load_data(f"folder:{birds(tmp_path, names)}")
    assert (len(data.train), len(data.test)) == (6, 6)
    assert "unused" not in data.train.provenance


def test_of_two_parts_for_testing_one_is_taken_and_the_other_named(tmp_path: Path) -> None:
    data = load_data(f"folder:{birds(tmp_path, ('train', 'test', 'val'))}")
    assert data.train.provenance["unused"] == ["val"]


@pytest.mark.parametrize("test", ["test", "val"])
def test_folders_are_read_as_torchvision_reads_them(test: str, tmp_path: Path) -> None:
    data = load_data(f"folder:{birds(tmp_path, ('train', test))}")
    for part, name in ((data.train, "train"), (data.test, test)):
        theirs = datasets.ImageFolder(tmp_path / name, transform=PILToTensor())
        assert torch.equal(part.pixels, torch.stack([image for image, _ in theirs]))
        assert part.labels.tolist() == theirs.targets
        assert list(part.classes) == theirs.classes == ["owl", "wren"]


def test_one_folder_is_cut_in_two_by_a_seed(tmp_path: Path) -> None:
    spec = f"folder:{birds(tmp_path, ('all',)) / 'all'}?train=0.5"
    one, again, other = load_data(spec), load_data(f"{spec}&seed=0"), load_data(f"{spec}&seed=1")
    assert (len(one.train), len(one.test)) == (3, 3)
    assert torch.equal(one.train.pixels, again.train.pixels)
    assert not torch.equal(one.train.pixels, other.train.pixels)
    assert one.train.provenance == again.train.provenance != other.train.provenance


def test_grey_files_make_one_channel_and_mixed_ones_three(tmp_path: Path) -> None:
    grey = birds(tmp_path / "grey", mode="L")
    assert load_data(f"folder:{grey}").train.shape == (1, 6, 6)
    picture(grey / "train" / "owl" / "colour.png")
    mixed = load_data(f"folder:{grey}")
    assert mixed.train.shape == mixed.test.shape == (3, 6, 6)
    assert torch.equal(mixed.train.pixels[-1, 0], mixed.train.pixels[-1, 2])
    assert torch.equal(mixed.test.pixels[:, 0], mixed.test.pixels[:, 2])


def test_sizes_must_agree_or_be_given(tmp_path: Path) -> None:
    birds(tmp_path)
    picture(tmp_path / "train" / "owl" / "wide.png", 9, 12)
    with pytest.raises(UsageError, match=r"6×6 as the first; got 9×12 in .*wide\.png; .*size=6"):
        load_data(f"folder:{tmp_path}")
    data = load_data(f"folder:{tmp_path}?size=5")
    theirs = datasets.ImageFolder(tmp_path / "train", Compose([Resize(5), CenterCrop(5), PILToTensor()]))
    assert torch.equal(data.train.pixels, torch.stack([image for image, _ in theirs]))


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    birds(tmp_path)
    path = tmp_path / "test" / "wren" / "1.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(PagsError, match=r"images that can be decoded; got .*wren/1\.png"):
        load_data(f"folder:{tmp_path}")


def test_changed_pixels_change_the_provenance(tmp_path: Path) -> None:
    before = load_data(f"folder:{birds(tmp_path)}").train.provenance
    picture(tmp_path / "test" / "owl" / "0.png", seed=999)
    assert load_data(f"folder:{tmp_path}").train.provenance != before


def odd(root: Path, what: str) -> Path:
    birds(root)
    if what == "a class of the test set alone":
        picture(root / "test" / "emu" / "0.png")
    if what == "a class without images":
        (root / "train" / "emu").mkdir()
    if what == "no test set":
        (root / "test").rename(root / "later")
    if what == "no class folders":
        return root / "train" / "owl"
    if what == "no wnids":
        return Path(f"{root}?classes=imagenet")
    if what == "an unknown list of classes":
        return Path(f"{root}?classes=birds")
    return Path(f"{root}?size=0")


def test_a_folder_may_hold_some_of_the_classes_of_cifar10(tmp_path: Path) -> None:
    for name in ("ship", "cat"):
        for place in range(2):
            picture(tmp_path / name / f"{place}.png")
    data = load_data(f"folder:{tmp_path}?classes=cifar10&train=0.5")
    assert len(data.train.classes) == 10
    assert {*data.train.labels.tolist(), *data.test.labels.tolist()} == {3, 8}


ODD = {
    "a class of the test set alone": "class folders among owl, wren; got emu",
    "a class without images": "images in every class folder",
    "no test set": "both train and test",
    "no class folders": "one subfolder of images per class",
    "no wnids": "class folders among n01440764",
    "an unknown list of classes": "classes=cifar10, classes=imagenet, classes=text, or no such option",
    "no size": "a size of one pixel or more",
}


@pytest.mark.parametrize("what", ODD)
def test_folders_that_make_no_sense_say_so(what: str, tmp_path: Path) -> None:
    if what == "no wnids":
        pytest.importorskip("timm")
    with pytest.raises(UsageError, match=ODD[what]):
        load_data(f"folder:{odd(tmp_path, what)}")


def test_images_for_a_classifier_come_from_every_class_first(tmp_path: Path) -> None:
    root = birds(tmp_path, height=40, width=50) / "train"
    some = images_of(root, size=14, limit=4)
    theirs = datasets.ImageFolder(root, Compose([Resize(16), CenterCrop(14), PILToTensor()]))
    assert torch.equal(some.pixels, torch.stack([theirs[i][0] for i in (0, 3, 1, 4)]))
    assert some.labels.tolist() == [0, 1, 0, 1]
    assert len(images_of(root, size=14)) == 6
    with pytest.raises(UsageError, match="one image or more"):
        images_of(root, limit=0)


@pytest.mark.skipif(not (SHARED / "imagenet-sample").is_dir(), reason="no images of ImageNet here")
def test_labels_of_imagenet_are_those_of_its_classifiers() -> None:
    pytest.importorskip("timm")
    some: ImageSet = images_of(SHARED / "imagenet-sample" / "val", limit=12, classes="imagenet")
    assert some.shape == (3, 224, 224)
    assert len(some.classes) == 1000
    # Known outputs of torchvision's classifiers: 0 is the tench, 999 the toilet paper.
    assert (some.classes[0], some.classes[999], some.classes[1]) == ("n01440764", "n15075141", "n01443537")
    assert int(some.labels[0]) == 0
    whole: DataSet = load_data(f"folder:{SHARED / 'imagenet-sample' / 'val'}?size=16&train=0.5")
    assert (len(whole.train), len(whole.test), len(whole.train.classes)) == (100, 100, 200)
