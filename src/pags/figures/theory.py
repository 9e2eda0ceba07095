"""The figures of the exact laboratory, one per theorem or argument, from the curves of `theory.json`."""

from collections.abc import Sequence
from statistics import median

from pags.figures.kinds import NUMBERED, FigureData, Panel, Series, curves
from pags.records import Record

TITLES = {
    "theorem_1": "Theorem 1",
    "theorem_2": "Theorem 2",
    "argument_1": "Argument 1",
    "argument_2": "Argument 2",
    "two_layer": "Two-layer networks",
    "bayes_gradient": "Bayes gradient",
}


def theory_figures(record: Record) -> dict[str, FigureData]:
    """Every figure by the name of its part.

    Args:
        record: `theory.json`.
    """
    return {name: FIGURES[name](part["curves"]) for name, part in record["parts"].items() if name in FIGURES}


def _theorem_1(found: Record) -> FigureData:
    caption = (
        "Distance of ρ1 at noise σ from ρ2, mean over images with twice its standard error. Where the "
        "network is linear both are equal up to rounding; else the distance falls with the slope that is "
        "drawn."
    )
    return curves(caption, [[_distances(name, curve) for name, curve in found.items()]])


def _distances(name: str, curve: Record) -> Panel:
    series = [
        Series(f"tangent space: {basis}", style, [
            {"estimate": d, "low": d - 2 * error if d > 2 * error else None, "high": d + 2 * error}
            for d, error in zip(line["distance"], line["distance_error"], strict=True)
        ])
        for (basis, line), style in zip(curve["bases"].items(), NUMBERED, strict=False)
    ]  # fmt: skip
    noise, rate = curve["noise"], curve["rate"]
    if rate is not None:  # a line of the predicted slope, a little below the lowest curve
        lowest = min(
            d / sigma**rate
            for line in curve["bases"].values()
            for sigma, d in zip(noise, line["distance"], strict=True)
        )
        guide = [{"estimate": 0.3 * lowest * sigma**rate} for sigma in noise]
        series.append(Series(f"slope {rate:g}", "guide", guide))
    falls = "equal up to rounding" if rate is None else f"falls like {'σ' if rate == 1 else 'σ²'}"
    return Panel(
        f"{name}: {falls}", "noise σ (images in [0, 1])", (), "mean |ρ1(σ) − ρ2|", series, places=noise,
        log="xy", limits=(1e-17, 1e-3) if rate is None else None,
    )  # fmt: skip


def _theorem_2(found: Record) -> FigureData:
    slider = found["slider"]
    shares = {"density": ("∇ log p(x|y)", "second"), "bayes": ("Bayes gradient ∇ log p(y|x)", "first")}
    first = Panel(
        "signal × distractor", "how informative the distractor is", (), "share of energy on the distractor",
        [Series(label, style, [point[kind] for point in slider]) for kind, (label, style) in shares.items()],
        places=[point["informative"] for point in slider], limits=(-0.03, 0.75),
    )  # fmt: skip
    kinds = {
        "noisy": ("score at noisy images", "third"), "score": ("score at clean images", "second"),
        "bayes": ("Bayes gradient ∇ log p(y|x)", "first"),
    }  # fmt: skip
    others = [
        Panel(
            name, "σ (EDM's unit)", (), "share of energy off the manifold",
            [Series(label, style, share[kind]) for kind, (label, style) in kinds.items()],
            references={"random direction": share["chance"]}, places=found["sigmas"], log="x",
            limits=(-0.03, 1.05),
        )
        for name, share in found["manifolds"].items()
    ]  # fmt: skip
    caption = (
        "Left: share of the energy on a distractor, from independent of the label to as informative as the "
        "signal. Others: what lies off each kind of manifold."
    )
    return curves(caption, [[first, *others]])


def _argument_1(found: Record) -> FigureData:
    above, below = [], []
    for trace in found["traces"]:
        strength, epochs = trace["strength"], list(range(len(trace["runs"][0]["loss"])))
        scale = strength or 1.0
        halves = [
            _runs(
                f"squared gradient {kind} the manifold", kind,
                [[scale * value for value in run[kind]] for run in trace["runs"]],
            )
            for kind in ("on", "off")
        ]  # fmt: skip
        title = f"λ = {strength:g}" + ("" if strength else " (control, not scaled)")
        above.append(Panel(title, "epoch", (), "λ · mean squared gradient", halves, places=epochs, log="y"))
        loss = _runs("training loss", "first", [run["loss"] for run in trace["runs"]])
        below.append(Panel("", "epoch", (), "mean cross-entropy", [loss], places=epochs, limits=(0, 1.2)))
    caption = (
        "λ‖g_on‖², λ‖g_off‖² and the loss over training with a penalty of strength λ on the gradient: every "
        "run thin, the median thick."
    )
    return curves(caption, [above, below])


