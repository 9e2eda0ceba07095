"""The figures and the table of the exact laboratory, drawn from `theory.json` alone."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from pags.report.style import BLUE, GREEN, GREY, ORANGE, RED, new_figure, styled, write_figure
from pags.store import Record, Store

TITLES = {
    "theorem_1": "Theorem 1",
    "theorem_2": "Theorem 2",
    "argument_1": "Argument 1",
    "argument_2": "Argument 2",
    "two_layer": "Two-layer networks",
    "bayes_gradient": "Bayes gradient",
}
LOOKS = ((BLUE, "o", "-"), (ORANGE, "s", "--"), (GREEN, "^", "-."), (GREY, "x", ":"))
"""Colour, marker and line of the lines of a panel; none is told from another by colour alone."""


def draw_theory(record: Record, store: Store) -> list[Path]:
    """Draw one figure a theorem or argument, each as SVG and PNG, byte for byte the same for equal records.

    Args:
        record: what `run_theory` returned and wrote.
        store: where the figures go, as `figures/theory-NAME.svg` and `.png`.

    Returns:
        The files.

    Raises:
        PagsError: a file cannot be written.
    """
    drawings = {
        "theorem_1": theorem_1,
        "theorem_2": theorem_2,
        "argument_1": argument_1,
        "argument_2": argument_2,
        "two_layer": two_layer,
        "bayes_gradient": bayes_gradient,
    }
    files = []
    for name, draw in drawings.items():
        figure = draw(record["parts"][name]["curves"])
        files += write_figure(store, f"theory-{name.replace('_', '-')}", figure)
    return files


def theory_table(record: Record) -> list[dict[str, str]]:
    """The rows of all parts as text: part, claim, place, rule, estimate, expected, verdict."""
    return [
        {
            "part": TITLES[name], "claim": row["claim"], "place": row["place"], "rule": row["rule"],
            "estimate": _estimate(row), "verdict": row["verdict"],
            "expected": "" if row["expected"] is None else f"{row['expected']:g}",
        }
        for name, part in record["parts"].items()
        for row in part["rows"]
    ]  # fmt: skip


@styled
def theorem_1(curves: Record) -> Figure:
    """|rho1 − rho2| over the noise for each model, one line an estimate of the tangent space."""
    figure, axes = new_figure(1, len(curves), width=3.5 * len(curves), height=3.6)
    for axis, (name, curve) in zip(axes[0], curves.items(), strict=True):
        for (basis, line), (colour, marker, style) in zip(curve["bases"].items(), LOOKS, strict=False):
            axis.errorbar(
                curve["noise"], line["distance"], [2 * error for error in line["distance_error"]],
                color=colour, marker=marker, linestyle=style, markersize=4, capsize=2, label=basis,
            )  # fmt: skip
        axis.set(xscale="log", yscale="log", xlabel="noise σ (images in [0, 1])")
        if curve["rate"] is None:
            axis.set(title=f"{name}: equal up to rounding", ylim=(1e-17, 1e-3))
        else:
            axis.set_title(f"{name}: falls like {'σ' if curve['rate'] == 1 else 'σ²'}")
            _guide(axis, curve)
    axes[0, 0].set_ylabel("mean |rho1(σ) − rho2|")
    axes[0, 0].legend(title="tangent space from")
    return figure


@styled
def theorem_2(curves: Record) -> Figure:
    """The distractor's share over the slider, and what lies off each kind of manifold over σ."""
    manifolds = curves["manifolds"]
    figure, axes = new_figure(1, 1 + len(manifolds), width=3.2 * (1 + len(manifolds)), height=3.6)
    slider, informative = axes[0, 0], [point["informative"] for point in curves["slider"]]
    for kind, label, look in (
        ("density", "∇ log p(x|y)", LOOKS[1]),
        ("bayes", "Bayes gradient ∇ log p(y|x)", LOOKS[0]),
    ):
        _band(slider, informative, [point[kind] for point in curves["slider"]], look, label)
    slider.set(
        title="signal × distractor", xlabel="what the distractor tells (slider)",
        ylabel="share of energy on the distractor", ylim=(-0.03, 0.75),
    )  # fmt: skip
    slider.legend(loc="upper left")
    for axis, (name, shares) in zip(axes[0, 1:], manifolds.items(), strict=True):
        for kind, label, look in (
            ("noisy", "score at noisy images", LOOKS[2]),
            ("score", "score at clean images", LOOKS[1]),
            ("bayes", "Bayes gradient", LOOKS[0]),
        ):
            _band(axis, curves["sigmas"], shares[kind], look, label)
        axis.axhline(shares["chance"], color=GREY, linestyle=":", linewidth=1, label="random direction")
        axis.set(title=name, xscale="log", xlabel="σ (EDM's unit)", ylim=(-0.03, 1.05))
    axes[0, 1].set_ylabel("share of energy off the manifold")
    axes[0, 2].legend(loc="center left")
    return figure


