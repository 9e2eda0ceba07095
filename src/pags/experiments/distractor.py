"""Signal against distractor (section 4.3, B.9; Figures 5 and 16; Hypotheses 1 and 2).

A standard and an adversarially trained network on digits beside a distractor; for both, the change of the
output under noise on the signal and on the distractor, and the share of the gradient's energy on the
signal. Beyond the paper: other distractors, and one that is informative about the label, where Hypothesis 1
should break.
"""

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import nn

from pags.classifiers.modes import correct
from pags.data.distractor import distractor_set
from pags.data.imageset import DataSet, ImageSet
from pags.data.sources import load_data
from pags.errors import TrainingDiverged
from pags.experiments.cache import Cache, Columns, Made, Report, columns, identity
from pags.experiments.classifiers import Subject, Training, network_of, trained
from pags.experiments.engines import Progress, Task, one_thread, run_tasks
from pags.experiments.experiment import first_of_each_class
from pags.experiments.plan import diverged, left
from pags.experiments.settings import Common, DistractorSettings, Variant
from pags.measure.distractor import energy_on_signal, pixels_on_signal, relative_noise_robustness
from pags.measure.gradients import input_gradient
from pags.measure.statistics import interval, mean_intervals
from pags.records import Record
from pags.seeds import generator
from pags.store import Store, fingerprint
from pags.training.attack import PGD, robust_correct

RECORD, GALLERY = "records/distractor.json", "records/distractor.safetensors"
REVISION = 2
STANDARD, ROBUST = "standard", "robust"


@columns("measures", revision=2)
def distractor_measures(
    model: nn.Module, test: ImageSet, whole: ImageSet, levels: tuple[float, ...], directions: int,
    attack: PGD, seed: int,
) -> Columns:  # fmt: skip
    """Everything that is measured of one network on images with masks, per image.

    Args:
        model: the network.
        test: the images that are measured; `whole`: all test images, for the accuracy.
        levels, directions: of the noise on either part.
        attack: for the robust accuracy.
        seed: of all draws.
    """
    images, masks = test.images, test.masks
    assert masks is not None
    changes = relative_noise_robustness(
        model, images, masks, levels, draws=generator(seed, "noise on a part"), directions=directions
    )
    draws = generator(seed, "distractor", "attack")
    found = {
        "correct": correct(model, images, test.labels),
        "robust": robust_correct(model, images, test.labels, attack, draws),
        "energy on signal": energy_on_signal(input_gradient(model, images, "logit"), masks),
        "pixels on signal": pixels_on_signal(masks),
    }
    accuracy = correct(model, whole.images, whole.labels).mean()
    found["accuracy on all"] = accuracy.expand(len(images)).clone()
    for place in range(len(levels)):
        found[f"signal {place}"] = changes.signal[place]
        found[f"distractor {place}"] = changes.distractor[place]
    return found


@dataclass
class Distractor:
    """The state of this part of an experiment.

    Args:
        settings: which distractors and networks.
        common: seed, device, folder of data.
        store: where artefacts and records go.
    """

    settings: DistractorSettings
    common: Common
    store: Store

    @cached_property
    def base(self) -> DataSet:
        """The digits before a distractor is put beside them."""
        return load_data(self.settings.data, folder=self.common.data_folder)

    def training_images(self, variant: Variant) -> int:
        """How many images the networks of a variant are trained on."""
        limit = self.settings.train_images
        if variant != self.settings.variants[0]:
            limit = self.settings.variant_images or limit
        return min(limit or len(self.base.train), len(self.base.train))

    def data(self, variant: Variant) -> DataSet:
        """The images of a variant."""
        base, limit, seed = self.base, self.training_images(variant), self.common.seed
        train = base.train.sample(limit, seed) if limit < len(base.train) else base.train
        whole = distractor_set(
            DataSet(train, base.test),
            distractor=variant.distractor,
            informative=variant.informative,
            seed=seed,
        )
        return DataSet(whole.train.to(self.common.device), whole.test.to(self.common.device))

    def model(self, variant: Variant, kind: str, data: DataSet) -> Subject:
        """The standard or the robust network of a variant."""
        asked, robust = self.settings, kind == ROBUST
        training = Training(
            architecture=asked.architecture, objective="pgd" if robust else "cross-entropy",
            strength=max(asked.radii) if robust else 0, attack_steps=asked.attack_steps,
            relative_step=asked.relative_step, radii=asked.radii if robust else (), plan=asked.plan,
            seed=self.common.seed,
        )  # fmt: skip
        return trained(Cache(self.store, self.common.device), data.train, training)

    def measured(self, variant: Variant, kind: str) -> Made[Columns]:
        """The columns of one network, to be."""
        data, asked = self.data(variant), self.settings
        test = data.test.sample(min(asked.images, len(data.test)), self.common.seed)
        attack = PGD(min(asked.radii), steps=asked.attack_steps, relative_step=asked.relative_step)
        return Cache(self.store, self.common.device).made(
            distractor_measures, model=self.model(variant, kind, data).network, test=test, whole=data.test,
            levels=asked.levels, directions=asked.directions, attack=attack, seed=self.common.seed,
        )  # fmt: skip

    def columns(self, variant: Variant, kind: str) -> Columns:
        """Everything that is measured of one network, per image."""
        return self.measured(variant, kind).value()

    @cached_property
    def missing(self) -> dict[str, str]:
        """The networks whose training diverged, with the reason, once all tasks are done."""
        return diverged(self.store.root, self.tasks())

    @property
    def variants(self) -> list[Variant]:
        """The variants of which both networks are there.

        Raises:
            NothingLeft: none is.
        """
        every, gone = self.settings.variants, self.missing
        whole = [v for v in every if not {_name(v, STANDARD), _name(v, ROBUST)} & gone.keys()]
        return left(whole, gone)

    def tasks(self) -> list[Task]:
        """A task for each network: training and measuring it."""
        return [
            Task(_name(v, kind), cost * self.training_images(v), (place, kind),
                 file=self.measured(v, kind).file)
            for place, v in enumerate(self.settings.variants)
            for kind, cost in ((STANDARD, 1), (ROBUST, 8))
        ]  # fmt: skip

    def do(self, what: tuple[Any, ...], report: Report) -> None:
        """Do one task; that a training diverged is a result too, which `missing` tells."""
        made = self.measured(self.settings.variants[what[0]], what[1])
        for each in (made.arguments["model"], made):  # each keeps why it cannot be
            with suppress(TrainingDiverged):
                if isinstance(each, Made):
                    each.ensure(report)


