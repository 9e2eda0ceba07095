"""Reading a foreign file: which format it has, and one line about why it is refused."""

import json
import struct
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from pags.checkpoints.bounds import ANOTHER_COPY, MEBI, Budget, Refusal, Window, shown
from pags.checkpoints.contents import check_walkable
from pags.checkpoints.formats import RESAVE, Reading
from pags.errors import PagsError
from pags.store import read_safetensors

LIMIT = 8 * 1024 * MEBI
LONGEST_HEADER = 16 * MEBI
BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
"""Bytes of an element, by safetensors' name of its type."""
DAMAGED = (
    ValueError, TypeError, IndexError, KeyError, OverflowError, RecursionError, RuntimeError, MemoryError,
    struct.error, SafetensorError,
)  # fmt: skip
"""What Python and torch raise on bytes that are not what they say."""
NOT_CHECKPOINTS = {
    b"version https://git-lfs": ("a Git LFS pointer", "git lfs pull, which fetches the file it stands for"),
    b"<": ("a web page or XML", "downloading the file itself; this may be the page that asks for it"),
    b"\x1f\x8b": ("a gzip file", "gunzip first"),
    b"\x89HDF": ("an HDF5 file", RESAVE),
    b"\x93NUMPY": ("a numpy file", "pags.data for images; weights as a state dict"),
    b"": ("an empty file", "downloading it again"),
}


def read(path: Path, *, limit: int = LIMIT) -> Any:
    """The contents of a foreign checkpoint as plain data and tensors; no code of the file is imported or run.

    Plain pickles of protocols 0 to 5, torch's files (archives and those from before torch 1.6, whatever
    pickled them) and safetensors are told apart by their contents.

    Args:
        path: the file.
        limit: the longest file that is read, in bytes.

    Returns:
        Dicts (also for ordered ones), lists, tuples, sets, texts, bytes, numbers, None; tensors on the CPU
        without gradients, also for parameters, storages and numeric numpy arrays; and an `Opaque` for every
        object of any other class and every result of any other function. Tensors that share a storage in a
        torch file share it here. A walk through it ends: it is at most 200 levels deep and has no circles.

    Raises:
        PagsError: there is no such file; it is too long, damaged, or of another format; or it asks for more
            time or memory than a file of its length can need.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size > limit:
                got = f"{size:,} bytes"
                raise Refusal(f"a file of at most {limit:,} bytes", got=got, suggestion="a higher limit")
            file.seek(0)
            start = file.read(512)
            _check_kind(start)
            if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**32:
                _check_header(Window(file, 0, size, Budget(size)))
                return read_safetensors(path)[0]
            return _read_pickles(Window(file, 0, size, Budget(size)))
    except Refusal as refusal:
        got = f"{refusal.got}, in {path}"
        raise PagsError(refusal.expected, got=got, suggestion=refusal.suggestion) from refusal
    except OSError as error:
        raise PagsError(
            "a checkpoint that can be read",
            got=f"{path} ({error.strerror or error})",
            suggestion="another path",
        ) from error
    except DAMAGED as error:
        got = f"{path} ({type(error).__name__}: {shown(error)})"
        raise PagsError("a whole checkpoint", got=got, suggestion=ANOTHER_COPY) from error


def _read_pickles(window: Window) -> Any:
    """Read twice where large bytes turn out to be data of their own, not the inside of a tensor."""
    wanted: set[int] = set()
    for _ in range(2):
        reading = Reading(window.budget, wanted)
        tree = reading.read(Window(window.file, window.start, window.stop, window.budget))
        wanted = reading.unclaimed()
        if not wanted:
            break
        del tree
        window.budget = Budget(window.stop - window.start)
    check_walkable(tree)
    return tree


def _check_kind(start: bytes) -> None:
    """Name the files that people have where they think they have a checkpoint."""
    for beginning, (kind, suggestion) in NOT_CHECKPOINTS.items():
        if start.startswith(beginning) if beginning else not start:
            raise Refusal("a checkpoint", got=kind, suggestion=suggestion)
    if start[257:262] == b"ustar":
        raise Refusal("a checkpoint", got="a tar archive, as torch wrote before 0.1.10", suggestion=RESAVE)


def _check_header(file: Window) -> None:
    """Whether a safetensors file has every byte that its header claims, each in one tensor at most."""
    length = int.from_bytes(file.read(8), "little")
    if length > LONGEST_HEADER:
        raise Refusal(f"a header of at most {LONGEST_HEADER:,} bytes", got=f"one of {length:,}")
    header = json.loads(file.read(length))
    entries = [_entry(name, entry) for name, entry in header.items() if name != "__metadata__"]
    last = 0
    for begin, end, name in sorted(entries):
        if begin != last or end > file.left:
            raise Refusal("tensors one after another within the file", got=f"{shown(name)} in {begin}…{end}")
        last = end


def _entry(name: str, entry: Any) -> tuple[int, int, str]:
    """Where the bytes of a tensor begin and end, checked against its shape."""
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(begin), int(end)]}:
            count = BYTES.get(dtype, -1)
            for size in shape[:64]:
                if type(size) is not int or not 0 <= size < 2**48:
                    raise Refusal("natural numbers in a shape", got=f"{shown(size)} in {shown(name)}")
                count *= size
            if len(shape) <= 64 and 0 <= begin <= end and count == end - begin:
                return begin, end, name
    raise Refusal("a tensor's type, shape and place, which agree", got=f"others for {shown(name)}")
