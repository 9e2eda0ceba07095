"""Where the tasks of an experiment run: in this process, in worker processes, or spread over Ray.

A task is plain data, and whoever works on it holds a lease in the store (`plan`), so the engines differ in
time alone: whatever one leaves unfinished, another continues, and any number of runs share the work of one
folder. Tasks of one stage run at once, those of the next wait for them.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch

from pags.errors import PagsError, UsageError
from pags.experiments.plan import RUNS, claimed, clear, finished, in_order, note
from pags.store import Store

Report = Callable[[float], None]
"""Called with the fraction completed."""
Progress = Callable[[str, float], None]
"""Called with what is being done and the fraction of the whole that is completed."""

ENGINES = ("inline", "local", "ray")
WAIT = 0.5
"""Seconds for which a task's end is waited for at a time."""
AGAIN = 1.0
"""Seconds after which a task that another process works on is asked for again."""
ATTEMPTS = 3
"""Workers of Ray that a task may lose."""


@dataclass(frozen=True)
class Task:
    """A part of the work.

    Args:
        name: what it does, for people.
        cost: roughly how long it takes, in any unit that all tasks share.
        what: plain data that the state of a process understands.
        stage: tasks of a later stage need what earlier ones make, and wait for them.
        file: the name of its result in the store; "": none, and it is done in every run.
    """

    name: str
    cost: float
    what: tuple[Any, ...]
    stage: int = 0
    file: str = ""


class State(Protocol):
    """What the tasks of a process share, as a rule an `Experiment`."""

    def do(self, what: tuple[Any, ...], report: Report) -> None:
        """Do one task."""
        ...


Make = Callable[[], State]


class Pool(Protocol):
    """Somewhere that tasks run, `slots` of them at a time."""

    slots: int

    def begin(self, task: Task) -> None:
        """Begin a task."""
        ...

    def ended(self) -> "Sequence[tuple[Task, bool]]":
        """Wait a little for tasks to end: which did, and whether each is done or has to begin again."""
        ...


def run_tasks(
    tasks: Sequence[Task],
    make: Make,
    *,
    engine: str = "inline",
    workers: int | None = None,
    device: str = "cpu",
    progress: Progress = lambda what, share: None,
    store: Store | None = None,
    run: str = "tasks",
    shard: tuple[int, int] | None = None,
) -> None:
    """Do all tasks: stage by stage, within each the most costly first.

    What another process is at, such as another shard, is waited for, and taken over if that process dies.

    Args:
        tasks: in any order.
        make: makes the state of a process; for "local" and "ray" it goes to other processes.
        engine: "inline"; "local", worker processes with one thread each on this machine (a script that asks
            for them does so under `if __name__ == "__main__"`); or "ray", on this machine or on the cluster
            that `RAY_ADDRESS` names, whose machines must all see the store's folder.
        workers: processes; None: of "local" as many as there are cores, on a GPU one; of "ray" one for each
            processor, or GPU. More of Ray's than there are GPUs share them.
        device: "cuda" gives each Ray worker an accelerator of its own.
        progress: called with what is being done.
        store: where the results of tasks are; it gets the plan, the leases and what tasks took.
        run: what the plan is called there.
        shard: (i, n): begin with every n-th task from the i-th; None: this run has no others beside it.

    Raises:
        UsageError: an unknown engine, or Ray is not installed.
        PagsError: what a task raised, or a worker was lost; finished work is kept.
    """
    if engine not in ENGINES:
        raise UsageError(f"an engine among {', '.join(ENGINES)}", got=repr(engine), suggestion="inline")
    every, tasks = tasks, list(tasks)
    if store is not None:
        _write_plan(store, run, every)
        tasks = [task for task in every if not finished(store.root, task.file)]
        clear(store.root, {task.file for task in every} - {task.file for task in tasks})
    if not tasks:
        return
    told, worker = _Told(progress, sum(task.cost for task in tasks) or 1.0), _Worker(make, store)
    count = workers or (1 if device == "cuda" else os.cpu_count() or 1)
    with one_thread() if engine == "local" else nullcontext():
        if engine == "ray":
            where: Any = _on_ray(worker, workers, device, len(tasks))
        elif engine == "inline" or count == 1:
            where = nullcontext(_Here(worker, told))
        else:
            where = _in_processes(worker, min(count, len(tasks)), told)
        with where as pool:
            for stage in sorted({task.stage for task in tasks}):
                _run(pool, in_order([task for task in tasks if task.stage == stage], shard), told)
    if store is not None:
        clear(store.root, (task.file for task in every))


