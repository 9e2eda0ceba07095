"""What is audited, as plain settings, and the reference sweep that they may name."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from pags.data.sources import load
from pags.errors import UsageError
from pags.measure.gradients import TARGETS
from pags.measure.statistics import Interval
from pags.store import Store


class AuditSettings(BaseModel):
    """What is audited, on which images, with which helpers; measures as in `pags.audit`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = "digits"
    images: PositiveInt = 256
    """A seeded, balanced sample of the test images."""
    seed: int = 0
    architecture: str | None = None
    classes: PositiveInt | None = None
    denoiser: Path | None = None
    second_denoiser: Path | None = None
    """For the ceiling; otherwise the ideal denoiser of the images that estimates are made from."""
    autoencoder: Path | None = None
    tangent_data: str | None = None
    """Images from which manifold and score are estimated; otherwise the training images of `data`."""
    side: PositiveInt | None = None
    """Pixels of the shorter side for score and tangent spaces; otherwise the images' own up to 64, above that
    64, or 32 where an estimate is made of fewer than 1,000 images."""
    latent: PositiveInt | None = None
    sigma: PositiveFloat | None = None
    """In EDM's unit; otherwise 0.5, and 1.2 from 64 px, as in the paper."""
    norms: tuple[PositiveFloat, ...] | None = None
    radii: tuple[PositiveFloat, ...] | None = None
    directions: PositiveInt = 8
    attack_steps: PositiveInt = 10
    targets: tuple[str, ...] = tuple(TARGETS)
    metrics: tuple[str, ...] = ("lpips", "cosine", "ssim", "rank")
    smooth_targets: tuple[str, ...] = ("logit", "sum-of-logits")
    smooth_sigma: PositiveFloat = 0.1
    smooth_samples: PositiveInt = 16
    gallery: NonNegativeInt = 4
    resamples: PositiveInt = 2000
    reference: Path | None = None
    """`records/sweep.json` of a `pags demo` on the same data, whose most accurate model is the reference."""
    device: str = "cpu"


def make_settings(**said: Any) -> AuditSettings:
    """Settings from what was said; None stands for the default.

    Raises:
        UsageError: an unknown name or a value out of range.
    """
    try:
        return AuditSettings(**{name: value for name, value in said.items() if value is not None})
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise UsageError(
            "settings in their range",
            got=f"{place}: {problem['msg'].lower()}",
            suggestion="pags audit --help",
        ) from error


def best_of_sweep(settings: AuditSettings) -> Interval | None:
    """Accuracy of the most accurate model of the reference sweep."""
    if settings.reference is None:
        return None
    record = Store(settings.reference.parent).read_record(settings.reference.name)
    try:
        same, found = record["data"]["name"], [m["means"]["correct"] for m in record["models"]]
        best = Interval(**max(found, key=lambda mean: float(mean["estimate"])))
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            "the record of a sweep", got=settings.reference, suggestion="records/sweep.json of a pags demo"
        ) from error
    if same != load(settings.data).name:
        raise UsageError(f"a sweep on {settings.data}", got=f"one on {same}", suggestion="no --reference")
    return best
