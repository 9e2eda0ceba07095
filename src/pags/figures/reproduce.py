"""`pags reproduce` and `pags demo`: figures, the records under them, and a verdict on each claim."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import Field, PositiveInt

from pags import claims
from pags.auditing.evaluation import short_name
from pags.errors import NothingLeft, UsageError
from pags.experiments.cache import Columns
from pags.experiments.classifiers import UNTRAINED
from pags.experiments.distractor import ROBUST, STANDARD, positive
from pags.experiments.engines import Progress
from pags.experiments.experiment import Experiment
from pags.experiments.made import made_now
from pags.experiments.parts import PARTS, Parts
from pags.experiments.plan import shard_of
from pags.experiments.scales import changed, own_sweep, settings_for
from pags.experiments.settings import ExperimentSettings, Pretrained, TransferSettings, read_toml
from pags.experiments.smoothgrad import LEVELS, smooth_evaluation
from pags.figures.catalogue import chosen, make
from pags.figures.kinds import Figure
from pags.records import ClaimRecord, DataRecord, Record, ReproductionRecord, Result
from pags.settings import Settings
from pags.store import Store

RECORD, CLAIMS_RECORD = "records/reproduction.json", "records/claims.json"


class ReproduceSettings(Settings):
    """What is reproduced, on which images, at which scale."""

    data: str = "digits"
    """Data set, see pags data list; also a user's own as file.py:name."""
    scale: str = "smoke"
    """demo or smoke: minutes on two cores; small: a day on a GPU; paper."""
    engine: Literal["inline", "local", "ray"] | None = None
    """Where models are trained: local, one process per core (the command line's choice); inline, in this
    process (Python's); or ray."""
    workers: PositiveInt | None = None
    """Processes of the engines local and ray; as many as cores, or GPUs, unless said."""
    shard: str | None = None
    """I/N, as in an array job of N: begin with every N-th task from the I-th, then help the others."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """cpu, cuda, or auto for what there is."""
    precision: Literal["auto", "32", "bf16"] | None = None
    """Of training: bf16 mixes in bfloat16, auto takes it where it is fast; the scale's unless said."""
    preset: Literal["ours", "paper", "release"] = "ours"
    """Whose reading of the paper, see docs/choices.md."""
    seed: int = 0
    """Random seed of everything that is drawn."""
    images: PositiveInt | None = None
    """Test images that are measured; the scale's number unless said."""
    objectives: tuple[str, ...] = ()
    """A further objective beside the paper's, as file.py:name."""
    targets: tuple[str, ...] = ()
    """A further gradient target or attribution, as file.py:name."""
    metrics: tuple[str, ...] = ()
    """A further similarity: ssim, rank, or file.py:name."""
    tangent: str | None = None
    """Estimator of tangent spaces: autoencoder, local-pca, denoiser or file.py:name."""
    autoencoder: Path | None = None
    """Autoencoder to use instead of training one."""
    denoiser: str | None = None
    """Denoiser for the score of all classes: EDM's .pkl, .safetensors or file.py:name."""
    conditional_denoiser: str | None = None
    """Denoiser for the score of a class."""
    pretrained: tuple[str, ...] = ()
    """RADIUS=MODEL for Figures 4 and 15, such as 3=madry:resnet18_l2_eps3.ckpt."""
    pretrained_data: str | None = None
    """Images for these networks, such as folder:PATH."""
    pretrained_arch: str | None = None
    """Their architecture, such as resnet18."""
    data_folder: Path | None = None
    """Where data sets lie or are downloaded to."""
    config: Path | None = None
    """TOML file with settings of pags.ExperimentSettings that are to differ."""
    experiment: Annotated[dict[str, Any], Field(default_factory=dict)]
    """Settings that are to differ, from Python, as in the TOML file."""

    def resolved(self, parts: Sequence[str]) -> ExperimentSettings:
        """The settings of the experiment, of which some parts are wanted.

        Raises:
            UsageError: an unknown name, or values that do not fit together.
        """
        base = ExperimentSettings().measures
        said: dict[str, Any] = {
            "seed": self.seed, "device": device_of(self.device), "data_folder": self.data_folder,
            "images": self.images, "training__precision": PRECISIONS[self.precision],
            "score__file": self.denoiser, "manifold__file": self.autoencoder,
            "score__conditional_file": self.conditional_denoiser, "manifold__estimator": self.tangent,
            "measures__targets": (*base.targets, *self.targets) if self.targets else None,
            "measures__metrics": (*base.metrics, *self.metrics) if self.metrics else None,
        }  # fmt: skip
        settings = settings_for(self.data, self.scale, parts=parts, **said, **PRESETS[self.preset])
        tables = {**(read_toml(self.config) if self.config else {}), **self.experiment}
        settings = merged(settings, tables, where=str(self.config or "settings"))
        further = tuple(own_sweep(objective, settings.sweeps) for objective in self.objectives)
        settings = settings.with_(sweeps=(*settings.sweeps, *further))
        unsaid = {"data", "seed", "device"} - self.model_fields_set
        again = {name: value for name, value in {**said, "data": self.data}.items() if name not in unsaid}
        settings = changed(settings, again)  # what is said here wins over the file
        if self.pretrained:
            networks = tuple(_network(text) for text in self.pretrained)
            transfer = {
                "pretrained": networks,
                "data": self.pretrained_data,
                "architecture": self.pretrained_arch,
            }
            settings = settings.with_(transfer=TransferSettings.of(transfer))
        return settings


