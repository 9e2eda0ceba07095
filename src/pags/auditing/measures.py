"""What is measured of a classifier, as plain settings, checked before any work."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from pags.measure.gradients import TARGETS
from pags.settings import Settings

PAPER_NORMS = (1.438, 2.637, 4.833, 8.859)
"""Figures 3 and 9, on 3×32×32 pixels."""
PAPER_PIXELS = 3 * 32 * 32
RADII = (0.25, 0.5, 1.0)
"""At the same size. 0.5 is the usual one on CIFAR-10; at 3×224×224 they are 1.75, 3.5 and 7."""


class Measures(Settings):
    """The measures of an audit, the same for every model of an evaluation set."""

    sigma: PositiveFloat = 0.5
    """The score's noise level, in EDM's unit."""
    score_draws: NonNegativeInt = 0
    """Noise draws per image over which scores are averaged; 0: the score at the image itself."""
    norms: Annotated[tuple[PositiveFloat, ...] | None, Field(min_length=1)] = None
    """l2 norms of perturbations, for images in [0, 1]; unless said the paper's four times √(d / 3072)."""
    norm: PositiveFloat | None = None
    """The one of the norms by which the regime is decided; unless said the second, or the only one."""
    directions: PositiveInt = 8
    """Random directions per image; Definition 1, whose squares spread more, uses four times as many."""
    change: str = "softmax-l2"
    """How the change of the output is measured: softmax-l2, softmax-l1, …"""
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = tuple(TARGETS)
    """Scalar of the output whose gradient is taken: logit, loss, margin, … or file.py:name."""
    metrics: tuple[str, ...] = ("lpips", "cosine", "ssim", "rank")
    """Similarity of gradient and score: lpips, cosine, … or file.py:name."""
    upsample_to: NonNegativeInt = 64
    """Smallest side of what LPIPS compares; 0: as it is, which is the paper's way."""
    radii: tuple[NonNegativeFloat, ...] | None = None
    """Radius of the l2-PGD attack; unless said 0.25, 0.5 and 1 times √(d / 3072)."""
    attack_steps: PositiveInt = 10
    """Steps of that attack."""
    attacked: bool = True
    """Whether the tangent space and its complement are attacked too, at the main norm."""
    smooth_targets: tuple[str, ...] = ("logit", "sum-of-logits")
    """Targets of which SmoothGrad is taken too."""
    smooth_sigmas: tuple[PositiveFloat, ...] = (0.1,)
    """SmoothGrad's noise levels, for images in [0, 1]."""
    smooth_samples: PositiveInt = 16
    """Noisy copies of an image whose gradients SmoothGrad averages."""
    of_class: Literal["predicted", "true"] = "predicted"
    """Whose class the gradients and scores of a class are; the loss is always that of the true label."""
    seed: int = 0
    """Random seed of everything that is drawn."""

    @model_validator(mode="before")
    @classmethod
    def _smooth_only_what_is_measured(cls, said: Any) -> Any:
        """Where targets alone are chosen, SmoothGrad is taken of its usual ones among them."""
        chosen = said.get("targets") if isinstance(said, dict) else None
        if isinstance(chosen, list | tuple) and "smooth_targets" not in said:
            usual = cls.model_fields["smooth_targets"].default
            return {**said, "smooth_targets": tuple(target for target in usual if target in chosen)}
        return said

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.norm is not None and self.norms is not None and self.norm not in self.norms:
            raise ValueError(f"norm must be one of norms, {list(self.norms)}, not {self.norm}")
        alone = sorted(set(self.smooth_targets) - set(self.targets))
        if alone:
            raise ValueError(f"smooth_targets must be among targets, not {alone}")
        return self

    def for_images(self, d: int) -> "Measures":
        """The same with the norms and radii of images of d numbers, which change a pixel as much as the
        paper's, to four digits."""
        norms = self.norms or tuple(_scaled(norm, d) for norm in PAPER_NORMS)
        radii = tuple(_scaled(radius, d) for radius in RADII) if self.radii is None else self.radii
        norm = norms[min(1, len(norms) - 1)] if self.norm is None else self.norm
        return self.with_(norms=norms, radii=radii, norm=norm)


def _scaled(length: float, d: int) -> float:
    return float(f"{length * math.sqrt(d / PAPER_PIXELS):.4g}")
