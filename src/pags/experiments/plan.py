"""What several processes say of their work in the folder that they share: plan, leases, seconds, failures.

A run writes the plan of its tasks, each with the file of its result, to `runs/NAME.json`. Who works on a
result holds a lease on it, a file in `claims/` that exists once, and renews it; one that was not renewed for
`LEASE` seconds, or whose process on this machine is gone, is taken over. What tasks took stands in a file for
each process in `runs/`, and why a result can never be in `failures/`. Nothing here needs torch, so that the
question how far a run is has its answer at once.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pags.errors import NothingLeft, PagsError, UsageError
from pags.records import TEMPORARY, Record

T = TypeVar("T")
LEASE, RENEWED = 300.0, 20.0
"""Seconds without a sign of life after which a lease is taken over, and between such signs."""
CLAIMS, FAILURES, RUNS = "claims", "failures", "runs"


@dataclass(frozen=True)
class Holder:
    """Who works on a result.

    Args:
        host, process: a machine, and a process there.
        since: seconds since 1970.
    """

    host: str
    process: int
    since: float

    @classmethod
    def here(cls) -> "Holder":
        """This process, now."""
        return cls(socket.gethostname(), os.getpid(), time.time())

    def is_here(self) -> bool:
        """Whether it is this process."""
        return (self.host, self.process) == (socket.gethostname(), os.getpid())

    def is_gone(self) -> bool:
        """Whether it was a process of this machine that has ended, also where nobody asked how."""
        if self.host != socket.gethostname() or self.process == os.getpid() or os.name != "posix":
            return False
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        with suppress(OSError):  # a zombie answers signals
            stat = Path(f"/proc/{self.process}/stat").read_text()
            return stat.rpartition(")")[2].split()[0] == "Z"
        return False


def name_of(file: str) -> str:
    """What a result is called in `claims` and `failures`."""
    return Path(file).name.removesuffix(".safetensors")


def holder(root: Path, file: str) -> Holder | None:
    """Who works on a result; None where nobody does who is alive."""
    return _alive(root / CLAIMS / name_of(file))


def _alive(lease: Path) -> Holder | None:
    try:
        renewed, text = lease.stat().st_mtime, lease.read_text()
    except OSError:
        return None
    age = time.time() - renewed
    try:
        found = Holder(**json.loads(text))
    except (ValueError, TypeError):  # it is being written, or its writer was killed
        return Holder("unknown", 0, renewed) if age < RENEWED else None
    return None if age > LEASE or found.is_gone() else found


@contextmanager
def claimed(root: Path, file: str) -> Iterator[bool]:
    """Inside, a result is this process's to make; whether that is so, for another may be at it.

    Raises:
        PagsError: the folder cannot be written.
    """
    lease = root / CLAIMS / name_of(file)
    taken = _take(lease)
    if not taken:
        found = _alive(lease)
        yield found is not None and found.is_here()
        return
    _renewal.start(lease)
    try:
        yield True
    finally:
        _renewal.leases.discard(lease)
        if (found := _alive(lease)) and found.is_here():  # not of another who took it over
            lease.unlink(missing_ok=True)


def _take(lease: Path) -> bool:
    """Whether this process now holds a lease that nobody held who is alive."""
    if lease.exists() and _alive(lease) is None:
        _put_aside(lease)
    text = json.dumps(vars(Holder.here()))
    try:
        lease.parent.mkdir(exist_ok=True)
        with lease.open("x") as file:
            file.write(text)
    except OSError as error:
        if isinstance(error, FileExistsError) and lease.parent.is_dir():
            return False
        with suppress(OSError):
            lease.unlink(missing_ok=True)  # it says nothing
        raise PagsError(
            f"room and permission to write {lease}",
            got=error.strerror,
            suggestion="freeing disk space or another folder with --out; what is finished is kept",
        ) from error
    return True


def _put_aside(lease: Path) -> None:
    """Remove the lease of a dead process: of several that try, one can rename it. A living one that slipped
    in between is put back."""
    aside = lease.with_name(f".{lease.name}-{socket.gethostname()}-{os.getpid()}")
    with suppress(FileNotFoundError):
        lease.rename(aside)
        if _alive(aside) is not None:
            with suppress(FileExistsError):
                os.link(aside, lease)
        aside.unlink()


def clear(root: Path, done: Iterable[str]) -> list[Path]:
    """Remove what dead processes left: temporary files, and leases on results that are done.

    Returns:
        What was removed.
    """
    names, found = {name_of(file) for file in done}, list[Path]()
    for lease in (root / CLAIMS).glob("*"):
        if (lease.name in names or lease.name.startswith(".")) and _alive(lease) is None:
            found.append(lease)
    for path in root.rglob(f"{TEMPORARY}*"):
        host, _, process = path.name.removeprefix(TEMPORARY).rpartition("-")[0].rpartition("-")
        writer = Holder(host, int(process) if process.isdecimal() else 0, 0.0)
        with suppress(OSError):
            if writer.is_gone() or time.time() - path.stat().st_mtime > LEASE:
                found.append(path)
    for path in found:
        path.unlink(missing_ok=True)
    return found


class _Renewal:
    """Renews the leases of this process, in one thread: to start one each takes longer than a small task."""

    def __init__(self) -> None:
        self.leases, self.thread = set[Path](), threading.Thread()

    def start(self, lease: Path) -> None:
        self.leases.add(lease)
        if not self.thread.is_alive():  # as at first, and in a forked process
            self.thread = threading.Thread(target=self._renew, daemon=True)
            self.thread.start()

    def _renew(self) -> None:
        while True:
            time.sleep(RENEWED)
            for lease in tuple(self.leases):
                with suppress(OSError):
                    os.utime(lease)


_renewal = _Renewal()


# Failures ------------------------------------------------------------------------------------------------


def failure(root: Path, file: str) -> Record | None:
    """Why a result can never be, as `PagsError` says it; None where nothing speaks against it."""
    try:
        return json.loads((root / FAILURES / f"{name_of(file)}.json").read_text())
    except (OSError, ValueError):
        return None


def why_not(root: Path, *files: str) -> str:
    """The first reason, in a few words, for which one of several results can never be; "" where none has."""
    found = [why for file in files if (why := failure(root, file))]
    return f"its training diverged: {found[0]['got'].partition(';')[0]}" if found else ""


def diverged(root: Path, tasks: Iterable[Any]) -> dict[str, str]:
    """The tasks that can never be done, by name, with the reason, once all others are."""
    return {task.name: why for task in tasks if (why := why_not(root, task.file))}


def left(of: list[T], missing: Mapping[str, str]) -> list[T]:
    """What is left of things that are compared.

    Raises:
        NothingLeft: nothing is, for the reasons in `missing`.
    """
    if not of:
        raise NothingLeft(
            "one training that does not diverge",
            got="; ".join(f"{name}: {why}" for name, why in missing.items()),
            suggestion="a lower learning rate or smaller strengths",
        )
    return of


# Plan and state ------------------------------------------------------------------------------------------


def in_order(tasks: Sequence[Any], shard: tuple[int, int] | None) -> list[Any]:
    """The order in which tasks begin: the most costly first, so that no long one is left for the end; of a
    shard i of n, its own before those that it helps with."""
    order = sorted(tasks, key=lambda task: -task.cost)
    if shard is None:
        return order
    own = set(order[shard[0] - 1 :: shard[1]])
    return sorted(order, key=lambda task: task not in own)


def shard_of(text: str) -> tuple[int, int]:
    """ "2/8" as (2, 8).

    Raises:
        UsageError: another text, or a place beyond the number.
    """
    place, mark, number = text.partition("/")
    if mark and place.isdecimal() and number.isdecimal() and 1 <= int(place) <= int(number):
        return int(place), int(number)
    raise UsageError("--shard I/N with I from 1 to N", got=repr(text), suggestion="--shard 1/4")


def finished(root: Path, file: str) -> bool:
    """Whether a result is there, or can never be."""
    return (root / file).is_file() or (root / FAILURES / f"{name_of(file)}.json").is_file()


def note(root: Path, file: str, cost: float, seconds: float) -> None:
    """Write down what a task took, in the file of this process."""
    with suppress(OSError), (root / RUNS / f"{socket.gethostname()}-{os.getpid()}.jsonl").open("a") as log:
        log.write(json.dumps({"file": file, "cost": cost, "seconds": seconds}) + "\n")


def states(root: Path) -> Iterator[Record]:
    """Every task of every plan in a folder, with its state: done, failed, running or waiting."""
    there = _listing(root)
    for plan in sorted((root / RUNS).glob("*.json")):
        for task in json.loads(plan.read_text())["tasks"]:
            found = {"run": plan.stem, **task, "state": "waiting"}
            name = name_of(task["file"])
            if there(task["file"]):
                found["state"] = "done"
            elif there(f"{FAILURES}/{name}.json"):
                found |= {"state": "failed", "reason": (failure(root, task["file"]) or {}).get("got")}
            elif there(f"{CLAIMS}/{name}") and (who := holder(root, task["file"])):
                found |= {"state": "running", **vars(who)}
            yield found


def _listing(root: Path) -> Callable[[str], bool]:
    """Whether a file is there, reading each folder once."""
    folders: dict[str, set[str]] = {}

    def there(file: str) -> bool:
        folder, _, name = file.rpartition("/")
        if folder not in folders:
            place = root / folder
            folders[folder] = {path.name for path in place.iterdir()} if place.is_dir() else set()
        return name in folders[folder]

    return there


def seconds_left(root: Path, tasks: Sequence[Record]) -> float | None:
    """How long the rest takes at the pace of the finished tasks, with as many at once as run now (one where
    none does); None where none is finished."""
    known, took = {task["file"] for task in tasks}, []
    for line in (line for log in (root / RUNS).glob("*.jsonl") for line in log.read_text().splitlines()):
        with suppress(ValueError):  # the last line of a process that was killed
            took += [each] if (each := json.loads(line))["file"] in known else []
    running = [task for task in tasks if task["state"] == "running"]
    left = sum(task["cost"] for task in tasks if task["state"] in ("running", "waiting"))
    if not left or not took:
        return 0.0 if not left else None
    pace = sum(each["seconds"] for each in took) / (sum(each["cost"] for each in took) or 1.0)
    spent = sum(min(pace * task["cost"], time.time() - task["since"]) for task in running)
    return (left * pace - spent) / max(1, len(running))
