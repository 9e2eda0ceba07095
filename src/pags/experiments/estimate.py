"""How long a reproduction would take here: a step of each network is timed, and the steps are counted."""

import os
import resource
import sys
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from pags.data.batches import Batch
from pags.data.imageset import DataSet
from pags.data.sources import load_data
from pags.errors import PagsError
from pags.experiments import bayes
from pags.experiments.classifiers import blank_classifier
from pags.experiments.engines import one_thread
from pags.experiments.experiment import Experiment
from pags.experiments.settings import ExperimentSettings
from pags.manifold.autoencoder import Autoencoder, Reconstruction
from pags.records import Record
from pags.score.unet import Denoising
from pags.seeds import generator
from pags.store import Store
from pags.training.objectives import CrossEntropy, Objective, get_objective
from pags.training.parallel import make_fabric
from pags.training.precision import AnyPrecision, decided
from pags.training.stepping import InPrecision

FORWARD, GRADIENT, COMPARISON = 1 / 3, 0.7, 0.004
"""A forward pass and an input gradient, in training steps; seconds of one LPIPS comparison."""
DIGITS = 60_000
"""Training images of MNIST."""
BATCH = 128
"""Images of a timed step."""
RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in what the system counts memory in."""


def estimate(settings: ExperimentSettings) -> dict[str, float] | None:
    """Seconds that each part would take here from nothing; None where the data are not at hand.

    A rough number: it counts training steps, and a forward pass for every perturbed image.
    """
    try:
        load_data(settings.data, folder=settings.data_folder, download=False)
    except PagsError:
        return None
    with TemporaryDirectory() as folder:  # where nothing is kept
        return _Estimate(settings.with_(device="cpu"), Store(Path(folder))).parts()


def plan(settings: ExperimentSettings, store: Store) -> Record:
    """What the sweeps of an experiment come to here, before anything starts.

    Returns:
        `networks` (how many are trained) and `there` (kept already); `passes` over the training images, a
        training step counting as one however much its objective costs; `seconds` on one core from steps that
        were timed, `cores`, and `memory` in bytes: the peak of this process, which held the images and took
        those steps, as each worker will; `disk` in bytes, of all weights.
    """
    made = _Estimate(settings.with_(device="cpu"), store)
    networks = [task for task in made.experiment.tasks() if task.what[0] in ("estimator", "train")]
    weights = {"train": made.network, "estimator": None}
    blanks = [weights[task.what[0]] or made.experiment.result(task.what).blank() for task in networks]
    epochs = [made.experiment.result(task.what).arguments for task in networks]
    return {
        "networks": len(networks),
        "there": sum(store.has(task.file) for task in networks),
        "passes": sum(a["plan"].epochs if "plan" in a else a["training"].plan.epochs for a in epochs),
        "seconds": made.estimators() + made.sweeps(),
        "cores": os.cpu_count() or 1,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT,
        "disk": sum(4 * sum(w.numel() for w in blank.state_dict().values()) for blank in blanks),
    }


@dataclass
class _Estimate:
    settings: ExperimentSettings
    store: Store

    @cached_property
    def data(self) -> DataSet:
        """The images."""
        return self.experiment.data

    @cached_property
    def experiment(self) -> Experiment:
        """The experiment, of which nothing is computed."""
        return Experiment(self.settings, self.store)

    @cached_property
    def network(self) -> nn.Module:
        """A classifier with its first weights."""
        return blank_classifier(self.data.train, self.settings.training)

    @cached_property
    def step(self) -> float:
        """Seconds per image of the standard classifier's training step."""
        return self.seconds(self.network, CrossEntropy(), self.settings.training.precision)

    def parts(self) -> dict[str, float]:
        """Seconds by part."""
        return {
            "sweep": self.estimators() + self.sweeps(), "score": len(self.data.test) * 0.005,
            "transfer": self.transfer(), "distractor": self.distractor(), "generation": self.generation(),
            "smoothgrad": self.smoothgrad(), "manifold": self.manifold(), "bayes": self.bayes(),
            "world": 1.0, "shipped": 5.0,
        }  # fmt: skip

    def sweeps(self) -> float:
        """Trainings and measures."""
        asked, train, test = self.settings, len(self.data.train), len(self.data.test)
        steps, robust = self.step, 0
        for sweep in asked.sweeps:
            strengths = [strength for strength in sweep.strengths if strength > 0]
            objective = self.experiment.training(sweep.objective, strengths[0]).make_objective()
            steps += len(strengths) * self.seconds(self.network, objective, asked.training.precision)
            robust += len(strengths)
        passes = asked.measures.directions * (3 * len(asked.measures.norms or ()) + 8)
        measured = (robust + 2) * test * (passes * FORWARD * self.float_step + COMPARISON)
        return asked.repeats * (steps * asked.training.plan.epochs * train + measured)

    @cached_property
    def float_step(self) -> float:
        """The same in float32, in which everything is measured."""
        return self.seconds(self.network, CrossEntropy(), "32-true")

    def estimators(self) -> float:
        """Autoencoder and denoiser, unless they come from files."""
        found = 0.0
        for _, made in self.experiment.estimators.trainings:
            network = made.blank()
            objective: Objective = Reconstruction() if isinstance(network, Autoencoder) else Denoising()
            epochs, precision = made.arguments["plan"].epochs, made.arguments["precision"]
            found += epochs * len(self.data.train) * self.seconds(network, objective, precision)
        return found

    def transfer(self) -> float:
        """Networks at a higher resolution."""
        asked = self.settings.transfer
        if asked is None:
            return 0.0
        if asked.pretrained:
            return len(asked.pretrained) * len(self.data.test) * 50 * self.step
        cost = get_objective("pgd").cost(asked.attack_steps) / 3
        trained = sum(cost if radius else 1 for radius in asked.strengths)
        return trained * asked.plan.epochs * len(self.data.train) * self.step * asked.factor**2

    def distractor(self) -> float:
        """Images are twice as large as the digits."""
        asked = self.settings.distractor
        if asked is None:
            return 0.0
        known = len(self.data.train) if asked.data == self.settings.data else DIGITS
        whole = asked.train_images or known
        images = whole + (len(asked.variants) - 1) * (asked.variant_images or whole)
        trained = (1 + get_objective("pgd").cost(asked.attack_steps) / 3) * asked.plan.epochs * images
        noisy = 4 * len(asked.variants) * asked.images * asked.directions * len(asked.levels)
        return 2 * self.step * (trained + noisy * FORWARD)

    def generation(self) -> float:
        """Following gradients, about 60 steps for each task."""
        asked = self.settings.generation
        if asked is None:
            return 0.0
        models = 2 + max(len(sweep.strengths) for sweep in self.settings.sweeps)
        return 60 * len(asked.tasks) * models * asked.images * GRADIENT * self.step

    def smoothgrad(self) -> float:
        """Gradients of noisy copies, at four levels."""
        models = max(len(sweep.strengths) for sweep in self.settings.sweeps)
        return 4 * self.settings.smoothgrad_samples * models * len(self.data.test) * GRADIENT * self.step

    def manifold(self) -> float:
        """Perturbations on 200 images for each of about ten kinds of tangent spaces, which cost as much."""
        asked, models = self.settings, max(len(sweep.strengths) for sweep in self.settings.sweeps)
        return 10 * 200 * (models * 20 * asked.measures.directions * FORWARD + 100) * self.step

    def bayes(self) -> float:
        """Hundreds of calls of the denoiser for each look at each of 100 images, at three noise levels."""
        calls = 2 * bayes.LEVELS * bayes.DRAWS * len(self.data.train.classes) * (1 + 3 * bayes.DIRECTIONS)
        return len(bayes.SIGMAS) * bayes.IMAGES * calls * FORWARD * self.step

    def seconds(self, network: nn.Module, objective: Objective, precision: AnyPrecision) -> float:
        """Seconds per image of a training step on one thread, the faster of two after a first."""
        fabric = make_fabric(accelerator="cpu", precision=decided(precision, "cpu"))
        network = InPrecision(network.to(memory_format=torch.channels_last), fabric)
        draws, classes = generator(0, "estimate"), len(self.data.train.classes)
        images = torch.rand((BATCH, *self.data.train.shape), generator=draws)
        labels = torch.randint(0, classes, (BATCH,), generator=draws)
        batch, times = Batch(images, labels, torch.arange(BATCH)), []
        with one_thread():
            for _ in range(3):
                started = time.perf_counter()
                objective(network, batch, draws).mean().backward()
                times.append(time.perf_counter() - started)
        return min(times[1:]) / BATCH
