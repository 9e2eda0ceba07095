"""The Bayes classifier that a denoiser implies: p_σ(y | x), whose gradient is the Bayes direction.

The density of x follows from denoising errors: log p(x) = const − ½ ∫ E‖x − E[x | x + tn]‖² d(1/t²), at each
point (Kong, Brekelmans and Ver Steeg 2023, arXiv 2302.03792); with a denoiser for each class, so does that of
y given x (Li et al. 2023, arXiv 2303.16203).
"""

import math

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pags.arrays import Images, Logits, flatten
from pags.errors import UsageError
from pags.score.denoiser import Denoiser, knows_classes
from pags.seeds import generator

NOISES = (0.1, 80.0)
"""Noise levels t of the integral: from this share of σ, below which classes do not differ, to EDM's last."""


class DenoisingClassifier(nn.Module):
    """Images (n, c, h, w) in [0, 1] to logits (n, classes): log p_σ(x | y) up to a constant; where classes
    are equally likely, log p_σ(y | x).

    x is taken for an image under noise of level σ. The integral is a sum over `levels` noises, evenly spaced
    in their logarithms, and `draws` pairs n, −n, the same for all images and classes: 2 × levels × draws ×
    classes calls of the denoiser.

    Args:
        denoiser: one that knows classes.
        shape: (c, h, w) of the images.
        classes: their number.
        sigma: σ, in EDM's unit, above 0.
        levels, draws: above 0.
        seed: of the noise.

    Raises:
        UsageError: a denoiser that knows no classes, a noise level that is not above zero.
    """

    noise: Tensor  # (levels, 2 × draws, c, h, w)

    def __init__(
        self, denoiser: Denoiser, shape: tuple[int, int, int], classes: int, sigma: float, *,
        levels: int = 16, draws: int = 2, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        if not knows_classes(denoiser):
            raise UsageError(
                "a denoiser that knows classes", got="one of all classes together",
                suggestion="a class-conditional denoiser",
            )  # fmt: skip
        if not sigma > 0:
            raise UsageError("a noise level above 0", got=sigma, suggestion="0.5")
        low, high = math.log(NOISES[0] * sigma), math.log(NOISES[1])
        self.width = (high - low) / levels
        self.noises = [math.exp(low + (place + 0.5) * self.width) for place in range(levels)]
        self.denoiser, self.classes, self.sigma = denoiser, classes, sigma
        noise = torch.randn((levels, draws, *shape), generator=generator(seed, "denoising classifier"))
        self.register_buffer("noise", torch.cat([noise, -noise], 1))

    def forward(self, images: Images) -> Logits:
        totals = []
        for label in range(self.classes):
            of_class = [
                self._error(images, t, n, label)
                for t, each in zip(self.noises, self.noise, strict=True)
                for n in each
            ]
            totals.append(-torch.stack(of_class).sum(0) / self.noise.shape[1])
        return torch.stack(totals, 1).to(images.dtype)

    def _error(self, images: Images, t: float, noise: Tensor, label: int) -> Tensor:  # (n,), float64
        """½ ‖x − E[x | x + tn, y]‖² |d(1/t²)|, whose unit is EDM's where the images' is half of it."""
        if images.requires_grad:  # one call is kept for the backward pass, not hundreds
            return checkpoint(self._one, images, t, noise, label, use_reentrant=False)
        return self._one(images, t, noise, label)

    def _one(self, images: Images, t: float, noise: Tensor, label: int) -> Tensor:
        seen, level = images + t / 2 * noise, math.hypot(self.sigma, t)
        labels = torch.full((len(images),), label, device=images.device)
        found = seen + (t / level) ** 2 * (self.denoiser(seen, level, labels) - seen)
        error = flatten(images - found).double().square().sum(1)
        return 4 / t**2 * self.width * error
