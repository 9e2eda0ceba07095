"""Everything about some images at a time; the bases and gradients that it takes are forgotten after."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from pags.arrays import Basis, Images, Labels
from pags.auditing.options import Options
from pags.auditing.parts import (
    Columns,
    classified,
    definition_1_changes,
    equal_norm_changes,
    gradients,
    robust,
    smooth_gradients,
)
from pags.auditing.scores import KINDS, PREDICTED, SIGNS, TRUE, Scores
from pags.auditing.sizes import Noise, Size, kept_energy, reduced
from pags.measure.alignment import Comparison
from pags.measure.metrics import Metric
from pags.measure.robustness import off_manifold_share
from pags.training.attack import PGD


@dataclass(frozen=True)
class Work:
    """What is measured of which classifier."""

    model: nn.Module
    tangent: Callable[[Images], tuple[Basis, Tensor]] | Tensor | None
    control: nn.Module | None
    metrics: tuple[Metric, ...]
    options: Options


@dataclass(frozen=True)
class Chunk:
    """Some images with what belongs to them.

    Args:
        work: what is to be measured.
        images, labels: (n, c, h, w) and (n,).
        size: of the score and the tangent spaces.
        places: the images' places in the whole set, which name their draws.
        classes: kind of score to (n,) classes.
        scores, shuffled, others: scores of these images, of other images, and a second estimate of the first.
    """

    work: Work
    images: Images
    labels: Labels
    size: Size
    places: Sequence[int]
    classes: dict[str, Labels]
    scores: Scores | None
    shuffled: Scores | None
    others: Scores | None

    def measured(self) -> Columns:
        """Every quantity of the audit, (n,) each."""
        options, model = self.work.options, self.work.model
        columns = classified(model, self.images, self.labels)
        for radius in options.radii:
            attack = PGD(radius, options.attack_steps)
            found = robust(model, self.images, self.labels, attack, seed=options.seed, places=self.places)
            columns[f"robust {radius:g}"] = found
        if self.basis is not None:
            columns |= self._of_the_manifold(self.basis)
        columns |= self._of_the_scores()
        whole = gradients(model, self.images, self._wanted(options.targets))
        if self._seen_smaller():
            columns |= {f"kept {target}": kept_energy(v, self.size) for target, v in whole.items()}
        columns |= self._of_vectors("", self._prepared(whole))
        columns |= self._of_vectors("smooth ", self._smooth())
        if self.work.control is not None:
            control = gradients(self.work.control, self.images, self._wanted(options.targets))
            columns |= self._of_vectors("control ", self._prepared(control), lines=False)
        return columns

    def pictures(self) -> dict[str, Tensor]:
        """Image, gradient, SmoothGrad and score for the first target, (n, c, *size) each."""
        target = self.work.options.targets[0]
        found = {"image": reduced(self.images, self.size).clamp(0, 1), "predicted": self.classes[PREDICTED]}
        found["gradient"] = self._prepared(gradients(self.work.model, self.images, self._wanted([target])))[
            target
        ]
        if target in self.work.options.smooth_targets:
            found["smooth"] = self._smooth()[target]
        if self.scores is not None:
            found["score"] = self.scores.by_kind[self.scores.kind(target)]
        return found

    @cached_property
    def basis(self) -> Basis | None:
        """Tangent bases (n, d, r) at the score's size, or None."""
        tangent = self.work.tangent
        if tangent is None:
            return None
        if isinstance(tangent, Tensor):
            return tangent[list(self.places)].to(self.images)
        return tangent(reduced(self.images, self.size).clamp(0, 1))[0].to(self.images)

    @cached_property
    def _references(self) -> list[tuple[Metric, str, Comparison, Comparison]]:
        """For each metric and kind of score: the comparison with the own image's, and with another's."""
        if self.scores is None or self.shuffled is None:
            return []
        return [
            (metric, kind, metric.reference(score), metric.reference(self.shuffled.by_kind[kind]))
            for metric in self.work.metrics
            for kind, score in self.scores.by_kind.items()
            if kind in {self.scores.kind(target) for target in self.work.options.targets}
        ]

    def _wanted(self, targets: Sequence[str]) -> dict[str, Labels]:
        """The class of each target's gradient; the loss is that of the true label."""
        return {t: self.classes[TRUE if KINDS[t] == TRUE else PREDICTED] for t in targets}

    def _seen_smaller(self) -> bool:
        return tuple(self.images.shape[-2:]) != self.size

    def _prepared(self, whole: Mapping[str, Tensor]) -> dict[str, Tensor]:  # (n, c, *size)
        """Gradients at the score's size, along which the target's sense of "more like the class" grows."""
        return {t: SIGNS.get(t, 1.0) * reduced(vectors, self.size) for t, vectors in whole.items()}

    def _smooth(self) -> dict[str, Tensor]:  # (n, c, *size)
        options = self.work.options
        if not options.smooth_targets:
            return {}
        found = smooth_gradients(
            self.work.model, self.images, self._wanted(options.smooth_targets), sigma=options.smooth_sigma,
            samples=options.smooth_samples, noise=Noise(options.seed, "smooth", self.places),
        )  # fmt: skip
        return self._prepared(found)

    def _of_the_manifold(self, basis: Basis) -> Columns:
        """Robustness on and off it, at equal norm and by Definition 1."""
        options, model = self.work.options, self.work.model
        changes = equal_norm_changes(
            model, self.images, basis, options.norms, size=self.size, directions=options.directions,
            noise=Noise(options.seed, "directions", self.places),
        )  # fmt: skip
        columns = {
            f"{part} {norm:g}": getattr(changes, part)[place]
            for place, norm in enumerate(options.norms)
            for part in ("on", "off", "any")
        }
        assert options.norm is not None  # checked with the options
        noise = definition_1_changes(
            model, self.images, basis, options.norm / self.images[0].numel() ** 0.5, size=self.size,
            directions=options.directions, noise=Noise(options.seed, "definition 1", self.places),
        )  # fmt: skip
        ranks = (basis.abs().amax(1) > 0).sum(1)
        chance = 1 - ranks / basis.shape[1]
        return columns | {
            "squared change off": noise.off,
            "squared change": noise.all,
            "dimension": ranks.to(self.images),
            "chance rho2": chance.to(self.images),
        }

    def _of_the_scores(self) -> Columns:
        """The lines that similarities are read against, and where the scores themselves point."""
        columns: Columns = {}
        if self.scores is None:
            return columns
        noise = Noise(self.work.options.seed, "floor", self.places).like(
            next(iter(self.scores.by_kind.values()))
        )
        for metric, kind, own, _ in self._references:
            columns[f"floor {metric.name} {kind}"] = own.similarity(noise)
            if self.others is not None and kind in self.others.by_kind:
                columns[f"ceiling {metric.name} {kind}"] = own.similarity(self.others.by_kind[kind])
        if self.basis is not None:
            for kind, score in self.scores.by_kind.items():
                columns[f"rho2 score {kind}"] = off_manifold_share(score, self.basis)
        return columns

    def _of_vectors(self, prefix: str, vectors: Mapping[str, Images], *, lines: bool = True) -> Columns:
        """rho2 of each vector and its similarities with the score that it is compared with."""
        columns: Columns = {}
        for target, vector in vectors.items():
            if self.basis is not None:
                columns[f"{prefix}rho2 {target}"] = off_manifold_share(vector, self.basis)
            for metric, kind, own, other in self._references:
                if self.scores is None or kind != self.scores.kind(target):
                    continue
                name = f"{prefix}{metric.name} {target}"
                columns[name] = own.similarity(vector)
                if lines:
                    columns[f"shuffled {name}"] = other.similarity(vector)
        return {name: values.detach() for name, values in columns.items()}
