"""The measuring function: every quantity of one classifier on one evaluation set, one number per image.

Sweeps, audits, transfer and SmoothGrad all call `measured`; the definitions are those of `pags.measure`.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pags.arrays import Basis, Images, Labels, PerImage, cosines, project
from pags.auditing.evaluation import Columns, EvaluationSet, Part
from pags.classifiers.modes import evaluating, predict
from pags.data.resize import kept_energy, resized
from pags.errors import UsageError
from pags.measure.alignment import Comparison, Reference
from pags.measure.frequency import low_frequency_share
from pags.measure.gradients import ALL, PREDICTED, TRUE, GradientTarget, ScalarTarget
from pags.measure.metrics import Metric
from pags.measure.robustness import (
    attacked_equal_norm,
    definition_1,
    definition_2,
    equal_norm,
    off_manifold_share,
)
from pags.seeds import ImageDraws, generator
from pags.training.attack import PGD
from pags.training.precision import exact_float32
from pags.training.stronger_attacks import Attack, find_attack

Report = Callable[[float], None]
"""Called with the fraction completed."""


@exact_float32()
def measured(
    model: nn.Module,
    evaluation: EvaluationSet,
    *,
    control: nn.Module | None = None,
    report: Report = lambda share: None,
) -> Columns:
    """All columns of a model (names in `pags.records`), on the CPU.

    Args:
        model: a classifier on the device of the evaluation set's images.
        evaluation: images and what is measured of them.
        control: the same network untrained.
        report: called with the fraction completed.

    Raises:
        UsageError: a classifier of other classes than the labels or the denoiser have.
    """
    classes = _classes(model, evaluation)
    found = []
    for done, part in enumerate(evaluation.parts):
        report(done / len(evaluation.parts))
        found += _in_memory(model, evaluation, part, classes, control)
    report(1.0)
    return {name: torch.cat([part[name].cpu() for part in found]) for name in found[0]}


def _in_memory(
    model: nn.Module, evaluation: EvaluationSet, part: Part, classes: dict[str, Labels],
    control: nn.Module | None,
) -> list[Columns]:  # fmt: skip
    """The columns of a part; where memory does not suffice for all of its images at a time, of its halves."""
    count = len(part.places)
    try:
        return [_Measured(model, evaluation, part, classes, control).columns()]
    except (MemoryError, RuntimeError) as error:
        known = isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)
        if not known or count == 1:
            raise
    warnings.warn(f"too little memory to measure {count} images at a time; halving them", stacklevel=2)
    halves = [each for places in part.places.split(-(-count // 2)) for each in evaluation.part_of(places)]
    return [found for half in halves for found in _in_memory(model, evaluation, half, classes, control)]


@exact_float32()
@torch.no_grad()
def pictures(model: nn.Module, evaluation: EvaluationSet, places: Tensor, target: str) -> Columns:
    """Gradient and score of some images for one target with their parts in the tangent space, (n, c, *size);
    of each similarity one number per image, and what each of AlexNet's layers adds to LPIPS (B.10)."""
    classes = _classes(model, evaluation)
    found = []
    for part in evaluation.part_of(places):
        one = _Measured(model, evaluation, part, classes, None)
        gradient = one.prepared(gradients(model, part.data.images, one.wanted([target])))[target]
        found.append(one.shown(target, gradient))
    return {name: torch.cat([part[name].cpu() for part in found]) for name in (found or [{}])[0]}


Wanted = Mapping[str, tuple[GradientTarget, Labels]]
"""Target by name, with the classes (n,) of its gradients; targets that need no class ignore theirs."""


def gradients(model: nn.Module, images: Images, wanted: Wanted) -> dict[str, Images]:
    """The gradient of each target: of scalars of the logits from one forward pass, of others as they come."""
    scalars = {n: each for n, each in wanted.items() if isinstance(each[0], ScalarTarget)}
    with evaluating(model), torch.enable_grad():
        x = images.detach().requires_grad_()
        logits = model(x)
        sums = [target(logits, labels).sum() for target, labels in scalars.values()]  # type: ignore[operator]
        found = [torch.autograd.grad(scalar, x, retain_graph=True)[0] for scalar in sums]
        others = {
            n: target.vectors(model, images, labels)
            for n, (target, labels) in wanted.items()
            if n not in scalars
        }
    return dict(zip(scalars, found, strict=True)) | others


