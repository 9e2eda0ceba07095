"""Faults that gave wrong numbers once, each by the number that issue 11 gives it.

Faults 3, 5, 6 and 7 are held elsewhere too: `test_fake_cuda`, `test_figures`, `test_laws`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tiny
from conftest import built, seeded
from pags.auditing.run import settings_of
from pags.cli import main
from pags.data.sources import load_data
from pags.errors import UsageError
from pags.experiments.experiment import RECORD, Experiment, run_sweeps
from pags.figures.catalogue import read
from pags.figures.reproduce import ReproduceSettings, reproduce
from pags.manifold.autoencoder import Autoencoder, load_autoencoder
from pags.manifold.tangent import DecoderTangent
from pags.score.denoiser import score_of
from pags.score.edm.denoiser import EDMDenoiser
from pags.score.edm.preconditioning import PRECONDITIONERS
from pags.score.load import export
from pags.score.unet import UNetDenoiser
from pags.store import Store

# --- 1: keys that missed the images ----------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    """A denoiser and an autoencoder as files, as `--denoiser` and `--autoencoder` take them."""
    store = Store(tmp_path)
    tensors, about = export(built(lambda: UNetDenoiser(1, classes=10, widths=(8, 8))))
    store.write_tensors("denoiser.safetensors", tensors, about)
    coder = built(lambda: Autoencoder((1, 8, 8), 4, (8, 16)))
    store.write_tensors("autoencoder.safetensors", coder.state_dict(), {})
    return {
        "score": {"file": str(tmp_path / "denoiser.safetensors")},
        "manifold": {"file": tmp_path / "autoencoder.safetensors"},
    }


def projector(basis: Tensor | None) -> Tensor:
    assert basis is not None
    return basis @ basis.mT


def test_fault_1_a_second_data_set_in_one_folder_does_not_get_the_firsts_scores(
    files: dict[str, Any], tmp_path: Path
) -> None:
    digits = load_data("digits")
    whole = torch.cat([digits.train.images, digits.test.images]).flip(2).permute(0, 2, 3, 1)
    labels = torch.cat([digits.train.labels, digits.test.labels])
    np.savez(tmp_path / "flipped.npz", images=whole.numpy(), labels=labels.numpy())
    sets, found = ("digits", f"npz:{tmp_path / 'flipped.npz'}"), []
    for data in sets:
        made = Experiment(tiny.settings(**files, data=data), Store(tmp_path / "one folder"))
        evaluation, images = made.evaluation, made.data.test.images
        score, basis = evaluation.score_at(torch.arange(30), None), evaluation.parts[0].basis
        # Against what neither cache nor experiment has seen.
        expected = score_of(made.estimators.denoiser.thing, images, made.settings.measures.sigma)
        torch.testing.assert_close(score, expected)
        autoencoder = load_autoencoder(files["manifold"]["file"])
        torch.testing.assert_close(
            projector(basis), projector(DecoderTangent(autoencoder)(images)[0]), atol=1e-4, rtol=0
        )
        found.append((images, score, projector(basis)))
    assert all(float((a - b).abs().max()) > 0.1 for a, b in zip(*found, strict=True))


# --- 2: keys that knew names, not behaviour --------------------------------------------------------------

NETWORK = """
from pathlib import Path
import numpy, torch
import helper
def network():
    weight = torch.from_numpy(numpy.load(Path(__file__).parent / "weight.npy"))
    net = torch.nn.Sequential(torch.nn.Flatten(), helper.Linear(64, 10, bias=False))
    net[1].weight.data = weight
    return net
def spaces(images):
    eye = torch.eye(64)[:, :5]
    return eye.expand(len(images), -1, -1)
def denoiser(images, sigma, labels=None):
    return 0.9 * images
