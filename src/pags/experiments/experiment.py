"""The sweeps of an experiment: models trained at rising strengths, all measured on one evaluation set.

Everything that figures and report need ends up in two artefacts, `records/sweep.json` and
`records/gallery.safetensors`; both are functions of the settings alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pags.arrays import project
from pags.auditing import EvaluationSet
from pags.auditing.columns import measured, pictures
from pags.auditing.evaluation import short_name
from pags.auditing.result import model_record
from pags.auditing.run import settings_of
from pags.classifiers.modes import predict
from pags.data.imageset import DataSet, ImageSet
from pags.data.sources import load_data
from pags.errors import PagsError, TrainingDiverged
from pags.experiments.cache import Cache, Columns, Made, Report, columns, identity
from pags.experiments.classifiers import (
    STANDARD,
    UNTRAINED,
    Subject,
    Training,
    network_of,
    trained,
    untrained_control,
)
from pags.experiments.engines import Progress, Task, one_thread, run_tasks
from pags.experiments.estimators import Estimators
from pags.experiments.plan import why_not
from pags.experiments.settings import ExperimentSettings, Sweep
from pags.measure.robustness import off_manifold_share
from pags.measure.statistics import Interval, mean_intervals
from pags.records import ModelRecord, Record, SweepLine, SweepRecord
from pags.score.denoiser import score_of
from pags.seeds import generator
from pags.store import Store, fingerprint
from pags.training.objectives import get_objective

RECORD, GALLERY = "records/sweep.json", "records/gallery.safetensors"
REVISION = 1
"""Raised by whoever changes what the records hold."""
DIRECTIONS = 3
"""Random directions of each image in the gallery."""
STAGES = {"estimator": 0, "train": 0, "prepare": 1, "measure": 2}
"""Of the kinds of tasks."""
SIGMAS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Noise levels, in EDM's unit, at which the score's share in the tangent space is taken."""


@columns("measures", revision=3)
def measures(
    model: Any, evaluation: EvaluationSet, control: Any = None, fitted: ImageSet | None = None
) -> Columns:
    """Everything that is measured of one classifier, one number per image; and how well it fits as many
    images of its training, as they are (without crops and flips: section 3.3, Argument 1)."""
    found = measured(model, evaluation, control=control)
    if fitted is not None:
        logits = predict(model, fitted.images)
        found["training loss"] = F.cross_entropy(logits, fitted.labels, reduction="none").cpu()
        found["training correct"] = (logits.argmax(1) == fitted.labels).to(logits).cpu()
    return found


