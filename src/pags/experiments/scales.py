"""Scales: the same figures in minutes on two cores, in a night there, in a day on a GPU, or the paper's.

`smoke` is small networks, few epochs and few images; `laptop` all images and a plain network; `small` the
paper's network with fewer strengths, seeds and epochs; `paper` its 30 strengths, 10 seeds, epochs, learning
rates and images, from the recipes in `pags.training.recipes`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from pags.auditing.measures import PAPER_NORMS, Measures
from pags.errors import UsageError
from pags.experiments.classifiers import Training
from pags.experiments.problems import GenerateSettings
from pags.experiments.settings import (
    DistractorSettings,
    ExperimentSettings,
    Manifold,
    Score,
    Sweep,
    TransferSettings,
    Variant,
)
from pags.training.fit import Plan
from pags.training.objectives import OBJECTIVES, get_objective
from pags.training.recipes import Recipe, read_recipe, recipe_names

Scale = Literal["demo", "smoke", "laptop", "small", "paper"]
SCALES: tuple[Scale, ...] = ("demo", "smoke", "laptop", "small", "paper")

GENTLE_RADII = (0.5, 1.0, 2.0)
"""For MNIST with a distractor below the paper's scale. With its 1, 4 and 8 as radii of each image, the
three-block network learned nothing in two epochs; the release's balls are of about ε/√128 an image."""
ADAM: dict[str, Any] = {"optimizer": "adam", "weight_decay": 0}
PARTS: dict[str, Callable[[ExperimentSettings, str], Any]] = {}
"""How the settings of a part follow from those of the sweeps."""


def settings_for(data: str, scale: str, *, parts: Sequence[str] = (), **changes: Any) -> ExperimentSettings:
    """The settings of a scale for a data set.

    Args:
        data: a data set, see `pags.data.sources`.
        scale: one of `SCALES`.
        parts: which of "transfer", "distractor" and "generation" are wanted beside the sweeps.
        changes: values that are to differ, by name; names of parts are joined by "__", as in
            `score__file="edm.pkl"`.

    Raises:
        UsageError: an unknown scale or name; no recipe says what the paper's setting for these data is.
    """
    if scale not in SCALES:
        raise UsageError(f"a scale among {', '.join(SCALES)}", got=repr(scale), suggestion="smoke")
    make = {
        "demo": lambda data: ExperimentSettings(data=data),
        "smoke": _smoke,
        "laptop": _laptop,
        "small": _small,
        "paper": _paper,
    }
    settings = changed(make[scale](data).with_(scale=scale), changes)
    made = {part: PARTS[part](settings, scale) for part in parts if part in PARTS}
    return settings.with_(**made)


def own_sweep(objective: str, others: Sequence[Sweep]) -> Sweep:
    """The sweep of an objective at the strengths that it says itself."""
    steps = others[0].attack_steps if others else 7
    return Sweep(objective=objective, strengths=(0, *get_objective(objective).strengths), attack_steps=steps)


def changed(settings: Any, changes: dict[str, Any]) -> Any:
    """Settings with some values changed; `score__file` is the file of the score. None changes nothing."""
    own: dict[str, Any] = {}
    for name, value in changes.items():
        first, _, rest = name.partition("__")
        if value is None:
            continue
        own[first] = changed(own.get(first, getattr(settings, first)), {rest: value}) if rest else value
    return settings.with_(**own) if own else settings


def _smoke(data: str) -> ExperimentSettings:
    """The demo's settings with the fourth objective; other data: few images, small networks, few epochs."""
    smoothness = Sweep(objective="smoothness", strengths=(0, 0.3, 1, 3, 10, 100))
    base = ExperimentSettings(data=data)
    base = base.with_(sweeps=(*base.sweeps, smoothness))
    if data == "digits":
        return base
    return base.with_(
        train_images=2000, images=200, training=Training(plan=Plan(epochs=5, learning_rate=0.1)),
        sweeps=_ladders((0.25, 0.5, 1, 2, 4), steps=3),
        manifold=Manifold(
            latent=32, widths=(32, 64, 128), plan=Plan(epochs=15, batch_size=64, learning_rate=2e-3, **ADAM)
        ),
        score=Score(widths=(32, 64, 96), plan=Plan(epochs=10, learning_rate=2e-3, average=0.99, **ADAM)),
        measures=_measures(4),
    )  # fmt: skip


