"""The main job, end to end: sweeps of robust trainings, manifold, score, measures, claims, records.

Everything that figures and report need ends up in two artefacts, `records/sweep.json` and
`records/gallery.safetensors`; both are functions of the settings alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pags.experiments.claims import CLAIMS, judge
from pags.experiments.config import Sweep, SweepConfig
from pags.experiments.recipes import REVISIONS, UNTRAINED
from pags.experiments.stages import TARGETS, Columns, Report, Stages
from pags.measure.regimes import regime
from pags.measure.statistics import Interval, interval, mean_intervals
from pags.seeds import generator
from pags.store import Record, Store, fingerprint

RECORD, GALLERY = "records/sweep.json", "records/gallery.safetensors"

Progress = Callable[[str, float], None]
"""Told what is being done and which share of the whole is finished."""


@dataclass(frozen=True)
class Job:
    """A part of the work, with its rough cost in seconds on two cores."""

    name: str
    cost: float
    run: Callable[[Report], object]


def run_sweeps(config: SweepConfig, store: Store, progress: Progress = lambda what, share: None) -> Record:
    """Train, measure and judge; what the store already holds is not done again.

    Args:
        config: the settings.
        store: where artefacts and records go.
        progress: told what is being done.

    Returns:
        The record: settings, reference lines, one entry a model, one entry a claim and sweep.

    Raises:
        PagsError: something cannot be written, or a training diverged; what was finished is kept.
    """
    key = fingerprint({"settings": config.model_dump(mode="json"), "revisions": REVISIONS})
    if store.has(RECORD) and (record := store.read_record(RECORD)).get("key") == key:
        return record
    stages = Stages(config, store)
    stages.check()
    jobs = list(_jobs(stages))
    total = sum(job.cost for job in jobs)
    done = 0.0
    for job in jobs:
        progress(job.name, done / total)
        job.run(lambda share, job=job, done=done: progress(job.name, (done + share * job.cost) / total))  # type: ignore[misc]
        done += job.cost
    progress("judging the claims", 1.0)
    if not store.has(GALLERY) or store.read_tensors(GALLERY)[1] != {"key": key}:
        store.write_tensors(GALLERY, gallery(stages), {"key": key})
    record = {"key": key} | summarise(stages)
    store.write_record(RECORD, record)  # last: a record that is there says that everything is
    return record


def models(config: SweepConfig) -> list[tuple[str, float]]:
    """The distinct models of an experiment: the untrained control, then every sweep's, strength 0 once."""
    found = [(UNTRAINED, 0.0), (config.sweeps[0].objective, 0.0)]
    return found + [(s.objective, value) for s in config.sweeps for value in s.strengths if value > 0]


def _jobs(stages: Stages) -> Iterator[Job]:
    config = stages.config
    yield Job("training the autoencoder", 5, lambda report: stages.autoencoder(report))
    yield Job("training the denoiser", 18, lambda report: stages.denoiser(report))
    yield Job("tangent spaces, scores and their lines", 4, lambda report: stages.lines())
    costs = {"pgd": 8.0, "gradient-norm": 6.0, "smoothness": 3.0}
    for objective, strength in models(config):
        what = f"{objective} {strength:g}" if strength else "no robustness"
        name = "measuring the untrained control" if objective == UNTRAINED else f"classifier: {what}"
        cost = 2 + (costs.get(objective, 1.5) if strength else 1.5)
        yield Job(name, cost, lambda report, o=objective, s=strength: stages.measures(o, s, report))  # type: ignore[misc]


