"""A whole reproduction at a tiny scale: every figure, the claims, scales, recipes, sizes, times."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pags.experiments.claims import verdict
from pags.experiments.config import Sweep, SweepConfig
from pags.experiments.figures.catalogue import NAMES, catalogue, chosen, read
from pags.experiments.generate import GenerateSettings
from pags.experiments.recipes import UNTRAINED, Recipes
from pags.experiments.reproduce import Reproduction, reproduce
from pags.experiments.stages import Stages
from pags.report.figures import draw
from torch import Tensor
from torch.nn.functional import avg_pool2d

from conftest import seeded
from pags.data.imageset import ImageSet
from pags.errors import PagsError, UsageError
from pags.experiments.distractor import DistractorConfig, Variant
from pags.experiments.estimate import estimate
from pags.experiments.scales import SCALES, Settings, settings_for
from pags.experiments.transfer import Pretrained, Transfer, TransferConfig, enlarged, resized
from pags.measure.statistics import Interval
from pags.report.style import render
from pags.store import Store, fingerprint
from pags.training.fit import Plan

PLAN = Plan(epochs=1, learning_rate=0.1)
TINY = Settings(
    scale="smoke",
    sweep=SweepConfig(
        train_images=160,
        images=30,
        directions=1,
        resamples=50,
        gallery=3,
        latent=4,
        repeats=2,
        sweeps=(
            Sweep(objective="gradient-norm", strengths=(0, 0.1, 1)),
            Sweep(objective="pgd", strengths=(0, 0.5, 1.5), attack_steps=1),
        ),
        classifier=PLAN,
        autoencoder_widths=(8, 16),
        autoencoder=Plan(epochs=1, optimizer="adam", learning_rate=2e-3, weight_decay=0),
        denoiser_widths=(8, 16),
        denoiser=Plan(epochs=1, optimizer="adam", learning_rate=5e-3, weight_decay=0, average=0.99),
    ),
    transfer=TransferConfig(strengths=(0, 1), attack_steps=1, plan=PLAN),
    distractor=DistractorConfig(
        data="digits",
        plan=PLAN,
        radii=(0.3, 0.6),
        attack_steps=1,
        train_images=160,
        images=30,
        levels=(0, 0.1, 1),
        directions=1,
        resamples=50,
        variants=(Variant(distractor="AX"), Variant(distractor="AX", informative=1)),
    ),
    generation=GenerateSettings(images=4, steps=2, shown=3, resamples=50),
    smoothgrad_samples=2,
)
"""Two sweeps of three strengths with two seeds, and a little of everything else."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("reproduction"))


@pytest.fixture(scope="module")
def whole(store: Store) -> Reproduction:
    return reproduce(chosen(["all"]), TINY, store)


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


# --- the whole -------------------------------------------------------------------------------------------


def test_every_figure_has_a_record_with_finite_data(store: Store, whole: Reproduction) -> None:
    assert [figure.name for figure, _ in whole.figures] == list(NAMES)
    for figure in catalogue():
        found = read(store, figure)
        assert found is not None
        record = found.record
        assert record["title"]
        assert record["caption"].endswith(".")
        if record["kind"] == "grid":
            cells = found.tensors["cells"]
            assert cells.isfinite().all()
            assert len(cells) == len(record["lines"])
            for line, pictures in zip(record["lines"], cells, strict=True):
                assert float(pictures.amax() - pictures.amin()) > 0
                if not line["signed"]:
                    assert 0 <= float(pictures.amin()) <= float(pictures.amax()) <= 1
                if line["numbers"] is not None:
                    assert len(line["numbers"]) == len(pictures)
        else:
            panels = [panel for row in record["panels"] for panel in row]
            assert panels
            for panel in panels:
                for series in panel["series"]:
                    assert len(series["points"]) == len(panel["ticks"]) > 0
                    for point in series["points"]:
                        assert point["low"] <= point["estimate"] + 1e-9
                        assert point["estimate"] - 1e-9 <= point["high"]


