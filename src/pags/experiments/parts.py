"""The parts of a reproduction, each run when a figure or a claim first asks for it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pags.auditing.evaluation import short_name
from pags.errors import UsageError
from pags.experiments import bayes, distractor, experiment, generation, manifold, smoothgrad, transfer
from pags.experiments.cache import Columns
from pags.experiments.engines import Progress
from pags.experiments.settings import Common, ExperimentSettings
from pags.measure.regimes import EXCESSIVE
from pags.records import ModelRecord, Record, SweepRecord
from pags.store import Store

PARTS = (
    "sweep",
    "score",
    "transfer",
    "distractor",
    "generation",
    "smoothgrad",
    "manifold",
    "bayes",
    "world",
    "shipped",
)
"""All parts by name; an exact world and the networks that ship with the package need no work."""


@dataclass
class Parts:
    """The parts of an experiment and their records.

    Args:
        settings: what is run.
        store: where everything is kept.
        progress: called with what is being done.
        where: engine, workers and shard, see `pags.experiments.engines.run_tasks`.
    """

    settings: ExperimentSettings
    store: Store
    progress: Progress = field(default=lambda what, share: None)
    where: Record = field(default_factory=dict)

    @cached_property
    def experiment(self) -> experiment.Experiment:
        """The networks and measures of the sweeps."""
        return experiment.Experiment(self.settings, self.store)

    @cached_property
    def sweep(self) -> SweepRecord:
        """All sweeps of strengths."""
        return experiment.run_sweeps(self.settings, self.store, self._part("sweeps"), **self.where)

    @cached_property
    def gallery(self) -> Columns:
        """The sweeps' pictures."""
        assert self.sweep
        return self.store.read_tensors(experiment.GALLERY)[0]

    @cached_property
    def score_shares(self) -> Record:
        """The score's share off the manifold at several noise levels."""
        assert self.sweep
        return self.experiment.score_shares()

    @cached_property
    def transfer_state(self) -> transfer.Transfer:
        """The networks and measures at a higher resolution."""
        return transfer.Transfer(self.settings, self.store)

    @cached_property
    def transfer(self) -> Record:
        """Classifiers at a higher resolution than the score."""
        assert self.sweep
        progress = self._part("at higher resolution")
        return transfer.run_transfer(self.settings, self.store, progress, **self.where)

    @cached_property
    def transfer_gallery(self) -> Columns:
        """Their pictures."""
        assert self.transfer
        return self.store.read_tensors(transfer.GALLERY)[0]

    @cached_property
    def distractor_state(self) -> distractor.Distractor:
        """The networks and measures of signal against distractor."""
        if self.settings.distractor is None:
            raise UsageError("settings with a distractor", got="none", suggestion="--data mnist")
        common = Common(**{name: getattr(self.settings, name) for name in Common.model_fields})
        return distractor.Distractor(self.settings.distractor, common, self.store)

    @cached_property
    def distractor(self) -> Record:
        """Signal against distractor."""
        state = self.distractor_state
        progress = self._part("distractor")
        return distractor.run_distractor(state.settings, state.common, self.store, progress, **self.where)

    @cached_property
    def distractor_gallery(self) -> Columns:
        """Its pictures."""
        assert self.distractor
        return self.store.read_tensors(distractor.GALLERY)[0]

    @cached_property
    def generation(self) -> Record:
        """What following the gradients of the models of one sweep makes."""
        assert self.sweep
        assert self.settings.generation is not None
        made = self.experiment
        return generation.run_generate(
            generation.along_sweep(made, self.objective), generation.independent_judge(made), made.data,
            self.store, self.settings.generation, self._part("generation"), seed=self.settings.seed,
            device=self.settings.device, resamples=self.settings.resamples,
        )  # fmt: skip

    @cached_property
    def generation_panels(self) -> Columns:
        """Its pictures."""
        assert self.generation
        return self.store.read_tensors(generation.PANELS)[0]

    def generated(self) -> dict[str, Any]:
        """What claims about generation are judged on, for the most aligned accurate model of the sweep."""
        assert self.generation
        asked = self.settings.generation
        assert asked is not None
        robust = self.experiment.model(self.objective, most_aligned(self.sweep, self.objective))
        found = generation.columns_for_claims(self.experiment, asked, robust)
        return {**found, "subject": robust.name, "labels_predicted": asked.classes == "predicted"}

    @cached_property
    def smoothgrad(self) -> Record:
        """What SmoothGrad adds along one sweep."""
        assert self.sweep
        sweep = next(s for s in self.experiment.sweeps if s.objective == self.objective)
        return smoothgrad.smoothgrad_along(
            self.experiment,
            sweep,
            samples=self.settings.smoothgrad_samples,
            progress=self._part("SmoothGrad"),
        )

    @cached_property
    def manifold(self) -> Record:
        """How far one sweep's numbers depend on the tangent spaces."""
        assert self.sweep
        sweep = next(s for s in self.settings.sweeps if s.objective == self.objective)
        return manifold.manifold_dependence(self.experiment, sweep, self._part("tangent spaces"))

    @cached_property
    def bayes(self) -> Record:
        """The denoiser's own classifier, measured as the networks are."""
        return bayes.bayes_line(self.experiment, self._part("Bayes line"))

    @property
    def objective(self) -> str:
        """The sweep in which the phenomena are studied: l2-PGD's, or the first there is."""
        objectives = [sweep.objective for sweep in self.experiment.sweeps]
        return "pgd" if "pgd" in objectives else objectives[0]

    def missing(self, needs: Sequence[str]) -> dict[str, str]:
        """The networks whose training diverged, with the reason, once these parts have been made."""
        found = self.experiment.missing if "sweep" in needs else []
        return (
            {f"{model['objective']} {model['strength']:g}": model["reason"] for model in found}
            | (self.transfer_state.missing if "transfer" in needs else {})
            | (self.distractor_state.missing if "distractor" in needs else {})
        )

    def _part(self, name: str) -> Progress:
        return lambda what, share: self.progress(f"{name}: {what}", share)


def most_aligned(record: SweepRecord, objective: str) -> float:
    """The strength of the accurate robust model of a sweep whose gradients are most similar to the score."""
    found = [m for m in record["models"] if m.get("objective") == short_name(objective)]
    accurate = [m for m in found if m["regime"]["name"] != EXCESSIVE] or found
    first = "{} {}".format(record["settings"]["measures"]["metrics"][0], "logit")
    return max(accurate, key=lambda model: _estimate(model, first))["strength"]


def _estimate(model: ModelRecord, column: str) -> float:
    found = model["means"].get(column)
    value = None if found is None else found["estimate"]
    return -math.inf if value is None else value
