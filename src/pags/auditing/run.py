"""`pags.audit`: all measures of one classifier on an evaluation set."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pags.arrays import Images, Labels
from pags.auditing.columns import measured, pictures, under_further_attacks
from pags.auditing.evaluation import Columns, EvaluationSet
from pags.auditing.result import Audit
from pags.classifiers.check import check_classifier
from pags.data.imageset import ImageSet
from pags.measure.gradients import ALL
from pags.records import Record
from pags.training.attack import PGD
from pags.training.stronger_attacks import find_attack


def audit(
    classifier: Callable[..., Any],
    images: EvaluationSet | ImageSet | Images,
    labels: Labels | None = None,
    *,
    control: nn.Module | None = None,
    gallery: int = 6,
    attacks: Sequence[str] = ("pgd",),
    progress: Callable[[float], None] = lambda share: None,
    **options: Any,
) -> Audit:
    """Accuracy, on- and off-manifold robustness, rho1, rho2, and alignment with the score, image by image.

    Every image has draws of its own, so that, but for shuffled pairs, a number does not depend on the other
    images. To measure several classifiers, make one `EvaluationSet` and hand it to each call.

    Args:
        classifier: images to logits (or a tuple, dict or object that holds them), its normalisation inside;
            seen in evaluation mode, left as it was.
        images: an `EvaluationSet`; or images (n, c, h, w) in [0, 1] with `labels`, or an `ImageSet`.
        labels: (n,) true classes, for plain images.
        control: the same network untrained, whose gradients are those of random features.
        gallery: how many of the best and of the worst aligned images are kept as pictures.
        attacks: under which robust accuracy is taken, beside PGD: names of `stronger_attacks.ATTACKS`.
        progress: called with the fraction completed.
        options: `tangent`, `denoiser`, … as in `EvaluationSet.of`, and the fields of `Measures`.

    Returns:
        An `Audit`; columns that could not be measured are left out, and `settings["missing"]` says why.

    Raises:
        UsageError: what was given does not fit together, before any work where that can be seen.
    """
    evaluation = images if isinstance(images, EvaluationSet) else EvaluationSet.of(images, labels, **options)
    model = check_classifier(classifier, evaluation.data.images)
    further = [name for name in attacks if find_attack(name) is not PGD]
    columns = measured(model, evaluation, control=control, report=lambda share: progress(0.95 * share))
    if further:
        columns |= under_further_attacks(model, evaluation, columns, further)
    panels = _panels(model, evaluation, columns, gallery)
    progress(1.0)
    return Audit(columns, panels, settings_of(evaluation, control is not None, ["pgd", *further]))


def ranked_by(evaluation: EvaluationSet, columns: Columns) -> str:
    """The column by which images are called well or badly aligned."""
    first = next(iter(evaluation.targets))
    wanted = [f"{metric.name} {first}" for metric in evaluation.metrics[:1]] + [f"rho2 {first}", "confidence"]
    return next(name for name in wanted if name in columns)


def settings_of(evaluation: EvaluationSet, control: bool, attacks: Sequence[str] = ("pgd",)) -> Record:
    """What was measured, what each target was compared with, and what could not be measured."""
    measures = evaluation.measures
    kinds = {name: evaluation.kind(target.which) for name, target in evaluation.targets.items()}
    compared = {target: kind for target, kind in kinds.items() if kind is not None}
    return measures.model_dump(mode="json") | {
        "metrics": [metric.name for metric in evaluation.metrics],
        "targets": list(evaluation.targets),
        "attacks": list(dict.fromkeys(["pgd", *attacks])),
        "n": len(evaluation),
        "classes": len(evaluation.data.classes),
        "majority": float(evaluation.data.labels.bincount().max()) / len(evaluation),
        "shape": list(evaluation.data.shape),
        "size": list(evaluation.size),
        "images": _digest(evaluation.data),
        "compared with": compared,
        "missing": _missing(evaluation, control),
    }


def _panels(model: nn.Module, evaluation: EvaluationSet, columns: Columns, gallery: int) -> Columns:
    """Pictures of the best and the worst images by the first metric and target (or by rho2)."""
    count, by = min(gallery, len(evaluation) // 2), ranked_by(evaluation, columns)
    values = columns[by].nan_to_num(float("-inf")) * (-1 if by.startswith("rho2") else 1)
    order = values.argsort(descending=True, stable=True)
    chosen = torch.cat([order[:count], order[len(order) - count :]])
    shown = pictures(model, evaluation, chosen, next(iter(evaluation.targets)))
    labels = evaluation.data.labels.cpu()[chosen]
    return {"places": chosen, "value": columns[by][chosen], "labels": labels} | shown


def _missing(evaluation: EvaluationSet, control: bool) -> list[str]:
    """What could not be measured, and why."""
    missing = []
    if evaluation.tangent is None:
        missing.append("on- and off-manifold robustness, rho1 and rho2: no tangent spaces were given")
    if evaluation.denoiser is None:
        missing.append("alignment: no denoiser was given")
    elif evaluation.second is None:
        missing.append("the ceiling of the similarities: no second estimate of the score was given")
    if evaluation.denoiser is not None and not evaluation.conditional:
        missing.append("the score of a class: the denoiser knows no classes, so that of all is used")
    if evaluation.kinds and ALL not in evaluation.kinds:
        missing.append("the score of all classes: the denoiser knows single classes alone")
    if not control:
        missing.append("the random-feature control: no untrained network was given")
    return missing


def _digest(data: ImageSet) -> str:
    def content(values: Tensor) -> bytes:
        return values.cpu().contiguous().numpy().tobytes()

    return hashlib.sha256(content(data.pixels) + content(data.labels)).hexdigest()[:16]
