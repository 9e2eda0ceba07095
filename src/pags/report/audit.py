"""The page of an audit, drawn from `audit.json` and `audit.safetensors` alone."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from torch import Tensor

from pags.report.audit_figures import alignment_bars, equal_norm_curves, gallery_grid
from pags.report.style import render, write_figure
from pags.store import Record, Store

METRIC_NAMES = {
    "lpips": "1 − LPIPS", "cosine": "cosine", "ssim": "SSIM", "rank": "rank correlation",
}  # fmt: skip


def write_audit_report(store: Store, record: Record, tensors: Mapping[str, Tensor]) -> list[Path]:
    """Draw the figures of an audit and write its page.

    Args:
        store: where `figures/` and `report.html` go.
        record: what `run_audit` returned, or read back from `audit.json`.
        tensors: what `audit.safetensors` holds.

    Returns:
        The files written, the page last.
    """
    figures: dict[str, Figure] = {}
    for place, model in enumerate(record["models"]):
        if f"on {model['settings']['norm']:g}" in model["means"]:
            figures[f"audit-{place}-robustness"] = equal_norm_curves(model)
        if model["settings"]["compared with"]:
            figures[f"audit-{place}-alignment"] = alignment_bars(model, METRIC_NAMES)
        panels = _panels(tensors, place)
        if "gradient" in panels and len(panels["gradient"]):
            figures[f"audit-{place}-gallery"] = gallery_grid(panels, record["data"], model)
    vectors = {name: render(figure, "svg") for name, figure in figures.items()}
    written = [store.write_bytes(f"figures/{name}.svg", drawing) for name, drawing in vectors.items()]
    for name, figure in figures.items():
        written += write_figure(store, name, figure, ["png"])
    drawn = {name: Markup(_inline(drawing.decode())) for name, drawing in vectors.items()}
    html = _page(record, drawn)
    return [*written, store.write_bytes("report.html", html.encode())]


def verdict(model: Record) -> str:
    """One sentence on a model, for the first target: are its gradients aligned, and its regime.

    "Aligned" by a metric means that the similarity with the score of the own image is above that with another
    image's, with the whole interval of the paired difference.
    """
    return f"{_alignment(model)}; {_robustness(model)}."


def rows(model: Record, *, targets: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The lines of the table: what, estimate, interval, and the lines that it is read against.

    Args:
        model: of `audit.json`.
        targets: of the gradients that are shown; None: all.
    """
    chosen = model["settings"]["targets"] if targets is None else targets
    means, ratios, settings = model["means"], model["ratios"], model["settings"]
    found = [_row("accuracy", means["correct"]), _row("confidence in the class named", means["confidence"])]
    for radius in settings["radii"]:
        found.append(_row(f"accuracy under l2-PGD of radius {radius:g}", means[f"robust {radius:g}"]))
    for name, value in ratios.items():
        lines = (
            {"no difference": 1.0}
            if name.startswith("off/on")
            else {"chance": _estimate(means, "chance rho2")}
        )
        title = "ρ1 (Definition 1)" if name == "rho1" else name.replace("off/on", "change off / on, norm")
        found.append(_row(title, value, lines))
    for target in chosen:
        lines = {
            "chance": _estimate(means, "chance rho2"),
            "untrained": _estimate(means, f"control rho2 {target}"),
            "the score's own": _estimate(means, f"rho2 score {settings['compared with'].get(target, '')}"),
        }
        found.append(_row(f"ρ2 of {target}", means.get(f"rho2 {target}"), lines))
    for metric in settings["metrics"]:
        found += [_alignment_row(model, metric, target, "") for target in chosen]
        found += [
            _alignment_row(model, metric, t, "smooth ") for t in settings["smooth_targets"] if t in chosen
        ]
    return [row for row in found if row["value"] is not None]


def _alignment_row(model: Record, metric: str, target: str, prefix: str) -> dict[str, Any]:
    means, kind = model["means"], model["settings"]["compared with"].get(target, "")
    lines = {
        "floor": _estimate(means, f"floor {metric} {kind}"),
        "shuffled": _estimate(means, f"shuffled {prefix}{metric} {target}"),
        "ceiling": _estimate(means, f"ceiling {metric} {kind}"),
        "untrained": None if prefix else _estimate(means, f"control {metric} {target}"),
    }
    title = (
        f"{METRIC_NAMES.get(metric, metric)}, {'SmoothGrad of ' if prefix else ''}{target} ∼ score of {kind}"
    )
    return _row(title, means.get(f"{prefix}{metric} {target}"), lines)


