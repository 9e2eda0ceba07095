"""The engines: the same artefacts wherever the tasks run, and one clear error for whatever goes wrong."""

import copy
import os
import pickle
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from pags.errors import PagsError, TrainingDiverged, UsageError
from pags.experiments.classifiers import Training
from pags.experiments.engines import Report, Task, run_tasks
from pags.experiments.experiment import GALLERY, RECORD, Experiment, run_sweeps
from pags.experiments.settings import ExperimentSettings, Manifold, Score, Sweep
from pags.store import Store
from pags.training.fit import Plan

TINY = ExperimentSettings(
    train_images=100,
    images=20,
    resamples=20,
    gallery=2,
    repeats=2,
    sweeps=(Sweep(objective="pgd", strengths=(0, 0.5, 1.5), attack_steps=1),),
    training=Training(plan=Plan(epochs=1, learning_rate=0.1)),
    manifold=Manifold(
        latent=3,
        widths=(4, 8),
        plan=Plan(epochs=1, optimizer="adam", learning_rate=2e-3, weight_decay=0),
    ),
    score=Score(
        widths=(8, 8),
        plan=Plan(epochs=1, optimizer="adam", learning_rate=5e-3, weight_decay=0, average=0.9),
    ),
    measures=ExperimentSettings().measures.with_(directions=1),
)
SPREAD = ("local", "ray")
"""The engines whose tasks run in other processes."""


@dataclass
class Folder:
    """A state whose tasks leave files, with the number of the process that wrote them."""

    path: Path

    def do(self, what: tuple[Any, ...], report: Report) -> None:
        kind, *rest = what
        report(0.5)
        if kind == "raise":
            raise rest[0]
        if kind == "look":
            there = sorted(path.name for path in self.path.iterdir())
            (self.path / rest[0]).write_text("\n".join([str(os.getpid()), *there]))
        if kind == "meet":
            (self.path / rest[0]).write_text(str(os.getpid()))
            while not (self.path / rest[1]).exists():
                time.sleep(0.01)
        if kind == "die":
            os._exit(1)
        if kind == "work on":
            (self.path / rest[0]).write_text(str(os.getpid()))
            time.sleep(600)
        if kind == "write":
            (self.path / rest[0]).write_text(str(os.getpid()))


class DyingOnce(Experiment):
    """An experiment whose first task in another process kills it, as a system out of memory does."""

    def do(self, what: tuple[Any, ...], report: Report) -> None:
        mark = self.store.root / "unfinished" / "died"
        if what[:3] == ("train", "pgd", 0.5) and not mark.exists():
            mark.parent.mkdir(exist_ok=True)
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        super().do(what, report)


def writing(name: str, *, stage: int = 0, cost: float = 1.0) -> Task:
    return Task(name, cost, ("write", name), stage)


def unmakeable(here: int, folder: Path) -> Folder:
    """A state that the process `here` can make, and no other."""
    if os.getpid() != here:
        raise PagsError("a folder that workers see", got="none", suggestion="a shared folder")
    return Folder(folder)


def made(folder: Path) -> dict[str, bytes]:
    """What a later run builds on: everything but what belongs to work that goes on."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not {"unfinished", "runs", "claims"} & set(path.parts)
    }


def hear() -> tuple[list[tuple[str, float]], Callable[[str, float], None]]:
    heard: list[tuple[str, float]] = []
    return heard, lambda what, share: heard.append((what, share))


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the tiny sweep makes in this process."""
    folder = tmp_path_factory.mktemp("inline")
    run_sweeps(TINY, Store(folder))
    return folder


# --- inline ----------------------------------------------------------------------------------------------


