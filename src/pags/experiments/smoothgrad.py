"""Phenomenon 3 along a sweep: how much SmoothGrad adds to the gradients of weak and of robust models.

SmoothGrad is the gradient of a randomised-smooth model. If robustness is what aligns gradients, it should
help where robustness is missing, and find nothing left to do where it is there.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from pags.auditing import EvaluationSet
from pags.auditing.evaluation import short_name
from pags.experiments.cache import Columns
from pags.experiments.engines import Progress
from pags.experiments.experiment import Experiment
from pags.experiments.settings import Sweep
from pags.measure.statistics import mean_intervals
from pags.records import Record
from pags.seeds import generator

RECORD = "records/smoothgrad-{objective}.json"
LEVELS = (0.05, 0.1, 0.2, 0.4)
"""Standard deviations of the noise, for images in [0, 1]; the usual advice is 10 to 20 % of the range."""
METRICS = ("lpips", "cosine")


def smooth_evaluation(experiment: Experiment, levels: Sequence[float], samples: int) -> EvaluationSet:
    """The experiment's images, on which plain and smoothed gradients of one target are measured."""
    return experiment.evaluation_of(
        experiment.data.test, tangent=None, targets=("logit",), metrics=METRICS,
        smooth_targets=("logit",), smooth_sigmas=tuple(levels), smooth_samples=samples,
    )  # fmt: skip


def smoothgrad_along(
    experiment: Experiment,
    sweep: Sweep,
    *,
    levels: Sequence[float] = LEVELS,
    samples: int = 32,
    progress: Progress = lambda what, share: None,
) -> Record:
    """Similarity with the score of plain and of smoothed gradients, for every strength of a sweep.

    The gradient is that of the logit of the class predicted for the clean image, the score that of the same
    class. Columns are `lpips logit`, `smooth LEVEL lpips logit`, and the same with the cosine.

    Args:
        experiment: models and score.
        sweep: which of its sweeps.
        levels: noise levels of SmoothGrad, above zero.
        samples: noisy copies per image.
        progress: called with what is being done.

    Returns:
        The record, also written as `RECORD`: one entry per strength with the mean of each column, and with
        the gain of each level over the plain gradient, paired by image; and, under "more at 0", by how much
        the gain at strength 0 is above that at each strength (above 0: SmoothGrad helps the weak model more).
    """
    evaluation, found = smooth_evaluation(experiment, levels, samples), list[Columns]()
    for place, strength in enumerate(sweep.strengths):
        progress(f"SmoothGrad of {sweep.objective} {strength:g}", place / len(sweep.strengths))
        found.append(experiment.columns(experiment.model(sweep.objective, strength), evaluation))
    gains = [gains_of(columns, levels) for columns in found]
    more = [{name: gains[0][name] - gain[name] for name in gain} for gain in gains]
    record = {
        "objective": short_name(sweep.objective),
        "levels": list(levels),
        "samples": samples,
        "strengths": [
            {
                "strength": strength, "means": _means(experiment, a),
                "gain": _means(experiment, b), "more at 0": _means(experiment, c),
            }
            for strength, a, b, c in zip(sweep.strengths, found, gains, more, strict=True)
        ],
    }  # fmt: skip
    experiment.store.write_record(RECORD.format(objective=record["objective"]), record)
    return record


def gains_of(columns: Mapping[str, Tensor], levels: Sequence[float]) -> Columns:
    """What each level adds to the plain gradient, per image: `METRIC LEVEL`."""
    return {
        f"{metric} {level:g}": columns[f"smooth {level:g} {metric} logit"] - columns[f"{metric} logit"]
        for metric in METRICS
        for level in levels
    }


def _means(experiment: Experiment, columns: Columns) -> Record:
    settings = experiment.settings
    draws = generator(settings.seed, "smoothgrad", "means")
    found = mean_intervals(columns, draws=draws, resamples=settings.resamples)
    return {name: value.to_record() for name, value in found.items()}
