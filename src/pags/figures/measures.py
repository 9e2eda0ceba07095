"""The figures that are curves along the strengths of a sweep."""

from pags.figures import sweeps
from pags.figures.kinds import NUMBERED, FigureData, Panel, Parts, Series, curves
from pags.records import Record, SweepLine, SweepRecord


def robustness_and_alignment(parts: Parts) -> FigureData:
    """Figure 3: a column per objective, of the paper's three and of a user's."""
    return main_figure(parts.sweep)


def main_figure(record: SweepRecord) -> FigureData:
    """Figure 3 from the sweeps' record: robustness, similarity by every metric, and accuracy."""
    lines = [line for line in record["sweeps"] if line["objective"] != "smoothness"] or record["sweeps"]
    norm, seeds = sweeps.settled(record, "norm", None), record["settings"].get("repeats", 1)
    chosen = sweeps.targets(record)
    rows = [[sweeps.robustness_panel(record, line, norm, line["title"]) for line in lines]]
    rows += [
        [sweeps.alignment_panel(record, line, metric, chosen, "") for line in lines]
        for metric in sweeps.metrics(record)
    ]
    rows.append([sweeps.accuracy_panel(record, line) for line in lines])
    caption = (
        f"Top: change of the output under perturbations of l2 norm {norm:g} on and off the manifold; larger "
        "is less robust. Middle: similarity of input gradients and the score, between its floor (noise) and "
        "its ceiling (a second estimate of the score), both of the standard network. Bottom: accuracy. "
        "Behind the curves, the regime of each model. Bands: 95 % intervals over "
        f"{'seeds and ' if seeds > 1 else ''}images ({seeds} seed{'s' if seeds > 1 else ''})."
    )
    return curves(caption, rows)


def at_several_norms(parts: Parts) -> FigureData:
    """Figure 9: a row per norm, a column per objective."""
    record = parts.sweep
    rows = [
        [
            sweeps.robustness_panel(record, line, norm, f"{line['title']}, norm {norm:g}")
            for line in record["sweeps"]
        ]
        for norm in sweeps.settled(record, "norms", ())
    ]
    return curves("As Figure 3, top, for perturbations of each l2 norm.", rows)


def with_score_of_class(parts: Parts) -> FigureData:
    """Figure 17: alignment of one class's gradient with the score of that class, for every objective."""
    record = parts.sweep
    metric = sweeps.metrics(record)[0]
    row = [
        sweeps.alignment_panel(record, line, metric, ("logit",), line["title"]) for line in record["sweeps"]
    ]
    caption = "As Figure 3, middle: the gradient of the predicted class's logit and the score of that class."
    return curves(caption, [row])


def at_two_resolutions(parts: Parts) -> FigureData:
    """Figure 4: networks at a higher resolution than the score (ImageNet's place), then at the score's."""
    record, transfer = parts.sweep, parts.transfer
    line, metric = sweeps.sweep_of(record, "pgd"), sweeps.metrics(record)[0]
    size, low = ("×".join(str(side) for side in shape[1:]) for shape in (transfer["size"], _shape(record)))
    left = _transferred(transfer, metric, f"{transfer['data']}, {size} px")
    right = sweeps.alignment_panel(record, line, metric, ("logit",), f"{record['data']['name']}, {low} px")
    ticks = [f"{model['strength']:g}" for model in transfer["models"]]
    accurate = [Series("accuracy", "accuracy", sweeps.points(transfer["models"], "correct"))]
    below = Panel("", "strength ε", ticks, "accuracy", accurate, limits=(0, 1.02))
    caption = (
        "Above: similarity of the gradient of the predicted class's logit and the score of that class; "
        f"below: accuracy. Left, in the place of the paper's ImageNet: classifiers of {size} pixels, "
        f"gradients scaled down to the score's {low}. Right, in the place of its ImageNet-64: strengths up "
        "to excessive."
    )
    rows = [[left, right], [below, sweeps.accuracy_panel(record, line)]]
    return curves(caption, rows)


def _shape(record: SweepRecord) -> list[int]:
    return record["data"]["shape"]


def _transferred(transfer: Record, metric: str, heading: str) -> Panel:
    models = transfer["models"]
    column = f"{metric} logit"
    series = [
        Series("gradient of the logit", "similarity", sweeps.points(models, column)),
        Series("logit, another image's score", "shuffled", sweeps.points(models, f"shuffled {column}")),
    ]
    floor = sweeps.reference(models[0], "floor", metric, "logit")
    references = {"floor": floor["estimate"]} if floor and floor["estimate"] is not None else {}
    ticks = [f"{model['strength']:g}" for model in models]
    y = f"{sweeps.metric_title(metric)} with the score"
    return Panel(heading, "strength ε", ticks, y, series, references=references)


