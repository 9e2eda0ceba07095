"""Sweeps that survive: leases, shards, several runs on one folder, sudden death, and how far a run is."""

import errno
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import _ExecutorManagerThread
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pytest
import torch

import pags
import tiny
from pags.auditing import EvaluationSet
from pags.auditing.columns import _Measured, measured
from pags.classifiers.build import new_classifier
from pags.cli import main
from pags.data.sources import load_data
from pags.errors import PagsError, TrainingDiverged, UsageError
from pags.experiments import plan
from pags.experiments.cache import Cache, Columns, Report, Stage
from pags.experiments.engines import Task, run_tasks
from pags.experiments.experiment import Experiment
from pags.experiments.plan import CLAIMS, claimed, holder, in_order, seconds_left, shard_of, states
from pags.experiments.transfer import Transfer
from pags.figures.reproduce import ReproduceSettings, reproduce
from pags.report.pages import write_reproduction
from pags.store import Store

KILLS = 50
"""How often sweeps are killed."""
RAY_KILLS = int(os.environ.get("KILLS", "1"))
"""The same on Ray, whose workers take seconds to begin; 50 were tried by hand."""
PATHS = os.pathsep.join(map(str, (Path(__file__).parent, Path(pags.__file__).parents[1])))
"""Where other processes find this file and the package."""
STEP = float(os.environ.get("STEP", "0.02"))
"""Seconds that a tiny task takes."""


def made_number(of: int, before: Any = None) -> Columns:
    """A result that takes a little while, and needs the one before it."""
    time.sleep(STEP)
    if of < 0:
        raise TrainingDiverged("a finite loss", got=f"nan at {of}", suggestion="a lower rate")
    return {"number": torch.tensor([float(of), float(before["number"].sum()) if before else 0.0])}


NUMBER: Stage[Columns] = Stage(made_number, "numbers", 1)


@dataclass
class Numbers:
    """A sweep of tiny tasks: as many first ones as second ones, which need them."""

    store: Store
    count: int = 24

    @cached_property
    def cache(self) -> Cache:
        return Cache(self.store)

    def result(self, kind: str, of: int) -> Any:
        first = self.cache.made(NUMBER, of=of)
        return first if kind == "first" else self.cache.made(NUMBER, of=of + 1000, before=first)

    def tasks(self) -> list[Task]:
        return [
            Task(f"{kind} {of}", 1 + of % 3, (kind, of), stage, self.result(kind, of).file)
            for stage, kind in enumerate(("second", "first")[::-1])
            for of in range(self.count)
        ]

    def do(self, what: tuple[Any, ...], report: Report) -> None:
        self.result(*what).ensure(report)


def sweep(folder: Path, **where: Any) -> None:
    """Run it, in this process or another."""
    store = Store(folder)
    state = Numbers(store)
    run_tasks(state.tasks(), partial(Numbers, store), store=store, run="numbers", **where)


def results(folder: Path) -> dict[str, tuple[bytes, int]]:
    """What was made, with the time of its writing."""
    return {
        p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in (folder / "numbers").glob("*.safetensors")
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {name: content for name, (content, _) in results(folder).items()}


def assert_clean(folder: Path) -> None:
    """Nothing is left of the work itself."""
    assert [p for p in folder.rglob("*") if p.name.startswith(".")] == []
    assert list((folder / CLAIMS).iterdir()) == []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    sweep(folder)
    return folder


@pytest.fixture(scope="module")
def started() -> Iterator[Callable[..., Any]]:
    """Starts a function in a process that has everything imported already, and does not outlive the test."""
    every = list[Any]()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])

    def start(function: Callable[..., None], *given: Any, **named: Any) -> Any:
        process = context.Process(target=function, args=given, kwargs=named)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", PATHS)  # of the server, which the first call starts
            process.start()
        every.append(process)
        return process

    yield start
    for process in every:
        process.kill()


# --- leases ----------------------------------------------------------------------------------------------