def test_again_trains_nothing_and_changes_no_byte(
    store: Store, whole: Reproduction, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError("trained again")

    before = contents(store.root)
    monkeypatch.setattr("pags.experiments.workshop.fit", fail)
    again = reproduce(chosen(["all"]), TINY, store)
    assert json.dumps(again.record) == json.dumps(whole.record)
    assert contents(store.root) == before
    for name in before:  # without any record, all are put together again from the artefacts
        if name.startswith("records"):
            store.path(name).unlink()
    reproduce(chosen(["all"]), TINY, store)
    assert contents(store.root) == before


def test_killed_in_the_middle_it_continues_to_the_same_records(
    store: Store, whole: Reproduction, tmp_path: Path
) -> None:
    (tmp_path / "settings.json").write_text(TINY.model_dump_json())
    script = (
        "import sys, torch; from pathlib import Path; torch.set_num_threads(1)\n"
        "from pags.experiments.figures.catalogue import chosen\n"
        "from pags.experiments.reproduce import reproduce\n"
        "from pags.experiments.scales import Settings\n"
        "from pags.store import Store\n"
        "settings = Settings.model_validate_json(Path(sys.argv[1]).read_text())\n"
        "reproduce(chosen(['all']), settings, Store(Path(sys.argv[2])))\n"
    )
    out = tmp_path / "out"
    command = [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / "settings.json"), str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment)
    deadline = time.monotonic() + 120
    while len(list((out / "classifiers").glob("*.safetensors"))) < 6:
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline, "took too long"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "records" / "reproduction.json").exists()
    subprocess.run(command, check=True, env=environment)
    expected = contents(store.root / "records")
    assert contents(out / "records") == expected


def test_figures_are_drawn_again_from_their_records_to_the_same_bytes(
    store: Store, whole: Reproduction
) -> None:
    for figure, made in whole.figures:
        found = read(store, figure)
        assert found is not None
        assert render(draw(found), "svg") == render(draw(made), "svg")


def test_one_figure_runs_what_it_needs_alone(tmp_path: Path) -> None:
    made = reproduce(chosen(["2"]), TINY, Store(tmp_path))
    assert set(contents(tmp_path)) == {
        f"records/{name}"
        for name in ("figure-02.json", "figure-02.safetensors", "claims.json", "reproduction.json")
    }
    assert made.record["claims"] == []
    assert made.record["data"] is None


def test_figures_that_do_not_exist_are_named() -> None:
    for wrong in (["18"], ["all", "0"], []):
        with pytest.raises(UsageError, match="figures among all, 1 to 17"):
            chosen(wrong)
    assert [figure.name for figure in chosen(["9", "3", "9"])] == ["3", "9"]


# --- numbers and verdicts --------------------------------------------------------------------------------


def test_every_verdict_is_that_of_its_interval_and_no_claim_is_made_twice(whole: Reproduction) -> None:
    claims = whole.record["claims"]
    for claim in claims:
        low, high = claim["low"], claim["high"]
        if low is None or high is None:
            assert claim["verdict"] == "undecided"
        else:
            assert low <= high
            assert claim["verdict"] == verdict(Interval(claim["estimate"] or 0.0, low, high))
    keys = [(claim["claim"], claim["sweep"]) for claim in claims]
    assert len(keys) == len(set(keys))
    assert len(keys) >= 2 * 11 + 1 + 5 + 5 + 2  # sweeps, other sizes, distractor, phenomena


def panels(whole: Reproduction, name: str) -> list[list[Any]]:
    return next(data.record["panels"] for figure, data in whole.figures if figure.name == name)


