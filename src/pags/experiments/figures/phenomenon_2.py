"""Phenomenon 2 as a figure: what following the gradient makes, along the strengths of l2-PGD."""

from collections.abc import Sequence

from pags.experiments.figures.kinds import FigureData, Panel, Series, curves
from pags.experiments.figures.sources import Sources
from pags.experiments.problems import TASKS
from pags.store import Record

TITLE, PLACE, NEEDS = "What following the gradient makes", "1, Phenomenon 2", ("sweep", "generation")


def data(sources: Sources) -> FigureData:
    """Shares of syntheses that another network names as the target; gains of restorations in dB."""
    record = sources.generation
    tasks = [task for task in TASKS if task in record["settings"]["tasks"]]
    made = [task for task in tasks if task.startswith("synthesis")]
    restored = [task for task in tasks if not task.startswith("synthesis")]
    ticks = [model["name"].replace(" ", "\n", 1) for model in record["models"]]
    chance = {"chance": 1 / len(record["data"]["classes"])}
    synthesis = Panel(
        "class synthesis", "model", ticks, "share named as the target",
        _series(record, made, "means", "named"),
        references=chance, zero=True,
    )  # fmt: skip
    restoration = Panel(
        "restoration", "model", ticks, "gain in PSNR over the start, dB",
        _series(record, restored, "gain", "psnr"), references={"the start": 0.0},
    )  # fmt: skip
    caption = (
        "Left: share of images, made by following the gradient of each model, that an independent network "
        "names as the class aimed at. Right: how much nearer to the original a degraded image comes. "
        "Controls stand at the left."
    )
    return curves(TITLE, caption, [[synthesis, restoration]])


def _series(record: Record, tasks: Sequence[str], what: str, column: str) -> list[Series]:
    styles = ("first", "second", "third", "fourth")
    return [
        Series(task, style, [model[what][f"{task}: {column}"] for model in record["models"]])
        for task, style in zip(tasks, styles, strict=False)
    ]
