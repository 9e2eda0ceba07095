"""`pags train`: one robust classifier from settings to files: trained, evaluated, and never twice."""

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from pags.classifiers.modes import correct
from pags.data.imageset import DataSet, ImageSet
from pags.data.sources import load_data
from pags.errors import UsageError
from pags.experiments.cache import Cache, Made, columns
from pags.experiments.classifiers import Training, blank_classifier, classifier, file_label
from pags.experiments.engines import Progress
from pags.experiments.made import made_by
from pags.experiments.settings import Common
from pags.measure.statistics import mean_intervals
from pags.records import Record
from pags.seeds import generator
from pags.store import Store, fingerprint
from pags.training.attack import PGD, robust_correct
from pags.training.fit import EpochRecord, Plan
from pags.training.objectives import get_objective
from pags.training.parallel import Tell, launch, make_fabric
from pags.training.recipes import Recipe, read_recipe, recipe_names

PATIENCE = 1800.0
"""Seconds for which processes wait for each other: the others do while the first takes the accuracies."""
CHUNK = 512
"""Test images attacked together; each chunk has draws of its own, so it is part of what is computed."""


class TrainSettings(Common):
    """What to train and how; None leaves the choice to the recipe."""

    data: str | None = None
    """Data set, see pags data list; also file.py:name; the recipe's unless said."""
    recipe: str | None = None
    """Settings of a known training, such as cifar10; those of the data's name unless said."""
    objective: str = "pgd"
    """What is minimised: pgd, gradient-norm, smoothing, … or file.py:name."""
    strength: NonNegativeFloat = 0.5
    """Strength of the objective, in its own unit: radius, noise or weight; 0 is standard training."""
    preset: Literal["ours", "paper", "release"] = "ours"
    """Whose reading of the paper, see docs/choices.md."""
    architecture: str | None = None
    """Network, such as small-resnet or resnet18; the recipe's unless said."""
    activation: str | None = None
    """Activation of the network, such as relu or gelu."""
    epochs: PositiveInt | None = None
    """Passes over the training images; the recipe's unless said."""
    batch_size: PositiveInt | None = None
    """Images per step, of all devices together."""
    learning_rate: PositiveFloat | None = None
    """Highest learning rate of the schedule."""
    clip_norm: PositiveFloat | None = None
    """Norm above which the gradient of the weights is clipped."""
    scale_rate: bool = True
    """Lower the learning rate for strong penalties, as in the paper's B.2."""
    attack_steps: PositiveInt | None = None
    """Steps of the attack of adversarial training; the recipe's unless said."""
    devices: PositiveInt = 1
    """Processes that share each batch, one per accelerator."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it is trained: cpu, cuda, or auto for what there is."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Precision of training; measuring is always in float32."""
    compile: bool = False
    """Compile the training step, which pays for long trainings."""
    channels_last: bool = True
    """Keep images with their channels last, which is faster."""
    evaluate_every: NonNegativeInt = 1
    """Epochs between accuracies; 0: none before the end."""
    evaluate_images: PositiveInt = 512
    """Test images of the accuracies between epochs; in the end all are taken."""
    evaluate_radius: NonNegativeFloat = 0.5
    """Radius of the l2 attack under which accuracy is measured."""
    evaluate_steps: PositiveInt = 20
    """Steps of that attack."""

    def resolved(self) -> tuple[str, Training]:
        """The data set, and the training with everything decided.

        Raises:
            UsageError: an unknown recipe or objective; neither data nor a recipe; options at odds.
        """
        name = self.recipe or (self.data if self.data in recipe_names() else None)
        recipe = read_recipe(name) if name else None
        if self.data is None and recipe is None:
            raise UsageError("data or a recipe to train on", got="neither", suggestion="--data digits")
        if self.compile and self.objective == "gradient-norm" and self.strength > 0:
            raise UsageError(
                "an objective without a second derivative, for --compile",
                got=self.objective,
                suggestion="leaving --compile out, or --objective pgd",
            )
        training = Training.of(
            {
                "architecture": self.architecture or (recipe.architecture if recipe else None),
                "activation": self.activation or (recipe.activation if recipe else None),
                "attack_steps": self.attack_steps or (recipe.attack_steps if recipe else None),
                "relative_step": recipe.relative_step if recipe else None,
                "smoothness_sigma": recipe.smoothness_sigma if recipe else None,
                "radii": recipe.radii if recipe and self.objective == "pgd" else None,
                "plan": self._plan(recipe),
                **{name: getattr(self, name) for name in _SHARED},
            }
        )
        training.make_objective()
        return self.data or (recipe.data if recipe else ""), training

    def _plan(self, recipe: Recipe | None) -> Plan:
        plan = recipe.plan if recipe else Plan(epochs=15, learning_rate=0.1)
        names = ("epochs", "batch_size", "learning_rate", "clip_norm")
        said = {name: value for name in names if (value := getattr(self, name)) is not None}
        # Of a run of another length, the milestones stand at the same shares of it.
        epochs = said.get("epochs", plan.epochs)
        milestones = tuple(max(1, round(m * epochs / plan.epochs)) for m in plan.milestones)
        return plan.model_copy(update={**said, "milestones": milestones})


