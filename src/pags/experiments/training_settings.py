"""What `pags train` is asked for, and what that comes to: a recipe with what was said in place of its own."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from pags.errors import UsageError
from pags.store import Record
from pags.training.objectives import Objective, make_objective
from pags.training.plan import Plan
from pags.training.recipes import Recipe, read_recipe, recipe_names, scaled_rate


class TrainSettings(BaseModel):
    """One training. What is None is the recipe's, without one that of the recipe called like the data; where
    there is none either, it is what suits small images on a CPU."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str | None = None
    data_folder: str | None = None
    recipe: str | None = None
    objective: str = "pgd"
    strength: NonNegativeFloat = 0.5
    preset: Literal["ours", "paper", "release"] = "ours"
    architecture: str | None = None
    activation: str | None = None
    epochs: PositiveInt | None = None
    batch_size: PositiveInt | None = None
    learning_rate: PositiveFloat | None = None
    attack_steps: PositiveInt | None = None
    clip_norm: PositiveFloat | None = None
    scale_rate: bool = True
    """Whether strong penalties lower the learning rate, as the paper did (B.2)."""
    seed: int = 0

    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: PositiveInt = 1
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    compile: bool = False
    channels_last: bool = True

    evaluate_every: NonNegativeInt = 1
    """Epochs from one look at the accuracies to the next; 0: only at the end."""
    evaluate_images: PositiveInt = 500
    """Test images of such a look, a seeded choice; at the end it is all of them."""
    evaluate_radius: NonNegativeFloat = 0.5
    """The l2 radius of the attack behind the adversarial accuracy, for images in [0, 1]."""
    evaluate_steps: PositiveInt = Field(default=20)


def train_settings(**said: Any) -> TrainSettings:
    """The settings that say what is given here; None says nothing.

    Raises:
        UsageError: an unknown setting, or a value out of range.
    """
    try:
        return TrainSettings(**{name: value for name, value in said.items() if value is not None})
    except ValidationError as error:
        problem = error.errors()[0]
        name = "-".join(str(part) for part in problem["loc"]).replace("_", "-")
        raise UsageError(
            f"a setting {name} that makes sense",
            got=f"{problem['input']!r} ({problem['msg'].lower()})",
            suggestion="pags train --help",
        ) from error


@dataclass(frozen=True)
class Resolved:
    """Settings with everything decided."""

    settings: TrainSettings
    data: str
    architecture: str
    activation: str
    plan: Plan
    attack: Record
    """Options of the objective, by the names that `make_objective` has for them."""

    def objective(self) -> Objective:
        """What is minimised."""
        return make_objective(
            self.settings.objective, self.settings.strength, preset=self.settings.preset, **self.attack
        )

    @property
    def name(self) -> str:
        """A name for files: data, objective and strength."""
        words = f"{self.data}-{self.settings.objective}-{self.settings.strength:g}"
        return re.sub(r"[^A-Za-z0-9.]+", "-", words).strip("-.")

    def recipe(self) -> Record:
        """What the trained weights are a function of, but for the images; plain data to be fingerprinted.

        The number of processes is left out: they change the rounding of sums, not what is computed.
        """
        settings = self.settings
        return {
            "architecture": self.architecture,
            "activation": self.activation,
            "objective": settings.objective,
            "strength": settings.strength,
            "preset": settings.preset,
            "options": {name: _plain(value) for name, value in self.attack.items()},
            "plan": self.plan.model_dump(mode="json"),
            "seed": settings.seed,
            "precision": settings.precision,
            "compile": settings.compile,
            "channels_last": settings.channels_last,
        }

    def evaluation(self) -> Record:
        """How the accuracies are taken, as plain data."""
        names = ("evaluate_every", "evaluate_images", "evaluate_radius", "evaluate_steps")
        return {name: getattr(self.settings, name) for name in names}


def resolve(settings: TrainSettings) -> Resolved:
    """Decide what the settings leave to their recipe.

    Raises:
        UsageError: an unknown recipe or objective; neither data nor a recipe; options at odds.
    """
    name = settings.recipe or (settings.data if settings.data in recipe_names() else None)
    recipe = read_recipe(name) if name else None
    if settings.data is None and recipe is None:
        raise UsageError("data or a recipe to train on", got="neither", suggestion="--data digits")
    if settings.compile and settings.objective == "gradient-norm" and settings.strength > 0:
        raise UsageError(
            "an objective without a second derivative, for --compile",
            got=settings.objective,
            suggestion="leaving --compile out, or --objective pgd",
        )
    resolved = Resolved(
        settings,
        data=settings.data or (recipe.data if recipe else ""),
        architecture=settings.architecture or (recipe.architecture if recipe else "small-resnet"),
        activation=settings.activation or (recipe.activation if recipe else "relu"),
        plan=_plan(settings, recipe),
        attack=_options(settings, recipe),
    )
    resolved.objective()
    return resolved


def _plan(settings: TrainSettings, recipe: Recipe | None) -> Plan:
    plan = recipe.plan if recipe else Plan(epochs=15, learning_rate=0.1)
    names = ("epochs", "batch_size", "learning_rate", "clip_norm")
    said = {name: value for name in names if (value := getattr(settings, name)) is not None}
    rate = said.get("learning_rate", plan.learning_rate)
    if settings.scale_rate:
        rate = scaled_rate(rate, settings.objective, settings.strength, preset=settings.preset)
    epochs = said.get("epochs", plan.epochs)
    # Of a run of another length, the milestones stand at the same shares of it.
    milestones = tuple(max(1, round(m * epochs / plan.epochs)) for m in plan.milestones)
    return plan.model_copy(update={**said, "learning_rate": rate, "milestones": milestones})


def _options(settings: TrainSettings, recipe: Recipe | None) -> Record:
    options: Record = {"attack_steps": settings.attack_steps or (recipe.attack_steps if recipe else 10)}
    if recipe:
        options |= {"relative_step": recipe.relative_step, "smoothness_sigma": recipe.smoothness_sigma}
        options |= {"radii": recipe.radii} if settings.objective == "pgd" else {}
    return options


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def data_folder(settings: TrainSettings) -> Path | None:
    """Where data sets are kept; None: the usual place."""
    return Path(settings.data_folder) if settings.data_folder else None
