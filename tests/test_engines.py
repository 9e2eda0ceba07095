"""The engines: the same artefacts wherever the jobs run, and one clear error for whatever goes wrong."""

import copy
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pags.experiments.config import Sweep, SweepConfig
from pags.experiments.demo import run_sweeps

from pags.errors import PagsError, TrainingDiverged, UsageError
from pags.experiments.engines import Job, run_jobs
from pags.store import Store
from pags.training.fit import Plan, Report

TINY = SweepConfig(
    train_images=100,
    images=20,
    directions=1,
    resamples=20,
    gallery=2,
    latent=3,
    repeats=2,
    sweeps=(Sweep(objective="pgd", strengths=(0, 0.5, 1.5), attack_steps=1),),
    classifier=Plan(epochs=1, learning_rate=0.1),
    autoencoder_widths=(4, 8),
    autoencoder=Plan(epochs=1, optimizer="adam", learning_rate=2e-3, weight_decay=0),
    denoiser_widths=(8, 8),
    denoiser=Plan(epochs=1, optimizer="adam", learning_rate=5e-3, weight_decay=0, average=0.9),
)
Log = list[tuple[int, str]]


def writing(name: str, *, shared: bool = False, cost: float = 1.0) -> Job[Path]:
    """A job that leaves a file with the number of its process; the state is the folder."""

    def run(folder: Path, report: Report) -> None:
        report(0.5)
        (folder / name).write_text(str(os.getpid()))

    return Job(name, cost, run, shared)


def raising(error: Exception) -> Job[Path]:
    def run(folder: Path, report: Report) -> None:
        raise error

    return Job("a job that fails", 1, run)


def made(folder: Path) -> dict[str, bytes]:
    """What a later run builds on: everything but the state of unfinished work."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "unfinished" not in path.parts
    }


def hear() -> tuple[list[tuple[str, float]], Callable[[str, float], None]]:
    heard: list[tuple[str, float]] = []
    return heard, lambda what, share: heard.append((what, share))


# --- inline ----------------------------------------------------------------------------------------------


def test_jobs_run_in_order_and_progress_rises(tmp_path: Path) -> None:
    heard, progress = hear()
    order: list[str] = []

    def noting(name: str) -> Callable[[Path, Report], None]:
        def run(folder: Path, report: Report) -> None:
            order.append(name)
            for share in (0.0, 0.5, 1.0):
                report(share)

        return run

    jobs = [
        Job[Path](name, cost, noting(name), shared=name == "c")
        for name, cost in zip("abc", (1, 3, 4), strict=True)
    ]
    run_jobs(jobs, lambda: tmp_path, progress=progress)
    assert order == ["a", "b", "c"]  # as they were given, whether shared or not
    shares = [share for _, share in heard]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] == 1
    halves = {what: share for what, share in heard if share < 1}
    assert halves["b"] - halves["a"] == pytest.approx(3 / 8)


def test_no_jobs_are_no_work() -> None:
    run_jobs([], lambda: None)


def test_jobs_that_cost_nothing_are_done_all_the_same(tmp_path: Path) -> None:
    run_jobs([writing("a", cost=0)], lambda: tmp_path)
    assert (tmp_path / "a").exists()


def test_an_unknown_engine_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="an engine among inline, ray; got 'dask'"):
        run_jobs([writing("a")], lambda: tmp_path, engine="dask")
    assert not list(tmp_path.iterdir())


def test_without_ray_the_command_says_so_before_any_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="Ray for --engine ray; got it is not installed"):
        run_jobs([writing("first", shared=True), writing("a")], lambda: tmp_path, engine="ray")
    assert not list(tmp_path.iterdir())


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
        yield ray
        ray.shutdown()


@pytest.fixture(autouse=True)
def imported_by_value() -> Iterator[None]:
    """Workers cannot import this file, so what they need of it travels with the job."""
    cloudpickle = pytest.importorskip("ray").cloudpickle
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.mark.usefixtures("cluster")
def test_ray_and_inline_make_the_same_to_the_last_byte(tmp_path: Path) -> None:
    heard, progress = hear()
    inline = run_sweeps(TINY, Store(tmp_path / "inline"))
    assert run_sweeps(TINY, Store(tmp_path / "ray"), progress, engine="ray") == inline
    here, there = made(tmp_path / "inline"), made(tmp_path / "ray")
    assert list(there) == list(here)
    assert [name for name in here if here[name] != there[name]] == []
    shares = [share for _, share in heard]
    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] == 1
    done = [what for what, _ in heard if what.startswith("done: ")]
    assert len(done) == len(set(done)) == 8  # the control, and 0, 0.5 and 1.5 twice each


@pytest.mark.usefixtures("cluster")
def test_what_ray_leaves_unfinished_continues_inline(tmp_path: Path) -> None:
    whole = run_sweeps(TINY, Store(tmp_path / "whole"))
    run_sweeps(TINY, Store(tmp_path / "ray"), engine="ray")
    for kept in sorted((tmp_path / "ray" / "measures").iterdir())[::2]:
        kept.unlink()
    (tmp_path / "ray" / "records" / "sweep.json").unlink()
    assert run_sweeps(TINY, Store(tmp_path / "ray")) == whole
    assert made(tmp_path / "ray") == made(tmp_path / "whole")


@pytest.mark.usefixtures("cluster")
def test_shared_jobs_are_done_here_and_first_the_others_elsewhere(tmp_path: Path) -> None:
    def last(folder: Path, report: Report) -> None:
        (folder / "last").write_text("first" if (folder / "first").exists() else "alone")

    jobs = [
        Job[Path]("last", 9, last),
        writing("first", shared=True),
        *(writing(f"job {i}") for i in range(5)),
    ]
    run_jobs(jobs, lambda: tmp_path, engine="ray")
    workers = {(tmp_path / f"job {i}").read_text() for i in range(5)}
    assert (tmp_path / "first").read_text() == str(os.getpid())
    assert (tmp_path / "last").read_text() == "first"
    assert str(os.getpid()) not in workers
    assert 1 <= len(workers) <= 2


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


@pytest.mark.usefixtures("cluster")
def test_an_error_on_a_worker_is_the_callers(tmp_path: Path) -> None:
    error = ERRORS[1]
    with pytest.raises(UsageError) as caught:
        run_jobs([raising(error)], lambda: tmp_path, engine="ray")
    assert_same(caught.value, error)


@pytest.mark.usefixtures("cluster")
def test_a_fault_of_the_program_on_a_worker_keeps_its_kind_and_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError, match=r"raise error"):
        run_jobs([raising(ZeroDivisionError("by zero"))], lambda: tmp_path, engine="ray")


@pytest.mark.usefixtures("cluster")
def test_a_state_that_cannot_be_made_on_a_worker_says_why(tmp_path: Path) -> None:
    here = os.getpid()

    def make() -> Path:
        if os.getpid() != here:
            raise PagsError("a folder that workers see", got="none", suggestion="a shared folder")
        return tmp_path

    with pytest.raises(PagsError, match="a folder that workers see"):
        run_jobs([writing("a")], make, engine="ray")


@pytest.mark.usefixtures("cluster")
def test_a_lost_worker_is_one_clear_error_and_finished_work_is_kept(tmp_path: Path) -> None:
    def die(folder: Path, report: Report) -> None:
        os._exit(1)

    with pytest.raises(PagsError) as caught:
        run_jobs([writing("kept", shared=True), Job("a deadly job", 1, die)], lambda: tmp_path, engine="ray")
    assert "a worker to finish 'a deadly job'" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "kept").exists()
