"""Drawing curves and dots with intervals (`pags.figures.kinds.curves`) from their records alone."""

import math
from collections.abc import Iterable, Mapping, Sequence
from textwrap import fill
from typing import Any

from matplotlib.figure import Figure

from pags.figures.sweeps import evenly
from pags.records import Record
from pags.report.style import BLUE, GREEN, GREY, INK, ORANGE, PINK, RED, SKY, new_figure, styled

MARKS: dict[str, tuple[str, str, str]] = {
    "on": (GREEN, "o", "-"),
    "off": (RED, "s", "-"),
    "any": (GREY, ".", "-"),
    "accuracy": (BLUE, "^", "-"),
    "similarity": (ORANGE, "D", "-"),
    "sum": (GREY, "x", "-"),
    "shuffled": (ORANGE, "", ":"),
    "control": (RED, "x", "-"),
    "floor": (GREY, "|", ":"),
    "ceiling": (INK, "|", "--"),
    "guide": (INK, "", "-"),
    "first": (BLUE, "o", "-"),
    "second": (RED, "s", "-"),
    "third": (GREEN, "^", "--"),
    "fourth": (PINK, "D", "-."),
    "fifth": (SKY, "v", "--"),
    "sixth": (GREY, "x", ":"),
}
"""Colour, marker and line of each style, told apart without colour too."""

REFERENCES = {"ceiling": (INK, "--"), "floor": (GREY, ":")}
OTHER_REFERENCES = ((INK, "--"), (SKY, "-."), (GREY, ":"))
REGIMES = {"weak": (GREY, 0.12), "Bayes-aligned": (GREEN, 0.16), "excessive": (RED, 0.14)}
"""Colour and opacity behind the curves; the name is written above."""

TICKS = 10
"""Labels that the axis of a panel has room for."""
WIDTH, HEIGHT, ON_A_PAGE = 3.5, 2.5, 2.0
SIGNS = {"o": "●", "s": "■", "^": "▲", "v": "▼", "D": "◆", "x": "✕", ".": "•", "|": "|", "": ""}
DASHES = {"-": "—", "--": "╌", "-.": "╌", ":": "┈"}


@styled
def draw_curves(record: Record, *, legend: bool = True) -> Figure:
    """Panels of curves with their intervals as bands, and one legend for all."""
    panels = record["panels"]
    columns = max(len(row) for row in panels)
    least = HEIGHT if legend else ON_A_PAGE
    tall = [max(least, *(0.42 * len(p["ticks"]) + 1.0 for p in row if p["sideways"]), 0) for row in panels]
    size = {"width": WIDTH * columns, "height": sum(tall) + (0.6 if legend else 0)}
    figure, axes = new_figure(len(panels), columns, gridspec_kw={"height_ratios": tall}, **size)
    handles: dict[str, Any] = {}
    for line, row in zip(axes, with_limits(record)["panels"], strict=True):
        for axis in line[len(row) :]:
            axis.set_visible(False)
        for axis, panel in zip(line, row, strict=False):
            _panel(axis, panel, handles)
    if legend:
        figure.legend(
            list(handles.values()), list(handles), loc="outside lower center", ncols=min(4, 1 + columns)
        )
    return figure


@styled
def draw_panel(panel: Record, axis: Any) -> Figure:
    """One panel with its legend in axes of a caller; the figure that they are of."""
    handles: dict[str, Any] = {}
    _panel(axis, panel, handles)
    axis.legend(list(handles.values()), list(handles))
    return axis.figure


def columns_of(record: Record) -> list[Record]:
    """The figure as one record per column, with the scales of the whole: a narrow page stacks them."""
    rows = with_limits(record)["panels"]
    count = max(len(row) for row in rows)
    return [
        record | {"panels": [[row[place]] for row in rows if place < len(row)]} for place in range(count)
    ]  # fmt: skip


