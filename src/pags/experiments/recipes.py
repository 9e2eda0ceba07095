"""Recipes: what the result of each stage is a function of, as plain data to be fingerprinted.

A recipe holds the recipes of what it needs, so a change anywhere changes the names of everything that depends
on it, and of nothing else.
"""

from dataclasses import dataclass
from typing import Any

from pags.experiments.config import SweepConfig
from pags.store import Record
from pags.training.fit import Plan

UNTRAINED = "untrained"
"""The control: a network with its initial weights, whose gradients are those of random features."""

REVISIONS = {
    "classifier": 1,
    "autoencoder": 1,
    "denoiser": 1,
    "tangent": 1,
    "scores": 1,
    "lines": 1,
    "measures": 1,
}
"""Raised by whoever changes what a stage computes, so that older artefacts are not taken for its results."""


@dataclass(frozen=True)
class Recipes:
    """The recipes of an experiment's stages.

    Args:
        config: the settings.
        data: the provenance of the images.
    """

    config: SweepConfig
    data: Record

    def classifier(self, objective: str, strength: float) -> Record:
        """A trained classifier; strength 0 is one network for all objectives, untrained knows no plan."""
        plan, network = self.config.classifier, {"architecture": self.config.architecture}
        if objective == UNTRAINED:
            return self._recipe("classifier", data=self.data, objective=UNTRAINED, **network)
        if strength == 0:
            return self._trained("classifier", plan, objective="cross-entropy", **network)
        steps = {"attack_steps": self.attack_steps(objective)} if objective == "pgd" else {}
        return self._trained("classifier", plan, objective=objective, strength=strength, **steps, **network)

    def autoencoder(self) -> Record:
        """The trained autoencoder."""
        config = self.config
        return self._trained(
            "autoencoder", config.autoencoder, latent=config.latent, widths=config.autoencoder_widths
        )

    def denoiser(self) -> Record:
        """The trained denoiser."""
        return self._trained("denoiser", self.config.denoiser, widths=self.config.denoiser_widths)

    def tangent(self) -> Record:
        """Tangent bases of the test images."""
        return self._recipe("tangent", autoencoder=self.autoencoder())

    def scores(self) -> Record:
        """Scores of the test images."""
        return self._recipe("scores", denoiser=self.denoiser(), sigma=self.config.sigma)

    def lines(self) -> Record:
        """Floors and ceilings."""
        return self._recipe("lines", tangent=self.tangent(), scores=self.scores())

    def measures(self, objective: str, strength: float) -> Record:
        """Everything that is measured of one classifier."""
        return self._recipe(
            "measures",
            classifier=self.classifier(objective, strength),
            tangent=self.tangent(),
            scores=self.scores(),
            norms=self.config.norms,
            norm=self.config.norm,
            directions=self.config.directions,
        )

    def attack_steps(self, objective: str) -> int:
        """The steps of the attack in the sweep of an objective."""
        return next(sweep.attack_steps for sweep in self.config.sweeps if sweep.objective == objective)

    def _recipe(self, stage: str, **needs: Any) -> Record:
        """What a stage's result is a function of, with the recipes of the stages that it needs."""
        return {"stage": [stage, REVISIONS[stage]], "seed": self.config.seed, **needs}

    def _trained(self, stage: str, plan: Plan, **needs: Any) -> Record:
        return self._recipe(stage, data=self.data, plan=plan.model_dump(mode="json"), **needs)
