"""The stages of an experiment. Each asks the store first, so finished work is never done twice.

An artefact's name ends in the fingerprint of its recipe, which holds the fingerprints of what it was made
from. A change of any setting therefore changes the names of everything that depends on it, and nothing else.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from torch import Tensor, nn

from pags.arrays import Basis, Images
from pags.classifiers.modes import correct, predict
from pags.classifiers.resnet import build_resnet
from pags.data.imageset import DataSet
from pags.data.sources import load
from pags.experiments.config import SweepConfig
from pags.experiments.recipes import UNTRAINED, Recipes
from pags.manifold.autoencoder import Autoencoder, Reconstruction
from pags.manifold.tangent import decoder_tangent
from pags.measure.alignment import Reference
from pags.measure.gradients import input_gradient
from pags.measure.lpips import LPIPS
from pags.measure.robustness import definition_1, equal_norm, off_manifold_share
from pags.score.denoiser import score_of
from pags.score.exact import IdealDenoiser
from pags.score.unet import Denoising, UNetDenoiser
from pags.seeds import generator, seeded_construction
from pags.store import Store, fingerprint
from pags.training.fit import Plan, fit
from pags.training.objectives import Objective, make_objective

M = TypeVar("M", bound=nn.Module)

TARGETS = {"logit": "conditional", "sum-of-logits": "unconditional"}
"""What is compared with what (B.4): the predicted class's logit with the score of the same class, and the
sum of the logits with the unconditional score."""

Columns = dict[str, Tensor]
"""Quantities by name, one number for each test image."""

Report = Callable[[float], None]
"""Told the share of a job that is done."""


@dataclass
class Stages:
    """Everything that an experiment computes, computed when first asked for."""

    config: SweepConfig
    store: Store
    seed: int = field(init=False)

    def __post_init__(self) -> None:
        self.seed = self.config.seed

    @cached_property
    def data(self) -> DataSet:
        """Training and test images."""
        return load(self.config.data)

    def check(self) -> None:
        """Raise for settings that some later stage would refuse, before any work is done."""
        self._classifier_network(), self._autoencoder_network(), self._denoiser_network()
        for sweep in self.config.sweeps:
            for strength in sweep.strengths:
                self._objective(sweep.objective, strength)

    @cached_property
    def recipes(self) -> Recipes:
        """What each stage's result is a function of."""
        return Recipes(self.config, self.data.train.provenance)

    # Networks -------------------------------------------------------------------------------------------

    def classifier(self, objective: str, strength: float, report: Report | None = None) -> nn.Module:
        """The classifier trained with an objective at a strength, in evaluation mode."""
        recipe = self.recipes.classifier(objective, strength)
        if objective == UNTRAINED:
            return self._classifier_network().eval()
        return self._trained(
            "classifiers",
            recipe,
            self._classifier_network,
            self._objective(objective, strength),
            self.config.classifier,
            report,
        )

    def autoencoder(self, report: Report | None = None) -> Autoencoder:
        """The autoencoder whose decoder's tangent spaces are the manifold's."""
        return self._trained(
            "autoencoders",
            self.recipes.autoencoder(),
            self._autoencoder_network,
            Reconstruction(),
            self.config.autoencoder,
            report,
        )

    def denoiser(self, report: Report | None = None) -> UNetDenoiser:
        """The denoiser whose score is compared with the gradients."""
        return self._trained(
            "denoisers",
            self.recipes.denoiser(),
            self._denoiser_network,
            Denoising(),
            self.config.denoiser,
            report,
        )

    # What is computed from them -------------------------------------------------------------------------

    @cached_property
    def basis(self) -> Basis:
        """Tangent bases of the test images."""
        return self._computed("tangents", self.recipes.tangent(), self._tangent)["basis"]

    @cached_property
    def scores(self) -> Columns:
        """Scores of the test images: the denoiser's and the ideal denoiser's, without and with classes."""
        return self._computed("scores", self.recipes.scores(), self._scores)

    @cached_property
    def references(self) -> dict[str, Reference]:
        """The scores ready for comparison."""
        lpips = LPIPS.load()
        return {name: Reference.of(self.scores[name], lpips) for name in ("unconditional", "conditional")}

    def lines(self) -> Columns:
        """Floor and ceiling of the similarity with each score, per test image."""
        return self._computed("measures", self.recipes.lines(), self._lines)

    def measures(self, objective: str, strength: float, report: Report | None = None) -> Columns:
        """Everything that is measured of one classifier, per test image."""
        recipe = self.recipes.measures(objective, strength)
        return self._computed("measures", recipe, lambda: self._measures(objective, strength, report))

    def gradients(self, objective: str, strength: float, images: Images) -> dict[str, Images]:
        """The gradients of one classifier for each of `TARGETS`."""
        model = self.classifier(objective, strength)
        return {target: input_gradient(model, images, target) for target in TARGETS}

    def references_for(self, model: nn.Module) -> dict[str, Reference]:
        """The score that each target is compared with; where the model errs, that of the class it names."""
        test, known = self.data.test, self.references
        predicted = predict(model, test.images).argmax(1)
        wrong = (predicted != test.labels).nonzero()[:, 0]
        other = score_of(self.denoiser(), test.images[wrong], self.config.sigma, predicted[wrong])
        return {
            "logit": known["conditional"].replaced(wrong, other),
            "sum-of-logits": known["unconditional"],
        }

    # How ------------------------------------------------------------------------------------------------

    def _tangent(self) -> Columns:
        basis, ranks = decoder_tangent(self.autoencoder(), self.data.test.images)
        return {"basis": basis, "ranks": ranks}

    def _scores(self) -> Columns:
        train, test, sigma = self.data.train, self.data.test, self.config.sigma
        found = {}
        for prefix, denoiser in (
            ("", self.denoiser()),
            ("ideal ", IdealDenoiser(train.images, train.labels)),
        ):
            found[f"{prefix}unconditional"] = score_of(denoiser, test.images, sigma)
            found[f"{prefix}conditional"] = score_of(denoiser, test.images, sigma, test.labels)
        return found

    def _lines(self) -> Columns:
        lines = {}
        for name, reference in self.references.items():
            lines[f"floor {name}"] = reference.floor(generator(self.seed, "floor", name))
            lines[f"ceiling {name}"] = reference.similarity(self.scores[f"ideal {name}"])
            lines[f"ceiling cosine {name}"] = reference.cosine(self.scores[f"ideal {name}"])
            lines[f"off-share of score {name}"] = off_manifold_share(self.scores[name], self.basis)
        return lines

    def _measures(self, objective: str, strength: float, report: Report | None) -> Columns:
        model, test, config = self.classifier(objective, strength, report), self.data.test, self.config
        columns = {"correct": correct(model, test.images, test.labels)}
        # The same directions for every model, so that differences between models are paired.
        changes = equal_norm(
            model,
            test.images,
            self.basis,
            config.norms,
            draws=generator(self.seed, "directions"),
            directions=config.directions,
        )
        for place, norm in enumerate(config.norms):
            for part in ("on", "off", "any"):
                columns[f"{part} {norm:g}"] = getattr(changes, part)[place]
        noise = definition_1(
            model,
            test.images,
            self.basis,
            config.norm / test.images[0].numel() ** 0.5,
            draws=generator(self.seed, "definition 1"),
            directions=4 * config.directions,
        )
        columns |= {"squared change off": noise.off, "squared change": noise.all}
        references = self.references_for(model)
        for name, gradient in self.gradients(objective, strength, test.images).items():
            reference = references[name]
            draws = generator(self.seed, "shuffled", name)
            similar, shuffled = reference.similarity_and_shuffled(gradient, draws)
            columns |= {
                f"similarity {name}": similar,
                f"shuffled {name}": shuffled,
                f"cosine {name}": reference.cosine(gradient),
                f"rho2 {name}": off_manifold_share(gradient, self.basis),
            }
        return columns

    def _computed(self, folder: str, recipe: dict[str, Any], compute: Callable[[], Columns]) -> Columns:
        name = f"{folder}/{fingerprint(recipe)}.safetensors"
        if not self.store.has(name):
            self.store.write_tensors(name, compute(), {"recipe": recipe})
        return self.store.read_tensors(name)[0]

    def _trained(
        self,
        folder: str,
        recipe: dict[str, Any],
        build: Callable[[], M],
        objective: Objective,
        plan: Plan,
        report: Report | None,
    ) -> M:
        key = fingerprint(recipe)
        name = f"{folder}/{key}.safetensors"
        if not self.store.has(name):
            slot = self.store.slot(f"unfinished/{key}.safetensors")
            trained = build()
            for epoch in fit(trained, objective, self.data.train, plan, seed=self.seed, slot=slot):
                if report:
                    report(epoch.epoch / epoch.epochs)
            self.store.write_tensors(name, trained.state_dict(), {"recipe": recipe})
            slot.clear()
        # Always the stored weights in a fresh network: the memory layout that training leaves behind changes
        # the last digits of a convolution, and a run that continues must measure the same.
        model = build()
        model.load_state_dict(self.store.read_tensors(name)[0])
        return model.eval()

    # Objectives and networks ----------------------------------------------------------------------------

    def _objective(self, objective: str, strength: float) -> Objective:
        return make_objective(objective, strength, attack_steps=self.recipes.attack_steps(objective))

    def _classifier_network(self) -> nn.Module:
        train = self.data.train
        mean, std = train.statistics()
        with seeded_construction(self.seed, "classifier"):
            return build_resnet(
                self.config.architecture, train.shape[0], len(train.classes), mean=mean, std=std
            )

    def _autoencoder_network(self) -> Autoencoder:
        with seeded_construction(self.seed, "autoencoder"):
            return Autoencoder(self.data.train.shape, self.config.latent, self.config.autoencoder_widths)

    def _denoiser_network(self) -> UNetDenoiser:
        train = self.data.train
        with seeded_construction(self.seed, "denoiser"):
            return UNetDenoiser(
                train.shape[0], classes=len(train.classes), widths=self.config.denoiser_widths
            )
