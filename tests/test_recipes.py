"""Recipes against the numbers of the paper (B.2), typed here from its text; and the lowered learning rate."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from conftest import seeded
from pags.classifiers.build import build_classifier
from pags.data.imageset import ImageSet
from pags.errors import UsageError
from pags.seeds import seeded_construction
from pags.training.fit import fit
from pags.training.objectives import OBJECTIVES, make_objective
from pags.training.recipes import Recipe, read_recipe, recipe_names, scaled_rate

B2: dict[
    str, tuple[object, ...]
] = {  # epochs, learning rate, decays, batch size, attack steps, their length in radii, radii
    "cifar10": (200, 0.025, (150, 175), 128, 10, 2, ()),
    "imagenet64": (90, 0.1, (30, 60), 4096, 3, 2, ()),
    "mnist-distractor": (9, 0.1, (3, 6), 128, 10, 2.5, (1, 4, 8)),
}


@pytest.mark.parametrize("name", B2)
def test_the_papers_recipes_have_the_papers_numbers(name: str) -> None:
    recipe = read_recipe(name)
    plan = recipe.plan
    found = (
        plan.epochs, plan.learning_rate, plan.milestones, plan.batch_size,
        recipe.attack_steps, recipe.relative_step, recipe.radii,
    )  # fmt: skip
    assert found == B2[name]
    large = name == "imagenet64"  # docs/choices.md, 26
    decay, network = (1e-4, "torchvision:resnet18") if large else (5e-4, "resnet18")
    assert (plan.optimizer, plan.momentum, plan.weight_decay, plan.schedule) == ("sgd", 0.9, decay, "steps")
    assert (plan.crop, plan.flip) == ((0, False) if name == "mnist-distractor" else (8 if large else 4, True))
    assert (recipe.architecture, recipe.activation, recipe.smoothness_sigma) == (network, "relu", 0.1)
    assert recipe.paper_accuracy is None  # the paper's text has no accuracy as a number


def test_the_grids_are_those_of_30_strengths() -> None:
    """docs/choices.md, 22; radii end with the diameter of the pixel cube (27)."""
    borders = {"gradient-norm": (-5, 2), "smoothness": (-4, 4), "smoothing": (-3, 2), "pgd": (-5, 4)}
    strengths = read_recipe("cifar10").strengths
    assert set(strengths) == set(OBJECTIVES)
    for name, (low, high) in borders.items():
        grid = np.logspace(low, high, 30)
        within = grid[grid < math.sqrt(3072)] if name == "pgd" else grid
        np.testing.assert_allclose(strengths[name], within, rtol=5e-4)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_can_be_read_and_used(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe.name == name
    assert name == recipe.data or name.startswith(f"{recipe.data}-")
    assert all(milestone < recipe.plan.epochs for milestone in recipe.plan.milestones)
    for objective, strengths in recipe.strengths.items():
        assert list(strengths) == sorted(set(strengths))
        make_objective(
            objective, strengths[-1], attack_steps=recipe.attack_steps,
            relative_step=recipe.relative_step, radii=recipe.radii,
            attack_statistics=recipe.attack_statistics,
        )  # fmt: skip
    if name.endswith(("-fast", "-laptop")):
        assert recipe.plan.epochs < read_recipe(recipe.data).plan.epochs
        assert recipe.plan.schedule == "one-cycle"


def test_each_data_set_of_the_paper_has_two_recipes() -> None:
    others = {"digits", "cifar10-laptop", "cifar10-resnet18-fast"}
    assert set(recipe_names()) == {*B2, *(f"{name}-fast" for name in B2), *others}


@pytest.mark.parametrize("name", ["cifar10-laptop", "cifar10-fast"])
def test_recipes_of_plain_networks_go_together(name: str) -> None:
    """A network of which penalties can be trained, attacked as the step sees it; eight strengths at least,
    spread over more than two orders of magnitude but for the radii, which end before the cube does."""
    recipe = read_recipe(name)
    with seeded_construction(0, "test"):
        build_classifier(
            recipe.architecture, 3, 10, activation=recipe.activation, mean=(0.5,) * 3, std=(0.25,) * 3
        )
    assert recipe.activation in ("gelu", "softplus")
    assert recipe.attack_statistics == "batch"
    assert set(recipe.strengths) == set(OBJECTIVES)
    for objective, strengths in recipe.strengths.items():
        assert len(strengths) >= 8
        assert strengths[-1] / strengths[0] >= (30 if objective in ("pgd", "smoothing") else 100)
    assert recipe.strengths["pgd"][-1] < 3072**0.5 / 2


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_strongest_network_of_a_sweep_can_be_trained(objective: str) -> None:
    """Under excessive regularisation a network may learn nothing, but its loss is that of chance; without
    the recipe's clip_norm that of smoothness goes beyond all bounds."""
    recipe = read_recipe("cifar10-laptop")
    pixels = torch.randint(0, 256, (64, 3, 32, 32), generator=seeded(), dtype=torch.uint8)
    data = ImageSet(pixels, torch.arange(64) % 10, tuple("0123456789"), "random")
    strength = recipe.strengths[objective][-1]
    with seeded_construction(0, "test"):
        model = build_classifier("plain-16-64-64", 3, 10, activation="gelu", mean=(0.5,) * 3, std=(0.3,) * 3)
    rate = scaled_rate(recipe.plan.learning_rate, objective, strength)
    plan = recipe.plan.model_copy(update={"batch_size": 32, "learning_rate": rate})
    records = list(fit(model, make_objective(objective, strength, attack_steps=1), data, plan, seed=0))
    assert records[-1].loss < 1.5 * math.log(10)  # a tenth of the probability for each class has log(10)


@pytest.mark.parametrize("name", ["cifar", "", "../recipes/digits", "digits.toml"])
def test_an_unknown_recipe_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"a recipe among cifar10, .*mnist-distractor.*; got"):
        read_recipe(name)


def test_a_recipe_with_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="speed"):
        Recipe.model_validate({**read_recipe("digits").model_dump(), "speed": 3})


@pytest.mark.parametrize(
    ("objective", "strength", "preset", "expected"),
    [
        ("gradient-norm", 0.01, "ours", 0.1),
        ("gradient-norm", 0.02, "ours", 0.05),
        ("gradient-norm", 100, "release", 1e-5),
        ("smoothness", 10, "paper", 0.1),
        ("smoothness", 40, "paper", 0.025),
        ("smoothing", 100, "release", 0.1),
        ("pgd", 1e4, "ours", 0.1),
        ("pgd", 1e4, "paper", 0.1),
        ("pgd", 100, "release", 0.1),
        ("pgd", 1e4, "release", 0.001),
        ("cross-entropy", 0, "ours", 0.1),
        ("untrained", 0, "ours", 0.1),
    ],
)
def test_strong_penalties_lower_the_rate(
    objective: str, strength: float, preset: str, expected: float
) -> None:
    found = scaled_rate(0.1, objective, strength, preset=preset)  # type: ignore[arg-type]
    assert found == pytest.approx(expected, rel=1e-12)


def test_a_senseless_strength_is_refused() -> None:
    for strength in (-1.0, math.nan, math.inf):
        with pytest.raises(UsageError, match="zero or more"):
            scaled_rate(0.1, "pgd", strength)