PRECISIONS = {None: None, "auto": "auto", "32": "32-true", "bf16": "bf16-mixed"}
PRESETS: dict[str, dict[str, Any]] = {
    "ours": {},
    "paper": {"training__preset": "paper", "measures__upsample_to": 0, "training__scale_rate": True},
    "release": {
        "training__preset": "release", "measures__upsample_to": 0, "training__scale_rate": True,
        "measures__change": "softmax-l1",
    },
}  # fmt: skip
"""What a preset sets together (docs/choices.md)."""

DEMO = ReproduceSettings(scale="demo", experiment={})
DEMO_FIGURES = ("natural-images", "3", "6", "8")


def reproduce(
    figures: Sequence[str],
    settings: ReproduceSettings | None = None,
    store: Store | Path | str = "pags-out/reproduce",
    progress: Progress = lambda what, share: None,
    *,
    more: Sequence[Figure] = (),
    command: str = "pags.reproduce(…)",
    **changes: Any,
) -> Result:
    """Run what the figures need, and write their records and the claims; finished work is not done again.

    Args:
        figures: their names, "1" to "17", "phenomenon-2", …, or "all".
        settings: see `ReproduceSettings`; None: the defaults.
        store: where everything goes.
        progress: called with what is being done and the fraction of its part that is completed.
        more: a user's own figures.
        command: what was said, for the page.
        changes: fields of `ReproduceSettings` that are to differ.

    Returns:
        The record, which prints, plots and tabulates itself; `.report()` draws its figures and page.

    Raises:
        UsageError: settings that some part refuses.
        PagsError: something cannot be written, or a training diverged; what was finished is kept.
    """
    wanted = chosen(figures, more=more)
    settings = (settings or ReproduceSettings(experiment={})).with_(**changes)
    needs = [part for part in PARTS if any(part in figure.needs for figure in wanted)]
    resolved = settings.resolved(needs)
    place = store if isinstance(store, Store) else Store(Path(store))
    shard = None if settings.shard is None else shard_of(settings.shard)
    where = {"engine": settings.engine or "inline", "workers": settings.workers, "shard": shard}
    parts = Parts(resolved, place, progress, where)
    if "sweep" in needs:
        parts.experiment.check()
    drawn, verdicts = list[str](), list[ClaimRecord]()
    for figure in sorted(wanted, key=lambda figure: any(part in JUDGES for part in figure.needs)):
        with suppress(NothingLeft):
            make(figure, parts, place)  # what needs no training comes first
            drawn.append(figure.name)
    for part in (part for part in needs if part in JUDGES):
        with suppress(NothingLeft):
            verdicts += JUDGES[part](parts)
    missing = [f"figure {figure.name}" for figure in wanted if figure.name not in drawn]
    missing += [f"{name}: {why}" for name, why in parts.missing(needs).items()]
    place.write_record(CLAIMS_RECORD, {"claims": verdicts})
    data: DataRecord | None = parts.sweep["data"] if "sweep" in needs else None
    record: ReproductionRecord = {
        "command": command, "scale": resolved.scale, "settings": resolved.model_dump(mode="json"),
        "parts": needs, "figures": [figure.name for figure in wanted if figure.name in drawn], "data": data,
        "claims": verdicts, "made": made_now(command),
    }  # fmt: skip
    if missing:
        record["missing"] = missing
    place.write_record(RECORD, record)
    return Result(cast(Record, record), place.root)


def merged(settings: Any, tables: dict[str, Any], *, where: str) -> Any:
    """Settings with the values of nested tables; what a table leaves out stays."""
    own: dict[str, Any] = {}
    for name, value in tables.items():
        inner = getattr(settings, name, None)
        nested = isinstance(value, dict) and isinstance(inner, Settings)
        own[name] = merged(inner, value, where=where) if nested else value
    if not own:
        return settings
    return type(settings).of(
        {**dict(settings), **own}, where=where, suggestion="the keys of pags.ExperimentSettings"
    )