def test_numbers_of_figures_are_those_of_the_columns(store: Store, whole: Reproduction) -> None:
    """Figures 3, 4, 9 and 17 against plain means of the per-image columns of both seeds."""
    stages = Stages(TINY.sweep, store)

    def mean(objective: str, strength: float, column: str) -> float:
        runs = [stages.measures(objective, strength, repeat=repeat)[column] for repeat in (0, 1)]
        return sum(float(run.double().mean()) for run in runs) / 2

    for place, sweep in enumerate(TINY.sweep.sweeps):
        above, below = (row[place] for row in panels(whole, "3"))
        conditional = panels(whole, "17")[0][place]
        fourth_norm = panels(whole, "9")[3][place]
        for panel, name, column in (
            (above, "off the manifold", "off 0.5"),
            (above, "on the manifold", "on 0.5"),
            (below, "accuracy", "correct"),
            (below, "sum of logits ∼ score", "similarity sum-of-logits"),
            (conditional, "logit ∼ score of its class", "similarity logit"),
            (fourth_norm, "off the manifold", "off 2"),
        ):
            series = next(s for s in panel["series"] if s["name"] == name)
            found = [point["estimate"] for point in series["points"]]
            expected = [mean(sweep.objective, strength, column) for strength in sweep.strengths]
            assert found == pytest.approx(expected, rel=1e-6)


def test_every_repeat_has_its_own_numbers_whose_mean_is_the_estimate(
    store: Store, whole: Reproduction
) -> None:
    record = store.read_record("records/sweep.json")
    for model in record["models"]:
        assert len(model["runs"]) == 2
        assert model["runs"][0] != model["runs"][1]
        for name, found in model["means"].items():
            runs = [run[name] for run in model["runs"]]
            assert found["estimate"] == pytest.approx(sum(runs) / 2, rel=1e-5, abs=1e-9)


