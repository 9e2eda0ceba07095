"""`pags audit` as a job: a user's ten lines of Python through the command line, the records, the page."""

import json
import re
import shlex
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.transforms.functional import to_pil_image

from conftest import built, network_with_batch_norm, seeded
from pags.auditing.measures import Measures
from pags.classifiers.untrained import untrained
from pags.cli import main
from pags.data.folders import CIFAR10
from pags.data.imageset import ImageSet
from pags.data.resize import size_of_side
from pags.data.sources import load_data
from pags.errors import PagsError, UsageError
from pags.experiments import estimators
from pags.experiments.audit import RECORD, TENSORS, Auditing, AuditSettings, run_audit, with_control
from pags.experiments.cache import Cache, Lazy
from pags.experiments.classifiers import Subject
from pags.experiments.estimators import Estimators, at_size, principal_dimension, small_settings
from pags.experiments.settings import Manifold
from pags.manifold.autoencoder import Autoencoder, load_autoencoder
from pags.report.pages import write_audit_report
from pags.report.words import rows, verdict
from pags.score.unet import UNetDenoiser
from pags.shipped import shipped_images
from pags.store import Store

ROOT = Path(__file__).parents[1]
TEN_LINES = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(10, 64, generator=torch.Generator().manual_seed({seed})) / 8)

    def forward(self, x):
        return nn.functional.adaptive_avg_pool2d(x, 8).flatten(1) @ self.weight.T
"""

QUICK = (
    "--images", "12", "--directions", "1", "--metric", "cosine", "--metric", "ssim", "--radius", "0.3",
    "--norm", "0.5", "--norm", "1", "--attack", "pgd", "--attack", "apgd-ce",
)  # fmt: skip


FEWEST = Measures(directions=1, metrics=("cosine",), targets=("logit",), smooth_targets=(), radii=())


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Estimates from few images in one epoch, kept apart from the user's."""
    monkeypatch.setenv("PAGS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("pags.experiments.audit.at_size", partial(at_size, most=200))
    monkeypatch.setattr(estimators, "PIXELS_SEEN", {"autoencoder": 1.0, "denoiser": 1.0})


@pytest.fixture
def models(tmp_path: Path) -> list[str]:
    for seed in (0, 1):
        (tmp_path / f"net{seed}.py").write_text(TEN_LINES.replace("{seed}", str(seed)))
    return [f"{tmp_path / f'net{seed}.py'}:Net" for seed in (0, 1)]


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["audit", *words])
    return int(ended.value.code or 0)


# --- the whole command -----------------------------------------------------------------------------------