def _measures(directions: int, sigma: float = 0.5) -> Measures:
    """The sweeps' measures at the paper's norms."""
    base = ExperimentSettings().measures
    return base.with_(norms=PAPER_NORMS, norm=PAPER_NORMS[1], directions=directions, sigma=sigma)


def _ladders(radii: Sequence[float], *, steps: int) -> tuple[Sweep, ...]:
    """The four sweeps of a smaller scale, per image and for sides of about 32 pixels."""
    return (
        Sweep(objective="gradient-norm", strengths=(0, 0.01, 0.1, 1, 10, 100)),
        Sweep(objective="smoothing", strengths=(0, 0.05, 0.1, 0.25, 0.5, 1)),
        Sweep(objective="pgd", strengths=(0, *radii), attack_steps=steps),
        Sweep(objective="smoothness", strengths=(0, 0.3, 1, 3, 10, 100)),
    )


def _laptop(data: str) -> ExperimentSettings:
    """All training images and a plain network that two cores train in minutes; a night for all sweeps."""
    if data == "digits":
        return _smoke(data).with_(repeats=3)
    recipe = read_recipe("cifar10-laptop")
    sweeps = tuple(
        Sweep(objective=name, strengths=(0, *recipe.strengths[name]), attack_steps=recipe.attack_steps)
        for name in OBJECTIVES
    )
    flip = recipe.plan.flip if not data.startswith(("mnist", "svhn")) else False
    training = Training(
        architecture=recipe.architecture, activation=recipe.activation, relative_step=recipe.relative_step,
        attack_statistics=recipe.attack_statistics, plan=recipe.plan.model_copy(update={"flip": flip}),
        precision="auto",
    )  # fmt: skip
    return _smoke(data).with_(
        training=training, sweeps=sweeps, train_images=None, images=1000,
        manifold=Manifold(
            latent=128, widths=(64, 128, 256),
            plan=Plan(epochs=20, batch_size=128, learning_rate=1e-3, **ADAM), precision="auto",
        ),
        score=Score(
            widths=(64, 128, 256), plan=Plan(epochs=20, learning_rate=1e-3, average=0.999, **ADAM),
            precision="auto",
        ),
        measures=_measures(4), gallery=10,
    )  # fmt: skip


def _small(data: str) -> ExperimentSettings:
    """The paper's network with a third of its strengths, three seeds and a fast schedule."""
    base = _smoke(data)
    if data == "digits":
        return base.with_(repeats=3)
    sweeps = (
        Sweep(objective="gradient-norm", strengths=(0, *_logarithmic(-4, 2, 9))),
        Sweep(objective="smoothing", strengths=(0, *_logarithmic(-2, 1, 9))),
        Sweep(objective="pgd", strengths=(0, *_logarithmic(-1.5, 1.5, 9)), attack_steps=7),
        Sweep(objective="smoothness", strengths=(0, *_logarithmic(-3, 3, 9))),
    )
    flip = not data.startswith(("mnist", "svhn"))
    plan = Plan(epochs=30, learning_rate=0.1, crop=4, flip=flip)
    return base.with_(
        training=Training(architecture="resnet18", plan=plan, scale_rate=True), sweeps=sweeps, repeats=3,
        train_images=None, images=1000,
        manifold=Manifold(
            latent=128, widths=(128, 256, 512),
            plan=Plan(epochs=50, batch_size=128, learning_rate=1e-3, **ADAM),
        ),
        score=Score(widths=(96, 192, 256), plan=Plan(epochs=60, learning_rate=1e-3, average=0.999, **ADAM)),
        measures=_measures(8),
    )  # fmt: skip