def _argument_2(found: Record) -> FigureData:
    names = [_wrapped(name) for name in found["span"]]
    outside = Series("‖w − Pw‖ / ‖w‖", "first", [{"estimate": v} for v in found["span"].values()])
    span = Panel(
        "weights outside the span of the data", "", names, "‖w − Pw‖ / ‖w‖, P on the span of the data",
        [outside], log="x", limits=(1e-17, 1.0), sideways=True,
    )  # fmt: skip
    labels = {
        "correlated": "distractor informative about the label",
        "leaking": "independent of the label, but in the signal's pixels",
        "uncorrelated": "independent of the label and of the signal",
    }
    sizes = found["sizes"]
    series = [
        _runs(label, style, found["decays"][kind])
        for (kind, label), style in zip(labels.items(), ("second", "third", "first"), strict=True)
    ]
    middle = median(run[0] for run in found["decays"]["uncorrelated"])
    guide = [{"estimate": middle * (n / sizes[0]) ** -0.5} for n in sizes]
    decay = Panel(
        "weights fall with the number of images", "training images N", [f"{n:,}" for n in sizes],
        "rms weight of the distractor",
        [*series, Series("N^(−1/2)", "guide", guide)], places=sizes, log="xy",
    )  # fmt: skip
    caption = "What of the weights lies outside the span of the data, and how weights on a distractor fall."
    return curves(caption, [[span, decay]])


def _two_layer(found: Record) -> FigureData:
    networks = found["networks"]

    def points(name: str, style: str, what: str) -> Series:
        values = [[run[what] for run in runs] for runs in networks.values()]
        spread = [{"estimate": median(v), "low": min(v), "high": max(v)} for v in values]
        return Series(name, style, spread)

    ticks = [_wrapped(name) for name in networks]
    norms = Panel(
        "gradients after training", "initialisation", ticks, "mean norm of the gradient",
        [points("on the subspace", "on", "on"), points("off the subspace", "off", "off")], log="y",
    )  # fmt: skip
    labels = Panel(
        "a step off the subspace", "initialisation", ticks, "share of test points",
        [
            points("labels changed off the subspace", "off", "flipped"),
            points("accuracy", "accuracy", "accuracy"),
        ],
        limits=(-0.03, 1.03),
    )  # fmt: skip
    caption = (
        "Two-layer ReLU networks trained on points of a linear subspace, by the scale of their first weights "
        "relative to the usual one, and with weight decay: median of the runs and their range."
    )
    return curves(caption, [[norms, labels]])


def _bayes_gradient(found: Record) -> FigureData:
    kinds = {"cosine": "cosine with the Bayes gradient", "rho2": "ρ2", "accuracy": "accuracy"}
    panels = [
        Panel(
            name, "strength", [f"{strength:g}" for strength in strengths], "median and range of the runs",
            [
                _range(label, style, [[point[kind] for point in run[name]] for run in found["runs"]])
                for (kind, label), style in zip(kinds.items(), ("first", "second", "fourth"), strict=True)
            ],
            references={"accuracy of the Bayes classifier": found["bayes_accuracy"]}, limits=(-0.03, 1.03),
        )
        for name, strengths in found["strengths"].items()
    ]  # fmt: skip
    caption = "Along each objective's strengths: median over all runs, and their range."
    return curves(caption, [panels])


def _runs(name: str, style: str, runs: Sequence[Sequence[float]]) -> Series:
    """Every run, and their median."""
    middle = [{"estimate": median(values)} for values in zip(*runs, strict=True)]
    return Series(name, style, middle, runs)


def _range(name: str, style: str, runs: Sequence[Sequence[float]]) -> Series:
    points = [
        {"estimate": median(v), "low": min(v), "high": max(v)} for v in zip(*runs, strict=True)
    ]  # fmt: skip
    return Series(name, style, points)


def _wrapped(name: str) -> str:
    """A label on two lines where it is long."""
    words = name.split()
    half = (len(words) + 1) // 2
    return name if len(name) < 12 else " ".join(words[:half]) + "\n" + " ".join(words[half:])


FIGURES = {
    "theorem_1": _theorem_1, "theorem_2": _theorem_2, "argument_1": _argument_1, "argument_2": _argument_2,
    "two_layer": _two_layer, "bayes_gradient": _bayes_gradient,
}  # fmt: skip
