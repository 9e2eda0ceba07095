"""What the page's explorer shows: the gallery's pictures as 8-bit sprites, and the numbers beside them.

Everything is rendered here; the page only picks and draws. A sprite is one PNG of many pictures of one size,
a row a strength and a column an image. Vectors are signed: mid-grey is zero, and the largest absolute value
of a *whole* gradient or score is white or black. Its parts on and off the manifold have the whole's scale.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from pags.arrays import Images, expand, flatten
from pags.errors import PagsError
from pags.experiments.figures import sweeps
from pags.store import Record

TARGETS = {"logit": "logit of the predicted class", "sum-of-logits": "sum of the logits"}
LARGEST = 64
"""Pixels a side; larger pictures are averaged down to it."""
KINDS = ("gradient", "on", "off")


def explorer(record: Record, gallery: Mapping[str, Tensor], *, budget: int) -> Record:
    """Everything that the explorer shows, as plain data, the pictures as data URIs.

    Args:
        record: of the sweeps, `records/sweep.json`.
        gallery: the tensors of `records/gallery.safetensors`.
        budget: bytes that the pictures may take at most; images, then strengths are left out to fit.

    Raises:
        PagsError: a part of the gallery is missing.
    """
    whole = len(_column(gallery, "images"))
    height, width = _small(_column(gallery, "images")).shape[2:]
    longest = max(len(sweep["strengths"]) for sweep in record["settings"]["sweeps"])
    images, strengths = _that_fit(record, gallery, whole, longest, budget)
    cut = {name: column[:images] for name, column in gallery.items() if not name.startswith("directions")}
    entries = [_objective(record, cut, sweep, strengths) for sweep in record["settings"]["sweeps"]]
    peaks = [float(values.nan_to_num().max()) for name, values in cut.items() if "layers " in name]
    return {
        "height": height,
        "width": width,
        "labels": _column(cut, "labels").tolist(),
        "images": sprite([_pixels(_column(cut, "images"))]),
        "scores": {target: _vectors([_score(cut, kind)]) for target, kind in sweeps.KINDS.items()},
        "objectives": entries,
        "targets": TARGETS,
        "longest": max([*peaks, 1e-6]),
        "shown": {"images": images, "of images": whole, "strengths": min(strengths, longest), "of": longest},
        "averaged": max(gallery["images"].shape[2:]) > LARGEST,
    }


def evenly(values: Sequence[float], most: int) -> list[float]:
    """At most `most` (at least 2) of the values, evenly spaced, both ends among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(place * (len(values) - 1) / (most - 1))] for place in range(most)]


def signed(vectors: Images, scale: Tensor) -> Tensor:
    """Vectors as bytes, (n, c, h, w): 0 becomes 128, plus or minus `scale` (n,) and beyond 255 or 1."""
    inside = (vectors.nan_to_num() / expand(scale, vectors)).clamp(-1, 1)
    return (128 + 127 * inside).round().to(torch.uint8)


def sprite(rows: Sequence[Tensor]) -> str:
    """One PNG as a data URI, of rows of equally many pictures: bytes (n, c, h, w), c 1 or 3."""
    table = torch.stack(list(rows))  # (rows, n, c, h, w)
    count, images, channels, height, width = table.shape
    pixels = table.permute(0, 3, 1, 4, 2).reshape(count * height, images * width, channels).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels if channels == 3 else pixels[..., 0]).save(buffer, "png", compress_level=9)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _that_fit(
    record: Record, gallery: Mapping[str, Tensor], images: int, strengths: int, budget: int
) -> tuple[int, int]:
    """How many images and strengths fit, about two strengths an image, as if nothing could be compressed."""
    sprites = len(record["settings"]["sweeps"]) * len(TARGETS) * len(KINDS)
    # A byte of a PNG takes 4/3 of base64; what is not in the sprites of gradients is a row more.
    one = math.ceil(sprites * _small(gallery["images"])[0].numel() * 1.05 * 4 / 3)
    while images * (strengths + 1) * one > budget and (images > 1 or strengths > 2):
        if strengths > 2 and (strengths > 2 * images or images == 1):
            strengths -= 1
        else:
            images -= 1
    return images, strengths


