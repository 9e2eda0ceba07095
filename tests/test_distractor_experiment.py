"""Signal against distractor, the whole part: with networks of which it is known where they look."""

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from conftest import Linear, seeded
from pags.claims import CONTRADICTED, SUPPORTED, UNDECIDED
from pags.data.distractor import distractor_set
from pags.data.imageset import DataSet, ImageSet
from pags.errors import PagsError
from pags.experiments.cache import Lazy
from pags.experiments.classifiers import Subject
from pags.experiments.distractor import GALLERY, RECORD, Distractor, run_distractor
from pags.experiments.parts import Parts
from pags.experiments.plan import name_of
from pags.experiments.settings import Common, DistractorSettings, ExperimentSettings, Variant
from pags.figures.reproduce import JUDGES
from pags.records import ClaimRecord, Record
from pags.store import Store
from pags.training.fit import Plan

COMMON = Common(resamples=200)
SETTINGS = DistractorSettings(
    data="digits",
    plan=Plan(epochs=1, learning_rate=0.1),
    radii=(0.3, 0.6),
    attack_steps=1,
    train_images=100,
    images=60,
    levels=(0, 0.1, 1),
    directions=4,
    variants=(Variant(distractor="AX"), Variant(distractor="AX", informative=1)),
)
ONE = SETTINGS.with_(variants=(Variant(),), images=200, directions=16)
CLAIMS = (
    "standard-ignores-distractor",
    "robust-ignores-distractor-more",
    "gradients-on-signal",
    "robust-gradients-more-on-signal",
)
Judge = Callable[[dict[str, tuple[float, float]]], tuple[Record, list[ClaimRecord]]]


def upright(part: ImageSet) -> ImageSet:
    """The images with the halves exchanged where the signal is below, so that it is always above."""
    assert part.masks is not None
    below = part.masks[:, -1, 0]

    def turned(x: Tensor) -> Tensor:
        return torch.where(below.reshape(-1, *[1] * (x.ndim - 1)), x.roll(8, -2), x)

    return replace(part, pixels=turned(part.pixels), masks=turned(part.masks))


def looks(above: float, below: float) -> nn.Module:
    """A linear classifier with one draw of weights for both halves, times a factor each."""
    weight = torch.randn(10, 64, generator=seeded(1)) / 2
    return Linear(torch.cat([above * weight, below * weight], 1))


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Judge:
    """The record and the claims where the two networks look at signal and distractor as told."""

    def run(networks: dict[str, tuple[float, float]]) -> tuple[Record, list[ClaimRecord]]:
        def model(self: Distractor, variant: Variant, kind: str, data: DataSet) -> Subject:
            lazy = Lazy[nn.Module](["looks", *networks[kind]], lambda: looks(*networks[kind]))
            return Subject(kind, lazy, {})

        def data(self: Distractor, variant: Variant) -> DataSet:
            whole = distractor_set(self.base, distractor=variant.distractor, seed=0)
            return DataSet(upright(whole.train), upright(whole.test))

        monkeypatch.setattr(Distractor, "model", model)
        monkeypatch.setattr(Distractor, "data", data)
        store = Store(tmp_path)
        record = run_distractor(ONE, COMMON, store)
        return record, claims_of(ONE, store)

    return run


def claims_of(settings: DistractorSettings, store: Store) -> list[ClaimRecord]:
    """The claims as a reproduction judges them."""
    experiment = ExperimentSettings(distractor=settings, **dict(COMMON))
    return JUDGES["distractor"](Parts(experiment, store))


def verdicts(claims: list[ClaimRecord]) -> dict[str, str]:
    return {claim["claim"]: claim["verdict"] for claim in claims}


def means(record: Record, kind: str) -> Record:
    return record["variants"][0][kind]["means"]