def test_a_constant_network_has_a_record_and_undecided_claims(
    store: Store, whole: Reproduction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the largest strengths of the paper a network may say the same of all images: 0/0 is no number."""
    from pags.experiments.demo import run_sweeps

    def measures(
        self: Stages, objective: str, strength: float, *others: object, **named: int
    ) -> dict[str, Tensor]:
        columns = original(self, objective, strength, *others, **named)  # type: ignore[arg-type]
        if strength != 1.5:
            return columns
        nothing = ("on ", "off ", "any ", "squared")
        gone = {name: torch.zeros_like(x) for name, x in columns.items() if name.startswith(nothing)}
        return columns | gone | {name: x * math.nan for name, x in columns.items() if "rho2" in name}

    original = Stages.measures
    monkeypatch.setattr(Stages, "measures", measures)
    store.path("records/sweep.json").rename(store.path("records/kept"))
    try:
        record = run_sweeps(TINY.sweep, store)
    finally:
        store.path("records/kept").rename(store.path("records/sweep.json"))
    model = next(m for m in record["models"] if m["strength"] == 1.5)
    assert model["off/on"]["estimate"] is None
    assert model["means"]["rho2 logit"]["estimate"] is None
    assert model["runs"][0]["rho2 logit"] is None
    assert json.loads(json.dumps(record, allow_nan=False)) is not None


def test_images_too_small_for_lpips_are_refused_before_any_work(tmp_path: Path) -> None:
    settings = TINY.model_copy(update={"sweep": TINY.sweep.model_copy(update={"upsample_to": 0})})
    with pytest.raises(UsageError, match="images of at least 31×31 px"):
        reproduce(chosen(["3"]), settings, Store(tmp_path))
    assert not contents(tmp_path)


# --- recipes ---------------------------------------------------------------------------------------------

STAGES = (
    "classifier",
    "first",
    "untrained",
    "autoencoder",
    "denoiser",
    "tangent",
    "scores",
    "lines",
    "measures",
)


def names(config: SweepConfig, data: dict[str, Any] | None = None) -> dict[str, str]:
    recipes = Recipes(config, data or {"source": "digits"})
    found = {
        stage: getattr(recipes, stage)()
        for stage in ("autoencoder", "denoiser", "tangent", "scores", "lines")
    }
    found["classifier"] = recipes.classifier("pgd", 0.5)
    found["first"] = recipes.classifier("pgd", 0)
    found["untrained"] = recipes.classifier(UNTRAINED, 0)
    found["measures"] = recipes.measures("pgd", 0.5)
    return {stage: fingerprint(recipe) for stage, recipe in found.items()}


CLASSIFIERS, NETS = {"classifier", "first", "untrained"}, {"autoencoder", "denoiser"}
CHANGES: list[tuple[dict[str, Any], set[str]]] = [
    ({"seed": 1}, set(STAGES)),
    ({"repeats": 5}, set()),
    ({"device": "cuda"}, set()),
    ({"resamples": 7}, set()),
    ({"gallery": 9}, set()),
    ({"data_folder": "elsewhere"}, set()),
    ({"architecture": "resnet18"}, {*CLASSIFIERS, "measures"}),
    ({"activation": "softplus"}, {*CLASSIFIERS, "measures"}),
    ({"preset": "release"}, {"classifier", "measures"}),
    ({"relative_step": 2.0}, {"classifier", "measures"}),
    ({"classifier": PLAN}, {"classifier", "first", "measures"}),
    ({"images": 50}, {"tangent", "scores", "lines", "measures"}),
    ({"latent": 5}, {"autoencoder", "tangent", "lines", "measures"}),
    ({"autoencoder_widths": (4, 8)}, {"autoencoder", "tangent", "lines", "measures"}),
    ({"denoiser_widths": (4, 8)}, {"denoiser", "scores", "lines", "measures"}),
    ({"sigma": 0.3}, {"scores", "lines", "measures"}),
    ({"norms": (0.5, 1.0)}, {"measures"}),
    ({"norm": 1.0}, {"measures"}),
    ({"directions": 3}, {"measures"}),
    ({"change": "softmax-l1"}, {"measures"}),
    ({"upsample_to": 0}, {"lines", "measures"}),
    ({"sweeps": (Sweep(objective="pgd", strengths=(0, 0.5, 9), attack_steps=7),)}, set()),
    (
        {"sweeps": (Sweep(objective="pgd", strengths=(0, 0.5, 9), attack_steps=3),)},
        {"classifier", "measures"},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("change", "renamed"), CHANGES, ids=lambda value: "-".join(map(str, value))[:30])
def test_a_setting_renames_what_depends_on_it_and_nothing_else(
    change: dict[str, Any], renamed: set[str]
) -> None:
    before = names(SweepConfig())
    after = names(SweepConfig.model_validate(SweepConfig().model_dump() | change))
    assert {stage for stage in STAGES if before[stage] != after[stage]} == renamed


def test_a_lowered_rate_renames_strong_penalties_alone() -> None:
    def name(objective: str, strength: float, scaled: bool) -> str:
        return fingerprint(Recipes(SweepConfig(scale_rate=scaled), {}).classifier(objective, strength))

    for objective, strength, changes in (
        ("gradient-norm", 0.01, False),
        ("gradient-norm", 2, True),
        ("pgd", 1, False),
    ):
        assert (name(objective, strength, True) != name(objective, strength, False)) == changes


def test_the_first_repeat_is_what_was_trained_without_repeats_and_others_differ() -> None:
    one, three = (Recipes(SweepConfig(repeats=n), {}) for n in (1, 3))
    for recipe in ("classifier", "measures"):
        found = [fingerprint(getattr(three, recipe)("pgd", 0.5, repeat)) for repeat in range(3)]
        assert found[0] == fingerprint(getattr(one, recipe)("pgd", 0.5))
        assert len(set(found)) == 3
    assert three.seed(0) == 0
    assert len({three.seed(repeat) for repeat in range(3)}) == 3


# --- scales ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    "data", ["digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "svhn", "imagenet64"]
)
def test_every_scale_is_valid_or_says_where_the_paper_has_no_recipe(data: str, scale: Any) -> None:
    if scale == "paper" and data in ("mnist", "fashion_mnist", "cifar100", "svhn"):
        with pytest.raises(UsageError, match="data that the paper trains on"):
            settings_for(data, scale)
        return
    settings = settings_for(data, scale, seed=3, resamples=11)
    assert Settings.model_validate(settings.model_dump()) == settings
    assert (settings.sweep.data, settings.sweep.seed) == (data, 3)
    assert (settings.distractor.seed, settings.distractor.resamples, settings.generation.seed) == (3, 11, 3)
    assert "pgd" in {sweep.objective for sweep in settings.sweep.sweeps}


def test_the_papers_scale_has_the_papers_numbers() -> None:
    """4.1, B.2 and B.6; Figure 9's norms from docs/choices.md."""
    settings = settings_for("cifar10", "paper")
    sweep, plan = settings.sweep, settings.sweep.classifier
    assert {s.objective: len(s.strengths) for s in sweep.sweeps} == dict.fromkeys(
        ("gradient-norm", "smoothing", "pgd", "smoothness"), 31
    )  # 30, and none
    assert (sweep.repeats, sweep.architecture, sweep.latent, sweep.sigma) == (10, "resnet18", 128, 0.5)
    assert (plan.epochs, plan.learning_rate, plan.milestones, plan.schedule) == (
        200,
        0.025,
        (150, 175),
        "steps",
    )
    assert sweep.norms == (1.438, 2.637, 4.833, 8.859)
    assert (sweep.norm, sweep.scale_rate) == (2.637, True)
    beside = settings.distractor
    assert (beside.data, beside.radii, beside.plan.epochs, beside.plan.milestones) == (
        "mnist",
        (1, 4, 8),
        9,
        (3, 6),
    )
    assert (beside.plan.learning_rate, beside.attack_steps) == (0.1, 10)
    imagenet = settings_for("imagenet64", "paper").sweep
    assert (imagenet.sigma, imagenet.classifier.epochs, imagenet.classifier.batch_size) == (1.2, 90, 4096)


def test_an_unknown_scale_is_named() -> None:
    with pytest.raises(UsageError, match="a scale among smoke, small, paper; got 'huge'"):
        settings_for("digits", "huge")


# --- other sizes -----------------------------------------------------------------------------------------


def test_a_constant_stays_constant_at_every_size() -> None:
    for side in (3, 8, 16, 20):
        found = resized(torch.full((2, 3, 8, 4), 0.37), side)
        assert found.shape == (2, 3, side, round(side / 2))
        torch.testing.assert_close(found, torch.full_like(found, 0.37))


def test_half_the_size_is_a_mean_with_the_triangle_filter() -> None:
    """Antialiased bilinear at factor 2: weights 1, 3, 3, 1 of four pixels, cut off at the border."""
    x = torch.randn(2, 1, 8, 8, generator=seeded(0), dtype=torch.float64)
    weights = torch.zeros(4, 8, dtype=torch.float64)
    for row in range(4):
        for tap, weight in zip(range(2 * row - 1, 2 * row + 3), (1, 3, 3, 1), strict=True):
            if 0 <= tap < 8:
                weights[row, tap] = weight
    weights /= weights.sum(1, keepdim=True)
    torch.testing.assert_close(resized(x, 4), weights @ x @ weights.T)


@given(factor=st.integers(2, 4), seed=st.integers(0, 99))
def test_enlarged_images_keep_their_range_their_labels_and_a_name_of_their_own(
    factor: int, seed: int
) -> None:
    pixels = torch.randint(0, 256, (5, 3, 4, 4), generator=seeded(seed)).to(torch.uint8)
    data = ImageSet(pixels, torch.arange(5), tuple("abcde"), "few", {"source": "few"})
    for given_as in (data, ImageSet(data.images, data.labels, data.classes, "few", {"source": "few"})):
        found = enlarged(given_as, factor)
        assert found.shape == (3, 4 * factor, 4 * factor)
        assert found.labels.tolist() == data.labels.tolist()
        assert found.provenance == {"source": "few", "enlarged": factor}
        low, high = pixels.float().amin(), pixels.float().amax()
        assert low <= found.pixels.amin() <= found.pixels.amax() <= high
        # Bilinear interpolation is exact on a ramp, away from the border.
    ramp = torch.arange(4.0).mul(60).expand(1, 1, 4, 4).to(torch.uint8)
    middle = enlarged(ImageSet(ramp, torch.tensor([0]), ("a",), "ramp"), 2).pixels[0, 0, 3, 1:-1].tolist()
    assert middle == [15, 45, 75, 105, 135, 165]


@pytest.fixture
def network_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.weight = torch.nn.Parameter(torch.linspace(-9, 9, 64).reshape(4, 16).sin())\n"
        "    def forward(self, x):\n"
        "        return torch.nn.functional.adaptive_avg_pool2d(x, 4).flatten(1) @ self.weight.T\n"
        "def make():\n"
        "    return Net()\n"
    )
    return path