"""


def test_fault_2_an_audit_after_the_weights_became_noise_is_not_that_of_before(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(NETWORK)
    (tmp_path / "helper.py").write_text("from torch.nn import Linear")
    digits = load_data("digits")
    x, y = digits.train.images.flatten(1), torch.nn.functional.one_hot(digits.train.labels, 10).float()
    weight = torch.linalg.lstsq(x, y).solution.T.contiguous()
    noise = torch.randn(weight.shape, generator=seeded())
    out, spec = tmp_path / "out", f"{tmp_path / 'mine.py'}"
    words = ["audit", f"{spec}:network", "--images", "40", "--out", str(out)]
    words += ["--tangent", f"{spec}:spaces", "--denoiser", f"{spec}:denoiser"]
    words += ["--metric", "cosine", "--target", "logit", "--smooth-target", "logit", "--gallery", "2"]

    def accuracy() -> float:
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert not ended.value.code
        (model,) = Store(out).read_record("audit.json")["models"]
        return model["means"]["correct"]["estimate"]

    np.save(tmp_path / "weight.npy", weight.numpy())
    assert accuracy() > 0.8
    np.save(tmp_path / "weight.npy", noise.numpy())
    assert accuracy() < 0.5
    # The same weights again, and a helper that does something else with them.
    np.save(tmp_path / "weight.npy", weight.numpy())
    (tmp_path / "helper.py").write_text(
        "import torch\nclass Linear(torch.nn.Linear):\n"
        "    def forward(self, x):\n        return -super().forward(x)\n"
    )
    assert accuracy() < 0.1


# --- 4: half of the scores given -------------------------------------------------------------------------


def edm_file(folder: Path, classes: int) -> str:
    """A small network of EDM's kind for the digits, of all classes (0) or of single ones alone."""
    options: dict[str, Any] = {
        "model_channels": 8,
        "channel_mult": [1, 2],
        "num_blocks": 1,
        "attn_resolutions": [4],
    }
    make = PRECONDITIONERS["EDMPrecond"]
    net = built(lambda: make(8, 1, label_dim=classes, model_type="SongUNet", **options))
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(0.1 * torch.randn(weight.shape, generator=seeded(weight.numel())))
    tensors, about = export(EDMDenoiser(net))
    Store(folder).write_tensors(f"edm-{classes}.safetensors", tensors, about)
    return str(folder / f"edm-{classes}.safetensors")


HALVES = [("file", 0), ("conditional_file", 10), ("file", 10)]


def halved(folder: Path, where: str, classes: int, **more: Any) -> dict[str, Any]:
    manifold = {"manifold": {"estimator": "local-pca", "latent": 4}}
    return tiny.TABLES | manifold | {"score": {where: edm_file(folder, classes)}} | more


@pytest.mark.parametrize(("where", "classes"), HALVES)
def test_fault_4_with_half_of_the_scores_the_other_half_is_left_out_and_said(
    where: str, classes: int, tmp_path: Path
) -> None:
    """Once the paper's Figure 3 failed after the autoencoder's training, or took a row of zeros for all."""
    asked = ReproduceSettings(scale="smoke", device="cpu", experiment=halved(tmp_path, where, classes))
    store = Store(tmp_path / "out")
    record = reproduce(["1", "3", "10", "17"], asked, store)
    model = store.read_record(RECORD)["models"][-1]
    kinds = (
        {"logit": "predicted class"} if classes else dict.fromkeys(("logit", "sum-of-logits"), "all classes")
    )
    assert model["settings"]["compared with"] == kinds
    said = "; ".join(model["settings"]["missing"])
    assert ("the score of all classes" in said) == bool(classes)
    assert ("the score of a class" in said) != bool(classes)
    for target in ("logit", "sum-of-logits"):
        assert (f"lpips {target}" in model["means"]) == (target in kinds)
        assert f"rho2 {target}" in model["means"]
    figure = read(store, "3")
    assert figure is not None
    names = {s["style"] for row in figure.record["panels"] for panel in row for s in panel["series"]}
    assert "similarity" in names
    assert ("sum" in names) != bool(classes)
    of_sum = [claim for claim in record["claims"] if claim["claim"] == "sum-of-logits-agrees"]
    assert len(of_sum) == 2
    assert all((claim["estimate"] is None) == bool(classes) for claim in of_sum)


@pytest.mark.parametrize(("where", "classes"), HALVES)
def test_fault_4_what_does_not_fit_is_refused_before_any_work(
    where: str, classes: int, tmp_path: Path
) -> None:
    store, tables = Store(tmp_path / "out"), halved(tmp_path, where, classes)
    made = Experiment(tiny.settings(tables), store)
    made.check()
    assert settings_of(made.evaluation, control=False)["missing"]
    np.savez(tmp_path / "wide.npz", images=np.zeros((200, 16, 16), np.uint8), labels=np.arange(200) % 10)
    wide = tiny.settings(tables, data=f"npz:{tmp_path / 'wide.npz'}")
    with pytest.raises(UsageError, match="for which this denoiser was trained"):
        run_sweeps(wide, store)
    assert not store.root.exists() or not list(store.root.rglob("*.safetensors"))
