"""The whole chain at a tiny scale: what it writes, and that being killed leaves no trace in it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from pags.experiments.claims import CLAIMS, SweepMeans, verdict
from pags.experiments.config import Sweep, SweepConfig
from pags.experiments.demo import GALLERY, RECORD, run_sweeps
from pags.experiments.recipes import REVISIONS, Recipes
from pags.report.page import write_report

import pags
from pags.measure.statistics import Interval
from pags.store import Store, fingerprint
from pags.training.fit import Plan

CONFIG = """
directions = 2
resamples = 100
gallery = 3
sweeps = [
  {objective = "smoothing", strengths = [0, 0.2, 0.8]},
  {objective = "pgd", strengths = [0, 0.5, 1.5], attack_steps = 2},
]
classifier = {epochs = 2, learning_rate = 0.1}
autoencoder = {epochs = 2, optimizer = "adam", learning_rate = 2e-3, weight_decay = 0}
denoiser = {epochs = 2, optimizer = "adam", learning_rate = 5e-3, weight_decay = 0, average = 0.99}
"""

TINY = SweepConfig(
    directions=2,
    resamples=100,
    gallery=3,
    sweeps=(
        Sweep(objective="smoothing", strengths=(0, 0.2, 0.8)),
        Sweep(objective="pgd", strengths=(0, 0.5, 1.5), attack_steps=2),
    ),
    classifier=Plan(epochs=2, learning_rate=0.1),
    autoencoder=Plan(epochs=2, optimizer="adam", learning_rate=2e-3, weight_decay=0),
    denoiser=Plan(epochs=2, optimizer="adam", learning_rate=5e-3, weight_decay=0, average=0.99),
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("undisturbed"))
    run_sweeps(TINY, store)
    return store


def test_settings_from_toml_equal_those_from_python(tmp_path: Path) -> None:
    from pags.experiments.config import read_config

    (tmp_path / "tiny.toml").write_text(CONFIG)
    assert read_config(tmp_path / "tiny.toml") == TINY


def test_every_model_is_measured_and_every_claim_is_judged(undisturbed: Store) -> None:
    record = undisturbed.read_record(RECORD)
    named = [(m["objective"], m["strength"]) for m in record["models"]]
    assert named == [
        ("untrained", 0),
        ("smoothing", 0),
        ("smoothing", 0.2),
        ("smoothing", 0.8),
        ("pgd", 0.5),
        ("pgd", 1.5),
    ]
    assert [c["claim"] for c in record["claims"]] == [c.key for c in CLAIMS] * 2
    for claim in record["claims"]:
        assert claim["low"] <= claim["high"]
        assert claim["verdict"] == verdict(Interval(claim["estimate"], claim["low"], claim["high"]))


def test_again_trains_nothing_and_changes_nothing(
    undisturbed: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _contents(undisturbed.root)

    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("pags.experiments.workshop.fit", fail)
    run_sweeps(TINY, undisturbed)
    assert _contents(undisturbed.root) == before
    # Without the last record, everything is put together again from the artefacts, to the last digit.
    undisturbed.path(RECORD).unlink()
    run_sweeps(TINY, undisturbed)
    assert _contents(undisturbed.root) == before


def test_a_changed_setting_is_not_mistaken_for_finished_work(undisturbed: Store) -> None:
    assert (
        run_sweeps(TINY.model_copy(update={"directions": 3}), Store(undisturbed.root / "other"))["key"]
        != undisturbed.read_record(RECORD)["key"]
    )


def test_a_raised_revision_renames_what_depends_on_it_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipes = Recipes(TINY, {"source": "digits"})

    def names() -> dict[str, str]:
        found = {
            stage: getattr(recipes, stage)() for stage in ("autoencoder", "denoiser", "tangent", "scores")
        }
        found |= {"classifier": recipes.classifier("pgd", 0.5), "measures": recipes.measures("pgd", 0.5)}
        return {stage: fingerprint(recipe) for stage, recipe in found.items()}

    before = names()
    monkeypatch.setitem(REVISIONS, "autoencoder", 2)
    changed = {stage for stage, name in names().items() if name != before[stage]}
    assert changed == {"autoencoder", "tangent", "measures"}


def test_killed_anywhere_it_continues_to_the_same_records(undisturbed: Store, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(CONFIG)
    command = [
        sys.executable,
        "-m",
        "pags",
        "demo",
        "--config",
        str(tmp_path / "tiny.toml"),
        "--out",
        str(tmp_path),
    ]
    for folder, least in (("autoencoders", 1), ("classifiers", 1), ("measures", 4)):
        _kill_when(command, tmp_path / folder, least)
        assert not (tmp_path / RECORD).exists()
    subprocess.run(command, check=True, capture_output=True, env=_environment())
    for name in (RECORD, GALLERY):
        assert (tmp_path / name).read_bytes() == undisturbed.path(name).read_bytes()


def test_figures_and_page_are_drawn_from_records_alone_and_always_the_same(
    undisturbed: Store, tmp_path: Path
) -> None:
    drawn = []
    for place in ("a", "b"):
        record = json.loads(undisturbed.path(RECORD).read_text())
        gallery = undisturbed.read_tensors(GALLERY)[0]
        written = write_report(Store(tmp_path / place), record, gallery)
        drawn.append({p.name: p.read_bytes() for p in written})
    assert drawn[0] == drawn[1]
    assert {"figure-3.svg", "figure-3.png", "figure-6-pgd.svg", "report.html"} <= set(drawn[0])
    page = drawn[0]["report.html"].decode()
    assert page.count("<svg") == 3
    for address in ("http-equiv", "src=", "@import", 'href="http'):
        assert address not in page  # nothing is fetched


def test_the_claims_statistics_on_a_sweep_made_by_hand() -> None:
    def row(*values: float) -> torch.Tensor:
        return torch.tensor([values], dtype=torch.float64)

    means = SweepMeans(
        on=row(0.10, 0.10, 0.09, 0.02),
        off=row(0.20, 0.10, 0.03, 0.01),
        accuracy=row(0.98, 0.99, 0.97, 0.50),
        similarity=row(0.72, 0.75, 0.78, 0.70),
        similarity_of_sum=row(0.70, 0.71, 0.69, 0.72),
    )
    expected = {
        "unrobust-off-above-on": 0.10,
        "off-falls-monotonically": 0.02,
        "relatively-off-robust": 1 - 0.03 / 0.09,  # the last strength is not accurate
        "off-falls-more-than-on": 0.9 - 0.15,
        "on-stays-constant": 0.22314355 - 0.10536052,  # ln 1.25 − |ln 0.9|
        "on-falls-with-accuracy": 1 - 0.50 / 0.97,
        "alignment-peaks-inside": 0.06,
        "peak-is-accurate": 0.97 - 0.99 + 0.05,
        "peak-is-off-robust": 1 - 0.03 / 0.09,
        "off-robustness-correlates": 0.4,  # ranks 1 2 4 3 against 2 3 4 1: 1 − 6·6/60
        "sum-of-logits-agrees": -0.8,  # ranks 2 3 1 4 against 2 3 4 1: 1 − 6·18/60
    }
    found = {claim.key: float(claim.statistic(means)[0]) for claim in CLAIMS}
    assert found == pytest.approx(expected, abs=1e-7)


def test_public_names_are_what_they_are_called() -> None:
    for name in pags.__all__:
        assert getattr(pags, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = pags.nothing


def _contents(root: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file() and "other" not in p.parts}


def _environment() -> dict[str, str]:
    """With as many threads as here: sums in another order have other last digits."""
    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}


def _kill_when(command: list[str], folder: Path, least: int) -> None:
    """Start the command and kill it without warning as soon as a folder holds that many files."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_environment()
    )
    deadline = time.monotonic() + 120
    while len(list(folder.glob("*.safetensors"))) < least:
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline, "took too long"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