def run_distractor(
    settings: DistractorSettings,
    common: Common,
    store: Store,
    progress: Progress = lambda what, share: None,
    *,
    engine: str = "inline",
    **where: Any,
) -> Record:
    """Train and measure; what the store already holds is not done again."""
    key = fingerprint([identity(settings), identity(common), REVISION])
    if record := store.finished(RECORD, GALLERY, key):
        return record
    state = Distractor(settings, common, store)
    make = (lambda: state) if engine == "inline" else partial(Distractor, settings, common, store)
    run_tasks(
        state.tasks(), make, engine=engine, device=common.device, progress=progress, store=store,
        run="distractor", **where,
    )  # fmt: skip
    store.write_tensors(GALLERY, _gallery(state), {"key": key})
    found = {"key": key, "settings": settings.model_dump(mode="json"), "missing": state.missing}
    store.write_record(RECORD, found | {"variants": [_entry(state, variant) for variant in state.variants]})
    return store.read_record(RECORD)


def _name(variant: Variant, kind: str) -> str:
    return f"{kind} network beside {variant.name}"


def _entry(state: Distractor, variant: Variant) -> Record:
    """One variant: means of both networks, and the ratio of changes at each level above 0."""
    entry: Record = {"name": variant.name} | variant.model_dump()
    seed, resamples = state.common.seed, state.common.resamples
    for kind in (STANDARD, ROBUST):
        found = {name: column.cpu() for name, column in state.columns(variant, kind).items()}
        means = mean_intervals(found, draws=generator(seed, "means"), resamples=resamples)
        ratios = [
            interval(
                lambda m: m[:, 0] / m[:, 1],
                torch.stack([found[f"signal {place}"], found[f"distractor {place}"]], 1),
                draws=generator(seed, "relative noise robustness", place), resamples=resamples,
            )
            for place in positive(state.settings)
        ]  # fmt: skip
        entry[kind] = {
            "means": {name: value.to_record() for name, value in means.items()},
            "ratios": [ratio.to_record() for ratio in ratios],
        }
    return entry


def positive(settings: DistractorSettings) -> list[int]:
    """The places of the noise levels above 0."""
    return [place for place, level in enumerate(settings.levels) if level > 0]


@one_thread()
def _gallery(state: Distractor) -> Columns:
    """Figure 16: some images, noise on either part, and both networks' gradients; for each variant."""
    found: Columns = {}
    for place, variant in enumerate(state.variants):
        data = state.data(variant)
        test = data.test.take(first_of_each_class(data.test, 8).to(data.test.labels.device))
        images, masks = test.images, test.masks
        assert masks is not None
        noise = torch.randn(images.shape, generator=generator(state.common.seed, "figure 16")).to(images)
        on_signal = masks[:, None].to(images)
        found |= {
            f"images {place}": images,
            f"masks {place}": masks.float()[:, None],
            f"noise on signal {place}": (images + 0.5 * noise * on_signal).clamp(0, 1),
            f"noise on distractor {place}": (images + 0.5 * noise * (1 - on_signal)).clamp(0, 1),
        }
        for kind in (STANDARD, ROBUST):
            model = network_of(state.model(variant, kind, data))
            found[f"gradient {kind} {place}"] = input_gradient(model, images, "logit")
    return found
