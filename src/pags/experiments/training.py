"""One robust classifier from settings to files: trained, evaluated, and never twice."""

import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from pags.classifiers.about import recipe as network_recipe
from pags.classifiers.build import build_classifier
from pags.classifiers.modes import correct
from pags.data.imageset import DataSet, ImageSet
from pags.data.sources import load
from pags.experiments.engines import Progress
from pags.experiments.training_settings import Resolved, TrainSettings, data_folder, resolve
from pags.measure.statistics import mean_intervals
from pags.seeds import generator, seeded_construction
from pags.store import Record, Store, fingerprint
from pags.training.attack import PGD, robust_correct
from pags.training.fit import Report, fit
from pags.training.parallel import Tell, launch, make_fabric

REVISION = 1
"""Raised by whoever changes what a training computes."""

PATIENCE = 1800.0
"""Seconds for which processes wait for each other: the others do while the first takes the accuracies."""

CHUNK = 512
"""Test images attacked together; each chunk has draws of its own, so it is part of what is computed."""


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
        store: where the classifier (`classifiers/NAME-KEY.safetensors`, for `load_classifier`), the record
            (`records/train-NAME-KEY.json`) and the state of unfinished work are kept.
        progress: told a row for each epoch: "epoch", "epochs", "loss", "learning_rate", "seconds",
            "images_per_second", and "clean" and "adversarial", the accuracies where they were taken.
        on_share: told what is done, "training" or "measuring accuracies", and the share of both together
            that is finished, at the start and about once a second.

    Returns:
        The record: settings, plan, versions, device, epochs, and final accuracies with 95 % intervals;
        "files" names what was written.

    Raises:
        UsageError: the settings make no sense.
        TrainingDiverged: the loss is not finite.
    """
    resolved = resolve(settings)
    fabric = make_fabric(
        accelerator=settings.accelerator,
        devices=settings.devices,
        precision=settings.precision,
        patience=PATIENCE,
    )
    data = load(resolved.data, folder=data_folder(settings))
    build(resolved, data)
    names = file_names(resolved, data)
    if not store.has(names["record"]):
        launch(fabric, _work, settings, store, tell=lambda said: _heard(said, progress, on_share))
    return store.read_record(names["record"])


def _heard(said: Record | tuple[str, float], progress: Callable[[Record], None], on_share: Progress) -> None:
    """Hand on what the first process tells: a row an epoch, and shares between them."""
    if isinstance(said, tuple):
        on_share(*said)
    else:
        progress(said)


def training_share(resolved: Resolved, data: DataSet) -> float:
    """How much of the time goes into training, the rest being the last look at the accuracies; a guess.

    Counted in forward passes: a training step takes three, or six with a second derivative or two images for
    one, and a step of an attack takes two.
    """
    settings, clean = resolved.settings, resolved.settings.strength == 0
    each = 3 if clean or settings.objective in ("pgd", "smoothing") else 6
    attack = 2 * resolved.attack["attack_steps"] if settings.objective == "pgd" and not clean else 0
    training = resolved.plan.epochs * len(data.train) * (each + attack)
    evaluation = len(data.test) * (2 + 2 * settings.evaluate_steps * (settings.evaluate_radius > 0))
    return training / (training + evaluation)


def file_names(resolved: Resolved, data: DataSet) -> dict[str, str]:
    """Where the classifier, the record and the unfinished state of a training are, within a store."""
    recipe = {"train": REVISION, "data": [data.train.provenance, len(data.train)], **resolved.recipe()}
    key = fingerprint(recipe)
    whole = fingerprint({"recipe": recipe, "test": len(data.test), **resolved.evaluation()})
    return {
        "key": key,
        "classifier": f"classifiers/{resolved.name}-{key}.safetensors",
        "record": f"records/train-{resolved.name}-{whole}.json",
        "state": f"unfinished/{key}.safetensors",
        "epochs": f"unfinished/{key}.json",
    }


def build(resolved: Resolved, data: DataSet) -> nn.Module:
    """The classifier with its first weights."""
    mean, std = data.train.statistics()
    channels, height, width = data.train.shape
    with seeded_construction(resolved.settings.seed, "classifier"):
        return build_classifier(
            resolved.architecture, channels, len(data.train.classes),
            activation=resolved.activation, mean=mean, std=std, size=(height, width),
        )  # fmt: skip


def _work(fabric: Fabric, tell: Tell, settings: TrainSettings, store: Store) -> None:
    """What each process does; the first alone writes and evaluates."""
    resolved = resolve(settings)
    data = load(resolved.data, folder=data_folder(settings))
    names = file_names(resolved, data)
    if not store.has(names["classifier"]):
        _train(fabric, tell, resolved, data, store)
    if fabric.is_global_zero:
        _evaluate(fabric, tell, resolved, data, store)


def _train(fabric: Fabric, tell: Tell, resolved: Resolved, data: DataSet, store: Store) -> None:
    settings, names, model = resolved.settings, file_names(resolved, data), build(resolved, data)
    facts = network_recipe(model)
    slot, looked = store.slot(names["state"]), data.test.sample(min(settings.evaluate_images, len(data.test)))
    rows, whole = dict[int, Record](), training_share(resolved, data)
    if store.has(names["epochs"]) and slot.read() is not None:
        rows = {row["epoch"]: row for row in store.read_record(names["epochs"])["epochs"]}
    run = fit(
        model, resolved.objective(), data.train, resolved.plan, seed=settings.seed, slot=slot, fabric=fabric,
        fingerprint=names["key"], channels_last=settings.channels_last, compile=settings.compile,
        on_progress=lambda share: tell(("training", share * whole)),
    )  # fmt: skip
    for epoch in run:
        if not fabric.is_global_zero:
            continue
        row: Record = {**asdict(epoch), "clean": None, "adversarial": None}
        if settings.evaluate_every and epoch.epoch % settings.evaluate_every == 0:
            columns = accuracies(model, looked, settings, fabric.device)
            row |= {name: float(column.mean()) for name, column in columns.items()}
        rows[epoch.epoch] = row
        store.write_record(names["epochs"], {"epochs": [rows[number] for number in sorted(rows)]})
        tell(row)
    if fabric.is_global_zero:
        about = {
            "classifier": facts,
            "classes": list(data.train.classes),
            "data": resolved.data,
            "record": {**resolved.recipe(), **_made_by(fabric), "epochs": [rows[n] for n in sorted(rows)]},
        }
        store.write_tensors(names["classifier"], model.state_dict(), about)
        slot.clear()
        store.path(names["epochs"]).unlink(missing_ok=True)


def _evaluate(fabric: Fabric, tell: Tell, resolved: Resolved, data: DataSet, store: Store) -> None:
    """Write the record, with the accuracies of the stored weights on all test images."""
    settings, names, started = resolved.settings, file_names(resolved, data), time.monotonic()
    weights, about = store.read_tensors(names["classifier"])
    model = build(resolved, data)
    model.load_state_dict(weights)
    before = training_share(resolved, data)
    columns = accuracies(
        model.to(fabric.device), data.test, settings, fabric.device,
        on_progress=lambda share: tell(("measuring accuracies", before + share * (1 - before))),
    )  # fmt: skip
    intervals = mean_intervals(columns, draws=generator(settings.seed, "resampling"))
    made = about["record"]
    record = {
        "name": resolved.name,
        "recipe": settings.recipe,
        "data": resolved.data,
        "provenance": data.train.provenance,
        "images": {"train": len(data.train), "test": len(data.test)},
        "settings": settings.model_dump(mode="json"),
        **made,
        "accuracy": {
            name: {**interval.to_record(), "images": len(data.test)} for name, interval in intervals.items()
        },
        "attack": {"radius": settings.evaluate_radius, "steps": settings.evaluate_steps},
        "seconds": {
            "training": sum(row["seconds"] for row in made["epochs"]),
            "evaluation": time.monotonic() - started,
        },
        "files": [names["classifier"], names["record"]],
    }
    store.write_record(names["record"], record)


def accuracies(
    model: nn.Module,
    part: ImageSet,
    settings: TrainSettings,
    device: torch.device,
    *,
    on_progress: Report = lambda share: None,
) -> dict[str, Tensor]:
    """1 where the model names the label, else 0, for each image as it is and under l2-PGD."""
    attack = PGD(settings.evaluate_radius, steps=settings.evaluate_steps)
    clean, robust = [], []
    for start in range(0, len(part), CHUNK):
        on_progress(start / len(part))
        some = part.take(slice(start, start + CHUNK)).to(device)
        clean.append(correct(model, some.images, some.labels).cpu())
        draws = generator(settings.seed, "evaluation", start)
        robust.append(robust_correct(model, some.images, some.labels, attack, draws).cpu())
    return {"clean": torch.cat(clean), "adversarial": torch.cat(robust)}


def _made_by(fabric: Fabric) -> Record:
    """Machine and versions, for a record."""
    cuda = fabric.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(fabric.device) if cuda else "cpu",
        "processes": fabric.world_size,
        "versions": {
            "python": platform.python_version(),
            **{package: _version(package) for package in ("pags", "torch", "torchvision")},
        },
        "commit": _commit(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the package's source, where it is used from a repository that holds it."""
    folder = Path(__file__).parent

    def git(*words: str) -> Any:
        return subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")
        return git("rev-parse", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return None
