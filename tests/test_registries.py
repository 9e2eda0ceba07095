"""A user's objective, target, metric, tangent estimator, denoiser and data set, each through its registry."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import InputXGradient
from PIL import Image
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, TensorDataset

from conftest import network_with_batch_norm, seeded, smooth_network
from pags.arrays import flatten
from pags.data.batches import Batch
from pags.data.imageset import DataSet, ImageSet
from pags.data.sources import data_set_of, load_data
from pags.errors import PagsError, UsageError
from pags.manifold.estimators import ESTIMATORS, LocalPCA, fit_tangent, get_tangent
from pags.measure.gradients import (
    ALL,
    TARGETS,
    TRUE,
    Attribution,
    find_target,
    get_target,
    input_gradient,
    smooth_gradient,
)
from pags.measure.metrics import METRICS, get_metric, metric_entry
from pags.measure.robustness import definition_1
from pags.score.denoiser import score_of
from pags.score.load import CalledDenoiser, load_denoiser
from pags.training.fit import Plan, fit
from pags.training.objectives import OBJECTIVES, CrossEntropy, get_objective, make_objective
from pags.training.recipes import scaled_rate

Script = Callable[[str], str]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    def write(text: str) -> str:
        assert len(text.strip().splitlines()) <= 15, "fifteen lines are enough"
        (tmp_path / "mine.py").write_text(text)
        return str(tmp_path / "mine.py")

    return write


def small_set(n: int = 24) -> ImageSet:
    images = torch.rand(n, 1, 8, 8, generator=seeded())
    return ImageSet.of(images, torch.arange(n) % 3, name="small")


# --- objectives ------------------------------------------------------------------------------------------

TRADES = """
from torch.nn.functional import cross_entropy, kl_div

class Trades:
    title, symbol, strengths = "TRADES", "β", (1, 6)
    cost = 6
    def __init__(self, strength):
        self.strength = strength
    def __call__(self, model, batch, draws):
        clean = model(batch.images)
        noisy = model(batch.images + 0.1 * batch.normal(draws))
        apart = kl_div(noisy.log_softmax(1), clean.softmax(1), reduction="none").sum(1)
        return cross_entropy(clean, batch.labels, reduction="none") + self.strength * apart
"""


def test_a_users_objective_trains_a_network(script: Script) -> None:
    spec = f"{script(TRADES)}:Trades"
    entry = get_objective(spec)
    assert (entry.title, entry.symbol, entry.strengths, entry.cost(10)) == ("TRADES", "β", (1.0, 6.0), 6.0)
    assert len(entry.source) == 64
    records = list(
        fit(
            network_with_batch_norm(),
            make_objective(spec, 2.0),
            small_set(),
            Plan(epochs=2, learning_rate=0.1),
            seed=0,
        )
    )
    assert records[-1].loss > 0
    assert isinstance(make_objective(spec, 0.0), CrossEntropy)
    assert scaled_rate(0.1, spec, 1e6) == 0.1


def test_a_function_makes_an_objective_from_python() -> None:
    def twice(strength: float) -> Any:
        return lambda model, batch, draws: (
            strength * cross_entropy(model(batch.images), batch.labels, reduction="none")
        )

    data, model = small_set(4), network_with_batch_norm().eval()
    batch = Batch(data.images, data.labels, torch.arange(4))
    found = make_objective(twice, 2.0)(model, batch, seeded())
    torch.testing.assert_close(found, 2 * CrossEntropy()(model, batch, seeded()))
    assert get_objective(twice).title == "twice"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(strength): raise KeyError('x')", "KeyError"),
        ("def f(strength): return 3", "a int"),
        (
            "def f(strength): return lambda model, batch, draws: model(batch.images).mean()",
            "one loss per image",
        ),
        ("f = 3", "a int"),
    ],
)
def test_an_objective_that_is_none_is_said(text: str, message: str, script: Script) -> None:
    data = small_set(4)
    batch = Batch(data.images, data.labels, torch.arange(4))
    with pytest.raises(PagsError, match=message):
        make_objective(f"{script(text)}:f", 1.0)(network_with_batch_norm(), batch, seeded())


def test_costs_are_those_that_were_measured() -> None:
    """Within a third of what `benchmarks/training.py` measured: 7.2, 2.2, 2.0 and 1 step of cross-entropy."""
    measured = {"pgd": 7.2, "gradient-norm": 2.2, "smoothness": 2.0, "smoothing": 1.0}
    for name, steps in measured.items():
        assert get_objective(name).cost(10) / 3 == pytest.approx(steps, rel=1 / 3)
    assert all(entry.title and entry.symbol and entry.strengths for entry in OBJECTIVES.values())


# --- targets ---------------------------------------------------------------------------------------------

TARGET = """
from pags.measure.gradients import Attribution