@dataclass
class Experiment:
    """Images, estimators, evaluation set and models; each computed when first asked for, and kept.

    Args:
        settings: the settings.
        store: where artefacts and records go.
    """

    settings: ExperimentSettings
    store: Store

    @cached_property
    def cache(self) -> Cache:
        """Where networks and columns are kept."""
        return Cache(self.store, self.settings.device)

    @cached_property
    def data(self) -> DataSet:
        """Training images, and the images that are measured, on the experiment's device."""
        asked = self.settings
        whole = load_data(asked.data, folder=asked.data_folder)
        train, test = (
            part.sample(count, asked.seed) if count and count < len(part) else part
            for part, count in ((whole.train, asked.train_images), (whole.test, asked.images))
        )
        return DataSet(train.to(asked.device), test.to(asked.device))

    @cached_property
    def estimators(self) -> Estimators:
        """The manifold and the score."""
        asked = self.settings
        return Estimators(self.cache, self.data.train, asked.manifold, asked.score, asked.seed)

    @cached_property
    def evaluation(self) -> EvaluationSet:
        """The measured images with their tangent spaces and scores."""
        return self.evaluation_of(self.data.test)

    @cached_property
    def fitted(self) -> ImageSet | None:
        """As many training images as are measured; None where there are fewer."""
        train, count = self.data.train, len(self.data.test)
        return train.sample(count, self.settings.seed) if len(train) >= count else None

    def evaluation_of(self, images: ImageSet, **changes: Any) -> EvaluationSet:
        """Other images, or other measures, with the same estimators."""
        made = self.estimators
        given = {"tangent": made.tangent, "denoiser": made.denoiser, "second": made.second}
        base = self.settings.measures.with_(seed=self.settings.seed)
        return EvaluationSet.of(images, keep=self.cache.keep, measures=base, **(given | changes))

    def check(self) -> None:
        """Raise for settings that some later step would refuse, before any work is done."""
        for subject in self.subjects():
            self.training(*subject).make_objective()
        assert network_of(self.untrained())
        self.estimators.check(self.settings.measures.sigma)
        one = self.data.test.take(slice(0, 2))
        for metric in EvaluationSet.of(one, measures=self.settings.measures).metrics:
            metric.compare(one.images, one.images)  # images that are too small for LPIPS are refused here

    # Models -------------------------------------------------------------------------------------------------

    def subjects(self) -> list[tuple[str, float]]:
        """Objective and strength of each trained model: strength 0 once, then every sweep's."""
        sweeps = self.settings.sweeps
        return [("cross-entropy", 0.0)] + [(s.objective, v) for s in sweeps for v in s.strengths if v > 0]

    def made(self) -> list[tuple[str, float]]:
        """Those of them that the sweeps have: the others are missing."""
        return self.subjects()[:1] + [(s.objective, v) for s in self.sweeps for v in s.strengths if v > 0]

    def training(self, objective: str, strength: float, repeat: int = 0) -> Training:
        """How the model of an objective and strength is trained."""
        base = self.settings.training.with_(seed=self.settings.seed, objective=objective, strength=strength)
        steps = {s.objective: s.attack_steps for s in self.settings.sweeps}
        made = base.with_(attack_steps=steps.get(objective, base.attack_steps)).on(self.settings.device)
        return made.repeated(repeat)

    def model(self, objective: str, strength: float, repeat: int = 0) -> Subject:
        """The classifier trained with an objective at a strength."""
        return trained(self.cache, self.data.train, self.training(objective, strength, repeat))

    def untrained(self, repeat: int = 0) -> Subject:
        """The control: the untrained network of a repeat."""
        return untrained_control(self.cache, self.data.train, self.training("cross-entropy", 0.0, repeat))

    def measured(self, subject: Subject, evaluation: EvaluationSet | None = None) -> Made[Columns]:
        """The columns of one classifier, to be."""
        fitted = None if evaluation else self.fitted
        return self.cache.made(
            measures, model=subject.network, evaluation=evaluation or self.evaluation, fitted=fitted
        )

    def columns(self, subject: Subject, evaluation: EvaluationSet | None = None) -> Columns:
        """Everything that is measured of one classifier."""
        return self.measured(subject, evaluation).value()

    def runs(self, objective: str, strength: float) -> list[Columns]:
        """The columns of a model for each seed; of the untrained one, for each seed of its weights."""
        repeats = range(self.settings.repeats)
        if objective == UNTRAINED:
            return [self.columns(self.untrained(repeat)) for repeat in repeats]
        return [self.columns(self.model(objective, strength, repeat)) for repeat in repeats]

    # Tasks --------------------------------------------------------------------------------------------------

    def tasks(self) -> list[Task]:
        """The work: all trainings; then what all models are measured with; then measuring each."""
        found = [
            self._task(name, 9, "estimator", place)
            for place, (name, _) in enumerate(self.estimators.trainings)
        ]
        found += [
            self._task(
                f"{function.__name__.replace('_', ' ')}, {place + 1} of {len(self.prepared)}",
                1,
                "prepare",
                place,
            )
            for place, (function, _) in enumerate(self.prepared)
        ]
        for subject in ((UNTRAINED, 0.0), *self.subjects()):
            for repeat in range(self.settings.repeats):
                found += self._tasks_of(*subject, repeat)
        return found

    def _tasks_of(self, objective: str, strength: float, repeat: int) -> list[Task]:
        """Training and measuring one model."""
        name = f"{objective} {strength:g}" if strength else STANDARD
        name = objective if objective == UNTRAINED else name
        name += f" ({repeat + 1} of {self.settings.repeats})" if self.settings.repeats > 1 else ""
        which = (objective, strength, repeat)
        measuring = self._task(f"measuring {name}", 4, "measure", *which)
        if objective == UNTRAINED:
            return [measuring]
        steps = self.training(objective, strength).attack_steps if strength else 0
        cost = get_objective(objective).cost(steps)
        return [self._task(f"classifier: {name}", cost, "train", *which), measuring]

    def _task(self, name: str, cost: float, *what: Any) -> Task:
        return Task(name, cost, what, STAGES[what[0]], self.result(what).file)

    @cached_property
    def prepared(self) -> list[tuple[Callable[..., Columns], dict[str, Any]]]:
        """What all models are measured with, see `EvaluationSet.prepared`."""
        return self.evaluation.prepared()

    def result(self, what: tuple[Any, ...]) -> Made[Any]:
        """What a task makes."""
        kind, *which = what
        if kind == "estimator":
            return self.estimators.trainings[which[0]][1]
        if kind == "prepare":
            function, arguments = self.prepared[which[0]]
            return self.cache.kept(function, **arguments)
        subject = self.untrained(which[2]) if which[0] == UNTRAINED else self.model(*which)
        if kind == "measure":
            return self.measured(subject)
        assert isinstance(subject.network, Made)
        return subject.network

    def do(self, what: tuple[Any, ...], report: Report) -> None:
        """Do one task; that a robust training diverged is a result too, which `missing` tells."""
        try:
            self.result(what).ensure(report)
        except TrainingDiverged:
            if what[1] not in {sweep.objective for sweep in self.settings.sweeps} or not what[2]:
                raise  # all others are compared with it

    @cached_property
    def missing(self) -> list[Record]:
        """The models of sweeps whose training diverged, with the reason, once all tasks are done."""
        found = list[Record]()
        for objective, strength in self.subjects()[1:]:
            networks = [self.model(objective, strength, r).network for r in range(self.settings.repeats)]
            files = [made.file for made in networks if isinstance(made, Made)]
            if why := why_not(self.store.root, *files):
                found.append({"objective": short_name(objective), "strength": strength, "reason": why})
        return found

    @cached_property
    def sweeps(self) -> list[Sweep]:
        """The sweeps without the strengths that are missing.

        Raises:
            PagsError: none has three strengths left.
        """
        gone = {(entry["objective"], entry["strength"]) for entry in self.missing}
        found = list[Sweep]()
        for sweep in self.settings.sweeps:
            left = tuple(s for s in sweep.strengths if (short_name(sweep.objective), s) not in gone)
            found += [sweep.model_copy(update={"strengths": left})] if len(left) > 2 else []
        if not found:
            raise PagsError(
                "a sweep with three strengths whose trainings did not diverge",
                got="; ".join(f"{e['objective']} {e['strength']:g}: {e['reason']}" for e in self.missing),
                suggestion="smaller strengths or a lower learning rate",
            )
        return found

    # Records ------------------------------------------------------------------------------------------------

    def sweep_record(self, key: str) -> SweepRecord:
        """The record of an experiment whose tasks are done."""
        asked, data = self.settings, self.data
        basis = self.evaluation.parts[0].basis
        assert basis is not None
        record: SweepRecord = {
            "key": key,
            "settings": asked.model_dump(mode="json"),
            "data": {
                "name": data.name, "train": len(data.train), "images": len(data.test),
                "shape": list(data.test.shape), "classes": list(data.test.classes),
                "provenance": data.train.provenance,
            },
            "estimators": self.estimators.about(),
            "chance": {"rho2": 1 - basis.shape[2] / basis.shape[1], "k": basis.shape[2]},
            "sweeps": [line(sweep) for sweep in self.sweeps],
            "models": [self.model_record(UNTRAINED, 0.0), *(self.model_record(*s) for s in self.made())],
        }  # fmt: skip
        if self.missing:
            record["missing"] = self.missing
        return record

    def model_record(self, objective: str, strength: float) -> ModelRecord:
        """The record of one model over all seeds."""
        runs = self.runs(objective, strength)
        subject = self.untrained() if objective == UNTRAINED else self.model(objective, strength)
        record = model_record(
            subject.name, subject.about,
            settings_of(self.evaluation, control=True), runs, lost=self._accuracy_lost(objective, runs),
            resamples=self.settings.resamples,
        )  # fmt: skip
        record["objective"], record["strength"] = short_name(objective), strength
        if objective == UNTRAINED:
            record["regime"] = {
                "name": "control",
                "accuracy_lost": None,
                "rule": "an untrained network has none",
            }
        return record

    def _accuracy_lost(self, objective: str, runs: Sequence[Columns]) -> Interval:
        """Accuracy below the best model of the sweep, paired by image and seed."""
        sweep = next((s for s in self.sweeps if s.objective == objective), self.sweeps[0])
        others = [self.runs(sweep.objective, strength) for strength in sweep.strengths]
        best = max(others, key=lambda model: sum(float(each["correct"].mean()) for each in model))
        lost = [{"lost": b["correct"] - own["correct"]} for b, own in zip(best, runs, strict=True)]
        draws = generator(self.settings.seed, "accuracy lost")
        return mean_intervals(lost, draws=draws, resamples=self.settings.resamples)["lost"]

    @one_thread()  # which its last digits depend on
    def gallery(self) -> Columns:
        """Some test images, one of each class in turn; names in `pags.records.SweepRecord`."""
        chosen = first_of_each_class(self.data.test, self.settings.gallery)
        evaluation = self.evaluation_of(self.data.test, of_class="true")
        basis = torch.cat([part.basis for part in evaluation.part_of(chosen) if part.basis is not None])
        images = self.data.test.take(chosen.to(self.data.test.labels.device))
        draws = generator(self.settings.seed, "gallery directions")
        directions = torch.randn((DIRECTIONS, *images.images.shape), generator=draws).to(images.images)
        found = {
            "images": images.images, "labels": images.labels, "directions": directions,
            "directions on": torch.stack([project(direction, basis) for direction in directions]),
        }  # fmt: skip
        for subject in (self.untrained(), *(self.model(*one) for one in self.made())):
            network = network_of(subject)
            for target in evaluation.targets:
                found |= _named(pictures(network, evaluation, chosen, target), subject.name, target)
        return {name: value.cpu() for name, value in found.items()}

    def score_shares(self) -> Record:
        """Share of the score's energy off the manifold at each of `SIGMAS`, with its interval."""
        shares = {
            f"{sigma:g}": torch.cat(
                [
                    self.cache.made(
                        score_share, estimator=self.estimators.tangent, denoiser=self.estimators.denoiser,
                        images=part.small, sigma=sigma,
                    ).value()["share"].cpu()
                    for part in self.evaluation.parts
                ]
            )
            for sigma in SIGMAS
        }  # fmt: skip
        draws = generator(self.settings.seed, "score shares")
        found = mean_intervals(shares, draws=draws, resamples=self.settings.resamples)
        return {"sigmas": list(SIGMAS), "off": [found[f"{sigma:g}"].to_record() for sigma in SIGMAS]}


