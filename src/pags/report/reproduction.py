"""The report of a reproduction: figures as files, and one HTML page that needs nothing but itself."""

import base64
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from pags.errors import PagsError
from pags.experiments.demo import GALLERY
from pags.experiments.demo import RECORD as SWEEP
from pags.experiments.figures import catalogue, sweeps
from pags.experiments.figures.catalogue import Entry
from pags.experiments.reproduce import RECORD
from pags.report.explorer import explorer
from pags.report.figures import draw
from pags.report.style import render
from pags.store import Record, Store

FORMATS = ("svg", "pdf", "png")
FOR_FIGURES = 8_000_000
"""Bytes that the figures on the page may take; above, the largest are shown as reduced pixels."""
FOR_ALL = 14_000_000
"""Bytes that figures and explorer together may take; the explorer shows less where figures take more."""

PARTS = {
    "sweep": "robust training swept over strength",
    "transfer": "classifiers at a higher resolution than the score",
    "distractor": "images with a distractor",
    "generation": "images made by following gradients",
    "smoothgrad": "SmoothGrad along a sweep",
    "world": "a world whose posterior is known in closed form",
}
"""The parts of an experiment in words."""


@dataclass(frozen=True)
class Shown:
    """A figure as the page shows it.

    Args:
        number: "Figure 3", "Phenomenon 2".
        record: its record.
        picture: a data URI, the vectors.
        small: another, reduced pixels.
        reduced: whether the page shows these.
        links: what its files are called, and where they lie beside the page.
    """

    number: str
    record: Record
    picture: str
    small: str
    links: Mapping[str, str]
    reduced: bool = False

    @property
    def size(self) -> int:
        """Bytes on the page."""
        return len(self.small if self.reduced else self.picture)


def write_reproduction(store: Store, record: Record) -> list[Path]:
    """Draw the figures of a reproduction and write its page, from the records in the store alone.

    Args:
        store: what `pags.experiments.reproduce.reproduce` wrote to.
        record: what it returned, or `read_reproduction(store)`.

    Returns:
        The files written, the page last.

    Raises:
        PagsError: a record is missing, or something cannot be written.
    """
    written: list[Path] = []
    shown: list[Shown] = []
    for name in record["figures"]:
        entry = catalogue.entry(name)
        paths, figure = _drawn(store, entry)
        written += paths
        shown.append(figure)
    shown = _that_fit(shown)
    html = _page(store, record, shown, budget=FOR_ALL - sum(figure.size for figure in shown))
    return [*written, store.write_bytes("report.html", html.encode())]


def read_reproduction(store: Store) -> Record:
    """The record of a finished reproduction.

    Raises:
        PagsError: the store holds none.
    """
    if not store.has(RECORD):
        raise PagsError(
            f"a folder that holds {RECORD}", got=store.root, suggestion="pags reproduce --out FOLDER"
        )
    return store.read_record(RECORD)


def _drawn(store: Store, entry: Entry) -> tuple[list[Path], Shown]:
    """Draw one figure, write its files, and say how the page shows it."""
    data = catalogue.read(store, entry)
    if data is None:
        raise PagsError(
            f"the record of figure {entry.name} in {store.root}",
            got="none",
            suggestion=f"pags reproduce {entry.name} with the same settings again",
        )
    figure = draw(data)
    drawn = {FORMATS[0]: render(figure, FORMATS[0])}
    figure.set_layout_engine("none")  # laid out once, so that every format has the same places
    drawn |= {ending: render(figure, ending) for ending in FORMATS[1:]}
    paths = [
        store.write_bytes(f"figures/{entry.stem}.{ending}", content) for ending, content in drawn.items()
    ]
    picture = f"data:image/svg+xml,{quote(drawn['svg'], safe=PLAIN)}"
    links = _links(entry, data.record)
    return paths, Shown(_number(entry.name), data.record, picture, _reduced(drawn["png"]), links)


PLAIN = " !$'()*+,-./;=?@[]_~"
"""What needs no quoting in the address of an SVG; base64 would grow its pictures once more."""


