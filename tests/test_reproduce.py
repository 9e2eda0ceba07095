"""A whole reproduction at a tiny scale: every figure, the claims, scales, keys, sizes, times."""

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
from torch.nn.functional import avg_pool2d

import tiny
from conftest import seeded
from pags import claims
from pags.auditing.evaluation import scores, tangent_spaces
from pags.data.imageset import ImageSet
from pags.data.resize import resized, resized_set
from pags.errors import PagsError, UsageError
from pags.experiments.cache import Cache, Columns, Stage, identity
from pags.experiments.estimate import estimate
from pags.experiments.experiment import Experiment, measures
from pags.experiments.scales import SCALES, settings_for
from pags.experiments.settings import (
    DistractorSettings,
    ExperimentSettings,
    Pretrained,
    Sweep,
    TransferSettings,
)
from pags.experiments.transfer import Transfer, run_transfer
from pags.figures.catalogue import FIGURES, chosen, read
from pags.figures.kinds import FigureData
from pags.figures.reproduce import ReproduceSettings, reproduce
from pags.records import Result
from pags.report.pages import write_report
from pags.store import Store, fingerprint

ASKED = ReproduceSettings(scale="smoke", device="cpu", experiment=tiny.TABLES | tiny.PARTS | {"repeats": 2})
"""Two sweeps of three strengths with two seeds, and a little of everything else."""
SETTINGS = tiny.settings(repeats=2, **tiny.PARTS)
NAMES = [figure.name for figure in FIGURES]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("reproduction"))


@pytest.fixture(scope="module")
def whole(store: Store) -> Result:
    return reproduce(["all"], ASKED, store)


def figure(store: Store, name: str) -> FigureData:
    found = read(store, name)
    assert found is not None
    return found


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


# --- the whole -------------------------------------------------------------------------------------------


def test_every_figure_has_a_record_with_finite_data(store: Store, whole: Result) -> None:
    assert whole["figures"] == NAMES
    for name in NAMES:
        found = figure(store, name)
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
                    assert len(series["points"]) == len(panel["places"] or panel["ticks"]) > 0
                    for point in filter(None, series["points"]):
                        if point.get("low") is None:
                            continue
                        assert point["low"] <= point["estimate"] + 1e-9
                        assert point["estimate"] - 1e-9 <= point["high"]