def _row(title: str, value: Record | None, lines: Mapping[str, float | None] | None = None) -> dict[str, Any]:
    known = {name: line for name, line in (lines or {}).items() if line is not None}
    return {"title": title, "value": value, "lines": known}


def _estimate(means: Record, name: str) -> float | None:
    return None if means.get(name) is None else float(means[name]["estimate"])


def _alignment(model: Record) -> str:
    settings, target = model["settings"], model["settings"]["targets"][0]
    known = [metric for metric in settings["metrics"] if model["above shuffled"].get(f"{metric} {target}")]
    if not known:
        return "Alignment was not measured"
    aligned = [m for m in known if model["above shuffled"][f"{m} {target}"]["low"] > 0]
    numbers = _against(model, known[0], target)
    if not aligned:
        return f"The gradients are no more like the score of their own image than like others' ({numbers})"
    by = " and ".join(METRIC_NAMES.get(metric, metric) for metric in aligned)
    share = f"by {len(aligned)} of {len(known)} metrics" if len(known) > 1 else "by the one metric"
    said = "The gradients are more like the score of their own image than like others'"
    return f"{said} {share} ({by}; {numbers})"


def _against(model: Record, metric: str, target: str) -> str:
    means, kind = model["means"], model["settings"]["compared with"][target]
    lines = {
        "shuffled": _estimate(means, f"shuffled {metric} {target}"),
        "floor": _estimate(means, f"floor {metric} {kind}"),
        "ceiling": _estimate(means, f"ceiling {metric} {kind}"),
    }
    known = ", ".join(f"{name} {value:.3f}" for name, value in lines.items() if value is not None)
    return f"{METRIC_NAMES.get(metric, metric)} is {means[f'{metric} {target}']['estimate']:.3f}: {known}"


def _robustness(model: Record) -> str:
    regime = model["regime"]
    ratio = model["ratios"].get(f"off/on {model['settings']['norm']:g}")
    if regime["name"] is None or ratio is None:
        return f"its regime is unknown ({regime['rule']})"
    more = "less" if ratio["high"] < 1 else "more" if ratio["low"] > 1 else "about as much"
    numbers = f"{ratio['estimate']:.2f} times, 95 % interval {ratio['low']:.2f} to {ratio['high']:.2f}"
    return f"the output changes {more} off the manifold than on it ({numbers}): {regime['name']}".replace(
        "about as much off the manifold than on it", "about as much off the manifold as on it"
    )


def _panels(tensors: Mapping[str, Tensor], place: int) -> dict[str, Tensor]:
    prefix = f"{place}/panel/"
    return {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}


def _page(record: Record, drawn: Mapping[str, Markup]) -> str:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((files("pags.report") / "templates" / "audit.html").read_text())
    models = [
        {"record": model, "verdict": verdict(model), "rows": rows(model), "caveats": caveats(record, model)}
        for model in record["models"]
    ]
    return template.render(record=record, models=models, figures=drawn, pairs=_pairs(record))


def caveats(record: Record, model: Record) -> list[str]:
    """What is to be kept in mind when the numbers are read."""
    estimates, settings = record["estimates"], model["settings"]
    found = [*estimates["notes"], *(f"left out: {line}" for line in settings["missing"])]
    if list(settings["shape"][1:]) != list(settings["size"]):
        size = "×".join(str(side) for side in settings["size"])
        kept = model["means"].get(f"kept {settings['targets'][0]}")
        share = "" if kept is None else f" ({kept['estimate']:.0%} of its energy is left)"
        found.append(
            f"score and tangent spaces are at {size} px: gradients were reduced to that size{share}, and "
            "perturbations made there and enlarged; finer detail is not seen"
        )
    if "sum-of-logits" in settings["targets"]:
        found.append(
            "cross-entropy never moves the sum of the last layer's rows: the gradient of the sum of logits "
            "is that of a leftover of the initialisation; compare it with the untrained network"
        )
    if model["regime"]["name"] is not None:
        found.append(f"the regime is told {model['regime']['rule']}")
    return found


def _pairs(record: Record) -> Sequence[Record]:
    """The differences that are told apart from zero first, then by their size."""
    chosen = []
    for pair in record["pairs"]:
        known = {name: value for name, value in pair["differences"].items() if value and _headline(name)}
        chosen.append(pair | {"differences": known})
    return chosen


def _headline(name: str) -> bool:
    return not name.startswith(
        ("shuffled", "floor", "ceiling", "control", "chance", "any", "dimension", "rho2 score")
    )


def _inline(svg: str) -> str:
    """The SVG element without the XML prologue."""
    return svg[svg.index("<svg") :]