_SHARED = (
    "objective", "strength", "preset", "scale_rate", "seed", "precision", "compile", "channels_last",
)  # fmt: skip
"""Fields of `TrainSettings` that `Training` has too."""


def train(
    settings: TrainSettings,
    store: Store,
    *,
    progress: Callable[[Record], None] = lambda row: None,
    on_share: Progress = lambda what, share: None,
) -> Record:
    """Train and evaluate one classifier; what is finished is read, what was interrupted continues.

    Args:
        settings: see `TrainSettings`.
        store: where the classifier (`classifiers/NAME-KEY.safetensors`, for `load_classifier`; the same file
            that a sweep with these settings has), the record (`records/train-NAME-KEY.json`) and the state of
            unfinished work are kept.
        progress: called with a row for each epoch: "epoch", "epochs", "loss", "learning_rate", "seconds",
            "images_per_second", and "clean" and "adversarial", the accuracies where they were taken.
        on_share: called with what is done, "training" or "measuring accuracies", and the fraction of both
            together that is completed, at the start and about once a second.

    Returns:
        The record: settings, plan, versions, device, epochs, and final accuracies with 95 % intervals;
        "files" names what was written.

    Raises:
        UsageError: the settings make no sense.
        TrainingDiverged: the loss is not finite.
    """
    fabric = make_fabric(
        accelerator=settings.accelerator,
        devices=settings.devices,
        precision=settings.precision,
        patience=PATIENCE,
    )
    state = _State(settings, store)
    blank_classifier(state.data.train, state.training)  # what cannot be built is said before processes start
    if not store.has(state.record):
        launch(fabric, _work, settings, store, tell=lambda said: _heard(said, progress, on_share))
    return store.read_record(state.record)


def _heard(said: Record | tuple[str, float], progress: Callable[[Record], None], on_share: Progress) -> None:
    """Hand on what the first process tells: a row for each epoch, and shares between them."""
    if isinstance(said, tuple):
        on_share(*said)
    else:
        progress(said)


class _State:
    """Data, training, and where its results are."""

    def __init__(self, settings: TrainSettings, store: Store, device: str = "cpu") -> None:
        self.settings, self.store = settings, store
        self.source, self.training = settings.resolved()
        self.data: DataSet = load_data(self.source, folder=settings.data_folder)
        self.name = file_label(self.data.train, self.training)
        cache = Cache(store, device)
        self.made: Made[nn.Module] = cache.made(classifier, train=self.data.train, training=self.training)
        self.accuracies = cache.made(
            accuracies, model=self.made, part=self.data.test, radius=settings.evaluate_radius,
            steps=settings.evaluate_steps, seed=settings.seed,
        )  # fmt: skip
        key = fingerprint([self.accuracies.identity, settings.evaluate_every, settings.evaluate_images])
        self.record = f"records/train-{self.name}-{key}.json"
        self.epochs = f"unfinished/{self.made.identity}.json"

    def share(self) -> float:
        """How much of the time goes into training, the rest being the accuracies at the end; a guess, counted
        in forward passes."""
        settings, training = self.settings, self.training
        cost = get_objective(training.objective if training.strength else "pgd").cost
        step = cost(training.attack_steps) if training.strength else 3.0
        whole = training.plan.epochs * len(self.data.train) * step
        evaluation = len(self.data.test) * (2 + 2 * settings.evaluate_steps * (settings.evaluate_radius > 0))
        return whole / (whole + evaluation)