def test_again_trains_nothing_and_changes_no_byte(
    store: Store, whole: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError("trained again")

    before = contents(store.root)
    monkeypatch.setattr("pags.experiments.cache.epochs", fail)
    assert json.dumps(reproduce(["all"], ASKED, store)) == json.dumps(whole)
    assert contents(store.root) == before
    for name in before:  # without any record, all are put together again from the artefacts
        if name.startswith("records"):
            store.path(name).unlink()
    reproduce(["all"], ASKED, store)
    assert contents(store.root) == before


def test_killed_in_the_middle_it_continues_to_the_same_records(
    store: Store, whole: Result, tmp_path: Path
) -> None:
    (tmp_path / "settings.json").write_text(ASKED.model_dump_json())
    script = (
        "import sys, torch; from pathlib import Path; torch.set_num_threads(1)\n"
        "import pags\n"
        "settings = pags.ReproduceSettings.model_validate_json(Path(sys.argv[1]).read_text())\n"
        "pags.reproduce(['all'], settings, sys.argv[2])\n"
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
    store: Store, whole: Result, tmp_path: Path
) -> None:
    drawn = []
    for place in ("a", "b"):
        other = Store(tmp_path / place)
        for name, content in contents(store.root / "records").items():
            other.write_bytes(f"records/{name}", content)
        drawn.append({path.name: path.read_bytes() for path in write_report(other)})
    assert drawn[0] == drawn[1]
    assert {f"{row.stem}.svg" for row in FIGURES} <= set(drawn[0])


def test_one_figure_runs_what_it_needs_alone(tmp_path: Path) -> None:
    made = reproduce(["2"], ASKED, Store(tmp_path))
    assert set(contents(tmp_path)) == {
        f"records/{name}"
        for name in ("figure-02.json", "figure-02.safetensors", "claims.json", "reproduction.json")
    }
    assert made["claims"] == []
    assert made["data"] is None


def test_figures_that_do_not_exist_are_named() -> None:
    for wrong in (["18"], ["all", "0"], list[str]()):
        with pytest.raises(UsageError, match="figures among all, 1 to 17"):
            chosen(wrong)
    assert [row.name for row in chosen(["9", "3", "9"])] == ["3", "9"]


# --- numbers and verdicts --------------------------------------------------------------------------------


def test_every_verdict_is_that_of_its_interval_and_no_claim_is_made_twice(
    whole: Result,
) -> None:
    found = whole["claims"]
    for claim in found:
        low, high = claim["low"], claim["high"]
        if low is None or high is None:
            assert claim["verdict"] == claims.UNDECIDED
        else:
            assert low <= high
            assert claim["verdict"] in {claims.verdict(low, high), claims.UNDECIDED}
            assert claim["verdict"] == claims.verdict(low, high) or "presupposes" in claim["note"]
    keys = [(claim["claim"], claim["subject"]) for claim in found]
    assert len(keys) == len(set(keys))
    named = {claim.key for claim in claims.CLAIMS}
    assert {key for key, _ in keys} == named  # every claim of the paper is judged
    assert {subject for key, subject in keys if key == "off-falls-with-strength"} == {"gradient-norm", "pgd"}


def panels(store: Store, name: str) -> list[list[Any]]:
    return figure(store, name).record["panels"]


def test_numbers_of_figures_are_those_of_the_columns(store: Store, whole: Result) -> None:
    """Figures 3, 9 and 17 against plain means of the per-image columns of both seeds."""
    experiment = Experiment(SETTINGS, store)

    def mean(objective: str, strength: float, column: str) -> float:
        runs = experiment.runs(objective if strength else "cross-entropy", strength)
        return sum(float(run[column].double().mean()) for run in runs) / 2

    for place, sweep in enumerate(SETTINGS.sweeps):
        above, *middle, below = (row[place] for row in panels(store, "3"))
        conditional = panels(store, "17")[0][place]
        fourth_norm = panels(store, "9")[3][place]
        for panel, style, column in (
            (above, "off", "off 0.5"),
            (above, "on", "on 0.5"),
            (below, "accuracy", "correct"),
            (middle[0], "similarity", "lpips logit"),
            (middle[0], "sum", "lpips sum-of-logits"),
            (middle[1], "similarity", "cosine logit"),
            (conditional, "similarity", "lpips logit"),
            (fourth_norm, "off", "off 2"),
        ):
            series = next(s for s in panel["series"] if s["style"] == style)
            found = [point["estimate"] for point in series["points"]]
            expected = [mean(sweep.objective, strength, column) for strength in sweep.strengths]
            assert found == pytest.approx(expected, rel=1e-6)


def test_every_repeat_has_its_own_numbers_whose_mean_is_the_estimate(store: Store, whole: Result) -> None:
    record = store.read_record("records/sweep.json")
    for model in record["models"]:
        assert len(model["runs"]) == 2
        assert model["runs"][0] != model["runs"][1]
        for name, found in model["means"].items():
            runs = [run[name] for run in model["runs"]]
            assert found["estimate"] == pytest.approx(sum(runs) / 2, rel=1e-5, abs=1e-9)


def test_a_constant_network_has_a_record_and_undecided_claims(
    store: Store, whole: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the largest strengths of the paper a network may say the same of all images: 0/0 is no number."""

    def runs(self: Experiment, objective: str, strength: float) -> list[Columns]:
        found = original(self, objective, strength)
        if strength != 1.5:
            return found
        nothing = ("on ", "off ", "any ", "squared")
        return [
            run
            | {name: torch.zeros_like(x) for name, x in run.items() if name.startswith(nothing)}
            | {name: x * math.nan for name, x in run.items() if "rho2" in name}
            for run in found
        ]

    original = Experiment.runs
    monkeypatch.setattr(Experiment, "runs", runs)
    record = Experiment(SETTINGS, store).sweep_record("key")
    model = next(m for m in record["models"] if m["name"] == "pgd 1.5")
    assert model["ratios"]["off/on 0.5"] is None
    assert model["ratios"]["rho1"] is None
    assert model["means"]["rho2 logit"] is None
    assert model["runs"][0]["rho2 logit"] is None
    assert model["regime"]["name"] is None
    assert json.loads(json.dumps(record, allow_nan=False)) is not None


def test_images_too_small_for_lpips_are_refused_before_any_work(tmp_path: Path) -> None:
    tables = ASKED.experiment | {"measures": {"upsample_to": 0}}
    with pytest.raises(UsageError, match="images of at least 31×31 px"):
        reproduce(["3"], ASKED.with_(experiment=tables), Store(tmp_path))
    assert not contents(tmp_path)


# --- keys ------------------------------------------------------------------------------------------------

STAGES = (
    "classifier",
    "first",
    "untrained",
    "autoencoder",
    "denoiser",
    "tangent",
    "scores",
    "measures",
)


def names(settings: ExperimentSettings, folder: Path) -> dict[str, str]:
    """The key of every kind of result, of which nothing is made."""
    made = Experiment(settings, Store(folder))
    trained = {name.split()[-1]: each.identity for name, each in made.estimators.trainings}
    given = {"estimator": made.estimators.tangent, "images": made.data.test}
    seen = {"denoiser": made.estimators.denoiser, "images": made.data.test, "sigma": settings.measures.sigma}
    network = made.model("pgd", 0.5).network
    about = made.cache.made(measures, model=network, evaluation=made.evaluation)
    return trained | {
        "classifier": fingerprint(identity(network)),
        "first": fingerprint(identity(made.model("pgd", 0).network)),
        "untrained": fingerprint(identity(made.untrained().network)),
        "tangent": made.cache.made(Stage(tangent_spaces, "prepared", 1), **given).identity,
        "scores": made.cache.made(Stage(scores, "prepared", 1), **seen).identity,
        "measures": about.identity,
    }


CLASSIFIERS = {"classifier", "first", "untrained"}
MANIFOLD = {"autoencoder", "tangent", "measures"}
SCORE = {"denoiser", "scores", "measures"}
PLAN = tiny.PLAN
CHANGES: list[tuple[dict[str, Any], set[str]]] = [
    ({"seed": 1}, set(STAGES)),
    ({"repeats": 5}, set()),
    ({"resamples": 7}, set()),
    ({"gallery": 9}, set()),
    ({"data_folder": Path("elsewhere")}, set()),
    ({"training": {"architecture": "resnet18"}}, {*CLASSIFIERS, "measures"}),
    ({"training": {"activation": "softplus"}}, {*CLASSIFIERS, "measures"}),
    ({"training": {"preset": "release"}}, {"classifier", "measures"}),
    ({"training": {"relative_step": 2.0}}, {"classifier", "measures"}),
    ({"training": {"plan": PLAN}}, {"classifier", "first", "measures"}),
    ({"images": 50}, {"tangent", "scores", "measures"}),
    ({"train_images": 200}, {*STAGES}),
    ({"manifold": {"latent": 5}}, MANIFOLD),
    ({"manifold": {"widths": (4, 8)}}, MANIFOLD),
    ({"score": {"widths": (4, 8)}}, SCORE),
    ({"score": {"conditional": False}}, SCORE),
    ({"measures": {"sigma": 0.3}}, {"scores", "measures"}),
    ({"measures": {"norms": (0.5, 1.0)}}, {"measures"}),
    ({"measures": {"norm": 1.0}}, {"measures"}),
    ({"measures": {"directions": 3}}, {"measures"}),
    ({"measures": {"change": "softmax-l1"}}, {"measures"}),
    ({"measures": {"upsample_to": 32}}, {"measures"}),
    ({"sweeps": (Sweep(objective="pgd", strengths=(0, 0.5, 9), attack_steps=7),)}, set()),
    (
        {"sweeps": (Sweep(objective="pgd", strengths=(0, 0.5, 9), attack_steps=3),)},
        {"classifier", "measures"},
    ),
]  # fmt: skip
BASE: dict[str, Any] = {"images": 30, "train_images": 160}


@pytest.mark.parametrize(
    ("change", "renamed"), CHANGES, ids=lambda value: "-".join(sorted(map(str, value)))[:30]
)
def test_a_setting_renames_what_depends_on_it_and_nothing_else(
    change: dict[str, Any], renamed: set[str], tmp_path: Path
) -> None:
    before, after = (names(tiny.settings(BASE, **more), tmp_path) for more in ({}, change))
    assert {stage for stage in STAGES if before[stage] != after[stage]} == renamed
    assert not list(tmp_path.iterdir()), "to name a thing is not to make it"


def test_a_raised_revision_renames_what_depends_on_it_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from pags.experiments import estimators

    before = names(tiny.settings(BASE), tmp_path)
    stage = estimators.autoencoder
    monkeypatch.setattr(estimators, "autoencoder", replace(stage, revision=stage.revision + 1))
    after = names(tiny.settings(BASE), tmp_path)
    assert {name for name in STAGES if before[name] != after[name]} == MANIFOLD


def test_the_device_is_no_part_of_a_key(tmp_path: Path) -> None:
    made = Experiment(tiny.settings(BASE), Store(tmp_path)).model("pgd", 0.5).network
    assert Cache(Store(tmp_path), "cuda").made(made.stage, **made.arguments).identity == made.identity


def test_a_lowered_rate_renames_strong_penalties_alone(tmp_path: Path) -> None:
    def name(objective: str, strength: float, scaled: bool) -> str:
        settings = tiny.settings(BASE, training={"scale_rate": scaled})
        made = Experiment(settings, Store(tmp_path)).model(objective, strength)
        return fingerprint(identity(made.network))

    for objective, strength, changes in (
        ("gradient-norm", 0.01, False),
        ("gradient-norm", 2, True),
        ("pgd", 1, False),
    ):
        assert (name(objective, strength, True) != name(objective, strength, False)) == changes


def test_the_first_repeat_is_what_was_trained_without_repeats_and_others_differ(tmp_path: Path) -> None:
    one, three = (Experiment(tiny.settings(BASE, repeats=n), Store(tmp_path)) for n in (1, 3))
    found = [fingerprint(identity(three.model("pgd", 0.5, repeat).network)) for repeat in range(3)]
    assert found[0] == fingerprint(identity(one.model("pgd", 0.5).network))
    assert len(set(found)) == 3
    seeds = [three.training("pgd", 0.5, repeat).seed for repeat in range(3)]
    assert seeds[0] == 0
    assert len(set(seeds)) == 3


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
    parts = ("transfer", "distractor", "generation")
    settings = settings_for(data, scale, parts=parts, seed=3, resamples=11)
    assert ExperimentSettings.model_validate(settings.model_dump()) == settings
    assert (settings.data, settings.seed, settings.resamples, settings.scale) == (data, 3, 11, scale)
    assert all(getattr(settings, part) is not None for part in parts)
    assert "pgd" in {sweep.objective for sweep in settings.sweeps}


def test_the_papers_scale_has_the_papers_numbers() -> None:
    """4.1, B.2 and B.6; Figure 9's norms from docs/choices.md."""
    settings = settings_for("cifar10", "paper", parts=("distractor",))
    training, plan = settings.training, settings.training.plan
    assert {s.objective: len(s.strengths) for s in settings.sweeps} == {
        "gradient-norm": 31, "smoothing": 31, "pgd": 23, "smoothness": 31,
    }  # 30, of l2-PGD those within the pixel cube, and none  # fmt: skip
    assert (settings.repeats, training.architecture, settings.manifold.latent) == (10, "resnet18", 128)
    assert (plan.epochs, plan.learning_rate, plan.milestones, plan.schedule) == (
        200,
        0.025,
        (150, 175),
        "steps",
    )
    assert settings.measures.norms == (1.438, 2.637, 4.833, 8.859)
    assert (settings.measures.norm, settings.measures.sigma, training.scale_rate) == (2.637, 0.5, True)
    beside = settings.distractor
    assert isinstance(beside, DistractorSettings)
    assert (beside.data, beside.radii, beside.plan.epochs, beside.plan.milestones) == (
        "mnist",
        (1, 4, 8),
        9,
        (3, 6),
    )
    assert (beside.plan.learning_rate, beside.attack_steps) == (0.1, 10)
    imagenet = settings_for("imagenet64", "paper")
    assert imagenet.measures.sigma == 1.2
    assert (imagenet.training.plan.epochs, imagenet.training.plan.batch_size) == (90, 4096)


def test_an_unknown_scale_is_named() -> None:
    with pytest.raises(UsageError, match="a scale among demo, smoke, laptop, small, paper; got 'huge'"):
        settings_for("digits", "huge")


# --- other sizes -----------------------------------------------------------------------------------------


def test_a_constant_stays_constant_at_every_size() -> None:
    for side in (3, 8, 16, 20):
        found = resized(torch.full((2, 3, 8, 4), 0.37), (side, round(side / 2)))
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
    torch.testing.assert_close(resized(x, (4, 4)), weights @ x @ weights.T)


@given(factor=st.integers(2, 4), seed=st.integers(0, 99))
def test_enlarged_images_keep_their_range_their_labels_and_say_their_size(factor: int, seed: int) -> None:
    pixels = torch.randint(0, 256, (5, 3, 4, 4), generator=seeded(seed)).to(torch.uint8)
    data = ImageSet(pixels, torch.arange(5), tuple("abcde"), "few", {"source": "few"})
    for given_as in (data, ImageSet(data.images, data.labels, data.classes, "few", {"source": "few"})):
        found = resized_set(given_as, (4 * factor, 4 * factor))
        assert found.shape == (3, 4 * factor, 4 * factor)
        assert found.labels.tolist() == data.labels.tolist()
        assert found.provenance == {"source": "few", "size": [4 * factor] * 2}
        low, high = given_as.pixels.amin(), given_as.pixels.amax()
        last = 0 if given_as is data else 1e-6  # weights of floats sum to one but for their last digit
        assert low - last <= found.pixels.amin() <= found.pixels.amax() <= high + last
        # Bilinear interpolation is exact on a ramp, away from the border.
    ramp = torch.arange(4.0).mul(60).expand(1, 1, 4, 4).to(torch.uint8)
    large = resized_set(ImageSet(ramp, torch.tensor([0]), ("a",), "ramp"), (8, 8))
    assert large.pixels[0, 0, 3, 1:-1].tolist() == [15, 45, 75, 105, 135, 165]


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
    store: Store, whole: Result, network_file: Path, large_images: str
) -> None:
    given = Pretrained(spec=f"{network_file}:make", strength=3)
    settings = SETTINGS.with_(transfer=TransferSettings(pretrained=(given,), data=large_images))
    state = Transfer(settings, store)
    assert list(state.strengths) == [3]
    assert state.evaluation().size == (8, 8)
    columns = state.columns(3)
    assert all(values.isfinite().all() and len(values) == len(state.images) for values in columns.values())
    weight = torch.linspace(-9, 9, 64).reshape(4, 16).sin()
    right = (avg_pool2d(state.images.images, 4).flatten(1) @ weight.T).argmax(1) == state.images.labels
    assert columns["correct"].tolist() == right.float().tolist()
    before = fingerprint(identity(state.model(3).network))
    network_file.write_text(network_file.read_text().replace("sin()", "cos()"))
    after = fingerprint(identity(Transfer(settings, store).model(3).network))
    assert after != before  # the code is what the numbers depend on, not its name


def test_changed_measures_do_not_leave_an_older_record_in_place(
    store: Store, whole: Result, tmp_path: Path
) -> None:
    before = contents(store.root / "records")
    kept = store.read_record("records/transfer.json")
    other = tiny.settings(repeats=2, **tiny.PARTS, measures={"upsample_to": 48})
    changed = run_transfer(other, store)
    for name, content in before.items():
        store.write_bytes(f"records/{name}", content)
    assert changed["models"][0]["means"]["lpips logit"] != kept["models"][0]["means"]["lpips logit"]


def test_two_networks_of_one_radius_are_refused() -> None:
    twice = [{"spec": "a.pt", "strength": 1}, {"spec": "b.pt", "strength": 1}]
    with pytest.raises(ValueError, match="networks must be of different radii"):
        TransferSettings.model_validate({"pretrained": twice})


# --- times -----------------------------------------------------------------------------------------------


def test_times_are_positive_and_finite_for_what_is_at_hand() -> None:
    found = estimate(SETTINGS)
    assert found is not None
    assert {need for row in FIGURES for need in row.needs} <= set(found)
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
    assert estimate(settings_for("mnist", "smoke", data_folder=tmp_path)) is None
    assert not list(tmp_path.iterdir())


def test_figures_of_the_catalogue_have_names_of_their_own() -> None:
    assert len({row.stem for row in FIGURES}) == len(NAMES)
    assert len({row.title for row in FIGURES}) == len(NAMES)
    with pytest.raises(PagsError):
        chosen(["figure-03"])