def top_two(logits, labels):
    return logits.topk(2).values.sum(1)
top_two.title, top_two.which = "two largest logits", "all classes"

@Attribution
def captums(model, images, labels):
    from captum.attr import InputXGradient
    return InputXGradient(model).attribute(images.requires_grad_(), target=labels)
"""


def test_a_users_scalar_is_a_target(script: Script) -> None:
    """The gradient of a sum of two logits is the sum of theirs."""
    spec, model = f"{script(TARGET)}:top_two", smooth_network(d=4, classes=2)
    images = torch.rand(5, 1, 2, 2, dtype=torch.float64, generator=seeded())
    expected = input_gradient(model, images, "sum-of-logits")
    torch.testing.assert_close(input_gradient(model, images, spec), expected)
    target = get_target(spec)
    assert (target.title, target.which, target.sign) == ("two largest logits", ALL, 1.0)
    basis = torch.eye(4, dtype=torch.float64)[:, :1].expand(5, -1, -1)
    assert definition_1(model, images, basis, 0.1, draws=seeded(), target=spec).all.shape == (5,)


def test_a_users_attribution_is_a_target(script: Script) -> None:
    """captum's input × gradient, against the product of the two."""
    spec, model = f"{script(TARGET)}:captums", smooth_network()
    images = torch.rand(5, 1, 2, 2, dtype=torch.float64, generator=seeded())
    expected = images * input_gradient(model, images, "logit")
    torch.testing.assert_close(input_gradient(model, images, spec, batch_size=2), expected)
    assert smooth_gradient(model, images, spec, sigma=0.1, samples=2, draws=seeded()).shape == images.shape
    with pytest.raises(UsageError, match=r"scalar of the logits; got the attribution captums"):
        find_target(spec)


def test_an_attribution_from_python_has_its_own_words() -> None:
    def attribute(model: Any, images: Tensor, labels: Tensor) -> Tensor:
        return InputXGradient(model).attribute(images.requires_grad_(), target=labels)

    target = get_target(Attribution(attribute, title="input × gradient", which=TRUE, sign=-1.0))
    assert (target.title, target.which, target.sign) == ("input × gradient", TRUE, -1.0)
    assert get_target(attribute).title == "attribute"
    wrong = Attribution(lambda model, images, labels: images.sum(1))
    with pytest.raises(PagsError, match="images' shape"):
        input_gradient(
            smooth_network(), torch.rand(2, 1, 2, 2, dtype=torch.float64, generator=seeded()), wrong
        )


def test_targets_say_what_they_are_compared_with() -> None:
    assert {name: t.which for name, t in TARGETS.items() if t.which == ALL}.keys() == {
        "sum-of-logits",
        "log-sum-exp",
    }
    assert [name for name, target in TARGETS.items() if target.sign < 0] == ["loss"]
    with pytest.raises(UsageError, match="which as"):
        get_target(Attribution(lambda model, images, labels: images, which="nothing"))
    with pytest.raises(UsageError, match="a gradient target among logit"):
        get_target("no-such-target")


