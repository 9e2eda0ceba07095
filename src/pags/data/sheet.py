"""Some images of a set at a glance."""

import io

import torch
from PIL import Image

from pags.data.imageset import ImageSet, as_float

SIDE = 64
"""Pixels to which smaller images are enlarged, each pixel as a square."""


def contact_sheet(images: ImageSet, *, columns: int = 16, rows: int = 8, seed: int = 0) -> bytes:
    """A PNG of up to columns × rows images, an equal number of each class as far as possible.

    Args:
        images: at least one.
        seed: names the sample.
    """
    chosen = images.sample(min(len(images), columns * rows), seed)
    shown = chosen.take(chosen.labels.argsort(stable=True).to(chosen.labels.device))
    pixels = (as_float(shown.pixels) * 255).round().to(torch.uint8).cpu()
    pixels = torch.nn.functional.pad(pixels, [1] * 4, value=96)
    n, channels, height, width = pixels.shape
    lines = -(-n // columns)
    sheet = pixels.new_zeros(lines * columns, channels, height, width)
    sheet[:n] = pixels
    sheet = sheet.reshape(lines, columns, channels, height, width).permute(0, 3, 1, 4, 2)
    array = sheet.reshape(lines * height, columns * width, channels).expand(-1, -1, 3).contiguous().numpy()
    factor = max(1, SIDE // min(height, width))
    picture = Image.fromarray(array).resize(
        (array.shape[1] * factor, array.shape[0] * factor), Image.Resampling.NEAREST
    )
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
