"""Where the jobs of an experiment run: one after another in this process, or spread over Ray workers.

A job asks the store before it works, so the engines differ in time alone: whatever one leaves unfinished, the
other continues.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from pags.errors import PagsError, UsageError
from pags.training.fit import Report

S = TypeVar("S")

Progress = Callable[[str, float], None]
"""Told what is being done and which share of the whole is finished."""

ENGINES = ("inline", "ray")


@dataclass(frozen=True)
class Job(Generic[S]):
    """A part of the work.

    Args:
        name: what it does, for people.
        cost: roughly how long it takes, in any unit that all jobs share.
        run: does it, with the state of its process (as a rule `Stages`), and tells the share that is done.
        shared: whether later jobs need its result, so that it is done before they are spread.
    """

    name: str
    cost: float
    run: Callable[[S, Report], object]
    shared: bool = False


def run_jobs(
    jobs: Sequence[Job[S]],
    make: Callable[[], S],
    *,
    engine: str = "inline",
    device: str = "cpu",
    progress: Progress = lambda what, share: None,
) -> None:
    """Do all jobs.

    Args:
        jobs: in an order in which each finds what it needs.
        make: makes the state that a process's jobs share.
        engine: "inline" or "ray", which starts workers on this machine or uses the cluster that
            `RAY_ADDRESS` names; the store's folder must then be one that all machines see.
        device: "cuda" gives each Ray worker an accelerator of its own.
        progress: told what is being done.

    Raises:
        UsageError: an unknown engine, or Ray is not installed.
        PagsError: what a job raised, or a worker was lost; finished work is kept.
    """
    if engine not in ENGINES:
        raise UsageError(f"an engine among {', '.join(ENGINES)}", got=repr(engine), suggestion="inline")
    alone = [job for job in jobs if job.shared or engine == "inline"]
    spread = [job for job in jobs if not (job.shared or engine == "inline")]
    if spread:
        _ray()  # what is missing is said before any work
    total, done = sum(job.cost for job in jobs) or 1.0, 0.0
    state = make()
    for job in alone:
        progress(job.name, done / total)
        job.run(state, _part(progress, job, done, total))
        done += job.cost
    for job in _on_ray(spread, make, device) if spread else ():
        done += job.cost
        progress(f"done: {job.name}", done / total)


def _part(progress: Progress, job: Job[S], done: float, total: float) -> Report:
    """Progress of one job as progress of the whole."""
    return lambda share: progress(job.name, (done + share * job.cost) / total)


def _on_ray(jobs: Sequence[Job[S]], make: Callable[[], S], device: str) -> Iterator[Job[S]]:
    """The jobs, each when it is done by one of as many workers as there are processors."""
    ray = _ray()
    own = not ray.is_initialized()
    if own:
        where = {"address": "auto"} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
        ray.init(log_to_driver=False, logging_level="error", **where)
    try:
        need = {"num_gpus": 1} if device == "cuda" else {"num_cpus": 1}
        slots = int(ray.cluster_resources().get("GPU" if device == "cuda" else "CPU", 1))
        worker = ray.remote(**need)(_Worker)
        workers = [worker.remote(make) for _ in range(max(1, min(slots, len(jobs))))]
        try:
            yield from _spread(ray, workers, jobs)
        finally:
            for one in workers:  # else they hold the processors of a cluster that is not ours
                ray.kill(one)
    finally:
        if own:
            ray.shutdown()


def _spread(ray: Any, workers: Sequence[Any], jobs: Sequence[Job[S]]) -> Iterator[Job[S]]:
    """The most costly jobs first, each to the worker that is free."""
    waiting = sorted(jobs, key=lambda job: -job.cost)
    running = {w.do.remote(waiting.pop(0)): (w, job) for w, job in zip(workers, list(waiting), strict=False)}
    while running:
        (finished,), _ = ray.wait(list(running), num_returns=1)
        worker, job = running.pop(finished)
        try:
            ray.get(finished)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, PagsError):
                raise error.cause from error
            raise
        except ray.exceptions.RayError as error:
            raise PagsError(
                f"a worker to finish {job.name!r}",
                got=f"{type(error).__name__}, the worker is gone",
                suggestion="running again (finished work is kept), with fewer workers where memory ran out",
            ) from error
        if waiting:
            following = waiting.pop(0)
            running[worker.do.remote(following)] = (worker, following)
        yield job


class _Worker:
    """One process of the cluster with its state."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make

    @cached_property
    def state(self) -> Any:
        """Made by the first job, whose error then says why it cannot be made."""
        return self.make()

    def do(self, job: Job[Any]) -> None:
        job.run(self.state, lambda share: None)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "Ray for --engine ray",
            got="it is not installed",
            suggestion="pip install 'pags[ray]', or --engine inline",
        ) from error
    return ray
