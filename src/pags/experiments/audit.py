"""The audit as a job: models, images, estimates of the manifold and the score, and the records of it all.

It writes `audit.json` (means, intervals, comparisons) and `audit.safetensors` (every number an image, and the
pictures of the gallery). What the store holds is not done again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pags.auditing import Audit, audit, compare
from pags.auditing.options import Options, default_norms, default_radii
from pags.data.imageset import ImageSet
from pags.data.sources import load
from pags.errors import UsageError
from pags.experiments.audit_helpers import Helpers, Progress, helpers_for
from pags.experiments.audit_settings import AuditSettings, best_of_sweep, make_settings
from pags.experiments.audited_models import Model, class_count, load_models, untrained
from pags.experiments.recipes import file_digest
from pags.measure.metrics import find_metric
from pags.measure.statistics import Interval
from pags.store import Record, Store, fingerprint

__all__ = ["RECORD", "TENSORS", "AuditSettings", "make_settings", "run_audit", "untrained"]

RECORD, TENSORS = "audit.json", "audit.safetensors"
REVISION = 1
"""Raised by whoever changes what an audit computes."""


def run_audit(
    models: Sequence[str],
    settings: AuditSettings,
    store: Store,
    progress: Progress = lambda what, share: None,
) -> Record:
    """Audit each model on the same images, and compare them where there are several.

    Args:
        models: what `pags.classifiers.load.load_classifier` takes.
        settings: the settings.
        store: where artefacts and records go.
        progress: told what is being done and which share of the whole is finished.

    Returns:
        The record, as written to `audit.json`.

    Raises:
        UsageError: the request makes no sense; as far as can be seen, before any work.
        PagsError: something cannot be read or written.
    """
    job = _Job(settings, store, _sample(settings), best_of_sweep(settings))
    progress("looking at the models", 0.0)
    loaded = load_models(models, job.test, settings)
    job.check(loaded)
    helpers = helpers_for(settings, store, job.test, class_count(loaded[0], job.test), progress)
    found = {}
    for place, model in enumerate(loaded):
        start, width = 0.4 + 0.58 * place / len(loaded), 0.58 / len(loaded)

        def report(share: float, model: Model = model, start: float = start, width: float = width) -> None:
            progress(f"measuring {model.name}", start + width * share)

        found[model.name] = job.audited(model, helpers, report)
    progress("writing the records", 0.99)
    return _write(job, loaded, helpers, found)


@dataclass(frozen=True)
class _Job:
    settings: AuditSettings
    store: Store
    test: ImageSet
    best: Interval | None

    def check(self, models: Sequence[Model]) -> None:
        """Raise for what a later part would refuse, before anything is trained."""
        settings, d = self.settings, self.test.images[:1].numel()
        norms = settings.norms or default_norms(d)
        Options(
            sigma=settings.sigma or 0.5, norms=norms, norm=norms[0], directions=settings.directions,
            targets=settings.targets, metrics=settings.metrics, radii=settings.radii or default_radii(d),
            attack_steps=settings.attack_steps, smooth_targets=settings.smooth_targets,
            smooth_sigma=settings.smooth_sigma, smooth_samples=settings.smooth_samples,
            gallery=settings.gallery, seed=settings.seed,
        )  # fmt: skip
        for name in settings.metrics:
            find_metric(name)
        for path in (settings.denoiser, settings.second_denoiser, settings.autoencoder):
            if path is not None:
                file_digest(path)
        for model in models:
            class_count(model, self.test)

    def audited(self, model: Model, helpers: Helpers, report: Any) -> Audit:
        """The audit of one model, from the store where it is there."""
        recipe = {
            "stage": ["audit", REVISION],
            "settings": self._measured(),
            "model": model.about,
            "images": self.test.provenance,
            "helpers": helpers.about | {"notes": []},
            "size": list(helpers.size),
            "sigma": helpers.sigma,
        }
        name = f"audits/{fingerprint(recipe)}.safetensors"
        if not self.store.has(name):
            done = self._audit(model, helpers, report)
            columns = {f"column {n}": v for n, v in done.columns.items()}
            panels = {f"panel {n}": v for n, v in done.panels.items()}
            self.store.write_tensors(name, columns | panels, {"recipe": recipe, "settings": done.settings})
        tensors, about = self.store.read_tensors(name)
        return Audit(_named("column ", tensors), _named("panel ", tensors), about["settings"])

    def _audit(self, model: Model, helpers: Helpers, report: Any) -> Audit:
        settings, device = self.settings, self.settings.device
        return audit(
            model.network.to(device), self.test.images.to(device), self.test.labels.to(device),
            tangent=helpers.tangent, denoiser=helpers.denoiser, second=helpers.second,
            control=untrained(model.network, settings.seed), size=helpers.size, sigma=helpers.sigma,
            progress=report, **{k: v for k, v in self._measured().items() if k != "images"},
        )  # fmt: skip

    def _measured(self) -> dict[str, Any]:
        """The settings that are options of `pags.audit`."""
        names = (
            "seed", "norms", "radii", "directions", "attack_steps", "targets", "metrics", "smooth_targets",
            "smooth_sigma", "smooth_samples", "gallery",
        )  # fmt: skip
        return {name: getattr(self.settings, name) for name in names}


def _sample(settings: AuditSettings) -> ImageSet:
    test = load(settings.data).test
    if settings.images < 2:
        raise UsageError("two images or more", got=settings.images, suggestion="--images 256")
    return test.sample(settings.images, settings.seed) if settings.images < len(test) else test


def _named(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}


def _write(job: _Job, models: Sequence[Model], helpers: Helpers, found: dict[str, Audit]) -> Record:
    settings = job.settings
    entries = [
        {"name": m.name, "about": m.about}
        | found[m.name].summary(resamples=settings.resamples, best=job.best)
        for m in models
    ]
    record: Record = {
        "settings": settings.model_dump(mode="json"),
        "data": {
            "name": job.test.name, "images": len(job.test), "shape": list(job.test.shape),
            "classes": len(job.test.classes), "provenance": job.test.provenance,
        },
        "estimates": helpers.about | {"size": list(helpers.size), "sigma": helpers.sigma},
        "models": entries,
        "pairs": compare(found, resamples=settings.resamples)["pairs"],
    }  # fmt: skip
    tensors = {
        f"{place}/{kind}/{name}": value
        for place, model in enumerate(models)
        for kind, group in (("column", found[model.name].columns), ("panel", found[model.name].panels))
        for name, value in group.items()
    }
    names = {"models": [m.name for m in models], "classes": list(job.test.classes)}
    job.store.write_tensors(TENSORS, tensors, names)
    job.store.write_record(RECORD, record)
    return record
