"""The main job, end to end: sweeps of robust trainings, manifold, score, measures, claims, records.

Everything that figures and report need ends up in two artefacts, `records/sweep.json` and
`records/gallery.safetensors`; both are functions of the settings alone.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pags.arrays import project
from pags.experiments.claims import CLAIMS, judge
from pags.experiments.config import Sweep, SweepConfig
from pags.experiments.engines import Job, Progress, run_jobs
from pags.experiments.recipes import REVISIONS, UNTRAINED
from pags.experiments.stages import TARGETS, Stages
from pags.experiments.workshop import Columns
from pags.measure.regimes import regime
from pags.measure.statistics import Interval, interval, mean_intervals
from pags.seeds import generator
from pags.store import Record, Store, fingerprint

RECORD, GALLERY = "records/sweep.json", "records/gallery.safetensors"


def run_sweeps(
    config: SweepConfig,
    store: Store,
    progress: Progress = lambda what, share: None,
    *,
    engine: str = "inline",
) -> Record:
    """Train, measure and judge; what the store already holds is not done again.

    Args:
        config: the settings.
        store: where artefacts and records go.
        progress: told what is being done.
        engine: where the jobs run, see `pags.experiments.engines`.

    Returns:
        The record: settings, reference lines, one entry a model, one entry a claim and sweep.

    Raises:
        PagsError: something cannot be written, or a training diverged; what was finished is kept.
    """
    key = fingerprint({"settings": config.model_dump(mode="json"), "revisions": REVISIONS})
    if store.has(RECORD) and store.has(GALLERY) and (record := store.read_record(RECORD)).get("key") == key:
        return record
    stages = Stages(config, store)
    stages.check()
    run_jobs(
        jobs(config), lambda: stages if engine == "inline" else Stages(config, store),
        engine=engine, device=config.device, progress=progress,
    )  # fmt: skip
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


def jobs(config: SweepConfig) -> list[Job[Stages]]:
    """The work of an experiment: what everything needs, then one job a model and repeat."""
    first = [
        Job[Stages]("training the autoencoder", 5, lambda stages, report: stages.autoencoder(report), True),
        Job[Stages]("training the denoiser", 18, lambda stages, report: stages.denoiser(report), True),
        Job[Stages]("tangent spaces, scores and their lines", 4, lambda stages, report: stages.lines(), True),
    ]
    repeats = range(config.repeats)
    return first + [_model_job(config, *model, repeat) for model in models(config) for repeat in repeats]


COSTS = {"pgd": 8.0, "gradient-norm": 6.0, "smoothness": 3.0}
"""Rough seconds of a training in the demo on two cores; 1.5 where nothing is said."""


def _model_job(config: SweepConfig, objective: str, strength: float, repeat: int) -> Job[Stages]:
    what = f"{objective} {strength:g}" if strength else "no robustness"
    name = "measuring the untrained control" if objective == UNTRAINED else f"classifier: {what}"
    name += f" ({repeat + 1} of {config.repeats})" if config.repeats > 1 else ""
    cost = 2 + (COSTS.get(objective, 1.5) if strength else 1.5)
    return Job(name, cost, lambda stages, report: stages.measures(objective, strength, report, repeat=repeat))


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


def _quantities(stages: Stages, sweep: Sweep) -> list[dict[str, list[Tensor]]]:
    """What the claims are about, for each repeat: per-image values at each strength."""
    norm = f"{stages.config.norm:g}"
    names = {
        "on": f"on {norm}",
        "off": f"off {norm}",
        "accuracy": "correct",
        "similarity": "similarity logit",
        "similarity_of_sum": "similarity sum-of-logits",
    }
    columns = [repeated(stages, sweep.objective, strength) for strength in sweep.strengths]
    return [
        {field: [at_strength[repeat][name] for at_strength in columns] for field, name in names.items()}
        for repeat in range(stages.config.repeats)
    ]


def repeated(stages: Stages, objective: str, strength: float) -> list[Columns]:
    """The measures of a model, one set of columns a repeat."""
    return [stages.measures(objective, strength, repeat=r) for r in range(stages.config.repeats)]


def _model_entry(stages: Stages, objective: str, strength: float) -> Record:
    columns = repeated(stages, objective, strength)
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
        "runs": [{name: _run_mean(each[name]) for name in each} for each in columns],
    }


def _run_mean(column: Tensor) -> float | None:
    """The mean over the images on which the quantity is defined; None where it is on none."""
    found = float(column.nanmean())
    return None if math.isnan(found) else found


def _accuracy_lost(stages: Stages, objective: str, columns: Sequence[Columns]) -> Interval:
    """Points of accuracy below the best model of the sweep, paired by image and repeat."""
    sweep = next((s for s in stages.config.sweeps if s.objective == objective), stages.config.sweeps[0])
    others = [repeated(stages, sweep.objective, strength) for strength in sweep.strengths]
    best = max(others, key=lambda model: sum(float(each["correct"].mean()) for each in model))
    lost = [{"lost": b["correct"] - own["correct"]} for b, own in zip(best, columns, strict=True)]
    return mean_intervals(lost, draws=generator(stages.seed, "accuracy lost"))["lost"]


def _means(stages: Stages, columns: Columns | Sequence[Columns]) -> Record:
    """Every column's mean with its interval; the same resampling for every model."""
    found = mean_intervals(columns, draws=generator(stages.seed, "means"), resamples=stages.config.resamples)
    return {name: value.to_record() for name, value in found.items()}


def _ratio(stages: Stages, columns: Sequence[Columns], above: str, below: str) -> Interval:
    tables = [torch.stack([each[above], each[below]], 1) for each in columns]
    draws = generator(stages.seed, "ratio", above, below)
    return interval(lambda means: means[:, 0] / means[:, 1], tables, draws=draws)


def gallery(stages: Stages) -> Columns:
    """Some test images, one of each class in turn, their scores, and their gradients in every model.

    Also the gradients' and scores' parts on the manifold, random directions with theirs, and what each of
    AlexNet's five layers contributes to the distance of gradient and score (B.10).
    """
    test, chosen = stages.data.test, _chosen(stages)
    images, labels, basis = test.images[chosen], test.labels[chosen], stages.basis[chosen]
    draws = generator(stages.seed, "gallery directions")
    directions = torch.randn((DIRECTIONS, *images.shape), generator=draws).to(images)
    found = {"images": images, "labels": labels, "directions": directions}
    found["directions on"] = torch.stack([project(direction, basis) for direction in directions])
    for name in TARGETS.values():
        found[f"score {name}"] = stages.scores[name][chosen]
        found[f"on score {name}"] = project(found[f"score {name}"], basis)
    for objective, strength in models(stages.config):
        model, columns = stages.classifier(objective, strength), stages.measures(objective, strength)
        gradients = stages.gradients(objective, strength, images)
        references = stages.references_for(model)
        for target in TARGETS:
            key = f"{objective} {strength:g} {target}"
            found[f"gradient {key}"] = gradients[target]
            found[f"on gradient {key}"] = project(gradients[target], basis)
            found[f"similarity {key}"] = columns[f"similarity {target}"][chosen]
            found[f"layers {key}"] = references[target].by_layer(gradients[target], chosen)
    return found


DIRECTIONS = 3
"""Random directions of each image in the gallery."""


def _chosen(stages: Stages) -> Tensor:
    """The first test image of class 0, of class 1, …, as many as the gallery shows."""
    labels = stages.data.test.labels
    classes = len(stages.data.test.classes)
    firsts = [int((labels == c % classes).nonzero()[c // classes, 0]) for c in range(stages.config.gallery)]
    return torch.tensor(firsts)
