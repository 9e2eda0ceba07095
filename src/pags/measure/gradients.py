"""Input gradients: of which scalar, and how (B.4, B.5), plain or smoothed.

A target is a scalar made of the logits, for the class in question where it needs one. The gradient of
the *sum* of the logits is offered because the paper uses it (B.5); but cross-entropy never moves the sum of
the last layer's rows, so for a network trained with it this gradient is determined by the random
initialisation. Measure it beside an untrained network before reading anything into it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from pags.arrays import Images, Labels, Logits, PerImage
from pags.classifiers.modes import evaluating, predict
from pags.errors import PagsError, UsageError
from pags.plugins import as_plugin, instead_of
from pags.training.gradients import label_loss

Target = Callable[[Logits, Labels], PerImage]


def _logit(logits: Logits, labels: Labels) -> PerImage:
    return logits.gather(1, labels[:, None])[:, 0]


def _margin(logits: Logits, labels: Labels) -> PerImage:
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return _logit(logits, labels) - others.amax(1)


ALL, PREDICTED, TRUE = "all classes", "predicted class", "true class"
"""Of which class a gradient speaks: with the score of that class, or of all, it is compared (B.4)."""


@dataclass(frozen=True)
class ScalarTarget:
    """The gradient of a scalar made of the logits.

    Args:
        scalar: logits and labels to one number per image, which autograd can follow.
        title: for people.
        which: `PREDICTED`, `TRUE` or `ALL`: the class whose label it is given, and whose score it is compared
            with.
        sign: -1 where the scalar falls along what it is compared with, as the loss does.
        source: of a user's target, `pags.plugins.Plugin.source`.
    """

    scalar: Target
    title: str
    which: str = PREDICTED
    sign: float = 1.0
    source: str = ""

    def __call__(self, logits: Logits, labels: Labels) -> PerImage:
        """The scalar itself."""
        return self.scalar(logits, labels)

    def vectors(self, model: nn.Module, images: Images, labels: Labels) -> Images:
        """Its gradient with respect to each image."""
        return _gradient(model, self.scalar, images, labels)


@dataclass(frozen=True)
class Attribution:
    """Any other attribution, in place of a gradient: integrated gradients, input × gradient, captum's.

    As a decorator, `@Attribution`, it tells such a function from a scalar of the logits.

    Args:
        function: model, images (n, c, h, w) and labels (n,) to vectors (n, c, h, w). The model is in
            evaluation mode and the images are a copy.
        title, which, sign, source: as in `ScalarTarget`.
    """

    function: Callable[[nn.Module, Images, Labels], Images]
    title: str = ""
    which: str = PREDICTED
    sign: float = 1.0
    source: str = ""

    def vectors(self, model: nn.Module, images: Images, labels: Labels) -> Images:
        """The attribution of each image.

        Raises:
            PagsError: the function gives something else than vectors of the images' shape.
        """
        with torch.enable_grad():
            found: Any = self.function(model, images.detach().clone(), labels)
        if not isinstance(found, Tensor) or found.shape != images.shape:
            raise PagsError(
                f"an attribution of the images' shape {tuple(images.shape)}",
                got=f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__,
                suggestion="one number per pixel and channel, in the image's order",
            )
        return found.detach().to(images)


GradientTarget: TypeAlias = ScalarTarget | Attribution
TargetLike: TypeAlias = str | Callable[..., Any] | GradientTarget
"""What `get_target` takes."""

TARGETS: dict[str, ScalarTarget] = {
    "logit": ScalarTarget(_logit, "logit"),
    "sum-of-logits": ScalarTarget(lambda logits, labels: logits.sum(1), "sum of the logits", ALL),
    "log-probability": ScalarTarget(lambda logits, labels: -label_loss(logits, labels), "log-probability"),
    "log-sum-exp": ScalarTarget(lambda logits, labels: logits.logsumexp(1), "log-sum-exp of the logits", ALL),
    "margin": ScalarTarget(_margin, "margin"),
    "loss": ScalarTarget(label_loss, "loss", TRUE, -1.0),
}
"""Scalars by name; `get_target` also takes a user's own."""