# --- metrics ---------------------------------------------------------------------------------------------

METRIC = """
def apart(a, b):
    return (a - b).square().mean((1, 2, 3))
apart.distance, apart.title, apart.bounds = True, "mean squared difference", (-3.0, 1.0)

def together(a, b):
    return (a * b).mean((1, 2, 3))

def wrong(a, b):
    return (a * b).mean()
"""


def test_a_users_function_is_a_metric(script: Script) -> None:
    path, vectors = script(METRIC), torch.randn(4, 1, 6, 6, generator=seeded())
    apart, together = get_metric(f"{path}:apart"), get_metric(f"{path}:together")
    assert (apart.name, apart.bounds) == ("apart", (-3.0, 1.0))
    assert metric_entry(f"{path}:apart").title == "mean squared difference"
    torch.testing.assert_close(apart.compare(vectors, 5 * vectors), torch.ones(4))
    for metric in (apart, together):
        assert bool((metric.compare(vectors, vectors) > metric.compare(vectors, -vectors)).all())
    with pytest.raises(PagsError, match="one number per pair"):
        get_metric(f"{path}:wrong").compare(vectors, vectors)


def test_a_metric_is_a_metric() -> None:
    cosine = get_metric("cosine")
    assert get_metric(cosine) is cosine
    assert [entry.name for entry in METRICS.values()] == list(METRICS)
    for name in ("cosine", "ssim", "rank", "lpips"):
        made = get_metric(name)
        assert (made.name, made.bounds) == (METRICS[name].name, METRICS[name].bounds)


# --- tangent estimators ----------------------------------------------------------------------------------

TANGENT = """
import torch

class GlobalPCA:
    title = "global PCA"
    def __init__(self, train):
        rows = train.images.flatten(1)
        self.columns = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)[2][:3].T
    def __call__(self, images):
        return 7 * self.columns.expand(len(images), -1, -1)

def first_pixels(images):
    return torch.eye(images[0].numel())[:, :2].expand(len(images), -1, -1)
"""


@pytest.mark.parametrize(("name", "rank"), [("GlobalPCA", 3), ("first_pixels", 2)])
def test_a_users_tangent_estimator(name: str, rank: int, script: Script) -> None:
    spec, train = f"{script(TANGENT)}:{name}", small_set()
    basis, ranks = fit_tangent(spec, train, k=3)(train.images[:5])
    torch.testing.assert_close(basis.mT @ basis, torch.eye(rank).expand(5, -1, -1))
    assert ranks.tolist() == [rank] * 5
    if name == "GlobalPCA":
        rows = flatten(train.images)
        values, vectors = torch.linalg.eigh(torch.cov(rows.T.double()))
        top = vectors[:, -3:].float()
        torch.testing.assert_close(basis[0] @ basis[0].T, top @ top.T, atol=1e-4, rtol=0)
        assert get_tangent(spec).title == "global PCA"
        assert values[-3] > values[-4]


def test_our_tangent_estimators_are_entries() -> None:
    train = small_set()
    assert isinstance(fit_tangent("local-pca", train, k=4), LocalPCA)
    for name in ESTIMATORS:
        if needs := ESTIMATORS[name].needs:
            with pytest.raises(UsageError, match=f"a trained {needs}"):
                fit_tangent(name, train, k=4)
    with pytest.raises(UsageError, match="a tangent estimator among autoencoder"):
        get_tangent("none")
    with pytest.raises(PagsError, match="columns of shape"):
        fit_tangent(lambda images: images, train, k=2)(train.images)


# --- denoisers -------------------------------------------------------------------------------------------

DENOISER = """
import torch

class Shrink(torch.nn.Module):
    classes = 3
    def forward(self, images, sigma, labels=None):
        return images / (1 + sigma**2) + (0 if labels is None else labels[:, None, None, None])

def shrink(images, sigma):
    return images / (1 + sigma**2)
made = Shrink()
"""