@pytest.fixture
def large_images(tmp_path: Path) -> str:
    """Grey images of 16×16 pixels in four classes: another number than the digits have."""
    import numpy as np

    draws = np.random.default_rng(0)
    for name, n in (("train", 8), ("test", 8)):
        np.savez(
            tmp_path / f"{name}.npz",
            images=draws.integers(0, 256, (n, 16, 16)).astype(np.uint8),
            labels=np.arange(n) % 4,
        )
    return f"npz:{tmp_path / 'test.npz'}"


def test_a_network_from_a_file_may_know_other_classes_than_the_score(
    store: Store, whole: Reproduction, network_file: Path, large_images: str
) -> None:
    spec = f"{network_file}:make"
    config = TransferConfig(pretrained=(Pretrained(spec=spec, strength=3),), data=large_images)
    state = Transfer(config, Stages(TINY.sweep, store))
    assert list(state.strengths) == [3]
    assert state.low.shape[1:] == (1, 8, 8)
    columns = state.measures(3)
    assert all(values.isfinite().all() and len(values) == len(state.high) for values in columns.values())
    weight = torch.linspace(-9, 9, 64).reshape(4, 16).sin()
    right = (avg_pool2d(state.high.images, 4).flatten(1) @ weight.T).argmax(1) == state.high.labels
    assert columns["correct"].tolist() == right.float().tolist()
    before = fingerprint(state.recipe(3))
    network_file.write_text(network_file.read_text().replace("sin()", "cos()"))
    assert fingerprint(state.recipe(3)) != before  # the code is what the numbers depend on, not its name