def smooth_gradients(
    model: nn.Module, images: Images, wanted: Wanted, *, sigma: float, samples: int,
    draws: ImageDraws,
) -> dict[str, Images]:  # fmt: skip
    """SmoothGrad (Smilkov et al. 2017) of each target: the mean of `gradients` over noisy copies."""
    total = {name: torch.zeros_like(images) for name in wanted}
    for _ in range(samples):
        noisy = images + sigma * draws.normal_like(images)
        for name, gradient in gradients(model, noisy, wanted).items():
            total[name] += gradient
    return {name: gradient / samples for name, gradient in total.items()}


def robust(
    model: nn.Module, images: Images, labels: Labels, attack: Attack, *, seed: int, places: Sequence[int]
) -> PerImage:
    """1 where the label is predicted, with and without an attack, else 0."""
    right = predict(model, images).argmax(1) == labels
    if attack.radius == 0 or not bool(right.any()):
        return right.to(images)
    chosen = right.nonzero()[:, 0].tolist()
    x, y = images[right], labels[right]
    draws = [generator(seed, "attack", f"{attack.radius:g}", places[place]) for place in chosen]
    start = torch.cat([attack.start(one[None].cpu(), own) for one, own in zip(x, draws, strict=True)]).to(x)
    attacked = predict(model, attack.perturb(model, x, y, start)).argmax(1)
    return right.to(images).index_put((right,), (attacked == y).to(images))


def under_further_attacks(
    model: nn.Module, evaluation: EvaluationSet, columns: Columns, attacks: Sequence[str]
) -> Columns:
    """`robust R` where an image counts only if it is right under every one of the attacks; `pgd R`, what it
    was. What falls within a radius falls within larger ones.

    Args:
        columns: of `measured`, whose robust accuracy is that under PGD.
        attacks: names of `stronger_attacks.ATTACKS`.
    """
    asked, found = evaluation.measures, Columns()
    kept = torch.ones(len(evaluation))
    for radius in sorted(asked.radii or ()):
        pgd = columns[f"robust {radius:g}"]
        kept = torch.minimum(kept.to(pgd), pgd)
        for name in attacks if radius else ():
            attack = find_attack(name)(radius, asked.attack_steps)
            for part in evaluation.parts:
                places = part.places[kept[part.places] > 0]
                if len(places):
                    some = evaluation.data.take(places.to(evaluation.data.labels.device))
                    still = robust(
                        model, some.images, some.labels, attack, seed=asked.seed, places=places.tolist()
                    )
                    kept[places] = still.to(kept)
        found |= {f"robust {radius:g}": kept.clone(), f"pgd {radius:g}": pgd}
    return found


def _classes(model: nn.Module, evaluation: EvaluationSet) -> dict[str, Labels]:
    """The classes (n,) of each kind of score, for all images."""
    logits = torch.cat([predict(model, part.data.images) for part in evaluation.parts])
    _check_classes(logits.shape[1], evaluation)
    labels = evaluation.data.labels
    return {
        PREDICTED: logits.argmax(1) if evaluation.measures.of_class == "predicted" else labels,
        TRUE: labels,
    }


def _check_classes(found: int, evaluation: EvaluationSet) -> None:
    labels = evaluation.data.labels
    if int(labels.max()) >= found:
        raise UsageError(
            f"labels from 0 to {found - 1}, the classifier's classes",
            got=f"labels up to {int(labels.max())}",
            suggestion="numbering the classes from zero, or a classifier with more classes",
        )
    known = getattr(evaluation.denoiser, "classes", None)
    if evaluation.conditional and isinstance(known, int) and known and known != found:
        raise UsageError(
            f"a denoiser of the classifier's {found} classes",
            got=f"one of {known}",
            suggestion="conditional=False, for the score of all classes",
        )


