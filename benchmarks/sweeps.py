"""What a sweep costs beside its tasks: planning, overhead per task, and the question how far it is.

    python benchmarks/sweeps.py [--tasks 100 1000 10000] [--ray]

Tasks keep one small tensor each. Overhead is the time of a run less that of doing the same tasks in a loop
without plan, leases and engines.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from pags.experiments.cache import Cache, Columns, Made, Report, columns
from pags.experiments.engines import Task, run_tasks
from pags.store import Store


@columns("numbers")
def number(of: int) -> Columns:
    """The smallest result there is."""
    return {"number": torch.tensor([float(of)])}


@dataclass
class Numbers:
    """A sweep of tasks that take no time."""

    store: Store

    def made(self, of: int) -> Made[Columns]:
        """A result to be."""
        return Cache(self.store).made(number, of=of)

    def tasks(self, count: int) -> list[Task]:
        """The plan."""
        return [Task(f"number {of}", 1, (of,), 0, self.made(of).file) for of in range(count)]

    def do(self, what: tuple[Any, ...], report: Report) -> None:
        """Do one task."""
        self.made(*what).ensure(report)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what was returned."""
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


def loop(folder: Path, count: int) -> None:
    """The same results without plan, leases and engine."""
    store = Store(folder)
    for of in range(count):
        store.write_tensors(f"numbers/{of}.safetensors", number(of=of), {})


def row(count: int, engines: Sequence[str]) -> str:
    """The figures for a number of tasks."""
    with TemporaryDirectory() as folder:
        bare, _ = timed(lambda: loop(Path(folder) / "loop", count))
        said = []
        for engine in engines:
            store = Store(Path(folder) / engine)
            planning, tasks = timed(lambda store=store: Numbers(store).tasks(count))  # type: ignore[misc]
            shard = {"shard": (1, 2)} if engine == "sharded" else {}
            where = {"engine": "inline" if engine == "sharded" else engine, **shard}
            spent, _ = timed(
                lambda store=store, tasks=tasks, where=where: run_tasks(  # type: ignore[misc]
                    tasks, partial(Numbers, store), store=store, run="numbers", **where
                )
            )
            said.append(f"{1000 * (spent - bare) / count:8.2f}")
        command = [sys.executable, "-m", "pags", "sweep", "status", str(Path(folder) / "inline")]
        ask = partial(subprocess.run, command, check=True, capture_output=True)
        status = min(timed(ask)[0] for _ in range(3))
    return f"{count:8} {planning:10.2f} {status:10.2f} {1000 * bare / count:8.2f} " + " ".join(said)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--ray", action="store_true")
    asked = parser.parse_args()
    engines = ["inline", "sharded", *(["ray"] if asked.ray else [])]
    print(
        f"{'tasks':>8} {'planning s':>10} {'status s':>10} {'loop ms':>8} "
        + " ".join(f"{e:>8}" for e in engines)
    )
    for count in asked.tasks:
        print(row(count, engines), flush=True)


if __name__ == "__main__":
    main()
