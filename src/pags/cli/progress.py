"""Progress: a bar on a terminal; elsewhere a line per job, and one per minute."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from pags.cli.output import Output


class Console(RichConsole):
    """The terminal, which says nothing where another form of the answer was asked for."""

    @property
    def quiet(self) -> bool:
        return Output.form != "text"

    @quiet.setter
    def quiet(self, value: bool) -> None:
        """It is decided by the words of the command alone."""


console = Console(highlight=False, soft_wrap=True)

SECONDS_BETWEEN_LINES = 60.0
"""After which a line is written though the job is still the same, where there is no terminal."""


class ProgressLine:
    """Call it with what is being done and the share of the whole that is finished; it tells the time left."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._last, self._said_at = "", self._started
        self._begun: float | None = None
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, TextColumn("{task.fields[left]}"), console=console, transient=True)
        self._task = self._bar.add_task("starting", total=1.0, left="")

    def __enter__(self) -> Self:
        if console.is_terminal and not console.quiet:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if console.is_terminal:  # elsewhere it would end in an empty line
            self._bar.stop()

    def begun_at(self, share: float) -> None:
        """Say which share was finished earlier, in a run that continues; the first word counts."""
        self._begun = share if self._begun is None else self._begun

    def __call__(self, what: str, share: float) -> None:
        left = self._left(share)
        if console.is_terminal:
            self._bar.update(self._task, completed=share, description=what, left=left)
        elif what != self._last or time.monotonic() - self._said_at > SECONDS_BETWEEN_LINES:
            console.print(f"[{share:4.0%}] {what}" + (f" ({left})" if left else ""), markup=False)
            self._said_at = time.monotonic()
        self._last = what

    def _left(self, share: float) -> str:
        """Time left, once enough is done to guess it."""
        spent, done = time.monotonic() - self._started, share - (self._begun or 0.0)
        if done < 0.03 or spent < 2:
            return ""
        seconds = round(spent * (1 - share) / done)
        return f"about {seconds // 60} min {seconds % 60:02d} s left"


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
