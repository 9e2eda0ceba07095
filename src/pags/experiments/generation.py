"""Phenomenon 2 as numbers: what following the gradient of a model makes, beside what it makes of controls.

"Rudimentary generative capabilities" are a picture in the literature. Here they are shares and decibels with
intervals: an independent network says whether it recognises the target class, and restorations are compared
with the originals. Each number stands beside others: that of the start, that of the standard network and that
of the untrained one, all on the same problems.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from pags.classifiers.modes import correct
from pags.data.imageset import DataSet, ImageSet
from pags.errors import UsageError
from pags.experiments.cache import Cache, Columns, columns, identity
from pags.experiments.classifiers import Subject, network_of, trained
from pags.experiments.engines import Progress
from pags.experiments.experiment import Experiment
from pags.experiments.problems import GenerateSettings as GenerateSettings
from pags.experiments.problems import Problems, compared, set_problems, solve
from pags.measure.lpips import LPIPS
from pags.measure.statistics import mean_intervals
from pags.records import Record
from pags.seeds import generator
from pags.store import Store, fingerprint

RECORD, PANELS = "records/generate.json", "records/generate.safetensors"


@columns("generated", revision=2)
def generated(
    model: nn.Module, judge: nn.Module, train: ImageSet, test: ImageSet, settings: GenerateSettings, seed: int
) -> Columns:
    """What a model's gradients make of each problem, by task, and what is measured of it."""
    problems = set_problems(DataSet(train, test), settings, seed)
    made = Columns()
    for task in settings.tasks:
        made[task] = solve(task, model, problems, settings, lambda share: None).images
    return made | compared(made, problems, judge, LPIPS.load().to(test.pixels.device), settings)


@dataclass(frozen=True)
class Followed:
    """A model whose gradient is followed; controls are what the others are compared with."""

    subject: Subject
    control: bool = False

    @property
    def name(self) -> str:
        """As it is called in records."""
        return self.subject.name


def run_generate(
    models: Sequence[Followed],
    judge: Subject,
    data: DataSet,
    store: Store,
    settings: GenerateSettings,
    progress: Progress = lambda what, share: None,
    *,
    seed: int = 0,
    device: str = "cpu",
    resamples: int = 2000,
) -> Record:
    """Follow the gradients of several models on the same problems, and measure where they lead.

    Args:
        models: models and controls, of different names.
        judge: a classifier of the same classes that is none of them; it says what it sees in the results.
        data: its training images give the starts of synthesis, its test images what is restored.
        store: keeps each model's results, `RECORD` and `PANELS`; what it holds is not done again.
        settings: the problems.
        progress: called with what is being done.
        seed, device, resamples: as in `pags.experiments.settings.Common`.

    Returns:
        The record: for every model the mean of each column with its interval, its gain over the start, and
        how far it is above each control, paired by image. Gains are positive where the result is better.

    Raises:
        UsageError: settings that do not fit the images, models of one name.
        PagsError: something cannot be written; what was finished is kept.
    """
    names = [model.name for model in models]
    if len(set(names)) < len(names) or not names:
        raise UsageError("models of different names", got=names, suggestion="renaming one")
    problems = set_problems(data, settings, seed)
    cache, results = Cache(store, device), dict[str, Columns]()
    for place, model in enumerate(models):
        progress(f"following the gradient of {model.name}", place / len(models))
        results[model.name] = results_of(cache, model.subject, judge, data, settings, seed)
    sees = network_of(judge)
    started = compared(problems.starts, problems, sees, LPIPS.load().to(data.test.pixels.device), settings)
    means = _means(seed, resamples)
    found = {name: {k: v for k, v in each.items() if v.ndim == 1} for name, each in results.items()}
    record = {
        "settings": settings.model_dump(mode="json"),
        "data": {
            "name": data.name, "shape": list(data.test.shape), "classes": list(data.test.classes),
            "provenance": data.test.provenance,
        },
        "judge": {"digest": digest(judge), "accuracy": _accuracy(judge, data)},
        "starts": means(started),
        "models": [_entry(model, models, found, started, data, means) for model in models],
    }  # fmt: skip
    store.write_tensors(PANELS, _panels(problems, results, settings))
    store.write_record(RECORD, record)  # last: a record that is there says that everything is
    return record


