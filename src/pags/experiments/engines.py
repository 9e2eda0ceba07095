"""Where the tasks of an experiment run: in this process, in worker processes, or spread over Ray.

A task is plain data, and asks the store before it works, so the engines differ in time alone: whatever one
leaves unfinished, the other continues.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch

from pags.errors import PagsError, UsageError

Report = Callable[[float], None]
"""Called with the fraction completed."""
Progress = Callable[[str, float], None]
"""Called with what is being done and the fraction of the whole that is completed."""

ENGINES = ("inline", "local", "ray")


@dataclass(frozen=True)
class Task:
    """A part of the work.

    Args:
        name: what it does, for people.
        cost: roughly how long it takes, in any unit that all tasks share.
        what: plain data that the state of a process understands.
        shared: whether later tasks need its result, so that it is done before they are spread.
    """

    name: str
    cost: float
    what: tuple[Any, ...]
    shared: bool = False


class State(Protocol):
    """What the tasks of a process share, as a rule an `Experiment`."""

    def do(self, what: tuple[Any, ...], report: Report) -> None:
        """Do one task."""
        ...


Make = Callable[[], State]


def run_tasks(
    tasks: Sequence[Task],
    make: Make,
    *,
    engine: str = "inline",
    workers: int | None = None,
    device: str = "cpu",
    progress: Progress = lambda what, share: None,
) -> None:
    """Do all tasks.

    Args:
        tasks: in an order in which each finds what it needs.
        make: makes the state of a process; for "local" and "ray" it goes to other processes.
        engine: "inline"; "local", worker processes with one thread each on this machine (a script that asks
            for them does so under `if __name__ == "__main__"`); or "ray", on this machine or on the cluster
            that `RAY_ADDRESS` names, whose machines must all see the store's folder.
        workers: processes of "local"; None: as many as there are cores, on a GPU one.
        device: "cuda" gives each Ray worker an accelerator of its own.
        progress: called with what is being done.

    Raises:
        UsageError: an unknown engine, or Ray is not installed.
        PagsError: what a task raised, or a worker was lost; finished work is kept.
    """
    if engine not in ENGINES:
        raise UsageError(f"an engine among {', '.join(ENGINES)}", got=repr(engine), suggestion="inline")
    count = workers or (1 if device == "cuda" else os.cpu_count() or 1)
    if engine == "local" and count == 1:
        engine = "inline"
    alone = [task for task in tasks if task.shared or engine == "inline"]
    spread = [task for task in tasks if not (task.shared or engine == "inline")]
    if engine == "ray" and spread:
        _ray()  # what is missing is said before any work
    total, done = sum(task.cost for task in tasks) or 1.0, 0.0
    state = make() if alone else None
    with one_thread() if engine == "local" else nullcontext():
        for task in alone:
            assert state is not None
            progress(task.name, done / total)
            state.do(task.what, _part(progress, task, done, total))
            done += task.cost
    if not spread:
        return
    if engine == "local":
        _in_processes(spread, make, min(count, len(spread)), done, total, progress)
        return
    for task in _on_ray(spread, make, device):
        done += task.cost
        progress(f"done: {task.name}", done / total)


def _part(progress: Progress, task: Task, done: float, total: float) -> Report:
    """Progress of one task as progress of the whole."""
    return lambda share: progress(task.name, (done + share * task.cost) / total)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread inside: small networks gain little from a second one, whose waiting costs the neighbours,
    and the last digits of records are then the same whatever the number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def costly_first(tasks: Sequence[Task]) -> list[Task]:
    """The order in which workers begin tasks, so that no long one is left for the end."""
    return sorted(tasks, key=lambda task: -task.cost)


# Worker processes ----------------------------------------------------------------------------------------

_worker: "_Worker | None" = None  # of a worker process, which serves one experiment
_told: Any = None


def _begin(make: Make, told: Any) -> None:
    global _worker, _told
    torch.set_num_threads(1)  # two processes with two threads each wait for each other
    _worker, _told = _Worker(make), told
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed has nobody left to report to, and would go on for hours."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _do(place: int, what: tuple[Any, ...]) -> None:
    assert _worker is not None
    _told.put((place, 0.0))
    _worker.do(what, lambda share: _told.put((place, share)))


def _in_processes(
    tasks: Sequence[Task], make: Make, count: int, done: float, total: float, progress: Progress
) -> None:
    """The tasks, each in one of a few processes with one thread each."""
    context = multiprocessing.get_context("spawn")
    told, shares = context.SimpleQueue(), dict[int, float]()
    order, others = costly_first(tasks), set(multiprocessing.active_children())
    pool, running = ProcessPoolExecutor(count, context, _begin, (make, told)), dict[Future[None], int]()
    try:
        with _deaf():
            running |= {pool.submit(_do, place, task.what): place for place, task in enumerate(order)}
        while running:
            finished, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            last = _heard(told, shares)
            for future in finished:
                try:
                    future.result()
                except BrokenProcessPool as error:
                    begun = [order[place] for place, share in shares.items() if share < 1]
                    raise _lost(begun, error) from error
                last = running.pop(future)
                shares[last] = 1.0
            if last is not None:
                spent = sum(order[place].cost * share for place, share in shares.items())
                progress(order[last].name, (done + spent) / total)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        if running:  # an error, or Ctrl-C: what has been begun is not waited for
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
        told.close()


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes that are started here leave Ctrl-C, which a terminal sends to all, to this one."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may choose what is done with signals
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _heard(told: Any, shares: dict[int, float]) -> int | None:
    """Take in what the workers said, and give the place of the last one heard."""
    last = None
    while not told.empty():
        last, share = told.get()
        shares[last] = max(share, shares.get(last, 0.0))
    return last


def _lost(tasks: Sequence[Task], error: Exception) -> PagsError:
    return PagsError(
        f"a worker to finish {' or '.join(repr(task.name) for task in tasks) or 'its task'}",
        got=f"{type(error).__name__}, the worker is gone",
        suggestion="running again (finished work is kept), with fewer workers where memory ran out",
    )


# Ray -----------------------------------------------------------------------------------------------------


def _on_ray(tasks: Sequence[Task], make: Make, device: str) -> Iterator[Task]:
    """The tasks, each when it is done by one of as many workers as there are processors."""
    ray = _ray()
    own = not ray.is_initialized()
    if own:
        where = {"address": "auto"} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
        ray.init(log_to_driver=False, logging_level="error", **where)
    try:
        need = {"num_gpus": 1} if device == "cuda" else {"num_cpus": 1}
        slots = int(ray.cluster_resources().get("GPU" if device == "cuda" else "CPU", 1))
        worker = ray.remote(**need)(_Worker)
        workers = [worker.remote(make) for _ in range(max(1, min(slots, len(tasks))))]
        try:
            yield from _spread(ray, workers, tasks)
        finally:
            for one in workers:  # else they hold the processors of a cluster that is not ours
                ray.kill(one)
    finally:
        if own:
            ray.shutdown()


def _spread(ray: Any, workers: Sequence[Any], tasks: Sequence[Task]) -> Iterator[Task]:
    """The most costly tasks first, each to the worker that is free."""
    waiting = costly_first(tasks)
    running = {w.do.remote(waiting.pop(0).what): (w, t) for w, t in zip(workers, list(waiting), strict=False)}
    while running:
        (finished,), _ = ray.wait(list(running), num_returns=1)
        worker, task = running.pop(finished)
        try:
            ray.get(finished)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, PagsError):
                raise error.cause from error
            raise
        except ray.exceptions.RayError as error:
            raise _lost([task], error) from error
        if waiting:
            following = waiting.pop(0)
            running[worker.do.remote(following.what)] = (worker, following)
        yield task


class _Worker:
    """One process with its state."""

    def __init__(self, make: Make) -> None:
        self.make = make

    @cached_property
    def state(self) -> State:
        """Made by the first task, whose error then says why it cannot be made."""
        return self.make()

    def do(self, what: tuple[Any, ...], report: Report = lambda share: None) -> None:
        self.state.do(what, report)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "Ray for --engine ray",
            got="it is not installed",
            suggestion="pip install ray, or --engine inline",
        ) from error
    return ray
