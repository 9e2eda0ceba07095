"""What a user brings, at most 15 lines each, through a reproduction and an audit, and into their figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import tiny
from pags.auditing import Measures
from pags.errors import UsageError
from pags.experiments.audit import AuditSettings, run_audit
from pags.experiments.experiment import RECORD
from pags.figures.catalogue import read
from pags.figures.reproduce import ReproduceSettings, reproduce
from pags.records import Result
from pags.report.pages import write_report
from pags.store import Store

TEXTS = {
    "objective.py:Trades": """
import torch
from torch.nn.functional import cross_entropy, kl_div
def Trades(strength):
    def objective(model, batch, draws):
        clean = model(batch.images)
        noise = torch.randn(batch.images.shape, generator=draws).to(batch.images)
        noisy = model(batch.images + 0.1 * noise)
        apart = kl_div(noisy.log_softmax(1), clean.softmax(1), reduction="none").sum(1)
        return cross_entropy(clean, batch.labels, reduction="none") + strength * apart
    return objective
Trades.title, Trades.symbol, Trades.strengths = "TRADES without an attack", "β", (0.5, 2)
""",
    "target.py:gradient_times_input": """
import torch
from pags import Attribution
@Attribution
def gradient_times_input(model, images, labels):
    images.requires_grad_()
    logits = model(images).gather(1, labels[:, None])
    return images * torch.autograd.grad(logits.sum(), images)[0]
""",
    "metric.py:absolute": """
from torch.nn.functional import cosine_similarity
def absolute(reference, vectors):
    return cosine_similarity(reference.flatten(1), vectors.flatten(1)).abs()
absolute.bounds = (0, 1)
""",
    "tangent.py:steps": """
import torch
def steps(images):
    moved = [images.roll(1, axis) - images for axis in (-1, -2)] + [images]
    return torch.stack([each.flatten(1) for each in moved], 2)
""",
    "denoiser.py:blur": """
from torch.nn.functional import avg_pool2d
def blur(images, sigma):
    return avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
""",
    "data.py:bars": """
import torch
def some(n, seed):
    draws, labels = torch.Generator().manual_seed(seed), torch.arange(n) % 4
    images = 0.2 * torch.rand(n, 1, 8, 8, generator=draws)
    for image, label in zip(images, labels):
        image[0, 2 * label : 2 * label + 2] += 0.7
    return images, labels
def bars():
    return some(80, 0), some(24, 1)
""",
    "network.py:network": """
import torch
def network():
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
""",
}


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The files, each alone in its folder; by the kind of thing, what the command line is told."""
    found = {}
    for spec, text in TEXTS.items():
        assert len(text.strip().splitlines()) <= 15
        name, _, thing = spec.partition(":")
        path = tmp_path_factory.mktemp(name.removesuffix(".py")) / name
        path.write_text(text)
        found[name.removesuffix(".py")] = f"{path}:{thing}"
    return found


def asked(specs: Mapping[str, str], **changes: Any) -> ReproduceSettings:
    tables = {name: tiny.TABLES[name] for name in ("resamples", "training", "measures", "gallery")}
    sweeps = ({"objective": "pgd", "strengths": (0, 0.5, 1.5), "attack_steps": 1},)
    options: dict[str, Any] = {
        "data": specs["data"], "objectives": (specs["objective"],), "targets": (specs["target"],),
        "metrics": (specs["metric"],), "tangent": specs["tangent"], "denoiser": specs["denoiser"],
        "device": "cpu", "experiment": tables | {"sweeps": sweeps, "manifold": {"latent": 3}},
    }  # fmt: skip
    return ReproduceSettings(**(options | changes))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("mine"))


@pytest.fixture(scope="module")
def whole(store: Store, specs: Mapping[str, str]) -> Result:
    return reproduce(["3"], asked(specs), store)


