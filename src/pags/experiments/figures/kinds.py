"""The two kinds of figure, as plain data: pictures in a grid, and curves with intervals.

A figure's record holds all that is drawn, so it can be drawn again from its record alone. A grid's pictures
are the tensor `cells` (lines, images, C, H, W) beside the record.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from pags.arrays import Images
from pags.store import Record


@dataclass(frozen=True)
class Line:
    """A line of a grid: one picture of every image.

    Args:
        label: what the pictures are.
        pictures: (images, C, H, W): pixels in [0, 1], or vectors of any scale where `signed`.
        signed: whether each picture is scaled by its largest absolute value, zero in the middle.
        numbers: one number an image, written beside its picture.
    """

    label: str
    pictures: Images
    signed: bool = False
    numbers: Sequence[float] | None = None


@dataclass(frozen=True)
class Series:
    """A curve: estimates with intervals at the ticks of its panel.

    Args:
        name: what the legend says.
        style: one of `STYLES`, which fixes colour and marker.
        points: records of intervals (estimate, low, high), one a tick.
        right: whether it belongs to the axis at the right.
    """

    name: str
    style: str
    points: Sequence[Record]
    right: bool = False


STYLES = (
    "on", "off", "any", "accuracy", "similarity", "sum", "shuffled", "first", "second", "third", "fourth",
)  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """Axes with curves.

    Args:
        title: what is shown.
        x: what the ticks are.
        ticks: labels of the ticks, equally spaced.
        y: what the left axis is.
        series: the curves.
        y_right: what the right axis is, where a curve belongs to it.
        references: level lines by name.
        zero: whether the left axis begins at 0.
    """

    title: str
    x: str
    ticks: Sequence[str]
    y: str
    series: Sequence[Series]
    y_right: str = ""
    references: dict[str, float] = field(default_factory=dict)
    zero: bool = False


@dataclass(frozen=True)
class FigureData:
    """What a figure's function returns: its record and the tensors beside it."""

    record: Record
    tensors: dict[str, Tensor] = field(default_factory=dict)


def grid(title: str, caption: str, lines: Sequence[Line], *, across: bool = False) -> FigureData:
    """A figure of pictures.

    Args:
        title, caption: texts.
        lines: of equally many pictures of one size.
        across: whether the lines are columns, one row an image, instead of rows, one column an image.
    """
    described = [
        {"label": line.label, "signed": line.signed, "numbers": _numbers(line.numbers)} for line in lines
    ]
    record = {"kind": "grid", "title": title, "caption": caption, "across": across, "lines": described}
    return FigureData(record, {"cells": torch.stack([line.pictures.cpu().float() for line in lines])})


def curves(title: str, caption: str, panels: Sequence[Sequence[Panel]]) -> FigureData:
    """A figure of panels, given in rows."""
    rows = [[_described(panel) for panel in row] for row in panels]
    return FigureData({"kind": "curves", "title": title, "caption": caption, "panels": rows})


def _described(panel: Panel) -> Record:
    assert all(series.style in STYLES for series in panel.series)
    assert all(len(series.points) == len(panel.ticks) for series in panel.series)
    return asdict(panel)


def _numbers(numbers: Sequence[float] | None) -> list[float] | None:
    return None if numbers is None else [float(number) for number in numbers]
