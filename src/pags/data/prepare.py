"""ImageNet's files to ImageNet-64's arrays: in parallel, resumable, in bounded memory."""

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import center_crop, resize

from pags.data.download import Report, digest
from pags.data.folders import BadImage, Files, decode, in_threads, list_files, shorter_side_cropped
from pags.data.prepared import ABOUT, PARTS, read_about
from pags.errors import PagsError, UsageError
from pags.seeds import generator
from pags.store import Record, Store, fingerprint

SIZE = 64
ROW = 3 * SIZE * SIZE
"""Bytes of an image."""
HEADER = 128
"""Bytes before the values in an npy file of these shapes."""
EVERY = 512
"""Images after which what is done is made safe."""


def pags_style(image: Image.Image) -> Image.Image:
    """As the paper: shorter side 256, the centre of 224×224, and that to 64×64; bilinear and antialiased."""
    cropped = shorter_side_cropped(image, 256, 224)
    return resize(cropped, [SIZE, SIZE], InterpolationMode.BILINEAR, antialias=True)


def edm_style(image: Image.Image) -> Image.Image:
    """As EDM describes its data: the largest square around the centre, and that to 64×64 by Lanczos' filter.

    Written from that description; not compared with EDM's own arrays.
    """
    square = center_crop(image, [min(image.size)] * 2)
    return resize(square, [SIZE, SIZE], InterpolationMode.LANCZOS, antialias=True)


STYLES: dict[str, Callable[[Image.Image], Image.Image]] = {"pags": pags_style, "edm": edm_style}


def prepare_imagenet64(
    source: Path, out: Path, *, style: str = "pags", on_progress: Report = lambda what, share: None
) -> Path:
    """Write ImageNet-64 as arrays that `load("imagenet64")` opens, and return the JSON beside them.

    The rows are in a seeded random order, so that any run of them is a random sample; their files' names
    stand in PART-files.txt. Images that cannot be decoded are left out, and named in the JSON. What is done
    is kept when the work is interrupted, and the same call continues.

    Args:
        source: a folder with train/WNID/*.JPEG, val/WNID/*.JPEG, or one of the two.
        out: the folder for the arrays; made if missing.
        style: "pags" (the paper's preparation) or "edm" (for EDM's pretrained denoisers).
        on_progress: told what is being done and the share of it that is finished.

    Raises:
        UsageError: the source has another layout, or `out` holds arrays made from something else.
        PagsError: a file cannot be read, none can be decoded, or the disk is full.
    """
    if style not in STYLES:
        raise UsageError(f"a style among {', '.join(STYLES)}", got=repr(style), suggestion="--style pags")
    files = _files(source)
    recipe = fingerprint({"style": style, "files": {part: each.names for part, each in files.items()}})
    store = Store(out)
    if store.has(ABOUT):
        if read_about(out).get("recipe") == recipe:
            return store.path(ABOUT)
        raise UsageError(
            f"an empty folder, or one with arrays of style {style} from {source}",
            got=f"{out} with others",
            suggestion="another folder, or removing this one",
        )
    try:
        parts = {
            part: _write_part(_Part(part, each, style, recipe, store), on_progress)
            for part, each in files.items()
        }
    except OSError as error:
        raise PagsError(
            f"room and permission to write {out}",
            got=error.strerror,
            suggestion="freeing disk space and running it again; what is done is kept",
        ) from error
    about = {
        "style": style,
        "size": SIZE,
        "recipe": recipe,
        "parts": parts,
        "versions": {package: version(package) for package in ("pags", "pillow", "torchvision")},
        "classes": next(iter(files.values())).classes,
    }
    path = store.write_record(ABOUT, about)
    for part in files:
        store.path(_state(part)).unlink(missing_ok=True)
    return path


def _files(source: Path) -> dict[str, Files]:
    """The files of each part, in the order of their rows."""
    present = [part for part in PARTS if (source / part).is_dir()]
    if not present:
        raise UsageError(
            "a folder with train/WNID/*.JPEG or val/WNID/*.JPEG",
            got=source,
            suggestion="the folder above train and val",
        )
    found: dict[str, Files] = {}
    for part in present:
        classes = found["train"].classes if "train" in found else None
        files = list_files(source / part, classes)
        order = torch.randperm(len(files.names), generator=generator(0, "imagenet64", part)).tolist()
        names, labels = ([each[i] for i in order] for each in (files.names, files.labels))
        found[part] = Files(files.root, tuple(names), tuple(labels), files.classes)
    return found


