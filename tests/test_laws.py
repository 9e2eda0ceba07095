"""The laws of the one measuring path: an audit is a row of a sweep, and nothing is asked for twice."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pags
import tiny
from conftest import Linear, built, network_with_batch_norm, seeded
from pags.auditing import EvaluationSet
from pags.auditing.columns import measured, pictures
from pags.data.imageset import ImageSet
from pags.experiments import classifiers, estimators
from pags.experiments.audit import Auditing, AuditSettings
from pags.experiments.classifiers import network_of
from pags.experiments.experiment import Experiment
from pags.score.exact import IdealDenoiser
from pags.score.load import export
from pags.score.unet import UNetDenoiser
from pags.store import Store

Columns = dict[str, Tensor]
SUBJECTS = [("cross-entropy", 0.0), ("pgd", 0.5), ("pgd", 1.5)]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """A sweep with all that an audit measures."""
    more = {"radii": (0.5,), "attack_steps": 2, "smooth_targets": ("logit",), "smooth_sigmas": (0.1,)}
    settings = tiny.settings(measures=more | {"smooth_samples": 2})
    return Experiment(settings, Store(tmp_path_factory.mktemp("laws")))


def assert_equal(found: Columns, expected: Columns) -> None:
    """To the last bit."""
    assert set(found) == set(expected)
    for name, column in expected.items():
        assert torch.equal(found[name].nan_to_num(-9), column.nan_to_num(-9)), name


def shared(row: Mapping[str, Any]) -> dict[str, Any]:
    """What an audit measures too: an audit knows nothing of a model's training images."""
    return {name: value for name, value in row.items() if not name.startswith("training ")}


# --- a model audited is its row in a sweep ---------------------------------------------------------------


@pytest.mark.parametrize(("objective", "strength"), SUBJECTS)
def test_a_model_audited_equals_its_row_in_a_sweep(
    experiment: Experiment, objective: str, strength: float
) -> None:
    subject = experiment.model(objective, strength)
    row = experiment.columns(subject)
    audit = pags.audit(network_of(subject), experiment.evaluation, gallery=2)
    assert_equal(audit.columns, shared(row))
    assert set(row) - set(audit.columns) == {"training loss", "training correct"}
    record, summary = experiment.model_record(objective, strength), audit.summary(resamples=50)
    assert shared(record["means"]) == summary["means"]
    assert record["above_shuffled"] == summary["above_shuffled"]


def test_the_rho1_of_a_sweep_is_that_of_an_audit(experiment: Experiment) -> None:
    """Fault 6: two numbers for one quantity."""
    record = experiment.model_record("pgd", 0.5)
    found = pags.audit(network_of(experiment.model("pgd", 0.5)), experiment.evaluation).summary(resamples=50)
    assert found["ratios"]["rho1"] == record["ratios"]["rho1"] is not None
    assert found["ratios"] == record["ratios"]


def test_the_command_measures_what_the_sweep_measured(experiment: Experiment, tmp_path: Path) -> None:
    """A classifier out of the sweep's store, handed to the command as a file."""
    subject = experiment.model("pgd", 0.5)
    row = experiment.columns(subject)
    file = experiment.store.path(subject.network.file)
    state = Auditing(AuditSettings(images=30, gallery=2, attacks=("pgd",)), Store(tmp_path))
    state.evaluation = experiment.evaluation  # in place of one with estimators of its own
    audit = state.audited(state.subjects([str(file)])[0])
    own = {name: column for name, column in audit.columns.items() if not name.startswith("control ")}
    assert_equal(own, shared(row))


def test_the_order_of_models_changes_no_bit(experiment: Experiment) -> None:
    networks = [network_of(experiment.model(*subject)) for subject in SUBJECTS]

    def each(order: Sequence[int]) -> dict[int, Columns]:
        evaluation = experiment.evaluation_of(experiment.data.test)
        return {place: measured(networks[place], evaluation) for place in order}

    first, second = each((0, 1, 2)), each((2, 0, 1))
    for place in range(3):
        assert_equal(first[place], second[place])


def test_an_evaluation_set_in_memory_gives_what_one_on_disk_gives(experiment: Experiment) -> None:
    network, made = network_of(experiment.model("pgd", 1.5)), experiment.estimators
    measures = experiment.settings.measures
    evaluation = EvaluationSet.of(
        experiment.data.test, tangent=made.tangent, denoiser=made.denoiser, second=made.second,
        measures=measures,
    )  # fmt: skip
    row = experiment.columns(experiment.model("pgd", 1.5))
    assert_equal(measured(network, evaluation), shared(row))


def test_numbers_of_pictures_are_those_of_their_images(experiment: Experiment) -> None:
    """A picture is taken of an image alone, and still has its tangent space, score and similarity."""
    network = network_of(experiment.model("pgd", 0.5))
    columns, places = measured(network, experiment.evaluation), torch.tensor([7, 2, 29])
    shown = pictures(network, experiment.evaluation, places, "logit")
    for metric in ("lpips", "cosine"):
        torch.testing.assert_close(shown[metric], columns[f"{metric} logit"][places], atol=1e-4, rtol=1e-4)
    off = 1 - shown["on gradient"].flatten(1).square().sum(1) / shown["gradient"].flatten(1).square().sum(1)
    torch.testing.assert_close(off, columns["rho2 logit"][places], atol=1e-4, rtol=1e-3)


