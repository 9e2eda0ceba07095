"""The manifold and the score for an audit: from files, or estimated here from images of the data.

What is estimated here is small on purpose: minutes on two cores. Every choice follows a rule that is stated
where it stands, and what came of it is part of the record.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pags.arrays import flatten
from pags.auditing.sizes import reduced
from pags.data.imageset import ImageSet
from pags.errors import UsageError
from pags.experiments.workshop import Workshop
from pags.manifold.autoencoder import Autoencoder, Reconstruction
from pags.score.denoiser import Denoiser
from pags.score.exact import IdealDenoiser
from pags.score.unet import Denoising, UNetDenoiser
from pags.seeds import seeded_construction
from pags.store import Record, fingerprint, read_safetensors
from pags.training.fit import Plan, Report

REVISION = 1
"""Raised by whoever changes what is trained here."""

FEW = 1000
"""Images below which an estimate is said to be a poor one, and knows no classes."""
MOST = 5000
"""Images that are used at most."""
PIXELS_SEEN = {"autoencoder": 60e6, "denoiser": 20e6}
"""Places times images times epochs that a training may see; the epochs follow from it, at most 60."""
VARIANCE = 0.9
"""The latent space has as many dimensions as principal components hold this share of the variance."""
LATENT = (4, 128)


@dataclass(frozen=True)
class Estimates:
    """The images that estimates are made from, at the size of the score and the tangent spaces.

    Args:
        workshop: where trained networks are kept.
        data: at most `MOST` images, at that size.
        classes: of the classifier.
        seed: names every draw.
    """

    workshop: Workshop
    data: ImageSet
    classes: int
    seed: int

    def autoencoder(self, latent: int | None, report: Report | None = None) -> tuple[Autoencoder, Record]:
        """The autoencoder trained on the images, and what is to be said about it."""
        latent = latent or principal_dimension(self.data.images)
        widths = (32, 64, 128)[: _halvings(self.data.shape, 3 if max(self.data.shape[1:]) > 16 else 2)]
        plan = Plan(
            epochs=self._epochs("autoencoder"),
            batch_size=64,
            optimizer="adam",
            learning_rate=2e-3,
            weight_decay=0,
        )
        recipe = self._recipe("autoencoder", plan) | {"latent": latent, "widths": list(widths)}

        def build() -> Autoencoder:
            with seeded_construction(self.seed, "autoencoder"):
                return Autoencoder(self.data.shape, latent, widths)

        network = self.workshop.trained(
            "autoencoders", recipe, build, Reconstruction(), self.data, plan, seed=self.seed, report=report
        )
        rule = f"{latent} dimensions"
        return network, self._about(recipe) | {"latent": latent, "rule": rule}

    def denoiser(self, report: Report | None = None) -> tuple[UNetDenoiser, Record]:
        """The denoiser trained on the images; it knows classes where there are enough images of all."""
        classes = self.classes if self._all_classes() and len(self.data) >= FEW else 0
        wide = max(self.data.shape[1:]) <= 32
        widths: tuple[int, ...] = (32, 64) if wide else (16, 32, 64)
        widths = widths[: 1 + _halvings(self.data.shape, len(widths) - 1)]
        plan = Plan(
            epochs=self._epochs("denoiser"), batch_size=64, optimizer="adam", learning_rate=3e-3,
            weight_decay=0, average=0.99,
        )  # fmt: skip
        recipe = self._recipe("denoiser", plan) | {"classes": classes, "widths": list(widths)}

        def build() -> UNetDenoiser:
            with seeded_construction(self.seed, "denoiser"):
                return UNetDenoiser(self.data.shape[0], classes=classes, widths=widths)

        network = self.workshop.trained(
            "denoisers", recipe, build, Denoising(), self.data, plan, seed=self.seed, report=report
        )
        return network, self._about(recipe) | {"classes": classes}

    def ideal(self) -> IdealDenoiser:
        """The ideal denoiser of the images: a second estimate of the score, which knows nothing but them."""
        images, labels = self.data.images, self.data.labels
        device = self.workshop.device
        return IdealDenoiser(images.to(device), labels.to(device) if self._all_classes() else None)

    def notes(self) -> list[str]:
        """What is to be kept in mind."""
        return (
            [f"estimated from {len(self.data)} images, too few for a good estimate"]
            if len(self.data) < FEW
            else []
        )

    def _all_classes(self) -> bool:
        return len(self.data.labels.unique()) == self.classes

    def _epochs(self, network: str) -> int:
        places = len(self.data) * self.data.shape[1] * self.data.shape[2]
        return max(1, min(60, round(PIXELS_SEEN[network] / places)))

    def _recipe(self, stage: str, plan: Plan) -> Record:
        return {
            "stage": [stage, REVISION],
            "seed": self.seed,
            "data": self.data.provenance,
            "shape": list(self.data.shape),
            "n": len(self.data),
            "plan": plan.model_dump(mode="json"),
        }

    def _about(self, recipe: Record) -> Record:
        return {"from": "trained here", "recipe": fingerprint(recipe), "images": len(self.data)}


def at_size(data: ImageSet, side: int | None, seed: int) -> ImageSet:
    """At most `MOST` of the images, a seeded choice, with the shorter side at `side` pixels (None: as is)."""
    part = data if len(data) <= MOST else data.sample(MOST, seed)
    if side is None or min(part.shape[1:]) == side:
        return part
    pieces = [part.take(slice(i, i + 64)).images for i in range(0, len(part), 64)]
    pixels = torch.cat([reduced(piece, target_size(part.shape, side)).clamp(0, 1) for piece in pieces])
    return ImageSet(pixels, part.labels, part.classes, part.name, part.provenance | {"side": side})


def target_size(shape: tuple[int, int, int], side: int | None) -> tuple[int, int]:
    """Height and width with the shorter side at `side` pixels, in the same proportions."""
    _, height, width = shape
    if side is None:
        return height, width
    shorter = min(height, width)
    return round(height * side / shorter), round(width * side / shorter)


def principal_dimension(images: Tensor) -> int:
    """The number of principal components that hold 90 % of the variance, from 4 to 128."""
    rows = flatten(images[:2000]).double()
    rows = rows - rows.mean(0)
    gram = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
    variances = torch.linalg.eigvalsh(gram).flip(0).clamp_min(0)
    low, high = LATENT
    if not float(variances.sum()) > 0:
        return low
    shares = variances.cumsum(0) / variances.sum()
    return max(low, min(high, 1 + int((shares < VARIANCE).sum()), rows.shape[1] // 2))


def load_autoencoder(path: Path) -> Autoencoder:
    """An autoencoder from a file of ours; its build is read off the weights (of square images).

    Raises:
        PagsError: the file cannot be read.
        UsageError: it holds something else.
    """
    tensors, _ = read_safetensors(path)
    try:
        latent, size = tensors[
            max(n for n in tensors if n.startswith("encoder.") and tensors[n].ndim == 2)
        ].shape
        filters = [v for n, v in tensors.items() if n.startswith("encoder.") and v.ndim == 4]
        widths = sorted(len(v) for v in filters)
        channels = min(v.shape[1] for v in filters)
        side = math.isqrt(size // widths[-1]) * 2 ** len(widths)
        network = Autoencoder((channels, side, side), latent, widths)
        network.load_state_dict(tensors)
    except (ValueError, KeyError, IndexError, RuntimeError) as error:
        raise UsageError(
            "an autoencoder that pags has trained, of square images",
            got=f"{path} ({len(tensors)} tensors of another build)",
            suggestion="a file of the folder autoencoders/, or no --autoencoder",
        ) from error
    return network.eval()


def load_score(path: Path) -> Denoiser:
    """A denoiser from a file."""
    from pags.score.load import load_denoiser

    return load_denoiser(path)


def _halvings(shape: tuple[int, int, int], most: int) -> int:
    """How often both sides can be halved, at most so often."""
    return next(t for t in range(most, -1, -1) if shape[1] % 2**t == 0 and shape[2] % 2**t == 0)
