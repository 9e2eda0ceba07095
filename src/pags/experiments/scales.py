"""Scales: the same figures in minutes on two cores, in a day on one accelerator, or as the paper has them.

`smoke` is small networks, few epochs and few images; `small` the paper's network with fewer strengths, seeds
and epochs; `paper` its 30 strengths, 10 seeds, epochs, learning rates and images, from the recipes in
`pags.training.recipes`.
"""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, PositiveInt

from pags.errors import UsageError
from pags.experiments.config import Sweep, SweepConfig
from pags.experiments.distractor import DistractorConfig, Variant
from pags.experiments.generate import GenerateSettings
from pags.experiments.transfer import TransferConfig
from pags.training.fit import Plan
from pags.training.recipes import Recipe, read_recipe, recipe_names

Scale = Literal["smoke", "small", "paper"]
SCALES: tuple[Scale, ...] = ("smoke", "small", "paper")

OBJECTIVES = ("gradient-norm", "smoothing", "pgd", "smoothness")
PAPER_NORMS = (1.438, 2.637, 4.833, 8.859)
"""Figures 8 and 9, of 32×32×3 pixels; Figure 3 has the second (docs/choices.md, 8)."""


GENTLE_RADII = (0.5, 1.0, 2.0)
"""For MNIST with a distractor below the paper's scale. With its 1, 4 and 8 as radii of each image, the
three-block network learned nothing in two epochs; the release's balls are of about ε/√128 an image."""


class Settings(BaseModel):
    """Everything that `pags reproduce` runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: Scale
    sweep: SweepConfig
    transfer: TransferConfig
    distractor: DistractorConfig
    generation: GenerateSettings
    smoothgrad_samples: PositiveInt = 16


def settings_for(data: str, scale: str, **changes: Any) -> Settings:
    """The settings of a scale for a data set.

    Args:
        data: a data set, see `pags.data.sources`.
        scale: one of `SCALES`.
        changes: fields of `SweepConfig` that are to differ; seed, device and data_folder hold for all parts.

    Raises:
        UsageError: an unknown scale, or no recipe says what the paper's setting for these data is.
    """
    if scale not in SCALES:
        raise UsageError(f"a scale among {', '.join(SCALES)}", got=repr(scale), suggestion="smoke")
    sweep = {"smoke": _smoke, "small": _small, "paper": _paper}[scale](data)
    sweep = SweepConfig.model_validate(sweep.model_dump() | changes)
    common = {name: getattr(sweep, name) for name in ("seed", "device", "data_folder", "resamples")}
    return Settings(
        scale=scale,
        sweep=sweep,
        transfer=_transfer(sweep, scale),
        distractor=_distractor(data, scale).model_copy(update=common),
        generation=_generation(sweep, scale),
        smoothgrad_samples={"smoke": 8, "small": 16, "paper": 32}[scale],
    )


def _smoke(data: str) -> SweepConfig:
    """The demo's settings with the fourth objective; other data: few images, small networks, few epochs."""
    smoothness = Sweep(objective="smoothness", strengths=(0, 0.3, 1, 3, 10, 100))
    base = SweepConfig(data=data)
    base = base.model_copy(update={"sweeps": (*base.sweeps, smoothness)})
    if data == "digits":
        return base
    return base.model_copy(
        update={
            "train_images": 2000,
            "images": 200,
            "classifier": Plan(epochs=5, learning_rate=0.1),
            "sweeps": _ladders((0.25, 0.5, 1, 2, 4), steps=3),
            "latent": 32,
            "autoencoder_widths": (32, 64, 128),
            "autoencoder": Plan(
                epochs=15, batch_size=64, optimizer="adam", learning_rate=2e-3, weight_decay=0
            ),
            "denoiser_widths": (32, 64, 96),
            "denoiser": Plan(epochs=10, optimizer="adam", learning_rate=2e-3, weight_decay=0, average=0.99),
            "norms": PAPER_NORMS,
            "norm": PAPER_NORMS[1],
            "directions": 4,
        }
    )


def _ladders(radii: Sequence[float], *, steps: int) -> tuple[Sweep, ...]:
    """The four sweeps of a smaller scale, per image and for sides of about 32 pixels."""
    return (
        Sweep(objective="gradient-norm", strengths=(0, 0.01, 0.1, 1, 10, 100)),
        Sweep(objective="smoothing", strengths=(0, 0.05, 0.1, 0.25, 0.5, 1)),
        Sweep(objective="pgd", strengths=(0, *radii), attack_steps=steps),
        Sweep(objective="smoothness", strengths=(0, 0.3, 1, 3, 10, 100)),
    )


