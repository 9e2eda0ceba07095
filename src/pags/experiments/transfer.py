"""Classifiers at a higher resolution than the score (section 4 on ImageNet; B.7, B.8; Figures 4 and 15).

The paper compares gradients of pre-trained networks on ImageNet, at 224 px, with the score of a diffusion
model at 64 px. The same here: networks from files where they are at hand; elsewhere networks trained with
l2-PGD on the experiment's own images, enlarged. Gradients are brought to the score's size by antialiased
bilinear interpolation before anything is compared.
"""

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Self

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn.functional import interpolate

from pags.arrays import Images, Labels
from pags.classifiers.build import build_classifier
from pags.classifiers.load import load_classifier
from pags.classifiers.modes import predict
from pags.data.imageset import ImageSet
from pags.data.sources import load
from pags.experiments.engines import Job, Progress, run_jobs
from pags.experiments.recipes import file_digest
from pags.experiments.stages import Stages
from pags.experiments.workshop import Columns, Workshop
from pags.measure.alignment import Reference
from pags.measure.gradients import input_gradient
from pags.measure.lpips import LPIPS
from pags.measure.statistics import mean_intervals
from pags.score.denoiser import score_of
from pags.seeds import generator, seeded_construction
from pags.store import Record, Store, fingerprint
from pags.training.fit import Plan, Report
from pags.training.objectives import make_objective

RECORD, GALLERY = "records/transfer.json", "records/transfer.safetensors"
REVISION = 1


class Pretrained(BaseModel):
    """A network from a file, and the radius of the l2 attack that it was trained against."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: str
    strength: NonNegativeFloat


class TransferConfig(BaseModel):
    """Which classifiers, of which images; the radii stay below those at which accuracy is lost."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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


@dataclass
class Transfer:
    """The state of this part of an experiment: images at both resolutions, and the networks."""

    config: TransferConfig
    stages: Stages

    @cached_property
    def workshop(self) -> Workshop:
        """Where networks are trained and columns computed."""
        return self.stages.workshop

    @cached_property
    def high(self) -> ImageSet:
        """The measured images as the classifiers see them."""
        test = self.stages.data.test
        if not self.config.data:
            return enlarged(test, self.config.factor)
        whole = load(self.config.data).test.to(self.stages.config.device)
        return whole.sample(min(len(test), len(whole)), self.stages.seed)

    @cached_property
    def low(self) -> Images:
        """The same images as the score sees them (B.8: scaled down); enlarged ones as they were before."""
        if not self.config.data:
            return self.stages.data.test.images
        return resized(self.high.images, self.stages.data.test.shape[1]).clamp(0, 1)

    @property
    def strengths(self) -> tuple[float, ...]:
        """The radii, rising."""
        given = sorted(network.strength for network in self.config.pretrained)
        return tuple(given) or self.config.strengths

    def recipe(self, strength: float) -> Record:
        """What a classifier is a function of."""
        config, stages = self.config, self.stages
        for network in config.pretrained:
            if network.strength == strength:
                content = _content(network.spec)
                return {"stage": ["transfer", REVISION], "network": content, "data": self.high.provenance}
        return {
            "stage": ["transfer", REVISION], "seed": stages.seed, "data": stages.data.train.provenance,
            "architecture": stages.config.architecture, "factor": config.factor, "strength": strength,
            "attack_steps": config.attack_steps, "plan": config.plan.model_dump(mode="json"),
        }  # fmt: skip

    def classifier(self, strength: float, report: Report | None = None) -> nn.Module:
        """The network of a radius: loaded, or trained on enlarged images."""
        for network in self.config.pretrained:
            if network.strength == strength:
                return self._loaded(network.spec)
        return self.workshop.trained(
            "classifiers", self.recipe(strength), self._network,
            make_objective("pgd", strength, attack_steps=self.config.attack_steps, relative_step=2.0),
            self._train, self.config.plan, seed=self.stages.seed, report=report,
        )  # fmt: skip

    def measures(self, strength: float, report: Report | None = None) -> Columns:
        """Accuracy and alignment of one network, per image."""
        recipe = self.measures_recipe(strength)
        return self.workshop.computed("measures", recipe, partial(self._measures, strength, report))

    def measures_recipe(self, strength: float) -> Record:
        """What the measures of one network are a function of."""
        return self.recipe(strength) | {
            "measures of": REVISION,
            "scores": self.stages.recipes.scores(),
            "upsample_to": self.stages.config.upsample_to,
        }

    def gradient(self, model: nn.Module, images: Images, labels: Labels) -> Float[Tensor, "n c side narrow"]:
        """The gradient of a logit at the classifier's resolution, brought to the score's."""
        return resized(input_gradient(model, images, "logit", labels, batch_size=32), self.low.shape[2])

    def score(self, places: Tensor | slice, labels: Labels) -> Images:
        """The score of the class that is given, at the scaled-down images."""
        return score_of(self.stages.denoiser(), self.low[places], self.stages.config.sigma, labels)

    def _measures(self, strength: float, report: Report | None) -> Columns:
        model = self.classifier(strength, report)
        logits = predict(model, self.high.images, batch_size=64)
        predicted = logits.argmax(1)
        # A score knows the classes of its own data alone; without them it is the unconditional one.
        named = predicted if logits.shape[1] == len(self.stages.data.test.classes) else None
        score = score_of(self.stages.denoiser(), self.low, self.stages.config.sigma, named)
        reference = Reference.of(score, LPIPS.load(upsample_to=self.stages.config.upsample_to or None))
        gradient = self.gradient(model, self.high.images, predicted)
        draws = generator(self.stages.seed, "transfer", "shuffled")
        similar, shuffled = reference.similarity_and_shuffled(gradient, draws)
        return {
            "correct": (predicted == self.high.labels).float(),
            "similarity": similar,
            "shuffled": shuffled,
            "cosine": reference.cosine(gradient),
            "floor": reference.floor(generator(self.stages.seed, "transfer", "floor")),
        }

    @cached_property
    def _train(self) -> ImageSet:
        return enlarged(self.stages.data.train, self.config.factor)

    def _network(self) -> nn.Module:
        train = self.stages.data.train
        mean, std = train.statistics()
        with seeded_construction(self.stages.seed, "transfer"):
            architecture = self.stages.config.architecture
            return build_classifier(architecture, train.shape[0], len(train.classes), mean=mean, std=std)

    def _loaded(self, spec: str) -> nn.Module:
        model = load_classifier(
            spec, architecture=self.config.architecture, classes=len(self.high.classes),
            channels=self.high.shape[0],
        )  # fmt: skip
        return model.to(self.stages.config.device)


