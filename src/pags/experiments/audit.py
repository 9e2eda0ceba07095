"""The audit as a command: models, images, estimators, one evaluation set, and the records of it all.

It writes `audit.json` (means, intervals, comparisons) and `audit.safetensors` (one number per image for every
quantity, and the pictures of the gallery). What the store holds is not done again.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, field_validator
from torch import nn

from pags.auditing import Audit, EvaluationSet, compare
from pags.auditing.measures import Measures
from pags.auditing.run import audit
from pags.classifiers.load import load_classifier
from pags.classifiers.untrained import untrained
from pags.data.imageset import DataSet, ImageSet
from pags.data.resize import Size, size_of_side
from pags.data.sources import load_data
from pags.errors import PagsError, UsageError
from pags.experiments.cache import Cache, Columns, Lazy, columns
from pags.experiments.classifiers import Subject, loaded, network_of, unique_names
from pags.experiments.diagnosis import diagnosis
from pags.experiments.engines import Progress
from pags.experiments.estimators import FEW, Estimators, at_size, small_settings
from pags.experiments.made import made_now
from pags.experiments.settings import Common
from pags.measure.statistics import Interval
from pags.records import AuditRecord, Record, Result
from pags.store import Store, fingerprint
from pags.training.stronger_attacks import ATTACKS, find_attack

RECORD, TENSORS = "audit.json", "audit.safetensors"
LARGEST = 64
"""Pixels of the shorter side up to which score and tangent spaces are taken at the images' own size."""


