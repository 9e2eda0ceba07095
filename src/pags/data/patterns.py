"""Letters and textures, drawn from whole numbers alone: no font, and equal to the last bit everywhere."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from pags.errors import UsageError
from pags.seeds import generator

BOX = 28
"""Coordinates of strokes run from 0 to 28, right and down; a letter fills 4 to 24, as MNIST's digits do."""

HALF_WIDTH_SQUARED = 2
"""A stroke is what lies within √2 of its line: as thick as a digit's."""

Stroke = Sequence[tuple[int, int]]

LETTERS: dict[str, tuple[Stroke, ...]] = {
    "A": (((6, 23), (14, 5), (22, 23)), ((9, 16), (19, 16))),
    "B": (
        ((8, 23), (8, 5), (15, 5), (18, 6), (19, 9), (18, 12), (15, 13), (8, 13)),
        ((15, 13), (19, 14), (20, 18), (19, 22), (15, 23), (8, 23)),
    ),
    "C": (
        (
            (21, 8),
            (18, 6),
            (14, 5),
            (10, 6),
            (8, 9),
            (7, 14),
            (8, 19),
            (10, 22),
            (14, 23),
            (18, 22),
            (21, 20),
        ),
    ),
    "E": (((20, 5), (8, 5), (8, 23), (20, 23)), ((8, 14), (18, 14))),
    "F": (((20, 5), (8, 5), (8, 23)), ((8, 14), (18, 14))),
    "H": (((8, 5), (8, 23)), ((20, 5), (20, 23)), ((8, 14), (20, 14))),
    "K": (((8, 5), (8, 23)), ((20, 5), (8, 15)), ((12, 12), (20, 23))),
    "L": (((8, 5), (8, 23), (20, 23)),),
    "N": (((8, 23), (8, 5), (20, 23), (20, 5)),),
    "T": (((6, 5), (22, 5)), ((14, 5), (14, 23))),
    "X": (((7, 5), (21, 23)), ((21, 5), (7, 23))),
    "Z": (((7, 5), (21, 5), (7, 23), (21, 23)),),
}
"""The strokes of each letter, as lines through points."""


def letter(name: str, size: int) -> Tensor:
    """A white letter on black, (size, size) uint8; each pixel is the share of its area that is covered.

    Args:
        name: one of `LETTERS`.
        size: pixels of a side.
    """
    if name not in LETTERS:
        raise UsageError(f"a letter among {''.join(LETTERS)}", got=repr(name), suggestion="letter=A")
    # Everything is scaled by 2·n, so that the centres of the samples are whole numbers as well.
    samples = 8 if size > 16 else 32
    n = size * samples
    centres = (2 * torch.arange(n) + 1) * BOX
    across, down = centres[None, :], centres[:, None]
    covered = torch.zeros(n, n, dtype=torch.bool)
    for stroke in LETTERS[name]:
        for (x0, y0), (x1, y1) in pairwise(stroke):
            covered |= _near(across, down, (x0 * 2 * n, y0 * 2 * n), (x1 * 2 * n, y1 * 2 * n), 2 * n)
    counts = covered.reshape(size, samples, size, samples).sum((1, 3))
    return ((counts * 255 + samples**2 // 2) // samples**2).to(torch.uint8)


def _near(x: Tensor, y: Tensor, start: tuple[int, int], end: tuple[int, int], unit: int) -> Tensor:
    """Which points lie within a stroke's half width of the segment from `start` to `end`."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    px, py = x - start[0], y - start[1]
    length, reach = dx * dx + dy * dy, HALF_WIDTH_SQUARED * unit * unit
    along = px * dx + py * dy
    # Beside the segment the distance is |cross| / √length; past an end it is the distance to that end. The
    # cross product is divided by the unit (which its factors dx and dy hold) to stay within 64 bits.
    cross = (px * dy - py * dx) // unit
    beside = (along >= 0) & (along <= length) & (cross * cross <= HALF_WIDTH_SQUARED * length)
    ends = (px * px + py * py <= reach) | ((x - end[0]) ** 2 + (y - end[1]) ** 2 <= reach)
    return beside | ends


def checks(variant: int, size: int) -> Tensor:
    """A chequerboard, (size, size) uint8; variants differ in the height and width of the fields."""
    high, wide = CHECKS[variant]
    place = torch.arange(size) * BOX // size
    return (((place[:, None] // high + place[None, :] // wide) % 2) * 255).to(torch.uint8)


def stripes(variant: int, size: int) -> Tensor:
    """Stripes, (size, size) uint8; variants differ in their direction."""
    right, down = DIRECTIONS[variant]
    place = torch.arange(size) * BOX // size
    return ((((place[None, :] * right + place[:, None] * down) % 24) < 12) * 255).to(torch.uint8)


def blobs(variant: int, size: int) -> Tensor:
    """Five soft round spots, (size, size) uint8; variants differ in the places and sizes of the spots."""
    draws = generator(variant, "blobs")
    at = torch.randint(4 * 2 * size, 24 * 2 * size, (5, 2), generator=draws)
    radii = torch.randint(3 * 2 * size, 7 * 2 * size, (5,), generator=draws)
    centres = (2 * torch.arange(size) + 1) * BOX
    squared = (centres[None, :, None] - at[:, 1]) ** 2 + (centres[:, None, None] - at[:, 0]) ** 2  # (h, w, 5)
    light = (255 * (radii**2 - squared)).clamp_min(0) // radii**2
    return light.amax(2).to(torch.uint8)


CHECKS = ((7, 7), (4, 4), (14, 14), (4, 14), (14, 4), (7, 14), (14, 7), (4, 7), (7, 4), (28, 7))
DIRECTIONS = ((0, 4), (4, 0), (3, 3), (3, -3), (0, 2), (2, 0), (4, 2), (4, -2), (2, 4), (2, -4))

TEXTURES: dict[str, Callable[[int, int], Tensor]] = {"checks": checks, "stripes": stripes, "blobs": blobs}
"""Distractors that are no letters, in ten variants each."""

VARIANTS = 10


def variants(distractor: str, size: int) -> Tensor:
    """All forms of one distractor, (variants, size, size) uint8.

    Args:
        distractor: a name in `TEXTURES`, or letters, each of which is a form: "A" has one, "AB" two.

    Raises:
        UsageError: no such texture or letter, or a letter twice.
    """
    if distractor in TEXTURES:
        return torch.stack([TEXTURES[distractor](variant, size) for variant in range(VARIANTS)])
    if not distractor or len(set(distractor)) != len(distractor) or not set(distractor) <= set(LETTERS):
        raise UsageError(
            f"different letters among {''.join(LETTERS)}, or {', '.join(TEXTURES)}",
            got=repr(distractor),
            suggestion="letter=A",
        )
    return torch.stack([letter(name, size) for name in distractor])