def results_of(
    cache: Cache, subject: Subject, judge: Subject, data: DataSet, settings: GenerateSettings, seed: int
) -> Columns:
    """What one model's gradients make, and what is measured of it."""
    made = cache.made(
        generated, model=subject.network, judge=judge.network, train=data.train, test=data.test,
        settings=settings, seed=seed,
    )  # fmt: skip
    return {name: value.cpu() for name, value in made.value().items()}


def columns_for_claims(
    experiment: Experiment, settings: GenerateSettings, robust: Subject
) -> dict[str, Columns]:
    """Columns of a robust network, the standard one, the start, and a plain blur of the start."""
    data, seed, judge = experiment.data, experiment.settings.seed, independent_judge(experiment)
    models = {"robust": robust, "standard": experiment.model("cross-entropy", 0.0)}
    found = {
        name: results_of(experiment.cache, subject, judge, data, settings, seed)
        for name, subject in models.items()
    }
    problems, sees = set_problems(data, settings, seed), network_of(judge)
    blurred = {task: gaussian_blur(start, [3, 3]) for task, start in problems.starts.items()}
    lpips = LPIPS.load().to(data.test.pixels.device)
    for name, images in (("start", problems.starts), ("blur", blurred)):
        found[name] = compared(images, problems, sees, lpips, settings)
    return {name: {k: v for k, v in each.items() if v.ndim == 1} for name, each in found.items()}


def with_controls(experiment: Experiment, models: Iterable[Subject]) -> list[Followed]:
    """The untrained and the standard network, before the models that are to be judged."""
    standard = experiment.model("cross-entropy", 0.0)
    controls = [Followed(experiment.untrained(), control=True), Followed(standard, control=True)]
    return controls + [Followed(model) for model in models]


def along_sweep(experiment: Experiment, objective: str) -> list[Followed]:
    """The models of one sweep above strength 0, after the controls.

    Raises:
        UsageError: the settings have no sweep of this objective.
    """
    sweeps = {sweep.objective: sweep for sweep in experiment.sweeps}
    if objective not in sweeps:
        raise UsageError(
            f"a sweep among {', '.join(sweeps)}", got=repr(objective), suggestion=next(iter(sweeps))
        )
    robust = (experiment.model(objective, s) for s in sweeps[objective].strengths if s > 0)
    return with_controls(experiment, robust)


def independent_judge(experiment: Experiment) -> Subject:
    """A standard network of another seed, trained with the same plan and kept in the same store."""
    training = experiment.training("cross-entropy", 0.0)
    return trained(experiment.cache, experiment.data.train, training.with_(seed=training.seed + 1))


def digest(subject: Subject) -> str:
    """16 hex digits that say which model it is."""
    return fingerprint(identity(subject.network))


def _means(seed: int, resamples: int) -> Callable[[Columns], Record]:
    """The mean of each column with its interval; the same resampling for all models."""

    def means(columns: Columns) -> Record:
        draws = generator(seed, "generate", "means")
        return {
            n: v.to_record() for n, v in mean_intervals(columns, draws=draws, resamples=resamples).items()
        }

    return means


def _entry(
    model: Followed, models: Sequence[Followed], found: dict[str, Columns], started: Columns, data: DataSet,
    means: Callable[[Columns], Record],
) -> Record:  # fmt: skip
    own = found[model.name]
    others = [] if model.control else [other.name for other in models if other.control]
    return {
        "name": model.name,
        "control": model.control,
        "digest": digest(model.subject),
        "accuracy": _accuracy(model.subject, data),
        "means": means(own),
        "gain": means(_better(own, started)),
        "above": {other: means(_better(own, found[other])) for other in others},
    }


def _accuracy(subject: Subject, data: DataSet) -> float:
    return float(correct(network_of(subject), data.test.images, data.test.labels).mean())


def _better(a: Columns, b: Columns) -> Columns:
    """By how much a is better than b: higher, but for distances lower."""
    return {name: (b[name] - a[name]) if name.endswith("lpips") else (a[name] - b[name]) for name in b}


def _panels(problems: Problems, results: dict[str, Columns], settings: GenerateSettings) -> dict[str, Tensor]:
    """The first images of everything, for the figures."""
    some = slice(settings.shown)
    found = {"originals": problems.originals[some], "labels": problems.labels[some]}
    found |= {"targets": problems.targets[some], "masks": problems.masks[some].to(torch.uint8)}
    for task, start in problems.starts.items():
        found[f"start {task}"] = start[some]
        found |= {f"{name} {task}": result[task][some] for name, result in results.items()}
    return found