class AuditSettings(Common):
    """What is audited, on which images, with which estimators."""

    data: str = "digits"
    """Data set whose test images are measured, see pags data list; also file.py:name."""
    images: PositiveInt = 256
    """Test images that are measured, a seeded, balanced sample."""
    architecture: str | None = None
    """Architecture of a file that does not name it, such as resnet18."""
    mean: tuple[float, ...] | None = None
    """Mean of each channel that the models expect to be taken off, for images in [0, 1]."""
    std: tuple[PositiveFloat, ...] | None = None
    """Standard deviation of each channel, likewise."""
    normalise: str | None = None
    """imagenet, cifar10, none, or data for the training images' own, instead of mean and std."""
    classes: PositiveInt | None = None
    """Classes of the models; those of the data unless said."""
    denoiser: str | None = None
    """Denoiser that gives the score: EDM's .pkl, .safetensors or file.py:name; trained here unless said."""
    second_denoiser: str | None = None
    """Denoiser for the ceiling; the same one at a nearby noise level unless said."""
    autoencoder: Path | None = None
    """Autoencoder whose decoder gives the tangent spaces; trained here unless said."""
    tangent: str = "autoencoder"
    """Estimator of tangent spaces: autoencoder, local-pca, denoiser or file.py:name."""
    tangent_data: str | None = None
    """Images from which manifold and score are estimated; the training images of the data unless said."""
    side: PositiveInt | None = None
    """Pixels of the shorter side for score and tangent spaces; unless said the images' own up to 64, above
    that 64, or 32 where an estimate is made of fewer than 1,000 images."""
    latent: PositiveInt | None = None
    """Dimension k of the tangent spaces; as many principal components as hold 90 % unless said."""
    measures: Measures | None = None
    """What is measured; sigma is 1.2 from 64 px unless said, as in the paper."""
    attacks: tuple[str, ...] = tuple(ATTACKS)
    """Attack of the robust accuracy; an image counts that is right under all. PGD alone is an upper bound."""
    quick: bool = False
    """Only what needs no training: accuracy, robust accuracy under PGD, frequency, gradients."""
    gallery: NonNegativeInt = 4
    """Images of the best and of the worst aligned that are shown."""
    reference: Path | None = None
    """records/sweep.json of a pags demo on the same data, whose most accurate model is the reference."""

    @field_validator("attacks")
    @classmethod
    def _are_attacks(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            find_attack(name)
        return names


def cache_folder() -> Path:
    """Where estimators are kept that serve every audit of the same data: PAGS_CACHE, or ~/.cache/pags."""
    return Path(os.environ.get("PAGS_CACHE") or Path.home() / ".cache" / "pags").expanduser()


def run_audit(
    models: Sequence[str],
    settings: AuditSettings,
    store: Store,
    progress: Progress = lambda what, share: None,
    *,
    command: str = "pags.run_audit(…)",
) -> Result:
    """Audit each model on the same images, and compare them where there are several.

    Args:
        models: what `pags.load_classifier` takes.
        settings: the settings.
        store: where artefacts and records go.
        progress: called with what is being done.
        command: what was said, for the page.

    Returns:
        The record, as written to `audit.json`, which prints, plots and tabulates itself.

    Raises:
        UsageError: the request makes no sense; as far as can be seen, before any work.
        PagsError: something cannot be read or written.
    """
    state = Auditing(settings, store)
    progress("looking at the models", 0.0)
    subjects, best = state.subjects(models), best_of_sweep(settings)
    state.check()
    for place, (name, made) in enumerate([] if settings.quick else state.estimators.trainings):
        made.value(lambda share, name=name, place=place: progress(name, 0.2 * (place + share)))  # type: ignore[misc]
    found = {}
    for place, subject in enumerate(subjects):
        progress(f"measuring {subject.name}", 0.4 + 0.58 * place / len(subjects))
        found[subject.name] = state.audited(subject)
    progress("writing the records", 0.99)
    return _write(state, subjects, found, best, command)


@columns("audits", revision=2)
def audited(
    model: Any, evaluation: EvaluationSet, control: Any, gallery: int, attacks: Sequence[str]
) -> Columns:
    """All columns of a model, and the pictures of the best and worst aligned images."""
    done = audit(model, evaluation, control=control, gallery=gallery, attacks=attacks)
    return {f"column {n}": v for n, v in done.columns.items()} | {
        f"panel {n}": v for n, v in done.panels.items()
    }


@dataclass
class Auditing:
    """The state of an audit.

    Args:
        settings: the settings.
        store: where artefacts and records go.
    """

    settings: AuditSettings
    store: Store

    @cached_property
    def cache(self) -> Cache:
        """Where networks and columns are kept."""
        return Cache(self.store, self.settings.device)

    @cached_property
    def test(self) -> ImageSet:
        """The images of the audit."""
        if self.settings.images < 2:
            raise UsageError("two images or more", got=self.settings.images, suggestion="--images 256")
        test = self._data(self.settings.data).test
        if self._apart:
            test = _whole(self._data(self.settings.data)) or test
        few = self.settings.images < len(test)
        return (test.sample(self.settings.images, self.settings.seed) if few else test).to(
            self.settings.device
        )

    @cached_property
    def train(self) -> ImageSet:
        """The images that manifold and score are estimated from, before they are resized."""
        data = self._data(self.settings.tangent_data or self.settings.data)
        return (_whole(data) if self._apart else None) or data.train

    @property
    def _apart(self) -> bool:
        """Whether images to measure and images to estimate from are different sets, so that one without a
        test part of its own needs no cut."""
        return self.settings.tangent_data not in (None, self.settings.data)

    def _data(self, spec: str) -> DataSet:
        return load_data(spec, folder=self.settings.data_folder)

    @cached_property
    def size(self) -> Size:
        """Height and width for the score and the tangent spaces."""
        asked, side = self.settings, self.settings.side
        if side is None and min(self.test.shape[1:]) > LARGEST:
            given = asked.denoiser is not None or asked.autoencoder is not None
            side = LARGEST if given or len(self.train) >= FEW else LARGEST // 2
        return size_of_side(self.test.shape, side)

    @cached_property
    def measures(self) -> Measures:
        """What is measured."""
        given = self.settings.measures or Measures()
        if self.settings.quick:
            given = given.with_(targets=given.targets[:1], smooth_targets=(), smooth_sigmas=())
        if "sigma" not in given.model_fields_set and min(self.size) >= LARGEST:
            given = given.with_(sigma=1.2)
        return given.with_(seed=self.settings.seed)

    @cached_property
    def estimators(self) -> Estimators:
        """The manifold and the score, at their size."""
        asked = self.settings
        data = at_size(self.train, size_of_side(self.train.shape, min(self.size)), asked.seed).to(
            asked.device
        )
        wanted = (self.test.shape[0], *self.size)
        if data.shape != wanted:
            raise UsageError(
                f"images of shape {wanted} for the manifold and the score",
                got=f"{data.shape} from {data.name}",
                suggestion="--tangent-data of the same channels and proportions",
            )
        manifold, score = small_settings(data, asked.latent)
        manifold = manifold.with_(file=asked.autoencoder, estimator=asked.tangent)
        score = score.with_(file=asked.denoiser, second_file=asked.second_denoiser)
        kept = Cache(Store(cache_folder()), asked.device)  # for every audit of the same images
        return Estimators(kept, data, manifold, score, asked.seed)

    @cached_property
    def evaluation(self) -> EvaluationSet:
        """The images with their tangent spaces and scores."""
        if self.settings.quick:
            return EvaluationSet.of(self.test, measures=self.measures, keep=self.cache.keep)
        made = self.estimators
        return EvaluationSet.of(
            self.test, tangent=made.tangent, denoiser=made.denoiser, second=made.second, size=self.size,
            measures=self.measures, keep=self.cache.keep,
        )  # fmt: skip

    def check(self) -> None:
        """Raise for settings that some later step would refuse, before anything is trained."""
        if not self.settings.quick:
            self.estimators.check(self.measures.sigma)
        one = self.test.take(slice(0, 2))
        for metric in EvaluationSet.of(one, measures=self.measures).metrics:
            metric.compare(one.images, one.images)  # images that are too small for LPIPS are refused here

    def subjects(self, specs: Sequence[str]) -> list[Subject]:
        """The models, loaded and tried, with their untrained controls."""
        found = []
        for spec, name in zip(specs, unique_names(list(specs)), strict=True):
            asked = self.settings
            subject = loaded(
                spec, self.test, device=asked.device, name=name, architecture=asked.architecture,
                classes=asked.classes, **self.normalisation(),
            )  # fmt: skip
            about = subject.about | {"diagnosis": self._diagnosis(subject, spec)}
            found.append(with_control(replace(subject, about=about), self.settings.seed))
        return found

    def _diagnosis(self, subject: Subject, spec: str) -> Record | None:
        """What would make a model that is at chance work."""
        test, asked = self.test, self.settings
        size, classes = (test.shape[1], test.shape[2]), asked.classes or len(test.classes)
        options: dict[str, Any] = {"architecture": asked.architecture, "channels": test.shape[0]}

        def load(each: str) -> nn.Module:
            if each == spec:
                return network_of(subject)
            return load_classifier(each, classes=classes, size=size, **options)

        return diagnosis(spec, load, test, self.train.statistics())

    def normalisation(self) -> dict[str, Any]:
        """What is said of the models' normalisation, for `load_classifier`."""
        asked = self.settings
        if asked.normalise == "data":
            mean, std = self.train.statistics()
            return {"mean": mean, "std": std}
        return {"mean": asked.mean, "std": asked.std, "normalise": asked.normalise}

    @property
    def attacks(self) -> list[str]:
        """The attacks of the robust accuracy."""
        return ["pgd"] if self.settings.quick else list(self.settings.attacks)

    def audited(self, subject: Subject) -> Audit:
        """The audit of one model, from the store where it is there."""
        from pags.auditing.run import settings_of

        made = self.cache.made(
            audited, model=subject.network, evaluation=self.evaluation, control=subject.control,
            gallery=self.settings.gallery, attacks=self.attacks,
        )  # fmt: skip
        tensors = {name: value.cpu() for name, value in made.value().items()}
        settings = settings_of(self.evaluation, subject.control is not None, self.attacks)
        return Audit(_named("column ", tensors), _named("panel ", tensors), settings)


def with_control(subject: Subject, seed: int) -> Subject:
    """A subject with its untrained control; where none can be had, the reason stands in its record."""
    network = network_of(subject)
    try:
        control = untrained(network, seed)
    except PagsError as error:
        return Subject(subject.name, subject.network, subject.about | {"no control": str(error)})
    identity = ["untrained", subject.network, seed]
    return Subject(subject.name, subject.network, subject.about, Lazy[nn.Module](identity, lambda: control))


def best_of_sweep(settings: AuditSettings) -> Interval | None:
    """Accuracy of the most accurate model of the reference sweep."""
    if settings.reference is None:
        return None
    record = Store(settings.reference.parent).read_record(settings.reference.name)
    try:
        same, found = record["data"]["name"], [m["means"]["correct"] for m in record["models"]]
        best = Interval(**max(found, key=lambda mean: float(mean["estimate"])))
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            "the record of a sweep", got=settings.reference, suggestion="records/sweep.json of a pags demo"
        ) from error
    if same != load_data(settings.data, folder=settings.data_folder).name:
        raise UsageError(f"a sweep on {settings.data}", got=f"one on {same}", suggestion="no --reference")
    return best