def _write_plan(store: Store, run: str, tasks: Sequence[Task]) -> None:
    """Say in the store what is to be done; a plan that is there already stays as it is."""
    planned = {"tasks": [{n: getattr(task, n) for n in ("name", "stage", "cost", "file")} for task in tasks]}
    name = f"{RUNS}/{run}.json"
    if not (store.has(name) and store.read_record(name) == planned):
        store.write_record(name, planned)


def _run(pool: Pool, tasks: Sequence[Task], told: "_Told") -> None:
    """Do the tasks of one stage."""
    waiting, others, running, again = deque(tasks), list[Task](), 0, 0.0
    while waiting or others or running:
        while waiting and running < pool.slots:
            pool.begin(waiting.popleft())
            running += 1
        for task, done in pool.ended() if running else ():
            running -= 1
            if done:
                told(task, 1.0)
            else:
                others.append(task)
        if others and not waiting and time.monotonic() > again:
            waiting, others, again = deque(others), [], time.monotonic() + AGAIN
        elif others and not running:
            time.sleep(WAIT)


@dataclass
class _Told:
    """Progress of tasks as progress of the whole."""

    progress: Progress
    total: float
    spent: float = 0.0
    shares: dict[Task, float] = field(default_factory=dict)

    def __call__(self, task: Task, share: float) -> None:
        before = self.shares.get(task, 0.0)
        self.shares[task] = max(share, before)
        self.spent += task.cost * (self.shares[task] - before)
        self.progress(task.name, min(1.0, self.spent / self.total))


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


class _Worker:
    """One process with its state."""

    def __init__(self, make: Make, store: Store | None) -> None:
        self.make, self.store = make, store

    @cached_property
    def state(self) -> State:
        """Made by the first task, whose error then says why it cannot be made."""
        return self.make()

    def do(self, task: Task, report: Report = lambda share: None) -> bool:
        """Do a task; whether it is done, for another process may be at it."""
        if self.store is None or not task.file:
            self.state.do(task.what, report)
            return True
        root, started = self.store.root, time.monotonic()
        if finished(root, task.file):
            return True
        with claimed(root, task.file) as ours:
            if ours and not finished(root, task.file):  # between the two looks
                self.state.do(task.what, report)
                note(root, task.file, task.cost, time.monotonic() - started)
        return ours


class _Here:
    """This process."""

    slots = 1

    def __init__(self, worker: _Worker, told: _Told) -> None:
        self.worker, self.told = worker, told
        self.done: list[tuple[Task, bool]] = []

    def begin(self, task: Task) -> None:
        self.told(task, 0.0)
        self.done = [(task, self.worker.do(task, lambda share: self.told(task, share)))]

    def ended(self) -> list[tuple[Task, bool]]:
        return self.done


# Worker processes ----------------------------------------------------------------------------------------

_worker: _Worker | None = None  # of a worker process, which serves one experiment
_said: Any = None


def _begin(worker: _Worker, said: Any) -> None:
    global _worker, _said
    torch.set_num_threads(1)  # two processes with two threads each wait for each other
    _worker, _said = worker, said
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed has nobody left to report to, and would go on for hours."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _do(place: int, task: Task) -> bool:
    assert _worker is not None
    _said.put((place, 0.0))
    return _worker.do(task, lambda share: _said.put((place, share)))