def test_networks_that_see_the_signal_alone(judge: Judge) -> None:
    record, claims = judge({"standard": (1, 0), "robust": (1, 0)})
    for kind in ("standard", "robust"):
        assert means(record, kind)["energy on signal"]["estimate"] == 1
        assert means(record, kind)["pixels on signal"]["estimate"] == 0.5
        for ratio in record["variants"][0][kind]["ratios"]:
            assert ratio == {"estimate": None, "low": None, "high": None, "level": 0.95}  # to nothing
    found = verdicts(claims)
    assert found["gradients-on-signal"] == SUPPORTED
    assert found["robust-gradients-more-on-signal"] == UNDECIDED  # both are the same network
    assert claims[0]["estimate"] is None  # the logarithm of a change that is none


def test_networks_that_see_next_to_nothing_of_the_distractor(judge: Judge) -> None:
    _, claims = judge({"standard": (1, 0.01), "robust": (1, 0.01)})
    found = verdicts(claims)
    assert [found[name] for name in CLAIMS[::2]] == [SUPPORTED, SUPPORTED]
    assert [found[name] for name in CLAIMS[1::2]] == [UNDECIDED, UNDECIDED]  # both are the same network
    assert claims[0]["estimate"] == pytest.approx(math.log(100), rel=0.1)


def test_networks_that_see_the_distractor_alone(judge: Judge) -> None:
    record, claims = judge({"standard": (1, 1), "robust": (0, 1)})
    assert means(record, "robust")["energy on signal"]["estimate"] == 0
    assert [ratio["high"] for ratio in record["variants"][0]["robust"]["ratios"]] == [0, 0]
    found = verdicts(claims)
    assert [found[name] for name in CLAIMS[2:]] == [CONTRADICTED] * 2
    _, claims = judge({"standard": (1, 1), "robust": (0.01, 1)})  # and next to nothing of the signal
    found = verdicts(claims)
    assert [found[name] for name in CLAIMS[1:]] == [CONTRADICTED] * 3


def test_networks_that_see_all_pixels_alike(judge: Judge) -> None:
    record, claims = judge({"standard": (1, 1), "robust": (1, 1)})
    for kind in ("standard", "robust"):
        assert means(record, kind)["energy on signal"]["estimate"] == pytest.approx(0.5, abs=1e-6)
        for ratio in record["variants"][0][kind]["ratios"]:
            assert ratio["estimate"] == pytest.approx(1, abs=0.1)
    assert set(verdicts(claims).values()) <= {UNDECIDED}
    assert max(abs(claim["estimate"] or 0.0) for claim in claims) < 0.05


def test_a_robust_network_that_turns_from_the_distractor_to_the_signal(judge: Judge) -> None:
    record, claims = judge({"standard": (1, 0.5), "robust": (1, 0.1)})
    assert set(verdicts(claims).values()) == {SUPPORTED}
    assert means(record, "robust")["energy on signal"]["estimate"] == pytest.approx(1 / 1.01, abs=1e-4)
    # Small noise moves the output in proportion to the weights that it meets.
    assert record["variants"][0]["robust"]["ratios"][0]["estimate"] == pytest.approx(10, rel=0.2)


def test_networks_that_see_nothing_have_records_and_no_verdict(judge: Judge) -> None:
    """A network trained with far too much strength may be constant: 0/0 is written as nothing."""
    record, claims = judge({"standard": (0, 0), "robust": (0, 0)})
    assert means(record, "robust")["energy on signal"]["estimate"] is None
    assert record["variants"][0]["robust"]["ratios"][0]["estimate"] is None
    assert set(verdicts(claims).values()) == {UNDECIDED}


# --- trained networks ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("distractor"))
    run_distractor(SETTINGS, COMMON, store)
    return store


def test_every_variant_has_both_networks_and_every_level_a_ratio(trained: Store) -> None:
    record = trained.read_record(RECORD)
    assert [variant["name"] for variant in record["variants"]] == ["AX, informative 0", "AX, informative 1"]
    for variant in record["variants"]:
        for kind in ("standard", "robust"):
            assert len(variant[kind]["ratios"]) == 2  # the level 0 changes nothing
            assert means(record, kind)["signal 0"]["estimate"] == 0
    assert len(list(trained.path("classifiers").iterdir())) == 4