def _whole(data: DataSet) -> ImageSet | None:
    """All images of a set that was cut in two only because it has no test part of its own; else None."""
    first, second = data.train, data.test
    if "split" not in first.provenance or first.masks is not None:
        return None
    pixels, labels = torch.cat([first.pixels, second.pixels]), torch.cat([first.labels, second.labels])
    about = {name: value for name, value in first.provenance.items() if name != "split"}
    return replace(first, pixels=pixels, labels=labels, provenance=about)


PAGE = (RECORD, TENSORS, "report.html", "figures")


def set_aside(store: Store, record: AuditRecord) -> Path | None:
    """Move the page of another audit, which stands where this one's goes, into a folder of its own.

    Args:
        store: of this audit.
        record: of this audit.

    Returns:
        The folder `earlier/KEY`; None where there was no audit, or this one.
    """
    if not store.has(RECORD) or _subject(old := store.read_record(RECORD)) == _subject(record):
        return None
    aside = store.root / "earlier" / fingerprint(_subject(old))
    aside.mkdir(parents=True, exist_ok=True)
    for name in PAGE:
        if store.path(name).exists() and not (aside / name).exists():
            store.path(name).rename(aside / name)
    return aside


def _subject(record: Any) -> Record:
    """What an audit is of."""
    models = [[model["name"], model["about"].get("sha256")] for model in record["models"]]
    return {"settings": record["settings"], "data": record["data"]["provenance"], "models": models}