def summarise(stages: Stages) -> Record:
    """The record of an experiment whose stages are done."""
    config = stages.config
    entries = [_model_entry(stages, objective, strength) for objective, strength in models(config)]
    claims = [
        record
        for sweep in config.sweeps
        for record in judge(
            CLAIMS, sweep.objective, _quantities(stages, sweep), seed=config.seed, resamples=config.resamples
        )
    ]
    return {
        "settings": config.model_dump(mode="json"),
        "data": {
            "name": stages.data.name,
            "train": len(stages.data.train),
            "test": len(stages.data.test),
            "shape": stages.data.test.shape,
            "provenance": stages.data.train.provenance,
        },
        "chance": {"rho2": 1 - stages.basis.shape[2] / stages.basis.shape[1], "k": stages.basis.shape[2]},
        "lines": _means(stages, stages.lines()),
        "models": entries,
        "claims": claims,
    }


def _quantities(stages: Stages, sweep: Sweep) -> dict[str, list[Tensor]]:
    columns = [stages.measures(sweep.objective, strength) for strength in sweep.strengths]
    norm = f"{stages.config.norm:g}"
    names = {
        "on": f"on {norm}",
        "off": f"off {norm}",
        "accuracy": "correct",
        "similarity": "similarity logit",
        "similarity_of_sum": "similarity sum-of-logits",
    }
    return {field: [c[name] for c in columns] for field, name in names.items()}


def _model_entry(stages: Stages, objective: str, strength: float) -> Record:
    columns = stages.measures(objective, strength)
    norm = f"{stages.config.norm:g}"
    off_over_on = _ratio(stages, columns, f"off {norm}", f"on {norm}")
    lost = _accuracy_lost(stages, objective, columns)
    return {
        "objective": objective,
        "strength": strength,
        "means": _means(stages, columns),
        "off/on": off_over_on.to_record(),
        "rho1": _ratio(stages, columns, "squared change off", "squared change").to_record(),
        "accuracy lost": lost.to_record(),
        "regime": "control" if objective == UNTRAINED else regime(off_over_on, lost),
    }


def _accuracy_lost(stages: Stages, objective: str, columns: Columns) -> Interval:
    """Points of accuracy below the best model of the sweep, paired by image."""
    sweep = next((s for s in stages.config.sweeps if s.objective == objective), stages.config.sweeps[0])
    others = [stages.measures(sweep.objective, strength)["correct"] for strength in sweep.strengths]
    best = max(others, key=lambda correct: float(correct.mean()))
    lost = {"lost": best - columns["correct"]}
    return mean_intervals(lost, draws=generator(stages.seed, "accuracy lost"))["lost"]


def _means(stages: Stages, columns: Columns) -> Record:
    """Every column's mean with its interval; the same resampling for every model."""
    found = mean_intervals(columns, draws=generator(stages.seed, "means"), resamples=stages.config.resamples)
    return {name: value.to_record() for name, value in found.items()}


def _ratio(stages: Stages, columns: Columns, above: str, below: str) -> Interval:
    table = torch.stack([columns[above], columns[below]], 1)
    draws = generator(stages.seed, "ratio", above, below)
    return interval(lambda means: means[:, 0] / means[:, 1], table, draws=draws)


def gallery(stages: Stages) -> Columns:
    """Some test images, one of each class in turn, their scores, and their gradients in every model."""
    test, chosen = stages.data.test, _chosen(stages)
    images, labels = test.images[chosen], test.labels[chosen]
    found = {"images": images, "labels": labels}
    found |= {f"score {name}": stages.scores[name][chosen] for name in ("unconditional", "conditional")}
    for objective, strength in models(stages.config):
        gradients = stages.gradients(objective, strength, images)
        columns = stages.measures(objective, strength)
        for target in TARGETS:
            found[f"gradient {objective} {strength:g} {target}"] = gradients[target]
            found[f"similarity {objective} {strength:g} {target}"] = columns[f"similarity {target}"][chosen]
    return found


def _chosen(stages: Stages) -> Tensor:
    """The first test image of class 0, of class 1, …, as many as the gallery shows."""
    labels = stages.data.test.labels
    classes = len(stages.data.test.classes)
    firsts = [int((labels == c % classes).nonzero()[c // classes, 0]) for c in range(stages.config.gallery)]
    return torch.tensor(firsts)
