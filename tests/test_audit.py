"""The audit of a classifier: exact worlds, where every number is known, and the laws that it must keep."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conftest import Traces, built, network_with_batch_norm, seeded
from pags.arrays import Images, cosines, split
from pags.auditing import Audit, audit, compare
from pags.auditing.columns import gradients, robust, smooth_gradients
from pags.data.resize import kept_energy, resized
from pags.data.sources import load_data
from pags.data.worlds import Bayes, World, linear_world, mixture_world
from pags.errors import PagsError, UsageError
from pags.manifold.estimators import ExactTangent, LocalPCA
from pags.measure.gradients import TARGETS, input_gradient, smooth_gradient
from pags.measure.robustness import definition_1, equal_norm
from pags.measure.statistics import Interval
from pags.records import IntervalRecord
from pags.score.exact import IdealDenoiser
from pags.seeds import ImageDraws, generator
from pags.training.attack import PGD

pytestmark = pytest.mark.usefixtures("global_state_untouched")

QUICK: dict[str, Any] = {"directions": 2, "smooth_samples": 2, "attack_steps": 2, "metrics": ("cosine",)}


@pytest.fixture(scope="module")
def world() -> World:
    return linear_world((1, 6, 6), classes=3, k=4, noise=0.05, seed=1)


@pytest.fixture(scope="module")
def exact(world: World) -> Audit:
    """The Bayes classifier, with the exact tangent spaces and score."""
    images, labels = world.sample(40, seeded())
    return audit(
        Bayes(world), images, labels, tangent=ExactTangent(world), denoiser=world.denoiser, sigma=0.2,
        second=world.denoiser, **(QUICK | {"metrics": ("cosine", "lpips")}),
    )  # fmt: skip


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Tensor, Tensor, LocalPCA, IdealDenoiser]:
    data = load_data("digits")
    train = data.train.take(slice(0, 300))
    net = network_with_batch_norm(channels=1, classes=10)
    tangent, denoiser = LocalPCA(train.images, k=5), IdealDenoiser(train.images, train.labels)
    return net, data.test.images[:12], data.test.labels[:12], tangent, denoiser


def of_digits(digits: tuple[Any, ...], **options: Any) -> Audit:
    net, images, labels, tangent, denoiser = digits
    asked = QUICK | {"tangent": tangent, "denoiser": denoiser, "radii": (0.3,)} | options
    return audit(net, images, labels, **asked)


def numbers(found: IntervalRecord | None) -> tuple[float, float, float]:
    """Estimate, low and high of an interval that is there."""
    assert found is not None
    parts = found["estimate"], found["low"], found["high"]
    assert None not in parts
    return tuple(float(part) for part in parts if part is not None)  # type: ignore[return-value]


# --- against what is known -------------------------------------------------------------------------------


@pytest.mark.parametrize("own_manifolds", [False, True])
def test_the_bayes_classifier_has_the_rho2_and_the_cosine_of_the_closed_forms(own_manifolds: bool) -> None:
    """Where all classes lie in one subspace the Bayes gradient is tangent; where each has its own, a part of
    it points from one to another. Its cosine with the score of a class, at a noise level, is known."""
    world = (
        mixture_world((1, 6, 6), own_manifolds=True, noise=0.05, seed=2)
        if own_manifolds
        else linear_world((1, 6, 6), classes=3, k=4, noise=0.05, seed=1)
    )
    images, labels = world.sample(40, seeded())
    found = audit(
        Bayes(world), images, labels, tangent=ExactTangent(world), denoiser=world.denoiser, sigma=0.2, **QUICK
    )
    predicted = world.log_posterior(images).argmax(1)
    gradient = world.bayes_gradient(images, predicted)
    off = split(gradient, world.tangent_basis(images))[1]
    rho2 = off.flatten(1).square().sum(1) / gradient.flatten(1).square().sum(1)
    assert (float(rho2.mean()) > 0.1) == own_manifolds
    cosine = cosines(gradient, world.score(images, 0.2, predicted))
    # The loss is that of the true label, seen from the other side.
    of_truth = cosines(world.bayes_gradient(images, labels), world.score(images, 0.2, labels))
    columns, means = found.columns, found.summary(resamples=300)["means"]
    for name, truth in (
        ("rho2 logit", rho2), ("rho2 log-probability", rho2),
        ("cosine logit", cosine), ("cosine loss", of_truth),
    ):  # fmt: skip
        torch.testing.assert_close(columns[name], truth, rtol=1e-5, atol=1e-7)
        estimate, low, high = numbers(means[name])
        assert estimate == pytest.approx(float(truth.mean()), abs=1e-7)
        assert low - 1e-12 <= float(truth.mean()) <= high + 1e-12
    assert columns["correct"].tolist() == (predicted == labels).double().tolist()


def test_lines_on_an_exact_world(exact: Audit) -> None:
    columns = exact.columns
    assert columns["dimension"].tolist() == [4] * 40
    assert columns["chance rho2"].tolist() == pytest.approx([32 / 36] * 40)
    for metric, kind in (("cosine", "all classes"), ("lpips", "predicted class")):
        assert columns[f"ceiling {metric} {kind}"].tolist() == pytest.approx([1] * 40, abs=1e-5)
        assert (columns[f"floor {metric} {kind}"] < 0.9).all()
    assert abs(float(columns["floor cosine all classes"].mean())) < 4 / (36 * 40) ** 0.5


def test_one_image_at_a_time_the_measures_are_those_of_pags_measure(digits: Any) -> None:
    """An image has draws of its own; with them, `pags.measure` gives the same numbers."""
    net, images, _, tangent, _ = digits
    found = of_digits(digits, norms=(0.4, 1.0), directions=3)
    for i in (0, 7):
        one = images[i : i + 1]
        basis = tangent(one)[0]
        draws = generator(0, "directions", i)
        expected = equal_norm(net, one, basis, (0.4, 1.0), draws=draws, directions=3)
        noise = definition_1(net, one, basis, 1.0 / 8, draws=generator(0, "definition 1", i), directions=12)
        for place, norm in enumerate(("0.4", "1")):
            for part in ("on", "off", "any"):
                value = float(found.columns[f"{part} {norm}"][i])
                assert value == pytest.approx(float(getattr(expected, part)[place]), rel=1e-3)
        assert float(found.columns["squared change off"][i]) == pytest.approx(float(noise.off), rel=1e-3)
        assert float(found.columns["squared change"][i]) == pytest.approx(float(noise.all), rel=1e-3)


def test_gradients_from_one_pass_are_those_of_one_pass_each(digits: Any) -> None:
    net, images, labels, *_ = digits
    for name, found in gradients(net, images, {n: (t, labels) for n, t in TARGETS.items()}).items():
        torch.testing.assert_close(found, input_gradient(net, images, name, labels), rtol=1e-4, atol=1e-7)
    one = images[3:4]
    found = smooth_gradients(
        net,
        one,
        {"logit": (TARGETS["logit"], labels[3:4])},
        sigma=0.2,
        samples=3,
        draws=ImageDraws(0, "smooth", places=[3]),
    )["logit"]
    draws = generator(0, "smooth", 3)
    expected = smooth_gradient(net, one, "logit", labels[3:4], sigma=0.2, samples=3, draws=draws)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_robust_means_right_before_and_after(world: World) -> None:
    images, labels = world.sample(30, seeded())
    model, places = Bayes(world), range(30)
    clean = robust(model, images, labels, PGD(0), seed=0, places=places)
    assert torch.equal(clean, (world.log_posterior(images).argmax(1) == labels).double())
    little, much = (robust(model, images, labels, PGD(r, 5), seed=0, places=places) for r in (0.02, 2.0))
    assert (little <= clean).all()
    assert (much <= clean).all()
    assert much.sum() < little.sum()


# --- laws ------------------------------------------------------------------------------------------------


def test_how_images_are_cut_changes_nothing(digits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = of_digits(digits)
    monkeypatch.setattr("pags.auditing.evaluation.MOST_A_PASS", 5)
    cut = of_digits(digits)
    assert list(whole.columns) == list(cut.columns)
    for name, values in whole.columns.items():
        torch.testing.assert_close(cut.columns[name], values, rtol=1e-3, atol=1e-5, equal_nan=True, msg=name)
    assert cut.settings == whole.settings


def test_an_audit_leaves_no_trace_in_the_classifier(digits: Any) -> None:
    net = network_with_batch_norm(channels=1, classes=10)
    traces = Traces(net)
    audit(net, *digits[1:3], tangent=digits[3], denoiser=digits[4], **QUICK)
    traces.assert_none()


def test_bases_serve_as_well_as_their_estimator(digits: Any) -> None:
    basis = digits[3](digits[1])[0]
    first, second = of_digits(digits), of_digits(digits, tangent=basis)
    for name in ("rho2 logit", "off 0.3806", "squared change"):
        torch.testing.assert_close(first.columns[name], second.columns[name], rtol=1e-3, atol=1e-5)


def test_a_denoiser_of_images_alone_is_blind(digits: Any) -> None:
    def smooth(images: Tensor) -> Tensor:
        return (images + 0.5) / 2

    found = of_digits(digits, denoiser=smooth, tangent=None)
    assert "the score of a class" in " ".join(found.settings["missing"])
    towards = 0.5 - digits[1]  # mid-grey
    expected = cosines(input_gradient(digits[0], digits[1], "sum-of-logits"), towards)
    torch.testing.assert_close(
        found.columns["cosine sum-of-logits"].float(), expected.float(), atol=1e-5, rtol=1e-3
    )


def test_what_is_not_given_is_left_out_and_said(digits: Any) -> None:
    without = of_digits(digits, tangent=None, denoiser=None)
    assert not [n for n in without.columns if "rho" in n or "cosine" in n or n.startswith(("on", "off"))]
    said = " ".join(without.settings["missing"])
    assert "no tangent spaces" in said
    assert "no denoiser" in said
    summary = without.summary(resamples=50)
    assert summary["regime"]["name"] is None
    assert summary["ratios"] == {}
    assert {"correct", "confidence", "robust 0.3"} <= set(summary["means"])
    no_score = of_digits(digits, denoiser=None)
    assert "rho2 logit" in no_score.columns
    no_manifold = of_digits(digits, tangent=None)
    assert "cosine logit" in no_manifold.columns


def test_a_denoiser_without_classes_serves_for_all_targets(digits: Any) -> None:
    found = of_digits(digits, denoiser=IdealDenoiser(digits[4].images), conditional=False)
    assert set(found.settings["compared with"].values()) == {"all classes"}
    assert any("knows no classes" in line for line in found.settings["missing"])


def test_the_control_is_measured_beside(digits: Any) -> None:
    other = network_with_batch_norm(channels=1, classes=10, seed=5)
    found = of_digits(digits, control=other)
    assert "control rho2 logit" in found.columns
    same = of_digits(digits, control=digits[0])
    for name in ("rho2 logit", "cosine sum-of-logits"):
        torch.testing.assert_close(same.columns[f"control {name}"], same.columns[name])
    assert not torch.equal(found.columns["control cosine logit"], found.columns["cosine logit"])


def test_the_gallery_holds_the_best_and_the_worst(digits: Any) -> None:
    found = of_digits(digits, gallery=2)
    values, panels = found.columns["cosine logit"], found.panels
    assert panels["value"].tolist() == values[panels["places"]].tolist()
    assert sorted(panels["value"].tolist()[:2]) == values.sort().values[-2:].tolist()
    assert sorted(panels["value"].tolist()[2:]) == values.sort().values[:2].tolist()
    torch.testing.assert_close(panels["image"], digits[1][panels["places"]])
    torch.testing.assert_close(cosines(panels["gradient"], panels["score"]), panels["value"])


# --- two sizes -------------------------------------------------------------------------------------------


class Enlarging(nn.Module):
    """A classifier of 16 px whose gradient lies in the enlarged 8 px images: it averages 2×2 pixels first."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return self.net(nn.functional.avg_pool2d(images, 2))