def test_the_ratio_is_that_of_the_means_of_the_columns(trained: Store) -> None:
    record, state = trained.read_record(RECORD), Distractor(SETTINGS, COMMON, trained)
    for variant, entry in zip(SETTINGS.variants, record["variants"], strict=True):
        columns = state.columns(variant, "robust")
        for level in (1, 2):
            on, off = (columns[f"{part} {level}"].double().mean() for part in ("signal", "distractor"))
            found = entry["robust"]["ratios"][level - 1]
            assert found["estimate"] == pytest.approx(float(on / off))
            assert found["low"] <= found["estimate"] <= found["high"]


def test_claims_are_about_null_distractors_and_about_what_an_informative_one_changes(trained: Store) -> None:
    """One table for each distractor that says nothing; what an informative one changes stands in its own."""
    claims = claims_of(SETTINGS, trained)
    names = [*CLAIMS, "informative-distractor-is-signal"]
    assert [(c["claim"], c["subject"]) for c in claims] == [(name, "AX, informative 0") for name in names]
    state = Distractor(SETTINGS, COMMON, trained)
    robust = [state.columns(variant, "robust")["energy on signal"] for variant in SETTINGS.variants]
    difference = float(robust[0].double().mean() - robust[1].double().mean())
    assert claims[-1]["estimate"] == pytest.approx(difference, abs=1e-6)


def test_again_trains_nothing_and_changes_nothing(trained: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError("trained again")

    before = {path: path.read_bytes() for path in trained.root.rglob("*") if path.is_file()}
    monkeypatch.setattr("pags.experiments.cache.epochs", fail)
    run_distractor(SETTINGS, COMMON, trained)
    for name in (RECORD, GALLERY):
        trained.path(name).unlink()
        run_distractor(SETTINGS, COMMON, trained)
    assert {path: path.read_bytes() for path in trained.root.rglob("*") if path.is_file()} == before


def test_a_variant_whose_network_diverged_is_left_out_until_it_is_tried_again(
    trained: Store, tmp_path: Path
) -> None:
    shutil.copytree(trained.root, tmp_path, dirs_exist_ok=True)
    store = Store(tmp_path)
    made = Distractor(SETTINGS, COMMON, store).measured(SETTINGS.variants[1], "robust")
    shutil.rmtree(tmp_path / "records")
    store.path(made.file).unlink()
    why = {"expected": "a finite loss", "got": "nan in epoch 1; and more", "suggestion": "a lower rate"}
    store.write_record(f"failures/{name_of(made.file)}.json", why)
    record = run_distractor(SETTINGS, COMMON, store)
    assert [variant["name"] for variant in record["variants"]] == ["AX, informative 0"]
    said = "robust network beside AX, informative 1: its training diverged: nan in epoch 1"
    assert [": ".join(one) for one in record["missing"].items()] == [said]
    claims = claims_of(SETTINGS, store)
    assert [c["claim"] for c in claims] == list(CLAIMS)
    assert all(f"without {said}" in c["note"] for c in claims)
    for folder in ("records", "failures"):
        shutil.rmtree(tmp_path / folder)
    assert run_distractor(SETTINGS, COMMON, store) == trained.read_record(RECORD)


def test_the_gallery_shows_noise_on_the_part_that_it_names(trained: Store) -> None:
    gallery = trained.read_tensors(GALLERY)[0]
    for place in (0, 1):
        images, masks = gallery[f"images {place}"], gallery[f"masks {place}"].bool()
        noisy: dict[str, Tensor] = {p: gallery[f"noise on {p} {place}"] for p in ("signal", "distractor")}
        assert ((noisy["signal"] != images) & ~masks).sum() == 0
        assert ((noisy["distractor"] != images) & masks).sum() == 0
        assert all((other != images).any() for other in noisy.values())


def test_a_distractor_of_one_form_cannot_be_informative(tmp_path: Path) -> None:
    settings = SETTINGS.with_(variants=(Variant(distractor="A", informative=1),))
    with pytest.raises(PagsError, match="a distractor of several forms"):
        run_distractor(settings, COMMON, Store(tmp_path))
