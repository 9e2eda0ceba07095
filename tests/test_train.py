"""`pags train` from the words on the command line to the files, and again."""

import json
import math
import os
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from pags.classifiers.load import load_classifier
from pags.classifiers.modes import correct
from pags.cli import main
from pags.cli.train import line
from pags.data.batches import Batch
from pags.data.sources import load_data
from pags.errors import UsageError
from pags.experiments import training as module
from pags.experiments.cache import Cache
from pags.experiments.classifiers import classifier
from pags.experiments.training import TrainSettings, train
from pags.records import Record
from pags.store import Store
from pags.training.recipes import read_recipe

loop: Any = import_module("pags.training.fit")
QUICK = TrainSettings(
    data="digits", objective="smoothing", strength=0.2, epochs=2, evaluate_images=60, evaluate_steps=2
)
WORDS = ["train", "--data", "digits", "--strength", "0.3", "--epochs", "2", "--attack-steps", "2"]
"""The command under test, but for --out."""


@pytest.fixture(autouse=True)
def quiet_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Record, list[Record]]:
    store, rows = Store(tmp_path_factory.mktemp("train")), list[Record]()
    return store, train(QUICK, store, progress=rows.append), rows


def without_times(rows: list[Record]) -> list[Record]:
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows]


def test_the_recipe_of_digits_reaches_what_it_says(tmp_path: Path) -> None:
    settings = TrainSettings(recipe="digits", strength=0, evaluate_every=0, evaluate_radius=0, seed=1)
    reached = read_recipe("digits").reached_accuracy
    assert reached is not None
    clean = train(settings, Store(tmp_path))["accuracy"]["clean"]
    assert clean["low"] <= reached <= clean["high"]


# --- what is told ------------------------------------------------------------------------------------------


def test_progress_goes_on_while_the_accuracies_are_measured(tmp_path: Path) -> None:
    """Training first, then the test images; one share of both that rises from 0 to less than 1."""
    told = list[tuple[str, float]]()
    train(QUICK, Store(tmp_path), on_share=lambda what, share: told.append((what, share)))
    words, shares = zip(*told, strict=True)
    assert list(dict.fromkeys(words)) == ["training", "measuring accuracies"]
    assert words == tuple(sorted(words, reverse=True))  # and never back
    assert shares[0] == 0
    assert list(shares) == sorted(shares)
    assert shares[-1] < 1


# --- what is written ---------------------------------------------------------------------------------------