def smoothgrad(parts: Parts) -> FigureData:
    """Phenomenon 3: similarity with the score of plain and of smoothed gradients, for every metric."""
    record = parts.smoothgrad
    line = sweeps.sweep_of(parts.sweep, record["objective"])
    known = record["strengths"][0]["means"]
    panels = [
        _smoothed(record, line, metric)
        for metric in dict.fromkeys([*sweeps.metrics(parts.sweep), "cosine"])
        if f"{metric} logit" in known
    ]
    caption = (
        "Gradients of the predicted class's logit and their means over noisy copies of the image "
        "(SmoothGrad), for several standard deviations of the noise. If robustness is what aligns gradients, "
        "smoothing helps weak models most."
    )
    return curves(caption, [panels])


def _smoothed(record: Record, line: SweepLine, metric: str) -> Panel:
    entries = record["strengths"]
    series = [Series("plain gradient", "any", sweeps.points(entries, f"{metric} logit"))]
    series += [
        Series(
            f"SmoothGrad, noise {level:g}", style, sweeps.points(entries, f"smooth {level:g} {metric} logit")
        )
        for level, style in zip(record["levels"], NUMBERED, strict=False)
    ]
    y = f"{sweeps.metric_title(metric)} with the score"
    ticks = [f"{entry['strength']:g}" for entry in entries]
    return Panel(line["title"], sweeps.axis(line), ticks, y, series)


def score_share(parts: Parts) -> FigureData:
    """How much of the score lies off the tangent space over the noise level (Theorem 2 takes it as none)."""
    shares = parts.score_shares
    panel = Panel(
        "energy of the score off the manifold", "noise level σ (EDM's unit)",
        [f"{sigma:g}" for sigma in shares["sigmas"]], "share off the tangent space",
        [Series("score", "off", shares["off"])],
        references={"chance": parts.sweep["chance"]["rho2"]}, zero=True,
    )  # fmt: skip
    caption = (
        "The denoiser's score at the clean test images. As the noise goes to 0 a score points along the "
        "normal of the manifold; the chance line is that of a random direction."
    )
    return curves(caption, [[panel]])


def manifold_dependence(parts: Parts) -> FigureData:
    """off/on, rho1 and rho2 over the dimension of the tangent spaces, for two estimators of them."""
    record, line = parts.manifold, sweeps.sweep_of(parts.sweep, parts.manifold["objective"])
    norm, dimensions = sweeps.settled(parts.sweep, "norm", None), record["k"]
    chance = [{"estimate": 1 - k / record["pixels"]} for k in dimensions]
    strengths = sweeps.evenly(list(enumerate(record["strengths"])))
    rows = []
    for name, models in record["models"].items():
        row = []
        for quantity, y, level in (
            (f"off/on {norm:g}", f"off/on, norm {norm:g}", True), ("rho1", "ρ1", False),
            ("rho2 logit", "ρ2", False),
        ):  # fmt: skip
            series = [
                Series(
                    f"{line['symbol']} = {strength:g}", style,
                    [along[place]["ratios"][quantity] for along in models],
                )
                for (place, strength), style in zip(strengths, NUMBERED, strict=False)
            ]  # fmt: skip
            references = {"equal": 1.0} if level else {}
            series += [] if level else [Series("chance", "guide", chance)]
            panel = Panel(
                f"{record['titles'][name]}: {y}", "dimension k of the tangent spaces",
                [str(k) for k in dimensions], y, series, references=references, zero=True,
            )  # fmt: skip
            row.append(panel)
        rows.append(row)
    caption = (
        f"Networks of one sweep ({line['title']}) on {record['images']} images, measured with the leading "
        "directions of the tangent spaces, by the estimator of the other figures and by another one."
    )
    return curves(caption, rows)


def bayes_line(parts: Parts) -> FigureData:
    """off/on and accuracy along each sweep, beside those of the classifier that the denoiser implies."""
    record, found = parts.sweep, parts.bayes
    norm = found["norm"]
    level = {
        quantity: {f"p_σ(y | x), σ = {each['sigma']:g}": each[quantity] for each in found["levels"]}
        for quantity in ("off/on", "correct")
    }
    rows: list[list[Panel]] = [[], []]
    for line in record["sweeps"]:
        models = sweeps.along(record, line)
        ratio = [each["ratios"].get(f"off/on {norm:g}") for each in models]
        for row, quantity, y, values, title in (
            (rows[0], "off/on", f"off/on, norm {norm:g}", ratio, line["title"]),
            (rows[1], "correct", "accuracy", sweeps.points(models, "correct"), ""),
        ):
            series = [Series("networks", "accuracy", values)]
            axis = sweeps.axis(line)
            row.append(
                Panel(title, axis, sweeps.ticks(line), y, series, references=level[quantity], zero=True)
            )
    caption = (
        f"Lines: the Bayes classifier under noise of level σ, by this study's denoiser, on {found['images']} "
        "images. By the paper's argument good networks come near it, and are off-manifold robust where it is."
    )
    return curves(caption, rows)