def run_transfer(
    config: TransferConfig,
    stages: Stages,
    store: Store,
    progress: Progress = lambda what, share: None,
    *,
    engine: str = "inline",
) -> Record:
    """Train or load the classifiers, measure them, and write the record and the gallery."""
    state = Transfer(config, stages)
    how = {name: getattr(stages.config, name) for name in ("resamples", "gallery")}
    key = fingerprint([how, *(state.measures_recipe(strength) for strength in state.strengths)])
    if store.has(RECORD) and (record := store.read_record(RECORD)).get("key") == key and store.has(GALLERY):
        return record
    jobs = [
        Job[Transfer](f"pgd {strength:g} at {config.factor} times the size", 12, partial(_measure, strength))
        for strength in state.strengths
    ]
    run_jobs(
        jobs, lambda: state if engine == "inline" else Transfer(config, Stages(stages.config, store)),
        engine=engine, device=stages.config.device, progress=progress,
    )  # fmt: skip
    store.write_tensors(GALLERY, _gallery(state), {"key": key})
    models = [{"strength": s, "means": _means(stages, state.measures(s))} for s in state.strengths]
    what = "from files" if config.pretrained else f"trained on images {config.factor} times as large"
    about = {"data": state.high.name, "size": state.high.shape, "networks": what, "images": len(state.high)}
    store.write_record(RECORD, {"key": key, **about, "models": models})
    return store.read_record(RECORD)


def _measure(strength: float, state: Transfer, report: Report) -> None:
    state.measures(strength, report)


def _means(stages: Stages, columns: Columns) -> Record:
    draws = generator(stages.seed, "means")
    found = mean_intervals(columns, draws=draws, resamples=stages.config.resamples)
    return {name: value.to_record() for name, value in found.items()}


def _gallery(state: Transfer) -> Columns:
    """A few images, their scores, and the gradients of every network."""
    high = state.high
    several = torch.cat([(high.labels == label).nonzero()[:1, 0] for label in high.labels.unique()])
    chosen = several[: state.stages.config.gallery]
    labels = high.labels[chosen]
    known = labels if len(high.classes) == len(state.stages.data.test.classes) else None
    score = score_of(state.stages.denoiser(), state.low[chosen], state.stages.config.sigma, known)
    found = {"images": state.low[chosen], "score": score}
    for strength in state.strengths:
        model = state.classifier(strength)
        images = high.take(chosen).images
        predicted = predict(model, images).argmax(1)
        found[f"gradient {strength:g}"] = state.gradient(model, images, predicted)
        found[f"similarity {strength:g}"] = state.measures(strength)["similarity"][chosen]
    return found


def _content(spec: str) -> str:
    """A network by the content of the file that its spec names, else by the spec."""
    plain = spec.partition("?")[0]
    for path in (plain, plain.partition(":")[2], plain.rpartition(":")[0]):
        if path and Path(path).is_file():
            return spec.replace(path, file_digest(path))
    return spec


def enlarged(data: ImageSet, factor: int) -> ImageSet:
    """The images with each side `factor` times as long, bilinearly."""
    if factor == 1:
        return data
    side = factor * data.shape[1]
    parts = [resized(part.float() / _top(part), side).clamp(0, 1) for part in data.pixels.split(4096)]
    pixels = torch.cat([(255 * part).round().to(torch.uint8) for part in parts])
    provenance = data.provenance | {"enlarged": factor}
    return ImageSet(pixels, data.labels, data.classes, f"{data.name} ×{factor}", provenance)


def resized(images: Images, side: int) -> Float[Tensor, "n c side narrow"]:
    """Images or vectors whose height is brought to `side`, keeping proportions, antialiased where smaller."""
    height, width = images.shape[2:]
    if height == side:
        return images
    size = (side, round(width * side / height))
    return interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)


def _top(pixels: Tensor) -> float:
    return 255.0 if pixels.dtype == torch.uint8 else 1.0
