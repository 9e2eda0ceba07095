"""The stages of an experiment. Each asks the store first, so finished work is never done twice.

An artefact's name ends in the fingerprint of its recipe, which holds the fingerprints of what it was made
from. A change of any setting therefore changes the names of everything that depends on it, and nothing else.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from torch import nn

from pags.arrays import Basis, Images
from pags.classifiers.build import build_classifier
from pags.classifiers.modes import correct, predict
from pags.data.imageset import DataSet
from pags.errors import UsageError
from pags.experiments.config import SweepConfig
from pags.experiments.inputs import denoiser_of_files, fill, load_data
from pags.experiments.recipes import UNTRAINED, Recipes
from pags.experiments.workshop import Columns, Workshop
from pags.manifold.autoencoder import Autoencoder, Reconstruction
from pags.manifold.tangent import decoder_tangent
from pags.measure.alignment import Reference
from pags.measure.gradients import input_gradient
from pags.measure.lpips import LPIPS
from pags.measure.robustness import OUTPUT_CHANGES, definition_1, equal_norm, off_manifold_share
from pags.score.denoiser import Denoiser, score_of
from pags.score.exact import IdealDenoiser
from pags.score.unet import Denoising, UNetDenoiser
from pags.seeds import generator, seeded_construction
from pags.store import Store
from pags.training.fit import Report
from pags.training.objectives import Objective, make_objective

TARGETS = {"logit": "conditional", "sum-of-logits": "unconditional"}
"""What is compared with what (B.4): the predicted class's logit with the score of the same class, and the
sum of the logits with the unconditional score."""


SIGMAS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Noise levels, in EDM's unit, at which the score's share in the tangent space is taken."""