@dataclass
class _Measured:
    """One model on one part; `classes` are those of all images of the evaluation set."""

    model: nn.Module
    evaluation: EvaluationSet
    part: Part
    classes: Mapping[str, Labels]
    control: nn.Module | None
    references: dict[tuple[str, str, bool], Comparison] = field(default_factory=dict)
    directions: dict[str, tuple[Images, Images]] = field(default_factory=dict)

    def columns(self) -> Columns:
        """Every quantity, (n,) each."""
        asked, data, places = self.evaluation.measures, self.part.data, self.part.places.tolist()
        columns = _classified(self.model, data.images, data.labels)
        for radius in asked.radii or ():
            attack = PGD(radius, asked.attack_steps)
            found = robust(self.model, data.images, data.labels, attack, seed=asked.seed, places=places)
            columns[f"robust {radius:g}"] = found
        basis = self.part.basis
        if basis is not None:
            columns |= self._of_the_manifold(basis)
        columns |= self._of_the_scores(basis)
        columns |= {name: v[self.part.places] for name, v in self.evaluation.controls.items()}
        whole = gradients(self.model, data.images, self.wanted(list(self.evaluation.targets)))
        if tuple(data.shape[1:]) != self.evaluation.size:
            columns |= {f"kept {t}": kept_energy(v, self.evaluation.size) for t, v in whole.items()}
        columns |= self._of_vectors("", self.prepared(whole), basis)
        for sigma in asked.smooth_sigmas:
            columns |= self._of_vectors(f"smooth {sigma:g} ", self._smooth(sigma), basis)
        if self.control is not None:
            untrained = gradients(self.control, data.images, self.wanted(list(self.evaluation.targets)))
            columns |= self._of_vectors("control ", self.prepared(untrained), basis, shuffled=False)
        return {name: values.detach() for name, values in columns.items()}

    def shown(self, target: str, gradient: Images) -> Columns:
        """What is drawn of these images for one target."""
        found = {"image": self.part.small.images, "predicted": self._here(PREDICTED), "gradient": gradient}
        basis, kind = self.part.basis, self.evaluation.kind(self.evaluation.targets[target].which)
        if kind is not None:
            classes = None if kind == ALL else self._here(kind)
            found["score"] = self.evaluation.score_at(self.part.places, classes)
            for metric in self.evaluation.metrics:
                own = self._reference(metric, kind)
                found[metric.name] = own.similarity(gradient)
                if isinstance(own, Reference):
                    everywhere = torch.arange(len(gradient), device=gradient.device)
                    found["layers"] = own.by_layer(gradient, everywhere)
        if basis is not None:
            found |= {f"on {n}": project(found[n], basis) for n in ("gradient", "score") if n in found}
        return found

    def wanted(self, targets: Sequence[str]) -> Wanted:
        """Some targets with the classes of their gradients."""
        known = self.evaluation.targets
        return {t: (known[t], self._here(TRUE if known[t].which == TRUE else PREDICTED)) for t in targets}

    def prepared(self, whole: Mapping[str, Images]) -> dict[str, Tensor]:  # (n, c, *size)
        """Gradients at the score's size, signed so that they point towards the class."""
        signs = {name: target.sign for name, target in self.evaluation.targets.items()}
        return {t: signs[t] * resized(v, self.evaluation.size) for t, v in whole.items()}

    def _here(self, kind: str) -> Labels:
        return self.classes[kind][self.part.places.to(self.classes[kind].device)]

    def _smooth(self, sigma: float) -> dict[str, Tensor]:  # (n, c, *size)
        asked = self.evaluation.measures
        if not asked.smooth_targets:
            return {}
        draws = ImageDraws(asked.seed, "smooth", places=self.part.places.tolist())
        found = smooth_gradients(
            self.model, self.part.data.images, self.wanted(asked.smooth_targets), sigma=sigma,
            samples=asked.smooth_samples, draws=draws,
        )  # fmt: skip
        return self.prepared(found)

    def _of_the_manifold(self, basis: Basis) -> Columns:
        """Robustness on and off it, at equal norm and by Definition 1."""
        asked, images, places = self.evaluation.measures, self.part.data.images, self.part.places.tolist()
        assert asked.norms is not None  # decided with the evaluation set
        assert asked.norm is not None
        changes = equal_norm(
            self.model, images, basis, asked.norms, size=self.evaluation.size, directions=asked.directions,
            change=asked.change, draws=ImageDraws(asked.seed, "directions", places=places),
        )  # fmt: skip
        noise = definition_1(
            self.model, images, basis, asked.norm / images[0].numel() ** 0.5, size=self.evaluation.size,
            directions=4 * asked.directions, draws=ImageDraws(asked.seed, "definition 1", places=places),
        )  # fmt: skip
        ranks = (basis.abs().amax(1) > 0).sum(1)
        columns = {
            f"{part} {norm:g}": getattr(changes, part)[place]
            for place, norm in enumerate(asked.norms)
            for part in ("on", "off", "any")
        }
        if asked.attacked and tuple(images.shape[2:]) == self.evaluation.size:
            worst = attacked_equal_norm(
                self.model, images, basis, (asked.norm,), steps=asked.attack_steps, change=asked.change
            )
            parts = {"on": worst.on, "off": worst.off, "any": worst.any}
            columns |= {f"attacked {part} {asked.norm:g}": found[0] for part, found in parts.items()}
        if "distance" in self.part.tangents:
            columns["distance to manifold"] = self.part.tangents["distance"].to(images)
        return columns | {
            "squared change off": noise.off,
            "squared change": noise.all,
            "dimension": ranks.to(images),
            "chance rho2": (1 - ranks / basis.shape[1]).to(images),
        }

    def _reference(self, metric: Metric, kind: str, *, shuffled: bool = False) -> Comparison:
        """The scores of these images, or of their partners, ready for comparison."""
        key = metric.name, kind, shuffled
        if key not in self.references:
            places = self.evaluation.partners[self.part.places] if shuffled else self.part.places
            places = places.to(self.evaluation.data.labels.device)
            classes = self.classes[TRUE if kind == ALL else kind][places]
            self.references[key] = self.evaluation.reference(metric, kind, places, classes)
        return self.references[key]

    def _kinds(self) -> list[str]:
        """The kinds of score that some target is compared with."""
        wanted = {self.evaluation.kind(target.which) for target in self.evaluation.targets.values()}
        return [kind for kind in (ALL, PREDICTED, TRUE) if kind in wanted]

    def _of_the_scores(self, basis: Basis | None) -> Columns:
        """The reference values of similarities, and where the scores themselves point."""
        columns: Columns = {}
        for kind in self._kinds():
            classes = None if kind == ALL else self._here(kind)
            score = self.evaluation.score_at(self.part.places, classes)
            if basis is not None:
                columns[f"rho2 score {kind}"] = off_manifold_share(score, basis)
            columns[f"low frequency score {kind}"] = low_frequency_share(score)
            draws = ImageDraws(self.evaluation.measures.seed, "floor", places=self.part.places.tolist())
            noise = draws.normal_like(score)
            second = self.evaluation.score_at(self.part.places, classes, second=True)
            for metric in self.evaluation.metrics:
                own = self._reference(metric, kind)
                columns[f"floor {metric.name} {kind}"] = own.similarity(noise)
                if second is not None:
                    columns[f"ceiling {metric.name} {kind}"] = own.similarity(second)
            if classes is not None and ALL in self.evaluation.kinds and basis is not None:
                direction = self.evaluation.bayes_at(self.part.places, classes)
                columns[f"rho2 bayes {kind}"] = off_manifold_share(direction, basis)
        return columns

    def _of_vectors(
        self, prefix: str, vectors: Mapping[str, Images], basis: Basis | None, *, shuffled: bool = True
    ) -> Columns:
        """rho2 of each vector and its similarities with the score that it is compared with."""
        columns: Columns = {}
        for target, vector in vectors.items():
            if basis is not None:
                energy = definition_2(vector, basis)
                columns[f"{prefix}rho2 {target}"] = energy.rho2.to(vector)
                columns |= {
                    f"{prefix}energy off {target}": energy.off,
                    f"{prefix}energy {target}": energy.all,
                }
            columns[f"{prefix}low frequency {target}"] = low_frequency_share(vector)
            kind = self.evaluation.kind(self.evaluation.targets[target].which)
            for metric in self.evaluation.metrics if kind else ():
                name = f"{prefix}{metric.name} {target}"
                assert kind is not None
                columns[name] = self._reference(metric, kind).similarity(vector)
                if shuffled:
                    other = self._reference(metric, kind, shuffled=True)
                    columns[f"shuffled {name}"] = other.similarity(vector)
            if kind in (PREDICTED, TRUE) and ALL in self.evaluation.kinds:
                columns |= self._with_bayes(f"{prefix}bayes cosine {target}", vector, kind, shuffled=shuffled)
        return columns

    def _with_bayes(self, name: str, vector: Images, kind: str, *, shuffled: bool) -> Columns:
        """The cosine of a vector and the Bayes direction of its class, and of another image."""
        own, other = self._bayes(kind)
        found = {name: cosines(vector, own)}
        return found | ({f"shuffled {name}": cosines(vector, other)} if shuffled else {})

    def _bayes(self, kind: str) -> tuple[Images, Images]:
        """The Bayes directions of these images and of their partners."""
        if kind not in self.directions:
            places = self.part.places, self.evaluation.partners[self.part.places]
            device = self.evaluation.data.labels.device
            own, other = (
                self.evaluation.bayes_at(p.to(device), self.classes[kind][p.to(device)]) for p in places
            )
            self.directions[kind] = own, other
        return self.directions[kind]


def _classified(model: nn.Module, images: Images, labels: Labels) -> Columns:
    """Whether the label is predicted, the probability of the predicted class, and that of the label."""
    shares = predict(model, images).softmax(1)
    confidence, predicted = shares.max(1)
    truth = shares.gather(1, labels[:, None])[:, 0]
    return {
        "correct": (predicted == labels).to(images),
        "confidence": confidence,
        "probability of label": truth,
    }
