"""Phenomenon 2 as pictures: class synthesis from noise by models of rising strength."""

from pags.experiments.figures.kinds import FigureData, Line, grid
from pags.experiments.figures.sources import Sources

TITLE, PLACE, NEEDS = "Images made by following the gradient", "1, Phenomenon 2", ("sweep", "generation")


def data(sources: Sources) -> FigureData:
    """The starts, then one line a model."""
    record, panels = sources.generation, sources.generation_panels
    task = next(t for t in record["settings"]["tasks"] if t.startswith("synthesis"))
    classes = [record["data"]["classes"][int(target)] for target in panels["targets"]]
    lines = [Line("start", panels[f"start {task}"])]
    lines += [Line(model["name"], panels[f"{model['name']} {task}"]) for model in record["models"]]
    return grid(TITLE, f"{task}; the classes aimed at are {', '.join(classes)}.", lines)
