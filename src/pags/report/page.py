"""The report: one HTML page that needs nothing but itself."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup
from torch import Tensor

from pags.report.style import render, write_figure
from pags.report.sweep import TITLES, gradient_grid, robustness_and_alignment
from pags.store import Record, Store


def write_report(store: Store, record: Record, gallery: Mapping[str, Tensor]) -> list[Path]:
    """Draw the figures of a sweep and write its page, from records alone.

    Args:
        store: where `figures/` and `report.html` go.
        record: what `run_sweeps` returned, or read back from `records/sweep.json`.
        gallery: what `records/gallery.safetensors` holds.

    Returns:
        The files written, the page last.
    """
    figures = {"figure-3": robustness_and_alignment(record)}
    for sweep in record["settings"]["sweeps"]:
        figures[f"figure-6-{sweep['objective']}"] = gradient_grid(record, gallery, sweep["objective"])
    written = [path for name, figure in figures.items() for path in write_figure(store, name, figure)]
    drawn = {name: Markup(_inline(render(figure, "svg").decode())) for name, figure in figures.items()}
    html = _template("sweep.html").render(
        record=record, figures=drawn, titles=TITLES, verdicts=claims_by_key(record)
    )
    return [*written, store.write_bytes("report.html", html.encode())]


def claims_by_key(record: Record) -> list[tuple[Record, Sequence[Record]]]:
    """The claims in order, each with its records over the sweeps."""
    keys = list(dict.fromkeys(claim["claim"] for claim in record["claims"]))
    groups = [[c for c in record["claims"] if c["claim"] == key] for key in keys]
    return [(group[0], group) for group in groups]


def _inline(svg: str) -> str:
    """The SVG element without the XML prologue."""
    return svg[svg.index("<svg") :]


def _template(name: str) -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string((files("pags.report") / "templates" / name).read_text())
