"""Recipes: the paper's training of each data set (B.2) as data, faster ones beside them; the scaled rate.

A recipe is a TOML file in the folder `recipes` of this room. Comments in it say which numbers are not in the
paper's text; measured accuracies stand in it once they are measured, and never before.
"""

import tomllib
from importlib import resources

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveFloat, PositiveInt

from pags.errors import UsageError
from pags.training.attack import Statistics
from pags.training.gradients import check_strength
from pags.training.objectives import PRESETS, Preset, get_objective
from pags.training.plan import Plan


class Recipe(BaseModel):
    """How the classifiers of one data set are trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    data: str
    """A data set, see `pags.data.sources`."""
    about: str
    """One sentence, with the place in the paper."""
    architecture: str
    activation: str = "relu"
    plan: Plan
    attack_steps: PositiveInt = 10
    relative_step: PositiveFloat = 2.5
    """Length of all steps of the attack together, in radii."""
    attack_statistics: Statistics = "running"
    """BatchNorm's during the attack: those of the "batch" where the weights move fast."""
    smoothness_sigma: PositiveFloat = 0.1
    radii: tuple[PositiveFloat, ...] = ()
    """From which each batch of adversarial training draws its epsilon, if there are any."""
    strengths: dict[str, tuple[PositiveFloat, ...]] = {}
    """The grid of each objective; 0 belongs to all of them."""
    paper_accuracy: NonNegativeFloat | None = None
    """Of the network without robustness, in [0, 1], where the paper states it."""
    reached_accuracy: NonNegativeFloat | None = None
    """The same as measured with this recipe; None: not yet."""


def recipe_names() -> tuple[str, ...]:
    """The names of all recipes, in alphabetical order."""
    folder = resources.files("pags.training") / "recipes"
    files = [file.name for file in folder.iterdir()]
    return tuple(sorted(name.removesuffix(".toml") for name in files if name.endswith(".toml")))


def read_recipe(name: str) -> Recipe:
    """The recipe called `name`.

    Args:
        name: one of `recipe_names()`.

    Raises:
        UsageError: no recipe has this name.
    """
    if name not in recipe_names():
        raise UsageError(
            f"a recipe among {', '.join(recipe_names())}", got=repr(name), suggestion="--recipe digits"
        )
    text = (resources.files("pags.training") / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
    return Recipe.model_validate(tomllib.loads(text))


def scaled_rate(rate: float, objective: str, strength: float, *, preset: Preset = "ours") -> float:
    """The learning rate for a strong penalty: rate · min(1, λ₀/λ).

    B.2 lowers it in proportion to large constants of gradient norm and smoothness. λ₀ is not in the text; it
    is the release's, 0.01 and 10, and there also 100 for the radius of adversarial training
    (docs/choices.md, 17). λ is that of the preset: at B = 128 the release's 0.01 penalises as much as 0.061
    of ours (6). Whoever wants the fixed rate, as a control, does not call this.

    Args:
        rate: the learning rate of the recipe.
        objective: as `make_objective` takes it.
        strength: λ, or epsilon.
        preset: "ours" and "paper" lower the rate for the two penalties, "release" for the attack too.
    """
    check_strength(strength)
    if preset not in PRESETS:
        raise UsageError(f"a preset among {', '.join(PRESETS)}", got=repr(preset), suggestion="ours")
    border = get_objective(objective).rate_falls_above(preset) if strength else 0.0
    return rate * border / strength if strength > border else rate
