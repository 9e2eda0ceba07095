"""`pags data`: what each command prints and writes, and that mistakes end in errors that say what to do."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

import pags.data.download as download
from pags.cli import data
from pags.errors import PagsError, UsageError

COMMANDS = ("list", "fetch", "prepare", "show")


def run(*words: str) -> str:
    app = typer.Typer(rich_markup_mode=None)
    app.callback()(lambda: None)
    data.register(app)
    result = CliRunner().invoke(app, ["data", *words], env={"COLUMNS": "200"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0
    return result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example(command: str) -> None:
    assert f"Example: pags data {command}" in run(command, "--help")


def test_the_list_says_what_is_here(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "edm-cifar10-32x32-cond-vp.pkl").touch()
    lines = {line.split(" ")[0]: line for line in run("list", "--data-folder", str(tmp_path)).splitlines()}
    assert " here " in lines["digits"]
    assert "not here" in lines["mnist"]
    assert " here " in lines["edm-cifar10-32x32-cond-vp"]
    assert "not here" in lines["edm-cifar10-32x32-uncond-vp"]


def test_show_counts_and_writes_a_sheet(tmp_path: Path) -> None:
    out = tmp_path / "new" / "sheet.png"
    said = run("show", "digits-distractor", "--out", str(out))
    assert "1500 for training, 297 for testing" in said
    assert "1×16×8" in said
    assert "0.500 of the pixels are signal" in said
    assert str(out) in said
    with Image.open(out) as sheet:
        assert sheet.size == (16 * 10 * 6, 8 * 18 * 6)


def test_prepare_tells_what_was_left_out(tmp_path: Path) -> None:
    place = tmp_path / "source" / "val" / "n01"
    place.mkdir(parents=True)
    for number in range(3):
        Image.fromarray(np.full((70, 80, 3), 50 * number, np.uint8)).save(place / f"{number}.png")
    (place / "broken.png").write_bytes(b"")
    said = run("prepare", "imagenet64", str(tmp_path / "source"), str(tmp_path / "out"))
    assert "val: 3 images, 1 left out" in said
    assert "imagenet64.json" in said
    assert "3×64×64" in run("show", "imagenet64", "--data-folder", str(tmp_path / "out"))
    with pytest.raises(UsageError, match="expected imagenet64"):
        run("prepare", "imagenet", str(tmp_path), str(tmp_path))


def test_fetch_prints_the_checksum_that_is_not_yet_known(tmp_path: Path) -> None:
    path = tmp_path / "weights" / "edm-cifar10-32x32-cond-vp.pkl"
    path.parent.mkdir()
    path.write_bytes(b"weights")
    said = run("fetch", "edm-cifar10-32x32-cond-vp", "--data-folder", str(tmp_path))
    assert hashlib.sha256(b"weights").hexdigest() in said
    assert "not yet recorded" in said


def test_fetch_says_what_it_can_fetch_and_that_the_network_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*_: object, **__: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(download, "urlopen", closed)
    with pytest.raises(PagsError, match="no answer") as caught:
        run("fetch", "edm-imagenet-64x64-cond-adm", "--data-folder", str(tmp_path))
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=r"a name among mnist.*edm-imagenet"):
        run("fetch", "digits")
