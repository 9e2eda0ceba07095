"""Phenomenon 2 as numbers: what following the gradient of a model makes, beside what it makes of controls.

"Rudimentary generative capabilities" are a picture in the literature. Here they are shares and decibels with
intervals: an independent network says whether it sees the class that was aimed at, and restorations are
compared with the originals. Each number stands beside three others: that of the start, that of an unrobust
network and that of an untrained one, all on the same problems.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pags.arrays import Images
from pags.classifiers.about import weights_sha256
from pags.classifiers.modes import correct
from pags.data.imageset import DataSet
from pags.errors import UsageError
from pags.experiments.problems import Columns, Problems, compared, set_problems, solve
from pags.experiments.problems import GenerateSettings as GenerateSettings
from pags.experiments.recipes import UNTRAINED
from pags.experiments.stages import Stages
from pags.generate.follow import Report
from pags.measure.lpips import LPIPS
from pags.measure.statistics import mean_intervals
from pags.seeds import generator
from pags.store import Record, Store, fingerprint

RECORD, PANELS = "records/generate.json", "records/generate.safetensors"
REVISION = 1
"""Raised by whoever changes what a result is, so that older artefacts are not taken for it."""

Progress = Callable[[str, float], None]
"""Told what is being done and which share of the whole is finished."""


@dataclass(frozen=True)
class Subject:
    """A model whose gradient is followed; controls are what the others are compared with."""

    name: str
    model: nn.Module
    control: bool = False


def run_generate(
    subjects: Sequence[Subject],
    judge: nn.Module,
    data: DataSet,
    store: Store,
    settings: GenerateSettings | None = None,
    progress: Progress = lambda what, share: None,
) -> Record:
    """Follow the gradients of several models on the same problems, and measure where they lead.

    Args:
        subjects: models and controls, of different names.
        judge: a classifier of the same classes that is none of them; it says what it sees in the results.
        data: its training images give the seeds of synthesis, its test images what is restored.
        store: keeps each model's results, `RECORD` and `PANELS`; what it holds is not done again.
        settings: the problems.
        progress: told what is being done and the share that is finished.

    Returns:
        The record: for every model the mean of each column with its interval, its gain over the start, and
        how far it is above each control, paired by image. Gains are positive where the result is better.

    Raises:
        UsageError: settings that do not fit the images, subjects of one name.
        PagsError: something cannot be written; what was finished is kept.
    """
    settings = settings or GenerateSettings()
    names = [subject.name for subject in subjects]
    if len(set(names)) < len(names) or not names:
        raise UsageError("models of different names", got=names, suggestion="renaming one")
    bench = _Bench(judge, data, store, settings, set_problems(data, settings), LPIPS.load())
    results = {
        subject.name: bench.results(subject, _told(progress, subject.name, place, len(subjects)))
        for place, subject in enumerate(subjects)
    }
    started = bench.look(bench.problems.starts)
    columns = {name: {k: v for k, v in found.items() if v.ndim == 1} for name, found in results.items()}
    record = {
        "settings": settings.model_dump(mode="json"),
        "data": {
            "name": data.name,
            "shape": list(data.test.shape),
            "classes": list(data.test.classes),
            "provenance": data.test.provenance,
        },
        "judge": {"digest": digest(judge), "accuracy": _accuracy(judge, data)},
        "starts": bench.means(started),
        "models": [_entry(subject, subjects, bench, columns, started) for subject in subjects],
    }
    store.write_tensors(PANELS, _panels(bench.problems, results, settings))
    store.write_record(RECORD, record)  # last: a record that is there says that everything is
    return record


def with_controls(stages: Stages, subjects: Iterable[Subject]) -> list[Subject]:
    """The controls of a store, untrained and unrobust, before the models that are to be judged."""
    some = stages.config.sweeps[0].objective
    return [
        Subject(UNTRAINED, stages.classifier(UNTRAINED, 0.0), control=True),
        Subject("unrobust", stages.classifier(some, 0.0), control=True),
        *subjects,
    ]


def along_sweep(stages: Stages, objective: str) -> list[Subject]:
    """The models of one sweep above strength 0, after the controls.

    Raises:
        UsageError: the settings have no sweep of this objective.
    """
    sweeps = {sweep.objective: sweep for sweep in stages.config.sweeps}
    if objective not in sweeps:
        raise UsageError(
            f"a sweep among {', '.join(sweeps)}", got=repr(objective), suggestion=next(iter(sweeps))
        )
    return with_controls(
        stages,
        [
            Subject(f"{objective} {strength:g}", stages.classifier(objective, strength))
            for strength in sweeps[objective].strengths
            if strength > 0
        ],
    )


def independent_judge(stages: Stages) -> nn.Module:
    """An unrobust network of another seed, trained with the same plan and kept in the same store."""
    config = stages.config.model_copy(update={"seed": stages.config.seed + 1})
    return Stages(config, stages.store).classifier(config.sweeps[0].objective, 0.0)


def digest(model: nn.Module) -> str:
    """16 hex digits of a model's layers and weights."""
    return fingerprint({"layers": repr(model), "weights": weights_sha256(model.state_dict())})