def _objective(record: Record, gallery: Mapping[str, Tensor], sweep: Record, most: int) -> Record:
    """One sweep: its models, and for each target the sprites and the numbers of each model and image."""
    chosen = evenly(sweep["strengths"], most)
    found = [sweeps.model(record, sweep["objective"], strength) for strength in chosen]
    keys = [f"{model['objective']} {model['strength']:g}" for model in found]
    best = sweeps.best(record, sweep["objective"])["strength"]
    return {
        "name": sweep["objective"],
        "title": sweeps.title(sweep),
        "symbol": sweeps.SYMBOLS.get(sweep["objective"], "strength"),
        "start": min(range(len(chosen)), key=lambda place: abs(chosen[place] - best)),
        "models": [_model(strength, model) for strength, model in zip(chosen, found, strict=True)],
        "targets": {target: _gradients(gallery, keys, target) for target in TARGETS},
    }


def _model(strength: float, model: Record) -> Record:
    means = model["means"]
    return {
        "strength": f"{strength:g}",
        "regime": model["regime"],
        "accuracy": _number(means["correct"]["estimate"]),
        "off/on": {name: _number(model["off/on"][name]) for name in ("estimate", "low", "high")},
        "similarity": {
            target: {
                name: _number(means[f"similarity {target}"][name]) for name in ("estimate", "low", "high")
            }
            for target in TARGETS
        },
    }


def _gradients(gallery: Mapping[str, Tensor], keys: Sequence[str], target: str) -> Record:
    pairs = [
        (_column(gallery, f"gradient {key} {target}"), _column(gallery, f"on gradient {key} {target}"))
        for key in keys
    ]
    similarity = [_column(gallery, f"similarity {key} {target}") for key in keys]
    layers = [_column(gallery, f"layers {key} {target}") for key in keys]
    return _vectors(pairs) | {
        "similarity": [_numbers(values) for values in similarity],  # a list a strength, a number an image
        "layers": [[_numbers(row) for row in values] for values in layers],  # five numbers an image
    }


def _score(gallery: Mapping[str, Tensor], kind: str) -> tuple[Tensor, Tensor]:
    return _column(gallery, f"score {kind}"), _column(gallery, f"on score {kind}")


def _vectors(pairs: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """Sprites of whole vectors and of both their parts, from pairs of a vector and its part on."""
    rows: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
    for vectors, on in pairs:
        peaks = flatten(vectors.nan_to_num()).abs().amax(1)
        scale = torch.where(peaks > 0, peaks, 1.0)
        for kind, part in zip(KINDS, (vectors, on, vectors - on), strict=True):
            rows[kind].append(_small(signed(part, scale)))
    return {kind: sprite(pictures) for kind, pictures in rows.items()}


def _pixels(images: Images) -> Tensor:
    return _small((255 * images.clamp(0, 1)).round().to(torch.uint8))


def _small(pictures: Tensor) -> Tensor:
    """Pictures (n, c, h, w) averaged to at most `LARGEST` pixels a side, of the same type."""
    factor = LARGEST / max(pictures.shape[2:])
    if factor >= 1:
        return pictures
    size = [max(1, round(side * factor)) for side in pictures.shape[2:]]
    averaged = nn.functional.interpolate(pictures.float(), size=size, mode="area")
    return averaged.round().to(pictures.dtype) if pictures.dtype == torch.uint8 else averaged


def _numbers(values: Tensor) -> list[float | None]:
    return [_number(value) for value in values.tolist()]


def _number(value: float | None) -> float | None:
    """Four digits are more than the page shows; None where there is no number."""
    return round(value, 4) if value is not None and math.isfinite(value) else None


def _column(gallery: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in gallery:
        raise PagsError(
            f"a gallery that holds {name!r}",
            got="none",
            suggestion="pags reproduce with the same settings again",
        )
    return gallery[name]
