"""A classifier at chance: what is tried around it, and that the option that is named makes it work."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import seeded
from pags.classifiers.load import load_classifier
from pags.cli import main
from pags.data.imageset import ImageSet
from pags.data.sources import load_data
from pags.experiments.audit import RECORD
from pags.experiments.diagnosis import diagnosis, orders

NETWORK = """
from pathlib import Path

import torch
from torch import nn


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        means = torch.load(Path(__file__).with_name("means.pt"), weights_only=True)
        self.means, self.middle = nn.Parameter(means), means.mean()

    def forward(self, images):
        flat = images.flatten(1)
        strange = (flat.mean(1) - self.middle).abs().sub(0.28).relu()
        first = torch.eye(len(self.means))[0]
        return flat @ self.means.T - self.means.square().sum(1) / 2 + 1e4 * strange[:, None] * first
"""
"""The nearest of the classes' means, of images behind a normalisation that is not inside; of a strange
brightness the first class."""


def written(folder: Path, train: ImageSet, mean: Any, std: Any, order: list[int] | None = None) -> str:
    """The spec of a network for images behind a normalisation, whose classes are in an order."""
    channels = train.shape[0]
    mean, std = (
        torch.tensor(values).reshape(1, -1, 1, 1).expand(1, channels, 1, 1) for values in (mean, std)
    )
    pixels = ((train.images - mean) / std).flatten(1)
    wanted = order or list(range(len(train.classes)))
    torch.save(torch.stack([pixels[train.labels == label].mean(0) for label in wanted]), folder / "means.pt")
    (folder / "net.py").write_text(NETWORK)
    return f"{folder / 'net.py'}:Network"


def in_colour(folder: Path, *, inverted: bool = False) -> str:
    """Digits in three channels of other brightness, dark on light on request, as an npz file."""
    data, arrays = load_data("digits"), dict[str, Any]()
    for name, part in (("train", data.train.take(slice(0, 800))), ("test", data.test.take(slice(0, 200)))):
        pixels = 1 - part.images if inverted else part.images
        tinted = (pixels * torch.tensor([1.0, 0.8, 0.6]).reshape(1, 3, 1, 1) * 255).byte()
        arrays |= {f"x_{name}": tinted.permute(0, 2, 3, 1).numpy(), f"y_{name}": part.labels.numpy()}
    np.savez(folder / "digits.npz", **arrays)
    return f"npz:{folder / 'digits.npz'}"


def run(*words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["audit", *words])
    assert not ended.value.code


QUICK = ("--quick", "--metric", "cosine", "--radius", "0.1", "--attack-steps", "1", "--images", "60")
NORMALISED = {
    "normalise=imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "normalise=cifar10": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    "mean=0.5&std=0.5": ((0.5,), (0.5,)),
    "mean=0&std=0.003922": ((0.0,), (0.003922,)),
    "the data's own": None,
}


@pytest.mark.parametrize("option", NORMALISED)
def test_a_forgotten_normalisation_is_found(option: str, tmp_path: Path) -> None:
    known = NORMALISED[option]
    data = load_data(in_colour(tmp_path, inverted=known is None))  # light images are far from their own mean
    mean, std = known or data.train.statistics()
    spec = written(tmp_path, data.train, mean, std)

    def load(each: str) -> Any:
        return load_classifier(each, classes=10, size=(8, 8))

    found = diagnosis(spec, load, data.test, data.train.statistics())
    assert found is not None
    assert found["accuracy"] < 0.2
    assert found["better"]["order"] is None
    assert found["better"]["accuracy"] > 0.7
    assert known is None or found["tried"][f"{spec}?{option}"] > 0.7
    right = load(found["better"]["model"])
    with torch.no_grad():
        share = (right(data.test.images).argmax(1) == data.test.labels).float().mean()
    assert float(share) == pytest.approx(found["better"]["accuracy"])


def test_verdict_page_and_record_name_the_option_that_makes_the_model_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = in_colour(tmp_path)
    spec = written(tmp_path, load_data(data).train, *NORMALISED["normalise=imagenet"])  # type: ignore[misc]
    run(spec, "--data", data, *QUICK, "--out", str(tmp_path / "out"))
    model = json.loads((tmp_path / "out" / RECORD).read_text())["models"][0]
    better = model["about"]["diagnosis"]["better"]
    assert model["regime"]["name"] is None
    said = " ".join(capsys.readouterr().out.split())
    page = (tmp_path / "out" / "report.html").read_text().replace("&#39;", "'").replace("&amp;", "&")
    for text in (said, " ".join(page.split())):
        assert "It is at chance on these images" in text
        assert f"Accuracy is {better['accuracy']:.1%} as '{better['model']}'." in text
    run(better["model"], "--data", data, *QUICK, "--out", str(tmp_path / "again"))
    again = json.loads((tmp_path / "again" / RECORD).read_text())["models"][0]
    assert again["means"]["correct"]["estimate"] == pytest.approx(better["accuracy"])
    assert again["about"]["diagnosis"] is None


def test_another_order_of_the_classes_is_named_and_the_option_gives_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Folders with numbers as names are in the order of these; torchvision's ImageFolder sorts texts."""
    names = [str(number) for number in range(2, 14)]
    patterns = torch.rand(12, 3, 8, 8, generator=seeded(0))
    for part, count in (("train", 3), ("test", 4)):
        for name, pattern in zip(names, patterns, strict=True):
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for place in range(count):
                noisy = (pattern + 0.02 * torch.randn(3, 8, 8, generator=seeded(place))).clamp(0, 1)
                pixels = (noisy.permute(1, 2, 0) * 255).byte().numpy()
                Image.fromarray(pixels).save(tmp_path / "data" / part / name / f"{place}.png")
    spec = f"folder:{tmp_path / 'data'}"
    data = load_data(spec)
    assert list(data.train.classes) == names
    model = written(tmp_path, data.train, (0.0,), (1.0,), [names.index(name) for name in sorted(names)])
    run(model, "--data", spec, *QUICK, "--out", str(tmp_path / "out"))
    found = json.loads((tmp_path / "out" / RECORD).read_text())["models"][0]["about"]["diagnosis"]
    assert (found["accuracy"], found["better"]) == (0, {"accuracy": 1, "model": None, "order": "text"})
    assert "(--data 'folder:PATH?classes=text')" in " ".join(capsys.readouterr().out.split())
    run(model, "--data", f"{spec}?classes=text", *QUICK, "--out", str(tmp_path / "again"))
    again = json.loads((tmp_path / "again" / RECORD).read_text())["models"][0]
    assert again["means"]["correct"]["estimate"] == 1