@styled
def argument_1(curves: Record) -> Figure:
    """λ‖g_on‖², λ‖g_off‖² and the loss over training: every run thin, the median thick."""
    traces = curves["traces"]
    figure, axes = new_figure(2, len(traces), width=3.1 * len(traces) + 0.4, height=5.4, sharex=True)
    for top, bottom, trace in zip(*axes, traces, strict=True):
        strength = trace["strength"]
        scale = strength or 1.0
        for kind, look in (("on", LOOKS[2]), ("off", (RED, "s", "--"))):
            label = f"{'λ' if strength else ''}‖g_{kind}‖²"
            _runs(top, [[scale * v for v in run[kind]] for run in trace["runs"]], look, label)
        _runs(bottom, [run["loss"] for run in trace["runs"]], LOOKS[0], "training loss")
        top.set(yscale="log", title=f"λ = {strength:g}" + ("" if strength else " (control, g not scaled)"))
        bottom.set(xlabel="epoch", ylim=(0, 1.2))
        top.legend(loc="best")
    axes[0, 0].set_ylabel("mean squared gradient of the loss")
    axes[1, 0].set_ylabel("mean cross-entropy")
    return figure


@styled
def argument_2(curves: Record) -> Figure:
    """What of the weights lies outside the span of the data, and how weights fall with the images' number."""
    figure, axes = new_figure(1, 2, width=10, height=3.6)
    span, decay = axes[0]
    names = list(curves["span"])
    span.hlines(range(len(names)), 1e-17, list(curves["span"].values()), color=GREY, linewidth=1)
    span.plot(list(curves["span"].values()), range(len(names)), color=BLUE, marker="o", linestyle="")
    span.set(
        xscale="log", xlim=(1e-17, 1), ylim=(len(names) - 0.5, -0.5), yticks=range(len(names)),
        xlabel="‖w − Pw‖ / ‖w‖, P on the span of the data",
    )  # fmt: skip
    span.set_yticklabels([_wrapped(name) for name in names])
    labels = {
        "correlated": "informative about\nthe label",
        "leaking": "independent of the label,\nbut in the signal's pixels",
        "uncorrelated": "independent of the label\nand of the signal",
    }
    for (kind, label), look in zip(labels.items(), (LOOKS[1], LOOKS[2], LOOKS[0]), strict=True):
        _runs(decay, curves["decays"][kind], look, label, curves["sizes"])
    middle = median(run[0] for run in curves["decays"]["uncorrelated"])
    line = [middle * (n / curves["sizes"][0]) ** -0.5 for n in curves["sizes"]]
    decay.plot(curves["sizes"], line, color="black", linewidth=1, linestyle=":", label="N^(−1/2)")
    decay.set(xscale="log", yscale="log", xlabel="training images N", ylabel="rms weight of the distractor")
    decay.minorticks_off()
    decay.set_xticks(curves["sizes"], [f"{size:,}" for size in curves["sizes"]])
    decay.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), labelspacing=1, title="distractor")
    return figure


