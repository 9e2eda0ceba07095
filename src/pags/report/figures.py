"""Drawing the two kinds of figure (`pags.experiments.figures.kinds`) from their records alone."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from pags.experiments.figures.kinds import FigureData
from pags.report.style import BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY, new_figure, styled
from pags.store import Record

MARKS: dict[str, tuple[str, str, str]] = {
    "on": (GREEN, "o", "-"),
    "off": (RED, "s", "-"),
    "any": (GREY, ".", "-"),
    "accuracy": (BLUE, "^", "-"),
    "similarity": (ORANGE, "D", "-"),
    "sum": (GREY, "x", "-"),
    "shuffled": (ORANGE, "", ":"),
    "first": (BLUE, "o", "-"),
    "second": (RED, "s", "-"),
    "third": (GREEN, "^", "--"),
    "fourth": (PINK, "D", "-."),
}
"""Colour, marker and line of each style, told apart without colour too."""

TICKS = 10
"""Labels that the axis of a panel has room for."""

SMALL = 96
"""Pixels a side up to which a picture is kept as it is."""

REFERENCES = (("black", "--"), ("black", "-."), (SKY, "--"), (GREY, ":"))


def draw(data: FigureData) -> Figure:
    """The figure of a record."""
    if data.record["kind"] == "grid":
        return draw_grid(data.record, data.tensors)
    return draw_curves(data.record)


@styled
def draw_grid(record: Record, tensors: Mapping[str, Tensor]) -> Figure:
    """Pictures in a grid, with the number of each beside it."""
    cells, lines = tensors["cells"], record["lines"]  # (lines, images, c, h, w)
    count, images, _, height, width = cells.shape
    rows, columns = (images, count) if record["across"] else (count, images)
    tall = min(max(height / width, 0.5), 2)
    # Lines that are rows have their labels at the left.
    left = 0.2 if record["across"] else 1.4
    room = 0.16 if any(line["numbers"] is not None for line in lines) else 0.04
    height_of_all = (1.08 * tall + room) * rows + 0.45
    figure, axes = new_figure(rows, columns, width=1.15 * columns + left, height=height_of_all)
    for line, about in enumerate(lines):
        for image in range(images):
            axis = axes[image, line] if record["across"] else axes[line, image]
            _cell(axis, cells[line, image], signed=about["signed"])
            if about["numbers"] is not None:
                axis.set_xlabel(f"{about['numbers'][image]:.2f}", fontsize=7, labelpad=1)
        if record["across"]:
            axes[0, line].set_title(about["label"].replace(" / ", " /\n"), fontsize=7)
        else:
            _label(axes[line, 0], about["label"])
    return figure


@styled
def draw_curves(record: Record) -> Figure:
    """Panels of curves with their intervals as bands, and one legend for all."""
    panels = record["panels"]
    columns = max(len(row) for row in panels)
    width, height = 3.4 * columns + 0.6, 3.0 * len(panels) + 0.7
    figure, axes = new_figure(len(panels), columns, width=width, height=height)
    handles: dict[str, Any] = {}
    named: dict[str, int] = {}
    for row, described in enumerate(panels):
        for column in range(columns):
            if column >= len(described):
                axes[row, column].set_visible(False)
                continue
            _panel(axes[row, column], described[column], handles, named)
        _share_scale([axes[row, place] for place in range(len(described))], described)
    figure.legend(handles=list(handles.values()), labels=list(handles), loc="outside lower center", ncols=4)
    return figure


def _panel(axis: Any, panel: Record, handles: dict[str, Any], named: dict[str, int]) -> None:
    other = axis.twinx() if any(series["right"] for series in panel["series"]) else None
    for series in panel["series"]:
        where = other if series["right"] else axis
        name = f"{series['name']} (right)" if series["right"] else series["name"]
        handles.setdefault(name, _curve(where, series))
    for name, level in panel["references"].items():
        order = named.setdefault(name, len(named))  # a name has one style in all panels
        colour, style = REFERENCES[order % len(REFERENCES)]
        handles.setdefault(name, axis.axhline(level, color=colour, lw=0.8, ls=style))
    if other is not None:
        other.set_ylim(0, 1.02)
        other.set_ylabel(panel["y_right"], color=BLUE)
        other.spines["right"].set(visible=True, color=BLUE)
        other.tick_params(axis="y", colors=BLUE)
    if panel["zero"]:
        axis.set_ylim(bottom=0)
    labelled = _thinned([place for place, tick in enumerate(panel["ticks"]) if tick])
    axis.set_xticks(labelled, [panel["ticks"][place] for place in labelled], fontsize=7)
    axis.set_title(panel["title"])
    axis.set_xlabel(panel["x"])
    axis.set_ylabel(panel["y"])


def _thinned(places: Sequence[int]) -> list[int]:
    """Evenly spaced ones of the places that have a label, both ends among them: few enough to be read."""
    if len(places) <= TICKS:
        return list(places)
    chosen = (round(step * (len(places) - 1) / (TICKS - 1)) for step in range(TICKS))
    return [places[step] for step in chosen]


def _share_scale(axes: Sequence[Any], panels: Sequence[Record]) -> None:
    """Panels of a row that show the same quantity have the same scale, so that they can be compared."""
    for y in {panel["y"] for panel in panels}:
        alike = [axis for axis, panel in zip(axes, panels, strict=True) if panel["y"] == y]
        limits = [axis.get_ylim() for axis in alike]
        for axis in alike:
            axis.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))


def _curve(axis: Any, series: Record) -> Any:
    """Estimates as a line, their intervals as a band, at equally spaced places."""
    colour, marker, style = MARKS[series["style"]]
    places, points = range(len(series["points"])), series["points"]
    estimates, low, high = ([number(point[name]) for point in points] for name in ("estimate", "low", "high"))
    size = 4 if len(points) <= TICKS else 2.5
    (line,) = axis.plot(places, estimates, color=colour, marker=marker, ms=size, lw=1.5, ls=style)
    axis.fill_between(places, low, high, color=colour, alpha=0.18, lw=0)
    return line


def _label(axis: Any, text: str) -> None:
    """The name of a row, at its left."""
    axis.set_ylabel(text.replace(" / ", " /\n"), fontsize=7, rotation=0, ha="right", va="center", labelpad=4)


def _cell(axis: Any, picture: Tensor, *, signed: bool) -> None:
    """One picture: pixels as they are; a vector scaled by its largest absolute value, zero in the middle."""
    if signed:
        peak = float(picture.abs().max()) or 1.0
        picture = (picture / peak + 1) / 2
    pixels = picture.permute(1, 2, 0).numpy()
    shown = pixels if pixels.shape[2] == 3 else pixels[..., 0]
    # A small picture stands in the file pixel by pixel; a large one is averaged to the figure's resolution.
    interpolation = "none" if max(shown.shape[:2]) <= SMALL else "antialiased"
    axis.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation=interpolation)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():  # so that white pixels have an end
        spine.set(visible=True, color="#b0b0b0", lw=0.4)


def number(value: float | None) -> float:
    """A number of a record, which has None for what is not finite; nothing is drawn there."""
    return math.nan if value is None else value
