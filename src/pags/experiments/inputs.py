"""What an experiment is given instead of making it: images, and networks from files."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from pags.arrays import Images, Labels
from pags.data.imageset import DataSet
from pags.data.sources import load
from pags.errors import UsageError
from pags.experiments.config import SweepConfig
from pags.score.denoiser import Denoiser
from pags.score.load import load_denoiser
from pags.store import read_safetensors


def load_data(config: SweepConfig, *, download: bool = True) -> DataSet:
    """The images of an experiment on its device: all, or the seeded choices that the settings ask for."""
    folder = Path(config.data_folder) if config.data_folder else None
    whole = load(config.data, folder=folder, download=download)
    train, test = whole.train, whole.test
    if config.train_images and config.train_images < len(train):
        train = train.sample(config.train_images, config.seed)
    if config.images and config.images < len(test):
        test = test.sample(config.images, config.seed)
    return DataSet(train.to(config.device), test.to(config.device))


@dataclass(frozen=True)
class PairOfDenoisers:
    """Two networks behind one contract: without labels the one, with labels the other."""

    unconditional: Denoiser
    conditional: Denoiser

    def __call__(self, images: Images, sigma: float, labels: Labels | None = None) -> Images:
        if labels is None:
            return self.unconditional(images, sigma)
        return self.conditional(images, sigma, labels)


def denoiser_of_files(unconditional: str | None, conditional: str | None, device: str) -> Denoiser:
    """Denoisers from files; a missing one is stood in for by the other, if that can do both."""
    loaded = [load_denoiser(Path(path)) if path else None for path in (unconditional, conditional)]
    for network in loaded:
        if isinstance(network, nn.Module):
            network.to(device)
    first, second = loaded[0] or loaded[1], loaded[1] or loaded[0]
    assert first is not None
    assert second is not None
    return PairOfDenoisers(first, second)


def fill(network: nn.Module, path: Path) -> None:
    """Weights from a file of ours into a network of the same build."""
    tensors, _ = read_safetensors(path)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise UsageError(
            "an autoencoder of the settings' widths and latent size",
            got=f"{path}: {str(error).splitlines()[-1].strip()}",
            suggestion="setting autoencoder_widths and latent to those it was trained with",
        ) from error
