"""The figures of an audit's page."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from pags.report.style import BLUE, GREEN, GREY, ORANGE, RED, new_figure, styled
from pags.store import Record


@styled
def equal_norm_curves(model: Record) -> Figure:
    """Change of the output over the norm of the perturbation, on and off the manifold and undivided."""
    figure, axes = new_figure(1, 1, width=5.2, height=3.4)
    axis, norms = axes[0, 0], model["settings"]["norms"]
    for part, colour, marker, style, label in (
        ("on", GREEN, "o", "-", "on the manifold"),
        ("off", RED, "s", "-", "off the manifold"),
        ("any", GREY, ".", "--", "undivided (chance)"),
    ):
        found = [model["means"][f"{part} {norm:g}"] for norm in norms]
        axis.plot(
            norms, [i["estimate"] for i in found], color=colour, marker=marker, ls=style, ms=4, label=label
        )
        axis.fill_between(
            norms, [i["low"] for i in found], [i["high"] for i in found], color=colour, alpha=0.18, lw=0
        )
    axis.set_xscale("log")
    axis.set_xticks(norms, [f"{norm:g}" for norm in norms])
    axis.minorticks_off()
    axis.set_ylim(bottom=0)
    axis.set_xlabel("l2 norm of the perturbation")
    axis.set_ylabel("change of the softmax (l2)")
    axis.legend()
    return figure


LINES = (("floor", GREY, ":"), ("ceiling", "black", "--"))


@styled
def alignment_bars(model: Record, names: Mapping[str, str]) -> Figure:
    """Similarity with the score for each target and metric, between its lines."""
    settings = model["settings"]
    metrics, targets = settings["metrics"], settings["targets"]
    figure, axes = new_figure(
        1, len(metrics), width=1.6 + 2.1 * len(metrics), height=1.3 + 0.36 * len(targets), sharey=True
    )
    for axis, metric in zip(axes[0], metrics, strict=True):
        _one_metric(axis, model, metric)
        axis.set_title(names.get(metric, metric))
    axes[0, 0].set_yticks(range(len(targets)), targets)
    axes[0, 0].invert_yaxis()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=3)
    return figure


def _one_metric(axis: Any, model: Record, metric: str) -> None:
    settings, means = model["settings"], model["means"]
    for place, target in enumerate(settings["targets"]):
        kind = settings["compared with"][target]
        _point(axis, means.get(f"{metric} {target}"), place - 0.12, ORANGE, "D", "gradient ∼ score")
        _point(axis, means.get(f"smooth {metric} {target}"), place + 0.02, BLUE, "^", "SmoothGrad ∼ score")
        _point(
            axis, means.get(f"shuffled {metric} {target}"), place + 0.16, GREY, "o", "another image's score"
        )
        _point(axis, means.get(f"control {metric} {target}"), place + 0.3, RED, "x", "untrained network")
        for name, colour, style in LINES:
            line = means.get(f"{name} {metric} {kind}")
            if line is not None:
                axis.vlines(
                    line["estimate"], place - 0.35, place + 0.45, color=colour, ls=style, lw=1.2,
                    label=f"{name} ({'noise' if name == 'floor' else 'second estimate of the score'})",
                )  # fmt: skip
    axis.margins(x=0.08)


def _point(axis: Any, value: Record | None, height: float, colour: str, marker: str, label: str) -> None:
    if value is None:
        return
    sides = [[value["estimate"] - value["low"]], [value["high"] - value["estimate"]]]
    axis.errorbar(value["estimate"], height, xerr=sides, color=colour, marker=marker, ms=4.5, lw=1.1, ls="",
                  label=label)  # fmt: skip


@styled
def gallery_grid(panels: Mapping[str, Tensor], data: Record, model: Record) -> Figure:
    """Best aligned images on the left, worst on the right: image, gradient, score and SmoothGrad."""
    rows = [name for name in ("image", "gradient", "score", "smooth") if name in panels]
    titles = {"image": "image", "gradient": "gradient", "score": "score", "smooth": "SmoothGrad"}
    count = len(panels["image"])
    figure, axes = new_figure(len(rows), count, width=0.9 + 1.05 * count, height=0.5 + 1.1 * len(rows))
    for column in range(count):
        for row, name in enumerate(rows):
            low = 0.0 if name == "image" else None
            _picture(axes[row, column], panels[name][column], low)
        side = "best" if column < count // 2 else "worst"
        axes[0, column].set_title(f"{side}\n{float(panels['value'][column]):.2f}", fontsize=8)
    for row, name in enumerate(rows):
        axes[row, 0].set_ylabel(titles[name], fontsize=8)
    return figure


def _picture(axis: Any, values: Tensor, low: float | None) -> None:
    """An image as it is, or a vector scaled by its largest entry; mid-grey is zero."""
    peak = float(values.abs().max()) or 1.0
    pixels = values if low is not None else (values / peak + 1) / 2
    shown = pixels.clamp(0, 1).permute(1, 2, 0).float().numpy()
    shown = shown if shown.shape[2] == 3 else shown[..., 0]
    axis.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