@columns("measures")
def score_share(estimator: Any, denoiser: Any, images: ImageSet, sigma: float) -> Columns:
    """The share of the energy of the score of all classes outside the tangent spaces, per image."""
    score = score_of(denoiser, images.images, sigma)
    return {"share": off_manifold_share(score, estimator(images.images)[0].to(score))}


def run_sweeps(
    settings: ExperimentSettings,
    store: Store,
    progress: Progress = lambda what, share: None,
    *,
    engine: str = "inline",
    **where: Any,
) -> SweepRecord:
    """Train and measure; what the store already holds is not done again.

    Args:
        settings: the settings.
        store: where artefacts and records go.
        progress: called with what is being done.
        engine, where: where the tasks run, see `pags.experiments.engines.run_tasks`.

    Returns:
        The record; the pictures are in `GALLERY`.

    Raises:
        PagsError: something cannot be written, or a training diverged that all models are compared with; what
            was finished is kept.
    """
    experiment = Experiment(settings, store)
    experiment.check()
    key = fingerprint(
        {"settings": identity(settings), "data": identity(experiment.data.test), "revision": REVISION}
    )
    if record := store.finished(RECORD, GALLERY, key):
        return record  # type: ignore[return-value]
    run_tasks(
        experiment.tasks(),
        (lambda: experiment) if engine == "inline" else partial(Experiment, settings, store),
        engine=engine, device=settings.device, progress=progress, store=store, run="sweeps", **where,
    )  # fmt: skip
    for entry in experiment.missing:
        progress(f"left out: {entry['objective']} {entry['strength']:g}, {entry['reason']}", 1.0)
    progress("writing the records", 1.0)
    store.write_tensors(GALLERY, experiment.gallery(), {"key": key})
    found = experiment.sweep_record(key)
    store.write_record(RECORD, found)  # last: a record that is there says that everything is
    return found


def line(sweep: Sweep) -> SweepLine:
    """A sweep with its words for people."""
    entry = get_objective(sweep.objective)
    return {
        "objective": short_name(sweep.objective), "strengths": list(sweep.strengths), "title": entry.title,
        "symbol": entry.symbol,
    }  # fmt: skip


def first_of_each_class(data: ImageSet, count: int) -> Tensor:
    """The places of the first image of class 0, of class 1, …, then of the second ones, `count` in all."""
    labels, found = data.labels.cpu(), list[int]()
    places = [(labels == c).nonzero()[:, 0].tolist() for c in range(len(data.classes))]
    for turn in range(max(map(len, places))):
        found += [own[turn] for own in places if turn < len(own)]
        if len(found) >= count:
            break
    return torch.tensor(found[:count])


def _named(shown: Columns, model: str, target: str) -> Columns:
    """The pictures of one model under the names of `pags.records.SweepRecord`."""
    of_score = {"score": f"score {target}", "on score": f"on score {target}"}
    left_out = {"image", "predicted"}
    return {of_score.get(n, f"{n} {model} {target}"): v for n, v in shown.items() if n not in left_out}
