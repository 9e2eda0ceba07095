"""Projected gradient descent in the l2 ball (Madry et al. 2018), one ball around each image.

The attack leaves no trace: it takes the gradient with respect to the input alone, so no `.grad`
is touched; the network is in evaluation mode meanwhile, so BatchNorm keeps its statistics and
images do not see each other; and it draws from the generator that it is given.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pags.arrays import Images, Labels, PerImage, clip_norm, scale_to
from pags.classifiers.modes import evaluating, predict
from pags.errors import UsageError


@dataclass(frozen=True)
class PGD:
    """l2-PGD on the cross-entropy (section 4; B.1, 4).

    Args:
        radius: epsilon, the l2 radius of the ball, for images in [0, 1]; 0 gives back the clean images.
        steps: gradient steps.
        relative_step: the step's length is `relative_step · radius / steps` (B.2: 2.5 on MNIST, 2 elsewhere).

    Raises:
        UsageError: a radius below zero, or no steps.
    """

    radius: float
    steps: int = 10
    relative_step: float = 2.5

    def __post_init__(self) -> None:
        if not 0 <= self.radius < float("inf"):
            raise UsageError(
                "a finite attack radius of zero or more",
                got=self.radius,
                suggestion="--strength 0 for clean training",
            )
        if self.steps < 1 or not 0 < self.relative_step < float("inf"):
            raise UsageError(
                "at least one attack step of positive length",
                got=f"{self.steps} steps of relative length {self.relative_step}",
                suggestion="steps=10, relative_step=2.5",
            )

    def start(self, images: Images, draws: torch.Generator) -> Images:
        """Perturbations drawn uniformly from the ball, drawn in the order of the images."""
        direction = torch.randn(images.shape, generator=draws, device=draws.device).to(images)
        d = images[0].numel()
        share = torch.rand(len(images), generator=draws, device=draws.device).to(images) ** (1 / d)
        return scale_to(direction, self.radius * share)

    def perturb(self, model: nn.Module, images: Images, labels: Labels, start: Images) -> Images:
        """The attacked images.

        Args:
            model: a classifier.
            images: (n, c, h, w) in [0, 1].
            labels: the classes whose probability is driven down.
            start: perturbations to begin from; parts outside the ball are cut off.

        Returns:
            Images in [0, 1], each at an l2 distance of at most `radius` from its original.
        """
        if self.radius == 0:
            return images.detach().clone()
        length = self.relative_step * self.radius / self.steps
        delta = self._into_ball(images, start)
        with evaluating(model):
            for _ in range(self.steps):
                gradient = loss_gradient(model, images + delta, labels)
                delta = self._into_ball(images, delta + scale_to(gradient, length))
        # The sum is rounded to half a last digit in each pixel, which must not carry it out of the ball.
        slack = images[0].numel() ** 0.5 * torch.finfo(images.dtype).eps / 4
        return images + clip_norm(delta, max(0.0, self.radius - slack))

    def __call__(self, model: nn.Module, images: Images, labels: Labels, draws: torch.Generator) -> Images:
        """The attacked images, from a random start."""
        return self.perturb(model, images, labels, self.start(images, draws))

    def _into_ball(self, images: Images, delta: Images) -> Images:
        """The perturbation cut to the ball, then to the pixel range, which can only shorten it."""
        within = clip_norm(delta, self.radius)
        # Cut once more: the rounding of the sums may have put it a hair outside the ball.
        return clip_norm((images + within).clamp(0, 1) - images, self.radius)


def loss_gradient(model: nn.Module, images: Images, labels: Labels) -> Float[Tensor, "n c h w"]:
    """The gradient of each image's cross-entropy with respect to the image, and nothing else's."""
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        loss = cross_entropy(model(images), labels, reduction="sum")
        return torch.autograd.grad(loss, images)[0]


def robust_correct(
    model: nn.Module,
    images: Images,
    labels: Labels,
    attack: PGD,
    draws: torch.Generator,
    *,
    batch_size: int = 256,
) -> PerImage:
    """1 where the model still names the label under attack, else 0; not changed by `batch_size`."""
    start = attack.start(images, draws)
    parts = zip(images.split(batch_size), labels.split(batch_size), start.split(batch_size), strict=True)
    return torch.cat(
        [(predict(model, attack.perturb(model, x, y, s)).argmax(1) == y).float() for x, y, s in parts]
    )