def test_a_result_is_one_process_to_make_until_it_is_through(tmp_path: Path) -> None:
    with claimed(tmp_path, "networks/a.safetensors") as ours:
        assert ours
        who = holder(tmp_path, "networks/a.safetensors")
        assert who is not None
        assert who.is_here()
        assert abs(who.since - time.time()) < 60
        with claimed(tmp_path, "networks/a.safetensors") as again:
            assert again  # a task and what it makes are one and the same
        assert holder(tmp_path, "networks/a.safetensors") == who
        with claimed(tmp_path, "networks/b.safetensors") as other:
            assert other
    assert holder(tmp_path, "networks/a.safetensors") is None
    assert_clean(tmp_path)


def lease(folder: Path, *, host: str = "elsewhere", process: int = 1, age: float = 0.0) -> Path:
    """The lease of another process on a result called a."""
    path = folder / CLAIMS / "a"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"host": host, "process": process, "since": time.time() - age}))
    os.utime(path, (time.time() - age,) * 2)
    return path


def ended_process() -> int:
    process = multiprocessing.get_context("spawn").Process()
    process.start()
    process.join()
    assert process.pid is not None
    return process.pid


@pytest.mark.parametrize("age", [0.0, plan.LEASE - 30])
def test_what_another_is_at_is_left_to_it(tmp_path: Path, age: float) -> None:
    before = lease(tmp_path, age=age).read_text()
    with claimed(tmp_path, "a") as ours:
        assert not ours
    assert (tmp_path / CLAIMS / "a").read_text() == before


@pytest.mark.parametrize("age", [0, plan.RENEWED + 1])
def test_a_lease_that_is_being_written_counts_for_a_while(age: float, tmp_path: Path) -> None:
    """Its writer may have been killed."""
    lease(tmp_path).write_text("")
    os.utime(tmp_path / CLAIMS / "a", (time.time() - age,) * 2)
    with claimed(tmp_path, "a") as ours:
        assert ours == (age > 0)


def test_what_a_dead_process_was_at_is_taken_over(tmp_path: Path) -> None:
    here = plan.Holder.here().host
    for dead in ({"age": plan.LEASE + 1}, {"host": here, "process": ended_process()}):
        lease(tmp_path, **dead)
        assert holder(tmp_path, "a") is None
        with claimed(tmp_path, "a") as ours:
            assert ours
            assert (found := holder(tmp_path, "a"))
            assert found.is_here()
        assert_clean(tmp_path)


def test_a_lease_is_renewed_while_the_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "RENEWED", 0.01)
    monkeypatch.setattr(plan, "_renewal", plan._Renewal())
    with claimed(tmp_path, "a"):
        path = tmp_path / CLAIMS / "a"
        os.utime(path, (0, 0))
        until = time.monotonic() + 30
        while path.stat().st_mtime == 0:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert holder(tmp_path, "a") is not None


def test_a_lease_that_was_taken_over_is_not_given_back_by_its_former_holder(tmp_path: Path) -> None:
    with claimed(tmp_path, "a") as ours:
        assert ours
        lease(tmp_path)  # this process slept for too long
    assert (found := holder(tmp_path, "a"))
    assert found.host == "elsewhere"


def test_a_living_process_keeps_a_lease_that_is_put_aside_by_mistake(tmp_path: Path) -> None:
    """As between the look at a dead one's and its removal."""
    path = lease(tmp_path)
    before = path.read_text()
    plan._put_aside(path)
    assert path.read_text() == before
    assert [p.name for p in path.parent.iterdir()] == ["a"]


def race(folder: Path, tried: Path, racers: int) -> None:
    """Write down whether the lease was had; whoever has it keeps it until all have tried."""
    with claimed(folder, "a") as ours:
        (tried / str(os.getpid())).write_text(str(ours))
        while ours and len(list(tried.iterdir())) < racers:
            time.sleep(0.01)


def test_of_several_that_take_over_one_wins(tmp_path: Path, started: Callable[..., Any]) -> None:
    for attempt in range(3):
        tried = tmp_path / f"tried {attempt}"
        tried.mkdir()
        lease(tmp_path, age=plan.LEASE + 1)
        racers = [started(race, tmp_path, tried, 4) for _ in range(4)]
        for process in racers:
            process.join()
        assert sorted(path.read_text() for path in tried.iterdir()) == ["False", "False", "False", "True"]