def with_limits(record: Record) -> Record:
    """The record with the limits of all panels: those of a row that show one quantity have one scale."""
    rows = []
    for row in record["panels"]:
        alike: dict[str, list[Record]] = {}
        for panel in row:
            alike.setdefault(panel["y"], []).append(panel)
        limits = {y: _limits(panels) for y, panels in alike.items()}
        rows.append([panel | {"limits": panel["limits"] or limits[panel["y"]]} for panel in row])
    return record | {"panels": rows}


def legend_of(record: Record) -> list[dict[str, str]]:
    """Name, sign and colour of everything that is drawn, for a legend in a page."""
    found: dict[str, dict[str, str]] = {}
    for panel in (panel for row in record["panels"] for panel in row):
        for series in panel["series"]:
            colour, marker, dashes = MARKS[series["style"]]
            line = "" if panel["sideways"] else DASHES[dashes]
            _add(found, series["name"], f"{line}{SIGNS[marker] or '●' * panel['sideways']}{line}", colour)
        for place, name in enumerate(panel["references"]):
            colour, dashes = _look(name, place)
            _add(found, name, 2 * DASHES[dashes], colour)
    return list(found.values())


def _add(found: dict[str, dict[str, str]], name: str, sign: str, colour: str) -> None:
    found.setdefault(name, {"name": name, "sign": sign, "colour": "inherit" if colour == INK else colour})


def _look(reference: str, place: int) -> tuple[str, str]:
    return REFERENCES.get(reference) or OTHER_REFERENCES[place % len(OTHER_REFERENCES)]


def _limits(panels: Sequence[Record]) -> tuple[float, float] | None:
    """What is drawn in these panels, with some room; None where nothing is."""
    values = [v for panel in panels for v in _values(panel) if math.isfinite(v)]
    first = panels[0]
    if ("x" if first["sideways"] else "y") in first["log"]:
        values = [math.log10(v) for v in values if v > 0]
    if not values:
        return None
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.5
    if ("x" if first["sideways"] else "y") in first["log"]:
        return 10 ** (low - room), 10 ** (high + room)
    return (0.0 if first["zero"] else low - room), high + room


def _values(panel: Record) -> Iterable[float]:
    for series in panel["series"]:
        yield from (
            _number(point, name) for point in series["points"] for name in ("estimate", "low", "high")
        )
        yield from (value for run in series["runs"] for value in run)
    for level in panel["references"].values():
        yield from _ends(level)


def _panel(axis: Any, panel: Record, handles: dict[str, Any]) -> None:
    (_sideways if panel["sideways"] else _upright)(axis, panel, handles)
    for place, (name, level) in enumerate(panel["references"].items()):
        colour, dashes = _look(name, place)
        across = axis.axvline if panel["sideways"] else axis.axhline
        handles.setdefault(name, across(_ends(level)[1], color=colour, lw=1, ls=dashes))
        if isinstance(level, Mapping):
            (axis.axvspan if panel["sideways"] else axis.axhspan)(
                *_ends(level)[::2], color=colour, alpha=0.15, lw=0
            )
    axis.set_title(panel["title"], pad=11 if panel["regimes"] else 6)


def _ends(level: float | Mapping[str, Any]) -> tuple[float, float, float]:
    """Low, estimate, high."""
    if isinstance(level, Mapping):
        return _number(level, "low"), _number(level, "estimate"), _number(level, "high")
    return level, level, level


def _upright(axis: Any, panel: Record, handles: dict[str, Any]) -> None:
    numeric = panel["places"] is not None
    places = panel["places"] if numeric else list(range(len(panel["ticks"])))
    if panel["regimes"]:
        _shade(axis, panel["regimes"], named=bool(panel["title"]))
    for series in panel["series"]:
        handles.setdefault(series["name"], _curve(axis, series, places))
    if numeric:
        axis.set_xscale("log" if "x" in panel["log"] else "linear")
        if panel["ticks"]:
            axis.set_xticks(places, panel["ticks"])
            axis.minorticks_off()
    else:
        labelled = evenly([place for place, tick in enumerate(panel["ticks"]) if tick], TICKS)
        axis.set_xticks(labelled, [panel["ticks"][place] for place in labelled], fontsize=7)
        axis.set_xlim(-0.5, len(places) - 0.5)
    if "y" in panel["log"]:
        axis.set_yscale("log")
    if panel["limits"]:
        axis.set_ylim(*panel["limits"])
    axis.set_xlabel(panel["x"])
    axis.set_ylabel(fill(panel["y"], 30))