@dataclass(frozen=True)
class _Part:
    """One part on its way to its arrays."""

    name: str
    files: Files
    style: str
    recipe: str
    store: Store

    def path(self, ending: str) -> Path:
        return self.store.path(f"{self.name}-{ending}")


def _state(part: str) -> str:
    return f".preparing-{part}.json"


def _write_part(part: _Part, on_progress: Report) -> dict[str, Any]:
    """The arrays of one part, and what the JSON says about them."""
    skipped = _write_rows(part, on_progress)
    left_out = {each["file"] for each in skipped}
    kept = [i for i, name in enumerate(part.files.names) if name not in left_out]
    if not kept:
        raise PagsError(
            f"images that can be decoded in {part.files.root}",
            got=f"none of {len(skipped)}, the first {skipped[0]['reason']}",
            suggestion="checking the files",
        )
    on_progress(f"hashing {part.name}", 0.99)
    _finish_rows(part, len(kept))
    labels = io.BytesIO()
    np.save(labels, np.array([part.files.labels[i] for i in kept], np.int64))
    part.store.write_bytes(f"{part.name}-labels.npy", labels.getvalue())
    names = "".join(f"{part.files.names[i]}\n" for i in kept)
    part.store.write_bytes(f"{part.name}-files.txt", names.encode())
    hashes = {each: digest(part.path(f"{each}.npy"), "sha256") for each in ("images", "labels")}
    return {"images": len(kept), "sha256": hashes, "skipped": skipped}


def _write_rows(part: _Part, on_progress: Report) -> list[dict[str, str]]:
    """Append the images to the unfinished file, from where it was left; returns the files left out."""
    state: Record = {"recipe": part.recipe, "done": 0, "skipped": []}
    if part.store.has(_state(part.name)) and (found := part.store.read_record(_state(part.name))):
        state = found if found["recipe"] == part.recipe else state
    names, done, skipped = part.files.names, state["done"], state["skipped"]
    path = part.path("images.unfinished")
    if done == len(names) and not path.exists():  # finished already, in a run that was killed afterwards
        return skipped
    path.touch()
    with path.open("r+b") as file:
        # What was written after the last safe point is written again.
        file.truncate(HEADER + (done - len(skipped)) * ROW)
        file.seek(0, os.SEEK_END)
        rows = in_threads(lambda name: _row(part, name), names[done:])
        for place, row in enumerate(rows, done + 1):
            if isinstance(row, BadImage):
                skipped.append({"file": names[place - 1], "reason": str(row)})
            else:
                file.write(row)
            if place % EVERY == 0 or place == len(names):
                file.flush()
                os.fsync(file.fileno())
                state = {"recipe": part.recipe, "done": place, "skipped": skipped}
                part.store.write_record(_state(part.name), state)
                on_progress(f"preparing {part.name}", 0.98 * place / len(names))
    return skipped


def _row(part: _Part, name: str) -> bytes | BadImage:
    path = part.files.root / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PagsError(
            f"{path} to be readable", got=error.strerror, suggestion="the same call again; it continues"
        ) from error
    try:
        image = STYLES[part.style](decode(content, name).convert("RGB"))
    except BadImage as error:
        return error
    return np.asarray(image).transpose(2, 0, 1).tobytes()


def _finish_rows(part: _Part, count: int) -> None:
    """Put the header before the rows, and give the file its name."""
    path = part.path("images.unfinished")
    if not path.exists():
        return
    header = io.BytesIO()
    about = {"descr": "|u1", "fortran_order": False, "shape": (count, 3, SIZE, SIZE)}
    np.lib.format.write_array_header_1_0(header, about)
    with path.open("r+b") as file:
        file.write(header.getvalue())
        file.flush()
        os.fsync(file.fileno())
    path.replace(part.path("images.npy"))
