"""The audit as a command: models, images, estimators, one evaluation set, and the records of it all.

It writes `audit.json` (means, intervals, comparisons) and `audit.safetensors` (one number per image for every
quantity, and the pictures of the gallery). What the store holds is not done again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import nn

from pags.auditing import Audit, EvaluationSet, compare
from pags.auditing.measures import Measures
from pags.auditing.run import audit
from pags.classifiers.untrained import untrained
from pags.data.imageset import ImageSet
from pags.data.resize import Size, size_of_side
from pags.data.sources import load_data
from pags.errors import PagsError, UsageError
from pags.experiments.cache import Cache, Columns, Lazy, columns
from pags.experiments.classifiers import Subject, loaded, network_of, unique_names
from pags.experiments.engines import Progress
from pags.experiments.estimators import FEW, Estimators, at_size, small_settings
from pags.experiments.settings import Common
from pags.measure.statistics import Interval
from pags.records import AuditRecord, Record, Result
from pags.store import Store

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
    gallery: NonNegativeInt = 4
    """Images of the best and of the worst aligned that are shown."""
    reference: Path | None = None
    """records/sweep.json of a pags demo on the same data, whose most accurate model is the reference."""


def run_audit(
    models: Sequence[str],
    settings: AuditSettings,
    store: Store,
    progress: Progress = lambda what, share: None,
) -> Result:
    """Audit each model on the same images, and compare them where there are several.

    Args:
        models: what `pags.load_classifier` takes.
        settings: the settings.
        store: where artefacts and records go.
        progress: called with what is being done.

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
    for place, (name, made) in enumerate(state.estimators.trainings):
        made.value(lambda share, name=name, place=place: progress(name, 0.2 * (place + share)))  # type: ignore[misc]
    found = {}
    for place, subject in enumerate(subjects):
        progress(f"measuring {subject.name}", 0.4 + 0.58 * place / len(subjects))
        found[subject.name] = state.audited(subject)
    progress("writing the records", 0.99)
    return _write(state, subjects, found, best)


@columns("audits", revision=2)
def audited(model: Any, evaluation: EvaluationSet, control: Any, gallery: int) -> Columns:
    """All columns of a model, and the pictures of the best and worst aligned images."""
    done = audit(model, evaluation, control=control, gallery=gallery)
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
        test = load_data(self.settings.data, folder=self.settings.data_folder).test
        few = self.settings.images < len(test)
        return (test.sample(self.settings.images, self.settings.seed) if few else test).to(
            self.settings.device
        )

    @cached_property
    def train(self) -> ImageSet:
        """The images that manifold and score are estimated from, before they are resized."""
        return load_data(
            self.settings.tangent_data or self.settings.data, folder=self.settings.data_folder
        ).train

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
        return Estimators(self.cache, data, manifold, score, asked.seed)

    @cached_property
    def evaluation(self) -> EvaluationSet:
        """The images with their tangent spaces and scores."""
        made = self.estimators
        return EvaluationSet.of(
            self.test, tangent=made.tangent, denoiser=made.denoiser, second=made.second, size=self.size,
            measures=self.measures, keep=self.cache.keep,
        )  # fmt: skip

    def check(self) -> None:
        """Raise for settings that some later step would refuse, before anything is trained."""
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
            found.append(with_control(subject, self.settings.seed))
        return found

    def normalisation(self) -> dict[str, Any]:
        """What is said of the models' normalisation, for `load_classifier`."""
        asked = self.settings
        if asked.normalise == "data":
            mean, std = self.train.statistics()
            return {"mean": mean, "std": std}
        return {"mean": asked.mean, "std": asked.std, "normalise": asked.normalise}

    def audited(self, subject: Subject) -> Audit:
        """The audit of one model, from the store where it is there."""
        from pags.auditing.run import settings_of

        made = self.cache.made(
            audited, model=subject.network, evaluation=self.evaluation, control=subject.control,
            gallery=self.settings.gallery,
        )  # fmt: skip
        tensors = {name: value.cpu() for name, value in made.value().items()}
        settings = settings_of(self.evaluation, subject.control is not None)
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


def _named(prefix: str, tensors: Columns) -> Columns:
    return {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}


def _write(
    state: Auditing, subjects: Sequence[Subject], found: dict[str, Audit], best: Interval | None
) -> Result:
    settings, test = state.settings, state.test
    record: AuditRecord = {
        "settings": settings.model_dump(mode="json"),
        "data": {
            "name": test.name, "train": len(state.train), "images": len(test), "shape": list(test.shape),
            "classes": list(test.classes), "provenance": test.provenance,
        },
        "estimators": state.estimators.about() | {"size": list(state.size), "sigma": state.measures.sigma},
        "models": [
            found[s.name].summary(name=s.name, about=s.about, resamples=settings.resamples, best=best)
            for s in subjects
        ],
        "pairs": compare(found, resamples=settings.resamples)["pairs"],
    }  # fmt: skip
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
