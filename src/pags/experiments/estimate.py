"""How long a reproduction would take here: a step of each network is timed, and the steps are counted."""

import time
from dataclasses import dataclass

import torch
from torch import nn

from pags.classifiers.build import build_classifier
from pags.data.batches import Batch
from pags.errors import PagsError
from pags.experiments.inputs import load_data
from pags.experiments.scales import Settings
from pags.manifold.autoencoder import Autoencoder, Reconstruction
from pags.score.unet import Denoising, UNetDenoiser
from pags.seeds import generator, seeded_construction
from pags.training.objectives import CrossEntropy, Objective

STEPS = {"gradient-norm": 3.0, "smoothness": 2.0}
"""What a training step costs, in steps of cross-entropy; PGD costs 1 + 0.7 for each step of the attack."""
FORWARD, GRADIENT, COMPARISON = 1 / 3, 0.7, 0.004
"""A forward pass and an input gradient, in training steps; seconds of one LPIPS comparison."""
DIGITS = 60_000
"""Training images of MNIST."""


@dataclass(frozen=True)
class Known:
    """What is known of the data; `step`: seconds an image of the classifier's training step here."""

    shape: tuple[int, int, int]
    classes: int
    train: int
    test: int
    step: float


def estimate(settings: Settings) -> dict[str, float] | None:
    """Seconds that each part would take here from nothing; None where the data are not at hand.

    A rough number: it counts training steps, and a forward pass for every perturbed image.
    """
    known = _known(settings)
    if known is None:
        return None
    return {
        "sweep": _helpers(settings, known) + _sweeps(settings, known),
        "score": known.test * 0.005,
        "transfer": _transfer(settings, known),
        "distractor": _distractor(settings, known),
        "generation": _generation(settings, known),
        "smoothgrad": _smoothgrad(settings, known),
        "world": 1.0,
    }


def _known(settings: Settings) -> Known | None:
    sweep = settings.sweep
    try:
        data = load_data(sweep.model_copy(update={"device": "cpu"}), download=False)
    except PagsError:
        return None
    shape, classes = data.train.shape, len(data.train.classes)
    mean, std = (0.5,) * shape[0], (0.25,) * shape[0]
    with seeded_construction(0, "estimate"):
        network = build_classifier(sweep.architecture, shape[0], classes, mean=mean, std=std)
    step = _seconds(network, CrossEntropy(), shape, classes, sweep.device)
    return Known(shape, classes, len(data.train), len(data.test), step)


def _sweeps(settings: Settings, known: Known) -> float:
    sweep = settings.sweep
    robust = [(s, strength) for s in sweep.sweeps for strength in s.strengths if strength > 0]
    trained = 1 + sum(_cost(s.objective, s.attack_steps) for s, _ in robust)
    passes = sweep.directions * (3 * len(sweep.norms) + 8)
    measured = (len(robust) + 2) * known.test * (passes * FORWARD * known.step + COMPARISON)
    return sweep.repeats * (trained * sweep.classifier.epochs * known.train * known.step + measured)


def _transfer(settings: Settings, known: Known) -> float:
    config = settings.transfer
    if config.pretrained:
        return len(config.pretrained) * known.test * 50 * known.step
    trained = sum(_cost("pgd" if radius else "", config.attack_steps) for radius in config.strengths)
    return trained * config.plan.epochs * known.train * known.step * config.factor**2


def _distractor(settings: Settings, known: Known) -> float:
    """Images are twice as large as the digits."""
    config = settings.distractor
    whole = config.train_images or (known.train if config.data == settings.sweep.data else DIGITS)
    images = whole + (len(config.variants) - 1) * (config.variant_images or whole)
    trained = (1 + _cost("pgd", config.attack_steps)) * config.plan.epochs * images
    noisy = 4 * len(config.variants) * config.images * config.directions * len(config.levels)
    return 2 * known.step * (trained + noisy * FORWARD)


def _generation(settings: Settings, known: Known) -> float:
    models = 2 + max(len(sweep.strengths) for sweep in settings.sweep.sweeps)
    return 60 * len(settings.generation.tasks) * models * settings.generation.images * GRADIENT * known.step


def _smoothgrad(settings: Settings, known: Known) -> float:
    models = max(len(sweep.strengths) for sweep in settings.sweep.sweeps)
    return 4 * settings.smoothgrad_samples * models * known.test * GRADIENT * known.step


def _cost(objective: str, attack_steps: int) -> float:
    """Of a training step, in steps of cross-entropy."""
    return 1 + GRADIENT * attack_steps if objective == "pgd" else STEPS.get(objective, 1.0)


def _helpers(settings: Settings, known: Known) -> float:
    """Autoencoder and denoiser, unless they come from files."""
    sweep, seconds = settings.sweep, 0.0
    with seeded_construction(0, "estimate"):
        coder = Autoencoder(known.shape, sweep.latent, sweep.autoencoder_widths)
        unet = UNetDenoiser(known.shape[0], classes=known.classes, widths=sweep.denoiser_widths)
    if not sweep.autoencoder_file:
        each = _seconds(coder, Reconstruction(), known.shape, known.classes, sweep.device)
        seconds += sweep.autoencoder.epochs * known.train * each
    if not (sweep.denoiser_file or sweep.conditional_denoiser_file):
        each = _seconds(unet, Denoising(), known.shape, known.classes, sweep.device)
        seconds += sweep.denoiser.epochs * known.train * each
    return seconds


def _seconds(
    network: nn.Module, objective: Objective, shape: tuple[int, int, int], classes: int, device: str
) -> float:
    """Seconds an image of a training step, the faster of two after a first."""
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    draws = generator(0, "estimate")
    images = torch.rand((64, *shape), generator=draws).to(device)
    labels = torch.randint(0, classes, (64,), generator=draws).to(device)
    batch, times = Batch(images, labels, torch.arange(64)), []
    for _ in range(3):
        started = time.perf_counter()
        objective(network, batch, draws).mean().backward()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[1:]) / 64