@pytest.mark.parametrize("name", ["Shrink", "shrink", "made"])
def test_a_users_denoiser(name: str, script: Script) -> None:
    """With variance 1/4 in [0, 1], σ²/(1 + σ²) of x is noise: the score is −4x / (1 + σ²)."""
    denoiser = load_denoiser(f"{script(DENOISER)}:{name}")
    assert isinstance(denoiser, CalledDenoiser)
    images = torch.rand(3, 1, 4, 4, generator=seeded())
    torch.testing.assert_close(score_of(denoiser, images, 0.5), -4 * images / 1.25)
    assert denoiser.classes == (0 if name == "shrink" else 3)
    if name == "shrink":
        with pytest.raises(UsageError, match="takes no labels"):
            denoiser(images, 0.5, torch.tensor([0, 1, 2]))
    else:
        torch.testing.assert_close(denoiser(images, 0.0, torch.tensor([2, 2, 2])), images + 2)


def test_a_denoiser_that_is_none_is_said(script: Script) -> None:
    path = script("f = 3\ndef g(): raise OSError('no file')\ndef h(x, s): return x[:1]")
    for name, message in (("f", "a int"), ("g", "OSError: no file"), ("none", "no such name")):
        with pytest.raises(PagsError, match=message):
            load_denoiser(f"{path}:{name}")
    with pytest.raises(PagsError, match="denoised images of shape"):
        load_denoiser(f"{path}:h")(torch.zeros(2, 1, 2, 2), 0.5)


# --- data ------------------------------------------------------------------------------------------------

DATA = """
import numpy as np, torch
from torch.utils.data import DataLoader, TensorDataset
x = np.random.RandomState(0).randint(0, 256, (20, 8, 8, 3)).astype("uint8")
y = np.arange(20) % 4

def arrays():
    return x, y
def halves():
    return (x[:12], y[:12]), (x[12:], y[12:])
def loader():
    images = torch.from_numpy(x).permute(0, 3, 1, 2) / 255
    return DataLoader(TensorDataset(images, torch.from_numpy(y)), batch_size=8, shuffle=True)
"""


@pytest.mark.parametrize("name", ["arrays", "halves", "loader"])
def test_a_users_data_set(name: str, script: Script, global_state_untouched: None) -> None:
    spec = f"{script(DATA)}:{name}"
    found, again = load_data(spec), load_data(spec)
    assert (len(found.train), len(found.test)) == ((12, 8) if name == "halves" else (16, 4))
    assert found.train.pixels.dtype == torch.uint8
    assert found.train.classes == ("0", "1", "2", "3")
    assert found.train.provenance == again.train.provenance != found.test.provenance
    raw = np.random.RandomState(0).randint(0, 256, (20, 8, 8, 3)).astype("uint8")
    expected = {image.transpose(2, 0, 1).tobytes() for image in raw}
    assert {p.numpy().tobytes() for part in (found.train, found.test) for p in part.pixels} == expected
    if name != "halves":
        assert len(load_data(f"{spec}?train=0.5&seed=3").train) == 10


def test_a_data_set_that_is_none_is_said(script: Script) -> None:
    path = script("f = 3\ndef g(): return 1 / 0\ndef h(): return [[1, 2]], [0]")
    for name in "fgh":
        with pytest.raises(PagsError, match="expected"):
            load_data(f"{path}:{name}")


class Pictures(Dataset[tuple[Image.Image, int]]):
    classes = ("cat", "dog")

    def __len__(self) -> int:
        return 6

    def __getitem__(self, place: int) -> tuple[Image.Image, int]:
        return Image.new("RGB", (5, 4), (place, 2 * place, 3 * place)), place % 2