# --- shards, and several runs at once --------------------------------------------------------------------


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1.5/2", "/", "٣/٤x"])
def test_a_shard_that_is_none_is_named(text: str) -> None:
    with pytest.raises(UsageError, match="--shard I/N"):
        shard_of(text)


def test_shards_begin_with_different_tasks_and_know_all() -> None:
    tasks = [Task(f"{cost}", cost, (cost,)) for cost in range(7)]
    orders = [[t.cost for t in in_order(tasks, (i, 3))] for i in (1, 2, 3)]
    assert in_order(tasks, shard_of("1/1")) == in_order(tasks, None)
    assert [order[: len(order) // 3] for order in orders] == [[6, 3], [5, 2], [4, 1]]
    assert all(sorted(order) == list(range(7)) for order in orders)


@pytest.mark.parametrize("shards", [(None, None), ((1, 2), (2, 2)), ((1, 2), (1, 2))])
def test_runs_at_once_make_each_result_once_and_the_same(
    shards: Any, undisturbed: Path, tmp_path: Path, started: Callable[..., Any]
) -> None:
    runs = [started(sweep, tmp_path, shard=shard) for shard in shards]
    for run in runs:
        run.join()
    assert [run.exitcode for run in runs] == [0, 0]
    assert contents(tmp_path) == contents(undisturbed)
    logs = [path.read_text().splitlines() for path in (tmp_path / "runs").glob("*.jsonl")]
    made = [json.loads(line)["file"] for log in logs for line in log]
    assert sorted(made) == sorted(task.file for task in Numbers(Store(tmp_path)).tasks())
    assert_clean(tmp_path)


def test_a_shard_alone_does_all(undisturbed: Path, tmp_path: Path) -> None:
    sweep(tmp_path, shard=(2, 3))
    assert contents(tmp_path) == contents(undisturbed)


# --- sudden death ----------------------------------------------------------------------------------------


def forked_workers(folder: Path, **where: Any) -> None:
    """Worker processes that start at once: the engine's import everything anew first."""
    context = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method=None: context  # type: ignore[assignment]
    sweep(folder, engine="local", workers=2, **where)


def late_manager(folder: Path) -> None:
    """The thread that ends the workers is slower than the end of the process."""
    ended = _ExecutorManagerThread.shutdown_workers

    def late(thread: _ExecutorManagerThread) -> None:
        time.sleep(1)
        ended(thread)

    _ExecutorManagerThread.shutdown_workers = late  # type: ignore[method-assign, assignment]
    forked_workers(folder)


def test_a_run_in_a_process_of_multiprocessing_ends(tmp_path: Path, started: Callable[..., Any]) -> None:
    run = started(late_manager, tmp_path)
    run.join(100)
    assert run.exitcode == 0


def two_shards(start: Callable[..., Any], folder: Path) -> list[Any]:
    return [start(sweep, folder, shard=(place, 2)) for place in (1, 2)]


def on_ray(address: str, folder: Path) -> None:
    """As many workers as the cluster has processors."""
    os.environ["RAY_ADDRESS"] = address
    sweep(folder, engine="ray")


WAYS: dict[str, Callable[..., list[Any]]] = {
    "inline": lambda start, folder: [start(sweep, folder)],
    "local": lambda start, folder: [start(forked_workers, folder)],
    "shards": two_shards,
}


@pytest.mark.parametrize("way", WAYS)
def test_killed_at_any_moment_nothing_is_lost_or_done_again(
    way: str, undisturbed: Path, tmp_path: Path, started: Callable[..., Any]
) -> None:
    kill_often(lambda folder: WAYS[way](started, folder), undisturbed, tmp_path, KILLS)


def kill_often(begin: Callable[[Path], list[Any]], undisturbed: Path, parent: Path, wanted: int) -> None:
    """One sweep after another, each killed again and again, most often between two results, until it is
    done."""
    draws, kills, sweeps = random.Random(wanted), 0, 0
    while kills < wanted:
        sweeps, kept = sweeps + 1, dict[str, Any]()
        (folder := parent / f"{sweeps}").mkdir()
        while len(kept) < len(contents(undisturbed)):
            goal, runs = len(kept) + draws.randrange(3), begin(folder)
            while kills < wanted and len(results(folder)) < goal and any(run.is_alive() for run in runs):
                time.sleep(STEP / 10)
            time.sleep(draws.uniform(0, 2 * STEP))
            for run in runs:
                if kills < wanted:
                    kills += run.is_alive()
                    run.kill()
                run.join()
            there = results(folder)
            assert kept.items() <= there.items()  # to the time of writing
            kept = there
        for run in begin(folder):
            run.join()
            assert run.exitcode == 0
        assert kept == results(folder)
        assert contents(folder) == contents(undisturbed)
        assert_clean(folder)
    print(f"{kills} kills in {sweeps} sweeps of {len(contents(undisturbed))} tasks")


# --- a cluster -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of Ray with a processor each, that find this file."""
    utils = pytest.importorskip("ray.cluster_utils")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PATHS)
        patch.setenv("STEP", "0.1")  # long enough to lose a node in the middle
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            made = utils.Cluster(True, head_node_args={"num_cpus": 1, "include_dashboard": False})
            made.add_node(num_cpus=1)
        except (OSError, RuntimeError, TimeoutError) as error:
            pytest.skip(f"Ray does not start on this machine: {error}")
        yield made
        made.shutdown()


def test_a_killed_run_on_ray_loses_nothing(
    cluster: Any, undisturbed: Path, tmp_path: Path, started: Callable[..., Any]
) -> None:
    kill_often(lambda folder: [started(on_ray, cluster.address, folder)], undisturbed, tmp_path, RAY_KILLS)


def test_a_sweep_that_loses_a_node_ends_complete(
    cluster: Any, undisturbed: Path, tmp_path: Path, started: Callable[..., Any]
) -> None:
    node = cluster.add_node(num_cpus=1)
    run = started(on_ray, cluster.address, tmp_path)
    while len(kept := results(tmp_path)) < 12 and run.is_alive():
        time.sleep(STEP)
    cluster.remove_node(node, allow_graceful=False)
    assert run.is_alive(), "it was lost in the middle"
    run.join()
    assert run.exitcode == 0
    assert kept.items() <= results(tmp_path).items()
    assert contents(tmp_path) == contents(undisturbed)
    assert_clean(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[..., Any]]]:
    """A disk that is soon full, and what makes it larger."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> int:
        words = ["mount", "-t", "tmpfs", "-o", options, "pags", str(folder)]
        return subprocess.run(words, capture_output=True, check=False).returncode

    if mount("size=100k"):
        pytest.skip("no disk may be mounted here")
    try:
        yield folder, lambda: mount("remount,size=4m")
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_on_a_disk_that_fills_up_nothing_finished_is_lost(
    small_disk: tuple[Path, Callable[..., Any]], undisturbed: Path
) -> None:
    folder, enlarge = small_disk
    with pytest.raises(PagsError, match=r"room and permission to write .*; got No space left on device"):
        sweep(folder)
    kept = results(folder)
    assert 3 < len(kept) < 40
    with pytest.raises(PagsError, match="room and permission"):
        sweep(folder)  # it stays clear what is wrong
    assert enlarge() == 0
    sweep(folder)
    assert kept.items() <= results(folder).items()
    assert contents(folder) == contents(undisturbed)
    assert_clean(folder)


def test_where_a_write_fails_nothing_finished_is_lost(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes, flush = iter(range(10)), os.fsync

    def full(file: int) -> None:
        if next(writes, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(file)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(PagsError, match="No space left on device"):
            sweep(tmp_path)
    kept = results(tmp_path)
    assert len(kept) == 9  # beside the plan
    sweep(tmp_path)
    assert kept.items() <= results(tmp_path).items()
    assert contents(tmp_path) == contents(undisturbed)
    assert_clean(tmp_path)


# --- failure is data -------------------------------------------------------------------------------------


def test_a_training_that_diverges_is_a_result_and_the_sweep_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeps = (
        {"objective": "gradient-norm", "strengths": (0, 0.1, 1, 1e38)},
        {"objective": "pgd", "strengths": (0, 0.5, 1.5), "attack_steps": 1},
    )
    asked = ReproduceSettings(scale="smoke", device="cpu", experiment=tiny.TABLES | {"sweeps": sweeps})
    heard, store = list[str](), Store(tmp_path)
    found = reproduce(["3"], asked, store, lambda what, share: heard.append(what))
    record = store.read_record("records/sweep.json")
    assert "gradient-norm 1e+38" not in {model["name"] for model in record["models"]}
    assert [line["strengths"] for line in record["sweeps"]] == [[0, 0.1, 1], [0, 0.5, 1.5]]
    (gone,) = record["missing"]
    assert (gone["objective"], gone["strength"]) == ("gradient-norm", 1e38)
    assert gone["reason"].startswith("its training diverged: nan in epoch 1")
    assert f"sweeps: left out: gradient-norm 1e+38, {gone['reason']}" in heard
    said = f"without strength 1e+38: {gone['reason']}"
    assert {(c["subject"], said in c.get("note", "")) for c in found["claims"]} == {
        ("gradient-norm", True), ("pgd", False),
    }  # fmt: skip
    store.path("records/sweep.json").unlink()
    monkeypatch.setattr("pags.experiments.cache.epochs", None)  # nothing is trained again, least of all that
    reproduce(["3"], asked, store)
    assert store.read_record("records/sweep.json") == record


def test_what_diverges_beside_the_sweeps_is_left_out_and_said(tmp_path: Path) -> None:
    """Of networks at a higher resolution one, of those beside a distractor all."""
    wild = {"epochs": 1, "learning_rate": 1e30}
    transfer = tiny.PARTS["transfer"] | {"strengths": (0, 1, 2)}
    tables = tiny.TABLES | {"transfer": transfer, "distractor": tiny.PARTS["distractor"] | {"plan": wild}}
    store = Store(tmp_path)
    asked = ReproduceSettings(scale="smoke", device="cpu", experiment=tables)
    gone = Transfer(asked.resolved(["sweep", "transfer"]), store).measured(2.0).file
    why = {"expected": "a finite loss", "got": "nan in epoch 1", "suggestion": "a lower rate"}
    store.write_record(f"failures/{plan.name_of(gone)}.json", why)
    found = reproduce(["4", "5", "15", "16"], asked, store)
    assert found["figures"] == ["4", "15"]
    record = store.read_record("records/transfer.json")
    assert [model["strength"] for model in record["models"]] == [0, 1]
    said = "pgd 2 at 16×16 px: its training diverged: nan in epoch 1"
    assert [": ".join(one) for one in record["missing"].items()] == [said]
    notes = [c["note"] for c in found["claims"] if "higher-resolution" in c["claim"]]
    assert notes
    assert all(f"without {said}" in note for note in notes)
    assert not [c for c in found["claims"] if "distractor" in c["claim"]]
    assert found["missing"][:3] == ["figure 5", "figure 16", said]
    assert [line.partition(":")[0] for line in found["missing"][3:]] == [
        f"{kind} network beside AX, informative {n}" for n in (0, 1) for kind in ("standard", "robust")
    ]
    page = next(path for path in write_reproduction(store, found) if path.suffix == ".html")  # type: ignore[arg-type]
    assert all(f"<li>{line}</li>" in page.read_text() for line in found["missing"])
    assert {t["state"] for t in states(tmp_path) if t["run"] == "distractor"} == {"failed"}


def test_what_all_are_compared_with_has_to_be_there(tmp_path: Path) -> None:
    state = Experiment(
        tiny.settings(training={"plan": {"epochs": 1, "learning_rate": 1e30}}), Store(tmp_path)
    )
    with pytest.raises(TrainingDiverged, match="finite loss"):
        state.do(("train", "cross-entropy", 0.0, 0), lambda share: None)
    for strength in (0.1, 1.0):
        state.do(("train", "gradient-norm", strength, 0), lambda share: None)
    assert [sweep.objective for sweep in state.sweeps] == ["pgd"]
    for strength in (0.5, 1.5):
        state.do(("train", "pgd", strength, 0), lambda share: None)
    del state.missing, state.sweeps
    with pytest.raises(PagsError, match="a sweep with three strengths whose trainings did not diverge"):
        assert state.sweeps


MEMORY: list[Exception] = [
    MemoryError(), torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
]  # fmt: skip


@pytest.mark.parametrize("error", MEMORY, ids=lambda error: type(error).__name__)
def test_out_of_memory_measuring_goes_on_with_half_of_the_images(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_data("digits").test.sample(20)
    options: dict[str, Any] = {"metrics": ("cosine",), "targets": ("logit",), "directions": 1, "radii": ()}
    tangent, model = torch.eye(64)[:, :3].expand(20, -1, -1), new_classifier(data)
    expected = measured(model, EvaluationSet.of(data, tangent=tangent, **options))
    whole, asked = _Measured.columns, []

    def small(self: _Measured) -> Columns:
        asked.append(len(self.part.places))
        if asked[-1] > 6:
            raise error
        return whole(self)

    monkeypatch.setattr(_Measured, "columns", small)
    with pytest.warns(UserWarning, match="too little memory to measure .* images at a time; halving"):
        found = measured(model, EvaluationSet.of(data, tangent=tangent, **options))
    assert asked == [20, 10, 5, 5, 10, 5, 5]
    assert list(found) == list(expected)
    for name, column in expected.items():
        torch.testing.assert_close(found[name], column, equal_nan=True)

    def fail(self: _Measured) -> Columns:
        raise RuntimeError("another error")

    monkeypatch.setattr(_Measured, "columns", fail)
    with pytest.raises(RuntimeError, match="another error"):
        measured(model, EvaluationSet.of(data, tangent=tangent, **options))


# --- looking after a folder ------------------------------------------------------------------------------


def flipped(path: Path) -> None:
    """Change one bit of the last number."""
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def test_a_damaged_result_is_made_anew(undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(undisturbed / "numbers", tmp_path / "numbers")
    state = Numbers(Store(tmp_path))
    first, second = state.result("first", 3), state.result("second", 3)
    flipped(tmp_path / first.file)
    flipped(tmp_path / second.file)
    assert second.value()["number"].tolist() == [1003.0, 3.0]
    assert contents(tmp_path) == contents(undisturbed)


def command(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(["store", *words])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out + said.err


def test_verify_names_what_is_damaged(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)
    status, said = command(capsys, "verify", str(tmp_path))
    assert (status, "49 artefacts are whole, 0 damaged" in said) == (0, True)  # and the plan
    damaged = next((tmp_path / "numbers").iterdir())
    flipped(damaged)
    status, said = command(capsys, "verify", str(tmp_path))
    assert (status, "48 artefacts are whole, 1 damaged" in said) == (1, True)
    assert damaged.name in said
    assert command(capsys, "verify", str(tmp_path / "none"))[0] == 2


def test_gc_removes_what_nobody_needs_and_nothing_else(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)
    store, state = Store(tmp_path), Numbers(Store(tmp_path))
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    store.write_bytes(state.result("first", 1).state, b"of finished work")
    kept = store.write_bytes(state.result("first", 99).state, b"of work that is not finished")
    here = plan.Holder.here().host
    (tmp_path / "numbers" / f".writing-{here}-{ended_process()}-x").touch()
    alive = tmp_path / "numbers" / f".writing-{here}-{os.getpid()}-x"
    alive.touch()
    lease(tmp_path, age=plan.LEASE + 1)
    assert command(capsys, "gc", str(tmp_path))[1].startswith("removed 3 files")
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before | {kept, alive}


def test_export_takes_what_is_finished_elsewhere(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sweep.zip"
    assert command(capsys, "export", str(undisturbed), str(out))[0] == 0
    shutil.unpack_archive(out, tmp_path / "there")
    assert contents(tmp_path / "there") == contents(undisturbed)
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["numbers"]
    status, said = command(capsys, "export", str(undisturbed), str(out))
    assert (status, "which exists" in said) == (2, True)


# --- how far a run is ------------------------------------------------------------------------------------


@pytest.fixture
def going_on(tmp_path: Path) -> Iterator[Path]:
    """A run with tasks of each state."""
    store = Store(tmp_path)
    state = Numbers(store, 4)
    tasks = [*state.tasks(), Task("bad", 1, ("first", -1), 0, state.result("first", -1).file)]
    with pytest.raises(TrainingDiverged):
        run_tasks(tasks, lambda: state, store=store, run="numbers")
    for log in (tmp_path / "runs").glob("*.jsonl"):
        log.unlink()
    for task in tasks[:2]:
        state.do(task.what, lambda share: None)
        plan.note(tmp_path, task.file, task.cost, 60.0)
    for task in tasks[2:-1]:
        store.path(task.file).unlink(missing_ok=True)
    with claimed(tmp_path, tasks[2].file):
        yield tmp_path


def test_the_state_of_every_task_is_said(going_on: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["sweep", "status", str(going_on), "--json"])
    assert not ended.value.code
    said = json.loads(capsys.readouterr().out)
    found = {task["name"]: task for task in said["tasks"]}
    assert {name: task["state"] for name, task in found.items()} == {
        "first 0": "done", "first 1": "done", "first 2": "running", "first 3": "waiting", "bad": "failed",
        **{f"second {n}": "waiting" for n in range(4)},
    }  # fmt: skip
    assert (said["done"], said["running"], said["failed"], said["waiting"]) == (2, 1, 1, 5)
    assert found["bad"]["reason"] == "nan at -1"
    assert found["first 2"]["process"] == os.getpid()
    # At 60 s for each, of costs 1 and 2: 40 s a unit; costs 3 + 1 + 7 are left.
    assert said["seconds_left"] == pytest.approx(11 * 40, abs=20)
    with pytest.raises(SystemExit):
        main(["sweep", "status", str(going_on)])
    printed = capsys.readouterr().out
    assert "2 done, 1 running, 1 failed, 5 waiting" in printed
    assert f"running  first 2: by process {os.getpid()} of" in printed
    assert "failed   bad: nan at -1" in printed
    assert "about 7 min left with 1 at a time" in printed


def test_the_time_left_is_unknown_at_first_and_then_none(tmp_path: Path) -> None:
    store = Store(tmp_path)
    waiting = [{"file": "a", "cost": 2, "state": "waiting"}]
    assert seconds_left(tmp_path, waiting) is None
    assert seconds_left(tmp_path, [{**waiting[0], "state": "done"}]) == 0
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "torn.jsonl").write_text('{"file": "a", "cost": 1, "seconds": 3}\n{"file": ')
    assert seconds_left(tmp_path, waiting) == 6
    assert list(states(store.root)) == []


def test_a_folder_without_a_plan_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["sweep", "status", str(tmp_path)])
    assert ended.value.code == 2
    assert "a folder with a plan of tasks" in capsys.readouterr().err


def test_ten_thousand_tasks_are_counted(tmp_path: Path) -> None:
    store = Store(tmp_path)
    tasks = [Task(f"{n}", 1, (n,), 0, f"numbers/{n}.safetensors") for n in range(10_000)]
    (tmp_path / "numbers").mkdir()
    for task in tasks[:-1]:
        (tmp_path / task.file).touch()
    state = Counted()
    run_tasks(tasks, lambda: state, store=store, run="numbers")
    assert state.done == [(9_999,)]
    found = [task["state"] for task in states(tmp_path)]
    assert (found.count("done"), found.count("waiting")) == (9_999, 1)


class Counted:
    """Remembers what it was asked to do."""

    def __init__(self) -> None:
        self.done: list[tuple[Any, ...]] = []

    def do(self, what: tuple[Any, ...], report: Report) -> None:
        self.done.append(what)


def test_a_folder_that_cannot_be_written_ends_in_one_line(tmp_path: Path) -> None:
    (tmp_path / CLAIMS).write_text("a file")
    with pytest.raises(PagsError, match=r"room and permission to write .*claims"), claimed(tmp_path, "a"):
        raise AssertionError("claimed nonetheless")
