"""The pages of demo, reproduction, audit, theory and generation: one design, drawn from records alone."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from torch import Tensor

from pags.errors import PagsError
from pags.figures import audits, catalogue, sweeps
from pags.figures.kinds import FigureData, stem
from pags.figures.measures import main_figure
from pags.figures.phenomena import task_pictures as made
from pags.figures.phenomena import task_title
from pags.figures.theory import TITLES, theory_figures
from pags.records import AuditRecord, ModelRecord, Record, ReproductionRecord, SweepRecord
from pags.report import words
from pags.report.explore import explorer
from pags.report.grids import picture_uri
from pags.report.layout import Shown, chips_of, page, shown, that_fit
from pags.store import Store

REPRODUCTION = "records/reproduction.json"
SWEEP, GALLERY = "records/sweep.json", "records/gallery.safetensors"
AUDIT, AUDIT_TENSORS = "audit.json", "audit.safetensors"
THEORY = "theory.json"
GENERATION, PANELS = "records/generate.json", "records/generate.safetensors"
FOR_ALL = 14_000_000
"""Bytes that figures and explorer together may take; the explorer shows less where figures take more."""
STRIP = 3
"""Rows of pictures on the first screen."""

Strip = tuple[Sequence[str], Sequence[tuple[str, Sequence[str]]], str]
"""Headings, rows with their labels, and what is seen."""


def write_report(folder: Store | Path | str) -> list[Path]:
    """Draw everything in a folder again from its records: generation, theory, audit, reproduction.

    Args:
        folder: of a finished demo, reproduction, audit, theory or generation.

    Returns:
        The files written.

    Raises:
        PagsError: the folder holds no such record, or a part of one is missing.
    """
    store, found = folder if isinstance(folder, Store) else Store(Path(folder)), list[Path]()
    if store.has(GENERATION) and not store.has(REPRODUCTION):
        found += write_generate(store, store.read_record(GENERATION), store.read_tensors(PANELS)[0])
    if store.has(THEORY):
        found += write_theory(store, store.read_record(THEORY))
    if store.has(AUDIT):
        audit = cast(AuditRecord, store.read_record(AUDIT))
        found += write_audit_report(store, audit, store.read_tensors(AUDIT_TENSORS)[0])
    if store.has(REPRODUCTION):
        found += write_reproduction(store, cast(ReproductionRecord, store.read_record(REPRODUCTION)))
    if not found:
        wanted = f"a folder that holds {REPRODUCTION}, {AUDIT}, {THEORY} or {GENERATION}"
        raise PagsError(wanted, got=store.root, suggestion="pags reproduce --out FOLDER")
    return found


def _written(store: Store, figures: Sequence[Shown], html: bytes, name: str = "report.html") -> list[Path]:
    """The files of the figures, which are there already, and the page."""
    files = [link for each in figures for link in each.links.values() if link.startswith("figures/")]
    return [*map(store.path, files), store.write_bytes(name, html)]


# Reproduction and demo ---------------------------------------------------------------------------------


def write_reproduction(store: Store, record: ReproductionRecord) -> list[Path]:
    """Draw the figures of a reproduction and write its page, from the records in the store alone.

    Args:
        store: what `pags reproduce` or `pags demo` wrote to.
        record: of `records/reproduction.json`.

    Returns:
        The files written, the page last.

    Raises:
        PagsError: a record is missing, or something cannot be written.
    """
    sweep = cast(SweepRecord, store.read_record(SWEEP)) if "sweep" in record["parts"] else None
    figures = that_fit([_of_catalogue(store, name) for name in record["figures"]])
    named = dict(zip(record["figures"], figures, strict=True))
    if sweep and "3" not in named:
        named["3"] = shown(store, "main", main_figure(sweep), title="Robustness and alignment over strength")
    every, main, natural = list(named.values()), named.pop("3", None), named.pop("natural-images", None)

    tables = words.claim_tables(record["claims"], lambda subject: words.subject_title(subject, sweep))
    first = max(4, sum(row[0]["claim"] in words.IMPORTANT for row in tables[0]["rows"])) if tables else 0
    room = FOR_ALL - sum(figure.size for figure in every)
    gallery = store.read_tensors(GALLERY)[0] if sweep else {}
    html = page(
        "reproduction", cast(Record, record), tables=tables, first=first, main=main, natural=natural,
        figures=list(named.values()), explorer=explorer(sweep, gallery, budget=room) if sweep else None,
        **reproduction_screen(record, sweep, gallery),
    )  # fmt: skip
    return _written(store, every, html)


WITHOUT_SWEEP = "Without sweeps of robust training nothing is said of alignment; the figures are below."


def reproduction_screen(
    record: ReproductionRecord, sweep: SweepRecord | None, gallery: Mapping[str, Tensor]
) -> Record:
    """The first screen of a reproduction: the answer, counts of verdicts, strip and headline table."""
    return {
        "title": "Which models have perceptually aligned gradients, and why?",
        "answer": words.sweep_answer(sweep) if sweep else [WITHOUT_SWEEP],
        "chips": chips_of([claim["verdict"] for claim in record["claims"]]),
        **(_of_sweep(sweep, gallery) if sweep else {"sweep": None, "strip": None}),
    }


def _of_sweep(record: SweepRecord, gallery: Mapping[str, Tensor]) -> Record:
    """What the page says of sweeps: strip and tables."""
    settings, targets, metric = record["settings"], sweeps.targets(record), sweeps.metrics(record)[0]
    columns = words.headlines(record["models"][0])
    more = {f"{sweeps.metric_title(metric)}, {sweeps.target_title(t)}": f"{metric} {t}" for t in targets[1:]}
    standard = sweeps.model(record, sweeps.STANDARD)
    levels = {
        n: words.estimate(sweeps.reference(standard, n, metric, targets[0])) for n in ("floor", "ceiling")
    }
    models, signs = words.strip_models(record), "blue is negative, red positive"
    pictures = [gallery["images"], gallery[f"score {targets[0]}"]]
    pictures += [gallery[f"gradient {model['name']} {targets[0]}"] for model in models.values()]
    rows = [
        ("", [picture_uri(each[place], signed=order > 0) for order, each in enumerate(pictures)])
        for place in range(min(STRIP, len(pictures[0])))
    ]
    note = (
        "Input gradients beside the score, the direction towards more probable images; each is scaled by its "
        f"largest absolute value, {signs if pictures[0].shape[1] == 1 else 'mid-grey is zero'}."
    )
    return {
        "sweep": record,
        "strip": (["image", "score", *models], rows, note),
        "headline": [(sweeps.described(record, each), each) for each in words.headline_models(record)],
        "every": [(sweeps.described(record, each), each) for each in record["models"]],
        "columns": columns,
        "all_columns": columns | {"ρ1": "rho1"} | more,
        "levels": levels,
        "repeats": settings.get("repeats", 1),
    }


def _of_catalogue(store: Store, name: str) -> Shown:
    data = catalogue.read(store, name)
    if data is None:
        again = f"pags reproduce {name} with the same settings again"
        raise PagsError(f"the record of figure {name} in {store.root}", got="none", suggestion=again)
    place = data.record["place"]
    where = f" ({'section' if place[0].isdigit() else 'appendix'} {place})" if place else ""
    return shown(store, stem(name), data, title=f"{data.record['heading']}. {data.record['title']}{where}")


# Audit, theory, generation -----------------------------------------------------------------------------


def write_audit_report(store: Store, record: AuditRecord, tensors: Mapping[str, Tensor]) -> list[Path]:
    """Draw the figures of an audit and write its page.

    Args:
        store: where `figures/` and `report.html` go.
        record: of `audit.json`.
        tensors: of `audit.safetensors`: `PLACE/panel/NAME` for each model's pictures.

    Returns:
        The files written, the page last.
    """
    record = words.short_names(record)
    models = record["models"]
    panels = [panels_of(tensors, place) for place in range(len(models))]
    common = _drawn(
        store, "audit", {"robustness": audits.robustness(models), "similarity": audits.similarity(models)}
    )
    own = [
        _drawn(store, f"audit-{n}", {"gallery": audits.gallery(found, each), "targets": audits.targets(each)})
        for n, (found, each) in enumerate(zip(panels, models, strict=True))
    ]
    html = page(
        "audit", cast(Record, record), **audit_screen(record, tensors), figures=common,
        pairs=[(f"{p['first']} − {p['second']}", {"means": p["differences"]}) for p in record["pairs"]],
        models=[
            {"record": each, "figures": figures, "rows": words.rows(each), "verdict": words.verdict(each),
             "caveats": words.caveats(record, each)}
            for each, figures in zip(models, own, strict=True)
        ],
    )  # fmt: skip
    return _written(store, [*common, *(figure for figures in own for figure in figures)], html)


def audit_screen(record: AuditRecord, tensors: Mapping[str, Tensor]) -> Record:
    """The first screen of an audit: the answer, chips, strip and headline table."""
    record = words.short_names(record)
    models = record["models"]
    panels = [panels_of(tensors, place) for place in range(len(models))]
    return {
        "title": "Are the gradients perceptually aligned, and why?", "answer": words.audit_answer(record),
        "chips": words.audit_chips(models), "strip": _audit_strip(record, panels),
        "columns": _measured(_audit_columns(models[0]), models),
        "headline": [(each["name"], each) for each in models],
    }  # fmt: skip


def _audit_columns(model: ModelRecord) -> dict[str, str]:
    """The headline of an audit: that of sweeps, with robust accuracy and the Bayes direction."""
    (accuracy, *rest), settings = words.headlines(model).items(), model["settings"]
    robust = [(f"robust, radius {r:g}", f"robust {r:g}") for r in settings["radii"] if r][:2][-1:]
    return dict([accuracy, *robust, *rest, ("Bayes cosine", f"bayes cosine {settings['targets'][0]}")])


def _measured(columns: Mapping[str, str], models: Sequence[ModelRecord]) -> dict[str, str]:
    """The columns that any model has a number in."""
    known = [m["ratios"] | m["means"] for m in models]
    return {h: n for h, n in columns.items() if any(words.estimate(k.get(n)) is not None for k in known)}


def _drawn(store: Store, prefix: str, figures: Mapping[str, FigureData | None]) -> list[Shown]:
    return [shown(store, f"{prefix}-{name}", data) for name, data in figures.items() if data is not None]


def panels_of(tensors: Mapping[str, Tensor], place: int) -> dict[str, Tensor]:
    """The gallery of the model at a place of the audit."""
    prefix = f"{place}/panel/"
    return {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}


def _audit_strip(record: AuditRecord, panels: Sequence[Mapping[str, Tensor]]) -> Strip | None:
    heads = {"image": "image", "score": "score", "gradient": "gradient", "smooth": "SmoothGrad"}
    names = [name for name in heads if all(len(found.get(name, ())) for found in panels)]
    rows = [
        (model["name"], [picture_uri(found[name][0], signed=name != "image") for name in names])
        for model, found in zip(record["models"], panels, strict=True)
    ]
    note = "Each model at the image where it is aligned best."
    return ([heads[name] for name in names], rows[: STRIP + 1], note) if "gradient" in names else None


def write_theory(store: Store, record: Record) -> list[Path]:
    """Draw one figure per theorem or argument, and the page, the same bytes for equal records.

    Args:
        store: where `figures/` and `report.html` go.
        record: of `theory.json`.
    """
    figures = {
        name: shown(store, f"theory-{name.replace('_', '-')}", data, title=TITLES[name])
        for name, data in theory_figures(record).items()
    }
    return _written(store, list(figures.values()), page("theory", record, **theory_screen(record, figures)))


def theory_screen(record: Record, figures: Mapping[str, Shown]) -> Record:
    """What a page of the exact laboratory says, with the figures that are at hand."""
    parts = [
        {"name": name, "title": TITLES.get(name, name), "figure": figures.get(name), "rows": part["rows"]}
        for name, part in record["parts"].items()
    ]
    verdicts = [row["verdict"] for part in parts for row in part["rows"]]
    tally = Counter(verdicts)
    answer = [
        f"Of {len(verdicts)} predictions {tally['supported']} hold and {tally['contradicted']} are "
        "contradicted in worlds whose tangent spaces, score and Bayes gradient are known exactly.",
        "Estimates stand beside what theory expects; intervals are over images or over runs.",
    ]
    title = "Do the paper's theorems and arguments hold where the answer is known?"
    return {"title": title, "answer": answer, "chips": chips_of(verdicts), "strip": None, "parts": parts}


def write_generate(store: Store, record: Record, panels: Mapping[str, Tensor]) -> list[Path]:
    """Draw the images that following gradients made, and their numbers, and write the page.

    Args:
        store: where `figures/` goes, and the page: `report.html`, or `generate.html` beside another's.
        record: of `records/generate.json`.
        panels: of `records/generate.safetensors`.
    """
    tasks, starts = record["settings"]["tasks"], record["starts"]
    numbers = _drawn(store, "generate", {str(n): each for n, each in enumerate(audits.generated(record))})
    pictures = [
        shown(store, f"generate-{task}", made(record, panels, task), title=task_title(task))
        for task in (tasks if len(panels["originals"]) else ())
    ]
    columns = {
        f"{task_title(task)}, {unit}": f"{task}: {name}"
        for task in tasks
        for name, unit in (("named", "recognised"), ("psnr", "PSNR in dB"))
        if f"{task}: {name}" in starts
    }
    named = {heading: name for heading, name in columns.items() if name.endswith("named")}
    models = [(f"{m['name']}{' (control)' if m['control'] else ''}", m) for m in record["models"]]
    html = page(
        "generate", record,
        title="What does following the gradient of a classifier make?", answer=words.generate_answer(record),
        chips=[], strip=_generate_strip(record, panels), numbers=numbers, pictures=pictures,
        all_columns=columns,
        columns={heading.removesuffix(", recognised"): name for heading, name in named.items()},
        headline=[*models, ("before following the gradient", {"means": starts})],
    )  # fmt: skip
    beside = store.has(REPRODUCTION) or store.has(SWEEP)
    return _written(store, [*numbers, *pictures], html, "generate.html" if beside else "report.html")


def _generate_strip(record: Record, panels: Mapping[str, Tensor]) -> Strip | None:
    task, names = record["settings"]["tasks"][0], [model["name"] for model in record["models"]]
    chosen = names if len(names) <= STRIP + 1 else [*names[:2], names[len(names) // 2 + 1], names[-1]]
    images = {"start": panels[f"start {task}"]} | {name: panels[f"{name} {task}"] for name in chosen}
    rows = [(label, [picture_uri(image) for image in found[:5]]) for label, found in images.items()]
    aims = panels["targets" if task.startswith("synthesis") else "labels"].tolist()[:5]
    heads = [record["data"]["classes"][int(aim)] for aim in aims]
    return (heads, rows, f"{task_title(task)}; target class above.") if aims else None
