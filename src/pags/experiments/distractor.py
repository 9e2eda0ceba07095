"""Signal against distractor (section 4.3, B.9; Figures 5 and 16; Hypotheses 1 and 2).

A standard and an adversarially trained network on digits beside a distractor; for both, the change of the
output under noise on the signal and on the distractor, and the share of the gradient's energy on the
signal. Beyond the paper: other distractors, and one that is informative about the label, where Hypothesis 1
should break.
"""

from dataclasses import dataclass
from functools import cached_property, partial

import torch
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import nn

from pags.classifiers.build import build_classifier
from pags.classifiers.modes import correct
from pags.data.distractor import distractor_set
from pags.data.imageset import DataSet
from pags.data.sources import load
from pags.experiments.engines import Job, Progress, run_jobs
from pags.experiments.workshop import Columns, Workshop
from pags.measure.distractor import (
    PAPER_LEVELS,
    energy_on_signal,
    pixels_on_signal,
    relative_noise_robustness,
)
from pags.measure.gradients import input_gradient
from pags.measure.statistics import Interval, interval, mean_intervals
from pags.seeds import generator, seeded_construction
from pags.store import Record, Store, fingerprint
from pags.training.attack import PGD, robust_correct
from pags.training.fit import Plan, Report
from pags.training.objectives import make_objective

RECORD, GALLERY = "records/distractor.json", "records/distractor.safetensors"
REVISION = 1
STANDARD, ROBUST = "standard", "robust"


class Variant(BaseModel):
    """One distractor, and how informative it is about the label.

    Letters or a texture, see `pags.data.distractor`; of several letters each image has one, whose choice can
    tell the label.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    distractor: str = "A"
    informative: NonNegativeFloat = 0.0

    @property
    def name(self) -> str:
        """As it is called in records."""
        return f"{self.distractor}, informative {self.informative:g}"


class DistractorConfig(BaseModel):
    """The first variant is the paper's; the others are trained on `variant_images` images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = "mnist"
    data_folder: str | None = None
    seed: int = 0
    device: str = "cpu"
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
    resamples: PositiveInt = 2000
    variants: tuple[Variant, ...] = (
        Variant(),
        Variant(distractor="H"),
        Variant(distractor="checks"),
        Variant(distractor="AX"),
        Variant(distractor="AX", informative=0.5),
        Variant(distractor="AX", informative=1.0),
    )


@dataclass
class Distractor:
    """The state of this part of an experiment."""

    config: DistractorConfig
    store: Store

    @cached_property
    def workshop(self) -> Workshop:
        """Where networks are trained and columns computed."""
        return Workshop(self.store, self.config.device)

    @cached_property
    def base(self) -> DataSet:
        """The digits before a distractor is put beside them."""
        from pathlib import Path

        folder = self.config.data_folder
        return load(self.config.data, folder=Path(folder) if folder else None)

    def training_images(self, variant: Variant) -> int:
        """How many images the networks of a variant are trained on."""
        limit = self.config.train_images
        if variant != self.config.variants[0]:
            limit = self.config.variant_images or limit
        return min(limit or len(self.base.train), len(self.base.train))

    def data(self, variant: Variant) -> DataSet:
        """The images of a variant; those measured are a seeded choice."""
        config, base, limit = self.config, self.base, self.training_images(variant)
        train = base.train.sample(limit, config.seed) if limit < len(base.train) else base.train
        whole = distractor_set(
            DataSet(train, base.test), distractor=variant.distractor,
            informative=variant.informative, seed=config.seed,
        )  # fmt: skip
        return DataSet(whole.train.to(config.device), whole.test.to(config.device))

    def recipe(self, variant: Variant, kind: str, data: DataSet) -> Record:
        """What a network is a function of."""
        config = self.config
        attack = {"radii": config.radii, "steps": config.attack_steps, "step": config.relative_step}
        return {
            "stage": ["distractor", REVISION], "seed": config.seed, "data": data.train.provenance,
            "architecture": config.architecture, "plan": config.plan.model_dump(mode="json"),
            "attack": attack if kind == ROBUST else None,
        }  # fmt: skip

    def classifier(
        self, variant: Variant, kind: str, data: DataSet, report: Report | None = None
    ) -> nn.Module:
        """The standard or the robust network of a variant."""
        config = self.config
        objective = make_objective(
            "pgd", max(config.radii) if kind == ROBUST else 0, attack_steps=config.attack_steps,
            relative_step=config.relative_step, radii=config.radii if kind == ROBUST else (),
        )  # fmt: skip
        return self.workshop.trained(
            "classifiers", self.recipe(variant, kind, data), partial(self._network, data), objective,
            data.train, config.plan, seed=config.seed, report=report,
        )  # fmt: skip

    def measures(self, variant: Variant, kind: str, report: Report | None = None) -> Columns:
        """Everything that is measured of one network, per image."""
        data, config = self.data(variant), self.config
        recipe = self.recipe(variant, kind, data) | {
            "measures of": REVISION, "images": config.images, "levels": config.levels,
            "directions": config.directions,
        }  # fmt: skip
        return self.workshop.computed(
            "measures", recipe, partial(self._measures, variant, kind, data, report)
        )

    def _measures(self, variant: Variant, kind: str, data: DataSet, report: Report | None) -> Columns:
        model, config = self.classifier(variant, kind, data, report), self.config
        test = data.test.sample(min(config.images, len(data.test)), config.seed)
        images, masks = test.images, test.masks
        assert masks is not None
        changes = relative_noise_robustness(
            model, images, masks, config.levels,
            draws=generator(config.seed, "noise on a part"), directions=config.directions,
        )  # fmt: skip
        gradient = input_gradient(model, images, "logit")
        attack = PGD(min(config.radii), steps=config.attack_steps, relative_step=config.relative_step)
        draws = generator(config.seed, "distractor", "attack")
        columns = {
            "correct": correct(model, images, test.labels),
            "robust": robust_correct(model, images, test.labels, attack, draws),
            "energy on signal": energy_on_signal(gradient, masks),
            "pixels on signal": pixels_on_signal(masks),
        }
        whole = correct(model, data.test.images, data.test.labels).mean()
        columns["accuracy on all"] = whole.expand(len(images)).clone()
        for place in range(len(config.levels)):
            columns[f"signal {place}"] = changes.signal[place]
            columns[f"distractor {place}"] = changes.distractor[place]
        return columns

    def _network(self, data: DataSet) -> nn.Module:
        train = data.train
        mean, std = train.statistics()
        with seeded_construction(self.config.seed, "distractor"):
            name = self.config.architecture
            return build_classifier(name, train.shape[0], len(train.classes), mean=mean, std=std)


