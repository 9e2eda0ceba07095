"""Classifiers at a higher resolution than the score (section 4 on ImageNet; B.7, B.8; Figures 4 and 15).

The paper compares gradients of pre-trained networks on ImageNet, at 224 px, with the score of a diffusion
model at 64 px. The same here: networks from files where they are at hand; elsewhere networks trained with
l2-PGD on the experiment's own images, enlarged. They are measured as all others are, on an evaluation set of
two sizes.
"""

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from pags.auditing import EvaluationSet
from pags.auditing.columns import pictures
from pags.auditing.result import model_record
from pags.auditing.run import settings_of
from pags.data.imageset import ImageSet
from pags.data.resize import Size, resized_set
from pags.data.sources import load_data
from pags.errors import TrainingDiverged
from pags.experiments.cache import Columns, Made, Report, identity
from pags.experiments.classifiers import Subject, Training, loaded, network_of, trained
from pags.experiments.engines import Progress, Task, one_thread, run_tasks
from pags.experiments.experiment import Experiment, first_of_each_class
from pags.experiments.plan import diverged, left
from pags.experiments.settings import ExperimentSettings, TransferSettings
from pags.records import Record
from pags.store import Store, fingerprint

RECORD, GALLERY = "records/transfer.json", "records/transfer.safetensors"
REVISION = 2


@dataclass
class Transfer:
    """The state of this part of an experiment: images at the higher resolution, and the networks.

    Args:
        settings: of the whole experiment, which has this part.
        store: where artefacts and records go.
    """

    settings: ExperimentSettings
    store: Store

    @cached_property
    def asked(self) -> TransferSettings:
        """The settings of this part."""
        assert self.settings.transfer is not None
        return self.settings.transfer

    @cached_property
    def experiment(self) -> Experiment:
        """Where the score comes from."""
        return Experiment(self.settings, self.store)

    @cached_property
    def images(self) -> ImageSet:
        """The measured images as the classifiers see them."""
        test = self.experiment.data.test
        if not self.asked.data:
            return resized_set(test, self._size(test))
        whole = load_data(self.asked.data, folder=self.settings.data_folder).test.to(self.settings.device)
        return whole.sample(min(len(test), len(whole)), self.settings.seed)

    def evaluation(self, **changes: Any) -> EvaluationSet:
        """The images with their scores at the lower resolution (B.8: scaled down)."""
        low = self.experiment.data.test
        # A score knows the classes of its own data alone.
        same = len(self.images.classes) == len(low.classes)
        conditional = None if same else False
        options: dict[str, Any] = {"targets": ("logit",), "smooth_targets": (), "radii": ()}
        return self.experiment.evaluation_of(
            self.images, tangent=None, size=(low.shape[1], low.shape[2]), conditional=conditional,
            **(options | changes),
        )  # fmt: skip

    @property
    def strengths(self) -> tuple[float, ...]:
        """The radii, rising."""
        given = sorted(network.strength for network in self.asked.pretrained)
        return tuple(given) or self.asked.strengths

    @cached_property
    def missing(self) -> dict[str, str]:
        """The networks whose training diverged, with the reason, once all tasks are done."""
        return diverged(self.store.root, self.tasks())

    @property
    def made(self) -> list[float]:
        """The radii that are not missing.

        Raises:
            NothingLeft: all are.
        """
        return left([s for s in self.strengths if self._name(s) not in self.missing], self.missing)

    def model(self, strength: float) -> Subject:
        """The network of a radius: loaded, or trained on enlarged images."""
        for given in self.asked.pretrained:
            if given.strength == strength:
                return loaded(
                    given.spec, self.images, device=self.settings.device, architecture=self.asked.architecture
                )
        training = Training(
            architecture=self.settings.training.architecture, objective="pgd", strength=strength,
            attack_steps=self.asked.attack_steps, relative_step=2.0, plan=self.asked.plan,
            seed=self.settings.seed, precision=self.settings.training.precision,
        )  # fmt: skip
        train = self.experiment.data.train
        return trained(self.experiment.cache, resized_set(train, self._size(train)), training)

    def measured(self, strength: float) -> Made[Columns]:
        """The columns of one network, to be."""
        return self.experiment.measured(self.model(strength), self.evaluation())

    def columns(self, strength: float) -> Columns:
        """Everything that is measured of one network, per image."""
        return self.measured(strength).value()

    def tasks(self) -> list[Task]:
        """A task for each network."""
        return [Task(self._name(s), 12, (s,), file=self.measured(s).file) for s in self.strengths]

    def _name(self, strength: float) -> str:
        return f"pgd {strength:g} at {'×'.join(str(side) for side in self.images.shape[1:])} px"

    def do(self, what: tuple[Any, ...], report: Report) -> None:
        """Do one task; that a training diverged is a result too, which `missing` tells."""
        with suppress(TrainingDiverged):
            self.measured(what[0]).ensure()

    def _size(self, data: ImageSet) -> Size:
        return self.asked.factor * data.shape[1], self.asked.factor * data.shape[2]


def run_transfer(
    settings: ExperimentSettings,
    store: Store,
    progress: Progress = lambda what, share: None,
    *,
    engine: str = "inline",
    **where: Any,
) -> Record:
    """Train or load the classifiers, measure them, and write the record and the gallery."""
    state = Transfer(settings, store)
    models = [state.model(strength).network for strength in state.strengths]
    key = fingerprint([identity(state.evaluation()), identity(models), settings.gallery, REVISION])
    if record := store.finished(RECORD, GALLERY, key):
        return record
    run_tasks(
        state.tasks(), (lambda: state) if engine == "inline" else partial(Transfer, settings, store),
        engine=engine, device=settings.device, progress=progress, store=store, run="transfer", **where,
    )  # fmt: skip
    store.write_tensors(GALLERY, _gallery(state), {"key": key})
    what = (
        "from files" if state.asked.pretrained else f"trained on images {state.asked.factor} times as large"
    )
    about = {"data": state.images.name, "size": list(state.images.shape), "networks": what}
    entries = [_entry(state, strength) for strength in state.made]
    found = {"key": key, **about, "images": len(state.images), "models": entries}
    store.write_record(RECORD, found | {"missing": state.missing})
    return store.read_record(RECORD)


def _entry(state: Transfer, strength: float) -> Record:
    subject = state.model(strength)
    record = model_record(
        subject.name, subject.about, settings_of(state.evaluation(), control=True), [state.columns(strength)],
        lost=None, resamples=state.settings.resamples,
    )  # fmt: skip
    return {**record, "strength": strength}


@one_thread()
def _gallery(state: Transfer) -> Columns:
    """A few images, their scores, and the gradients of every network, of the images' own classes."""
    chosen = first_of_each_class(state.images, state.settings.gallery)
    evaluation, found = state.evaluation(of_class="true"), Columns()
    for strength in state.made:
        shown = pictures(network_of(state.model(strength)), evaluation, chosen, "logit")
        name = state.model(strength).name
        found |= {"images": shown["image"], "score logit": shown["score"]}
        found |= {f"gradient {name} logit": shown["gradient"], f"lpips {name} logit": shown["lpips"]}
    return found
