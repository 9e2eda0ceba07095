"""Figure 5: robustness to noise on the signal relative to noise on the distractor."""

from pags.experiments.figures.kinds import FigureData, Panel, Series, curves
from pags.experiments.figures.sources import Sources
from pags.store import Record

TITLE, PLACE, NEEDS = "Robust models are relatively robust to noise on a distractor", "4.3", ("distractor",)
KINDS = (("standard", "first"), ("robust", "second"))


def data(sources: Sources) -> FigureData:
    """The ratio over noise levels for the paper's distractor, and gradient energy for all distractors."""
    record = sources.distractor
    levels = [level for level in record["settings"]["levels"] if level > 0]
    ticks = [f"{level:.2g}" if place % 4 == 0 else "" for place, level in enumerate(levels)]
    first = record["variants"][0]
    ratios = Panel(
        f"{record['settings']['data']} beside {first['name']}", "standard deviation of the noise", ticks,
        "change under noise on signal / on distractor",
        [Series(kind, style, first[kind]["ratios"]) for kind, style in KINDS],
        references={"no difference": 1.0}, zero=True,
    )  # fmt: skip
    caption = (
        "Left: relative noise robustness, the ratio of the output's changes under noise on the signal and "
        "on the distractor; above 1 the model is more robust on the distractor. Right, beyond the paper: "
        "the share of the gradient's energy on the signal, for other distractors and for ones that tell "
        "about the label."
    )
    return curves(TITLE, caption, [[ratios, _energy(record)]])


def _energy(record: Record) -> Panel:
    variants = record["variants"]
    series = [
        Series(kind, style, [variant[kind]["means"]["energy on signal"] for variant in variants])
        for kind, style in KINDS
    ]
    chance = variants[0]["standard"]["means"]["pixels on signal"]["estimate"]
    names = [variant["name"].replace(", informative ", "\n") for variant in variants]
    return Panel(
        "gradient energy on the signal", "distractor, and how informative it is", names, "share of energy",
        series, references={"share of pixels": chance}, zero=True,
    )  # fmt: skip
