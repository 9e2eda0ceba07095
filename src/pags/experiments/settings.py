"""What an experiment is: plain settings, from Python, from the command line or from TOML."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from pags.auditing.measures import Measures
from pags.errors import UsageError
from pags.experiments.classifiers import Training
from pags.experiments.problems import GenerateSettings
from pags.manifold.autoencoder import DecoderKind
from pags.measure.distractor import PAPER_LEVELS
from pags.settings import Settings
from pags.training.fit import Plan
from pags.training.precision import AnyPrecision


class Common(Settings):
    """What every part of an experiment has."""

    seed: int = 0
    """Random seed of everything that is drawn."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where networks run: cpu or cuda."""
    data_folder: Path | None = None
    """Folder of data sets; PAGS_DATA, or ~/.cache/pags/data, unless said."""
    resamples: PositiveInt = 2000
    """Resamples of every bootstrap interval."""


class Sweep(Settings):
    """One objective at rising strengths from 0, which is the same standard network for every objective."""

    objective: str
    strengths: Annotated[tuple[NonNegativeFloat, ...], Field(min_length=3)]
    attack_steps: PositiveInt = 7

    @model_validator(mode="after")
    def _rises_from_zero(self) -> Self:
        if self.strengths[0] != 0 or list(self.strengths) != sorted(set(self.strengths)):
            raise ValueError(f"strengths must rise from 0, not be {list(self.strengths)}")
        return self


class Manifold(Settings):
    """Where tangent spaces come from."""

    estimator: str = "autoencoder"
    """autoencoder, local-pca, or a user's own as file.py:name."""
    file: Path | None = None
    """An autoencoder to use instead of training one."""
    latent: PositiveInt | None = 16
    """k, the dimension of the tangent spaces; None: as many principal components as hold 90 %."""
    widths: tuple[PositiveInt, ...] = (32, 64)
    decoder: DecoderKind = "mirror"
    """Of the autoencoder: mirror, or pythae, the paper's (docs/choices.md, 25)."""
    plan: Plan = Plan(epochs=60, batch_size=64, optimizer="adam", learning_rate=2e-3, weight_decay=0)
    precision: AnyPrecision = "32-true"


class Score(Settings):
    """Where scores come from: denoisers from files (EDM's pickles, safetensors, file.py:name), or trained."""

    file: str | None = None
    """A denoiser for the score of all classes (and of each, if it knows them)."""
    conditional_file: str | None = None
    """A denoiser for the score of a class."""
    second_file: str | None = None
    """Another estimate of the score, for the ceiling; None: the same denoiser at a nearby noise level."""
    widths: tuple[PositiveInt, ...] = (32, 64)
    conditional: bool = True
    """Whether a denoiser that is trained here learns classes."""
    plan: Plan = Plan(epochs=45, optimizer="adam", learning_rate=5e-3, weight_decay=0, average=0.99)
    precision: AnyPrecision = "32-true"


class Pretrained(Settings):
    """A network from a file, and the radius of the l2 attack that it was trained against."""

    spec: str
    strength: NonNegativeFloat


class TransferSettings(Settings):
    """Classifiers at a higher resolution than the score; radii stay below those at which accuracy is lost."""

    pretrained: tuple[Pretrained, ...] = ()
    data: str | None = None
    """Images for pre-trained networks, at their resolution; None: the experiment's own."""
    architecture: str | None = None
    """Of the pre-trained networks, where their files do not say."""
    factor: Annotated[int, Field(ge=2)] = 2
    """How many times larger each side is for networks trained here."""
    strengths: tuple[NonNegativeFloat, ...] = (0, 0.6, 1.2, 2.0)
    attack_steps: PositiveInt = 3
    plan: Plan = Plan(epochs=10, learning_rate=0.1)

    @model_validator(mode="after")
    def _names_each_network_once(self) -> Self:
        radii = [network.strength for network in self.pretrained]
        if len(set(radii)) < len(radii):
            raise ValueError(f"networks must be of different radii, not {radii}")
        return self


class Variant(Settings):
    """One distractor, and how informative it is about the label.

    Letters or a texture, see `pags.data.distractor`; of several letters each image has one, whose choice can
    tell the label.
    """

    distractor: str = "A"
    informative: NonNegativeFloat = 0.0

    @property
    def name(self) -> str:
        """As it is called in records."""
        return f"{self.distractor}, informative {self.informative:g}"


class DistractorSettings(Settings):
    """The first variant is the paper's; the others are trained on `variant_images` images."""

    data: str = "mnist"
    architecture: str = "small-resnet"
    plan: Plan = Plan(epochs=3, learning_rate=0.1)
    radii: tuple[PositiveFloat, ...] = (1, 4, 8)
    """Epsilons of the attack, one drawn for each batch (B.2)."""
    attack_steps: PositiveInt = 10
    relative_step: PositiveFloat = 2.5
    train_images: PositiveInt | None = None
    variant_images: PositiveInt | None = None
    images: PositiveInt = 500
    levels: tuple[NonNegativeFloat, ...] = PAPER_LEVELS
    directions: PositiveInt = 4
    variants: tuple[Variant, ...] = (
        Variant(),
        Variant(distractor="H"),
        Variant(distractor="checks"),
        Variant(distractor="AX"),
        Variant(distractor="AX", informative=0.5),
        Variant(distractor="AX", informative=1.0),
    )


class ExperimentSettings(Common):
    """Sweeps of robust trainings and everything that is measured on them; the defaults are the demo's."""

    data: str = "digits"
    train_images: PositiveInt | None = None
    images: PositiveInt | None = None
    """How many images are trained on and measured, a seeded choice; None: all."""
    repeats: PositiveInt = 1
    """Trainings of each classifier, from different seeds."""
    training: Training = Training()
    sweeps: Annotated[tuple[Sweep, ...], Field(min_length=1)] = (
        Sweep(objective="gradient-norm", strengths=(0, 0.01, 0.1, 0.5, 2, 10)),
        Sweep(objective="smoothing", strengths=(0, 0.1, 0.2, 0.4, 0.8, 1.6)),
        Sweep(objective="pgd", strengths=(0, 0.3, 0.6, 1, 1.5, 2.5)),
    )
    manifold: Manifold = Manifold()
    score: Score = Score()
    measures: Measures = Measures(
        norms=(0.25, 0.5, 1.0, 2.0), norm=0.5, targets=("logit", "sum-of-logits"),
        metrics=("lpips", "cosine"), radii=(), smooth_targets=(), smooth_sigmas=(),
    )  # fmt: skip
    gallery: Annotated[int, Field(ge=1, le=50)] = 6
    """Images in the grid of gradients."""
    transfer: TransferSettings | None = None
    distractor: DistractorSettings | None = None
    generation: GenerateSettings | None = None
    smoothgrad_samples: PositiveInt = 16
    scale: str = "demo"

    @model_validator(mode="after")
    def _names_each_objective_once(self) -> Self:
        objectives = [sweep.objective for sweep in self.sweeps]
        if len(set(objectives)) < len(objectives):
            raise ValueError(f"sweeps must be of different objectives, not {objectives}")
        return self


def read_toml(path: Path) -> dict[str, object]:
    """The tables of a TOML file.

    Raises:
        UsageError: the file cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(
            "a readable TOML file", got=f"{path} ({error.strerror})", suggestion="--config FILE"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError("TOML", got=f"{path}: {error}", suggestion="key = value lines") from error