def test_a_new_users_files_end_to_end(
    models: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run(*models, *QUICK, "--out", str(out)) == 0
    said = capsys.readouterr().out
    named = [Path(line.strip()) for line in said.split("wrote\n")[1].splitlines()]
    assert {path.name for path in named} >= {RECORD, TENSORS, "report.html"}
    assert all(path.is_file() for path in named)
    record = json.loads((out / RECORD).read_text())
    assert [model["name"] for model in record["models"]] == models
    titles = [row.title for row in rows(record["models"][0])]
    assert len(set(titles)) == len(titles), "each number has a name of its own"
    assert {"estimate", "low", "high", "level"} == set(record["models"][0]["means"]["cosine logit"])
    assert record["models"][0]["about"]["sha256"] != record["models"][1]["about"]["sha256"]
    assert [(pair["first"], pair["second"]) for pair in record["pairs"]] == [tuple(models)]
    assert any("estimated from 200 images" in note for note in record["estimators"]["notes"])
    tensors, about = Store(out).read_tensors(TENSORS)
    assert about["models"] == models
    both = [tensors[f"{place}/column/cosine logit"].double().mean() for place in (0, 1)]
    for mean, model in zip(both, record["models"], strict=True):
        assert model["means"]["cosine logit"]["estimate"] == pytest.approx(float(mean), abs=1e-6)
    difference = record["pairs"][0]["differences"]["cosine logit"]["estimate"]
    assert difference == pytest.approx(float(both[0] - both[1]), abs=1e-6)
    page = (out / "report.html").read_text()
    assert page.count("<svg") >= 6  # two figures of all models, two of each, and the pictures on top
    for address in ('http-equiv="refresh', "@import", 'href="http', "url(http"):
        assert address not in page  # nothing is fetched
    assert not re.search(r'src="(?!data:)', page)


def test_again_does_nothing_twice_and_changes_nothing(
    models: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    measures = Measures(directions=1, metrics=("cosine",), radii=(0.3,), smooth_samples=1)
    settings = AuditSettings(images=8, measures=measures, attacks=("pgd",))
    store = Store(tmp_path / "out")
    first = run_audit(models[:1], settings, store)

    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError("done again")

    monkeypatch.setattr("pags.experiments.audit.audit", fail)
    monkeypatch.setattr("pags.experiments.cache.epochs", fail)
    assert run_audit(models[:1], settings, store) == first
    with pytest.raises(AssertionError, match="done again"):
        run_audit(models[:1], settings.with_(measures=measures.with_(directions=2)), store)
    # A changed file of the user is another model.
    source = Path(models[0].rpartition(":")[0])
    source.write_text(source.read_text() + "\n# changed\n")
    with pytest.raises(AssertionError, match="done again"):
        run_audit(models[:1], settings, store)


def test_figures_and_page_are_drawn_from_records_alone_and_always_the_same(
    models: list[str], tmp_path: Path
) -> None:
    settings = AuditSettings(images=8, measures=FEWEST, gallery=1)
    store = Store(tmp_path / "out")
    run_audit(models[:1], settings, store)
    drawn = []
    for place in ("a", "b"):
        record: Any = store.read_record(RECORD)
        tensors = store.read_tensors(TENSORS)[0]
        written = write_audit_report(Store(tmp_path / place), record, tensors)
        drawn.append({path.name: path.read_bytes() for path in written})
    assert drawn[0] == drawn[1]


# --- what is kept, and what is not replaced --------------------------------------------------------------


def test_estimators_serve_every_audit_of_the_same_images(
    models: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = AuditSettings(images=8, measures=FEWEST)
    run_audit(models[:1], settings, Store(tmp_path / "one"))
    kept = {path.name for path in (tmp_path / "cache").iterdir()}
    assert kept - {"claims", "unfinished"} == {"autoencoders", "denoisers"}
    assert not {"autoencoders", "denoisers"} & {path.name for path in (tmp_path / "one").iterdir()}

    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("pags.experiments.cache.epochs", fail)
    run_audit(models[1:], settings, Store(tmp_path / "other"))
    with pytest.raises(AssertionError, match="trained again"):
        run_audit(models[1:], settings.with_(latent=5), Store(tmp_path / "other"))


def test_another_audit_in_the_same_folder_sets_the_first_aside(
    models: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run(models[0], *QUICK, "--quick", "--out", str(out)) == 0
    page = (out / "report.html").read_bytes()
    assert run(models[0], *QUICK, "--quick", "--out", str(out)) == 0  # the same again
    assert not (out / "earlier").exists()
    capsys.readouterr()
    assert run(models[1], *QUICK, "--quick", "--out", str(out)) == 0
    (aside,) = (out / "earlier").iterdir()
    assert f"is now in {aside}" in capsys.readouterr().out
    assert (aside / "report.html").read_bytes() == page
    assert json.loads((aside / RECORD).read_text())["models"][0]["name"] == models[0]
    assert json.loads((out / RECORD).read_text())["models"][0]["name"] == models[1]


def test_a_quick_audit_trains_nothing_and_has_accuracy_robustness_frequency_and_gradients(
    models: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr("pags.experiments.cache.epochs", fail)
    out = tmp_path / "out"
    assert run(*models, *QUICK, "--quick", "--out", str(out)) == 0
    record = json.loads((out / RECORD).read_text())
    means = record["models"][0]["means"]
    assert {"correct", "robust 0.3", "low frequency logit", "control low frequency logit"} <= means.keys()
    assert record["models"][0]["settings"]["attacks"] == ["pgd"]
    said = " ".join(capsys.readouterr().out.split())
    assert "l2-PGD only)" in said  # a narrow terminal folds the rest
    page = (out / "report.html").read_text()
    assert page.count('alt="gradient, ') == 2
    assert "upper bound: l2-PGD only" in page


def test_a_single_set_beside_one_to_estimate_from_is_not_cut(models: list[str], tmp_path: Path) -> None:
    import numpy as np

    data = load_data("digits").test
    sets = {"a": data.take(slice(0, 20)), "b": data.take(slice(20, 70))}
    for name, part in sets.items():
        np.savez(tmp_path / name, images=(part.images[:, 0] * 255).byte().numpy(), labels=part.labels.numpy())
    one, other = (f"npz:{tmp_path / name}.npz" for name in sets)
    settings = AuditSettings(data=one, tangent_data=other, quick=True, measures=FEWEST)
    assert len(Auditing(settings, Store(tmp_path / "out")).test) == 20
    assert len(Auditing(settings, Store(tmp_path / "out")).train) == 50
    alone = Auditing(settings.with_(tangent_data=None), Store(tmp_path / "out"))
    assert (len(alone.test), len(alone.train)) == (4, 16)


BAD = {
    "an attack that is none": (["MODEL", "--attack", "fgsm"], 2, "an attack among pgd, apgd-ce"),
    "a model that is not there": (["nothing.safetensors"], 2, "nothing.safetensors"),
    "an unknown data set": (["MODEL", "--data", "digitz"], 2, "a data set among"),
    "a metric that is none": (["MODEL", "--metric", "l2"], 2, "a metric among"),
    "a file that is not there": (["MODEL", "--autoencoder", "no.safetensors"], 2, "no.safetensors"),
    "no images": (["MODEL", "--images", "0"], 2, "images 0: input should be greater than 0"),
    "one image": (["MODEL", "--images", "1"], 2, "two images or more"),
    "a negative norm": (["MODEL", "--norm", "-1"], 2, "greater than 0"),
    "a reference that is not there": (["MODEL", "--reference", "sweep.json"], 1, "sweep.json"),
    "no model": ([], 2, "MODEL"),
}


@pytest.mark.parametrize("what", BAD)
def test_wrong_requests_end_in_one_line_before_any_work(
    what: str, models: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    words, status, says = BAD[what]
    words = [models[0] if word == "MODEL" else word for word in words]
    assert run(*words, "--out", str(tmp_path / "out")) == status
    said = capsys.readouterr().err
    assert says in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert not list((tmp_path / "out").glob("*/*"))


def test_a_classifier_of_other_classes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "three.py").write_text(TEN_LINES.replace("{seed}", "0").replace("randn(10", "randn(3"))
    with pytest.raises(PagsError, match=r"logits of shape \(2, 10\) .*got .* of shape \(2, 3\)"):
        run_audit([f"{tmp_path / 'three.py'}:Net"], AuditSettings(images=8), Store(tmp_path / "out"))
    with pytest.raises(UsageError, match="a model or more"):
        run_audit([], AuditSettings(images=8), Store(tmp_path / "out"))


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    assert "Example: pags audit" in " ".join(capsys.readouterr().out.split())


# --- a reference sweep -----------------------------------------------------------------------------------


def test_accuracy_lost_against_a_sweep(models: list[str], tmp_path: Path) -> None:
    sweep = {
        "data": {"name": "digits"},
        "models": [
            {"means": {"correct": {"estimate": e, "low": e - 0.01, "high": e + 0.01, "level": 0.95}}}
            for e in (0.7, 0.98)
        ],
    }
    Store(tmp_path).write_record("sweep.json", sweep)
    settings = AuditSettings(images=30, measures=FEWEST, reference=tmp_path / "sweep.json")
    model: Any = run_audit(models[:1], settings, Store(tmp_path / "out"))["models"][0]
    lost, correct = model["regime"]["accuracy_lost"], model["means"]["correct"]
    assert lost["estimate"] == pytest.approx(0.98 - correct["estimate"])
    assert model["regime"]["name"] == "excessive"  # random weights
    Store(tmp_path).write_record("sweep.json", sweep | {"data": {"name": "mnist"}})
    with pytest.raises(UsageError, match="got one on mnist"):
        run_audit(models[:1], settings, Store(tmp_path / "out"))
    Store(tmp_path).write_record("sweep.json", {"claims": []})
    with pytest.raises(UsageError, match="the record of a sweep"):
        run_audit(models[:1], settings, Store(tmp_path / "out"))


# --- estimates -------------------------------------------------------------------------------------------


def test_principal_dimension_of_what_has_one() -> None:
    """Variances 40, 40, 15 and 5 %: two components hold 80 %, three 95 %."""
    scales = torch.tensor([40.0, 40, 15, 5]).sqrt() / 200
    axes = torch.linalg.qr(torch.randn(64, 4, generator=seeded()))[0]
    codes = torch.linalg.qr(torch.randn(500, 4, generator=seeded(1)))[0] * 500**0.5
    images = ((codes * scales) @ axes.T + 0.5).clamp(0, 1).reshape(-1, 1, 8, 8)
    assert principal_dimension(images) == 4  # three, but no fewer than four
    assert 15 <= principal_dimension(load_data("digits").train.images) <= 30
    assert principal_dimension(torch.full((20, 1, 8, 8), 0.5)) == 4


def test_an_audit_that_names_no_dimension_has_the_principal_one(tmp_path: Path) -> None:
    state = Auditing(AuditSettings(images=30, data="digits"), Store(tmp_path))
    found = state.estimators
    assert found.latent == principal_dimension(found.train.images[:2000]) != 16
    assert Auditing(AuditSettings(images=30, latent=7), Store(tmp_path)).estimators.latent == 7


@pytest.mark.parametrize("settings", [Manifold(latent=None), Measures(norms=None, norm=None, seed=3)])
def test_a_changed_copy_keeps_the_none_that_was_said(settings: Any) -> None:
    """A changed copy put defaults in the place of None, so that every audit had k = 16."""
    copy = settings.with_()
    assert copy == settings
    assert copy.model_fields_set == settings.model_fields_set


def test_a_change_to_none_is_the_default() -> None:
    assert Manifold(latent=5).with_(latent=None).latent == Manifold().latent


def test_an_autoencoder_is_read_back_from_its_weights(tmp_path: Path) -> None:
    store = Store(tmp_path)
    train = load_data("digits").train.take(slice(0, 64))
    made = Estimators(Cache(store), train, *small_settings(train, 7), seed=0)
    (_, coder), (_, unet) = made.trainings
    network = coder.value()
    assert made.about()["manifold"]["latent"] == 7
    path = next((tmp_path / "autoencoders").iterdir())
    images = load_data("digits").test.images[:5]
    assert torch.equal(load_autoencoder(path)(images), network(images))
    of_paper = built(lambda: Autoencoder((1, 16, 16), 3, (4, 5, 6), "pythae"), 0).eval()
    read = load_autoencoder(store.write_tensors("pythae.safetensors", of_paper.state_dict()))
    assert torch.equal(read(torch.zeros(2, 1, 16, 16)), of_paper(torch.zeros(2, 1, 16, 16)))
    denoiser = unet.value()
    assert denoiser.classes == 0  # 64 images are too few to know classes
    assert denoiser(images, 0.5).shape == images.shape
    other = next((tmp_path / "denoisers").iterdir())
    with pytest.raises(UsageError, match="an autoencoder that pags has trained"):
        load_autoencoder(other)


def test_a_denoiser_and_an_autoencoder_from_files(models: list[str], tmp_path: Path) -> None:
    """Nothing is trained, and files of other content give other audits."""
    from pags.score.load import export

    store, out = Store(tmp_path), Store(tmp_path / "out")
    kept: list[Any] = []
    for seed in (0, 1):
        tensors, about = export(built(lambda: UNetDenoiser(1, classes=10, widths=(8,)), seed))
        noisy = {name: value + 0.05 * torch.ones_like(value) for name, value in tensors.items()}
        store.write_tensors("denoiser.safetensors", noisy if seed else tensors, about)
        network = built(lambda: Autoencoder((1, 8, 8), 5, (8, 16)))
        store.write_tensors("autoencoder.safetensors", network.state_dict())
        settings = AuditSettings(
            images=8, measures=FEWEST, denoiser=str(tmp_path / "denoiser.safetensors"),
            autoencoder=tmp_path / "autoencoder.safetensors",
        )  # fmt: skip
        kept.append(run_audit(models[:1], settings, out)["models"][0]["means"])
    assert not (tmp_path / "cache" / "denoisers").exists()
    assert not (tmp_path / "cache" / "autoencoders").exists()
    assert kept[0]["dimension"]["estimate"] == 5
    assert kept[0]["rho2 logit"] == kept[1]["rho2 logit"]
    assert kept[0]["cosine logit"] != kept[1]["cosine logit"]
    large = built(lambda: Autoencoder((1, 16, 16), 5, (8, 16)))
    store.write_tensors("autoencoder.safetensors", large.state_dict())
    with pytest.raises(UsageError, match=r"an autoencoder of images of shape \(1, 8, 8\)"):
        run_audit(models[:1], settings, out)


def test_images_at_another_size() -> None:
    pixels = torch.randint(0, 256, (30, 3, 32, 64), generator=seeded(), dtype=torch.uint8)
    data = ImageSet(pixels, torch.arange(30) % 2, ("a", "b"), "some", {"source": "test"})
    assert size_of_side(data.shape, 16) == (16, 32)
    assert size_of_side(data.shape, None) == (32, 64)
    small = at_size(data, (16, 32), 0)
    assert small.shape == (3, 16, 32)
    assert small.provenance["size"] == [16, 32]
    assert at_size(data, (32, 64), 0) is data
    means = small.images.mean((1, 2, 3)), data.images.mean((1, 2, 3))
    torch.testing.assert_close(*means, rtol=0, atol=0.01)


# --- the control -----------------------------------------------------------------------------------------


def test_an_untrained_copy_has_other_weights_and_leaves_the_model() -> None:
    net = network_with_batch_norm()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    first, second, other = untrained(net, 0), untrained(net, 0), untrained(net, 1)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
    drawn = [model.state_dict()["0.weight"] for model in (first, second, other, net)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[3])
    assert first.state_dict()["1.running_mean"].tolist() == [0] * 5


def test_a_model_without_a_control_is_audited_and_the_reason_is_said() -> None:
    bare = nn.Flatten()
    subject = with_control(Subject("bare", Lazy("bare", lambda: bare), {}), 0)
    assert subject.control is None
    with pytest.raises(PagsError) as caught:
        untrained(bare, 0)
    assert subject.about["no control"] == str(caught.value)


# --- settings and words ----------------------------------------------------------------------------------


def test_default_norms_are_the_papers_and_scale_with_the_pixels() -> None:
    assert Measures().for_images(3 * 32 * 32).norms == (1.438, 2.637, 4.833, 8.859)
    larger = Measures().for_images(4 * 3 * 32 * 32).norms
    assert larger == pytest.approx((2.876, 5.274, 9.666, 17.72), abs=0.01)
    assert Measures().for_images(3 * 224 * 224).radii == (1.75, 3.5, 7.0)


def test_sigma_is_the_papers_for_the_size_whatever_else_is_said(tmp_path: Path) -> None:
    """0.5, and 1.2 from 64 px (B.3); what is said of sigma itself wins."""
    for side, said, expected in ((8, {}, 0.5), (64, {}, 1.2), (64, {"directions": 1}, 1.2),
                                 (64, {"sigma": 0.5}, 0.5)):  # fmt: skip
        measures = Measures.of(said) if said else None
        state = Auditing(AuditSettings(images=8, side=side, measures=measures), Store(tmp_path))
        assert state.measures.sigma == expected


def test_smoothgrad_is_of_what_is_measured() -> None:
    """A user who chooses targets need not say so twice; what is said and not measured is refused."""
    assert Measures(targets=("logit", "margin")).smooth_targets == ("logit",)
    assert Measures(targets=("margin",)).smooth_targets == ()
    with pytest.raises(UsageError, match="smooth_targets must be among targets"):
        Measures.of({"targets": ("logit",), "smooth_targets": ("margin",)})


def test_settings_say_what_is_wrong() -> None:
    assert AuditSettings.of({"images": 8, "latent": None}).images == 8
    with pytest.raises(UsageError, match="colour"):
        AuditSettings.of({"colour": 1})


def interval(estimate: float, half: float = 0.01) -> dict[str, float]:
    return {"estimate": estimate, "low": estimate - half, "high": estimate + half, "level": 0.95}


def model_record(similar: float, ratio: float) -> Any:
    return {
        "means": {
            "cosine logit": interval(similar), "shuffled cosine logit": interval(0.1),
            "floor cosine all": interval(0.0), "correct": interval(0.9), "confidence": interval(0.9),
        },
        "above_shuffled": {"cosine logit": interval(similar - 0.1, 0.05)},
        "ratios": {"off/on 1": interval(ratio, 0.05)},
        "regime": {"name": "weak", "accuracy_lost": None, "rule": "by off/on"},
        "settings": {
            "metrics": ["cosine"], "targets": ["logit"], "smooth_targets": [], "radii": [], "norm": 1.0,
            "norms": [1.0], "compared with": {"logit": "all"},
        },
    }  # fmt: skip


def test_the_verdict_says_what_the_intervals_say() -> None:
    aligned, flat = verdict(model_record(0.5, 0.6)), verdict(model_record(0.11, 1.0))
    assert "more similar (by cosine) to the score of their own image" in aligned
    assert "changes less off the manifold than on it (0.60 times" in aligned
    assert "no more similar to the score" in flat
    assert "about as much off the manifold as on it" in flat
    assert "changes more off the manifold" in verdict(model_record(0.5, 1.6))
    nothing = model_record(0.5, 1.0) | {"above_shuffled": {}, "ratios": {}}
    nothing["regime"] = {"name": None, "accuracy_lost": None, "rule": "no tangent spaces, so no regime"}
    assert verdict(nothing).startswith("Alignment was not measured. Its regime is unknown")
    titles = [row.title for row in rows(model_record(0.5, 1.0))]
    assert titles[0] == "accuracy"
    assert any(title.startswith("cosine, logit") for title in titles)


def test_rows_name_what_a_gradient_is_compared_with_and_each_ratio() -> None:
    """A SmoothGrad compared with the Bayes direction stood as one compared with the score."""
    record = model_record(0.5, 1.0)
    smooth = {f"smooth 0.1 {each}cosine logit": interval(0.2) for each in ("", "bayes ")}
    record["means"] |= smooth | {"bayes cosine logit": interval(0.3), "chance rho2": interval(0.9)}
    record["ratios"] |= {
        name: interval(0.7) for name in ("rho1", "rho2 logit", "rho2 loss", "attacked off/on")
    }
    found = {row.title: row.lines for row in rows(record)}
    assert found["cosine, SmoothGrad of logit and score of all"].keys() == {"floor"}
    assert found["cosine, logit and Bayes direction"] == {}
    assert found["cosine, SmoothGrad of logit and Bayes direction"] == {}
    assert (
        found["ρ2 of the logit, images weighted by the gradient's energy"]
        == found["ρ1 (Definition 1)"]
        == {"chance": 0.9}
    )
    assert found["attacked change off / on"] == {"no difference": 1.0}
    assert not any("loss" in title for title in found), "a target that is not shown"


def test_the_audit_of_the_readme_runs_on_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer images and steps; what ships is found by name, as a classifier and as a denoiser."""
    images, labels = shipped_images()
    for n, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = tmp_path / "photos" / CIFAR10[int(label) % 3] / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        to_pil_image(image).save(path)
    monkeypatch.chdir(tmp_path)
    line = next(
        line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("pags audit pags:")
    )
    assert run(*shlex.split(line)[2:], "--images", "3", "--out", "out") == 0
    record = Store(tmp_path / "out").read_record(RECORD)
    assert record["estimators"]["score"]["from"] == "pags:cifar10"
    for found in record["models"]:
        titles = [row.title for row in rows(found)]
        assert len(titles) == len(set(titles))
        assert not [title for title in titles if "rho2" in title]