class Noting:
    """A state that remembers what it did."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def do(self, what: tuple[Any, ...], report: Report) -> None:
        self.done.append(what[0])
        for share in (0.0, 0.5, 1.0):
            report(share)


def test_tasks_run_by_stage_the_costliest_first_and_progress_rises() -> None:
    heard, progress = hear()
    state = Noting()
    tasks = [Task(n, cost, (n,), n == "c") for n, cost in zip("cab", (4, 3, 1), strict=True)]
    run_tasks(tasks, lambda: state, progress=progress)
    assert state.done == ["a", "b", "c"]
    shares = [share for _, share in heard]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] == 1
    halves = {what: share for what, share in heard if share < 1}
    assert halves == pytest.approx({"a": 3 / 8, "b": 4 / 8, "c": 6 / 8})


@pytest.mark.parametrize("engine", ["inline", "local"])
def test_no_tasks_are_no_work(engine: str) -> None:
    def fail() -> Folder:
        raise AssertionError("a state was made")

    run_tasks([], fail, engine=engine, workers=2)


def test_tasks_that_cost_nothing_are_done_all_the_same(tmp_path: Path) -> None:
    run_tasks([writing("a", cost=0)], partial(Folder, tmp_path))
    assert (tmp_path / "a").exists()


def test_an_unknown_engine_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="an engine among inline, local, ray; got 'dask'"):
        run_tasks([writing("a")], partial(Folder, tmp_path), engine="dask")
    assert not list(tmp_path.iterdir())


def test_without_ray_the_command_says_so_before_any_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    tasks = [writing("first"), writing("a")]
    with pytest.raises(UsageError, match="Ray for --engine ray; got it is not installed"):
        run_tasks(tasks, partial(Folder, tmp_path), engine="ray")
    assert not list(tmp_path.iterdir())


# --- worker processes on this machine --------------------------------------------------------------------


def test_one_worker_is_this_process(tmp_path: Path) -> None:
    run_tasks([writing("a")], partial(Folder, tmp_path), engine="local", workers=1)
    assert (tmp_path / "a").read_text() == str(os.getpid())


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_workers_makes_the_same_to_the_last_byte(
    workers: int, inline: Path, tmp_path: Path
) -> None:
    heard, progress = hear()
    record = run_sweeps(TINY, Store(tmp_path), progress, engine="local", workers=workers)
    assert record == Store(inline).read_record(RECORD)
    here, there = made(inline), made(tmp_path)
    assert list(there) == list(here)
    assert [name for name in here if here[name] != there[name]] == []
    shares = [share for _, share in heard]
    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] == 1


def test_pictures_are_the_same_whatever_the_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Experiment, "made", lambda self: [])  # the untrained network is enough
    of_one, of_two = (Experiment(tiny.settings(), Store(tmp_path)) for _ in range(2))
    expected = of_one.gallery()
    torch.set_num_threads(2)
    try:
        found = of_two.gallery()
    finally:
        torch.set_num_threads(1)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def test_a_worker_that_dies_is_one_line_and_the_run_continues(inline: Path, tmp_path: Path) -> None:
    store = Store(tmp_path)
    tasks = Experiment(TINY, store).tasks()
    with pytest.raises(PagsError) as caught:
        run_tasks(tasks, partial(DyingOnce, TINY, store), engine="local", workers=2)
    said = str(caught.value)
    assert "a worker to finish" in said
    assert "classifier: pgd 0.5" in said
    assert "finished work is kept" in said
    assert "\n" not in said
    kept = made(tmp_path)
    assert kept
    run_sweeps(TINY, store, engine="local", workers=2)
    assert made(tmp_path) == made(inline)
    assert kept.items() <= made(tmp_path).items()


def test_workers_that_die_between_tasks_are_one_line(tmp_path: Path) -> None:
    import multiprocessing

    def kill(what: str, share: float) -> None:
        if share == 0.5:  # the first task is done
            for process in multiprocessing.active_children():
                process.kill()
                process.join()
            time.sleep(1)  # so that the pool has seen it

    tasks = [writing("a"), writing("b", stage=1)]
    with pytest.raises(PagsError, match="a worker to finish 'b'; got BrokenProcessPool"):
        run_tasks(tasks, partial(Folder, tmp_path), progress=kill, engine="local", workers=2)
    assert (tmp_path / "a").exists()


def test_of_a_failed_run_no_worker_is_left_and_no_process_of_others_is_touched(tmp_path: Path) -> None:
    import multiprocessing

    bystander = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    bystander.start()
    try:
        with pytest.raises(ZeroDivisionError):
            run_tasks(
                [Task("fails", 1, ("raise", ZeroDivisionError())), *(writing(f"{i}") for i in range(3))],
                partial(Folder, tmp_path), engine="local", workers=2,
            )  # fmt: skip
        until = time.monotonic() + 20
        while len(multiprocessing.active_children()) > 1 and time.monotonic() < until:
            time.sleep(0.05)
        assert multiprocessing.active_children() == [bystander]
        assert bystander.is_alive()
    finally:
        bystander.terminate()
        bystander.join()


def two_that_work_on(folder: Path) -> None:
    """A run of two tasks that take long."""
    tasks = [Task(name, 1, ("work on", name)) for name in "ab"]
    run_tasks(tasks, partial(Folder, folder), engine="local", workers=2)


def test_of_a_run_that_is_killed_no_worker_is_left(tmp_path: Path) -> None:
    import multiprocessing

    run = multiprocessing.get_context("spawn").Process(target=two_that_work_on, args=(tmp_path,))
    run.start()
    until = time.monotonic() + 120
    while not all((tmp_path / name).exists() and (tmp_path / name).read_text() for name in "ab"):
        assert time.monotonic() < until
        time.sleep(0.05)
    workers = [int((tmp_path / name).read_text()) for name in "ab"]
    run.kill()  # as a system out of memory does, so that it can tell its workers nothing
    run.join()
    until = time.monotonic() + 20
    while any(is_running(worker) for worker in workers):
        assert time.monotonic() < until, "a worker goes on without its run"
        time.sleep(0.05)


def is_running(process: int) -> bool:
    status = Path(f"/proc/{process}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def test_what_bits_flipped_in_is_made_anew(inline: Path, tmp_path: Path) -> None:
    """A network, what was measured, a prepared score, the record and its pictures."""
    shutil.copytree(inline, tmp_path, dirs_exist_ok=True)
    damaged = [next((tmp_path / folder).iterdir()) for folder in ("classifiers", "measures", "denoisers")]
    for path in [*damaged, tmp_path / RECORD, tmp_path / GALLERY]:
        content = bytearray(path.read_bytes())
        content[-len(content) // 3] ^= 4
        path.write_bytes(content)
    run_sweeps(TINY, Store(tmp_path))
    wrong = [name for name, content in made(inline).items() if made(tmp_path)[name] != content]
    assert wrong in ([], [str(damaged[2].relative_to(tmp_path))])  # the denoiser was asked for nothing


# --- Ray -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two workers with one thread each, as this process has."""
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"
        )  # how Ray will do it from now on; else it warns
        try:
            ray.init(
                num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error",
                runtime_env={"env_vars": {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}},
            )  # fmt: skip
        except (OSError, RuntimeError, TimeoutError) as error:
            pytest.skip(f"Ray does not start on this machine: {error}")
        # Workers cannot import this file, so what they need of it travels with the task.
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield ray
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
        ray.shutdown()


