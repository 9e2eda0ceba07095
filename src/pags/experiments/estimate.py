"""How long a reproduction would take here: a step of each network is timed, and the steps are counted."""

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
from pags.experiments.classifiers import blank_classifier
from pags.experiments.experiment import Experiment
from pags.experiments.settings import ExperimentSettings
from pags.manifold.autoencoder import Autoencoder, Reconstruction
from pags.score.unet import Denoising
from pags.seeds import generator
from pags.store import Store
from pags.training.objectives import CrossEntropy, Objective, get_objective

FORWARD, GRADIENT, COMPARISON = 1 / 3, 0.7, 0.004
"""A forward pass and an input gradient, in training steps; seconds of one LPIPS comparison."""
DIGITS = 60_000
"""Training images of MNIST."""


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
    def step(self) -> float:
        """Seconds per image of the classifier's training step."""
        network = blank_classifier(self.data.train, self.settings.training)
        return self.seconds(network, CrossEntropy())

    def parts(self) -> dict[str, float]:
        """Seconds by part."""
        return {
            "sweep": self.estimators() + self.sweeps(), "score": len(self.data.test) * 0.005,
            "transfer": self.transfer(), "distractor": self.distractor(), "generation": self.generation(),
            "smoothgrad": self.smoothgrad(), "manifold": self.manifold(), "world": 1.0, "shipped": 5.0,
        }  # fmt: skip

    def sweeps(self) -> float:
        """Trainings and measures."""
        asked, train, test = self.settings, len(self.data.train), len(self.data.test)
        robust = [(s, strength) for s in asked.sweeps for strength in s.strengths if strength > 0]
        trained = 1 + sum(get_objective(s.objective).cost(s.attack_steps) / 3 for s, _ in robust)
        passes = asked.measures.directions * (3 * len(asked.measures.norms or ()) + 8)
        measured = (len(robust) + 2) * test * (passes * FORWARD * self.step + COMPARISON)
        return asked.repeats * (trained * asked.training.plan.epochs * train * self.step + measured)

    def estimators(self) -> float:
        """Autoencoder and denoiser, unless they come from files."""
        found = 0.0
        for _, made in self.experiment.estimators.trainings:
            network = made.blank()
            objective: Objective = Reconstruction() if isinstance(network, Autoencoder) else Denoising()
            epochs = made.arguments["plan"].epochs
            found += epochs * len(self.data.train) * self.seconds(network, objective)
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

    def seconds(self, network: nn.Module, objective: Objective) -> float:
        """Seconds per image of a training step, the faster of two after a first."""
        network.to(memory_format=torch.channels_last)
        draws, classes = generator(0, "estimate"), len(self.data.train.classes)
        images = torch.rand((64, *self.data.train.shape), generator=draws)
        labels = torch.randint(0, classes, (64,), generator=draws)
        batch, times = Batch(images, labels, torch.arange(64)), []
        for _ in range(3):
            started = time.perf_counter()
            objective(network, batch, draws).mean().backward()
            times.append(time.perf_counter() - started)
        return min(times[1:]) / 64
