"""The main job at a tiny scale: what it writes, and that being killed leaves no trace in it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import pags
import tiny
from pags import claims
from pags.experiments.experiment import GALLERY, RECORD
from pags.experiments.settings import ExperimentSettings, read_toml
from pags.figures.reproduce import CLAIMS_RECORD, DEMO_FIGURES, merged, reproduce
from pags.report.pages import write_report
from pags.store import Store

CONFIG = """
train_images = 320
images = 40
resamples = 100
gallery = 3
sweeps = [
  {objective = "smoothing", strengths = [0, 0.2, 0.8]},
  {objective = "pgd", strengths = [0, 0.5, 1.5], attack_steps = 2},
]
[measures]
directions = 2
[training.plan]
epochs = 2
learning_rate = 0.1
[manifold.plan]
epochs = 2
optimizer = "adam"
learning_rate = 2e-3
weight_decay = 0
[score.plan]
epochs = 2
optimizer = "adam"
learning_rate = 5e-3
weight_decay = 0
average = 0.99
"""

ADAM = {"epochs": 2, "optimizer": "adam", "weight_decay": 0}
TINY: dict[str, Any] = {
    "train_images": 320,
    "images": 40,
    "resamples": 100,
    "gallery": 3,
    "sweeps": [
        {"objective": "smoothing", "strengths": [0, 0.2, 0.8]},
        {"objective": "pgd", "strengths": [0, 0.5, 1.5], "attack_steps": 2},
    ],
    "measures": {"directions": 2},
    "training": {"plan": {"epochs": 2, "learning_rate": 0.1}},
    "manifold": {"plan": ADAM | {"learning_rate": 2e-3}},
    "score": {"plan": ADAM | {"learning_rate": 5e-3, "average": 0.99}},
}


def demo(store: Store, **changes: Any) -> Any:
    return reproduce(
        DEMO_FIGURES, store=store, scale="demo", experiment=TINY | changes, device="cpu", command="pags demo"
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("undisturbed"))
    demo(store)
    return store


def test_settings_from_toml_equal_those_from_python(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(CONFIG)
    found = merged(ExperimentSettings(), read_toml(tmp_path / "tiny.toml"), where="tiny.toml")
    assert found == merged(ExperimentSettings(), TINY, where="Python") != ExperimentSettings()
    assert found.measures.norm == ExperimentSettings().measures.norm  # what a table leaves out stays


def test_every_model_is_measured_and_every_claim_is_judged(undisturbed: Store) -> None:
    record = undisturbed.read_record(RECORD)
    assert [(m["name"], m["objective"], m["strength"]) for m in record["models"]] == [
        ("untrained", "untrained", 0),
        ("standard", "cross-entropy", 0),
        ("smoothing 0.2", "smoothing", 0.2),
        ("smoothing 0.8", "smoothing", 0.8),
        ("pgd 0.5", "pgd", 0.5),
        ("pgd 1.5", "pgd", 1.5),
    ]
    found = undisturbed.read_record(CLAIMS_RECORD)["claims"]
    every = [claim.key for claim in claims.sweep.CLAIMS]
    assert [(c["subject"], c["claim"]) for c in found] == [
        (objective, key) for objective in ("smoothing", "pgd") for key in every
    ]
    for claim in found:
        if claim["estimate"] is None:
            assert claim["verdict"] == claims.UNDECIDED
            assert claim["note"]
        else:
            assert claim["low"] <= claim["estimate"] <= claim["high"]
            assert claim["verdict"] in {claims.verdict(claim["low"], claim["high"]), claims.UNDECIDED}


def test_again_trains_nothing_and_changes_nothing(
    undisturbed: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(undisturbed.root)

    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("pags.experiments.cache.epochs", fail)
    demo(undisturbed)
    assert contents(undisturbed.root) == before
    # Without the last record, everything is put together again from the artefacts, to the last digit.
    undisturbed.path(RECORD).unlink()
    demo(undisturbed)
    assert contents(undisturbed.root) == before


def test_a_changed_setting_is_not_mistaken_for_finished_work(undisturbed: Store, tmp_path: Path) -> None:
    for file in undisturbed.root.rglob("*.*"):
        Store(tmp_path).write_bytes(str(file.relative_to(undisturbed.root)), file.read_bytes())
    demo(Store(tmp_path), measures={"directions": 3})
    before, after = undisturbed.read_record(RECORD), Store(tmp_path).read_record(RECORD)
    assert after["key"] != before["key"]
    columns = [record["models"][-1]["means"] for record in (before, after)]
    assert columns[0]["off 0.5"] != columns[1]["off 0.5"]
    assert columns[0]["correct"] == columns[1]["correct"]


def test_killed_anywhere_it_continues_to_the_same_records(undisturbed: Store, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(CONFIG)
    words = ["demo", "--config", str(tmp_path / "tiny.toml"), "--out", str(tmp_path), "--device", "cpu"]
    command = [sys.executable, "-m", "pags", *words, "--engine", "inline"]
    for folder, least in (("autoencoders", 1), ("classifiers", 1), ("measures", 4)):
        kill_when(command, tmp_path / folder, least)
        assert not (tmp_path / RECORD).exists()
    subprocess.run(command, check=True, capture_output=True, env=environment())
    for name in (RECORD, GALLERY, CLAIMS_RECORD, "records/figure-03.json"):
        assert (tmp_path / name).read_bytes() == undisturbed.path(name).read_bytes()


def test_figures_and_page_are_drawn_from_records_alone_and_always_the_same(
    undisturbed: Store, tmp_path: Path
) -> None:
    drawn = []
    for place in ("a", "b"):
        store = Store(tmp_path / place)
        for file in undisturbed.path("records").iterdir():
            store.write_bytes(f"records/{file.name}", file.read_bytes())
        drawn.append({p.name: p.read_bytes() for p in write_report(store)})
    assert drawn[0] == drawn[1]
    assert {"figure-03.svg", "figure-03.png", "figure-06.svg", "figure-08.svg", "report.html"} <= set(
        drawn[0]
    )
    page = drawn[0]["report.html"].decode()
    assert page.count("<svg") >= 3
    for address in ('http-equiv="refresh', "@import", 'src="http', 'href="http'):
        assert address not in page  # nothing is fetched


def test_the_demos_settings_are_the_defaults() -> None:
    from pags.figures.reproduce import ReproduceSettings

    asked = ReproduceSettings(scale="demo", device="cpu", experiment={})
    assert asked.resolved(["sweep"]) == ExperimentSettings()


def test_public_names_are_what_they_are_called() -> None:
    for name in dir(pags):
        assert getattr(pags, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = pags.nothing  # type: ignore[attr-defined]


def test_the_tiny_experiment_has_every_part() -> None:
    found = tiny.settings(**tiny.PARTS)
    assert found.transfer
    assert found.distractor
    assert found.generation
    assert [sweep.objective for sweep in found.sweeps] == ["gradient-norm", "pgd"]


def contents(root: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def environment() -> dict[str, str]:
    """With as many threads as here: sums in another order have other last digits."""
    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}


def kill_when(command: list[str], folder: Path, least: int) -> None:
    """Start the command and kill it without warning as soon as a folder holds that many files."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
    )
    deadline = time.monotonic() + 120
    while len(list(folder.glob("*.safetensors"))) < least:
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline, "took too long"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