def _named(prefix: str, tensors: Columns) -> Columns:
    return {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}


def _write(
    state: Auditing, subjects: Sequence[Subject], found: dict[str, Audit], best: Interval | None, command: str
) -> Result:
    settings, test = state.settings, state.test
    record: AuditRecord = {
        "settings": settings.model_dump(mode="json"),
        "data": {
            "name": test.name, "train": len(state.train), "images": len(test), "shape": list(test.shape),
            "classes": list(test.classes), "provenance": test.provenance,
        },
        "estimators": ({} if settings.quick else state.estimators.about())
        | {"size": list(state.evaluation.size), "sigma": state.measures.sigma},
        "models": [
            found[s.name].summary(name=s.name, about=s.about, resamples=settings.resamples, best=best)
            for s in subjects
        ],
        "pairs": compare(found, resamples=settings.resamples)["pairs"],
        "made": made_now(command),
    }  # fmt: skip
    set_aside(state.store, record)
    write_audit(state.store, record, tensors_of([found[subject.name] for subject in subjects]))
    return Result(cast(Record, record), state.store.root)


def tensors_of(found: Sequence[Audit]) -> Columns:
    """Columns and pictures of several models as `audit.safetensors` names them."""
    return {
        f"{place}/{kind}/{name}": value
        for place, each in enumerate(found)
        for kind, group in (("column", each.columns), ("panel", each.panels))
        for name, value in group.items()
    }


def write_audit(store: Store, record: AuditRecord, tensors: Columns) -> list[Path]:
    """Write `audit.safetensors`, then `audit.json`."""
    names: Record = {
        "models": [each["name"] for each in record["models"]],
        "classes": record["data"]["classes"],
    }
    return [store.write_tensors(TENSORS, tensors, names), store.write_record(RECORD, cast(Record, record))]
