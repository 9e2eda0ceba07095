"""The formats that stand on pickles: plain ones, torch's archives, and torch's files from before them."""

import io
from typing import Any

import torch
from torch import Tensor

from pags.checkpoints.archives import members
from pags.checkpoints.bounds import Budget, Refusal, Window, empty, shown
from pags.checkpoints.builders import Builders, typed
from pags.checkpoints.instructions import run
from pags.checkpoints.machine import Machine, Persistent
from pags.checkpoints.opaque import Name
from pags.checkpoints.torch_names import storage_dtype

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
DEEPEST = 2  # a torch file in the bytes of a pickle, and the file itself
RESAVE = "loading it with the torch that wrote it and saving its state dict again"


class Reading:
    """One attempt at one file, all parts of which share a budget.

    Args:
        budget: the file's.
        wanted: places of large bytes that turned out to be plain data, so they are read and not left.
    """

    def __init__(self, budget: Budget, wanted: set[int]) -> None:
        self.budget, self.wanted = budget, wanted
        self.builders = Builders(budget, self._inner)
        self.spans: list[Window] = []
        self.depth = 0

    def unclaimed(self) -> set[int]:
        """Places of large bytes that were left in the file and that no tensor was made of."""
        return {span.start for span in self.spans} - self.builders.used

    def read(self, window: Window) -> Any:
        """The contents of a plain pickle or of a torch file."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise Refusal(f"torch files inside each other at most {DEEPEST} deep", got="one deeper")
        start = window.read(min(4, window.left))
        window = Window(window.file, window.start, window.stop, self.budget)
        tree = self._archive(window) if start == b"PK\x03\x04" else self._pickles(window)
        self.depth -= 1
        return tree

    def _inner(self, content: bytes | Window) -> Any:
        """A torch file that stands in a pickle as bytes; short ones were read already."""
        if isinstance(content, Window):
            return self.read(Window(content.file, content.start, content.stop, self.budget))
        return self.read(Window(io.BytesIO(content), 0, len(content), self.budget))

    def _pickle(self, window: Window, persistent: Persistent | None = None) -> Any:
        machine = Machine(window, self.builders.build, self.builders.finish, persistent, self.wanted)
        tree = run(machine)
        self.spans += machine.spans
        return tree

    # --- torch 1.6 and later: an archive of one pickle and one member a storage ----------------------------

    def _archive(self, window: Window) -> Any:
        found = members(window)
        pickles = [name for name in found if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise Refusal(
                "a torch archive, which has one data.pkl",
                got=f"a zip archive with {len(pickles)} of them among {len(found)} members",
                suggestion="unpacking it, and naming the checkpoint inside",
            )
        folder = pickles[0].removesuffix("data.pkl")
        order = found.get(f"{folder}byteorder")
        if order is not None and order.content() != b"little":
            raise Refusal("little-endian tensors", got="another byte order", suggestion=RESAVE)
        return self._pickle(_again(found[pickles[0]]), self._members(found, f"{folder}data/"))

    def _members(self, found: dict[str, Window], folder: str) -> Persistent:
        raws: dict[str, Tensor] = {}
        storages: dict[tuple[str, torch.dtype], Tensor] = {}

        def load(identity: Any) -> Tensor:
            dtype, key, count = _storage(identity)
            if key not in raws:
                member = found.get(f"{folder}{key}")
                if member is None:
                    raise Refusal("a member for every storage", got=f"none for {shown(key)}")
                raws[key] = member.tensor()
            if len(raws[key]) != count * dtype.itemsize:
                got = f"{count:.4g} elements of {dtype} in {len(raws[key]):,} bytes"
                raise Refusal("storages as long as the file says", got=got)
            if (key, dtype) not in storages:
                storages[key, dtype] = typed(raws[key], dtype)
            return storages[key, dtype]

        return load

    # --- torch before 1.6: five pickles, then the storages one after another -------------------------------

    def _pickles(self, window: Window) -> Any:
        first = self._pickle(window)
        if type(first) is not int or first != MAGIC:
            return first
        protocol = self._pickle(window)
        if type(protocol) is not int or protocol != PROTOCOL:
            raise Refusal(f"a torch file of protocol {PROTOCOL}", got="another one", suggestion=RESAVE)
        system = self._pickle(window)
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise Refusal("little-endian tensors", got="another byte order", suggestion=RESAVE)
        raws: dict[str, tuple[torch.dtype, Tensor]] = {}
        tree = self._pickle(window, self._declared(window, raws))
        keys = self._pickle(window)
        if not _texts(keys) or len(keys) != len(raws) or set(keys) != set(raws):
            raise Refusal("one list of all storages", got="another list")
        for key in keys:
            dtype, raw = raws[key]
            if int.from_bytes(window.read(8), "little") * dtype.itemsize != len(raw):
                raise Refusal("storages as long as the file says", got=f"another length of {shown(key)}")
            window.fill(raw)
            typed(raw, dtype)  # again, now that there is something to check
        return tree

    def _declared(self, window: Window, raws: dict[str, tuple[torch.dtype, Tensor]]) -> Persistent:
        """Storages whose bytes come after the pickle: memory now, contents later."""

        def load(identity: Any) -> Any:
            match identity:
                case ("module", Name() as module, *_):  # a class with its source text, which is not looked at
                    return module
                case (*_, (_, int(offset), int(length))):
                    dtype, key, count = _storage(identity[:5])
                    part = slice(offset, offset + length)
                case _:
                    dtype, key, count = _storage(identity)
                    part = slice(None)
            if key not in raws:
                size = count * dtype.itemsize
                if size > window.left:
                    raise Refusal(f"storages within {window.left:,} bytes", got=f"one of {size:.4g}")
                raws[key] = dtype, empty(size, self.budget)
            if raws[key][0] != dtype or len(raws[key][1]) != count * dtype.itemsize:
                raise Refusal("one type and length for a storage", got=f"two of {shown(key)}")
            return raws[key][1].view(dtype)[part]

        return load


def _again(window: Window) -> Window:
    """The same window from its beginning."""
    return Window(window.file, window.start, window.stop, window.budget)


def _texts(keys: Any) -> bool:
    return isinstance(keys, list) and all(isinstance(key, str) for key in keys)


def _storage(identity: Any) -> tuple[torch.dtype, str, int]:
    """Element type, key and number of elements of a storage's persistent id."""
    match identity:
        case ("storage", Name(name), str(key), _, int(count)) | (
            "storage", Name(name), str(key), _, int(count), None
        ):  # fmt: skip
            dtype = storage_dtype(name)
            if dtype is None:
                raise Refusal("a storage of numbers", got=shown(name), suggestion=RESAVE)
            if not 0 <= count < 2**48:
                raise Refusal("storages as long as the file says", got=f"one of {count:.4g} elements")
            return dtype, key, count
    raise Refusal("a reference to a storage of torch", got="one to something else")
