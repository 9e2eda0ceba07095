"""The GPU tier: on CUDA each command at its smallest size gives the CPU's records, within rounding.

python -m pytest -m gpu, where there is a GPU; skipped elsewhere (tests/test_fake_cuda.py stands in there).
"""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import pags
import tiny
from pags.experiments.classifiers import network_of
from pags.experiments.experiment import Experiment
from pags.store import Store

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

ROUNDING = 2e-3
"""Relative, of means over 30 images: sums in another order, and attacks that follow them."""
NETWORKS = ("autoencoders", "classifiers", "denoisers")
SHORT: dict[str, Any] = {"data": "digits", "scale": "smoke", "experiment": tiny.TABLES | tiny.PARTS}


def means(found: dict[str, Any]) -> dict[str, float]:
    return {name: value["estimate"] for name, value in found["means"].items() if value is not None}


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything on the CPU."""
    folder = tmp_path_factory.mktemp("cpu")
    pags.reproduce(["all"], store=folder, device="cpu", **SHORT)
    return folder


def test_the_same_networks_measure_the_same(on_cpu: Path, tmp_path: Path) -> None:
    for name in NETWORKS:
        shutil.copytree(on_cpu / name, tmp_path / name)
    pags.reproduce(["all"], store=tmp_path, device="cuda", **SHORT)
    here, there = (Store(folder).read_record("records/sweep.json") for folder in (on_cpu, tmp_path))
    for own, other in zip(here["models"], there["models"], strict=True):
        assert means(other) == pytest.approx(means(own), rel=ROUNDING, abs=ROUNDING), own["name"]


def test_a_training_takes_the_same_course(tmp_path: Path) -> None:
    """The same draws, so that weights after an epoch differ by the rounding of its steps."""
    networks = {
        device: network_of(
            Experiment(tiny.settings(device=device), Store(tmp_path / device)).model("pgd", 0.5)
        )
        for device in ("cpu", "cuda")
    }
    pairs = zip(*(networks[device].cpu().parameters() for device in ("cpu", "cuda")), strict=True)
    for own, other in pairs:
        assert float((own - other).norm()) < 0.02 * float(own.norm())


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_a_reproduction_from_nothing(precision: str, tmp_path: Path) -> None:
    record = pags.reproduce(["3", "9", "17"], store=tmp_path, device="cuda", precision=precision, **SHORT)
    assert [figure for figure in record["figures"] if figure in ("3", "9", "17")] == ["3", "9", "17"]
    pags.write_report(tmp_path)
    assert (tmp_path / "report.html").is_file()


def test_an_audit(on_cpu: Path) -> None:
    data = pags.load_data("digits").test.sample(30)
    (path, *_) = sorted((on_cpu / "classifiers").glob("*pgd*.safetensors"))
    model = pags.load_classifier(str(path))
    denoiser = pags.load_denoiser(next((on_cpu / "denoisers").glob("*.safetensors")))
    own = pags.audit(model, data, denoiser=denoiser).summary(resamples=50)
    there = pags.audit(model.cuda(), data.to("cuda"), denoiser=denoiser.cuda()).summary(resamples=50)
    assert means(dict(there)) == pytest.approx(means(dict(own)), rel=ROUNDING, abs=ROUNDING)
