"""The figures of audits, and of images made by following gradients: several models beside each other."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from pags.figures.kinds import FigureData, Line, Panel, Series, curves, grid
from pags.figures.phenomena import task_title
from pags.figures.sweeps import SIDES, metric_title, points, reference, target_title
from pags.records import IntervalRecord, ModelRecord, Record

ROW = 3
"""Panels of a row."""
LONGEST = 24
"""Letters of a model's name."""
TASK_AXES = {
    "named": "Share recognised as the target", "psnr": "PSNR in dB",
    "lpips": "LPIPS distance (lower is closer)",
}  # fmt: skip


def robustness(models: Sequence[ModelRecord]) -> FigureData | None:
    """Change of the output over the norm of the perturbation, a panel per model; None without a manifold."""
    measured = [(model, f"on {model['settings']['norm']:g}" in model["means"]) for model in models]
    panels = [_robustness(m, label) for (m, has), label in zip(measured, labels(models), strict=True) if has]
    caption = (
        "How much the output changes under perturbations of one l2 norm: random directions split at the "
        "tangent space, both halves scaled to the norm. Bands are 95 % intervals."
    )
    return curves(caption, _in_rows(panels), title="Robustness on and off the manifold") if panels else None


def labels(models: Sequence[ModelRecord]) -> list[str]:
    """The models without path and options, for which figures and pages have no room; numbered where equal."""
    short = [model["name"].partition("?")[0].rpartition("/")[2][-LONGEST:] for model in models]
    return [s if short.count(s) == 1 else f"{s} ({n})" for n, s in enumerate(short, 1)]


def _robustness(model: ModelRecord, label: str) -> Panel:
    ticks = [f"{norm:g}" for norm in model["settings"]["norms"]]
    series = [
        Series(side, part, [model["means"].get(f"{part} {norm}") for norm in ticks])
        for part, side in SIDES.items()
    ]
    y = f"output change ({model['settings'].get('change', 'softmax-l2')})"
    return Panel(label, "l2 norm of the perturbation", ticks, y, series, zero=True)


def similarity(models: Sequence[ModelRecord]) -> FigureData | None:
    """Similarity of the first target's gradients with the score, a panel per metric, a line per model."""
    target = models[0]["settings"]["targets"][0]
    title = f"Similarity of the gradients of the {target_title(target)} and the score"
    rows = {label: (model, target) for label, model in zip(labels(models), models, strict=True)}
    return _dotted(rows, title)


READ = (
    "Read a diamond against its reference values: the floor (noise), another image's score, the untrained "
    "network, and the ceiling (a second estimate of the score). Bars are 95 % intervals."
)


def targets(model: ModelRecord) -> FigureData | None:
    """The same for every target of one model."""
    pairs = {target_title(target): (model, target) for target in model["settings"]["targets"]}
    return _dotted(pairs, "Similarity with the score for every target")


def _dotted(rows: Mapping[str, tuple[ModelRecord, str]], title: str) -> FigureData | None:
    """A panel per metric; None where nothing was compared with a score."""
    known = {name: pair for name, pair in rows.items() if pair[0]["settings"].get("compared with")}
    if not known:
        return None
    metrics = next(iter(known.values()))[0]["settings"]["metrics"]
    panels = [_dots(metric, list(known), list(known.values())) for metric in metrics]
    return curves(READ, _in_rows(panels), title=title)


def _dots(metric: str, names: Sequence[str], pairs: Sequence[tuple[ModelRecord, str]]) -> Panel:
    columns = {
        "gradient": ("similarity", ""), "SmoothGrad": ("third", "smooth "),
        "another image's score": ("shuffled", "shuffled "), "untrained network": ("control", "control "),
    }  # fmt: skip
    series = [
        Series(label, style, [_mean(model, prefix, f"{metric} {target}") for model, target in pairs])
        for label, (style, prefix) in columns.items()
    ]
    series += [
        Series(name, name, [reference(model, name, metric, target) for model, target in pairs])
        for name in ("floor", "ceiling")
    ]
    known = [one for one in series if any(one.points)]
    title = metric_title(metric)
    return Panel(title, "", names, f"{title} with the score", known, sideways=True)


def _mean(model: ModelRecord, prefix: str, column: str) -> IntervalRecord | None:
    """A mean by its prefix; SmoothGrad's column also names its noise."""
    known = [n for n in model["means"] if n.startswith(prefix) and n.endswith(f" {column}")]
    plain = known[0] if prefix == "smooth " and known else f"{prefix}{column}"
    return model["means"].get(plain)


def gallery(panels: Mapping[str, Tensor], model: ModelRecord) -> FigureData | None:
    """Best aligned images on the left, worst on the right: image, gradient, score and SmoothGrad."""
    if "gradient" not in panels or not len(panels["gradient"]):
        return None
    settings = model["settings"]
    titles = {"image": "image", "gradient": "gradient", "score": "score", "smooth": "SmoothGrad"}
    numbers = panels["value"].tolist() if "value" in panels else None
    lines = [
        Line(title, panels[name], signed=name != "image", numbers=numbers if name == "gradient" else None)
        for name, title in titles.items()
        if name in panels
    ]
    caption = (
        "The most (left) and the least (right) aligned images; gradients of the "
        f"{target_title(settings['targets'][0])}, with their {metric_title(settings['metrics'][0])}."
    )
    return grid(caption, lines, title="Best and worst aligned images")


def generated(record: Record) -> list[FigureData]:
    """Every measure of every task: a dot with its interval per model, the start as a band."""
    models, starts = record["models"], record["starts"]
    ticks = [model["name"] for model in models]
    found = []
    for measure, axis in TASK_AXES.items():
        tasks = [task for task in record["settings"]["tasks"] if f"{task}: {measure}" in starts]
        panels = [
            Panel(
                task_title(task), "", ticks, axis,
                [
                    Series(label, style, [
                        point if bool(model["control"]) == control else None
                        for model, point in zip(models, points(models, f"{task}: {measure}"), strict=True)
                    ])
                    for label, style, control in (("model", "first", False), ("control", "sixth", True))
                ],
                references={"before following the gradient": starts[f"{task}: {measure}"]}, sideways=True,
            )
            for task in tasks
        ]  # fmt: skip
        if panels:
            caption = "Dots with 95 % intervals over images; the same images and seeds for all models."
            found.append(curves(caption, _in_rows(panels), title=axis))
    return found


def _in_rows(panels: Sequence[Panel]) -> list[list[Panel]]:
    return [list(panels[start : start + ROW]) for start in range(0, len(panels), ROW)]
