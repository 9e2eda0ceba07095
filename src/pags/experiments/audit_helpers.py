"""What an audit needs beside the model: tangent spaces, a score and a second one, from files or estimated."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from pags.auditing.sizes import Size
from pags.data.imageset import ImageSet
from pags.data.sources import load
from pags.errors import UsageError
from pags.experiments.audit_estimates import (
    FEW,
    Estimates,
    at_size,
    load_autoencoder,
    load_score,
    target_size,
)
from pags.experiments.audit_settings import AuditSettings
from pags.experiments.recipes import file_digest
from pags.experiments.workshop import Workshop
from pags.manifold.autoencoder import Autoencoder
from pags.manifold.tangent import DecoderTangent
from pags.score.denoiser import Denoiser, score_of
from pags.store import Record, Store

LARGEST = 64
"""Pixels of the shorter side up to which score and tangent spaces are taken at the images' own size."""

Progress = Callable[[str, float], None]
"""Told what is being done and which share of the whole is finished."""


@dataclass(frozen=True)
class Helpers:
    """The manifold and the score, and what is to be said about them."""

    tangent: DecoderTangent
    denoiser: Denoiser
    second: Denoiser
    size: Size
    sigma: float
    about: Record


def helpers_for(
    settings: AuditSettings, store: Store, test: ImageSet, classes: int, progress: Progress
) -> Helpers:
    """Manifold and score: what files are given is read and tried before anything is trained.

    Args:
        settings: which files, which images, which size.
        store: where trained networks are kept.
        test: the images of the audit.
        classes: of the classifiers.
        progress: told what is being trained.

    Raises:
        UsageError: files or images that do not fit the images of the audit.
    """
    train = load(settings.tangent_data or settings.data).train
    side = side_for(settings, test, len(train))
    size = target_size(test.shape, side)
    sigma = settings.sigma or (1.2 if min(size) >= LARGEST else 0.5)
    data = at_size(train, side, settings.seed)
    _check_same_shape(data, size, test)
    autoencoder = _read_autoencoder(settings.autoencoder, settings.device, data)
    denoiser, second = (
        _read_denoiser(path, settings.device, data, sigma)
        for path in (settings.denoiser, settings.second_denoiser)
    )
    made = Estimates(Workshop(store, settings.device), data, classes, settings.seed)
    notes = [] if second else [f"the ceiling: {note}" for note in made.notes()]
    manifold, score, beside = (
        _from_file(path) for path in (settings.autoencoder, settings.denoiser, settings.second_denoiser)
    )
    if autoencoder is None:
        notes += [f"the tangent spaces: {note}" for note in made.notes()]
        autoencoder, manifold = made.autoencoder(
            settings.latent, lambda share: progress("training the autoencoder", 0.12 * share)
        )
    if denoiser is None:
        notes += [f"the score: {note}" for note in made.notes()]
        denoiser, score = made.denoiser(lambda share: progress("training the denoiser", 0.12 + 0.28 * share))
    if second is None:
        second, beside = made.ideal(), {"from": "the ideal denoiser of the same images", "images": len(data)}
    about = {"manifold": manifold, "score": score, "ceiling": beside, "notes": notes, "data": train.name}
    return Helpers(DecoderTangent(autoencoder, batch_size=8), denoiser, second, size, sigma, about)


def side_for(settings: AuditSettings, test: ImageSet, train: int) -> int | None:
    """Pixels of the shorter side for the score and the tangent spaces; None: the images' own."""
    if settings.side is not None or min(test.shape[1:]) <= LARGEST:
        return settings.side
    given = settings.denoiser is not None or settings.autoencoder is not None
    return LARGEST if given or train >= FEW else LARGEST // 2


def _read_autoencoder(path: Path | None, device: str, data: ImageSet) -> Autoencoder | None:
    if path is None:
        return None
    autoencoder = load_autoencoder(path).to(device)
    try:
        shape = tuple(autoencoder(data.take(slice(0, 1)).images.to(device)).shape[1:])
    except RuntimeError:
        shape = ()  # images of another size than the file's do not go through
    if shape != data.shape:
        raise UsageError(
            f"an autoencoder of images of shape {data.shape}", got=path, suggestion="--side, or another file"
        )
    return autoencoder


def _read_denoiser(path: Path | None, device: str, data: ImageSet, sigma: float) -> Denoiser | None:
    if path is None:
        return None
    denoiser = load_score(path)
    if isinstance(denoiser, nn.Module):
        denoiser.to(device)
    score_of(denoiser, data.take(slice(0, 1)).images.to(device), sigma)
    return denoiser


def _from_file(path: Path | None) -> Record:
    return {} if path is None else {"from": str(path), "recipe": file_digest(path)}


def _check_same_shape(data: ImageSet, size: Size, test: ImageSet) -> None:
    wanted = (test.shape[0], *size)
    if data.shape != wanted:
        raise UsageError(
            f"images of shape {wanted} for the manifold and the score",
            got=f"{data.shape} from {data.name}",
            suggestion="--tangent-data of the same channels and proportions",
        )


def _on(denoiser: Denoiser, device: str) -> Denoiser:
    if isinstance(denoiser, nn.Module):
        denoiser.to(device)
    return denoiser
