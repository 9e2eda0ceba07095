"""The command line: bad input ends in one clear line and the right status, good input in files."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from PIL import Image

from pags.cli import COMMANDS, Commands, main
from pags.cli.options import flat
from pags.experiments.audit import AuditSettings
from pags.experiments.problems import GenerateSettings
from pags.experiments.settings import ExperimentSettings
from pags.experiments.training import TrainSettings
from pags.figures.reproduce import ReproduceSettings, merged
from pags.settings import Settings


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return int(ended.value.code or 0)


BAD = {
    "an unknown data set": (["demo", "--data", "digitz"], 2, "expected a data set among digits"),
    "an unknown command": (["dmeo"], 2, "dmeo"),
    "an unknown option": (["demo", "--sede", "1"], 2, "--sede"),
    "a word for a number": (["demo", "--seed", "one"], 2, "--seed"),
    "an image that is not there": (["lpips", "no.png", "no.png"], 1, "expected an image file"),
    "a folder without records": (["report", "nowhere"], 2, "try pags demo"),
    "an unknown figure": (["reproduce", "18"], 2, "figures among all, 1 to 17"),
    "no figure": (["reproduce"], 2, "pags reproduce all"),
    "an unknown scale": (
        ["reproduce", "3", "--scale", "huge"],
        2,
        "among demo, smoke, laptop, small, paper",
    ),
    "an unknown preset": (["reproduce", "3", "--preset", "mine"], 2, "'ours', 'paper', 'release'"),
    "an unknown engine": (["reproduce", "3", "--engine", "dask"], 2, "'inline', 'local', 'ray'"),
    "a network without a radius": (
        ["reproduce", "4", "--pretrained", "x.pt"],
        2,
        "--pretrained RADIUS=MODEL",
    ),
    "a radius below zero": (["reproduce", "4", "--pretrained", "-1=x.pt"], 2, "--pretrained RADIUS=MODEL"),
    "a radius that is no number": (["reproduce", "4", "--pretrained", "nan=x.pt"], 2, "RADIUS=MODEL"),
    "two networks of a radius": (
        ["reproduce", "4", "--pretrained", "1=x.pt", "--pretrained", "1=y.pt"],
        2,
        "of different radii",
    ),
    "the paper's scale of other data": (
        ["reproduce", "3", "--data", "svhn", "--scale", "paper"],
        2,
        "data that the paper trains",
    ),
    "settings that are not there": (["demo", "--config", "no.toml"], 2, "no.toml"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_ends_in_one_line(
    what: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    words, status, says = BAD[what]
    assert run(*words) == status
    said = capsys.readouterr().err
    assert says in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert "Traceback" not in said


SETTINGS = {
    "colour = 1": "colour",
    'sweeps = [{objective = "pgd", strengths = [0, -0.5, 1]}]': "greater than or equal to 0",
    'sweeps = [{objective = "bribery", strengths = [0, 1, 2]}]': "expected an objective among",
    '[training]\narchitecture = "resnet19"': "expected an architecture among",
    "[training.plan]\nepochs = 0": "plan.epochs 0: input should be greater than 0",
    "[measures]\nsigma = 0": "greater than 0",
    "[measures]\nnorm = 0.7": "norm must be one of norms",
    'sweeps = [{objective = "pgd", strengths = [0.5, 1, 2]}]': "strengths must rise from 0",
    'sweeps = [{objective = "pgd", strengths = [0, 2, 1]}]': "strengths must rise from 0",
    "sweeps = []": "tuple should have at least 1 item",
    "latent = [": "expected TOML",
}


@pytest.mark.parametrize("text", SETTINGS)
def test_bad_settings_are_named_before_any_work(
    text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "bad.toml").write_text(text)
    assert run("demo", "--config", str(tmp_path / "bad.toml"), "--out", str(tmp_path / "out")) == 2
    assert SETTINGS[text] in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*/*"))


def test_what_is_said_on_the_command_line_wins_over_the_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """And the file over the scale; a table that names some of a part's values leaves the others."""
    (tmp_path / "some.toml").write_text('seed = 5\ndata = "digitz"\n[score]\nwidths = [8, 8]')
    said = ["demo", "--config", str(tmp_path / "some.toml"), "--out", str(tmp_path / "out")]
    assert run(*said) == 2
    assert "got 'digitz'" in capsys.readouterr().err
    assert run(*said, "--data", "nothing") == 2
    assert "got 'nothing'" in capsys.readouterr().err
    settings = ReproduceSettings(config=tmp_path / "some.toml", scale="demo", seed=6, experiment={})
    assert settings.resolved(()).seed == 6
    default = ExperimentSettings().score
    found = merged(ExperimentSettings(), {"score": {"widths": [8, 8]}}, where="settings").score
    assert found == default.with_(widths=(8, 8))


