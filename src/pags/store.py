"""The only room that writes artefacts: safetensors and JSON, whole or not at all, named by content.

An artefact's name ends in a fingerprint of everything it was computed from. What exists is
therefore right, and a run that was killed continues by asking what exists.
"""

import hashlib
import json
import os
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


@dataclass(frozen=True)
class Store:
    """A folder of artefacts.

    Args:
        root: the folder; made if missing.

    Raises:
        PagsError: the folder cannot be made or written.
    """

    root: Path

    def __post_init__(self) -> None:
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
        text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False)
        return self.write_bytes(name, text.encode() + b"\n")

    def read_record(self, name: str) -> Record:
        """Read back what `write_record` wrote."""
        try:
            return json.loads(self.path(name).read_text())
        except (OSError, ValueError) as error:
            raise _unreadable(self.path(name), error) from error

    def write_tensors(
        self, name: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any] | None = None
    ) -> Path:
        """Write named tensors, with plain data `about` them, as one safetensors file."""
        # Copies, for the format refuses tensors that share memory, as tied weights do.
        whole = torch.contiguous_format
        plain = {key: value.detach().cpu().clone(memory_format=whole) for key, value in tensors.items()}
        return self.write_bytes(name, to_safetensors(plain, {"about": json.dumps(about or {})}))

    def read_tensors(self, name: str) -> tuple[dict[str, Tensor], Record]:
        """Read back what `write_tensors` wrote: the tensors and what is said about them."""
        return read_safetensors(self.path(name))

    def read_about(self, name: str) -> Record:
        """What is said about the tensors, without reading them."""
        with _opened(self.path(name)) as file:
            return json.loads((file.metadata() or {}).get("about", "{}"))

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
        """The state, or None where none was saved."""
        if not self.store.has(self.name):
            return None
        tensors, skeleton = self.store.read_tensors(self.name)
        return _put_tensors(skeleton, tensors)

    def clear(self) -> None:
        """Forget the state: the work is finished."""
        self.store.path(self.name).unlink(missing_ok=True)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], Record]:
    """The tensors of a safetensors file, and the plain data its `about` metadata holds.

    Raises:
        PagsError: the file is missing, truncated or of another format.
    """
    with _opened(path) as file:
        about = json.loads((file.metadata() or {}).get("about", "{}"))
        return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file; what is wrong with it becomes one line."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> PagsError:
    return PagsError(
        "a readable artefact of pags",
        got=f"{path} ({error})",
        suggestion="removing the file and running again",
    )


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