def _shade(axis: Any, regimes: Sequence[str], *, named: bool) -> None:
    """The regime at each tick behind the curves; a tick between two regimes has half of each."""
    halves = [part for name in regimes for part in (name.split(" / ") * 2)[:2]]
    start = 0
    for place in range(1, len(halves) + 1):
        if place < len(halves) and halves[place] == halves[start]:
            continue
        left, right = start / 2 - 0.5, place / 2 - 0.5
        if halves[start] in REGIMES:
            colour, opacity = REGIMES[halves[start]]
            axis.axvspan(left, right, color=colour, alpha=opacity, lw=0)
            if named and len(halves[start]) <= (right - left) * 40 / len(regimes):  # there is room
                across = axis.get_xaxis_transform()
                place_of = {"transform": across, "ha": "center", "va": "bottom", "fontsize": 7}
                axis.text((left + right) / 2, 1.0, halves[start], **place_of)
        start = place


def _curve(axis: Any, series: Record, places: Sequence[float]) -> Any:
    """Estimates as a line, their intervals as a band, single runs as thin lines."""
    colour, marker, dashes = MARKS[series["style"]]
    for run in series["runs"]:
        axis.plot(places, run, color=colour, lw=0.5, alpha=0.4)
    estimate, low, high = (
        [_number(point, name) for point in series["points"]] for name in ("estimate", "low", "high")
    )
    size, every = (4, 1) if len(places) <= TICKS else (2.5, max(1, len(places) // 30))
    axis.fill_between(places, low, high, color=colour, alpha=0.2, lw=0)
    (line,) = axis.plot(
        places, estimate, color=colour, marker=marker, ms=size, markevery=every, ls=dashes,
        lw=1 if series["style"] == "guide" else 1.5,
    )  # fmt: skip
    return line


def _sideways(axis: Any, panel: Record, handles: dict[str, Any]) -> None:
    """Dots with intervals, a line per tick, the series a little above each other."""
    shown = panel["series"]
    for order, series in enumerate(shown):
        colour, marker, _ = MARKS[series["style"]]
        apart = (order - (len(shown) - 1) / 2) * 0.6 / max(len(shown), 1)
        for place, point in enumerate(series["points"]):
            if point is None or point["estimate"] is None:
                continue
            low, estimate, high = (_number(point, name) for name in ("low", "estimate", "high"))
            bars = [[estimate - low], [high - estimate]] if math.isfinite(low + high) else None
            big = 11 if marker == "|" else 4.5
            dot = axis.errorbar(
                estimate, place + apart, xerr=bars, color=colour, marker=marker or "o", ms=big, lw=1.1, ls=""
            )
            handles.setdefault(series["name"], dot)
    axis.set_xscale("log" if "x" in panel["log"] else "linear")
    if panel["limits"]:
        axis.set_xlim(*panel["limits"])
    axis.locator_params(axis="x", nbins=4) if "x" not in panel["log"] else None
    axis.set_yticks(range(len(panel["ticks"])), panel["ticks"], fontsize=8)
    axis.set_ylim(len(panel["ticks"]) - 0.5, -0.5)
    axis.set_xlabel(fill(panel["y"], 34))


def _number(point: Mapping[str, Any] | None, name: str) -> float:
    """A number of an interval; NaN, which is not drawn, for what is not defined."""
    value = None if point is None else point.get(name)
    return math.nan if value is None else float(value)