def test_changed_measures_do_not_leave_an_older_record_in_place(
    store: Store, whole: Reproduction, tmp_path: Path
) -> None:
    from pags.experiments.transfer import run_transfer

    before = contents(store.root / "records")
    kept = store.read_record("records/transfer.json")
    other = Stages(TINY.sweep.model_copy(update={"upsample_to": 48}), store)
    changed = run_transfer(TINY.transfer, other, store)
    for name, content in before.items():
        store.write_bytes(f"records/{name}", content)
    assert changed["models"][0]["means"]["similarity"] != kept["models"][0]["means"]["similarity"]


def test_two_networks_of_one_radius_are_refused() -> None:
    twice = [{"spec": "a.pt", "strength": 1}, {"spec": "b.pt", "strength": 1}]
    with pytest.raises(ValueError, match="networks must be of different radii"):
        TransferConfig.model_validate({"pretrained": twice})


# --- times -----------------------------------------------------------------------------------------------


def test_times_are_positive_and_finite_for_what_is_at_hand() -> None:
    found = estimate(TINY)
    assert found is not None
    assert {need for figure in catalogue() for need in figure.needs} <= set(found)
    assert all(0 < seconds < math.inf for seconds in found.values())
    more = estimate(settings_for("digits", "smoke"))
    assert more is not None
    assert more["sweep"] > 3 * found["sweep"]


def test_without_data_there_is_no_estimate_and_no_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.create_connection", refuse)
    assert estimate(settings_for("mnist", "smoke", data_folder=str(tmp_path))) is None
    assert not list(tmp_path.iterdir())


def test_figures_of_the_catalogue_have_names_of_their_own() -> None:
    assert len({figure.stem for figure in catalogue()}) == len(NAMES)
    assert len({figure.title for figure in catalogue()}) == len(NAMES)
    with pytest.raises(PagsError):
        chosen(["figure-03"])