@dataclass(frozen=True)
class _Bench:
    """The problems, and what every model is measured with."""

    judge: nn.Module
    data: DataSet
    store: Store
    settings: GenerateSettings
    problems: Problems
    lpips: LPIPS

    def results(self, subject: Subject, told: Report) -> dict[str, Tensor]:
        """One model's images and columns, from the store where it has them."""
        recipe = self._recipe(subject)
        name = f"generated/{fingerprint(recipe)}.safetensors"
        if not self.store.has(name):
            images = self._solved(subject.model, told)
            self.store.write_tensors(name, images | self.look(images), {"recipe": recipe})
        return self.store.read_tensors(name)[0]

    def look(self, images: dict[str, Images]) -> Columns:
        """What is measured of the images of each task."""
        return compared(images, self.problems, self.judge, self.lpips, self.settings)

    def means(self, columns: Columns) -> Record:
        """The mean of each column with its interval; the same resampling for all models."""
        draws = generator(self.settings.seed, "generate", "means")
        found = mean_intervals(columns, draws=draws, resamples=self.settings.resamples)
        return {name: value.to_record() for name, value in found.items()}

    def _solved(self, model: nn.Module, told: Report) -> dict[str, Images]:
        tasks = self.settings.tasks
        found: dict[str, Images] = {}
        for place, task in enumerate(tasks):

            def share(done: float, place: int = place) -> None:
                told((place + done) / len(tasks))

            found[task] = solve(task, model, self.problems, self.settings, share).images
        return found

    def _recipe(self, subject: Subject) -> Record:
        return {
            "stage": ["generate", REVISION],
            "settings": self.settings.model_dump(mode="json", exclude={"shown", "resamples", "batch_size"}),
            "data": [self.data.train.provenance, self.data.test.provenance],
            "judge": digest(self.judge),
            "model": digest(subject.model),
        }


def _entry(
    subject: Subject,
    subjects: Sequence[Subject],
    bench: _Bench,
    columns: dict[str, Columns],
    started: Columns,
) -> Record:
    own = columns[subject.name]
    others = [] if subject.control else [other.name for other in subjects if other.control]
    return {
        "name": subject.name,
        "control": subject.control,
        "digest": digest(subject.model),
        "accuracy": _accuracy(subject.model, bench.data),
        "means": bench.means(own),
        "gain": bench.means(_better(own, started)),
        "above": {other: bench.means(_better(own, columns[other])) for other in others},
    }


def _accuracy(model: nn.Module, data: DataSet) -> float:
    return float(correct(model, data.test.images, data.test.labels).mean())


def _better(a: Columns, b: Columns) -> Columns:
    """By how much a is better than b: higher, but for distances lower."""
    return {name: (b[name] - a[name]) if name.endswith("lpips") else (a[name] - b[name]) for name in b}


def _panels(
    problems: Problems, results: dict[str, dict[str, Tensor]], settings: GenerateSettings
) -> dict[str, Tensor]:
    """The first images of everything, for the figures."""
    some = slice(settings.shown)
    found = {"originals": problems.originals[some], "labels": problems.labels[some]}
    found |= {"targets": problems.targets[some], "masks": problems.masks[some].to(torch.uint8)}
    for task, start in problems.starts.items():
        found[f"start {task}"] = start[some]
        found |= {f"{name} {task}": result[task][some] for name, result in results.items()}
    return found


def _told(progress: Progress, name: str, place: int, of: int) -> Report:
    return lambda share: progress(f"following the gradient of {name}", (place + share) / of)
