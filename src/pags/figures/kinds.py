"""What a figure is: a row of the catalogue, and the two kinds of plain data that it can make.

A figure's record holds all that is drawn, so it can be drawn again from its record alone. A grid's pictures
are the tensor `cells` (lines, images, C, H, W) beside the record.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from pags.arrays import Images
from pags.records import IntervalRecord, Record, SweepRecord

Level = float | IntervalRecord


class Parts(Protocol):
    """What figures are made from: each part of an experiment, which may be run when it is first asked for."""

    @property
    def settings(self) -> Any: ...
    @property
    def objective(self) -> str: ...
    @property
    def sweep(self) -> SweepRecord: ...
    @property
    def gallery(self) -> Mapping[str, Tensor]: ...
    @property
    def score_shares(self) -> Record: ...
    @property
    def transfer(self) -> Record: ...
    @property
    def transfer_gallery(self) -> Mapping[str, Tensor]: ...
    @property
    def distractor(self) -> Record: ...
    @property
    def distractor_gallery(self) -> Mapping[str, Tensor]: ...
    @property
    def generation(self) -> Record: ...
    @property
    def generation_panels(self) -> Mapping[str, Tensor]: ...
    @property
    def smoothgrad(self) -> Record: ...
    @property
    def manifold(self) -> Record: ...
    @property
    def bayes(self) -> Record: ...


@dataclass(frozen=True)
class FigureData:
    """What a figure's function returns: its record and the tensors beside it."""

    record: Record
    tensors: dict[str, Tensor] = field(default_factory=dict)


def stem(name: str) -> str:
    """What the files of the figure `name` are called: figure-03, phenomenon-2."""
    return f"figure-{int(name):02d}" if name.isdigit() else name


@dataclass(frozen=True)
class Figure:
    """One figure: of the paper, or a user's own.

    Args:
        name: "1" to "17", or a word.
        title: what it shows.
        place: where the paper has it; empty for a figure of a user.
        needs: which parts of the experiment it is drawn from: world, sweep, score, transfer, distractor,
            generation, smoothgrad, manifold, bayes, shipped.
        data: makes it, with `grid` or `curves`.
    """

    name: str
    title: str
    place: str
    needs: tuple[str, ...]
    data: Callable[[Parts], FigureData]

    @property
    def stem(self) -> str:
        """The name of its files."""
        return stem(self.name)

    @property
    def heading(self) -> str:
        """As a page calls it: Figure 3, Phenomenon 2."""
        return f"Figure {self.name}" if self.name.isdigit() else self.name.replace("-", " ").capitalize()


@dataclass(frozen=True)
class Line:
    """A line of a grid: one picture per image.

    Args:
        label: what the pictures are.
        pictures: (images, C, H, W): pixels in [0, 1], or vectors of any scale where `signed`.
        signed: whether each picture is scaled by its largest absolute value, zero in the middle.
        numbers: one number per image, written beside its picture.
    """

    label: str
    pictures: Images
    signed: bool = False
    numbers: Sequence[float] | None = None


@dataclass(frozen=True)
class Series:
    """A curve: estimates with their intervals at the ticks of its panel.

    Args:
        name: what the legend says.
        style: one of `STYLES`, which fixes colour, marker and dashes.
        points: one interval per tick; an estimate alone has no interval, None is not drawn.
        runs: single runs, one value per tick, drawn as thin lines.
    """

    name: str
    style: str
    points: Sequence[Mapping[str, Any] | None]
    runs: Sequence[Sequence[float]] = ()


NUMBERED = ("first", "second", "third", "fourth", "fifth", "sixth")
STYLES = (
    "on", "off", "any", "accuracy", "similarity", "sum", "shuffled", "control", "floor", "ceiling", "guide",
    *NUMBERED,
)  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """Axes with curves, or with dots where `sideways`.

    Args:
        title: what is shown.
        x: what the ticks are.
        ticks: their labels, equally spaced unless `places` says where they are.
        y: what the values are.
        series: the curves.
        references: level lines by name; an interval is drawn with its band.
        zero: whether the axis of the values begins at 0.
        regimes: the regime at each tick, shaded behind the curves.
        places: positions of the points on a numeric axis, which then has ordinary ticks.
        log: which axes are logarithmic: "", "x", "y" or "xy".
        limits: of the values; None: what is drawn fits.
        sideways: ticks downwards, values to the right, dots without lines.
    """

    title: str
    x: str
    ticks: Sequence[str]
    y: str
    series: Sequence[Series]
    references: Mapping[str, Level] = field(default_factory=dict)
    zero: bool = False
    regimes: Sequence[str] = ()
    places: Sequence[float] | None = None
    log: str = ""
    limits: tuple[float, float] | None = None
    sideways: bool = False


def grid(caption: str, lines: Sequence[Line], *, title: str = "", across: bool = False) -> FigureData:
    """A figure of pictures.

    Args:
        caption: what is seen, and how it is scaled.
        lines: of equally many pictures of one size.
        title: where it says more than the catalogue's.
        across: whether the lines are columns, one row per image, instead of rows, one column per image.
    """
    described = [
        {
            "label": line.label,
            "signed": line.signed,
            "numbers": None if line.numbers is None else [float(number) for number in line.numbers],
        }
        for line in lines
    ]
    record = {"kind": "grid", **_titled(title), "caption": caption, "across": across, "lines": described}
    return FigureData(record, {"cells": torch.stack([line.pictures.cpu().float() for line in lines])})


def curves(caption: str, panels: Sequence[Sequence[Panel]], *, title: str = "") -> FigureData:
    """A figure of panels, given in rows; a title where it says more than the catalogue's."""
    for panel in (panel for row in panels for panel in row):
        count = len(panel.ticks if panel.places is None else panel.places)
        assert all(series.style in STYLES for series in panel.series)
        assert all(len(series.points) == count for series in panel.series)
    rows = [[asdict(panel) for panel in row] for row in panels]
    return FigureData({"kind": "curves", **_titled(title), "caption": caption, "panels": rows})


def _titled(title: str) -> Record:
    return {"title": title} if title else {}
