"""The figures of signal and distractor, and of images made by following gradients."""

from collections.abc import Sequence
from typing import Any

from pags.data.worlds import distractor_world
from pags.figures.kinds import NUMBERED, FigureData, Line, Panel, Parts, Series, curves, grid
from pags.records import Record
from pags.seeds import generator

NETWORKS = (("standard", "first"), ("robust", "second"))


def signal_and_distractor(parts: Parts) -> FigureData:
    """Figure 2, as an illustration from an exact world: signal, distractor and their mask (section 3.2)."""
    seed = parts.settings.seed
    world = distractor_world((1, 16, 16), k=6, distractor_k=6, seed=seed)
    images, labels = world.sample(6, generator(seed, "figure 2"))
    mask = world.mask.to(images)
    grey = images - 0.5
    lines = [
        Line("image x", grey, signed=True),
        Line("mask m(x)", mask.expand_as(images)),
        Line("signal x ⊙ m", grey * mask, signed=True),
        Line("distractor x ⊙ (1 − m)", grey * (1 - mask), signed=True),
        Line("Bayes gradient", world.bayes_gradient(images, labels), signed=True),
    ]
    caption = (
        "Samples of an exact world whose upper half depends on the label and whose lower half does not: the "
        "gradient of the Bayes classifier's log-probability is zero on the distractor (Theorem 2)."
    )
    return grid(caption, lines)


def noise_robustness(parts: Parts) -> FigureData:
    """Figure 5: the ratio over noise levels for the paper's distractor, and gradient energy for all."""
    record = parts.distractor
    levels = [level for level in record["settings"]["levels"] if level > 0]
    first = record["variants"][0]
    ratios = Panel(
        f"{record['settings']['data']} beside {first['name']}", "standard deviation of the noise",
        [f"{level:.2g}" if place % 4 == 0 else "" for place, level in enumerate(levels)],
        "change under noise on signal / on distractor",
        [Series(f"{kind} network", style, first[kind]["ratios"]) for kind, style in NETWORKS],
        references={"no difference": 1.0}, zero=True,
    )  # fmt: skip
    caption = (
        "Left: relative noise robustness, the ratio of the output's changes under noise on the signal and "
        "on the distractor; above 1 the network is more robust on the distractor. Right, beyond the paper: "
        "the share of the gradient's energy on the signal, also for other and for informative distractors."
    )
    return curves(caption, [[ratios, _energy(record)]])


def _energy(record: Record) -> Panel:
    variants = record["variants"]
    series = [
        Series(f"{kind} network", style, [v[kind]["means"]["energy on signal"] for v in variants])
        for kind, style in NETWORKS
    ]
    chance = variants[0]["standard"]["means"]["pixels on signal"]["estimate"]
    names = [variant["name"].replace(", informative ", "\n") for variant in variants]
    return Panel(
        "gradient energy on the signal", "distractor, and how informative it is", names, "share of energy",
        series, references={"share of pixels": chance}, zero=True,
    )  # fmt: skip


def digits_with_distractor(parts: Parts) -> FigureData:
    """Figure 16: the paper's five rows, for its distractor."""
    gallery, name = parts.distractor_gallery, parts.distractor["variants"][0]["name"]
    lines = [
        Line("images", gallery["images 0"]),
        Line("noise on the signal", gallery["noise on signal 0"]),
        Line("noise on the distractor", gallery["noise on distractor 0"]),
        Line("gradients, standard", gallery["gradient standard 0"], signed=True),
        Line("gradients, robust", gallery["gradient robust 0"], signed=True),
    ]
    caption = f"Digits beside {name}; noise of standard deviation 0.5; gradients of the predicted logit."
    return grid(caption, lines)


def made_by_gradients(parts: Parts) -> FigureData:
    """Phenomenon 2: shares of syntheses recognised as the target class; gains of restorations in dB."""
    record = parts.generation
    made = [task for task in record["settings"]["tasks"] if task.startswith("synthesis")]
    restored = [task for task in record["settings"]["tasks"] if task not in made]
    ticks = [model["name"].replace(" ", "\n", 1) for model in record["models"]]
    panels = []
    if made:
        panels.append(Panel(
            "class synthesis", "model", ticks, "share recognised as the target class",
            _made(record, made, "means", "named"),
            references={"chance": 1 / len(record["data"]["classes"])}, zero=True,
        ))  # fmt: skip
    if restored:
        panels.append(Panel(
            "restoration", "model", ticks, "gain in PSNR over the start, dB",
            _made(record, restored, "gain", "psnr"), references={"the start": 0.0},
        ))  # fmt: skip
    caption = (
        "Class synthesis: share of images, made by following the gradient of each model, that are recognised "
        "as the target class by an independent classifier. Restoration: how much closer to the original a "
        "degraded image comes. Controls stand at the left."
    )
    return curves(caption, [panels])


def _made(record: Record, tasks: Sequence[str], what: str, column: str) -> list[Series]:
    return [
        Series(task.replace("-", " "), style, [m[what][f"{task}: {column}"] for m in record["models"]])
        for task, style in zip(tasks, NUMBERED, strict=False)
    ]


def synthesised(parts: Parts) -> FigureData:
    """Phenomenon 2 as pictures: the starts of class synthesis, then a line per model."""
    tasks = parts.generation["settings"]["tasks"]
    task = next((task for task in tasks if task.startswith("synthesis")), tasks[0])
    return task_pictures(parts.generation, parts.generation_panels, task)


def task_title(task: str) -> str:
    """A task of generation for people."""
    return (task.replace("-", " ") if task.startswith("synthesis") else task).capitalize()


def task_pictures(record: Record, panels: Any, task: str) -> FigureData:
    """Where a task starts, and where each model's gradient leads: a row per model, a column per image."""
    synthesis = task.startswith("synthesis")
    lines = [] if synthesis else [Line("original", panels["originals"])]
    lines.append(Line(f"start\n{_result(record['starts'], task)}", panels[f"start {task}"]))
    lines += [
        Line(f"{model['name']}\n{_result(model['means'], task)}", panels[f"{model['name']} {task}"])
        for model in record["models"]
    ]
    aims = panels["targets" if synthesis else "labels"].tolist()
    classes = ", ".join(record["data"]["classes"][int(aim)] for aim in aims)
    caption = f"{task_title(task)}; the target classes are {classes}."
    return grid(caption, lines)


def _result(means: Record, task: str) -> str:
    """The decibels of a restoration; the recognised share of a synthesis."""
    restored = means.get(f"{task}: psnr")
    if restored is not None:
        return f"{restored['estimate']:.1f} dB"
    found = means.get(f"{task}: named")
    return "" if found is None else f"recognised {found['estimate']:.0%}"