def test_the_users_column_stands_in_figure_3_beside_the_papers(store: Store, whole: Result) -> None:
    figure = read(store, "3")
    assert figure is not None
    panels = figure.record["panels"]
    assert [panel["title"] for panel in panels[0]] == [
        "Adversarial training (l2-PGD)",
        "TRADES without an attack",
    ]
    assert panels[0][1]["ticks"] == ["0", "0.5", "2"]
    assert panels[0][1]["x"] == "strength β"
    rows = [row[1]["y"] for row in panels]
    assert any("absolute" in row for row in rows), "the user's metric has a row"
    for row in panels:
        for series in row[1]["series"]:
            assert all(point is not None and point["estimate"] is not None for point in series["points"])


def test_everything_that_was_brought_is_in_the_records(
    store: Store, whole: Result, specs: Mapping[str, str]
) -> None:
    record = store.read_record(RECORD)
    assert record["data"]["name"] == "bars"
    assert record["data"]["classes"] == ["0", "1", "2", "3"]
    assert [line["objective"] for line in record["sweeps"]] == ["pgd", "Trades"]
    assert [m["name"] for m in record["models"]][-2:] == ["Trades 0.5", "Trades 2"]
    assert record["estimators"]["manifold"]["from"] == specs["tangent"]
    assert record["estimators"]["score"]["from"] == specs["denoiser"]
    means = record["models"][-1]["means"]
    for metric in ("lpips", "cosine", "absolute"):
        for target in ("logit", "sum-of-logits", "gradient_times_input"):
            assert -1 <= means[f"{metric} {target}"]["estimate"] <= 1
    assert 0 <= means["rho2 gradient_times_input"]["estimate"] <= 1
    assert {claim["subject"] for claim in whole["claims"]} == {"pgd", "Trades"}
    assert str(Path(specs["objective"]).parent) not in str(whole["claims"])


def test_the_page_names_it_and_needs_no_code(store: Store, whole: Result) -> None:
    page = next(path for path in write_report(store) if path.name == "report.html").read_text()
    assert "TRADES without an attack" in page
    assert "gradient_times_input" in page


def test_a_changed_source_is_another_model_and_leaves_the_others(
    store: Store, whole: Result, specs: Mapping[str, str]
) -> None:
    before = {path.name for path in store.path("classifiers").iterdir()}
    file = Path(specs["objective"].partition(":")[0])
    file.write_text(file.read_text().replace("0.1 * noise", "0.3 * noise"))
    reproduce(["3"], asked(specs), store)
    after = {path.name for path in store.path("classifiers").iterdir()}
    assert before < after
    assert sum("Trades" in name for name in after - before) == len(after - before) == 2


def test_an_audit_takes_them_too(specs: Mapping[str, str], tmp_path: Path) -> None:
    measures = Measures(
        targets=("logit", specs["target"]), metrics=("cosine", specs["metric"]), directions=1, radii=(),
        smooth_targets=(), smooth_sigmas=(),
    )  # fmt: skip
    settings = AuditSettings(
        data=specs["data"], images=24, denoiser=specs["denoiser"], tangent=specs["tangent"],
        measures=measures, resamples=50, gallery=2,
    )  # fmt: skip
    store = Store(tmp_path)
    record = run_audit([specs["network"], specs["network"]], settings, store)
    first, second = record["models"]
    assert first["means"] == second["means"], "the same network twice"
    assert {"absolute gradient_times_input", "rho2 gradient_times_input"} <= set(first["means"])
    assert first["settings"]["compared with"]["gradient_times_input"] == "all classes"
    assert "the denoiser knows no classes" in "; ".join(first["settings"]["missing"])
    assert write_report(store)


@pytest.mark.parametrize("kind", ["objective", "target", "metric", "tangent", "denoiser", "data"])
def test_what_is_not_there_is_said_before_any_work(
    kind: str, specs: Mapping[str, str], tmp_path: Path
) -> None:
    wrong = dict(specs) | {kind: specs[kind] + "_of_another_name"}
    with pytest.raises(UsageError, match="_of_another_name"):
        reproduce(["3"], asked(wrong), Store(tmp_path / "out"))
    assert not list(tmp_path.rglob("*.safetensors"))
