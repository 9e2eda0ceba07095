"""Perceptual alignment: how alike a gradient and a score look (section 4, B.10).

A similarity has no meaning alone, so it comes with controls, of which `control_similarities` gives those that
are of the score alone: the **floor** (noise), **negated** (the score with its sign turned),
**phase-randomised** (its spectrum without its arrangement) and **shuffled** (another image's score). A
gradient's own **shuffled** similarity is with another image's score, and the **ceiling** is that of a second
estimate of the score with the first. `alignment_share` puts a similarity between these two.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

from pags.arrays import Images, PerImage, cosines, max_abs_scaled, nan_unless_directed, zero_unless_directed
from pags.errors import UsageError
from pags.measure.intervals import Interval
from pags.measure.lpips import LPIPS, Features, PerLayer, joined
from pags.measure.statistics import interval
from pags.seeds import generator, image_noise

Similarity = Callable[[Images, Images], PerImage]
"""Of a reference and vectors, both (n, c, h, w), to one number per image; higher for more alike."""


Columns = PerImage | Sequence[PerImage]
"""One number per image; or a column of these for each seed."""


class Comparison(Protocol):
    """A score that any number of vectors are compared with, by some metric."""

    def similarity(self, vectors: Images) -> PerImage:
        """The similarity of each vector and the score of the same image."""
        ...

    def similarity_and_shuffled(self, vectors: Images, draws: torch.Generator) -> tuple[PerImage, PerImage]:
        """The same, and the similarity with the score of another image."""
        ...

    def floor(self, draws: torch.Generator) -> PerImage:
        """The similarity of normal noise and the score."""
        ...

    def at(self, places: Tensor) -> Self:
        """The comparison for the images at some places alone."""
        ...

    def replaced(self, places: Tensor, score: Images) -> Self:
        """The comparison in which the scores at some places are others."""
        ...


@dataclass(frozen=True)
class Reference:
    """A score with its LPIPS features, computed once and compared with any number of models.

    Make it with `Reference.of`.
    """

    lpips: LPIPS
    score: Images
    features: Features

    @classmethod
    def of(cls, score: Images, lpips: LPIPS | None = None) -> Self:
        """The reference for scores (n, c, h, w), on their device; `lpips` defaults to 64 px."""
        lpips = (lpips or LPIPS.load()).on(score.device)
        return cls(lpips, score, picture_features(lpips, score))

    def at(self, places: Tensor) -> Self:
        """The reference for the images at some places alone."""
        return type(self)(self.lpips, self.score[places], self.features[places])

    def replaced(self, places: Tensor, score: Images) -> Self:
        """A reference in which the scores at some places are others; the rest is not computed again."""
        if len(places) == 0:
            return self
        layers = picture_features(self.lpips, score).layers
        pairs = zip(self.features.layers, layers, strict=True)
        features = Features(tuple(old.index_copy(0, places, new) for old, new in pairs))
        return type(self)(self.lpips, self.score.index_copy(0, places, score), features)

    def similarity(self, vectors: Images) -> PerImage:
        """1 − LPIPS of each vector and the score of the same image.

        Args:
            vectors: (n, c, h, w) gradients, or other scores for the ceiling, of any scale.

        Raises:
            UsageError: another shape than the score's.
        """
        return self._similarities(vectors, None)[0]

    def similarity_and_shuffled(self, vectors: Images, draws: torch.Generator) -> tuple[PerImage, PerImage]:
        """The similarity with the score of the same image, and with that of another image."""
        other = derangement(len(vectors), draws).to(vectors.device)
        same, shuffled = self._similarities(vectors, None, other)
        return same, shuffled

    def floor(self, draws: torch.Generator) -> PerImage:
        """The similarity of normal noise and the score: what no alignment at all scores."""
        return self.similarity(_noise_like(self.score, draws))

    def cosine(self, vectors: Images) -> PerImage:
        """The cosine of each vector and the score of the same image."""
        return cosines(vectors, self.score)

    def by_layer(self, vectors: Images, places: Tensor) -> PerLayer:
        """The five terms of 1 − similarity, for vectors of the images at `places` alone, (len(places), 5)."""
        return self.lpips.by_layer(picture_features(self.lpips, vectors), self.features[places])

    def _similarities(self, vectors: Images, *orders: Tensor | None) -> list[PerImage]:
        """1 − LPIPS with the scores in each order (None: their own), a batch at a time.

        Only the reference's features are kept whole.
        """
        _check_shape(vectors, self.score)
        parts, size = [], self.lpips.batch_size
        for first in range(0, len(vectors), size):
            part = slice(first, first + size)
            features = picture_features(self.lpips, vectors[part])
            chosen = (part if order is None else order[part] for order in orders)
            parts.append([self._similarity(vectors[part], features, places) for places in chosen])
        return [torch.cat(column) for column in zip(*parts, strict=True)]

    def _similarity(self, vectors: Images, features: Features, places: slice | Tensor) -> PerImage:
        found = 1 - self.lpips.distance(features, self.features[places])
        return nan_unless_directed(found.to(vectors.device), vectors, self.score[places].to(vectors.device))


@dataclass(frozen=True)
class PairReference:
    """A score to compare with by a function of the pair, with nothing to compute once."""

    score: Images
    pair: Similarity

    def similarity(self, vectors: Images) -> PerImage:
        """The similarity of each vector and the score of the same image.

        Raises:
            UsageError: another shape than the score's.
        """
        _check_shape(vectors, self.score)
        return self._compared(self.score, vectors)

    def similarity_and_shuffled(self, vectors: Images, draws: torch.Generator) -> tuple[PerImage, PerImage]:
        """The same, and the similarity with the score of another image."""
        other = derangement(len(vectors), draws).to(self.score.device)
        return self.similarity(vectors), self._compared(self.score[other], vectors)

    def floor(self, draws: torch.Generator) -> PerImage:
        """The similarity of normal noise and the score."""
        return self.similarity(_noise_like(self.score, draws))

    def at(self, places: Tensor) -> Self:
        """The score at some places alone."""
        return type(self)(self.score[places], self.pair)

    def replaced(self, places: Tensor, score: Images) -> Self:
        """The scores at some places replaced."""
        return type(self)(self.score.index_copy(0, places, score), self.pair)

    def _compared(self, score: Images, vectors: Images) -> PerImage:
        found = self.pair(zero_unless_directed(score), zero_unless_directed(vectors))
        return nan_unless_directed(found, score, vectors)


def control_similarities(
    comparison: Comparison,
    score: Images,
    *,
    seed: int,
    places: Sequence[int] | None = None,
    others: Images | None = None,
) -> dict[str, PerImage]:
    """What a metric says of vectors that are no gradient of any model, one number per image each.

    "negated": of −score, which points the opposite way: a metric blind to the sign has it near 1;
    "phase-randomised": of the score with random phases, of which only the spectrum is like it;
    "shuffled": of another image's score; "floor": of normal noise.

    Args:
        comparison: of the score, `metric.reference(score)` for any metric.
        score: (n, c, h, w).
        seed, places: name the draws of each image, see `pags.seeds.image_noise`.
        others: (n, c, h, w) the scores of other images; None: those of these images in another order, which
            takes two images or more.
    """
    if others is None:
        order = derangement(len(score), generator(seed, "shuffled scores"))
        others = score[order.to(score.device)]
    controls = {
        "negated": -score,
        "phase-randomised": phase_randomised(score, seed=seed, places=places),
        "shuffled": others,
        "floor": image_noise(score, seed, "floor", places=places),
    }
    return {name: comparison.similarity(vectors) for name, vectors in controls.items()}


def phase_randomised(vectors: Images, *, seed: int, places: Sequence[int] | None = None) -> Images:
    """Vectors with the same Fourier amplitudes and random phases; the mean of each channel stays.

    Phases are those of white noise, the same for all channels of an image, so that colours keep together.

    Args:
        vectors: (n, c, h, w).
        seed, places: name the draws of each image, see `pags.seeds.image_noise`.
    """
    noise = torch.fft.rfft2(image_noise(vectors[:, :1], seed, "phases", places=places))
    turns = noise / noise.abs()
    turns[:, :, 0, 0] = 1
    return torch.fft.irfft2(torch.fft.rfft2(vectors) * turns, s=vectors.shape[-2:])


def alignment_share(
    similarity: Columns,
    shuffled: Columns,
    ceiling: Columns,
    *,
    draws: torch.Generator,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """(similarity − shuffled) / (ceiling − shuffled) of the means: how far a gradient is on the way from
    knowing nothing of the image to being a second estimate of its score.

    Args:
        similarity: (n,) of gradient and score; or one such column per seed, of the same images.
        shuffled: of the gradient and another image's score.
        ceiling: of a second estimate of the score (another denoiser, or the same one at a nearby sigma) and
            the first; not that of a denoiser that remembers its images.
        draws, resamples, level: as in `pags.measure.statistics.interval`.

    Returns:
        The share with its interval, 0 for no alignment and 1 at the ceiling; images that one of the columns
        leaves out are in none of the means. NaN where the ceiling is not above shuffled; an end is infinite
        where that is not sure.

    Raises:
        UsageError: fewer than two images, or columns of different images.
    """
    columns = (
        [[each] for each in (similarity, shuffled, ceiling)]
        if isinstance(similarity, Tensor)
        else [similarity, shuffled, ceiling]
    )
    tables = [torch.stack(list(each), 1) for each in zip(*columns, strict=True)]
    whole = torch.stack(tables).isnan().any(2).any(0)
    tables = [torch.where(whole[:, None], torch.nan, table) for table in tables]
    return interval(_share_of_the_way, tables, draws=draws, resamples=resamples, level=level)


def _share_of_the_way(means: Tensor) -> Tensor:  # (b, 3) to (b,)
    similarity, shuffled, ceiling = means.T
    way = ceiling - shuffled
    return torch.where(way > 0, (similarity - shuffled) / way, torch.nan)


def picture_features(lpips: LPIPS, vectors: Images) -> Features:
    """LPIPS features of gradients or scores seen as pictures: enlarged, then scaled to fill [-1, 1].

    The scaling comes after the enlargement, which flattens peaks (docs/choices.md, 14). A vector that is not
    finite has the features of zero.
    """
    batches = zero_unless_directed(vectors).split(lpips.batch_size)
    parts = [lpips.features(max_abs_scaled(lpips.enlarge(batch))).layers for batch in batches]
    return Features(tuple(joined(layer) for layer in zip(*parts, strict=True)))


def derangement(n: int, draws: torch.Generator) -> Tensor:
    """A random permutation of n ≥ 2 without a fixed point: neighbours on a random circle."""
    circle = torch.randperm(n, generator=draws)
    places = torch.empty_like(circle)
    places[circle] = circle.roll(1)
    return places


def _noise_like(score: Images, draws: torch.Generator) -> Images:
    return torch.randn(score.shape, generator=draws, device=draws.device).to(score)


def _check_shape(vectors: Tensor, score: Tensor) -> None:
    if vectors.shape != score.shape:
        raise UsageError(
            f"vectors of the score's shape {tuple(score.shape)}",
            got=tuple(vectors.shape),
            suggestion="resizing the gradients to the score's resolution",
        )
