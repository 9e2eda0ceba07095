"""What figures are made from: each part of the experiment, run when a figure first asks for it."""

from dataclasses import dataclass, field
from functools import cached_property

from pags.experiments import demo, distractor, generate, smoothgrad, transfer
from pags.experiments.engines import Progress
from pags.experiments.scales import Settings
from pags.experiments.stages import Stages
from pags.experiments.workshop import Columns
from pags.store import Record, Store


@dataclass
class Sources:
    """The parts of an experiment and their records.

    Args:
        settings: what is run.
        store: where everything is kept.
        progress: told what is being done.
        engine: where the work is done, see `pags.experiments.engines`.
    """

    settings: Settings
    store: Store
    progress: Progress = field(default=lambda what, share: None)
    engine: str = "inline"

    @cached_property
    def stages(self) -> Stages:
        """The networks and measures of the sweeps."""
        return Stages(self.settings.sweep, self.store)

    @cached_property
    def sweep(self) -> Record:
        """All sweeps of strengths: what `pags demo` computes too."""
        return demo.run_sweeps(self.settings.sweep, self.store, self._part("sweeps"), engine=self.engine)

    @cached_property
    def gallery(self) -> Columns:
        """The sweeps' pictures."""
        assert self.sweep
        return self.store.read_tensors(demo.GALLERY)[0]

    @cached_property
    def score_shares(self) -> Columns:
        """The score's share off the manifold at several noise levels."""
        assert self.sweep
        return self.stages.score_shares()

    @cached_property
    def transfer(self) -> Record:
        """Classifiers at a higher resolution than the score."""
        assert self.sweep
        progress = self._part("at higher resolution")
        return transfer.run_transfer(
            self.settings.transfer, self.stages, self.store, progress, engine=self.engine
        )

    @cached_property
    def transfer_gallery(self) -> Columns:
        """Their pictures."""
        assert self.transfer
        return self.store.read_tensors(transfer.GALLERY)[0]

    @cached_property
    def distractor(self) -> Record:
        """Signal against distractor."""
        progress = self._part("distractor")
        return distractor.run_distractor(self.settings.distractor, self.store, progress, engine=self.engine)

    @cached_property
    def distractor_gallery(self) -> Columns:
        """Its pictures."""
        assert self.distractor
        return self.store.read_tensors(distractor.GALLERY)[0]

    @cached_property
    def generation(self) -> Record:
        """What following the gradients of the PGD sweep's models makes."""
        assert self.sweep
        stages, progress = self.stages, self._part("generation")
        subjects = generate.along_sweep(stages, self.objective)
        judge = generate.independent_judge(stages)
        settings = self.settings.generation
        return generate.run_generate(subjects, judge, stages.data, self.store, settings, progress)

    @cached_property
    def generation_panels(self) -> Columns:
        """Its pictures."""
        assert self.generation
        return self.store.read_tensors(generate.PANELS)[0]

    @cached_property
    def smoothgrad(self) -> Record:
        """What SmoothGrad adds along the PGD sweep."""
        assert self.sweep
        sweep = next(s for s in self.settings.sweep.sweeps if s.objective == self.objective)
        progress = self._part("SmoothGrad")
        return smoothgrad.smoothgrad_along(
            self.stages, sweep, samples=self.settings.smoothgrad_samples, progress=progress
        )

    @property
    def objective(self) -> str:
        """The sweep that the phenomena are looked at in: l2-PGD's, or the first there is."""
        objectives = [sweep.objective for sweep in self.settings.sweep.sweeps]
        return "pgd" if "pgd" in objectives else objectives[0]

    def _part(self, name: str) -> Progress:
        return lambda what, share: self.progress(f"{name}: {what}", share)
