"""What the page's explorer shows: the gallery's pictures as 8-bit sprites, and the numbers beside them.

Everything is rendered here; the page only picks and draws. A sprite is one PNG of many pictures of one size,
a row per strength and a column per image. Vectors are scaled by the largest absolute value of the *whole*
gradient or score; its parts on and off the manifold have the whole's scale.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pags.errors import PagsError
from pags.figures import sweeps
from pags.records import IntervalRecord, ModelRecord, Record, SweepLine, SweepRecord
from pags.report.grids import image_bytes, peaks, signed_bytes, sprite

LARGEST = 64
"""Pixels a side; larger pictures are averaged down to it."""
KINDS = ("gradient", "on", "off")
Gallery = Mapping[str, Tensor]


def explorer(record: SweepRecord, gallery: Gallery, *, budget: int) -> Record:
    """Everything that the explorer shows, as plain data, the pictures as data URIs.

    Args:
        record: of the sweeps, `records/sweep.json`.
        gallery: the tensors of `records/gallery.safetensors`.
        budget: bytes that the pictures may take at most; images, then strengths are left out to fit.

    Raises:
        PagsError: a part of the gallery is missing.
    """
    pixels = _column(gallery, "images")
    targets = [target for target in sweeps.targets(record) if f"score {target}" in gallery]
    longest = max(len(line["strengths"]) for line in record["sweeps"])
    sprites = len(record["sweeps"]) * len(targets) * len(KINDS)
    images, strengths = _that_fit(sprites * _small(pixels)[0].numel(), len(pixels), longest, budget)
    cut = {name: column[:images] for name, column in gallery.items() if not name.startswith("directions")}
    layers = [float(values.nan_to_num().max()) for name, values in cut.items() if name.startswith("layers ")]
    height, width = _small(pixels).shape[2:]
    return {
        "height": height,
        "width": width,
        "labels": [_class(record, label) for label in _column(cut, "labels").tolist()],
        "images": sprite([_small(image_bytes(cut["images"]))]),
        "scores": {
            target: _vectors([(_column(cut, f"score {target}"), _column(cut, f"on score {target}"))])
            for target in targets
        },
        "objectives": [_objective(record, cut, line, targets, strengths) for line in record["sweeps"]],
        "start": [line["objective"] for line in record["sweeps"]].index(sweeps.best(record)["objective"]),
        "targets": {target: _words(target) for target in targets},
        "metric": sweeps.metric_title(sweeps.metrics(record)[0]),
        "longest": max([*layers, 1e-6]),
        "shown": {
            "images": images, "of images": len(pixels), "strengths": min(strengths, longest), "of": longest
        },
        "averaged": max(pixels.shape[2:]) > LARGEST,
    }  # fmt: skip


def _words(target: str) -> str:
    return {"logit": "logit of the image's class", "sum-of-logits": "sum of the logits"}.get(target, target)


def _class(record: SweepRecord, label: int) -> str:
    classes = record["data"]["classes"]
    return str(classes[label]) if label < len(classes) else str(label)


def _that_fit(pixels: int, images: int, strengths: int, budget: int) -> tuple[int, int]:
    """How many images and strengths fit, about two strengths per image, as if nothing could be compressed."""
    # A byte of a PNG takes 4/3 of base64; what is not in the sprites of gradients is a row more.
    one = math.ceil(pixels * 1.05 * 4 / 3)
    while images * (strengths + 1) * one > budget and (images > 1 or strengths > 2):
        if strengths > 2 and (strengths > 2 * images or images == 1):
            strengths -= 1
        else:
            images -= 1
    return images, strengths


def _objective(
    record: SweepRecord, gallery: Gallery, line: SweepLine, targets: Sequence[str], most: int
) -> Record:
    """One sweep: its models, and for each target the sprites and the numbers of each model and image."""
    chosen = sweeps.evenly(line["strengths"], most)
    found = [sweeps.model(record, sweeps.model_name(line["objective"], value)) for value in chosen]
    best = sweeps.best(record, line["objective"]).get("strength", 0)
    metric = sweeps.metrics(record)[0]
    return {
        "name": line["objective"],
        "title": line["title"],
        "symbol": line["symbol"] or "strength",
        "start": min(range(len(chosen)), key=lambda place: abs(chosen[place] - best)),
        "models": [_model(record, value, model) for value, model in zip(chosen, found, strict=True)],
        "targets": {target: _gradients(gallery, found, target, metric) for target in targets},
    }


def _model(record: SweepRecord, strength: float, model: ModelRecord) -> Record:
    means, metric = model["means"], sweeps.metrics(record)[0]
    return {
        "strength": f"{strength:g}",
        "regime": sweeps.regime_name(model["regime"]),
        "accuracy": _interval(means.get("correct"))["estimate"],
        "off/on": _interval(model["ratios"].get(f"off/on {model['settings']['norm']:g}")),
        "similarity": {t: _interval(means.get(f"{metric} {t}")) for t in sweeps.targets(record)},
    }


def _interval(value: IntervalRecord | None) -> dict[str, float | None]:
    names = ("estimate", "low", "high")
    found: Mapping[str, Any] = value or dict.fromkeys(names)
    return {name: _number(found[name]) for name in names}


def _gradients(gallery: Gallery, models: Sequence[ModelRecord], target: str, metric: str) -> Record:
    keys = [f"{model['name']} {target}" for model in models]
    pairs = [(_column(gallery, f"gradient {k}"), _column(gallery, f"on gradient {k}")) for k in keys]
    numbers = [_column(gallery, f"{metric} {key}").tolist() for key in keys]
    layers = [_column(gallery, f"layers {key}").tolist() for key in keys]
    return _vectors(pairs) | {
        "similarity": [[_number(value) for value in values] for values in numbers],  # [strength][image]
        "layers": [[[_number(v) for v in row] for row in each] for each in layers],  # …, five terms
    }


def _vectors(pairs: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """Sprites of whole vectors and of both their parts, from pairs of a vector and its part on."""
    rows: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
    for vectors, on in pairs:
        scale = peaks(vectors)
        for kind, part in zip(KINDS, (vectors, on, vectors - on), strict=True):
            rows[kind].append(_small(signed_bytes(part, scale)))
    return {kind: sprite(pictures, signed=True) for kind, pictures in rows.items()}


def _small(pictures: Tensor) -> Tensor:
    """Pictures (n, c, h, w) averaged to at most `LARGEST` pixels a side, of the same type."""
    factor = LARGEST / max(pictures.shape[2:])
    if factor >= 1:
        return pictures
    size = [max(1, round(side * factor)) for side in pictures.shape[2:]]
    averaged = nn.functional.interpolate(pictures.float(), size=size, mode="area")
    return averaged.round().to(pictures.dtype) if pictures.dtype == torch.uint8 else averaged


def _number(value: float | None) -> float | None:
    """Four digits are more than the page shows; None where there is no number."""
    return round(value, 4) if value is not None and math.isfinite(value) else None


def _column(gallery: Gallery, name: str) -> Tensor:
    if name not in gallery:
        raise PagsError(
            f"a gallery that holds {name!r}",
            got="none",
            suggestion="pags reproduce with the same settings again",
        )
    return gallery[name]
