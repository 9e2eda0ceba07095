"""What a foreign file may cost: every byte, step and element that it asks for is paid from one budget."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase

import torch
from torch import Tensor

MEBI = 2**20
STEPS = 2_000_000
"""Instructions of all pickles of a file; the largest EDM network needs about 60,000."""
SPARE_BYTES = 256 * MEBI
"""What may be allocated beyond the size of the file."""
LONGEST = 16 * MEBI
"""The longest text, line or number."""
LARGE = 64 * 1024
"""Bytes from this length on are left in the file until something asks for them."""
ANOTHER_COPY = "another copy of the file, for this one is damaged or not what it claims to be"


class Refusal(Exception):
    """Why a file is not read; the reader adds the name of the file and makes one line of it."""

    def __init__(self, expected: str, *, got: str, suggestion: str = ANOTHER_COPY) -> None:
        super().__init__(f"{expected}; {got}")
        self.expected, self.got, self.suggestion = expected, got, suggestion


def shown(text: object, longest: int = 80) -> str:
    """A foreign name as it may stand in an error or on a terminal: one short line of printable ASCII."""
    plain = ascii((text if isinstance(text, str) else str(text))[: longest + 1])[1:-1]
    return plain if len(plain) <= longest else plain[: longest - 1] + "…"


class Budget:
    """The allowance of one file: steps, bytes of memory, and bytes that its tensors show of their storages.

    Args:
        size: the file's size in bytes.
    """

    def __init__(self, size: int) -> None:
        self._steps = STEPS
        self._bytes = size + SPARE_BYTES
        self._views = 16 * size + SPARE_BYTES

    def step(self) -> None:
        """Pay for one instruction."""
        self._steps -= 1
        if self._steps < 0:
            raise Refusal(f"a pickle of at most {STEPS:,} instructions", got="more of them")

    def allocate(self, count: int) -> None:
        """Pay for `count` bytes of memory before they are taken."""
        self._bytes -= count
        if self._bytes < 0:
            raise Refusal("contents that take about as much memory as the file is long", got="far more")

    def view(self, count: int) -> None:
        """Pay for `count` bytes of a tensor that shares a storage, so that its copies stay affordable."""
        self._views -= count
        if self._views < 0:
            raise Refusal("tensors of about the size of their storages", got="views that repeat them")


@dataclass(eq=False)
class Window:
    """A part of an open file, read forwards from `start` and never beyond `stop`.

    It has the two methods that `pickletools` reads arguments with; neither takes memory for bytes that
    the file does not have.
    """

    file: BufferedIOBase
    start: int
    stop: int
    budget: Budget

    def __post_init__(self) -> None:
        self.left = self.stop - self.start
        self.file.seek(self.start)

    def read(self, count: int) -> bytes:
        """Exactly `count` bytes."""
        if count > LONGEST:
            raise Refusal(f"texts and numbers of at most {LONGEST:,} bytes", got=f"one of {count:,}")
        self._pass(count)
        if count > 1:
            self.budget.allocate(4 * count)  # a text may take four bytes a character
        return self.file.read(count)

    def readline(self) -> bytes:
        """The bytes up to and with the next end of a line."""
        line = self.file.readline(min(self.left, LONGEST))
        if not line.endswith(b"\n"):
            raise Refusal("a line that ends", got="the end of the file")
        self._pass(len(line))
        self.budget.allocate(4 * len(line))
        return line

    def span(self, count: int) -> "Window":
        """The next `count` bytes as a window of their own, left in the file and skipped here."""
        place = self.stop - self.left
        self._pass(count)
        with self.elsewhere():
            inner = Window(self.file, place, place + count, self.budget)
        self.file.seek(place + count)
        return inner

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """Other windows of the same file may be read inside; afterwards this one goes on."""
        place = self.stop - self.left
        try:
            yield
        finally:
            self.file.seek(place)

    def content(self) -> bytes:
        """All bytes of the window."""
        self.budget.allocate(self.stop - self.start)
        self.file.seek(self.start)
        return self.file.read(self.stop - self.start)

    def fill(self, raw: Tensor) -> None:
        """Read the next bytes straight into the memory of a uint8 tensor."""
        self._pass(raw.numel())
        memory, done = raw.numpy().data, 0
        while done < len(memory):
            count = self.file.readinto(memory[done:])
            if not count:
                raise Refusal("a file that stays as long as it was", got="one that shrank while it was read")
            done += count

    def tensor(self) -> Tensor:
        """All bytes of the window as a uint8 tensor."""
        whole = Window(self.file, self.start, self.stop, self.budget)
        raw = empty(whole.left, self.budget)
        whole.fill(raw)
        return raw

    def _pass(self, count: int) -> None:
        if not 0 <= count <= self.left:
            raise Refusal(f"{count:,} more bytes", got=f"{self.left:,} before the end")
        self.left -= count


def empty(count: int, budget: Budget) -> Tensor:
    """Memory for `count` bytes, paid for."""
    budget.allocate(count)
    return torch.empty(count, dtype=torch.uint8)
