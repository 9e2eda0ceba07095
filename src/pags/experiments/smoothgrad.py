"""Phenomenon 3 along a sweep: how much SmoothGrad adds to the gradients of weak and of robust models.

SmoothGrad is the gradient of a randomised-smooth model. If robustness is what aligns gradients, it should
help where robustness is missing, and find nothing left to do where it is there.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from pags.experiments.config import Sweep
from pags.experiments.stages import Stages
from pags.measure.gradients import input_gradient, smooth_gradient
from pags.measure.statistics import mean_intervals
from pags.seeds import generator
from pags.store import Record

RECORD = "records/smoothgrad-{objective}.json"
REVISION = 1
LEVELS = (0.05, 0.1, 0.2, 0.4)
"""Standard deviations of the noise, for images in [0, 1]; the usual advice is 10 to 20 % of the range."""


def smoothgrad_along(
    stages: Stages,
    sweep: Sweep,
    *,
    levels: Sequence[float] = LEVELS,
    samples: int = 32,
    progress: Callable[[str, float], None] = lambda what, share: None,
) -> Record:
    """Similarity with the score of plain and of smoothed gradients, for every strength of a sweep.

    The gradient is that of the logit of the class predicted for the clean image, the score that of the same
    class (as in the sweep's main measure). Per image: 1 − LPIPS and cosine; kept in the store by recipe.

    Args:
        stages: models, scores and references.
        sweep: which of its sweeps.
        levels: noise levels of SmoothGrad, above zero.
        samples: noisy copies an image.
        progress: told what is being done.

    Returns:
        The record, also written as `RECORD`: one entry a strength with the mean of each column, and with the
        gain of each level over the plain gradient, paired by image; and, under "more at 0", by how much
        the gain at strength 0 is above that at each strength (above 0: SmoothGrad helps the weak model more).
    """
    found = []
    for place, strength in enumerate(sweep.strengths):
        progress(f"SmoothGrad of {sweep.objective} {strength:g}", place / len(sweep.strengths))
        found.append(_columns(stages, sweep.objective, strength, levels, samples))
    gains = [_gains(columns, levels) for columns in found]
    more = [{name: gains[0][name] - gain[name] for name in gain} for gain in gains]
    record = {
        "objective": sweep.objective,
        "levels": list(levels),
        "samples": samples,
        "strengths": [
            {
                "strength": strength, "means": _means(stages, a),
                "gain": _means(stages, b), "more at 0": _means(stages, c),
            }
            for strength, a, b, c in zip(sweep.strengths, found, gains, more, strict=True)
        ],
    }  # fmt: skip
    stages.store.write_record(RECORD.format(objective=sweep.objective), record)
    return record


def _columns(
    stages: Stages, objective: str, strength: float, levels: Sequence[float], samples: int
) -> dict[str, Tensor]:
    """The columns of one model, from the store where it has them."""
    recipe = {
        "stage": ["smoothgrad", REVISION],
        "seed": stages.seed,
        "classifier": stages.recipes.classifier(objective, strength),
        "scores": stages.recipes.scores(),
        "upsample_to": stages.config.upsample_to,
        "levels": list(levels),
        "samples": samples,
    }
    compute = lambda: _compared(stages, objective, strength, levels, samples)  # noqa: E731
    return stages.workshop.computed("measures", recipe, compute)


def _compared(
    stages: Stages, objective: str, strength: float, levels: Sequence[float], samples: int
) -> dict[str, Tensor]:
    model, images = stages.classifier(objective, strength), stages.data.test.images
    reference = stages.references_for(model)["logit"]
    plain = input_gradient(model, images)
    columns = {"similarity 0": reference.similarity(plain), "cosine 0": reference.cosine(plain)}
    for level in levels:
        draws = generator(stages.seed, "smoothgrad")  # the same noise for every model and level
        smooth = smooth_gradient(model, images, sigma=level, samples=samples, draws=draws)
        columns[f"similarity {level:g}"] = reference.similarity(smooth)
        columns[f"cosine {level:g}"] = reference.cosine(smooth)
    return columns


def _gains(columns: dict[str, Tensor], levels: Sequence[float]) -> dict[str, Tensor]:
    """What each level adds to the plain gradient."""
    return {
        f"{kind} {level:g}": columns[f"{kind} {level:g}"] - columns[f"{kind} 0"]
        for kind in ("similarity", "cosine")
        for level in levels
    }


def _means(stages: Stages, columns: dict[str, Tensor]) -> Record:
    draws = generator(stages.seed, "smoothgrad", "means")
    found = mean_intervals(columns, draws=draws, resamples=stages.config.resamples)
    return {name: value.to_record() for name, value in found.items()}
