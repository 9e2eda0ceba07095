"""The images on which classifiers are measured, with everything that does not depend on the classifier.

Tangent spaces, scores and the features of references are prepared once, for any number of models: n images
ask their tangent estimator n times and their denoiser once per image and class.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from pags.arrays import Basis, Images, Labels, expand, norms
from pags.auditing.measures import Measures
from pags.classifiers.adapt import as_images, as_labels
from pags.data.imageset import ImageSet
from pags.data.resize import Size, check_size, resized
from pags.errors import UsageError
from pags.manifold.quality import reconstruction_distance
from pags.measure.alignment import Comparison, derangement, phase_randomised
from pags.measure.gradients import ALL, PREDICTED, TRUE, GradientTarget, get_target
from pags.measure.lpips import LPIPS
from pags.measure.metrics import Metric, PerceptualMetric, get_metric, metric_entry
from pags.measure.robustness import find_change
from pags.score.denoiser import Denoiser, as_denoiser, knows_all, knows_classes, score_of
from pags.score.references import score_estimate
from pags.seeds import generator
from pags.training.precision import exact_float32

Columns = dict[str, Tensor]
"""Quantities by name, as a rule one number per image."""
Tangent = Callable[[Images], tuple[Basis, Tensor]]
"""An estimator: images to bases (n, d, r) and ranks (n,)."""

NUMBERS_A_PASS = 2**20  # pixel values of the images that go through the classifier at a time
ENTRIES_A_PASS = 2**27  # numbers of the tangent bases held at a time, for 256 dimensions
MOST_A_PASS = 64


class Keep(Protocol):
    """Calls a function, at most once for equal arguments, and keeps its result."""

    def __call__(self, function: Callable[..., Columns], /, **arguments: Any) -> Columns: ...


@dataclass
class Memory:
    """Results kept in memory, for arguments that are the same objects."""

    results: dict[tuple[Any, ...], tuple[Columns, Any]] = field(default_factory=dict)

    def __call__(self, function: Callable[..., Columns], /, **arguments: Any) -> Columns:
        key = (function, *((name, id(value)) for name, value in arguments.items()))
        if key not in self.results:  # the arguments are kept too, so that no other object takes their id
            self.results[key] = function(**arguments), arguments
        return self.results[key][0]


@exact_float32()
def tangent_spaces(estimator: Tangent, images: ImageSet) -> Columns:
    """The tangent basis (n, d, r) of every image and its rank; of a decoder, how far the image is from the
    point whose tangent space it is."""
    basis, ranks = estimator(images.images)
    found = {"basis": basis, "ranks": ranks}
    if (autoencoder := getattr(estimator, "autoencoder", None)) is not None:
        found["distance"] = reconstruction_distance(autoencoder, images.images)
    return found


@exact_float32()
def scores(
    denoiser: Denoiser, images: ImageSet, sigma: float, conditional: bool, draws: int, seed: int,
    places: list[int],
) -> Columns:  # fmt: skip
    """The score of all classes, or of each image's own class: at the image, or its mean over noise."""
    labels = images.labels if conditional else None
    found = score_estimate(denoiser, images.images, sigma, labels, draws=draws, seed=seed, places=places)
    return {"score": found.vectors, "error": found.relative_error}


