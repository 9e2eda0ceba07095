"""What objectives share: the differentiable gradient of each image, and what strengths may be."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax

from pags.arrays import Images, Labels, Logits, PerImage
from pags.data.batches import Batch
from pags.errors import UsageError
from pags.training.derivatives import cheaper_derivatives

Penalised = Literal["loss", "true-logit", "log-probability"]


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
        plain = penalised == "loss" and not batch.label_smoothing
        values = losses if plain else PENALISED[penalised](logits, batch.labels)
        with rules.of_inputs_alone():
            return losses, torch.autograd.grad(values.sum(), images, create_graph=True)[0]


def _loss(logits: Logits, labels: Labels) -> PerImage:
    return cross_entropy(logits, labels, reduction="none")


def _true_logit(logits: Logits, labels: Labels) -> PerImage:
    return logits.gather(1, labels[:, None])[:, 0]


def _log_probability(logits: Logits, labels: Labels) -> PerImage:
    return _true_logit(log_softmax(logits, 1), logits.argmax(1))


PENALISED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "loss": _loss, "true-logit": _true_logit, "log-probability": _log_probability,
}  # fmt: skip


def draw_radius(radii: tuple[float, ...], draws: torch.Generator) -> float:
    """One of the radii, each with the same probability."""
    return radii[int(torch.randint(len(radii), (), generator=draws, device=draws.device))]