@dataclass
class Stages:
    """Everything that an experiment computes, computed when first asked for."""

    config: SweepConfig
    store: Store
    seed: int = field(init=False)

    def __post_init__(self) -> None:
        self.seed = self.config.seed

    @cached_property
    def workshop(self) -> Workshop:
        """Where networks are trained and columns computed."""
        return Workshop(self.store, self.config.device)

    @cached_property
    def data(self) -> DataSet:
        """Training images, and the images that are measured."""
        return load_data(self.config)

    def check(self) -> None:
        """Raise for settings that some later stage would refuse, before any work is done."""
        self._classifier_network(0), self._autoencoder_network(), self._denoiser_network()
        if self.config.change not in OUTPUT_CHANGES:
            raise UsageError(
                f"a change among {', '.join(OUTPUT_CHANGES)}", got=self.config.change, suggestion="softmax-l2"
            )
        for sweep in self.config.sweeps:
            for strength in sweep.strengths:
                self._objective(sweep.objective, strength)
        # Images that are too small for LPIPS are refused here, not when the networks are trained.
        LPIPS.load(upsample_to=self.config.upsample_to or None).features(self.data.test.images[:1].cpu())

    @cached_property
    def recipes(self) -> Recipes:
        """What each stage's result is a function of."""
        return Recipes(self.config, self.data.train.provenance)

    # Networks -------------------------------------------------------------------------------------------

    def classifier(
        self, objective: str, strength: float, report: Report | None = None, *, repeat: int = 0
    ) -> nn.Module:
        """The classifier trained with an objective at a strength, in evaluation mode."""
        recipe = self.recipes.classifier(objective, strength, repeat)
        if objective == UNTRAINED:
            return self._classifier_network(repeat).to(self.config.device).eval()
        return self.workshop.trained(
            "classifiers", recipe, lambda: self._classifier_network(repeat),
            self._objective(objective, strength),
            self.data.train, self.recipes.plan(objective, strength), seed=self.recipes.seed(repeat),
            report=report,
        )  # fmt: skip

    def autoencoder(self, report: Report | None = None) -> Autoencoder:
        """The autoencoder whose decoder's tangent spaces are the manifold's."""
        if self.config.autoencoder_file:
            network = self._autoencoder_network()
            fill(network, Path(self.config.autoencoder_file))
            return network.to(self.config.device).eval()
        return self.workshop.trained(
            "autoencoders", self.recipes.autoencoder(), self._autoencoder_network, Reconstruction(),
            self.data.train, self.config.autoencoder, seed=self.seed, report=report,
        )  # fmt: skip

    def denoiser(self, report: Report | None = None) -> Denoiser:
        """The denoiser whose score is compared with the gradients."""
        config = self.config
        if config.denoiser_file or config.conditional_denoiser_file:
            return denoiser_of_files(config.denoiser_file, config.conditional_denoiser_file, config.device)
        return self.workshop.trained(
            "denoisers", self.recipes.denoiser(), self._denoiser_network, Denoising(),
            self.data.train, config.denoiser, seed=self.seed, report=report,
        )  # fmt: skip

    # What is computed from them -------------------------------------------------------------------------

    @cached_property
    def basis(self) -> Basis:
        """Tangent bases of the test images."""
        return self.workshop.computed("tangents", self.recipes.tangent(), self._tangent)["basis"]

    @cached_property
    def scores(self) -> Columns:
        """Scores of the test images: the denoiser's and the ideal denoiser's, without and with classes."""
        return self.workshop.computed("scores", self.recipes.scores(), self._scores)

    @cached_property
    def references(self) -> dict[str, Reference]:
        """The scores ready for comparison."""
        lpips = LPIPS.load(upsample_to=self.config.upsample_to or None)
        return {name: Reference.of(self.scores[name], lpips) for name in ("unconditional", "conditional")}

    def lines(self) -> Columns:
        """Floor and ceiling of the similarity with each score, per test image."""
        return self.workshop.computed("measures", self.recipes.lines(), self._lines)

    def score_shares(self) -> Columns:
        """Share of the score's energy off the manifold at each of `SIGMAS`, per test image."""
        recipe = self.recipes.score_shares(SIGMAS)
        return self.workshop.computed("measures", recipe, self._score_shares)

    def measures(
        self, objective: str, strength: float, report: Report | None = None, *, repeat: int = 0
    ) -> Columns:
        """Everything that is measured of one classifier, per test image."""
        recipe = self.recipes.measures(objective, strength, repeat)
        return self.workshop.computed(
            "measures", recipe, lambda: self._measures(objective, strength, repeat, report)
        )

    def gradients(
        self, objective: str, strength: float, images: Images, *, repeat: int = 0
    ) -> dict[str, Images]:
        """The gradients of one classifier for each of `TARGETS`."""
        model = self.classifier(objective, strength, repeat=repeat)
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

    def _score_shares(self) -> Columns:
        denoiser, images = self.denoiser(), self.data.test.images
        return {
            f"off-share {sigma:g}": off_manifold_share(score_of(denoiser, images, sigma), self.basis)
            for sigma in SIGMAS
        }

    def _measures(self, objective: str, strength: float, repeat: int, report: Report | None) -> Columns:
        model = self.classifier(objective, strength, report, repeat=repeat)
        test, config = self.data.test, self.config
        columns = {"correct": correct(model, test.images, test.labels)}
        # The same directions for every model, so that differences between models are paired.
        changes = equal_norm(
            model,
            test.images,
            self.basis,
            config.norms,
            draws=generator(self.seed, "directions"),
            directions=config.directions,
            change=config.change,
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
        for name, gradient in self.gradients(objective, strength, test.images, repeat=repeat).items():
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

    # Objectives and networks ----------------------------------------------------------------------------

    def _objective(self, objective: str, strength: float) -> Objective:
        return make_objective(
            objective, strength, attack_steps=self.recipes.attack_steps(objective),
            relative_step=self.config.relative_step, preset=self.config.preset,
        )  # fmt: skip

    def _classifier_network(self, repeat: int) -> nn.Module:
        train, config = self.data.train, self.config
        mean, std = self._statistics
        with seeded_construction(self.recipes.seed(repeat), "classifier"):
            return build_classifier(
                config.architecture, train.shape[0], len(train.classes),
                activation=config.activation, mean=mean, std=std,
            )  # fmt: skip

    @cached_property
    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return self.data.train.statistics()

    def _autoencoder_network(self) -> Autoencoder:
        with seeded_construction(self.seed, "autoencoder"):
            return Autoencoder(self.data.train.shape, self.config.latent, self.config.autoencoder_widths)

    def _denoiser_network(self) -> UNetDenoiser:
        train = self.data.train
        with seeded_construction(self.seed, "denoiser"):
            return UNetDenoiser(
                train.shape[0], classes=len(train.classes), widths=self.config.denoiser_widths
            )