def test_a_classifier_larger_than_its_score(digits: Any) -> None:
    net, images, labels, tangent, denoiser = digits
    large = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    found = audit(
        Enlarging(net), large, labels, tangent=tangent, denoiser=denoiser, size=(8, 8), norms=(0.5,), **QUICK
    )
    assert found.settings["size"] == [8, 8]
    assert found.panels["gradient"].shape[-2:] == (8, 8)
    assert ((found.columns["kept logit"] > 0) & (found.columns["kept logit"] < 1)).all()
    small = of_digits(digits)
    assert found.columns["correct"].tolist() == small.columns["correct"].tolist()
    # The network itself sees the same pixels, so gradients and scores are as alike as before.
    difference = found.columns["cosine logit"].mean() - small.columns["cosine logit"].mean()
    assert abs(float(difference)) < 0.1


def test_norms_are_set_after_enlarging() -> None:
    """A classifier that tells the norm of what was added: every equal-norm change is that norm's."""

    class Length(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            length = (images.flatten(1) - 0.5).norm(dim=1)
            slope = 1e-9 * images.flatten(1).sum(1)  # at no length there would be no gradient
            return torch.stack([length + slope, 0 * length], 1)

    images = torch.full((4, 1, 12, 12), 0.5, dtype=torch.float64)
    basis = torch.linalg.qr(torch.randn(4, 16, 3, generator=seeded(), dtype=torch.float64))[0]
    found = audit(
        Length(), images, torch.zeros(4).long(), tangent=basis, denoiser=None, size=(4, 4), norms=(0.3, 2.0),
        directions=2, radii=(), targets=("logit",), smooth_targets=(),
    )  # fmt: skip
    for norm in (0.3, 2.0):
        share = torch.tensor([norm, 0.0]).double().softmax(0)
        expected = float((share - 0.5).norm())
        for part in ("on", "off", "any"):
            assert found.columns[f"{part} {norm:g}"].tolist() == pytest.approx([expected] * 4)


def test_reducing_and_enlarging() -> None:
    x = torch.rand(2, 3, 8, 8, generator=seeded())
    assert resized(x, (8, 8)) is x
    flat = torch.full((1, 1, 9, 9), 0.7)
    torch.testing.assert_close(resized(flat, (4, 4)), torch.full((1, 1, 4, 4), 0.7))
    torch.testing.assert_close(kept_energy(flat, (4, 4)), torch.ones(1))
    checkers = (-1.0) ** (torch.arange(8)[:, None] + torch.arange(8)).reshape(1, 1, 8, 8)
    assert float(kept_energy(checkers, (4, 4))) < 0.05


# --- comparison and summary ------------------------------------------------------------------------------


def test_comparing_is_antisymmetric_and_paired(digits: Any) -> None:
    first = of_digits(digits)
    other = (network_with_batch_norm(channels=1, classes=10, seed=3), *digits[1:])
    second = of_digits(other)
    forth = compare({"a": first, "b": second}, resamples=200)["pairs"][0]["differences"]
    back = compare({"b": second, "a": first}, resamples=200)["pairs"][0]["differences"]
    for name, value in forth.items():
        if value is None:
            assert back[name] is None
            continue
        assert value["estimate"] == pytest.approx(-back[name]["estimate"], abs=1e-9), name
        assert value["low"] == pytest.approx(-back[name]["high"], abs=1e-9), name
    expected = (first.columns["cosine logit"] - second.columns["cosine logit"]).double().mean()
    assert forth["cosine logit"]["estimate"] == pytest.approx(float(expected), abs=1e-6)
    alone = compare({"a": first, "again": first}, resamples=50)["pairs"][0]["differences"]
    assert {v["estimate"] for v in alone.values() if v} == {0.0}
    # Of shares that agree on a few images it is not sure that they agree on all.
    shares = [name for name in alone if name == "correct" or name.startswith("robust")]
    assert {v["high"] for name, v in alone.items() if v and name not in shares} == {0.0}
    assert all(alone[name]["low"] == -alone[name]["high"] < 0 for name in shares)


def test_three_models_are_three_pairs_and_other_images_are_refused(digits: Any) -> None:
    one = of_digits(digits)
    assert len(compare({"a": one, "b": one, "c": one}, resamples=10)["pairs"]) == 3
    elsewhere = of_digits((digits[0], digits[1].flip(0), digits[2].flip(0), *digits[3:]))
    with pytest.raises(UsageError, match="the same images"):
        compare({"a": one, "b": elsewhere})


def test_the_regime_follows_the_written_rule(world: World, exact: Audit) -> None:
    chance = exact.summary(resamples=100)["regime"]
    assert chance["name"] is None  # its classes overlap
    assert "at chance" in chance["rule"]
    images, _ = world.sample(40, seeded())
    named = world.log_posterior(images).argmax(1)  # as the classifier names them, so that it is accurate
    unknown = audit(Bayes(world), images, named, tangent=ExactTangent(world), denoiser=None, **QUICK).summary(
        resamples=100
    )["regime"]
    # Hardly anything of its gradient is off the manifold.
    assert unknown["name"] == "Bayes-aligned or excessive"
    assert unknown["accuracy_lost"] is None
    assert "unknown" in unknown["rule"]
    accuracy = float(exact.columns["correct"].mean())
    far = exact.summary(resamples=100, best=Interval(accuracy + 0.6, accuracy + 0.59, accuracy + 0.61))
    assert far["regime"]["name"] == "excessive"
    assert numbers(far["regime"]["accuracy_lost"])[0] == pytest.approx(0.6)


def test_a_gradient_of_zero_is_none_and_not_nan() -> None:
    """Of one image: its classifier says the same of whatever is that dark."""

    class Gated(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, :2] * (images.mean((1, 2, 3)) > 0.1)[:, None]

    images = torch.rand(4, 1, 8, 8, generator=seeded())
    images[2] /= 100
    basis = torch.eye(64)[None, :, :3].expand(4, -1, -1)
    found = audit(Gated(), images, torch.zeros(4).long(), tangent=basis, denoiser=None, **QUICK)
    assert found.columns["rho2 logit"].isnan().tolist() == [False, False, True, False]
    assert numbers(found.summary(resamples=20)["means"]["rho2 logit"])[0] == 0  # of the other three
    with pytest.raises(PagsError, match="gradient of the largest logit that is not zero everywhere"):
        audit(Gated(), images / 100, torch.zeros(4).long(), tangent=basis, denoiser=None, **QUICK)


# --- wrong requests --------------------------------------------------------------------------------------

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown target": ({"targets": ("logits",), "smooth_targets": ()}, "a gradient target among"),
    "an unknown metric": ({"metrics": ("l2",)}, "a metric among"),
    "no noise level": ({"sigma": 0.0}, "sigma 0.0: input should be greater than 0"),
    "a negative radius": ({"radii": (-1.0,)}, "radii.0 -1.0: input should be greater than or equal to 0"),
    "no directions": ({"directions": 0}, "directions 0: input should be greater than 0"),
    "a norm of zero": ({"norms": (0.0,)}, "norms.0 0.0: input should be greater than 0"),
    "a norm that is not measured": ({"norm": 0.123}, "norm must be one of norms"),
    "a measure that there is not": ({"direction": 3}, "direction"),
    "bases of another size": ({"tangent": torch.zeros(12, 32, 3)}, r"bases of shape \(12, 64, r\)"),
    "smoothing what is not measured": (
        {"targets": ("loss",), "smooth_targets": ("logit",)},
        "smooth_targets must be among targets",
    ),
    "no side": ({"size": (0, 8)}, "two sides above zero"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_requests_fail_before_work(what: str, digits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object) -> None:
        raise AssertionError("worked")

    monkeypatch.setattr("pags.auditing.columns._Measured.columns", fail)
    options, says = WRONG[what]
    with pytest.raises(UsageError, match=says):
        of_digits(digits, **options)


def test_images_and_labels_that_break_their_contract(digits: Any) -> None:
    net, images, labels, *_ = digits
    calls: list[tuple[Callable[[], Images], Callable[[], Tensor], str]] = [
        (lambda: images * 255, lambda: labels, "every pixel in"),
        (lambda: images * torch.nan, lambda: labels, "every pixel in"),
        (lambda: images[:1], lambda: labels[:1], "two images or more"),
        (lambda: images[:0], lambda: labels[:0], "two images or more"),
        (lambda: images, lambda: labels + 10, "labels from 0 to 9"),
    ]
    for some, named, says in calls:
        with pytest.raises(UsageError, match=says):
            audit(net, some(), named(), tangent=None, denoiser=None, **QUICK)


def test_a_denoiser_of_other_classes_is_refused(digits: Any) -> None:
    from pags.score.unet import UNetDenoiser

    denoiser = built(lambda: UNetDenoiser(1, classes=3, widths=(8,)))
    with pytest.raises(UsageError, match="the classifier's 10 classes"):
        of_digits(digits, denoiser=denoiser)
    assert "cosine logit" in of_digits(digits, denoiser=denoiser, conditional=False).columns


@pytest.mark.parametrize("first", ["import pags.auditing", "from pags.auditing.run import audit", "pass"])
def test_the_public_name_is_the_function_whatever_is_imported_first(first: str) -> None:
    code = f"{first}\nimport pags\nassert pags.audit is __import__('pags.auditing.run').auditing.run.audit"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
