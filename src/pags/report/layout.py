"""Figures as pages show them, and the pages themselves: HTML that needs nothing but itself."""

import base64
import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from pags.figures.kinds import FigureData
from pags.records import Record
from pags.report.charts import columns_of, draw_curves, legend_of
from pags.report.grids import draw_grid
from pags.report.style import render
from pags.store import Store

FORMATS = ("svg", "pdf", "png")
FOR_FIGURES = 8_000_000
"""Bytes that the figures on the page may take; above, the largest are shown as reduced pixels."""


@dataclass(frozen=True)
class Shown:
    """A figure as the page shows it.

    Args:
        title, caption: texts.
        drawings: SVG elements, beside each other where there is room.
        legend: name, sign and colour of what the drawings share; None for one wide picture.
        small: reduced pixels as a data URI, for pages that would be too large.
        links: what its files are called, and where they lie beside the page.
        reduced: whether the page shows the pixels.
    """

    title: str
    caption: str
    drawings: Sequence[Markup]
    legend: Sequence[Mapping[str, str]] | None
    small: str
    links: Mapping[str, str]
    reduced: bool = False

    @property
    def size(self) -> int:
        """Bytes on the page."""
        return len(self.small) if self.reduced else sum(map(len, self.drawings))


def shown(store: Store, stem: str, data: FigureData, *, title: str = "") -> Shown:
    """Draw a figure for a page, and write its files `figures/STEM` in every format.

    Args:
        store: where they go.
        stem: the figure's own name.
        data: of the figure.
        title: in place of the record's.
    """
    record, title = data.record, title or data.record["title"]
    curves = record["kind"] == "curves"
    figure = draw(data)
    drawn = {FORMATS[0]: render(figure, FORMATS[0])}
    figure.set_layout_engine("none")  # laid out once, so that every format has the same places
    drawn |= {ending: render(figure, ending) for ending in FORMATS[1:]}
    for ending, content in drawn.items():
        store.write_bytes(f"figures/{stem}.{ending}", content)
    parts = [render(draw_curves(part, legend=False), "svg") for part in columns_of(record)] if curves else []
    drawings = [inline(svg, f"{stem}-{place}", title) for place, svg in enumerate(parts or [drawn["svg"]])]
    links = {ending.upper(): f"figures/{stem}.{ending}" for ending in FORMATS}
    for words, ending in (("numbers (JSON)", "json"), ("pictures (safetensors)", "safetensors")):
        links |= {words: name} if store.has(name := f"records/{stem}.{ending}") else {}
    legend = legend_of(record) if curves else None
    return Shown(title, record["caption"], drawings, legend, _reduced(drawn["png"]), links)


def draw(data: FigureData) -> Any:
    """The Matplotlib figure of a record, whole."""
    if data.record["kind"] == "grid":
        return draw_grid(data.record, data.tensors)
    return draw_curves(data.record)


def inline(svg: bytes, prefix: str, title: str) -> Markup:
    """An SVG file as an element of a page: ids of its own, a title, no style of the whole page."""
    text = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>", "", svg.decode(), flags=re.DOTALL)
    text = text[text.index("<svg") :]
    kept = set(re.findall(r'(?:href="|url\()#([^")]+)', text))  # each of these once, and no other id
    text = re.sub(r' id="([^"]+)"', lambda found: _taken(kept, found), text)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    head, rest = text.split(">", 1)
    natural = float(head.split(' width="')[1].split("pt")[0]) * 4 / 3
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    words = escape(title)
    about = f'role="img" aria-label="{words}" style="--natural: {natural:.0f}px"'
    return Markup(f"{head} {about}><title>{words}</title>{rest.strip()}")


def _taken(names: set[str], found: re.Match[str]) -> str:
    """An id where its name is among those that are left, which it then is no more."""
    if found[1] not in names:
        return ""
    names.remove(found[1])
    return found[0]


def _reduced(png: bytes) -> str:
    """The figure at half its resolution, as a data URI."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").reduce(2).save(buffer, "jpeg", quality=65)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def that_fit(figures: Sequence[Shown]) -> list[Shown]:
    """The figures, the largest reduced until all fit."""
    found = list(figures)
    for place in sorted(range(len(found)), key=lambda place: -found[place].size):
        if sum(figure.size for figure in found) > FOR_FIGURES:
            found[place] = replace(found[place], reduced=True)
    return found


def chips_of(verdicts: Sequence[str]) -> list[tuple[str, str]]:
    """Counts of verdicts; those that do not occur are left out."""
    tally = Counter(verdicts)
    kinds = ("supported", "contradicted", "undecided")
    return [(kind, f"{tally[kind]} {kind}") for kind in kinds if tally[kind]]


def page(template: str, record: Mapping[str, Any], **content: Any) -> bytes:
    """A page of a record; the same content gives the same bytes.

    Args:
        template: reproduction, audit, theory or generate.
        record: its settings, command and what made it stand at the end.
        content: title, answer (sentences), chips (verdict and text), strip, and what the template asks;
            `first_screen` for that alone.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=FunctionLoader(_text),
    )  # fmt: skip
    environment.filters |= {"three": three, "symbols": symbols}
    made = dict(record.get("made", {}))
    command = made.pop("command", "")
    made |= made.pop("versions", {})
    explorer = content.get("explorer")
    common = {
        "record": record,
        "command": record.get("command") or command,
        "made": made,
        "settings": json.dumps(record.get("settings", {}), indent=1, ensure_ascii=False),
        "style": Markup(_text("page.css")),
        "script": Markup(_text("explore.js")),
        "explorer_data": Markup(_script_data(explorer)) if explorer else "",
        "repeats": 1,
        "first_screen": False,
    }
    return environment.get_template(f"{template}.html").render(common | content).encode()


def three(value: float | None, sign: str = "") -> str:
    """Three significant digits, with the sign of subtraction; a dash for what is not defined."""
    if value is None:
        return "–"
    return format(value, f"{sign}#.3g").removesuffix(".").replace("-", "−")


def symbols(text: str) -> str:
    """A rule or a note of a record with the symbols that the page uses."""
    for name, symbol in (("rho1", "ρ1"), ("rho2", "ρ2"), ("by lpips", "by 1 − LPIPS"), (", -", ", −")):
        text = text.replace(name, symbol)
    return text


def _script_data(data: Record) -> str:
    """JSON that can stand in a script element: nothing in it ends the element."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _text(name: str) -> str:
    return (files("pags.report") / "html" / name).read_text(encoding="utf-8")
