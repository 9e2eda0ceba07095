"""One way to a classifier: trained here and kept, loaded from what a user names, or untrained."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import nn

from pags.auditing.evaluation import short_name
from pags.classifiers.about import describe
from pags.classifiers.build import new_classifier
from pags.classifiers.check import check_classifier
from pags.classifiers.identity import identity as identity_of
from pags.classifiers.load import load_classifier
from pags.data.imageset import ImageSet
from pags.errors import UsageError
from pags.experiments.cache import Cache, Lazy, Made, Report, Work, network
from pags.records import Record
from pags.seeds import derive
from pags.settings import Settings
from pags.training.fit import Plan
from pags.training.objectives import Objective, get_objective, make_objective
from pags.training.precision import AnyPrecision, decided
from pags.training.recipes import scaled_rate

STANDARD, UNTRAINED = "standard", "untrained"
"""The network without robustness, the same for every objective; and the control: its initial weights."""


class Training(Settings):
    """How a classifier is trained: with the images, all that its weights are a function of."""

    architecture: str = "small-resnet"
    activation: str = "relu"
    objective: str = "cross-entropy"
    strength: NonNegativeFloat = 0.0
    preset: Literal["ours", "paper", "release"] = "ours"
    """Which reading of the paper the objectives follow (docs/choices.md)."""
    attack_steps: PositiveInt = 10
    relative_step: PositiveFloat = 2.5
    """Length of all steps of the attack together, in radii."""
    radii: tuple[PositiveFloat, ...] = ()
    """From which each batch of adversarial training draws its epsilon, if there are any."""
    smoothness_sigma: PositiveFloat = 0.1
    attack_statistics: Literal["running", "batch"] = "running"
    """BatchNorm's statistics during the attack, see `pags.training.PGD`."""
    plan: Plan = Plan(epochs=15, learning_rate=0.1)
    scale_rate: bool = False
    """Whether strong penalties lower the learning rate, as in B.2."""
    seed: int = 0
    precision: AnyPrecision = "32-true"
    """auto: bf16-mixed on CUDA and on CPUs with AMX; measuring is always in float32."""
    compile: bool = False
    channels_last: bool = True

    @property
    def identity(self) -> dict[str, Any]:
        """What the weights depend on: the plan as it is followed, and at strength 0 no objective's options,
        which nothing reads."""
        if self.strength > 0:
            said = self.with_(plan=self.rated_plan()).model_dump(mode="json", exclude={"scale_rate"})
            return said | {"source": get_objective(self.objective).source}
        objective = {"objective", "strength", "preset", "attack_steps", "relative_step", "radii"}
        unread = objective | {"smoothness_sigma", "scale_rate", "attack_statistics"}
        return {"objective": "cross-entropy", **self.model_dump(mode="json", exclude=unread)}

    @property
    def name(self) -> str:
        """As it is called in records."""
        return f"{short_name(self.objective)} {self.strength:g}" if self.strength else STANDARD

    def make_objective(self) -> Objective:
        """What is minimised."""
        return make_objective(
            self.objective, self.strength, attack_steps=self.attack_steps, relative_step=self.relative_step,
            radii=self.radii, smoothness_sigma=self.smoothness_sigma, preset=self.preset,
            attack_statistics=self.attack_statistics,
        )  # fmt: skip

    def rated_plan(self) -> Plan:
        """The plan with its learning rate, lowered for a strong penalty where settings say so."""
        if not self.scale_rate or not self.strength:
            return self.plan
        rate = scaled_rate(self.plan.learning_rate, self.objective, self.strength, preset=self.preset)
        return self.plan.model_copy(update={"learning_rate": rate})

    def on(self, device: str) -> "Training":
        """The same with its precision decided for a device."""
        return self.with_(precision=decided(self.precision, device))

    def repeated(self, repeat: int) -> "Training":
        """The same with the seed of a repeat; the first has the seed itself."""
        return self if repeat == 0 else self.with_(seed=derive(self.seed, "repeat", repeat))


def blank_classifier(train: ImageSet, training: Training) -> nn.Module:
    """The classifier with its first weights."""
    return new_classifier(train, training.architecture, activation=training.activation, seed=training.seed)


def file_label(train: ImageSet, training: Training) -> str:
    """The start of its file's name: data, objective and strength."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", f"{train.name}-{training.name}").strip("-.")


@network("classifiers", blank_classifier, revision=2, label=file_label)
def classifier(train: ImageSet, training: Training, *, work: Work) -> nn.Module:
    """The classifier that a training gives."""
    model = blank_classifier(train, training)
    work.facts.setdefault("classes", list(train.classes))
    return work.train(
        model, training.make_objective(), train, training.rated_plan(), seed=training.seed,
        precision=training.precision, channels_last=training.channels_last, compile=training.compile,
    )  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A classifier that is measured.

    Args:
        name: as it is called in records.
        network: the classifier, made or loaded when it is first used.
        about: plain data for records.
        control: the same network untrained, or None.
    """

    name: str
    network: Made[nn.Module] | Lazy[nn.Module]
    about: Record
    control: Lazy[nn.Module] | None = None


def network_of(subject: Subject, report: Report = lambda share: None) -> nn.Module:
    """The classifier itself, trained if it has to be."""
    made = subject.network
    return made.value(report) if isinstance(made, Made) else made.thing


def trained(cache: Cache, train: ImageSet, training: Training) -> Subject:
    """A classifier that is trained here, unless it is kept already."""
    made = cache.made(classifier, train=train, training=training)
    return Subject(training.name, made, {"training": training.identity})


def untrained_control(cache: Cache, train: ImageSet, training: Training) -> Subject:
    """The network of a training with its initial weights."""

    def build() -> nn.Module:
        return blank_classifier(train, training).to(cache.device).eval()

    about = {"untrained": training.architecture, "activation": training.activation, "seed": training.seed}
    identity: Mapping[str, Any] = about | {"shape": list(train.shape), "statistics": train.statistics()}
    return Subject(UNTRAINED, Lazy(identity, build), dict(about))


def loaded(
    spec: str, data: ImageSet, *, device: str, name: str | None = None, architecture: str | None = None,
    classes: int | None = None, **options: Any,
) -> Subject:  # fmt: skip
    """A classifier that a user names, tried on some of the images; it counts by what it does.

    Raises:
        UsageError: the spec makes no sense, or the classifier has other classes than the data.
        PagsError: the file, the library or the code does not give such a classifier.
    """
    model = load_classifier(
        spec, architecture=architecture, classes=classes or len(data.classes), channels=data.shape[0],
        size=(data.shape[1], data.shape[2]), **options,
    )  # fmt: skip
    return Subject(name or spec, *named(model, data, device=device))


def named(model: nn.Module, data: ImageSet, *, device: str) -> tuple[Lazy[nn.Module], Record]:
    """A classifier at hand with its identity, and what is to be said about it."""
    about = describe(model)
    checked = check_classifier(model, data.take(slice(0, 64)).images.cpu(), len(data.classes))
    known = identity_of(checked, data.shape, len(data.classes))
    moved = checked.to(device)
    return Lazy(known, lambda: moved), about


def unique_names(specs: list[str]) -> list[str]:
    """A name for each spec, numbered where one occurs twice."""
    if not specs:
        raise UsageError("a model or more", got="none", suggestion="pags audit model.safetensors")
    return [s if specs.count(s) == 1 else f"{s} ({place + 1})" for place, s in enumerate(specs)]