def run_distractor(
    config: DistractorConfig,
    store: Store,
    progress: Progress = lambda what, share: None,
    *,
    engine: str = "inline",
) -> Record:
    """Train, measure and judge; what the store already holds is not done again."""
    key = fingerprint({"settings": config.model_dump(mode="json"), "revision": REVISION})
    if store.has(RECORD) and store.has(GALLERY) and (record := store.read_record(RECORD)).get("key") == key:
        return record
    state = Distractor(config, store)
    jobs = [
        Job[Distractor](
            f"{kind} network beside {v.name}", cost * state.training_images(v), partial(_measure, v, kind)
        )
        for v in config.variants
        for kind, cost in ((STANDARD, 1), (ROBUST, 8))
    ]
    make = (lambda: state) if engine == "inline" else partial(Distractor, config, store)
    run_jobs(jobs, make, engine=engine, device=config.device, progress=progress)
    store.write_tensors(GALLERY, _gallery(state), {"key": key})
    variants = [_entry(state, variant) for variant in config.variants]
    record = {
        "key": key,
        "settings": config.model_dump(mode="json"),
        "variants": variants,
    }
    store.write_record(RECORD, record)
    return store.read_record(RECORD)


def _measure(variant: Variant, kind: str, state: Distractor, report: Report) -> None:
    state.measures(variant, kind, report)


def _entry(state: Distractor, variant: Variant) -> Record:
    """One variant: means of both networks, and the ratio of changes at each level above 0."""
    entry: Record = {"name": variant.name} | variant.model_dump()
    for kind in (STANDARD, ROBUST):
        columns = state.measures(variant, kind)
        draws = generator(state.config.seed, "means")
        means = mean_intervals(columns, draws=draws, resamples=state.config.resamples)
        ratios = [_ratio(state, columns, place) for place in positive(state.config)]
        entry[kind] = {
            "means": {name: value.to_record() for name, value in means.items()},
            "ratios": [ratio.to_record() for ratio in ratios],
        }
    return entry


def positive(config: DistractorConfig) -> list[int]:
    """The places of the noise levels above 0."""
    return [place for place, level in enumerate(config.levels) if level > 0]


def _ratio(state: Distractor, columns: Columns, place: int) -> Interval:
    """Relative noise robustness at one level: the change on the signal over that on the distractor."""
    table = torch.stack([columns[f"signal {place}"], columns[f"distractor {place}"]], 1).cpu()
    draws = generator(state.config.seed, "relative noise robustness", place)
    return interval(lambda m: m[:, 0] / m[:, 1], table, draws=draws, resamples=state.config.resamples)


# Pictures -----------------------------------------------------------------------------------------------


def _gallery(state: Distractor) -> Columns:
    """Figure 16: some images, noise on either part, and both networks' gradients; for each variant."""
    found: Columns = {}
    for place, variant in enumerate(state.config.variants):
        data = state.data(variant)
        labels = data.test.labels
        several = torch.cat([(labels == label).nonzero()[:1, 0] for label in labels.unique()])[:8]
        test = data.test.take(several)
        images, masks = test.images, test.masks
        assert masks is not None
        noise = torch.randn(images.shape, generator=generator(state.config.seed, "figure 16")).to(images)
        on_signal = masks[:, None].to(images)
        found |= {
            f"images {place}": images,
            f"masks {place}": masks.float()[:, None],
            f"noise on signal {place}": (images + 0.5 * noise * on_signal).clamp(0, 1),
            f"noise on distractor {place}": (images + 0.5 * noise * (1 - on_signal)).clamp(0, 1),
        }
        for kind in (STANDARD, ROBUST):
            model = state.classifier(variant, kind, data)
            found[f"gradient {kind} {place}"] = input_gradient(model, images, "logit")
    return found
