"""Which score each gradient is compared with (B.4), and the scores of all images.

A gradient that speaks of a class is compared with the score of that class, one that speaks of none with the
score of all. The loss is that of the true label and falls along its negative gradient, so it is −∇loss that
is compared, with the score of the true class. Where a denoiser knows no classes, its score serves for all.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pags.arrays import Images, Labels
from pags.score.denoiser import Denoiser, score_of

ALL, PREDICTED, TRUE = "all classes", "predicted class", "true class"

KINDS = {
    "logit": PREDICTED,
    "log-probability": PREDICTED,
    "margin": PREDICTED,
    "loss": TRUE,
    "sum-of-logits": ALL,
    "log-sum-exp": ALL,
}
"""Target of the gradient to the score that it is compared with."""

SIGNS = {"loss": -1.0}
"""By which a gradient is multiplied before it is compared."""


def target_classes(predicted: Labels, labels: Labels) -> dict[str, Labels]:
    """The classes (n,) of each kind of score."""
    return {PREDICTED: predicted, TRUE: labels}


@dataclass(frozen=True)
class Scores:
    """The scores of some images, (n, c, h, w) for each kind that is there; made by `scores_of`."""

    by_kind: dict[str, Images]

    @property
    def conditional(self) -> bool:
        """Whether there are scores of classes."""
        return PREDICTED in self.by_kind

    def kind(self, target: str) -> str:
        """The kind of score that the gradient of a target is compared with."""
        return KINDS[target] if self.conditional else ALL

    def take(self, places: Tensor) -> "Scores":
        """The scores of the images at some places."""
        return Scores({kind: values[places.to(values.device)] for kind, values in self.by_kind.items()})


def scores_of(
    denoiser: Denoiser,
    images: Images,
    sigma: float,
    classes: Mapping[str, Labels],
    *,
    conditional: bool | None = None,
    batch: int = 64,
) -> Scores:
    """The score of all classes, and of each kind of class where the denoiser knows classes.

    Args:
        classes: kind to (n,) classes.
        conditional: see `pags.audit`.
        batch: images at a time.
    """
    if conditional is None:
        conditional = knows_classes(denoiser)
    kinds: dict[str, Labels | None] = {ALL: None} | (dict(classes) if conditional else {})
    return Scores({kind: _score(denoiser, images, sigma, labels, batch) for kind, labels in kinds.items()})


def knows_classes(denoiser: Denoiser) -> bool:
    """Whether it says so: by `classes` above 0, or by `labels` that are there; yes where it has neither."""
    if hasattr(denoiser, "classes"):
        return bool(denoiser.classes)
    return getattr(denoiser, "labels", True) is not None


def _score(denoiser: Denoiser, images: Images, sigma: float, labels: Labels | None, batch: int) -> Images:
    parts = images.split(batch)
    wanted = [None] * len(parts) if labels is None else labels.split(batch)
    return torch.cat([score_of(denoiser, x, sigma, y) for x, y in zip(parts, wanted, strict=True)])
