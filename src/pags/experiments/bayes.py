"""The line of the best possible classifier: p_σ(y | x) of the denoiser, measured as networks are (5)."""

from typing import Any

import torch

from pags.auditing import EvaluationSet
from pags.classifiers.modes import predict
from pags.experiments.cache import Columns, columns
from pags.experiments.engines import Progress
from pags.experiments.experiment import Experiment
from pags.measure.robustness import equal_norm
from pags.measure.statistics import interval, mean_intervals
from pags.records import Record
from pags.score.classifier import DenoisingClassifier
from pags.seeds import ImageDraws, generator

RECORD = "records/bayes.json"
SIGMAS = (0.2, 0.5, 1.0)
"""Noise levels, in EDM's unit: a lower one than the paper's, the paper's, and a higher one."""
IMAGES = 100
"""Images that are measured, at most: one look at an image takes hundreds of calls of the denoiser."""
DIRECTIONS = 2
LEVELS, DRAWS = 12, 1
"""Of the classifier's integral."""


@columns("measures")
def measures_of_bayes(evaluation: EvaluationSet, denoiser: Any, sigma: float) -> Columns:
    """Accuracy, and the change of the output on and off the manifold, of the denoiser's own classifier."""
    asked, found = evaluation.measures, list[Columns]()
    assert asked.norm is not None
    for part in evaluation.parts:
        data, basis = part.data, part.basis
        assert basis is not None
        model = DenoisingClassifier(
            denoiser, data.shape, len(data.classes), sigma, levels=LEVELS, draws=DRAWS, seed=asked.seed
        ).to(data.images.device)
        draws = ImageDraws(asked.seed, "directions", places=part.places.tolist())
        with torch.no_grad():
            changes = equal_norm(
                model, data.images, basis, (asked.norm,), size=evaluation.size, directions=asked.directions,
                change=asked.change, draws=draws,
            )  # fmt: skip
            right = predict(model, data.images).argmax(1) == data.labels
        found.append({"correct": right.to(data.images), "on": changes.on[0], "off": changes.off[0]})
    return {name: torch.cat([each[name].cpu() for each in found]) for name in ("correct", "on", "off")}


def bayes_line(experiment: Experiment, progress: Progress = lambda what, share: None) -> Record:
    """Accuracy and off/on of p_σ(y | x) at each of `SIGMAS`, and how large the output's changes are.

    Args:
        experiment: whose denoiser, tangent spaces and first `IMAGES` images are used.
        progress: called with what is being done.

    Returns:
        The record, also written as `RECORD`.

    Raises:
        UsageError: the denoiser knows no classes.
    """
    made, images = experiment.estimators, experiment.data.test.take(slice(0, IMAGES))
    evaluation = experiment.evaluation_of(
        images, denoiser=None, second=None, targets=("logit",), metrics=(), attacked=False,
        norms=(experiment.settings.measures.norm,), directions=DIRECTIONS,
    )  # fmt: skip
    levels = []
    for place, sigma in enumerate(SIGMAS):
        progress(f"the Bayes classifier at σ = {sigma:g}", place / len(SIGMAS))
        found = experiment.cache.made(
            measures_of_bayes, evaluation=evaluation, denoiser=made.denoiser, sigma=sigma
        ).value()
        draws = generator(experiment.settings.seed, "bayes line")
        resamples = experiment.settings.resamples
        means = mean_intervals(found, draws=draws, resamples=resamples)
        table = torch.stack([found["off"], found["on"]], 1).double()
        ratio = interval(lambda m: m[:, 0] / m[:, 1], table, draws=draws, resamples=resamples)
        levels.append(
            {"sigma": sigma, "off/on": ratio.to_record()}
            | {name: value.to_record() for name, value in means.items()}
        )
    record = {
        "norm": evaluation.measures.norm, "images": len(images), "directions": DIRECTIONS, "levels": levels
    }  # fmt: skip
    experiment.store.write_record(RECORD, record)
    return record