def device_of(name: str) -> str:
    """ "cpu" or "cuda", where "auto" takes a GPU if there is one.

    Raises:
        UsageError: no GPU for "cuda".
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("an accelerator for --device cuda", got="none here", suggestion="--device cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def _network(text: str) -> Pretrained:
    radius, mark, spec = text.partition("=")
    try:
        if mark and spec and 0 <= float(radius) < float("inf"):
            return Pretrained(strength=float(radius), spec=spec)
    except ValueError:
        pass
    raise UsageError(
        "--pretrained RADIUS=MODEL", got=repr(text), suggestion="--pretrained 3=madry:resnet18_l2_eps3.ckpt"
    )


# Claims --------------------------------------------------------------------------------------------------


def by_seed(experiment: Experiment, objective: str, strengths: Sequence[float]) -> list[list[Columns]]:
    """For each seed, the columns at each strength of a sweep."""
    found = [experiment.runs(objective, strength) for strength in strengths]
    return [[at[repeat] for at in found] for repeat in range(experiment.settings.repeats)]


def _of_sweeps(parts: Parts) -> list[ClaimRecord]:
    made, found = parts.experiment, list[ClaimRecord]()
    assert made.settings.measures.norm is not None
    for sweep in made.sweeps:
        records = claims.judge_sweep(
            by_seed(made, sweep.objective, sweep.strengths), objective=short_name(sweep.objective),
            norm=made.settings.measures.norm, control=made.runs(UNTRAINED, 0.0), seed=made.settings.seed,
            kind=made.evaluation.kind("predicted class") or "predicted class",
        )  # fmt: skip
        gone = [m for m in made.missing if m["objective"] == short_name(sweep.objective)]
        said = _without({f"strength {m['strength']:g}": m["reason"] for m in gone})
        found += [_noted(record, said) for record in records]
    return found


def _noted(record: ClaimRecord, said: str) -> ClaimRecord:
    return {**record, "note": "; ".join(n for n in (record.get("note"), said) if n)} if said else record


def _of_score(parts: Parts) -> list[ClaimRecord]:
    """Where the score points at the main noise level."""
    made = parts.experiment
    columns = made.runs("cross-entropy", 0.0)[0]
    kind = made.evaluation.kind("predicted class")
    return claims.judge_score(columns, score=f"rho2 score {kind}", seed=made.settings.seed)


def _of_transfer(parts: Parts) -> list[ClaimRecord]:
    assert parts.transfer
    state = parts.transfer_state
    columns = [state.columns(strength) for strength in state.made]
    kind = state.evaluation().kind("predicted class") or "predicted class"
    found = claims.judge_transfer([columns], kind=kind, seed=parts.settings.seed)
    return [_noted(record, _without(state.missing)) for record in found]


def _of_distractor(parts: Parts) -> list[ClaimRecord]:
    assert parts.distractor
    state, found = parts.distractor_state, list[ClaimRecord]()
    variants = state.variants
    for variant in (v for v in variants if not v.informative):
        told = [v for v in variants if v.distractor == variant.distractor and v.informative == 1]
        found += claims.judge_distractor(
            [state.columns(variant, STANDARD)], [state.columns(variant, ROBUST)], subject=variant.name,
            levels=positive(state.settings), informative=[state.columns(v, ROBUST) for v in told[:1]],
            seed=parts.settings.seed,
        )  # fmt: skip
    return [_noted(record, _without(state.missing)) for record in found]


def _without(missing: Record) -> str:
    return "; ".join(f"without {name}: {why}" for name, why in missing.items())


def _of_generation(parts: Parts) -> list[ClaimRecord]:
    """The most aligned accurate model of the sweep against the controls and the start."""
    return claims.judge_generation(**parts.generated(), seed=parts.settings.seed)


def _of_smoothgrad(parts: Parts) -> list[ClaimRecord]:
    assert parts.smoothgrad
    made = parts.experiment
    sweep = next(s for s in made.sweeps if s.objective == parts.objective)
    evaluation = smooth_evaluation(made, LEVELS, parts.settings.smoothgrad_samples)
    columns = [
        made.columns(made.model(sweep.objective, strength), evaluation) for strength in sweep.strengths
    ]
    kind = evaluation.kind("predicted class") or "predicted class"
    return claims.judge_smoothgrad(
        [columns], objective=short_name(sweep.objective), level=LEVELS[1], kind=kind, seed=parts.settings.seed
    )


JUDGES: dict[str, Callable[[Parts], list[ClaimRecord]]] = {
    "sweep": _of_sweeps, "score": _of_score, "transfer": _of_transfer, "distractor": _of_distractor,
    "generation": _of_generation, "smoothgrad": _of_smoothgrad,
}  # fmt: skip
"""Which part decides which claims."""