@dataclass(eq=False)
class EvaluationSet:
    """Images, their tangent spaces and scores, and what is measured; prepared once for any number of models.

    Make it with `EvaluationSet.of`; `pags.audit(model, evaluation_set)` measures one model.

    Args:
        data: the images with their labels.
        measures: what is measured, with all norms and radii decided.
        tangent: an estimator of tangent spaces, or bases (n, d, r) of these images, or None.
        denoiser: whose score gradients are compared with, or None.
        second: another estimate of the same score, for the ceiling of the similarities, or None.
        size: height and width at which `tangent` and `denoiser` work.
        conditional: whether the denoiser is asked for the scores of classes.
        metrics: the similarities.
        targets: of what gradients are taken, by name.
        sources: digests of the source of metrics that a user brings, by name.
        keep: where tangent spaces and scores are kept.
    """

    data: ImageSet
    measures: Measures
    tangent: Tangent | Tensor | None
    denoiser: Denoiser | None
    second: Denoiser | None
    size: Size
    conditional: bool
    metrics: tuple[Metric, ...]
    targets: Mapping[str, GradientTarget]
    sources: Mapping[str, str]
    keep: Keep
    _scores: dict[tuple[int, bool], Columns] = field(default_factory=dict, repr=False)
    _others: dict[tuple[int, int, int], Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        images: Images | ImageSet,
        labels: Labels | None = None,
        *,
        tangent: Tangent | Tensor | None = None,
        denoiser: Denoiser | None = None,
        second: Denoiser | None = None,
        size: Size | None = None,
        conditional: bool | None = None,
        metrics: Sequence[str | Metric] | None = None,
        keep: Keep | None = None,
        measures: Measures | None = None,
        **changes: Any,
    ) -> "EvaluationSet":
        """An evaluation set.

        Args:
            images: (n, c, h, w) in [0, 1], n at least 2; or an `ImageSet`, which has its labels.
            labels: (n,) true classes.
            tangent, denoiser, second: see the class; None leaves out everything that needs them.
            size: None: the images' own; where they differ, see `pags.data.resize` for what that approximates.
            conditional: False: class labels are never asked for; None: where the denoiser says that it knows
                classes, by `classes` above 0 or `labels` that are there, or says nothing.
            metrics: similarities, by name (`pags.measure.metrics.METRICS`) or as `Metric`.
            keep: None: in memory.
            measures: what is measured; None: the defaults.
            changes: fields of `Measures` that are to differ.

        Raises:
            UsageError: what was given does not fit together.
        """
        data = images if isinstance(images, ImageSet) else _image_set(images, labels)
        if len(data) < 2:
            raise UsageError("two images or more", got=f"{len(data)} images", suggestion="more images")
        chosen = {} if metrics is None else {"metrics": tuple(_name(metric) for metric in metrics)}
        asked = Measures.of({**dict(measures or {}), **changes, **chosen}, suggestion="see pags.Measures")
        find_change(asked.change)
        size = size or (data.shape[1], data.shape[2])
        check_size(size)
        denoiser, second = (each and as_denoiser(each) for each in (denoiser, second))
        if conditional is None:
            conditional = denoiser is not None and knows_classes(denoiser)
        device, upsample_to = data.pixels.device, asked.upsample_to or None
        wanted = asked.metrics if metrics is None else metrics
        found = tuple(_metric(m, device, upsample_to) for m in wanted)
        sources = {m.name: metric_entry(w).source for m, w in zip(found, wanted, strict=True)}
        asked = asked.for_images(data.images[:1].numel())
        targets = {short_name(target): get_target(target) for target in asked.targets}
        made = cls(
            data, asked, tangent, denoiser, second, size, conditional, found, targets, sources,
            keep or Memory(),
        )  # fmt: skip
        made.check()
        return made

    def check(self) -> None:
        """Raise for what some later step would refuse."""
        height, width = self.size
        d = self.data.shape[0] * height * width
        if isinstance(self.tangent, Tensor) and tuple(self.tangent.shape[:2]) != (len(self), d):
            raise UsageError(
                f"bases of shape ({len(self)}, {d}, r), for these images at {height}×{width} px",
                got=tuple(self.tangent.shape),
                suggestion="size=(height, width), at which the bases were made",
            )
        one = resized(self.data.take(slice(0, 1)).images, self.size)
        for each in (self.denoiser, self.second):
            later = getattr(each, "made_later", False)  # trained when first called, and by us
            if each is not None and not later and ALL in self.kinds:
                score_of(each, one, self.measures.sigma)

    def __len__(self) -> int:
        return len(self.data)

    @cached_property
    def parts(self) -> "list[Part]":
        """The images, some at a time, so that neither activations nor bases grow with their number."""
        return [Part(self, places) for places in torch.arange(len(self)).split(self._piece())]

    def part_of(self, places: Tensor) -> "list[Part]":
        """Some of the images as parts, whose tangent spaces and scores are those of the whole set."""
        return [Part(self, some) for some in places.split(self._piece()) if len(some)]

    def prepare(self) -> None:
        """Make and keep the tangent spaces and scores now, which are otherwise made when first asked for."""
        for part in self.parts:
            assert part.basis is not None or self.tangent is None
        for which in (self.denoiser, self.second):
            if which is not None:
                for conditional in {kind != ALL for kind in self.kinds}:
                    self._whole_score(which, conditional)

    def prepared(self) -> "list[tuple[Callable[..., Columns], dict[str, Any]]]":
        """What is made once for all models, when first asked for: functions with their arguments, as `keep`
        is given them."""
        found: list[tuple[Callable[..., Columns], dict[str, Any]]] = []
        found += [(tangent_spaces, asked) for part in self.parts if (asked := part.tangents_of)]
        for which in (each for each in (self.denoiser, self.second) if each is not None):
            for conditional in {kind != ALL for kind in self.kinds}:
                found += [(scores, asked) for asked in self._scores_of(which, conditional)]
        return found

    @cached_property
    def partners(self) -> Tensor:
        """For each image the place of another, for shuffled pairs."""
        return derangement(len(self), generator(self.measures.seed, "shuffled"))

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of score that there are."""
        if self.denoiser is None:
            return ()
        whole = (ALL,) if knows_all(self.denoiser) or not self.conditional else ()
        return whole + ((PREDICTED, TRUE) if self.conditional else ())

    def kind(self, target_kind: str) -> str | None:
        """The kind of score that a target is compared with: that of all classes where none is known; None
        where there is no such score."""
        wanted = target_kind if self.conditional else ALL
        return wanted if wanted in self.kinds else None

    def score_at(self, places: Tensor, classes: Labels | None, *, second: bool = False) -> Any:
        """The score at some images' places, (m, c, *size): of all classes, or of a class of each.

        The score of its true class is computed for a whole part at once, that of another class for an image
        by itself, so that no number depends on which models were measured before.

        Args:
            places: of the images in the set.
            classes: (m,), or None.
            second: whether it is the second estimate, which may be missing: then None.
        """
        denoiser = self.second if second else self.denoiser
        if denoiser is None:
            return None
        found = self._whole_score(denoiser, classes is not None)["score"][places]
        if classes is not None:
            labels = self.data.labels[places]
            for row in (classes != labels).nonzero()[:, 0].tolist():
                found[row] = self._other_score(denoiser, int(places[row]), int(classes[row]))
        return found

    def basis_at(self, places: Tensor) -> Basis:
        """The tangent bases at some images' places, from the parts that hold them."""
        piece, rows = self._piece(), dict[int, Tensor]()
        for number in {place // piece for place in places.tolist()}:
            basis = self.parts[number].basis
            assert basis is not None
            rows |= {place: basis[place % piece] for place in places.tolist() if place // piece == number}
        return torch.stack([rows[place] for place in places.tolist()])

    def reference(self, metric: Metric, kind: str, places: Tensor, classes: Labels) -> Comparison:
        """The scores of some images, of the classes given, ready to be compared with gradients."""
        if kind == ALL:
            return self._references[metric.name, False].at(places)
        own = self._references[metric.name, True].at(places)
        wrong = (classes != self.data.labels[places]).nonzero()[:, 0]
        return own.replaced(wrong, self.score_at(places[wrong], classes[wrong])) if len(wrong) else own

    @cached_property
    def controls(self) -> Columns:
        """What each metric says of vectors that are no gradient of any model, (n,) each: `negated M K` and
        `phase-randomised M K` for the scores of all classes and of the true ones."""
        found = Columns()
        for kind in (k for k in self.kinds if k != PREDICTED):
            score = self._whole_score(self.denoiser, kind != ALL)["score"]  # type: ignore[arg-type]
            others = {"negated": -score, "phase-randomised": phase_randomised(score, seed=self.measures.seed)}
            for metric in self.metrics:
                comparison = self._references[metric.name, kind != ALL]
                found |= {f"{n} {metric.name} {kind}": comparison.similarity(v) for n, v in others.items()}
        return found

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything that the columns of a model are a function of, but for the model."""
        return {
            "data": self.data,
            "measures": self.measures,
            "tangent": self.tangent,
            "denoiser": self.denoiser,
            "second": self.second,
            "size": list(self.size),
            "conditional": self.conditional,
            "metrics": [[metric.name, self.sources.get(metric.name, "")] for metric in self.metrics],
            "targets": [[name, target.source] for name, target in self.targets.items()],
        }

    def bayes_at(self, places: Tensor, classes: Labels) -> Images:
        """The Bayes direction of a class at some images' places, (m, c, *size): ∇ log p_σ(y | x), the score
        of the class less that of all. Zero, which is no direction, where the two differ by rounding."""
        own, everything = self.score_at(places, classes), self.score_at(places, None)
        apart, rounding = own - everything, 4 * torch.finfo(own.dtype).eps / self.measures.sigma**2
        pixels = resized(self.data.take(places).images, self.size)
        return torch.where(expand(norms(apart) > rounding * norms(pixels), apart), apart, 0.0)

    def _whole_score(self, denoiser: Denoiser, conditional: bool) -> Columns:
        """The score of all images, of all classes or of the true ones, and its relative error."""
        key = id(denoiser), conditional
        if key not in self._scores:
            found = [self.keep(scores, **asked) for asked in self._scores_of(denoiser, conditional)]
            device = self.data.labels.device
            self._scores[key] = {n: torch.cat([f[n] for f in found]).to(device) for n in ("score", "error")}
        return self._scores[key]

    def _scores_of(self, denoiser: Denoiser, conditional: bool) -> list[dict[str, Any]]:
        """The arguments of `scores` for each part."""
        asked = self.measures
        about: Any = {"sigma": asked.sigma, "draws": asked.score_draws, "seed": asked.seed}
        about |= {"denoiser": denoiser, "conditional": conditional}
        return [{"images": part.small, "places": part.places.tolist(), **about} for part in self.parts]

    def _other_score(self, denoiser: Denoiser, place: int, label: int) -> Tensor:  # (c, *size)
        key = id(denoiser), place, label
        if key not in self._others:
            one = resized(self.data.take(slice(place, place + 1)).images, self.size).clamp(0, 1)
            classes, asked = torch.tensor([label], device=one.device), self.measures
            self._others[key] = score_estimate(
                denoiser, one, asked.sigma, classes, draws=asked.score_draws, seed=asked.seed, places=[place]
            ).vectors[0]
        return self._others[key]

    @cached_property
    def _references(self) -> dict[tuple[str, bool], Comparison]:
        """For each metric, the score of all classes and (where there is one) of the true ones."""
        denoiser = self.denoiser
        assert denoiser is not None
        return {
            (metric.name, conditional): metric.reference(self._whole_score(denoiser, conditional)["score"])
            for metric in self.metrics
            for conditional in {kind != ALL for kind in self.kinds}
        }

    def _piece(self) -> int:
        """Images at a time, by the sizes alone, so that every model is measured in equal batches."""
        d, small = self.data.images[:1].numel(), self.data.shape[0] * self.size[0] * self.size[1]
        return max(1, min(MOST_A_PASS, NUMBERS_A_PASS // d, ENTRIES_A_PASS // (256 * small)))


@dataclass(eq=False)
class Part:
    """Some images of an evaluation set.

    Args:
        whole: the set.
        places: the images' places in it, which name their draws.
    """

    whole: EvaluationSet
    places: Tensor

    @cached_property
    def data(self) -> ImageSet:
        """The images with their labels."""
        return self.whole.data.take(self.places.to(self.whole.data.labels.device))

    @cached_property
    def small(self) -> ImageSet:
        """The images at the size of the score and the tangent spaces."""
        if tuple(self.data.shape[1:]) == self.whole.size:
            return self.data
        pixels = resized(self.data.images, self.whole.size).clamp(0, 1)
        return ImageSet(pixels, self.data.labels, self.data.classes, self.data.name)

    @property
    def tangents_of(self) -> dict[str, Any]:
        """The arguments of `tangent_spaces`; none where bases were given, or no tangent spaces."""
        tangent = self.whole.tangent
        given = tangent is None or isinstance(tangent, Tensor)
        return {} if given else {"estimator": tangent, "images": self.small}

    @property
    def tangents(self) -> Columns:
        """What `tangent_spaces` gives."""
        return self.whole.keep(tangent_spaces, **asked) if (asked := self.tangents_of) else {}

    @property
    def basis(self) -> Basis | None:
        """Tangent bases (n, d, r) at the score's size, or None."""
        tangent = self.whole.tangent
        if tangent is None:
            return None
        if isinstance(tangent, Tensor):
            return tangent[self.places.to(tangent.device)].to(self.data.images)
        if not any(part is self for part in self.whole.parts):
            return self.whole.basis_at(self.places)
        return self.tangents["basis"].to(self.data.images)


def _image_set(images: Any, labels: Any) -> ImageSet:
    pixels = as_images(images)
    if labels is None:
        raise UsageError("a label for each image", got="none", suggestion="labels=…, one class per image")
    known = as_labels(labels, len(pixels)).to(pixels.device)
    classes = tuple(str(place) for place in range(int(known.max()) + 1)) if len(known) else ("0",)
    return ImageSet(pixels, known, classes, "images")


def short_name(spec: str) -> str:
    """What something is called in columns: its name, of a user's `file.py:name` the last part."""
    return spec.rpartition(":")[2]


def _name(metric: str | Metric) -> str:
    return metric if isinstance(metric, str) else metric.name


def _metric(metric: str | Metric, device: torch.device, upsample_to: int | None) -> Metric:
    if metric == "lpips":
        return PerceptualMetric(LPIPS.load(upsample_to=upsample_to).to(device))
    return get_metric(metric, device=device) if isinstance(metric, str) else metric