def test_images_come_in_every_form() -> None:
    """The same six pictures, in nine forms, are the same set."""
    pictures = Pictures()
    rows = [pictures[place] for place in range(6)]
    array = np.stack([np.array(picture) for picture, _ in rows])  # (6, 4, 5, 3)
    tensor, labels = torch.from_numpy(array).permute(0, 3, 1, 2), [0, 1, 0, 1, 0, 1]
    dataset = TensorDataset(tensor / 255, torch.tensor(labels))
    names = ("cat", "dog")
    forms = [
        ImageSet.of(pictures),
        ImageSet.of([picture for picture, _ in rows], labels, names),
        ImageSet.of(array, np.array(labels), names),
        ImageSet.of(array / 255, torch.tensor(labels, dtype=torch.int32), names),
        ImageSet.of(tensor, labels, names),
        ImageSet.of(tensor.float() / 255, [names[label] for label in labels]),
        ImageSet.of(list(tensor), labels, names),
        ImageSet.of(dataset, classes=names),
        ImageSet.of(DataLoader(dataset, batch_size=4), classes=names),
    ]
    assert len({form.identity for form in forms}) == 1
    assert all(form.shape == (3, 4, 5) for form in forms)


def test_floats_between_the_255ths_stay() -> None:
    images = torch.rand(3, 1, 4, 4, generator=seeded())
    assert torch.equal(ImageSet.of(images, [0, 1, 2]).pixels, images)
    assert torch.equal(ImageSet.of(images[:, 0], [0, 1, 2]).pixels, images)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 1, 4, 4), [0, 5], "labels from 0 to 1"),
        (torch.zeros(2, 3, 4, 3), [0, 1], "fits two of these"),
        (torch.zeros(2, 5, 4, 4), [0, 1], "one or three channels"),
        (torch.zeros(2, 4, 4, dtype=torch.int64), [0, 1], "uint8, or as floats"),
        (255 * torch.ones(2, 1, 4, 4), [0, 1], r"in \[0, 1\]"),
        ([torch.zeros(1, 4, 4), torch.zeros(1, 5, 5)], [0, 1], "of one size"),
        (torch.zeros(2, 1, 4, 4), [0.5, 1], "one integer from 0 per image"),
        (torch.zeros(2, 1, 4, 4), ["a", "c"], "labels among a, b"),
        (torch.zeros(2, 1, 4, 4), [0], "as many labels as images"),
        (torch.zeros(2, 1, 4, 4), None, "labels beside the images"),
        (TensorDataset(torch.zeros(2, 1, 4, 4)), None, "pairs of an image and a label"),
    ],
)
def test_what_is_no_image_set_is_said(images: Any, labels: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ImageSet.of(images, labels, ("a", "b") if labels is not None and labels[-1] in (5, "c") else None)


def test_every_pixel_and_label_is_part_of_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = small_set()
    changed, relabelled = whole.pixels.clone(), whole.labels.clone()
    changed[-1, 0, -1, -1] = 0.5
    relabelled[-1] = 0
    masks = torch.ones(24, 8, 8, dtype=torch.bool)
    others = [
        ImageSet(changed, whole.labels, whole.classes, "small"),
        ImageSet(whole.pixels, relabelled, whole.classes, "small"),
        ImageSet(whole.pixels, whole.labels, ("x", "y", "z"), "small"),
        ImageSet(whole.pixels, whole.labels, whole.classes, "small", masks=masks),
        whole.take(slice(0, 23)),
    ]
    assert len({part.identity for part in (whole, *others)}) == 6
    monkeypatch.setattr("pags.data.imageset.CHUNK", 100)  # in parts of one image
    assert ImageSet(whole.pixels, whole.labels, whole.classes, "another name").identity == whole.identity


def test_two_sets_share_their_classes() -> None:
    first = (torch.zeros(3, 1, 4, 4), [0, 1, 2])
    found = data_set_of((first, (torch.zeros(2, 1, 4, 4), [0, 1])))
    assert found.train.classes == found.test.classes == ("0", "1", "2")
    assert data_set_of(found) is found
    assert isinstance(data_set_of(small_set()), DataSet)
