"""Recipes: what the result of each stage is a function of, as plain data to be fingerprinted.

A recipe holds the recipes of what it needs, so a change anywhere changes the names of everything that depends
on it, and of nothing else.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pags.errors import UsageError
from pags.experiments.config import SweepConfig
from pags.seeds import derive
from pags.store import Record
from pags.training.fit import Plan
from pags.training.recipes import scaled_rate

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

    def classifier(self, objective: str, strength: float, repeat: int = 0) -> Record:
        """A trained classifier; strength 0 is one network for all objectives, untrained knows no plan."""
        config, plan = self.config, self.plan(objective, strength)
        network = {"architecture": config.architecture} | _unless("activation", config.activation, "relu")
        network |= _unless("repeat", repeat, 0)
        if objective == UNTRAINED:
            return self._recipe("classifier", data=self.data, objective=UNTRAINED, **network)
        if strength == 0:
            return self._trained("classifier", plan, objective="cross-entropy", **network)
        how = _unless("preset", config.preset, "ours")
        if objective == "pgd":
            how |= {"attack_steps": self.attack_steps(objective)}
            how |= _unless("relative_step", config.relative_step, 2.5)
        return self._trained("classifier", plan, objective=objective, strength=strength, **how, **network)

    def plan(self, objective: str, strength: float) -> Plan:
        """How a classifier is trained; strong penalties take lower learning rates where settings say so."""
        plan, config = self.config.classifier, self.config
        if not config.scale_rate or objective == UNTRAINED:
            return plan
        rate = scaled_rate(plan.learning_rate, objective, strength, preset=config.preset)
        return plan.model_copy(update={"learning_rate": rate})

    def seed(self, repeat: int) -> int:
        """The seed of a repeat's initial weights and training; the first repeat has the experiment's own."""
        return self.config.seed if repeat == 0 else derive(self.config.seed, "repeat", repeat)

    def autoencoder(self) -> Record:
        """The trained autoencoder."""
        config = self.config
        if config.autoencoder_file:
            return self._recipe("autoencoder", file=file_digest(config.autoencoder_file))
        return self._trained(
            "autoencoder", config.autoencoder, latent=config.latent, widths=config.autoencoder_widths
        )

    def denoiser(self) -> Record:
        """The trained denoiser, or the files of foreign ones."""
        files = {"file": self.config.denoiser_file, "conditional": self.config.conditional_denoiser_file}
        if any(files.values()):
            digests = {name: file_digest(file) for name, file in files.items() if file}
            return self._recipe("denoiser", **digests)
        return self._trained("denoiser", self.config.denoiser, widths=self.config.denoiser_widths)

    def tangent(self) -> Record:
        """Tangent bases of the measured images."""
        return self._recipe("tangent", autoencoder=self.autoencoder(), **self._measured())

    def scores(self) -> Record:
        """Scores of the measured images."""
        return self._recipe("scores", denoiser=self.denoiser(), sigma=self.config.sigma, **self._measured())

    def lines(self) -> Record:
        """Floors and ceilings."""
        how = _unless("upsample_to", self.config.upsample_to, 64)
        return self._recipe("lines", tangent=self.tangent(), scores=self.scores(), **how)

    def score_shares(self, sigmas: tuple[float, ...]) -> Record:
        """Where the score points, at several noise levels."""
        return self._recipe("scores", tangent=self.tangent(), denoiser=self.denoiser(), sigmas=sigmas)

    def measures(self, objective: str, strength: float, repeat: int = 0) -> Record:
        """Everything that is measured of one classifier."""
        how = _unless("upsample_to", self.config.upsample_to, 64)
        how |= _unless("change", self.config.change, "softmax-l2")
        return self._recipe(
            "measures",
            **how,
            classifier=self.classifier(objective, strength, repeat),
            tangent=self.tangent(),
            scores=self.scores(),
            norms=self.config.norms,
            norm=self.config.norm,
            directions=self.config.directions,
        )

    def attack_steps(self, objective: str) -> int:
        """The steps of the attack in the sweep of an objective."""
        return next(sweep.attack_steps for sweep in self.config.sweeps if sweep.objective == objective)

    def _measured(self) -> Record:
        return _unless("images", self.config.images, None)

    def _recipe(self, stage: str, **needs: Any) -> Record:
        """What a stage's result is a function of, with the recipes of the stages that it needs."""
        return {"stage": [stage, REVISIONS[stage]], "seed": self.config.seed, **needs}

    def _trained(self, stage: str, plan: Plan, **needs: Any) -> Record:
        return self._recipe(stage, data=self.data, plan=plan.model_dump(mode="json"), **needs)


def file_digest(path: str | Path) -> str:
    """The sha256 of a file, which stands for it in recipes."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(
            "a readable network file", got=f"{path} ({error.strerror})", suggestion="checking the path"
        ) from error


def _unless(name: str, value: Any, usual: Any) -> Record:
    """A setting where it is not the usual one; settings that came later thus leave older artefacts valid."""
    return {} if value == usual else {name: value}
