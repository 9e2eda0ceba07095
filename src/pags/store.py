"""The only room that writes artefacts: safetensors and JSON, whole or not at all, named by content.

An artefact's name ends in a fingerprint of everything it was computed from. What exists is therefore right,
and a run that was killed continues by asking what exists. Each artefact holds a checksum of its content,
which is verified whenever it is read.
"""

import hashlib
import json
import os
import re
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from pags.errors import PagsError
from pags.records import TEMPORARY
from pags.records import Record as Record


def fingerprint(recipe: Any) -> str:
    """16 hex digits of the content of `recipe`, plain data: equal recipes, equal digits, on any machine."""
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def expanded(path: Path | str) -> Path:
    """A path in which ~ stands for a home folder, and for itself where there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


class DamagedArtefact(PagsError):
    """An artefact is not what was written; made anew, it is the same."""


@dataclass(frozen=True, init=False)
class Store:
    """A folder of artefacts.

    Args:
        root: the folder; made if missing.

    Raises:
        PagsError: the folder cannot be made or written.
    """

    root: Path

    def __init__(self, root: Path | str) -> None:
        object.__setattr__(self, "root", Path(root))
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise PagsError(
                "an output folder that can be written",
                got=f"{self.root} ({error.strerror})",
                suggestion="another folder with --out",
            ) from error

    def path(self, name: str) -> Path:
        """Where the artefact `name` (a relative path with its ending) is or would be."""
        return self.root / name

    def has(self, name: str) -> bool:
        """Whether the artefact is there (an artefact that is there is whole)."""
        return self.path(name).is_file()

    def write_bytes(self, name: str, content: bytes) -> Path:
        """Write one file so that it is there whole or not at all, whatever happens meanwhile."""
        path = self.path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            prefix = f"{TEMPORARY}{socket.gethostname()}-{os.getpid()}-"  # whose it is, should it be left
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=prefix)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                Path(temporary).chmod(0o644)
                Path(temporary).replace(path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise PagsError(
                f"room and permission to write {path}",
                got=error.strerror,
                suggestion="freeing disk space or another folder with --out; what is finished is kept",
            ) from error
        return path

    def write_record(self, name: str, record: Mapping[str, Any]) -> Path:
        """Write plain data as JSON, readable and in the given order."""
        text = json.dumps(_sealed(record), indent=1, allow_nan=False, ensure_ascii=False)
        return self.write_bytes(name, text.encode() + b"\n")

    def read_record(self, name: str) -> Record:
        """Read back what `write_record` wrote.

        Raises:
            DamagedArtefact: it is not what was written.
            PagsError: it cannot be read.
        """
        with _readable(self.path(name)):
            return _unsealed(json.loads(self.path(name).read_text()))

    def finished(self, record: str, tensors: str, key: str) -> Record | None:
        """A record of this key whose tensors are there too; None where either is missing, damaged or of
        another key."""
        try:
            found = self.read_record(record)
            return found if found.get("key") == key and self.read_tensors(tensors) else None
        except PagsError:
            return None

    def write_tensors(
        self, name: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any] | None = None
    ) -> Path:
        """Write named tensors, with plain data `about` them, as one safetensors file."""
        # Copies, for the format refuses tensors that share memory, as tied weights do.
        whole = torch.contiguous_format
        plain = {key: value.detach().cpu().clone(memory_format=whole) for key, value in tensors.items()}
        sealed = json.dumps(_sealed(about or {}, plain))
        return self.write_bytes(name, to_safetensors(plain, {"about": sealed}))

    def read_tensors(self, name: str) -> tuple[dict[str, Tensor], Record]:
        """Read back what `write_tensors` wrote: the tensors and what is said about them."""
        return read_safetensors(self.path(name))

    def read_about(self, name: str) -> Record:
        """What is said about the tensors, without reading them."""
        with _opened(self.path(name)) as file:
            about = json.loads((file.metadata() or {}).get("about", "{}"))
        about.pop(CHECKSUM, None)
        return about

    def slot(self, name: str) -> "Slot":
        """The place of one unfinished work's state."""
        return Slot(self, name)


