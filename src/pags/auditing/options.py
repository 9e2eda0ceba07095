"""What an audit measures, as plain values, checked before any work."""

import math
from dataclasses import dataclass

from pags.errors import UsageError
from pags.measure.gradients import find_target
from pags.training.attack import PGD

PAPER_NORMS = (1.438, 2.637, 4.833, 8.859)
"""Figures 3 and 9, on 3×32×32 pixels."""
PAPER_PIXELS = 3 * 32 * 32
RADII = (0.25, 0.5, 1.0)
"""At the same size. 0.5 is the usual one on CIFAR-10; at 3×224×224 they are 1.75, 3.5 and 7."""


def default_norms(d: int) -> tuple[float, ...]:
    """The paper's norms at images of d numbers: those that change a pixel as much, to four digits."""
    return tuple(_rounded(norm * math.sqrt(d / PAPER_PIXELS)) for norm in PAPER_NORMS)


def default_radii(d: int) -> tuple[float, ...]:
    """Attack radii for images of d numbers, to four digits."""
    return tuple(_rounded(radius * math.sqrt(d / PAPER_PIXELS)) for radius in RADII)


@dataclass(frozen=True)
class Options:
    """The options of `pags.audit` under the same names.

    Raises:
        UsageError: one is out of range, or two do not fit together.
    """

    sigma: float
    norms: tuple[float, ...]
    norm: float | None
    directions: int
    targets: tuple[str, ...]
    metrics: tuple[str, ...]
    radii: tuple[float, ...]
    attack_steps: int
    smooth_targets: tuple[str, ...]
    smooth_sigma: float
    smooth_samples: int
    gallery: int
    seed: int

    def __post_init__(self) -> None:
        for target in (*self.targets, *self.smooth_targets):
            find_target(target)
        for radius in self.radii:
            PGD(radius, self.attack_steps)
        _check(bool(self.targets), "one gradient target or more", self.targets, 'targets=("logit",)')
        _check(0 < self.sigma < math.inf, "a noise level above zero", self.sigma, "sigma=0.5")
        for name in ("directions", "smooth_samples"):
            _check(getattr(self, name) > 0, f"{name} above zero", getattr(self, name), f"{name}=8")
        _check(self.gallery >= 0, "a gallery of zero images or more", self.gallery, "gallery=6")
        _check(0 <= self.smooth_sigma < math.inf, "smooth_sigma of zero or more", self.smooth_sigma, "0.1")
        right = bool(self.norms) and all(0 < norm < math.inf for norm in self.norms)
        _check(right, "perturbation norms above zero", list(self.norms), "norms=(1.438, 2.637)")
        _check(self.norm in self.norms, f"a norm among {list(self.norms)}", self.norm, f"{self.norms[0]:g}")
        alone = set(self.smooth_targets) - set(self.targets)
        _check(not alone, "smooth_targets among targets", sorted(alone), "adding them to targets")


def _check(right: bool, expected: str, got: object, suggestion: str) -> None:
    if not right:
        raise UsageError(expected, got=got, suggestion=suggestion)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
