"""What an experiment is: plain settings, from Python or from TOML, unknown keys refused."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from pags.errors import UsageError
from pags.training.fit import Plan


class Sweep(BaseModel):
    """One objective at rising strengths from 0, which is the same unrobust network for every objective."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    objective: str
    strengths: Annotated[tuple[NonNegativeFloat, ...], Field(min_length=3)]
    attack_steps: PositiveInt = 7

    @model_validator(mode="after")
    def _rises_from_zero(self) -> Self:
        if self.strengths[0] != 0 or list(self.strengths) != sorted(set(self.strengths)):
            raise ValueError(f"strengths must rise from 0, not be {list(self.strengths)}")
        return self


class SweepConfig(BaseModel):
    """A sweep of robust trainings and everything that is measured on them; the defaults are the demo's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = "digits"
    data_folder: str | None = None
    """Where downloads and prepared arrays lie; None: the usual place."""
    train_images: PositiveInt | None = None
    images: PositiveInt | None = None
    """How many images are trained on and measured, a seeded choice; None: all."""
    seed: int = 0
    repeats: PositiveInt = 1
    """Trainings of each classifier, from different seeds."""
    device: str = "cpu"
    architecture: str = "small-resnet"
    activation: str = "relu"
    preset: Literal["ours", "paper", "release"] = "ours"
    """Which reading of the paper the objectives follow (docs/choices.md)."""
    relative_step: PositiveFloat = 2.5
    """Length of an attack's step, in units of radius / steps."""
    scale_rate: bool = False
    """Whether strong penalties lower the learning rate, as in B.2."""
    classifier: Plan = Plan(epochs=15, learning_rate=0.1)
    sweeps: tuple[Sweep, ...] = (
        Sweep(objective="gradient-norm", strengths=(0, 0.01, 0.1, 0.5, 2, 10)),
        Sweep(objective="smoothing", strengths=(0, 0.1, 0.2, 0.4, 0.8, 1.6)),
        Sweep(objective="pgd", strengths=(0, 0.3, 0.6, 1, 1.5, 2.5)),
    )

    latent: PositiveInt = 16
    """k, the dimension of the tangent spaces."""
    autoencoder_widths: tuple[PositiveInt, ...] = (32, 64)
    autoencoder: Plan = Plan(epochs=60, batch_size=64, optimizer="adam", learning_rate=2e-3, weight_decay=0)

    denoiser_widths: tuple[PositiveInt, ...] = (32, 64)
    denoiser: Plan = Plan(epochs=45, optimizer="adam", learning_rate=5e-3, weight_decay=0, average=0.99)
    sigma: PositiveFloat = 0.5
    """The score's noise level, in EDM's unit."""
    autoencoder_file: str | None = None
    denoiser_file: str | None = None
    conditional_denoiser_file: str | None = None
    """Networks to use instead of training them here; denoisers may be EDM's pickles."""

    norms: tuple[PositiveFloat, ...] = (0.25, 0.5, 1.0, 2.0)
    """l2 norms of the perturbations, for images in [0, 1]."""
    norm: PositiveFloat = 0.5
    """The one of `norms` that the main figure and the claims use."""
    directions: PositiveInt = 8
    change: str = "softmax-l2"
    """How the change of the output is measured."""
    upsample_to: NonNegativeInt = 64
    """Smallest side of what LPIPS compares; 0: as it is, which is the paper's way."""
    resamples: PositiveInt = 2000
    gallery: Annotated[int, Field(ge=1, le=50)] = 6
    """Images in the grid of gradients."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.device not in {"cpu", "cuda"}:
            raise ValueError(f"device must be cpu or cuda, not {self.device}")
        if self.norm not in self.norms:
            raise ValueError(f"norm must be one of norms, {list(self.norms)}, not {self.norm}")
        objectives = [sweep.objective for sweep in self.sweeps]
        if not objectives or len(set(objectives)) < len(objectives):
            raise ValueError(f"sweeps must be of different objectives, not {objectives}")
        return self


def read_config(path: Path) -> SweepConfig:
    """The settings in a TOML file; what it leaves out keeps its default.

    Raises:
        UsageError: the file cannot be read, is not TOML, or holds unknown keys or values out of range.
    """
    try:
        return SweepConfig.model_validate(tomllib.loads(path.read_text()))
    except OSError as error:
        raise UsageError(
            "a readable TOML file", got=f"{path} ({error.strerror})", suggestion="--config FILE"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError("TOML", got=f"{path}: {error}", suggestion="key = value lines") from error
    except ValidationError as error:
        raise UsageError(
            f"valid settings in {path}", got=_first_problem(error), suggestion="the keys of pags.SweepConfig"
        ) from error


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{place}: {problem['msg'].lower()}{more}"