@styled
def two_layer(curves: Record) -> Figure:
    """Gradients on and off the data's subspace after training, and what a step off it does."""
    networks = curves["networks"]
    figure, axes = new_figure(1, 2, width=10, height=3.6)
    norms, flips = axes[0]
    for axis, what, label, look in (
        (norms, "on", "on the subspace", LOOKS[0]), (norms, "off", "off the subspace", LOOKS[1]),
        (flips, "flipped", "labels changed off the subspace", LOOKS[1]),
        (flips, "accuracy", "accuracy", LOOKS[3]),
    ):  # fmt: skip
        found = [[run[what] for run in runs] for runs in networks.values()]
        points = [{"estimate": median(v), "low": min(v), "high": max(v)} for v in found]
        _band(axis, range(len(points)), points, look, label)
    norms.set(yscale="log", ylabel="mean norm of the gradient")
    flips.set(ylim=(-0.03, 1.03), ylabel="share of test points")
    for axis in (norms, flips):
        axis.set_xticks(range(len(networks)), [_wrapped(name) for name in networks])
        axis.legend(loc="best")
    return figure


def _guide(axis: Any, curve: Record) -> None:
    """A line of the predicted slope, a little below the lowest curve."""
    noise, rate = curve["noise"], curve["rate"]
    lowest = min(
        distance / sigma**rate
        for line in curve["bases"].values()
        for sigma, distance in zip(noise, line["distance"], strict=True)
    )
    values = [0.3 * lowest * sigma**rate for sigma in noise]
    (line,) = axis.plot(noise, values, color="black", linewidth=1)
    axis.legend([line], [f"slope {rate:g}"], loc="lower right")


@styled
def bayes_gradient(curves: Record) -> Figure:
    """Cosine with the Bayes gradient, rho2 and accuracy along each objective's strengths, over all runs."""
    strengths = curves["strengths"]
    figure, axes = new_figure(1, len(strengths), width=2.5 * len(strengths), height=3.4, sharey=True)
    for axis, (name, grid) in zip(axes[0], strengths.items(), strict=True):
        for what, label, look in (
            ("cosine", "cosine with the Bayes gradient", LOOKS[0]),
            ("rho2", "rho2", LOOKS[1]),
            ("accuracy", "accuracy", LOOKS[3]),
        ):
            runs = [[point[what] for point in run[name]] for run in curves["runs"]]
            points = [
                {"estimate": median(values), "low": min(values), "high": max(values)}
                for values in zip(*runs, strict=True)
            ]
            _band(axis, range(len(grid)), points, look, label)
        axis.axhline(curves["bayes_accuracy"], color=GREY, linestyle=":", linewidth=0.8)
        axis.set(title=name, xlabel="strength", ylim=(-0.03, 1.03))
        axis.set_xticks(range(len(grid)), [f"{strength:g}" for strength in grid])
    axes[0, 0].set_ylabel("median and range of the runs")
    figure.legend(handles=axes[0, 0].get_legend_handles_labels()[0], loc="outside lower center", ncols=3)
    return figure


def _band(
    axis: Any, x: Sequence[float], found: Sequence[Record], look: tuple[str, str, str], label: str
) -> None:
    """A line of estimates with their intervals."""
    colour, marker, style = look
    middle = [f["estimate"] for f in found]
    axis.plot(x, middle, color=colour, marker=marker, linestyle=style, markersize=4, label=label)
    axis.fill_between(x, [f["low"] for f in found], [f["high"] for f in found], color=colour, alpha=0.2)


def _runs(
    axis: Any,
    runs: Sequence[Sequence[float]],
    look: tuple[str, str, str],
    label: str,
    x: Sequence[float] | None = None,
) -> None:
    """Every run as a thin line, their median as a thick one."""
    colour, marker, style = look
    places = list(x) if x is not None else list(range(len(runs[0])))
    for run in runs:
        axis.plot(places, run, color=colour, linewidth=0.5, alpha=0.4)
    middle = [median(values) for values in zip(*runs, strict=True)]
    every = max(1, len(places) // 8)
    axis.plot(
        places, middle, color=colour, linestyle=style, marker=marker, markevery=every, markersize=4,
        linewidth=1.8, label=label,
    )  # fmt: skip


def _wrapped(name: str) -> str:
    """A label on two lines where it is long."""
    words = name.split()
    half = (len(words) + 1) // 2
    return name if len(name) < 16 else " ".join(words[:half]) + "\n" + " ".join(words[half:])


def _estimate(row: Record) -> str:
    if row["low"] == row["high"]:
        return f"{row['estimate']:.3g}"
    return f"{row['estimate']:.3g} [{row['low']:.3g}, {row['high']:.3g}]"
