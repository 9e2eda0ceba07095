"""One audit: the work on some images, done for all of them, in bounded memory."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from pags.arrays import Images, Labels, check_labels
from pags.auditing.chunk import Chunk, Work
from pags.auditing.options import Options
from pags.auditing.parts import Columns
from pags.auditing.result import Audit
from pags.auditing.scores import Scores, scores_of, target_classes
from pags.auditing.sizes import Size, check_size, reduced
from pags.classifiers.modes import predict
from pags.errors import UsageError
from pags.measure.alignment import derangement
from pags.score.denoiser import Denoiser
from pags.seeds import generator
from pags.store import Record

Progress = Callable[[float], None]
"""Told the share of the work that is done."""

NUMBERS_A_PASS = 2**20  # pixel values of the images that go through the classifier at a time
ENTRIES_A_PASS = 2**27  # numbers of the tangent bases held at a time, for 256 dimensions


@dataclass(frozen=True)
class Run:
    """One audit: the work on some images, done for all of them."""

    work: Work
    images: Images
    labels: Labels
    size: Size
    batch_size: int

    def check(self) -> None:
        """Raise for what some later part would refuse."""
        check_size(self.size)
        if self.batch_size < 1:
            raise UsageError("a batch_size of 1 or more", got=self.batch_size, suggestion="64")
        logits = predict(self.work.model, self.images[:1])
        check_labels(self.labels, logits.shape[1])
        tangent, (height, width) = self.work.tangent, self.size
        d = self.images.shape[1] * height * width
        if isinstance(tangent, Tensor) and tuple(tangent.shape[:2]) != (len(self.images), d):
            raise UsageError(
                f"bases of shape ({len(self.images)}, {d}, r), for these images at {height}×{width} px",
                got=tuple(tangent.shape),
                suggestion="size=(height, width), at which the bases were made",
            )

    def check_scores(
        self, denoiser: Denoiser | None, second: Denoiser | None, conditional: bool | None
    ) -> None:
        """Raise where a denoiser does not take the images, or not the classes."""
        one = reduced(self.images[:1], self.size)
        for each in (denoiser, second):
            if each is not None:
                scores_of(each, one, self.work.options.sigma, {}, conditional=conditional)
        classes = getattr(denoiser, "classes", None)
        known = predict(self.work.model, self.images[:1]).shape[1]
        if conditional is not False and isinstance(classes, int) and classes and classes != known:
            raise UsageError(
                f"a denoiser of the classifier's {known} classes",
                got=f"one of {classes}",
                suggestion="conditional=False, for the score of all classes",
            )

    def __call__(
        self,
        denoiser: Denoiser | None,
        second: Denoiser | None,
        conditional: bool | None,
        progress: Progress,
    ) -> Audit:
        n, parts = len(self.images), []
        classes = target_classes(self._predicted(), self.labels)
        scores, others = (self._scores(each, classes, conditional) for each in (denoiser, second))
        shuffled = derangement(n, generator(self.work.options.seed, "shuffled"))
        pieces = list(torch.arange(n).split(self._piece()))
        for done, places in enumerate(pieces):
            progress(0.02 + 0.93 * done / len(pieces))
            parts.append(self._chunk(places, classes, scores, others, shuffled).measured())
        columns = {name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]}
        progress(0.95)
        panels = self._panels(columns, classes, scores, others, shuffled)
        progress(1.0)
        return Audit(columns, panels, self._settings(scores, others))

    def _predicted(self) -> Labels:
        parts = [predict(self.work.model, part).argmax(1) for part in self.images.split(self._piece())]
        return torch.cat(parts)

    def _scores(
        self, denoiser: Denoiser | None, classes: dict[str, Labels], conditional: bool | None
    ) -> Scores | None:
        if denoiser is None:
            return None
        small = torch.cat([reduced(x, self.size).clamp(0, 1) for x in self.images.split(self._piece())])
        return scores_of(
            denoiser, small, self.work.options.sigma, classes, conditional=conditional, batch=self._piece()
        )

    def _chunk(
        self,
        places: Tensor,
        classes: dict[str, Labels],
        scores: Scores | None,
        others: Scores | None,
        shuffled: Tensor,
    ) -> Chunk:
        here = {name: values[places] for name, values in classes.items()}
        return Chunk(
            self.work, self.images[places], self.labels[places], self.size, places.tolist(), here,
            scores.take(places) if scores else None,
            scores.take(shuffled[places]) if scores else None,
            others.take(places) if others else None,
        )  # fmt: skip

    def _panels(
        self, columns: Columns, classes: dict[str, Labels], scores: Scores | None, others: Scores | None,
        shuffled: Tensor,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Pictures of the best and the worst images by the first metric and target (or by rho2)."""
        count = min(self.work.options.gallery, len(self.images) // 2)
        by = ranked_by(self.work.options, columns)
        values = columns[by].nan_to_num(float("-inf")) * (-1 if by.startswith("rho2") else 1)
        order = values.argsort(descending=True, stable=True)
        chosen = torch.cat([order[:count], order[len(order) - count :]])
        found = [
            self._chunk(places, classes, scores, others, shuffled).pictures()
            for places in chosen.split(self._piece())
            if len(places)
        ]
        pictures = {name: torch.cat([part[name].cpu() for part in found]) for name in (found or [{}])[0]}
        return {
            "places": chosen,
            "value": columns[by][chosen],
            "labels": self.labels[chosen].cpu(),
        } | pictures

    def _piece(self) -> int:
        """Images at a time, so that neither activations nor tangent bases grow with their size."""
        d, small = self.images[0].numel(), self.images.shape[1] * self.size[0] * self.size[1]
        return max(1, min(self.batch_size, NUMBERS_A_PASS // d, ENTRIES_A_PASS // (256 * small)))

    def _settings(self, scores: Scores | None, others: Scores | None) -> Record:
        digest = hashlib.sha256(self.images.cpu().numpy().tobytes() + self.labels.cpu().numpy().tobytes())
        missing = []
        if self.work.tangent is None:
            missing.append("on- and off-manifold robustness, rho1 and rho2: no tangent spaces were given")
        if scores is None:
            missing.append("alignment: no denoiser was given")
        elif others is None:
            missing.append("the ceiling of the similarities: no second estimate of the score was given")
        if scores is not None and not scores.conditional:
            missing.append("the score of a class: the denoiser knows no classes, so that of all is used")
        if self.work.control is None:
            missing.append("the random-feature control: no untrained network was given")
        return asdict(self.work.options) | {
            "n": len(self.images),
            "shape": list(self.images.shape[1:]),
            "size": list(self.size),
            "images": digest.hexdigest()[:16],
            "compared with": {t: scores.kind(t) for t in self.work.options.targets} if scores else {},
            "missing": missing,
        }


def ranked_by(options: Options, columns: Columns) -> str:
    """The column by which images are called well or badly aligned."""
    wanted = [f"{metric} {options.targets[0]}" for metric in options.metrics[:1]]
    wanted += [f"rho2 {options.targets[0]}", "confidence"]
    return next(name for name in wanted if name in columns)


def check_enough(images: Tensor, labels: Tensor) -> None:
    """Raise unless there are images to resample, and a label for each."""
    if len(images) < 2 or len(images) != len(labels):
        raise UsageError(
            "two images or more, and a label for each",
            got=f"{len(images)} images and {len(labels)} labels",
            suggestion="more images",
        )
