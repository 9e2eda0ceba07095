"""One way to the manifold and the score: from files, from a user's code, or trained here and kept."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pags.arrays import Images, Labels, flatten
from pags.data.imageset import ImageSet
from pags.data.resize import Size, resized_set
from pags.errors import UsageError
from pags.experiments.cache import Cache, Lazy, Made, Work, file_digest, network
from pags.experiments.settings import Manifold, Score
from pags.manifold.autoencoder import Autoencoder, DecoderKind, Reconstruction, load_autoencoder
from pags.manifold.estimators import fit_tangent, get_tangent
from pags.manifold.tangent import DecoderTangent, TangentEstimator
from pags.plugins import is_plugin, load_plugin
from pags.records import Record
from pags.score.denoiser import Denoiser, knows_all, knows_classes, score_of
from pags.score.load import load_denoiser, located
from pags.score.unet import Denoising, UNetDenoiser
from pags.seeds import seeded_construction
from pags.training.fit import Plan
from pags.training.precision import Precision, decided

FEW = 1000
"""Images below which an estimate is said to be a poor one, and knows no classes."""
MOST = 5000
"""Images that small estimators are trained on at most."""
NEARBY = 1.1
"""Factor of the noise level at which a denoiser is a second estimate of its own score."""
PIXELS_SEEN = {"autoencoder": 60e6, "denoiser": 20e6}
"""Places times images times epochs that a small training may see; its epochs follow from it, at most 60."""
VARIANCE = 0.9
"""Where no dimension is named, as many principal components as hold this share of the variance."""
LATENT = (4, 128)


def blank_autoencoder(
    train: ImageSet, latent: int, widths: tuple[int, ...], decoder: DecoderKind, seed: int
) -> Autoencoder:
    """The autoencoder with its first weights."""
    with seeded_construction(seed, "autoencoder"):
        return Autoencoder(train.shape, latent, widths, decoder)


@network("autoencoders", blank_autoencoder, revision=2)
def autoencoder(
    train: ImageSet, latent: int, widths: tuple[int, ...], decoder: DecoderKind, plan: Plan, seed: int,
    precision: Precision, *, work: Work,
) -> Autoencoder:  # fmt: skip
    """The autoencoder whose decoder's tangent spaces are the manifold's."""
    blank = blank_autoencoder(train, latent, widths, decoder, seed)
    return work.train(blank, Reconstruction(), train, plan, seed=seed, precision=precision)


def blank_denoiser(train: ImageSet, classes: int, widths: tuple[int, ...], seed: int) -> UNetDenoiser:
    """The denoiser with its first weights."""
    with seeded_construction(seed, "denoiser"):
        return UNetDenoiser(train.shape[0], classes=classes, widths=widths)


@network("denoisers", blank_denoiser, revision=2)
def denoiser(
    train: ImageSet, classes: int, widths: tuple[int, ...], plan: Plan, seed: int, precision: Precision, *,
    work: Work,
) -> UNetDenoiser:  # fmt: skip
    """The denoiser whose score gradients are compared with."""
    blank = blank_denoiser(train, classes, widths, seed)
    return work.train(blank, Denoising(), train, plan, seed=seed, precision=precision)


@dataclass(frozen=True)
class PairOfDenoisers:
    """Two networks behind one contract: without labels the one, with labels the other."""

    unconditional_one: Denoiser
    conditional_one: Denoiser

    @property
    def classes(self) -> int:
        """Of the conditional one."""
        return int(getattr(self.conditional_one, "classes", 0))

    def __call__(self, images: Images, sigma: float, labels: Labels | None = None) -> Images:
        if labels is None:
            return self.unconditional_one(images, sigma)
        return self.conditional_one(images, sigma, labels)


@dataclass(frozen=True)
class NearbyDenoiser:
    """A denoiser at another noise level than it is asked for: how similar a score is to itself, nearly."""

    denoiser: Denoiser
    factor: float

    def __call__(self, images: Images, sigma: float, labels: Labels | None = None) -> Images:
        return self.denoiser(images, self.factor * sigma, labels)


@dataclass(eq=False)
class Estimators:
    """The manifold and the score of an experiment.

    Args:
        cache: where trained networks are kept.
        train: the images that they are estimated from, at the size of the score and the tangent spaces.
        manifold, score: what is asked for.
        seed: of what is trained.
    """

    cache: Cache
    train: ImageSet
    manifold: Manifold
    score: Score
    seed: int

    @property
    def trainings(self) -> list[tuple[str, Made[Any]]]:
        """What has to be trained, with a name for people."""
        found: list[tuple[str, Made[Any]]] = []
        needs = get_tangent(self.manifold.estimator).needs
        if needs == "autoencoder" and self.manifold.file is None:
            found.append(("training the autoencoder", self._autoencoder))
        if self.score.file is None and self.score.conditional_file is None:
            found.append(("training the denoiser", self._denoiser))
        return found

    @cached_property
    def latent(self) -> int:
        """k, given or found."""
        return self.manifold.latent or principal_dimension(self.train.images[:2000])

    @cached_property
    def tangent(self) -> Lazy[Any]:
        """The estimator of tangent spaces."""
        asked, entry = self.manifold, get_tangent(self.manifold.estimator)
        if asked.file is not None:
            path = asked.file
            return Lazy(
                ["autoencoder", file_digest(path)], lambda: DecoderTangent(self._read(path), batch_size=8)
            )
        needed = {"autoencoder": self._autoencoder, "denoiser": self.denoiser, None: None}[entry.needs]
        about = [asked.estimator, entry.source, needed or [self.train, self.latent]]
        return Lazy(about, lambda: self._fitted(entry.needs))

    @cached_property
    def denoiser(self) -> Lazy[Any]:
        """The denoiser: for all classes, for each, or for both, as `classes` and `unconditional` say."""
        asked = self.score
        if asked.file is None and asked.conditional_file is None:
            return Lazy(
                self._denoiser, self._denoiser.value, {"classes": self._classes, "unconditional": True}
            )
        digests = [None if f is None else self._content(f) for f in (asked.file, asked.conditional_file)]
        found = self._pair(
            *(None if f is None else self._loaded(f) for f in (asked.file, asked.conditional_file))
        )
        return Lazy(digests, lambda: found)

    @cached_property
    def second(self) -> Lazy[Any]:
        """Another estimate of the same score: a second denoiser, or the same one at a nearby noise level."""
        if self.score.second_file is not None:
            found = self._loaded(self.score.second_file)
            return Lazy(self._content(self.score.second_file), lambda: found)
        first = self.denoiser
        facts = {"classes": int(getattr(first, "classes", 0)), "unconditional": knows_all(first)}
        return Lazy(["nearby", NEARBY, first], lambda: NearbyDenoiser(first, NEARBY), facts)

    def about(self) -> Record:
        """Where the manifold, the score and its second estimate come from, and what is to be kept in mind."""
        few = f"estimated from {len(self.train)} images, too few for a good estimate"
        poor, trained = len(self.train) < FEW, {name for name, _ in self.trainings}
        notes = [f"the tangent spaces: {few}"] if poor and "training the autoencoder" in trained else []
        notes += [f"the score: {few}"] if poor and "training the denoiser" in trained else []
        beside = self.score.second_file or f"the same denoiser at {NEARBY:g} times the noise"
        return {
            "manifold": {"from": str(self.manifold.file or self.manifold.estimator), "latent": self.latent},
            "score": {"from": self._score_from(), "classes": knows_classes(self.denoiser)},
            "ceiling": {"from": beside},
            "notes": notes,
            "data": self.train.name,
            "images": len(self.train),
        }

    def check(self, sigma: float) -> None:
        """Raise for networks or files that do not fit the images, before anything is trained."""
        for _, made in self.trainings:
            made.blank()
        one = self.train.take(slice(0, 1)).images.to(self.cache.device)
        labels = torch.zeros(1, dtype=torch.long, device=one.device)
        for files, each in (
            ((self.score.file, self.score.conditional_file), self.denoiser),
            ((self.score.second_file,), self.second),
        ):
            if any(files) and each is not None:
                score_of(each, one, sigma, None if knows_all(each) else labels)
                if knows_classes(each):
                    score_of(each, one, sigma, labels)
        if self.manifold.file is not None:
            file_digest(
                self.manifold.file
            )  # a file that is not there is the user's mistake, not an artefact's
            self._read(self.manifold.file)

    @cached_property
    def _autoencoder(self) -> Made[Autoencoder]:
        asked = self.manifold
        widths = asked.widths[: halvings(self.train.shape, len(asked.widths))]  # of sides such as 28
        return self.cache.made(
            autoencoder, train=self.train, latent=self.latent, widths=widths, decoder=asked.decoder,
            plan=asked.plan, seed=self.seed, precision=decided(asked.precision, self.cache.device),
        )  # fmt: skip

    @cached_property
    def _denoiser(self) -> Made[UNetDenoiser]:
        asked, classes = self.score, self._classes
        widths = asked.widths[: 1 + halvings(self.train.shape, len(asked.widths) - 1)]
        return self.cache.made(
            denoiser, train=self.train, classes=classes, widths=widths, plan=asked.plan, seed=self.seed,
            precision=decided(asked.precision, self.cache.device),
        )  # fmt: skip

    @property
    def _classes(self) -> int:
        return len(self.train.classes) if self.score.conditional and self._all_classes() else 0

    def _all_classes(self) -> bool:
        return len(self.train.labels.unique()) == len(self.train.classes)

    def _fitted(self, needs: str | None) -> TangentEstimator:
        made: dict[str, Any] = {}
        if needs == "autoencoder":
            made = {"autoencoder": self._autoencoder.value()}
        elif needs == "denoiser":
            made = {"denoiser": self.denoiser.thing}
        train = self.train.to(self.cache.device)
        return fit_tangent(self.manifold.estimator, train, k=self.latent, seed=self.seed, **made)

    def _read(self, path: Path) -> Autoencoder:
        network = load_autoencoder(path).to(self.cache.device).eval()
        try:
            shape = tuple(network(self.train.take(slice(0, 1)).images.to(self.cache.device)).shape[1:])
        except RuntimeError:
            shape = ()  # images of another size than the file's do not go through
        if shape != self.train.shape:
            raise UsageError(
                f"an autoencoder of images of shape {self.train.shape}",
                got=path,
                suggestion="another file or --side",
            )
        return network

    def _loaded(self, spec: str) -> Denoiser:
        found: Any = load_denoiser(spec)
        return found.to(self.cache.device) if isinstance(found, nn.Module) else found

    def _content(self, spec: str) -> Any:
        spec = str(located(spec))
        own = not Path(spec).is_file() and is_plugin(spec)
        return [spec, load_plugin(spec).source] if own else file_digest(spec)

    def _pair(self, first: Denoiser | None, second: Denoiser | None) -> Denoiser:
        if first is not None and second is not None:
            return PairOfDenoisers(first, second)
        found = first if first is not None else second
        assert found is not None
        return found

    def _score_from(self) -> str:
        files = [f for f in (self.score.file, self.score.conditional_file) if f]
        return " and ".join(files) or "trained here"


def small_settings(data: ImageSet, latent: int | None) -> tuple[Manifold, Score]:
    """Estimators that are trained in minutes on two cores, by the rules that stand here.

    Args:
        data: the images at the size of the score and the tangent spaces, at most `MOST`.
        latent: k, or None for the rule of `Estimators.latent`.
    """
    places = len(data) * data.shape[1] * data.shape[2]
    epochs = {name: max(1, min(60, round(seen / places))) for name, seen in PIXELS_SEEN.items()}
    small = max(data.shape[1:]) <= 32
    coder, unet = (32, 64, 128)[: 3 if max(data.shape[1:]) > 16 else 2], (32, 64) if small else (16, 32, 64)
    adam: dict[str, Any] = {"batch_size": 64, "optimizer": "adam", "weight_decay": 0}
    manifold = Manifold(
        latent=latent, widths=coder[: halvings(data.shape, len(coder))],
        plan=Plan(epochs=epochs["autoencoder"], learning_rate=2e-3, **adam), precision="auto",
    )  # fmt: skip
    score = Score(
        widths=unet[: 1 + halvings(data.shape, len(unet) - 1)], conditional=len(data) >= FEW,
        plan=Plan(epochs=epochs["denoiser"], learning_rate=3e-3, average=0.99, **adam), precision="auto",
    )  # fmt: skip
    return manifold, score


def halvings(shape: tuple[int, int, int], most: int) -> int:
    """How often both sides can be halved, at most so often."""
    return next(t for t in range(most, -1, -1) if shape[1] % 2**t == 0 and shape[2] % 2**t == 0)


def at_size(data: ImageSet, size: Size, seed: int, most: int = MOST) -> ImageSet:
    """At most so many of the images, a seeded choice, at a size."""
    return resized_set(data if len(data) <= most else data.sample(most, seed), size)


def principal_dimension(images: Tensor) -> int:
    """The number of principal components that hold 90 % of the variance, from 4 to 128."""
    rows = flatten(images).double()
    rows = rows - rows.mean(0)
    gram = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
    variances = torch.linalg.eigvalsh(gram).flip(0).clamp_min(0)
    low, high = LATENT
    if not float(variances.sum()) > 0:
        return low
    shares = variances.cumsum(0) / variances.sum()
    return max(low, min(high, 1 + int((shares < VARIANCE).sum()), rows.shape[1] // 2))