def test_a_sweep_says_how_well_each_network_fits_its_training_images(experiment: Experiment) -> None:
    subject, fitted = experiment.model("pgd", 0.5), experiment.fitted
    assert fitted is not None
    assert len(fitted) == len(experiment.data.test)
    row = experiment.columns(subject)
    with torch.no_grad():
        told = network_of(subject).eval()(fitted.images).log_softmax(1)
    expected = -told[torch.arange(len(fitted)), fitted.labels]
    torch.testing.assert_close(row["training loss"], expected)
    assert torch.equal(row["training correct"], (told.argmax(1) == fitted.labels).float())
    fewer = dataclasses.replace(experiment, settings=experiment.settings.with_(train_images=20))
    assert fewer.fitted is None
    assert "training loss" not in fewer.columns(fewer.untrained())


# --- how often things are asked for ----------------------------------------------------------------------

N = 8


class Counted:
    """A tangent estimator and a denoiser that count the images they are asked about."""

    def __init__(self, data: ImageSet) -> None:
        self.basis = torch.linalg.qr(torch.randn(N, 64, 6, generator=seeded(1)))[0]
        self.data, self.ideal, self.classes = data, IdealDenoiser(data.images, data.labels), 3
        self.spaces = 0
        self.scores: dict[tuple[int, int | None], int] = {}

    def tangent(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.spaces += len(images)
        return self.basis[: len(images)], torch.full((len(images),), 6)

    def __call__(self, images: Tensor, sigma: float, labels: Tensor | None = None) -> Tensor:
        for row, image in enumerate(images):
            place = int((self.data.images - image).flatten(1).abs().sum(1).argmin())
            asked = place, None if labels is None else int(labels[row])
            self.scores[asked] = self.scores.get(asked, 0) + 1
        return self.ideal(images, sigma, labels)


def small_set() -> ImageSet:
    pixels = torch.rand(N, 1, 8, 8, generator=seeded())
    return ImageSet(pixels, torch.arange(N) % 3, ("a", "b", "c"), "made")


@pytest.mark.parametrize("models", [1, 3])
def test_n_images_ask_the_tangent_estimator_n_times_and_the_denoiser_once_per_image_and_class(
    models: int,
) -> None:
    """Fault 7: 8 images and 3 models asked for 24 tangent spaces and 75 denoised images."""
    data = small_set()
    counted = Counted(data)
    evaluation = EvaluationSet.of(
        data, tangent=counted.tangent, denoiser=counted, norms=(0.5,), radii=(), directions=1,
        metrics=("cosine",), smooth_samples=1,
    )  # fmt: skip
    counted.scores.clear()  # what was asked to find out whether denoiser and images fit together
    networks = [network_with_batch_norm(seed=seed).eval() for seed in range(models)]
    seen = set()
    for network in networks:
        assert pags.audit(network, evaluation, gallery=2).panels["places"].tolist()
        seen |= set(enumerate(network(data.images).argmax(1).tolist()))
    assert counted.spaces == N
    assert set(counted.scores.values()) == {1}
    everywhere = {(place, None) for place in range(N)} | set(enumerate(data.labels.tolist()))
    assert set(counted.scores) == everywhere | seen


def test_each_noise_draw_of_smoothgrad_asks_the_denoiser_for_nothing() -> None:
    data = small_set()
    counted = Counted(data)
    options: dict[str, Any] = {"norms": (0.5,), "radii": (), "metrics": ("cosine",)}
    evaluation = EvaluationSet.of(data, denoiser=counted, smooth_samples=5, of_class="true", **options)
    counted.scores.clear()
    measured(network_with_batch_norm().eval(), evaluation)
    assert sum(counted.scores.values()) == 2 * N


def test_files_are_read_once_per_experiment_and_not_once_per_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 7: EDM files were hashed in every call, and parsed once per model."""
    store, calls = Store(tmp_path), dict[str, int]()
    denoiser = built(lambda: UNetDenoiser(1, classes=10, widths=(8, 8)))
    tensors, about = export(denoiser)
    store.write_tensors("denoiser.safetensors", tensors, about)

    def counted(name: str) -> None:
        original = getattr(estimators, name)

        def call(*given: Any, **options: Any) -> Any:
            calls[name] = calls.get(name, 0) + 1
            return original(*given, **options)

        monkeypatch.setattr(estimators, name, call)

    counted("file_digest")
    counted("load_denoiser")
    settings = tiny.settings(
        score={"file": str(store.path("denoiser.safetensors"))}, manifold={"estimator": "local-pca"}
    )
    made = Experiment(settings, store)
    made.check()
    for strength in (0.0, 0.5, 1.5):
        network = Linear(torch.randn(10, 64, generator=seeded(int(10 * strength))))
        subject = classifiers.Subject("linear", *classifiers.named(network, made.data.test, device="cpu"))
        assert made.columns(subject)["correct"].shape == (30,)
    assert calls == {"file_digest": 1, "load_denoiser": 1}


def test_fit_leaves_the_memory_of_the_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 7: `mallopt` was changed for the user's whole process inside `pags.fit`."""

    def fail(*given: object) -> None:
        raise AssertionError("the process was changed")

    monkeypatch.setattr("pags.memory.keep_freed_memory", fail)
    plan = pags.Plan(epochs=1, learning_rate=0.1)
    records = pags.fit(network_with_batch_norm(), pags.make_objective("pgd", 0.0), small_set(), plan, seed=0)
    assert len(list(records)) == 1


def test_a_network_without_parameters_is_measured_too() -> None:
    """The evaluation set says on which device, not the network."""

    class Means(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, :3]

    assert measured(Means(), EvaluationSet.of(small_set(), radii=()))["correct"].shape == (N,)