def _reduced(png: bytes) -> str:
    """The figure at half its resolution, as a data URI."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").reduce(2).save(buffer, "jpeg", quality=65)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _that_fit(figures: Sequence[Shown]) -> list[Shown]:
    """The figures, the largest reduced until all fit."""
    shown = list(figures)
    for place in sorted(range(len(shown)), key=lambda place: -shown[place].size):
        if sum(figure.size for figure in shown) > FOR_FIGURES:
            shown[place] = replace(shown[place], reduced=True)
    return shown


def _links(entry: Entry, record: Record) -> dict[str, str]:
    links = {ending.upper(): f"figures/{entry.stem}.{ending}" for ending in FORMATS}
    links["numbers (JSON)"] = f"records/{entry.stem}.json"
    if record["tensors"]:
        links["pictures (safetensors)"] = f"records/{entry.stem}.safetensors"
    return links


def _page(store: Store, record: Record, figures: Sequence[Shown], *, budget: int) -> str:
    sweep, gallery = _sweep(store, record)
    explored = explorer(sweep, gallery, budget=budget) if sweep and gallery else None
    return _template("reproduction.html").render(
        record=record,
        sweep=sweep,
        figures=figures,
        parts=[PARTS.get(part, part) for part in record["parts"]],
        tally=Counter(claim["verdict"] for claim in record["claims"]),
        tables=claim_tables(record["claims"]),
        titles=sweeps.TITLES,
        settings=json.dumps(record["settings"], indent=1, ensure_ascii=False),
        explorer=explored,
        explorer_data=Markup(_script_data(explored)),
        style=Markup(_text("reproduction.css")),
        script=Markup(_text("explorer.js")),
    )


def _sweep(store: Store, record: Record) -> tuple[Record | None, dict[str, Tensor]]:
    """The record and the gallery of the sweeps, where the reproduction has them."""
    if "sweep" not in record["parts"]:
        return None, {}
    return store.read_record(SWEEP), store.read_tensors(GALLERY)[0]


def claim_tables(claims: Sequence[Record]) -> list[Record]:
    """The claims as tables, one for each set of subjects that claims are judged on.

    Args:
        claims: records of claims, each on one subject (`sweep`): a sweep, a model, or a variant of the data.

    Returns:
        Tables with a `title`, `subjects` (titles) and `rows`; a row has its `claim` and a cell a subject.
    """
    rows: dict[str, dict[str, Record]] = {}
    for claim in claims:
        rows.setdefault(claim["claim"], {})[claim["sweep"]] = claim
    tables: dict[tuple[str, ...], list[Record]] = {}
    for found in rows.values():
        row = {"claim": next(iter(found.values())), "cells": list(found.values())}
        tables.setdefault(tuple(found), []).append(row)
    return [_table(subjects, group) for subjects, group in tables.items()]


def _table(subjects: Sequence[str], rows: Sequence[Record]) -> Record:
    titles = [subject_title(subject) for subject in subjects]
    title = "For each sweep of strengths" if set(subjects) <= set(sweeps.TITLES) else "For each of these"
    return {"title": title if len(titles) > 1 else titles[0], "subjects": titles, "rows": rows}


def subject_title(subject: str) -> str:
    """What a claim is judged on, for people: a sweep by its objective, a model also by its strength."""
    objective, _, strength = subject.partition(" ")
    if objective not in sweeps.TITLES:
        return subject
    title = sweeps.TITLES[objective]
    return f"{title}, {sweeps.SYMBOLS[objective]} = {strength}" if strength else title


def _number(name: str) -> str:
    return f"Figure {name}" if name.isdigit() else name.replace("-", " ").capitalize()


def _script_data(data: Record | None) -> str:
    """JSON that can stand in a script element: nothing in it ends the element."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace(
        "<", "\\u003c"
    )


def _text(name: str) -> str:
    return (files("pags.report") / "templates" / name).read_text(encoding="utf-8")


def _template(name: str) -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_text(name))
