"""Whatever a user writes, settings, model specs and data folders: it ends in a result or in one line."""

import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from pags.classifiers.load import load_classifier
from pags.data.sources import load_data
from pags.errors import PagsError
from pags.experiments.cache import identity
from pags.experiments.settings import ExperimentSettings
from pags.figures.reproduce import ReproduceSettings, merged
from pags.store import fingerprint

T = TypeVar("T")
CASES = int(os.environ.get("CASES", "25"))
"""Of each property; thousands were tried by hand."""


def taken(make: Callable[[], T]) -> T | None:
    """What is made, or None where it is refused in one line; anything else that is raised is a fault."""
    try:
        return make()
    except PagsError as error:
        said = str(error)
    assert "\n" not in said
    return None


# --- settings --------------------------------------------------------------------------------------------

huge = st.integers(-(10**30), 10**30)
odd = (
    st.none() | st.booleans() | huge | st.floats() | st.text(max_size=5)
    | st.sampled_from([0, 1, 0.5, "pgd", "auto", "32-true", (0, 1, 2), [0, 0.5, 1], {}, b"x"])
)  # fmt: skip
values = st.recursive(
    odd,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


def named(kind: Any, depth: int = 2) -> st.SearchStrategy[dict[str, Any]]:
    """Tables with the names that there are, one level down too, and now and then another."""
    names = st.sampled_from([*kind.model_fields, "unknown"])
    inner = [
        (name, type(value)) for name, value in dict(kind()).items() if hasattr(type(value), "model_fields")
    ] if depth else []  # fmt: skip
    parts = [
        st.dictionaries(st.sampled_from([*of.model_fields, "unknown"]), values, max_size=2).map(
            lambda table, name=name: {name: table}  # type: ignore[misc]
        )
        for name, of in inner
    ]
    return st.one_of(st.dictionaries(names, values, max_size=3), *parts)


def assert_usable(found: Any) -> None:
    """Settings that are taken can be a key, and so hold no number that is none."""
    assert fingerprint(identity(found))
    assert type(found).model_validate_json(found.model_dump_json()) == found


@settings(max_examples=CASES)
@given(tables=named(ExperimentSettings))
@example(tables={"training": {"\n": False}})
def test_settings_of_an_experiment_are_taken_or_refused(tables: dict[str, Any]) -> None:
    found = taken(lambda: merged(ExperimentSettings(), tables, where="fuzz.toml"))
    if found is not None:
        assert_usable(found)


@settings(max_examples=CASES)
@given(said=named(ReproduceSettings, depth=0))
def test_settings_of_a_reproduction_are_taken_or_refused(said: dict[str, Any]) -> None:
    found = taken(lambda: ReproduceSettings.of(said))
    assert found is None or found.workers is None or found.workers > 0


# --- models ----------------------------------------------------------------------------------------------

words = st.text(max_size=8) | st.sampled_from(
    ["resnet18", "untrained", "torchvision", "timm", "a.pt", "no/such.py"]
)
specs = st.lists(words | st.sampled_from([":", "?", "=", "&", "/"]), max_size=5).map("".join)


@settings(max_examples=CASES)
@given(spec=specs.filter(lambda s: not s.startswith(("timm:", "hf"))))
@example(spec="~0")
@example(spec="\n.pt")
def test_a_model_spec_gives_a_model_or_one_line(spec: str) -> None:
    taken(lambda: load_classifier(spec, classes=3, channels=1, size=(8, 8)))


# --- data folders ----------------------------------------------------------------------------------------

pixels = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).integers(0, 256, (9, 11, 4), np.uint8)
)


def encoded(image: Image.Image, kind: str) -> bytes:
    """A file's content."""
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


FILES: dict[str, Callable[[Any], bytes]] = {
    "grey.png": lambda a: encoded(Image.fromarray(a[..., 0]), "PNG"),
    "colour.jpg": lambda a: encoded(Image.fromarray(a[..., :3]), "JPEG"),
    "cmyk.jpg": lambda a: encoded(Image.fromarray(a, "CMYK"), "JPEG"),
    "alpha.png": lambda a: encoded(Image.fromarray(a, "RGBA"), "PNG"),
    "deep.png": lambda a: encoded(Image.fromarray(a[..., 0].astype(np.uint16) * 257), "PNG"),
    "float.tiff": lambda a: encoded(Image.fromarray(a[..., 0].astype(np.float32)), "TIFF"),
    "palette.gif": lambda a: encoded(Image.fromarray(a[..., :3]).quantize(8), "GIF"),
    "cut.jpg": lambda a: encoded(Image.fromarray(a[..., :3]), "JPEG")[:-40],
    "empty.png": lambda a: b"",
    "text.png": lambda a: b"no image",
    "notes.txt": lambda a: b"no image either",
}  # fmt: skip
folders = st.dictionaries(
    st.sampled_from(["a", "b", "with blank", "ünï", "0", "10", ".hidden", "train", "test"]),
    st.lists(st.tuples(st.sampled_from(sorted(FILES)), pixels), max_size=3),
    max_size=4,
)


@settings(max_examples=CASES)
@given(tree=folders, outside=st.booleans(), size=st.sampled_from(["", "?size=8", "?size=8&background=white"]))
def test_a_folder_gives_images_in_range_or_one_line(tree: Any, outside: bool, size: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "images"
        root.mkdir()
        for name, files in tree.items():
            (root / name).mkdir()
            for number, (kind, values) in enumerate(files):
                (root / name / f"{number} {kind}").write_bytes(FILES[kind](values))
        if outside:
            (Path(place) / "secret.png").write_bytes(FILES["grey.png"](np.zeros((9, 11, 4), np.uint8)))
            (root / "a").mkdir(exist_ok=True)
            (root / "a" / "link.png").symlink_to(Path(place) / "secret.png")
        found = taken(lambda: load_data(f"folder:{root}{size}"))
        if found is None:
            return
        count = sum(not kind.endswith("txt") for files in tree.values() for kind, _ in files) + outside
        assert 2 <= len(found.train) + len(found.test) <= count
        for part in (found.train, found.test):
            assert part.images.isfinite().all()
            assert 0 <= part.images.min() <= part.images.max() <= 1
            assert set(part.labels.tolist()) <= set(range(len(part.classes)))
        assert ".hidden" not in found.train.classes
