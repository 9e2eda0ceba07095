"""How figures look, and how they are written: the same record gives the same bytes."""

import io
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib as mpl
from matplotlib.figure import Figure

from pags.store import Store

# Okabe and Ito's colours, told apart with any colour vision; every line also has a marker of its own.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#808080"
PINK, SKY = "#CC79A7", "#56B4E9"
INK = "#101010"
"""Of text and axes; in an SVG it is the colour of the text around it, on a transparent ground."""

RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "svg.fonttype": "path",  # glyphs as outlines: looks the same everywhere
    "svg.hashsalt": "pags",  # names inside the file that do not change from run to run
    "pdf.fonttype": 42,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}


P = ParamSpec("P")


class NotebookFigure(Figure):
    """A figure that notebooks show without `pyplot`."""

    def _repr_png_(self) -> bytes:
        return render(self, "png")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw in the project's style, without touching matplotlib's global state."""

    @wraps(draw)
    def drawn(*args: P.args, **options: P.kwargs) -> Figure:
        with mpl.rc_context(RC):
            return draw(*args, **options)

    return drawn


def new_figure(rows: int, columns: int, *, width: float, height: float, **options: Any) -> tuple[Figure, Any]:
    """A figure with a grid of axes (rows, columns), sizes in inches."""
    figure = NotebookFigure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def write_figure(
    store: Store, name: str, figure: Figure, formats: Sequence[str] = ("svg", "png")
) -> list[Path]:
    """Write a figure as `figures/NAME.FORMAT` for each format, without dates."""
    return [store.write_bytes(f"figures/{name}.{end}", render(figure, end)) for end in formats]


def render(figure: Figure, ending: str) -> bytes:
    """The bytes of a figure in a format: SVG without ground in the colour of text, the others on white."""
    metadata = {
        "svg": {"Date": None, "Creator": None},
        "pdf": {"CreationDate": None},
        "png": {"Software": None},
    }
    ground = "none" if ending == "svg" else "white"
    buffer = io.BytesIO()
    with mpl.rc_context(RC):
        figure.savefig(buffer, format=ending, dpi=150, metadata=metadata[ending], facecolor=ground)
    return buffer.getvalue().replace(INK.encode(), b"currentColor") if ending == "svg" else buffer.getvalue()