def _work(fabric: Fabric, tell: Tell, settings: TrainSettings, store: Store) -> None:
    """What each process does; the first alone writes and evaluates."""
    state = _State(settings, store, fabric.device.type)
    if not state.made.is_there():
        _train(fabric, tell, state)
    if fabric.is_global_zero:
        _evaluate(fabric, tell, state)


def _train(fabric: Fabric, tell: Tell, state: _State) -> None:
    settings, store, rows = state.settings, state.store, dict[int, Record]()
    if store.has(state.epochs) and store.has(state.made.state):
        rows = {row["epoch"]: row for row in store.read_record(state.epochs)["epochs"]}
    looked, whole = state.data.test.sample(min(settings.evaluate_images, len(state.data.test))), state.share()
    facts: Record = {"data": state.source}

    def after_epoch(epoch: EpochRecord, network: nn.Module) -> None:
        if not fabric.is_global_zero:
            return
        row: Record = {**asdict(epoch), "clean": None, "adversarial": None}
        if settings.evaluate_every and epoch.epoch % settings.evaluate_every == 0:
            found = accuracies(
                network,
                looked.to(fabric.device),
                settings.evaluate_radius,
                settings.evaluate_steps,
                settings.seed,
            )
            row |= {name: float(column.mean()) for name, column in found.items()}
        rows[epoch.epoch] = row
        facts["record"] = {**made_by(fabric), "epochs": [rows[n] for n in sorted(rows)]}
        store.write_record(state.epochs, {"epochs": facts["record"]["epochs"]})
        tell(row)

    state.made.make(
        several=fabric,
        after_epoch=after_epoch,
        facts=facts,
        report=lambda share: tell(("training", share * whole)),
    )
    if fabric.is_global_zero:
        store.path(state.epochs).unlink(missing_ok=True)


def _evaluate(fabric: Fabric, tell: Tell, state: _State) -> None:
    """Write the record, with the accuracies of the kept weights on all test images."""
    settings, started, before = state.settings, time.monotonic(), state.share()
    tell(("measuring accuracies", before))
    found = {name: column.cpu() for name, column in state.accuracies.value().items()}
    intervals = mean_intervals(found, draws=generator(settings.seed, "resampling"))
    made = state.made.about().get("record") or {**made_by(fabric), "epochs": []}
    test = len(state.data.test)
    record = {
        "name": state.name,
        "recipe": settings.recipe,
        "data": state.source,
        "provenance": state.data.train.provenance,
        "images": {"train": len(state.data.train), "test": test},
        "settings": settings.model_dump(mode="json"),
        "training": state.training.model_dump(mode="json"),
        **made,
        "accuracy": {name: {**value.to_record(), "images": test} for name, value in intervals.items()},
        "attack": {"radius": settings.evaluate_radius, "steps": settings.evaluate_steps},
        "seconds": {
            "training": sum(row["seconds"] for row in made["epochs"]),
            "evaluation": time.monotonic() - started,
        },
        "files": [state.made.file, state.record],
    }
    state.store.write_record(state.record, record)


@columns("measures")
def accuracies(model: Any, part: ImageSet, radius: float, steps: int, seed: int) -> dict[str, Tensor]:
    """1 where the label is predicted, else 0, for each image as it is and under l2-PGD."""
    attack, clean, robust = PGD(radius, steps=steps), list[Tensor](), list[Tensor]()
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    for start in range(0, len(part), CHUNK):
        some = part.take(slice(start, start + CHUNK)).to(device)
        clean.append(correct(model, some.images, some.labels).cpu())
        draws = generator(seed, "evaluation", start)
        robust.append(robust_correct(model, some.images, some.labels, attack, draws).cpu())
    return {"clean": torch.cat(clean), "adversarial": torch.cat(robust)}