@pytest.fixture(params=SPREAD)
def spread(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each engine whose tasks run in other processes, with two of them."""
    if request.param == "ray":
        request.getfixturevalue("cluster")
    return {"engine": request.param, "workers": 2}


@pytest.mark.usefixtures("cluster")
def test_ray_and_inline_make_the_same_to_the_last_byte(inline: Path, tmp_path: Path) -> None:
    heard, progress = hear()
    record = run_sweeps(TINY, Store(tmp_path), progress, engine="ray")
    assert record == Store(inline).read_record(RECORD)
    here, there = made(inline), made(tmp_path)
    assert list(there) == list(here)
    assert [name for name in here if here[name] != there[name]] == []
    shares = [share for _, share in heard]
    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] == 1
    trained = {what for what, _ in heard if what.startswith("classifier: ")}
    assert len(trained) == 6  # 0, 0.5 and 1.5 twice each


def test_what_other_processes_leave_unfinished_continues_inline(
    spread: dict[str, Any], inline: Path, tmp_path: Path
) -> None:
    run_sweeps(TINY, Store(tmp_path), **spread)
    for kept in sorted((tmp_path / "measures").iterdir())[::2]:
        kept.unlink()
    (tmp_path / RECORD).unlink()
    assert run_sweeps(TINY, Store(tmp_path)) == Store(inline).read_record(RECORD)
    assert made(tmp_path) == made(inline)


def test_a_stage_waits_for_the_one_before_in_the_same_workers(spread: dict[str, Any], tmp_path: Path) -> None:
    """Stage 1 is listed first and the costliest, and the tasks of a stage do not wait for each other."""
    tasks = [Task(f"later {i}", 9, ("look", f"later {i}"), 1) for i in range(2)]
    tasks += [Task(f"first {i}", 1, ("meet", f"first {i}", f"first {1 - i}")) for i in range(2)]
    run_tasks(tasks, partial(Folder, tmp_path), **spread)
    there = [(tmp_path / f"later {i}").read_text().splitlines() for i in range(2)]
    assert all({"first 0", "first 1"} <= set(names) for _, *names in there)
    workers = {(tmp_path / f"first {i}").read_text() for i in range(2)}
    assert len(workers) == 2
    assert str(os.getpid()) not in workers
    assert {process for process, *_ in there} <= workers


ERRORS = [
    PagsError("a finite loss", got="nan", suggestion="a lower rate"),
    UsageError("a strength of zero or more", got=-1, suggestion="0.5"),
    TrainingDiverged("a finite loss", got="inf at step 3", suggestion="a lower rate"),
]


def assert_same(found: object, error: PagsError) -> None:
    assert isinstance(found, PagsError)
    assert type(found) is type(error)  # and with it the exit status
    assert str(found) == str(error)
    assert (found.expected, found.suggestion) == (error.expected, error.suggestion)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_travel_between_processes(error: PagsError) -> None:
    assert_same(pickle.loads(pickle.dumps(error)), error)
    assert_same(copy.copy(error), error)


def test_an_error_on_a_worker_is_the_callers(spread: dict[str, Any], tmp_path: Path) -> None:
    error = ERRORS[1]
    with pytest.raises(UsageError) as caught:
        run_tasks([Task("fails", 1, ("raise", error))], partial(Folder, tmp_path), **spread)
    assert_same(caught.value, error)


def test_a_fault_of_the_program_on_a_worker_keeps_its_kind_and_its_traceback(
    spread: dict[str, Any], tmp_path: Path
) -> None:
    error = ZeroDivisionError("by zero")
    with pytest.raises(ZeroDivisionError) as caught:
        run_tasks([Task("fails", 1, ("raise", error))], partial(Folder, tmp_path), **spread)
    assert "raise rest[0]" in f"{caught.value}{caught.value.__cause__}"


def test_a_state_that_cannot_be_made_on_a_worker_says_why(spread: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(PagsError, match="a folder that workers see"):
        run_tasks([writing("a")], partial(unmakeable, os.getpid(), tmp_path), **spread)


def test_a_lost_worker_is_one_clear_error_and_finished_work_is_kept(
    spread: dict[str, Any], tmp_path: Path
) -> None:
    tasks = [writing("kept"), Task("a deadly task", 1, ("die",), 1)]
    with pytest.raises(PagsError) as caught:
        run_tasks(tasks, partial(Folder, tmp_path), **spread)
    assert "a worker to finish 'a deadly task'" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "kept").exists()
