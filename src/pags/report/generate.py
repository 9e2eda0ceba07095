"""The panels and numbers of `pags generate`, drawn from its record and its kept images alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from pags.report.style import BLUE, GREY, ORANGE, new_figure, styled, write_figure
from pags.store import Record, Store

TITLES = {
    "synthesis-from-noise": "Synthesis from noise",
    "synthesis-from-class": "Synthesis from the class's Gaussian",
    "denoising": "Denoising",
    "in-painting": "In-painting",
    "super-resolution": "Super-resolution",
}
DEGRADED = {"denoising": "noisy", "in-painting": "with a hole", "super-resolution": "enlarged"}
AXES = {
    "named": "share that another network\nnames as aimed at",
    "psnr": "PSNR in dB",
    "lpips": "LPIPS distance\n(lower is nearer)",
}


def draw_generate(record: Record, panels: Mapping[str, Tensor], store: Store) -> list[Path]:
    """Draw one panel of images a task, and one figure of all numbers, each as SVG and PNG.

    Args:
        record: what `run_generate` returned and wrote.
        panels: the tensors it wrote beside the record.
        store: where the figures go, as `figures/generate-NAME.svg` and `.png`.

    Returns:
        The files.

    Raises:
        PagsError: a file cannot be written.
    """
    files = write_figure(store, "generate-numbers", numbers(record))
    for task in record["settings"]["tasks"] if len(panels["originals"]) else ():
        files += write_figure(store, f"generate-{task}", panel(record, panels, task))
    return files


@styled
def panel(record: Record, panels: Mapping[str, Tensor], task: str) -> Figure:
    """Where a task starts, and where each model's gradient leads: a row a model, a column an image."""
    rows = _rows(record, panels, task)
    columns = len(panels["originals"])
    figure, axes = new_figure(len(rows), columns, width=0.78 * columns + 1.7, height=0.86 * len(rows) + 0.6)
    for line, (label, images) in zip(axes, rows, strict=True):
        for axis, image in zip(line, images, strict=True):
            _picture(axis, image)
        line[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    aims = panels["targets" if task.startswith("synthesis") else "labels"]
    names = record["data"]["classes"]
    for axis, aim in zip(axes[0], aims.tolist(), strict=True):
        axis.set_title(names[aim], fontsize=8)
    figure.suptitle(TITLES[task], fontsize=10)
    return figure


def _rows(record: Record, panels: Mapping[str, Tensor], task: str) -> list[tuple[str, Tensor]]:
    """A label with its numbers, and images, for each line of a panel."""
    synthesis = task.startswith("synthesis")
    rows = [] if synthesis else [("original", panels["originals"])]
    start = "start" if synthesis else DEGRADED[task]
    rows.append((f"{start}\n{_said(record['starts'], task)}", panels[f"start {task}"]))
    for model in record["models"]:
        label = f"{model['name']}\n{_said(model['means'], task)}"
        rows.append((label, panels[f"{model['name']} {task}"]))
    return rows


def _said(means: Record, task: str) -> str:
    """The decibels of a restoration; the named share of a synthesis."""
    if f"{task}: psnr" in means:
        return f"{means[f'{task}: psnr']['estimate']:.1f} dB"
    return f"named {means[f'{task}: named']['estimate']:.0%}"


@styled
def numbers(record: Record) -> Figure:
    """Every measure of every task: a dot with its interval a model, controls in grey, the start as a line."""
    tasks, models = record["settings"]["tasks"], record["models"]
    measures = [m for m in AXES if any(f"{task}: {m}" in record["starts"] for task in tasks)]
    size = {"width": 2.3 * len(tasks) + 1.2, "height": (0.22 * len(models) + 1.1) * len(measures)}
    figure, axes = new_figure(len(measures), len(tasks), **size, sharey=True)
    for line, measure in zip(axes, measures, strict=True):
        for axis, task in zip(line, tasks, strict=True):
            if f"{task}: {measure}" in record["starts"]:
                _dots(axis, record, f"{task}: {measure}")
                axis.set_xlabel(AXES[measure], fontsize=8)
            else:
                axis.set_visible(False)
    for axis, task in zip(axes[0], tasks, strict=True):
        axis.set_title(TITLES[task].replace(" the class's ", "\nthe class's "), fontsize=9)
    axes[0, 0].set_yticks(range(len(models)), [model["name"] for model in models])
    axes[0, 0].set_ylim(len(models) - 0.5, -0.5)
    for line in axes:  # the names beside the first axis that is there
        next(axis for axis in line if axis.get_visible()).tick_params(labelleft=True)
    figure.legend(handles=_handles(), loc="outside lower center", ncols=3)
    return figure


def _dots(axis: Any, record: Record, name: str) -> None:
    start = record["starts"][name]
    axis.axvline(start["estimate"], color=ORANGE, lw=1.2, ls="--")
    axis.axvspan(start["low"], start["high"], color=ORANGE, alpha=0.15, lw=0)
    for place, model in enumerate(record["models"]):
        found, colour = model["means"][name], GREY if model["control"] else BLUE
        axis.plot([found["low"], found["high"]], [place, place], color=colour, lw=1.5)
        axis.plot(found["estimate"], place, color=colour, marker="s" if model["control"] else "o", ms=4)
    axis.locator_params(axis="x", nbins=5)


def _handles() -> list[Any]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=BLUE, marker="o", ms=4, label="model, with its 95 % interval over images"),
        Line2D([], [], color=GREY, marker="s", ms=4, label="control"),
        Line2D([], [], color=ORANGE, ls="--", label="before following the gradient"),
    ]


def _picture(axis: Any, image: Tensor) -> None:
    pixels = image.permute(1, 2, 0).numpy()
    shown = pixels if pixels.shape[2] == 3 else pixels[..., 0]
    axis.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)
