"""`pags convert`: a foreign checkpoint goes in, plain weights come out, and nothing is written over."""

import hashlib
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from torch import nn
from typer.testing import CliRunner

from conftest import built
from pags.checkpoints import Opaque
from pags.cli import convert
from pags.errors import PagsError, UsageError
from pags.store import read_safetensors

Run = Callable[..., str]


@pytest.fixture
def run() -> Run:
    """The command, its output as one text; errors are raised."""
    app = typer.Typer()
    convert.register(app)

    def call(*words: object) -> str:
        result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    return call


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    net = built(lambda: nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)))
    state = {f"module.model.{name}": value for name, value in net.state_dict().items()}
    torch.save({"model": state, "epoch": 7, "why": nn.ReLU()}, path := tmp_path / "net.ckpt")
    return path


def test_a_classifier_keeps_its_names_and_says_where_it_comes_from(
    run: Run, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "net.safetensors"
    assert str(out) in run(checkpoint, out).splitlines()[-1]
    tensors, about = read_safetensors(out)
    expected = torch.load(checkpoint, weights_only=False)["model"]
    assert sorted(tensors) == sorted(expected)
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert about == {"kind": "classifier", "key": "model", "source": "net.ckpt", "sha256": digest}


def test_nothing_is_written_over(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    (out := tmp_path / "net.safetensors").write_bytes(b"precious")
    with pytest.raises(UsageError, match="a file that is not there yet"):
        run(checkpoint, out)
    assert out.read_bytes() == b"precious"
    run(checkpoint, out, "--force")
    once = out.read_bytes()
    with pytest.raises(UsageError, match="other than CKPT itself"):
        run(out, out, "--force")
    assert out.read_bytes() == once
    again = tmp_path / "again.safetensors"
    run(out, again)
    assert sorted(read_safetensors(again)[0]) == sorted(read_safetensors(out)[0])


@pytest.mark.parametrize("words", [[], ["net.pt"]])
def test_the_second_file_has_to_be_safetensors(run: Run, checkpoint: Path, words: list[str]) -> None:
    with pytest.raises(UsageError, match=r"expected OUT\.safetensors"):
        run(checkpoint, *words)


def test_listing_shows_tensors_and_classes_and_writes_nothing(
    run: Run, checkpoint: Path, tmp_path: Path
) -> None:
    lines = run(checkpoint, "--list").splitlines()
    assert "model.module.model.0.weight  (2, 3)  float32" in lines
    assert "model.module.model.1.num_batches_tracked  ()  int64" in lines
    assert "opaque: torch.nn.modules.activation.ReLU  1 times" in lines
    assert [path.name for path in tmp_path.iterdir()] == ["net.ckpt"]


def test_foreign_names_cannot_write_to_the_terminal(run: Run, tmp_path: Path) -> None:
    torch.save({"\x1b[2Jred\n[bold]": torch.ones(1)}, path := tmp_path / "a.pt")
    assert run(path, "--list") == "\\x1b[2Jred\\n[bold]  (1,)  float32\n"


def test_without_weights_nothing_is_written(run: Run, tmp_path: Path) -> None:
    torch.save({"epoch": 3}, path := tmp_path / "a.pt")
    with pytest.raises(PagsError, match="got a checkpoint with epoch"):
        run(path, tmp_path / "a.safetensors")
    assert not (tmp_path / "a.safetensors").exists()


def test_networks_of_edm_are_exported_as_denoisers(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Opaque("torch_utils.persistence._reconstruct_persistent_obj", ({"class_name": "EDMPrecond"},))
    loaded = types.ModuleType("pags.score.load")
    asked: list[Any] = []

    def load_denoiser(path: Path, which: str) -> str:
        asked.append((path, which))
        return "network"

    def export(network: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        return {"w": torch.ones(2)}, {"kind": "denoiser", "network": network}

    monkeypatch.setattr(loaded, "load_denoiser", load_denoiser, raising=False)
    monkeypatch.setattr(loaded, "export", export, raising=False)
    monkeypatch.setitem(sys.modules, "pags.score.load", loaded)
    monkeypatch.setattr("pags.checkpoints.read", lambda path: {"ema": network})
    (path := tmp_path / "edm.pkl").write_bytes(b"N.")
    run(path, out := tmp_path / "edm.safetensors")
    tensors, about = read_safetensors(out)
    assert asked == [(path, "ema")]
    assert torch.equal(tensors["w"], torch.ones(2))
    assert (about["kind"], about["network"], about["source"]) == ("denoiser", "network", "edm.pkl")