@dataclass(frozen=True)
class Slot:
    """One replaceable file for the state of unfinished work: nested containers of tensors and plain data."""

    store: Store
    name: str

    def write(self, state: Mapping[str, Any]) -> None:
        """Replace the state."""
        tensors: dict[str, Tensor] = {}
        skeleton = _take_tensors(state, tensors)
        self.store.write_tensors(self.name, tensors, skeleton)

    def read(self) -> Record | None:
        """The state, or None where none was saved, or not this one: then the work begins again."""
        if not self.store.has(self.name):
            return None
        try:
            tensors, skeleton = self.store.read_tensors(self.name)
        except DamagedArtefact:
            return None
        return _put_tensors(skeleton, tensors)

    def clear(self) -> None:
        """Forget the state: the work is finished."""
        self.store.path(self.name).unlink(missing_ok=True)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], Record]:
    """The tensors of a safetensors file, and the plain data its `about` metadata holds.

    Raises:
        DamagedArtefact: the file is truncated, of another format, or not what was written.
        PagsError: the file is missing or cannot be read.
    """
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        said = dict(file.metadata() or {})
        about = _unsealed(json.loads(said.pop("about", "{}")), tensors)
        if any(CHECKSUM in text for text in said.values()):
            raise ValueError("what it says about its tensors goes by another name")
        return tensors, about


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file; what is wrong with it becomes one line."""
    with _readable(path), safe_open(path, framework="pt") as file:
        yield file


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What is wrong with a file that is read inside becomes one line."""
    try:
        yield
    except (OSError, SafetensorError, ValueError) as error:
        raise (PagsError if isinstance(error, OSError) else DamagedArtefact)(
            "a readable artefact of pags",
            got=f"{path} ({error})",
            suggestion="removing the file and running again",
        ) from error


CHECKSUM, SEAL = "checksum", re.compile(".{7}[0-9a-f]{16}")
"""The last entry of every record and of what is said about tensors, and what its value looks like."""


def _sealed(record: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> Record:
    """A record with the checksum of itself, and of tensors that it is about."""
    digest = hashlib.sha256(json.dumps(record, allow_nan=False).encode())
    for name, tensor in sorted((tensors or {}).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return {**record, CHECKSUM: f"sha256:{digest.hexdigest()[:16]}"}


def _unsealed(record: Record, tensors: Mapping[str, Tensor] | None = None) -> Record:
    """The record itself; one of earlier times has no checksum.

    Raises:
        ValueError: it is not what was written.
    """
    if not isinstance(record, dict):
        raise ValueError("it is no record")
    *rest, last = list(record.items()) or [("", "")]
    sealed = isinstance(last[1], str) and SEAL.fullmatch(last[1])
    if not sealed and CHECKSUM not in record:
        return record
    if _sealed(dict(rest), tensors) != record:
        raise ValueError("its checksum is another: the file was changed after it was written")
    return dict(rest)


_TENSOR, _PAIRS = "__tensor__", "__pairs__"


def _take_tensors(node: Any, tensors: dict[str, Tensor]) -> Any:
    """Move the tensors of a nested structure into `tensors`, leaving plain data that refers to them."""
    if isinstance(node, Tensor):
        name = str(len(tensors))
        tensors[name] = node
        return {_TENSOR: name}
    if isinstance(node, Mapping):  # as pairs, for optimiser states have integer keys
        return {_PAIRS: [[key, _take_tensors(value, tensors)] for key, value in node.items()]}
    if isinstance(node, list | tuple):
        return [_take_tensors(value, tensors) for value in node]
    return node


def _put_tensors(node: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(node, dict):
        if _TENSOR in node:
            return tensors[node[_TENSOR]]
        return {key: _put_tensors(value, tensors) for key, value in node[_PAIRS]}
    if isinstance(node, list):
        return [_put_tensors(value, tensors) for value in node]
    return node
