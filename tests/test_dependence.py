"""How the numbers depend on the tangent spaces: a smaller k is the leading part of a larger one."""

from pathlib import Path

import pytest
import torch

import tiny
from conftest import seeded
from pags.experiments import bayes
from pags.experiments.bayes import bayes_line
from pags.experiments.experiment import Experiment, run_sweeps
from pags.experiments.manifold import RECORD, Leading, manifold_dependence
from pags.manifold.basis import orthonormal_basis
from pags.report.words import estimate
from pags.score import DenoisingClassifier
from pags.store import Store


def test_leading_directions_are_those_of_the_largest_singular_values() -> None:
    draws = seeded(0)
    stretched = torch.randn(3, 12, 4, generator=draws) * torch.tensor([9.0, 5.0, 2.0, 0.5])
    basis, ranks = Leading(lambda images: orthonormal_basis(stretched), 2)(torch.zeros(3, 1, 3, 4))
    expected = torch.linalg.svd(stretched).U[:, :, :2]
    assert (basis @ basis.mT - expected @ expected.mT).abs().max() < 1e-4
    assert ranks.tolist() == [2, 2, 2]


def test_the_experiments_own_dimension_gives_the_sweeps_numbers(tmp_path: Path) -> None:
    settings = tiny.settings(manifold=tiny.TABLES["manifold"] | {"latent": 12})
    store, sweep = Store(tmp_path), settings.sweeps[1]
    record = run_sweeps(settings, store)
    found = manifold_dependence(Experiment(settings, store), sweep)
    assert found == store.read_record(RECORD)
    assert found["k"] == [8, 12]
    assert list(found["models"]) == ["autoencoder", "local-pca"]
    own = {model["name"]: model for model in record["models"]}
    for measured in found["models"]["autoencoder"][-1]:
        expected = own[measured["name"]]["ratios"]
        for ratio in (f"off/on {settings.measures.norm:g}", "rho1", "rho2 logit"):
            assert estimate(measured["ratios"][ratio]) == pytest.approx(estimate(expected[ratio]), rel=1e-5)
    smaller, larger = (models[0]["ratios"]["rho2 logit"] for models in found["models"]["autoencoder"])
    assert (estimate(smaller) or 0) > (estimate(larger) or 1), "a larger space holds more of the gradient"


def test_the_bayes_line_is_that_of_the_denoisers_own_classifier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bayes, "IMAGES", 20)
    monkeypatch.setattr(bayes, "SIGMAS", (0.2, 0.5))
    settings = tiny.settings(manifold=tiny.TABLES["manifold"] | {"latent": 12})
    experiment = Experiment(settings, Store(tmp_path))
    record = bayes_line(experiment)
    assert record == experiment.store.read_record(bayes.RECORD)
    assert [each["sigma"] for each in record["levels"]] == list(bayes.SIGMAS)
    images, made = experiment.data.test.take(slice(0, bayes.IMAGES)), experiment.estimators
    model = DenoisingClassifier(
        made.denoiser, images.shape, len(images.classes), 0.5, levels=bayes.LEVELS, draws=bayes.DRAWS,
        seed=settings.seed,
    )  # fmt: skip
    with torch.no_grad():
        right = (model(images.images).argmax(1) == images.labels).float().mean()
    found = record["levels"][1]
    assert found["correct"]["estimate"] == pytest.approx(float(right))
    assert 0 < found["off/on"]["low"] < found["off/on"]["high"]
