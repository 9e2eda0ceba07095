"""How far the answer depends on the manifold: tangent spaces of other dimensions and of another estimator.

k is a choice (the paper's is 128 for 3,072 pixels), and so is the estimator. The spaces of a smaller k are
the leading directions of the larger one's, those of its largest singular values.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Int
from torch import Tensor

from pags.arrays import Basis, Images
from pags.auditing.evaluation import short_name
from pags.auditing.result import model_record
from pags.auditing.run import settings_of
from pags.experiments.cache import Lazy
from pags.experiments.engines import Progress
from pags.experiments.estimators import Estimators
from pags.experiments.experiment import Experiment
from pags.experiments.settings import Sweep
from pags.manifold.estimators import get_tangent
from pags.records import ModelRecord, Record

RECORD = "records/manifold.json"
IMAGES = 200
"""Images that are measured here, at most: every k needs tangent spaces of its own."""
SMALLEST = 8
OTHER = {"autoencoder": "local-pca"}
"""The estimator beside each; beside any other stands the autoencoder."""


@dataclass(frozen=True)
class Leading:
    """The k leading directions of an estimator's tangent spaces.

    Args:
        estimator: of at least k dimensions.
        k: dimension of the spaces.
    """

    estimator: Callable[[Images], tuple[Basis, Int[Tensor, "n"]]]
    k: int

    def __call__(self, images: Images) -> tuple[Basis, Int[Tensor, "n"]]:
        basis, ranks = self.estimator(images)
        return basis[:, :, : self.k], ranks.clamp_max(self.k)


def manifold_dependence(
    experiment: Experiment, sweep: Sweep, progress: Progress = lambda what, share: None
) -> Record:
    """off/on, rho1 and rho2 along a sweep for tangent spaces of several k, by two estimators.

    Args:
        experiment: models and images, of which the first `IMAGES` are measured.
        sweep: which of its sweeps.
        progress: called with what is being done.

    Returns:
        The record, also written as `RECORD`: by estimator, for each k the records of the sweep's models.
    """
    given, images = experiment.estimators, experiment.data.test.take(slice(0, IMAGES))
    names = (given.manifold.estimator, OTHER.get(given.manifold.estimator, "autoencoder"))
    dimensions = _doubling(given.latent)
    found: dict[str, list[list[ModelRecord]]] = {}
    for place, name in enumerate(names):
        estimator = _estimator(given, name)
        found[name] = []
        for turn, k in enumerate(dimensions):
            progress(f"{name}, k = {k}", (place + turn / len(dimensions)) / len(names))
            found[name].append(_along(experiment, sweep, images, Leading(estimator, k)))
    record = {
        "objective": short_name(sweep.objective), "strengths": list(sweep.strengths), "k": dimensions,
        "images": len(images), "pixels": images.images[0].numel(), "models": found,
        "titles": {name: get_tangent(name).title for name in names},
    }  # fmt: skip
    experiment.store.write_record(RECORD, record)
    return record


def _doubling(largest: int) -> list[int]:
    """8, 16, … and the largest."""
    return sorted({k for k in (SMALLEST * 2**turn for turn in range(12)) if k < largest} | {largest})


def _estimator(given: Estimators, name: str) -> Lazy[Any]:
    """The experiment's own estimator, or another one of the same dimension."""
    if name == given.manifold.estimator:
        return given.tangent
    asked = given.manifold.with_(estimator=name, file=None)
    return Estimators(given.cache, given.train, asked, given.score, given.seed).tangent


def _along(experiment: Experiment, sweep: Sweep, images: Any, tangent: Leading) -> list[ModelRecord]:
    """The records of a sweep's models on these tangent spaces."""
    evaluation = experiment.evaluation_of(
        images, tangent=tangent, denoiser=None, second=None, targets=("logit",), metrics=(), attacked=False,
        norms=(experiment.settings.measures.norm,),
    )  # fmt: skip
    records = []
    for strength in sweep.strengths:
        subject = experiment.model(sweep.objective, strength)
        columns = experiment.columns(subject, evaluation)
        found = model_record(
            subject.name, {}, settings_of(evaluation, control=False), [columns], lost=None,
            resamples=experiment.settings.resamples,
        )  # fmt: skip
        records.append(found)
    return records