def _paper(data: str) -> ExperimentSettings:
    """The paper's setting, from the recipe of the data set."""
    recipe = _recipe_of(data)
    sweeps = tuple(
        Sweep(objective=name, strengths=(0, *recipe.strengths[name]), attack_steps=recipe.attack_steps)
        for name in OBJECTIVES
        if name in recipe.strengths
    )
    training = Training(
        architecture=recipe.architecture, activation=recipe.activation, plan=recipe.plan,
        relative_step=recipe.relative_step, scale_rate=True,
    )  # fmt: skip
    return ExperimentSettings(
        data=data, repeats=10 if data == "cifar10" else 1, training=training, sweeps=sweeps,
        images=2000 if data == "cifar10" else 1000,
        manifold=Manifold(
            latent=128, widths=(128, 256, 512, 1024), decoder="pythae",
            plan=Plan(epochs=100, batch_size=100, learning_rate=1e-4, schedule="constant", **ADAM),
        ),
        score=Score(
            widths=(128, 256, 256), plan=Plan(epochs=200, learning_rate=1e-3, average=0.9999, **ADAM)
        ),
        measures=_measures(8, sigma=1.2 if data.startswith("imagenet") else 0.5), gallery=10,
    )  # fmt: skip


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


def _transfer(sweep: ExperimentSettings, scale: str) -> TransferSettings:
    """Networks at twice the size, trained like the sweep's, at radii whose accuracy lasts."""
    radii = next((s.strengths for s in sweep.sweeps if s.objective == "pgd"), (0.0,))
    plan = sweep.training.plan
    if scale in ("demo", "smoke"):
        plan = plan.model_copy(update={"epochs": max(1, plan.epochs * 2 // 3)})
    if scale == "paper":
        return TransferSettings(strengths=(0, 0.25, 0.5, 1, 3, 5), attack_steps=3, plan=plan)
    return TransferSettings(strengths=tuple(2 * radius for radius in radii[:4]), attack_steps=3, plan=plan)


def _distractor(sweep: ExperimentSettings, scale: str) -> DistractorSettings:
    """Digits beside a distractor: scikit-learn's where the data are these, else MNIST's, as in the paper."""
    if sweep.data == "digits":
        return DistractorSettings(
            data="digits", plan=Plan(epochs=12, learning_rate=0.1), radii=(0.3, 0.6, 1.2), attack_steps=5,
            images=297,
        )  # fmt: skip
    letters = (Variant(), Variant(distractor="AX"), Variant(distractor="AX", informative=1))
    plan = Plan(epochs=2, learning_rate=0.1)
    if scale in ("demo", "smoke"):
        return DistractorSettings(
            plan=plan, train_images=4000, attack_steps=3, images=300, radii=GENTLE_RADII, variants=letters
        )
    if scale in ("laptop", "small"):
        return DistractorSettings(
            plan=plan,
            radii=GENTLE_RADII,
            attack_steps=5,
            variant_images=10_000,
            directions=2,
            variants=letters,
        )
    recipe = read_recipe("mnist-distractor")
    return DistractorSettings(
        architecture=recipe.architecture, plan=recipe.plan, radii=recipe.radii,
        attack_steps=recipe.attack_steps, relative_step=recipe.relative_step, images=1000,
    )  # fmt: skip


def _generation(sweep: ExperimentSettings, scale: str) -> GenerateSettings:
    images = {"demo": 60, "smoke": 60, "laptop": 200, "small": 200, "paper": 500}[scale]
    return GenerateSettings(images=images, classes="predicted")


PARTS |= {"transfer": _transfer, "distractor": _distractor, "generation": _generation}


def _logarithmic(low: float, high: float, count: int) -> tuple[float, ...]:
    """`count` numbers from 10^low to 10^high, evenly spaced in their logarithm, to three digits."""
    return tuple(float(f"{10 ** (low + (high - low) * i / (count - 1)):.3g}") for i in range(count))