@contextmanager
def _in_processes(worker: _Worker, count: int, told: _Told) -> Iterator[Pool]:
    """A few processes with one thread each, which serve all stages."""
    context, others = multiprocessing.get_context("spawn"), set(multiprocessing.active_children())
    said = context.SimpleQueue()
    pool = _Processes(ProcessPoolExecutor(count, context, _begin, (worker, said)), said, count, told)
    try:
        yield pool
    except BrokenProcessPool as error:
        raise _lost(
            [pool.tasks[place] for place in pool.running.values()] or pool.tasks[-1:], error
        ) from error
    finally:
        # An error, or Ctrl-C: what has been begun is not waited for. Idle workers are: a process that was
        # started by multiprocessing closes their queue when it ends, and would then wait for them for ever.
        pool.executor.shutdown(wait=not pool.running, cancel_futures=True)
        if pool.running:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
        said.close()


@dataclass
class _Processes:
    executor: ProcessPoolExecutor
    said: Any
    slots: int
    told: _Told
    running: dict[Future[bool], int] = field(default_factory=dict)
    tasks: list[Task] = field(default_factory=list)

    def begin(self, task: Task) -> None:
        self.tasks.append(task)
        place = len(self.tasks) - 1
        with _deaf():
            self.running[self.executor.submit(_do, place, task)] = place

    def ended(self) -> list[tuple[Task, bool]]:
        finished, _ = wait(self.running, timeout=WAIT, return_when=FIRST_COMPLETED)
        while not self.said.empty():
            place, share = self.said.get()
            self.told(self.tasks[place], share)
        found = [(self.tasks[self.running[future]], future.result()) for future in finished]
        for future in finished:
            del self.running[future]
        return found


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


def _lost(tasks: Sequence[Task], error: Exception) -> PagsError:
    return PagsError(
        f"a worker to finish {' or '.join(repr(task.name) for task in tasks) or 'its task'}",
        got=f"{type(error).__name__}, the worker is gone",
        suggestion="running again (finished work is kept), with fewer workers where memory ran out",
    )


# Ray -----------------------------------------------------------------------------------------------------


@contextmanager
def _on_ray(worker: _Worker, workers: int | None, device: str, most: int) -> Iterator[Pool]:
    """Workers of Ray, on this machine or on a cluster."""
    ray = _ray()
    own = not ray.is_initialized()
    if own:
        where = {"address": "auto"} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
        ray.init(log_to_driver=False, logging_level="error", **where)
    try:
        resource = "GPU" if device == "cuda" else "CPU"
        there = int(ray.cluster_resources().get(resource, 1))
        count = max(1, min(workers or there, most))
        share = min(1.0, there / count) if device == "cuda" else 1
        actor = ray.remote(**{f"num_{resource.lower()}s": share})(_Worker)
        pool = _Ray(ray, [actor.remote(worker.make, worker.store) for _ in range(count)])
        try:
            yield pool
        finally:
            for one in pool.every:  # else they hold the processors of a cluster that is not ours
                ray.kill(one)
    finally:
        if own:
            ray.shutdown()


class _Ray:
    """Workers; the task of one that is lost, with its node or without, begins again on another."""

    def __init__(self, ray: Any, workers: list[Any]) -> None:
        self.ray, self.every, self.idle, self.slots = ray, workers, list(workers), len(workers)
        self.running: dict[Any, tuple[Any, Task]] = {}
        self.losses: dict[Task, int] = {}

    def begin(self, task: Task) -> None:
        worker = self.idle.pop()
        self.running[worker.do.remote(task)] = worker, task

    def ended(self) -> list[tuple[Task, bool]]:
        finished, _ = self.ray.wait(list(self.running), num_returns=1, timeout=WAIT)
        return [self._result(one) for one in finished]

    def _result(self, finished: Any) -> tuple[Task, bool]:
        worker, task = self.running.pop(finished)
        try:
            done = bool(self.ray.get(finished))
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, PagsError):
                raise error.cause from error
            raise
        except self.ray.exceptions.RayError as error:
            self.slots -= 1
            self.losses[task] = 1 + self.losses.get(task, 0)
            if not self.slots or self.losses[task] == ATTEMPTS:
                raise _lost([task], error) from error
            return task, False
        self.idle.append(worker)
        return task, done


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
