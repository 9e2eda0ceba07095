"""The figures of a sweep, drawn from its records alone: the paper's Figures 3 and 6."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from pags.report.figures import number as _number
from pags.report.style import BLUE, GREEN, GREY, ORANGE, RED, new_figure, styled
from pags.store import Record

TITLES = {
    "pgd": "Adversarial training (l2-PGD)",
    "smoothing": "Randomised smoothing",
    "gradient-norm": "Gradient-norm regularisation",
    "smoothness": "Smoothness penalty",
}
SYMBOLS = {"pgd": "ε", "smoothing": "σ", "gradient-norm": "λ", "smoothness": "λ"}


def entry(record: Record, objective: str, strength: float) -> Record:
    """The record of one model; strength 0 is the same model for every objective."""
    for model in record["models"]:
        same = model["objective"] == objective or (strength == 0 and model["objective"] != "untrained")
        if same and model["strength"] == strength:
            return model
    raise KeyError((objective, strength))


@styled
def robustness_and_alignment(record: Record) -> Figure:
    """Figure 3: change of the output on and off the manifold above, accuracy and alignment below."""
    sweeps = record["settings"]["sweeps"]
    figure, axes = new_figure(2, len(sweeps), width=3.4 * len(sweeps) + 0.6, height=6.4, sharey="row")
    for column, sweep in enumerate(sweeps):
        models = [entry(record, sweep["objective"], strength) for strength in sweep["strengths"]]
        top, bottom = axes[0, column], axes[1, column]
        _robustness(top, models, record["settings"]["norm"])
        _alignment(bottom, models, record["lines"])
        _accuracy(bottom, models, labelled=column == len(sweeps) - 1)
        top.set_title(TITLES[sweep["objective"]])
        for axis in (top, bottom):
            _strength_ticks(axis, sweep)
    axes[0, 0].set_ylabel(f"change of the softmax (l2)\nat perturbation norm {record['settings']['norm']:g}")
    axes[0, 0].set_ylim(bottom=0)
    axes[1, 0].set_ylabel("1 − LPIPS with the score")
    handles = axes[0, 0].get_legend_handles_labels()[0] + axes[1, 0].get_legend_handles_labels()[0]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _robustness(axis: Any, models: Sequence[Record], norm: float) -> None:
    for part, colour, marker, label in (
        ("on", GREEN, "o", "on the manifold"),
        ("off", RED, "s", "off the manifold"),
        ("any", GREY, ".", "undivided (chance)"),
    ):
        _line(axis, [m["means"][f"{part} {norm:g}"] for m in models], colour, marker, label)


def _alignment(axis: Any, models: Sequence[Record], lines: Mapping[str, Record]) -> None:
    for target, colour, marker, label in (
        ("logit", ORANGE, "D", "logit ∼ score of its class"),
        ("sum-of-logits", GREY, "x", "sum of logits ∼ score"),
    ):
        _line(axis, [m["means"][f"similarity {target}"] for m in models], colour, marker, label)
    shuffled = [m["means"]["shuffled logit"] for m in models]
    _line(axis, shuffled, ORANGE, "", "logit, shuffled pairs", style=":")
    for name, style in (("ceiling conditional", "--"), ("floor conditional", "-.")):
        label = name.split()[0] + (" (ideal denoiser)" if "ceiling" in name else " (noise)")
        axis.axhline(lines[name]["estimate"], color="black", lw=0.8, ls=style, label=label)


def _accuracy(axis: Any, models: Sequence[Record], *, labelled: bool) -> None:
    """Accuracy on a scale of its own, at the right."""
    other = axis.twinx()
    _line(other, [m["means"]["correct"] for m in models], BLUE, "^", "accuracy")
    other.set_ylim(0, 1.02)
    other.spines["right"].set(visible=True, color=BLUE)
    other.tick_params(axis="y", colors=BLUE, labelright=labelled)
    if labelled:
        other.set_ylabel("accuracy", color=BLUE)
    axis.plot([], [], color=BLUE, marker="^", ms=4, lw=1.5, label="accuracy (right)")


def _line(
    axis: Any, intervals: Sequence[Record], colour: str, marker: str, label: str, *, style: str = "-"
) -> None:
    """Estimates as a line, their intervals as a band, at equally spaced strengths."""
    places = range(len(intervals))
    axis.plot(
        places,
        [_number(i["estimate"]) for i in intervals],
        color=colour,
        marker=marker,
        ms=4,
        lw=1.5,
        ls=style,
        label=label,
    )
    low, high = ([_number(i[name]) for i in intervals] for name in ("low", "high"))
    axis.fill_between(places, low, high, color=colour, alpha=0.18, lw=0)


def _strength_ticks(axis: Any, sweep: Record) -> None:
    strengths = sweep["strengths"]
    axis.set_xticks(range(len(strengths)), [f"{strength:g}" for strength in strengths])
    axis.set_xlabel(f"strength {SYMBOLS[sweep['objective']]}")


@styled
def gradient_grid(
    record: Record, gallery: Mapping[str, Tensor], objective: str, target: str = "logit"
) -> Figure:
    """Figure 6: image, score, and gradients from the untrained control through weak to excessive strengths.

    The number above a gradient is its 1 − LPIPS with the score.
    """
    sweep = next(s for s in record["settings"]["sweeps"] if s["objective"] == objective)
    kind = "conditional" if target == "logit" else "unconditional"
    keys = [("untrained", 0.0)] + [(_stored(record, objective, s), s) for s in sweep["strengths"]]
    rows = len(gallery["images"])
    figure, axes = new_figure(rows, len(keys) + 2, width=1.15 * (len(keys) + 2), height=1.32 * rows + 0.5)
    for row in range(rows):
        _picture(axes[row, 0], gallery["images"][row], 0, 1)
        _signed(axes[row, 1], gallery[f"score {kind}"][row])
        for place, (name, strength) in enumerate(keys):
            stem = f"{name} {strength:g} {target}"
            _signed(axes[row, place + 2], gallery[f"gradient {stem}"][row])
            axes[row, place + 2].set_xlabel(
                f"{float(gallery[f'similarity {stem}'][row]):.2f}", fontsize=7, labelpad=1
            )
    axes[0, 0].set_title("image", fontsize=8)
    axes[0, 1].set_title("score", fontsize=8)
    for place, (name, strength) in enumerate(keys):
        regime = "control" if name == "untrained" else entry(record, objective, strength)["regime"]
        title = "untrained" if name == "untrained" else f"{SYMBOLS[objective]} = {strength:g}"
        axes[0, place + 2].set_title(f"{title}\n{regime.replace(' / ', ' /' + chr(10))}", fontsize=7)
    return figure


def _stored(record: Record, objective: str, strength: float) -> str:
    return str(entry(record, objective, strength)["objective"])


def _signed(axis: Any, vectors: Tensor) -> None:
    """A gradient or score scaled by its largest entry; grey is zero for one channel."""
    peak = float(vectors.abs().max()) or 1.0
    _picture(axis, vectors, -peak, peak)


def _picture(axis: Any, image: Tensor, low: float, high: float) -> None:
    pixels = ((image - low) / (high - low)).permute(1, 2, 0).numpy()
    axis.imshow(
        pixels if pixels.shape[2] == 3 else pixels[..., 0],
        cmap="gray",
        vmin=0,
        vmax=1,
        interpolation="nearest",
    )
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