def _small(data: str) -> SweepConfig:
    """The paper's network with a third of its strengths, three seeds and a fast schedule."""
    base = _smoke(data)
    if data == "digits":
        return base.model_copy(update={"repeats": 3})
    sweeps = (
        Sweep(objective="gradient-norm", strengths=(0, *_logarithmic(-4, 2, 9))),
        Sweep(objective="smoothing", strengths=(0, *_logarithmic(-2, 1, 9))),
        Sweep(objective="pgd", strengths=(0, *_logarithmic(-1.5, 1.5, 9)), attack_steps=7),
        Sweep(objective="smoothness", strengths=(0, *_logarithmic(-3, 3, 9))),
    )
    flip = not data.startswith(("mnist", "svhn"))
    return base.model_copy(
        update={
            "architecture": "resnet18",
            "classifier": Plan(epochs=30, learning_rate=0.1, crop=4, flip=flip),
            "sweeps": sweeps,
            "repeats": 3,
            "train_images": None,
            "images": 1000,
            "scale_rate": True,
            "latent": 128,
            "autoencoder_widths": (128, 256, 512),
            "autoencoder": Plan(
                epochs=50, batch_size=128, optimizer="adam", learning_rate=1e-3, weight_decay=0
            ),
            "denoiser_widths": (96, 192, 256),
            "denoiser": Plan(epochs=60, optimizer="adam", learning_rate=1e-3, weight_decay=0, average=0.999),
            "directions": 8,
        }
    )


def _paper(data: str) -> SweepConfig:
    """The paper's setting, from the recipe of the data set."""
    recipe = _recipe_of(data)
    sweeps = tuple(
        Sweep(objective=name, strengths=(0, *recipe.strengths[name]), attack_steps=recipe.attack_steps)
        for name in OBJECTIVES
        if name in recipe.strengths
    )
    return SweepConfig(
        data=data,
        repeats=10 if data == "cifar10" else 1,
        architecture=recipe.architecture,
        activation=recipe.activation,
        classifier=recipe.plan,
        relative_step=recipe.relative_step,
        scale_rate=True,
        sweeps=sweeps,
        images=2000 if data == "cifar10" else 1000,
        latent=128,
        autoencoder_widths=(128, 256, 512, 1024),
        autoencoder=Plan(epochs=100, batch_size=100, optimizer="adam", learning_rate=1e-4, weight_decay=0),
        denoiser_widths=(128, 256, 256),
        denoiser=Plan(epochs=200, optimizer="adam", learning_rate=1e-3, weight_decay=0, average=0.9999),
        sigma=1.2 if data.startswith("imagenet") else 0.5,
        norms=PAPER_NORMS,
        norm=PAPER_NORMS[1],
        gallery=10,
    )


def _recipe_of(data: str) -> Recipe:
    """The paper's recipe for a data set."""
    found = [name for name in recipe_names() if name == data]
    if not found:
        known = [name for name in recipe_names() if not name.endswith("-fast")]
        raise UsageError(
            f"data that the paper trains on: {', '.join(known)}",
            got=data,
            suggestion="--scale small",
        )
    return read_recipe(found[0])


def _transfer(sweep: SweepConfig, scale: Scale) -> TransferConfig:
    """Networks at twice the size, trained like the sweep's, at radii whose accuracy lasts."""
    radii = next((s.strengths for s in sweep.sweeps if s.objective == "pgd"), (0.0,))
    plan = sweep.classifier
    if scale == "smoke":
        plan = plan.model_copy(update={"epochs": max(1, plan.epochs * 2 // 3)})
    if scale == "paper":
        return TransferConfig(strengths=(0, 0.25, 0.5, 1, 3, 5), attack_steps=3, plan=plan)
    return TransferConfig(strengths=tuple(2 * radius for radius in radii[:4]), attack_steps=3, plan=plan)


def _distractor(data: str, scale: Scale) -> DistractorConfig:
    """Digits beside a distractor: scikit-learn's where the data are these, else MNIST's, as in the paper."""
    if data == "digits":
        return DistractorConfig(
            data="digits", plan=Plan(epochs=12, learning_rate=0.1), radii=(0.3, 0.6, 1.2), attack_steps=5,
            images=297, variants=(
                Variant(), Variant(distractor="H"), Variant(distractor="checks"),
                Variant(distractor="AX"), Variant(distractor="AX", informative=0.5),
                Variant(distractor="AX", informative=1),
            ),
        )  # fmt: skip
    if scale == "smoke":
        return DistractorConfig(
            plan=Plan(epochs=2, learning_rate=0.1), train_images=4000, attack_steps=3, images=300,
            radii=GENTLE_RADII,
            variants=(Variant(), Variant(distractor="AX"), Variant(distractor="AX", informative=1)),
        )  # fmt: skip
    if scale == "small":
        return DistractorConfig(
            plan=Plan(epochs=2, learning_rate=0.1), radii=GENTLE_RADII, attack_steps=5,
            variant_images=10_000, directions=2,
            variants=(Variant(), Variant(distractor="AX"), Variant(distractor="AX", informative=1)),
        )  # fmt: skip
    recipe = read_recipe("mnist-distractor")
    return DistractorConfig(
        architecture=recipe.architecture, plan=recipe.plan, radii=recipe.radii,
        attack_steps=recipe.attack_steps, relative_step=recipe.relative_step, images=1000,
    )  # fmt: skip


def _generation(sweep: SweepConfig, scale: Scale) -> GenerateSettings:
    return GenerateSettings(images={"smoke": 60, "small": 200, "paper": 500}[scale], seed=sweep.seed)


def _logarithmic(low: float, high: float, count: int) -> tuple[float, ...]:
    """`count` numbers from 10^low to 10^high, evenly spaced in their logarithm, to three digits."""
    return tuple(float(f"{10 ** (low + (high - low) * i / (count - 1)):.3g}") for i in range(count))