def test_an_output_folder_that_cannot_be_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert run("demo", "--out", str(tmp_path / "file" / "folder")) == 1
    assert "try another folder with --out" in capsys.readouterr().err


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(Exception, match="expected an image file"):
        main(["lpips", "no.png", "no.png", "--debug"])


def test_a_diverging_training_ends_in_one_line_and_keeps_what_is_finished(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "hot.toml").write_text(
        """
        images = 20
        train_images = 200
        manifold = {widths = [4, 8], plan = {epochs = 1, optimizer = "adam", learning_rate = 2e-3}}
        score = {widths = [8, 8], plan = {epochs = 1, optimizer = "adam", learning_rate = 2e-3}}
        training = {plan = {epochs = 2, learning_rate = 1e30, schedule = "constant"}}
        """
    )
    assert run("demo", "--config", str(tmp_path / "hot.toml"), "--out", str(tmp_path / "out")) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: expected a finite loss; got")
    assert said.count("\n") == 1
    assert len(list((tmp_path / "out" / "autoencoders").iterdir())) == 1
    assert len(list((tmp_path / "out" / "denoisers").iterdir())) == 1


def test_lpips_of_two_files_is_one_number(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name, low in (("a.png", 0), ("b.png", 128)):
        pixels = torch.arange(64 * 64 * 3).reshape(64, 64, 3) % 97 + low
        Image.fromarray(pixels.to(torch.uint8).numpy()).save(tmp_path / name)
    assert run("lpips", str(tmp_path / "a.png"), str(tmp_path / "a.png")) == 0
    assert float(capsys.readouterr().out) == 0
    assert run("lpips", str(tmp_path / "a.png"), str(tmp_path / "b.png")) == 0
    assert 0.01 < float(capsys.readouterr().out) < 1


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "data"])
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--help") == 0
    assert f"Example: pags {command}" in " ".join(capsys.readouterr().out.split())


def made_command(name: str) -> Any:
    group = Commands(name="pags")
    return group.get_command(typer.Context(group), name)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_says_of_itself(name: str) -> None:
    own = " ".join((made_command(name).help or "").split("\n\n")[0].split())
    assert COMMANDS[name][1] == own


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help_in_sentences_and_a_name_of_its_own(name: str) -> None:
    command = made_command(name)
    for each in getattr(command, "commands", {name: command}).values():
        flags = [flag for option in each.params for flag in (*option.opts, *option.secondary_opts)]
        assert len(flags) == len(set(flags))
        for option in each.params:
            text = (option.help or "").split(" [default")[0]
            assert text.endswith((".", "…")), option.name
            assert "None" not in text


@pytest.mark.parametrize("settings", [AuditSettings, TrainSettings, ReproduceSettings, GenerateSettings])
def test_every_setting_says_what_it_is(settings: type[Settings]) -> None:
    fields = {**dict(flat(settings)), **settings.model_fields}
    assert [name for name, field in fields.items() if not field.description] == []


def test_the_list_of_commands_names_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    words = capsys.readouterr().out
    assert [name for name in COMMANDS if f"\n  {name} " not in words] == []