def test_the_record_says_everything(finished: tuple[Store, Record, list[Record]]) -> None:
    store, record, rows = finished
    assert record == store.read_record(record["files"][1])
    assert record["settings"] == QUICK.model_dump(mode="json")
    training = record["training"]
    assert (training["preset"], training["seed"]) == ("ours", 0)
    assert (record["device"], record["processes"]) == ("cpu", 1)
    assert training["plan"]["epochs"] == 2
    assert record["provenance"] == load_data("digits").train.provenance
    assert record["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert set(record["versions"]) == {"python", "pags", "torch", "torchvision"}
    assert record["commit"] is None or len(record["commit"]) == 40
    assert record["epochs"] == rows
    assert [row["epoch"] for row in rows] == [1, 2]
    assert all(row["loss"] > 0 and row["images_per_second"] > 0 for row in rows)
    assert record["seconds"]["training"] == pytest.approx(sum(row["seconds"] for row in rows))


def test_the_accuracies_are_those_of_the_stored_classifier(
    finished: tuple[Store, Record, list[Record]],
) -> None:
    store, record, _ = finished
    test = load_data("digits").test
    model = load_classifier(str(store.path(record["files"][0])))
    right = correct(model, test.images, test.labels)
    found = record["accuracy"]["clean"]
    assert found["estimate"] == pytest.approx(float(right.mean()))
    # The bootstrap's interval of a share, against the normal one.
    width = 2 * 1.96 * float(right.std()) / math.sqrt(len(right))
    assert found["high"] - found["low"] == pytest.approx(width, rel=0.15)
    assert record["accuracy"]["adversarial"]["estimate"] < found["estimate"]
    assert found["images"] == len(test)


def test_the_classifier_says_how_it_is_built(finished: tuple[Store, Record, list[Record]]) -> None:
    store, record, _ = finished
    about = store.read_tensors(record["files"][0])[1]
    mean, std = load_data("digits").train.statistics()
    expected = {"architecture": "small-resnet", "channels": 1, "classes": 10, "activation": "relu"}
    assert about["classifier"].items() >= {**expected, "mean": list(mean), "std": list(std)}.items()
    assert about["classes"] == [str(digit) for digit in range(10)]
    assert about["data"] == "digits"
    assert about["recipe"]["stage"][0] == "classifier"


def test_finished_work_is_not_done_again(
    finished: tuple[Store, Record, list[Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the training where only the evaluation changes, and nothing where nothing changes."""
    store, record, _ = finished
    monkeypatch.setattr("pags.experiments.cache.epochs", None)
    other = train(QUICK.model_copy(update={"evaluate_steps": 1}), store)
    assert other["files"][0] == record["files"][0]
    assert other["files"][1] != record["files"][1]
    monkeypatch.setattr(module, "launch", None)
    assert train(QUICK, store) == record
    assert list(store.path("unfinished").iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"strength": 0.3}, {"objective": "pgd"}, {"seed": 1}, {"epochs": 3}, {"batch_size": 64},
        {"learning_rate": 0.01}, {"preset": "release"}, {"activation": "gelu"}, {"clip_norm": 1.0},
        {"precision": "bf16-mixed"}, {"data": "digits-distractor"},
    ],
)  # fmt: skip
def test_every_setting_that_matters_names_another_classifier(change: dict[str, Any], tmp_path: Path) -> None:
    def key(settings: TrainSettings) -> str:
        source, training = settings.resolved()
        cache = Cache(Store(tmp_path))
        return cache.made(classifier, train=load_data(source).train, training=training).identity

    assert key(QUICK.model_copy(update=change)) != key(QUICK)


# --- interruptions -----------------------------------------------------------------------------------------


class Killed(Exception):
    """What a run sees of a power cut."""


@pytest.mark.parametrize("at", [5, 14])
def test_an_interrupted_training_continues_to_the_same_classifier(
    at: int, tmp_path: Path, finished: tuple[Store, Record, list[Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the first epoch (of twelve batches), and within the second, whose record is then whole."""
    step, calls = loop._Run.step, [0]

    def dying(run: Any, batch: Batch) -> None:
        calls[0] += 1
        if calls[0] == at:
            raise Killed
        step(run, batch)

    monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    monkeypatch.setattr(loop, "BATCHES_BETWEEN_CHECKS", 3)
    monkeypatch.setattr(loop._Run, "step", dying)
    with pytest.raises(Killed):
        train(QUICK, Store(tmp_path))
    record = train(QUICK, Store(tmp_path))
    assert calls[0] == 24 + 1 + (at - 1) % 3  # what was done since the last state is done again
    whole, expected, _ = finished
    assert without_times(record["epochs"]) == without_times(expected["epochs"])
    assert record["accuracy"] == expected["accuracy"]
    assert record["files"] == expected["files"]
    one, other = (store.read_tensors(record["files"][0])[0] for store in (Store(tmp_path), whole))
    assert all(torch.equal(one[name], other[name]) for name in other)


# --- the command -------------------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(list(words))
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out, captured.err


def test_the_command_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path), "--evaluate-every", "2"]
    status, said, errors = run(capsys, *WORDS, *out)
    assert (status, errors) == (0, "")
    lines = said.splitlines()
    assert [part.split(", ")[0].split("] ")[1] for part in lines[1:3]] == ["epoch 1/2", "epoch 2/2"]
    assert "clean" not in lines[1]
    assert "clean" in lines[2]
    assert lines[3].split("] ")[1].split(" (about")[0] == "measuring accuracies"
    assert "clean accuracy: " in lines[4]
    assert "under l2 attacks of 0.5: " in lines[5]
    written = [Path(part.strip()) for part in lines[7:]]
    assert [path.parent.name for path in written] == ["classifiers", "records"]
    assert all(path.is_file() for path in written)
    again = run(capsys, *WORDS, *out)
    assert again[1].splitlines()[-5:] == lines[-5:]
    assert "epoch" not in again[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "no-such-data"], "a data set among"),
        (["--recipe", "no-such-recipe"], "recipe"),
        (["--objective", "no-such-objective"], "an objective among"),
        (["--strength", "-1"], "strength -1.0: input should be greater than or equal to 0"),
        (["--epochs", "0"], "epochs 0: input should be greater than 0"),
        (["--arch", "no-such-network"], "architecture"),
        (["--activation", "no-such-activation"], "activation"),
        (["--devices", "0"], "devices 0: input should be greater than 0"),
        (["--accelerator", "cuda", "--devices", "9999"], "as many as there are"),
        (["--compile", "--objective", "gradient-norm"], "without a second derivative, for --compile"),
        (["--preset", "mine"], "Invalid value for '--preset'"),
    ],
)
def test_wrong_requests_fail_before_any_work(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said, errors = run(capsys, "train", "--data", "digits", "--out", str(tmp_path / "new"), *words)
    assert status == 2
    assert message in errors
    assert len(errors.strip().splitlines()) == 1
    assert "epoch" not in said
    assert not list(tmp_path.rglob("*.safetensors"))


def test_neither_data_nor_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, errors = run(capsys, "train", "--out", str(tmp_path))
    assert status == 2
    assert errors == "error: expected data or a recipe to train on; got neither; try --data digits\n"


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    status, said, _ = run(capsys, "train", "--help")
    assert status == 0
    assert "pags train --data digits --objective pgd --strength 0.5" in said


def test_curves_for_tensorboard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing import event_accumulator

    status, _, errors = run(capsys, *WORDS, "--epochs", "1", "--out", str(tmp_path), "--tensorboard")
    assert (status, errors) == (0, "")
    (folder,) = (tmp_path / "tensorboard").iterdir()
    events = event_accumulator.EventAccumulator(str(folder)).Reload()
    (record,) = (tmp_path / "records").iterdir()
    row = json.loads(record.read_text())["epochs"][0]
    assert [event.value for event in events.Scalars("loss")] == [pytest.approx(row["loss"])]
    assert [event.value for event in events.Scalars("adversarial")] == [pytest.approx(row["adversarial"])]


def test_tensorboard_that_is_not_installed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    status, _, errors = run(capsys, *WORDS, "--out", str(tmp_path), "--tensorboard")
    assert status == 1
    assert "pip install -e '.[tensorboard]'" in errors


def test_a_line_an_epoch() -> None:
    row = {"epoch": 3, "epochs": 9, "loss": 0.123456, "clean": 0.5, "adversarial": 0.25,
           "images_per_second": 12345.6}  # fmt: skip
    expected = "epoch 3/9, loss 0.1235, accuracy 50.0% clean, 25.0% attacked, 12,346 images/s"
    assert line(row) == expected
    assert line({**row, "clean": None}) == "epoch 3/9, loss 0.1235, 12,346 images/s"


# --- options of the loop -----------------------------------------------------------------------------------


def test_bfloat16_trains_to_finite_weights_that_it_names_again(tmp_path: Path) -> None:
    settings = QUICK.model_copy(update={"precision": "bf16-mixed", "objective": "gradient-norm", "epochs": 1})
    records = [train(settings, Store(tmp_path / name)) for name in ("one", "other")]
    assert without_times(records[0]["epochs"]) == without_times(records[1]["epochs"])
    full = train(settings.model_copy(update={"precision": "32-true"}), Store(tmp_path / "full"))
    losses = [record["epochs"][0]["loss"] for record in (records[0], full)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)


def test_settings_of_a_setting_that_is_none_say_nothing() -> None:
    assert TrainSettings.of({"data": "digits", "epochs": None}) == TrainSettings(data="digits")
    with pytest.raises(UsageError, match="no_such"):
        TrainSettings.of({"no_such": 1})