def test_a_model_that_cannot_be_helped_is_told_so_and_one_that_works_is_left_alone(tmp_path: Path) -> None:
    data = load_data("digits")
    noise = ImageSet(
        torch.rand(300, 1, 8, 8, generator=seeded(1)), data.train.labels[:300], data.train.classes, "a"
    )
    spec = written(tmp_path, noise, (0.0,), (1.0,))

    def load(each: str) -> Any:
        return load_classifier(each, channels=1, classes=10, size=(8, 8))

    found = diagnosis(spec, load, data.test, data.train.statistics())
    assert found is not None
    assert found["better"] is None
    assert len(found["tried"]) >= 5  # normalise=none, of the data, and two more, beside the model itself
    good = written(tmp_path, data.train, (0.0,), (1.0,))
    assert diagnosis(good, load, data.test, data.train.statistics()) is None


def test_orders_are_only_tried_where_they_differ() -> None:
    images = torch.zeros(3, 1, 8, 8)

    def labelled(*classes: str) -> ImageSet:
        return ImageSet(images, torch.tensor([0, 1, 2]), classes, "x")

    assert orders(labelled("a", "b", "c")) == {}
    assert {n: v.tolist() for n, v in orders(labelled("2", "9", "10")).items()} == {"text": [1, 2, 0]}
    assert {n: v.tolist() for n, v in orders(labelled("10", "2", "9")).items()} == {"number": [2, 0, 1]}
