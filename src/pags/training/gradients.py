"""What objectives share: the differentiable gradient of each image, and what strengths may be."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from pags.arrays import Images, Labels, Logits, PerImage
from pags.data.batches import Batch
from pags.errors import UsageError
from pags.training.derivatives import cheaper_derivatives

Penalised = Literal["loss", "true-logit", "log-probability"]

FAINTEST = 1e-30
"""What 1 − p counts as in a gradient where it is less, so that a direction survives in float32."""


def log_odds_against(logits: Logits, labels: Labels) -> PerImage:
    """log((1 − p) / p) for the probability p of each label: logsumexp of the other logits − z_y.

    The loss and −log p are increasing functions of it, so that its gradient has their direction. Unlike
    theirs it loses nothing where p rounds to 1: 1 − p is never formed.
    """
    return logits.scatter(1, labels[:, None], -torch.inf).logsumexp(1) - _true_logit(logits, labels)


def label_loss(logits: Logits, labels: Labels) -> PerImage:
    """−log p of each label, the cross-entropy, as log(1 + exp(log-odds against it)).

    `torch.nn.functional.cross_entropy` has p − 1 in its gradient, which float32 rounds to nothing from a
    margin of about 16 on, so that the own class is missing from it. Here the gradient is that of the log-odds
    times 1 − p, to full relative precision; below `FAINTEST` that factor stays where it is.
    """
    odds = log_odds_against(logits, labels)
    return FAINTEST * (odds - odds.detach()) - logsigmoid(-odds)


def check_strength(strength: float, *, what: str = "a strength") -> None:
    """Raise unless `strength` is a finite number of zero or more."""
    if not 0 <= strength < float("inf"):
        raise UsageError(
            f"{what} of zero or more", got=strength, suggestion="0 for training without robustness"
        )


def loss_and_gradient(
    model: nn.Module, batch: Batch, *, penalised: Penalised = "loss"
) -> tuple[PerImage, Images]:
    """Each image's cross-entropy, and the gradient of what is penalised with respect to the image, still
    differentiable."""
    images = batch.images.detach().requires_grad_()
    with cheaper_derivatives(model) as rules:
        logits = model(images)
        losses = batch.losses(logits)
        values = PENALISED[penalised](logits, batch.labels)
        with rules.of_inputs_alone():
            return losses, torch.autograd.grad(values.sum(), images, create_graph=True)[0]


def _true_logit(logits: Logits, labels: Labels) -> PerImage:
    return logits.gather(1, labels[:, None])[:, 0]


def _log_probability(logits: Logits, labels: Labels) -> PerImage:
    return -label_loss(logits, logits.argmax(1))


PENALISED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "loss": label_loss, "true-logit": _true_logit, "log-probability": _log_probability,
}  # fmt: skip


def draw_radius(radii: tuple[float, ...], draws: torch.Generator) -> float:
    """One of the radii, each with the same probability."""
    return radii[int(torch.randint(len(radii), (), generator=draws, device=draws.device))]
