"""The networks that ship with the package do what is said of them."""

import json

import pytest
import torch

import pags
from pags.errors import UsageError
from pags.figures.pictures import NATURAL, SHOWN, natural_images
from pags.measure.gradients import input_gradient
from pags.score.denoiser import bayes_direction
from pags.shipped import CLASSIFIERS, FOLDER, shipped_images

FACTS = json.loads((FOLDER / "shipped.json").read_text())
MOST = 8 * 2**20
"""Bytes of all of them together."""


def cosine(name: str) -> float:
    """The mean cosine of gradient and Bayes direction on the dozen, measured anew."""
    images, labels = shipped_images()
    gradient = input_gradient(pags.load_classifier(f"pags:{name}"), images, "logit", labels)
    bayes = bayes_direction(pags.load_denoiser("pags:cifar10"), images, FACTS["sigma"], labels)
    return float(torch.nn.functional.cosine_similarity(gradient.flatten(1), bayes.flatten(1)).mean())


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_network_measures_what_is_written_of_it(name: str) -> None:
    assert cosine(name) == pytest.approx(FACTS["networks"][name]["cosine"], abs=2e-3)


def test_they_are_those_of_the_figure_and_small() -> None:
    assert set(CLASSIFIERS) == set(NATURAL) == set(FACTS["networks"])
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < MOST


def test_the_robust_ones_point_where_the_bayes_classifier_does() -> None:
    found = [FACTS["networks"][name] for name in NATURAL]
    assert all(robust["cosine"] > found[0]["cosine"] + 0.02 for robust in found[1:])
    assert [each["accuracy"] for each in found] == sorted((f["accuracy"] for f in found), reverse=True)


def test_the_dozen_has_every_class_and_is_recognised() -> None:
    images, labels = shipped_images()
    assert images.shape == (12, 3, 32, 32)
    assert 0 <= float(images.min()) < float(images.max()) <= 1
    assert set(labels.tolist()) == set(range(10))
    assert int((pags.load_classifier("pags:cifar10-standard")(images).argmax(1) == labels).sum()) >= 9


def test_the_figure_shows_eight_classes_from_standard_to_excessive() -> None:
    data = natural_images(None)  # type: ignore[arg-type]
    assert data.tensors["cells"].shape == (3 + len(NATURAL), SHOWN, 3, 32, 32)
    assert [line["label"].split("\n")[0] for line in data.record["lines"]][:3] == [
        "image", "score", "Bayes direction",
    ]  # fmt: skip
    means = [sum(line["numbers"]) / SHOWN for line in data.record["lines"][3:]]
    assert means[0] < min(means[1:])


@pytest.mark.parametrize("spec", ["pags:cifar10-nothing", "pags:cifar10-standard?arch=resnet18"])
def test_another_name_is_refused_with_those_that_ship(spec: str) -> None:
    with pytest.raises(UsageError):
        pags.load_classifier(spec)


def test_a_denoiser_of_another_name_is_refused() -> None:
    with pytest.raises(UsageError, match="pags:cifar10"):
        pags.load_denoiser("pags:mnist")