def get_target(target: TargetLike) -> GradientTarget:
    """What a gradient is taken of.

    Args:
        target: a name of `TARGETS`; or one of the user's own, or `file.py:name` or `package.module:name` of
            one (which runs that code): a scalar (logits, labels) → (n,), with optional attributes `title`,
            `which` and `sign`, or an `Attribution`.

    Raises:
        UsageError: an unknown name, something that cannot be called, or a `which` that is none.
    """
    if isinstance(target, ScalarTarget) or (isinstance(target, str) and target in TARGETS):
        return TARGETS[target] if isinstance(target, str) else target
    plugin = instead_of(target, "a gradient target", TARGETS, "logit")
    value: Any = plugin.value
    if isinstance(value, ScalarTarget | Attribution):
        inner = value.function if isinstance(value, Attribution) else value.scalar
        own = plugin if isinstance(target, str) else as_plugin(inner)
        found: GradientTarget = replace(
            value, title=value.title or own.name, source=value.source or own.source
        )
    else:
        plugin.check_callable("(logits, labels)", "return logits.amax(1)", what="Attribution or function")
        title, which = getattr(value, "title", plugin.name), getattr(value, "which", PREDICTED)
        found = ScalarTarget(value, str(title), str(which), float(getattr(value, "sign", 1.0)), plugin.source)
    if found.which not in (ALL, PREDICTED, TRUE):
        raise UsageError(f"which as {ALL}, {PREDICTED} or {TRUE}", got=found.which, suggestion=PREDICTED)
    return found


def input_gradient(
    model: nn.Module,
    images: Images,
    target: TargetLike = "logit",
    labels: Labels | None = None,
    *,
    batch_size: int = 256,
) -> Images:
    """The gradient of a target with respect to each image.

    Args:
        model: a classifier; seen in evaluation mode, no `.grad` is touched.
        images: (n, c, h, w) in [0, 1].
        target: a name of `TARGETS`, or whatever else `get_target` takes.
        labels: (n,) the class of "logit", "log-probability", "margin" and "loss"; None: the predicted class.
        batch_size: images in memory at a time; does not change the result.

    Returns:
        (n, c, h, w), in units of the target per unit of pixel.

    Raises:
        UsageError: no target has this name.
    """
    found = get_target(target)
    labels = predict(model, images).argmax(1) if labels is None else labels
    with evaluating(model):
        parts = zip(images.split(batch_size), labels.split(batch_size), strict=True)
        return torch.cat([found.vectors(model, x, y) for x, y in parts])


def smooth_gradient(
    model: nn.Module,
    images: Images,
    target: TargetLike = "logit",
    labels: Labels | None = None,
    *,
    sigma: float,
    samples: int = 32,
    draws: torch.Generator,
    batch_size: int = 256,
) -> Images:
    """SmoothGrad (Smilkov et al. 2017): the mean gradient over noisy copies of each image.

    Args:
        model, images, target, batch_size: as in `input_gradient`.
        labels: None: the class predicted for the clean image, for all its copies.
        sigma: standard deviation of the noise, for images in [0, 1].
        samples: noisy copies per image.
        draws: where the noise comes from.
    """
    target = get_target(target)
    labels = predict(model, images).argmax(1) if labels is None else labels
    total = torch.zeros_like(images)
    for _ in range(samples):
        noise = torch.randn(images.shape, generator=draws, device=draws.device).to(images)
        total += input_gradient(model, images + sigma * noise, target, labels, batch_size=batch_size)
    return total / samples


def find_target(target: TargetLike) -> ScalarTarget:
    """A target that is a scalar of the logits, for measures that need its values (Definition 1).

    Raises:
        UsageError: as `get_target`, and for an attribution.
    """
    found = get_target(target)
    if isinstance(found, ScalarTarget):
        return found
    raise UsageError(
        "a target that is a scalar of the logits",
        got=f"the attribution {found.title}",
        suggestion="logit, or a function (logits, labels) → one number per image",
    )


def _gradient(model: nn.Module, scalar: Target, images: Images, labels: Labels) -> Images:
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        return torch.autograd.grad(scalar(model(images), labels).sum(), images)[0]
