"""Drawing pictures: grids from their records, and PNGs for pages, by one rule of scale and colour.

A vector is scaled by its largest absolute value, or by what it is a part of. In grey data its sign is a
colour, blue below and red above zero, which is white: told apart with any colour vision. In colour data zero
is mid-grey in each channel.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from pags.arrays import Images, PerImage, expand, flatten
from pags.records import Record
from pags.report.style import GREY, NotebookFigure, styled

SIGNED = "RdBu_r"
SMALL = 96
"""Pixels a side up to which a picture is kept as it is."""


@styled
def draw_grid(record: Record, tensors: Mapping[str, Tensor], *, axis: Any = None) -> Figure:
    """Pictures in a grid, with the number of each below it; all in one set of axes, in inches.

    Args:
        record, tensors: of the figure.
        axis: axes of a caller; None: a figure of the size that this takes.
    """
    cells, lines = tensors["cells"], record["lines"]  # (lines, images, c, h, w)
    count, images, _, height, width = cells.shape
    rows, columns = (images, count) if record["across"] else (count, images)
    tall = min(max(height / width, 0.5), 2)
    step = tall + (0.28 if any(line["numbers"] is not None for line in lines) else 0.08)
    # Lines that are rows have their labels at the left, others above.
    left, top = (0.05, 0.55) if record["across"] else (1.3, 0.05)
    size = (left + 1.08 * columns, top + step * rows)
    axis = NotebookFigure(figsize=size).add_axes((0, 0, 1, 1)) if axis is None else axis
    axis.set(xlim=(0, size[0]), ylim=(size[1], 0), aspect="equal")
    axis.set_axis_off()
    for line, about in enumerate(lines):
        label = about["label"].replace(" / ", " /\n")
        for image in range(images):
            row, column = (image, line) if record["across"] else (line, image)
            x, y = left + 1.08 * column, top + step * row
            _cell(axis, cells[line, image], (x, x + 1, y + tall, y), signed=about["signed"])
            if about["numbers"] is not None:
                text = f"{about['numbers'][image]:.2f}"
                axis.text(x + 0.5, y + tall + 0.03, text, fontsize=8, ha="center", va="top")
        if record["across"]:
            axis.text(left + 1.08 * line + 0.5, top - 0.05, label, fontsize=8, ha="center", va="bottom")
        else:
            axis.text(left - 0.08, top + step * line + tall / 2, label, fontsize=8, ha="right", va="center")
    return axis.figure


@styled
def draw_picture(png: bytes, axis: Any = None) -> Figure:
    """A PNG file as a figure of its own size, or in axes of a caller."""
    pixels = np.asarray(Image.open(io.BytesIO(png)))
    if axis is None:
        axis = NotebookFigure(figsize=(pixels.shape[1] / 150, pixels.shape[0] / 150)).add_axes((0, 0, 1, 1))
    axis.imshow(pixels, interpolation="none")
    axis.set_axis_off()
    return axis.figure


def _cell(axis: Any, picture: Tensor, extent: tuple[float, float, float, float], *, signed: bool) -> None:
    if signed:
        shown = coloured(signed_bytes(picture[None], peaks(picture[None]))[0])
    else:
        shown = as_rows(picture.clamp(0, 1)).numpy()
    # A small picture stands in the file pixel by pixel; a large one is averaged to the figure's resolution.
    interpolation = "none" if max(shown.shape[:2]) <= SMALL else "antialiased"
    axis.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation=interpolation, extent=extent, aspect="auto")
    left, right, bottom, top = extent  # so that white pixels have an end
    axis.plot(*zip((left, top), (right, top), (right, bottom), (left, bottom), (left, top), strict=True),
              color=GREY, lw=0.4)  # fmt: skip


def peaks(vectors: Images) -> PerImage:
    """The largest absolute value of each vector; 1 where all are zero."""
    found = flatten(vectors.nan_to_num()).abs().amax(1)
    return torch.where(found > 0, found, 1.0)


def signed_bytes(vectors: Images, scale: PerImage) -> Tensor:
    """Vectors as bytes, (n, c, h, w): 0 becomes 128, plus or minus `scale` (n,) and beyond 255 or 1."""
    inside = (vectors.nan_to_num() / expand(scale, vectors)).clamp(-1, 1)
    return (128 + 127 * inside).round().to(torch.uint8)


def image_bytes(images: Images) -> Tensor:
    """Pixels in [0, 1] as bytes."""
    return (255 * images.clamp(0, 1)).round().to(torch.uint8)


def as_rows(picture: Tensor) -> Tensor:
    """(c, h, w) as (h, w) or (h, w, 3)."""
    return picture.permute(1, 2, 0) if len(picture) == 3 else picture[0]


def coloured(picture: Tensor) -> Any:
    """Signed bytes (c, h, w) as (h, w, 3) of bytes."""
    return PALETTE[as_rows(picture).numpy()] if len(picture) == 1 else as_rows(picture).numpy()


PALETTE = (
    (255 * mpl.colormaps[SIGNED](np.clip((np.arange(256) - 1) / 254, 0, 1))[:, :3]).round().astype("uint8")
)


def sprite(rows: Sequence[Tensor], *, signed: bool = False) -> str:
    """One PNG as a data URI, of rows of equally many pictures: bytes (n, c, h, w), c 1 or 3."""
    table = torch.stack(list(rows))  # (rows, n, c, h, w)
    count, images, channels, height, width = table.shape
    pixels = table.permute(0, 3, 1, 4, 2).reshape(count * height, images * width, channels).numpy()
    picture = Image.fromarray(pixels if channels == 3 else pixels[..., 0])
    if signed and channels == 1:
        picture = picture.convert("P")
        picture.putpalette(PALETTE.tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "png", compress_level=9)
    return data_uri(buffer.getvalue())


def data_uri(png: bytes) -> str:
    """A PNG file as an address that a page can hold."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def picture_uri(picture: Tensor, *, signed: bool = False) -> str:
    """One picture (c, h, w) as a data URI."""
    one = picture[None].float()
    return sprite([signed_bytes(one, peaks(one)) if signed else image_bytes(one)], signed=signed)