def test_reproduce_lists_what_figures_need_and_take(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("reproduce", "--list") == 0
    said = capsys.readouterr().out
    lines = {line.split()[0] for line in said.splitlines() if line.strip()}
    assert {str(number) for number in range(1, 18)} | {"phenomenon-2", "phenomenon-3"} <= lines
    assert "all of these" in said
    assert not list(tmp_path.iterdir())


def test_reproduce_plans_what_a_scale_comes_to(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "few.toml").write_text(
        "[[sweeps]]\nobjective = 'pgd'\nstrengths = [0, 0.5, 1]\nattack_steps = 1\n"
        "[training.plan]\nepochs = 7\nlearning_rate = 0.1\n"
        "[manifold.plan]\nepochs = 2\nlearning_rate = 0.1\n[score.plan]\nepochs = 3\nlearning_rate = 0.1\n"
    )
    assert run("reproduce", "3", "--plan", "--config", "few.toml") == 0
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert said["networks"] == "5 to train, of which 0 are there"
    assert said["passes"] == f"{3 * 7 + 2 + 3} over the training images"
    assert {"time", "memory", "disk"} <= set(said)
    assert [path.name for path in tmp_path.iterdir()] == ["few.toml"]


def test_theory_prints_its_rows_and_names_its_files(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run("theory", "--quick", "--out", str(tmp_path)) == 0
    said = capsys.readouterr().out
    for part in ("Theorem 1", "Theorem 2", "Argument 1", "Argument 2", "Bayes gradient"):
        assert f"\n{part}\n" in said
    named = [Path(line.strip()) for line in said.split("wrote\n")[1].splitlines()]
    assert set(named) == {path for path in tmp_path.rglob("*") if path.is_file()}


def test_doctor_names_versions_and_accelerators(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor") == 0
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert said["torch"] == torch.__version__.split("+")[0] or said["torch"] == torch.__version__
    assert {"python", "cores", "memory", "pags", "accelerators"} <= set(said)


@pytest.mark.parametrize("words", [[], ["--help"], ["dmeo"]])
def test_help_does_not_wait_for_torch(words: list[str]) -> None:
    code = f"""
import sys
from pags.cli import main
try:
    main({words})
finally:
    print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_ends_in_one_line_and_keeps_finished_work(workers: int, tmp_path: Path) -> None:
    """As a terminal does it: the signal goes to the command and to its worker processes."""
    (tmp_path / "quick.toml").write_text(
        """
        manifold = {plan = {epochs = 1, learning_rate = 2e-3, optimizer = "adam"}}
        score = {plan = {epochs = 4000, learning_rate = 2e-3, optimizer = "adam"}}
        training = {plan = {epochs = 1, learning_rate = 0.1}}
        """
    )
    out = tmp_path / "out"
    words = ["demo", "--workers", str(workers), "--config", str(tmp_path / "quick.toml"), "--out", str(out)]
    running = subprocess.Popen(
        [sys.executable, "-m", "pags", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # what a terminal's commands have
    )  # fmt: skip
    try:
        until, there = time.monotonic() + 250, ("classifiers/*.safetensors", "claims/denoiser*")
        while running.poll() is None and time.monotonic() < until:
            if all(list(out.glob(files)) for files in there):
                break
            time.sleep(0.1)
        kept = set(out.glob("classifiers/*.safetensors"))
        time.sleep(1)
        os.killpg(running.pid, signal.SIGINT)
        _, said = running.communicate(timeout=120)
    finally:
        running.kill()
    assert said == "interrupted: finished work is kept; the same command continues\n"
    assert running.returncode == 130
    assert kept
    assert kept <= set(out.glob("classifiers/*.safetensors"))
    assert not list(out.glob("denoisers/*")), "it was interrupted, not finished"


def test_the_paper_in_100_lines_runs() -> None:
    script = Path(__file__).parent.parent / "examples" / "paper_in_100_lines.py"
    assert len(script.read_text().splitlines()) <= 100
    done = subprocess.run([sys.executable, script, "--quick"], check=True, capture_output=True, text=True)
    rows = [line.split() for line in done.stdout.splitlines() if line.strip()[:1].isdigit()]
    assert [float(row[0]) for row in rows if len(row) == 6] == [0, 1]
