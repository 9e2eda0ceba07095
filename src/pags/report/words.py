"""What the records say in sentences and in rows of tables; the command line prints the same."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pags.auditing.result import AT_CHANCE
from pags.figures.audits import labels
from pags.figures.phenomena import task_title
from pags.figures.sweeps import (
    STANDARD,
    UNTRAINED,
    along,
    best,
    described,
    metric_title,
    metrics,
    model,
    regime_name,
    sweep_of,
    target_title,
    targets,
)
from pags.records import AuditRecord, ClaimRecord, IntervalRecord, ModelRecord, Record, SweepRecord


def estimate(value: IntervalRecord | None) -> float | None:
    """The estimate of an interval; None for what is not defined."""
    return None if value is None else value["estimate"]


def _end(value: IntervalRecord | None, side: Literal["low", "high"]) -> float:
    """Where an interval ends; 0, which decides nothing, for what is not defined."""
    return 0.0 if value is None else value[side] or 0.0


def listed(names: Sequence[str]) -> str:
    """A, B and C."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def headlines(found: ModelRecord) -> dict[str, str]:
    """The headline quantities of models measured like this one: heading to column or ratio."""
    norm, target = found["settings"].get("norm", 0.0), found["settings"]["targets"][0]
    metrics = found["settings"]["metrics"][:1]
    return {"accuracy": "correct", f"off/on, norm {norm:g}": f"off/on {norm:g}", "ρ2": f"rho2 {target}"} | {
        heading: name
        for metric in metrics
        for heading, name in (
            (f"{metric_title(metric)} with the score", f"{metric} {target}"),
            ("other image’s score", f"shuffled {metric} {target}"),
        )
    }


# Audits ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One quantity of a model: its interval, and the reference values that it is read against."""

    title: str
    value: IntervalRecord
    lines: Mapping[str, float] = field(default_factory=dict)


LITTLE = 0.2
"""Share of a gradient's energy below which what is seen of it at the score's size says little."""


def is_aligned(found: ModelRecord) -> bool | None:
    """Whether the first target's gradients are closer to the score of their own image than to another's.

    By any metric, with the whole interval of the paired difference; None where that was not measured.
    """
    known = _above(found)
    return any(_end(value, "low") > 0 for value in known.values()) if known else None


def verdict(found: ModelRecord) -> str:
    """Does the model work at all; if so, are its gradients aligned (`is_aligned`), and how robust it is."""
    works = _works(found)
    if found["regime"]["rule"] == AT_CHANCE:
        return f"{works} It is {AT_CHANCE}. {_diagnosis(found)}".rstrip()
    said = [works, _alignment(found), _robustness(found), *_contradictions(found)]
    return " ".join(sentence for sentence in said if sentence)


def _works(found: ModelRecord) -> str:
    """The accuracy with its interval against chance and the most frequent class."""
    accuracy, settings = found["means"]["correct"], found["settings"]
    if accuracy is None or accuracy["estimate"] is None or "classes" not in settings:
        return ""
    untrained = str(found["about"].get("weights", "")).startswith("untrained")
    value, low, high = accuracy["estimate"], _end(accuracy, "low"), _end(accuracy, "high")
    return (
        f"Accuracy{' with untrained weights' if untrained else ''} {value:.1%} [{low:.1%}, {high:.1%}] "
        f"(chance {1 / settings['classes']:.1%}, most frequent class {settings['majority']:.1%})."
    )


def _diagnosis(found: ModelRecord) -> str:
    """What would make a model at chance work, and the option that does it."""
    known = found["about"].get("diagnosis")
    if not known:
        return ""
    if (better := known["better"]) is None:
        return (
            "No other usual normalisation or order of the classes is better: check the weights, the "
            "architecture and the labels."
        )
    by = [f"as '{better['model']}'"] if better["model"] else []
    by += [f"with the classes in the order of their names as {better['order']}"] if better["order"] else []
    option = " (--data 'folder:PATH?classes=text')" if better["order"] == "text" else ""
    return f"Accuracy is {better['accuracy']:.1%} {' and '.join(by)}{option}."


def robust_titles(settings: Record) -> dict[str, str]:
    """The columns of robust accuracy for people: under PGD alone it is an upper bound."""
    attacks = settings.get("attacks", ["pgd"])
    if attacks == ["pgd"]:
        form = "robust accuracy, radius {:g} (upper bound: l2-PGD only)"
    else:
        form = f"robust accuracy, radius {{:g}} (l2: {', '.join(attacks)})"
    return {f"robust {r:g}": form.format(r) for r in settings["radii"]}


def share_of_the_way(found: ModelRecord) -> float | None:
    """Where the first target's similarity lies between another image's score (0) and the ceiling (1)."""
    settings = found["settings"]
    target = settings["targets"][0]
    for metric in settings["metrics"][:1]:
        kind = settings["compared with"].get(target, "")
        names = f"{metric} {target}", f"shuffled {metric} {target}", f"ceiling {metric} {kind}"
        own, low, high = (estimate(found["means"].get(name)) for name in names)
        if own is not None and low is not None and high is not None and high > low:
            return (own - low) / (high - low)
    return None


def one_row(found: ModelRecord) -> dict[str, str]:
    """A model in one row: does it work, how robust it is, on and off the manifold, and how aligned."""
    settings, means = found["settings"], found["means"]
    target = settings["targets"][0]

    def text(value: float | None, form: str = ".3g") -> str:
        return "–" if value is None else format(value, form)

    robust = {
        f"robust {r:g}": text(estimate(means.get(f"robust {r:g}")), ".1%") for r in settings["radii"] if r
    }
    return {
        "accuracy": text(estimate(means.get("correct")), ".1%"), **robust,
        "off/on": text(estimate(found["ratios"].get(f"off/on {settings['norm']:g}"))),
        "ρ2 (chance)": f"{text(estimate(means.get(f'rho2 {target}')))} "
        f"({text(estimate(means.get('chance rho2')))})",
        "shuffled to ceiling": text(share_of_the_way(found), ".0%"),
        "Bayes cosine": text(estimate(means.get(f"bayes cosine {target}"))),
        "regime": "at chance" if found["regime"]["rule"] == AT_CHANCE else regime_name(found["regime"]),
    }  # fmt: skip


def _contradictions(found: ModelRecord) -> list[str]:
    """What must be said beside the verdict: numbers that speak against each other, or against themselves."""
    means, settings = found["means"], found["settings"]
    target, metrics = settings["targets"][0], settings["metrics"]
    kind, said = settings["compared with"].get(target, ""), list[str]()
    metric = metrics[0] if metrics else ""
    similar, top = estimate(means.get(f"{metric} {target}")), estimate(means.get(f"ceiling {metric} {kind}"))
    if similar is not None and top is not None and similar > top:
        said.append(f"Caution: the similarity ({similar:.3f}) is above its ceiling ({top:.3f}).")
    cosine = means.get(f"bayes cosine {target}") or means.get(f"cosine {target}")
    if cosine is not None and _end(cosine, "high") < 0 and is_aligned(found):
        said.append("Caution: the cosine is negative though another metric sees similarity.")
    kept = estimate(means.get(f"kept {target}"))
    if kept is not None and kept < LITTLE:
        said.append(f"Caution: only {kept:.0%} of the gradient's energy is left at the score's size.")
    return said


def short_names(record: AuditRecord) -> AuditRecord:
    """The audit with its models' names as figures have them."""
    short = dict(zip([found["name"] for found in record["models"]], labels(record["models"]), strict=True))
    pairs = [p | {"first": short[p["first"]], "second": short[p["second"]]} for p in record["pairs"]]
    models: list[ModelRecord] = [{**found, "name": short[found["name"]]} for found in record["models"]]
    return {**record, "models": models, "pairs": pairs}


def audit_answer(record: AuditRecord) -> list[str]:
    """Two sentences on all models of an audit."""
    models = record["models"]
    if len(models) == 1:
        return [verdict(models[0])]
    guessing = [found for found in models if found["regime"]["rule"] == AT_CHANCE]
    said = [f"{found['name']}: {verdict(found)}" for found in guessing]
    models = [found for found in models if found not in guessing]
    if not models:
        return said
    words = {True: "aligned with the score", False: "not aligned", None: "not compared with a score"}
    aligned = [
        f"{_who(names, len(models))} {'are' if len(names) > 1 else 'is'} {words[kind]}"
        for kind in words
        if (names := [found["name"] for found in models if is_aligned(found) is kind])
    ]
    ratios = [
        f"{found['name']} {ratio:.2f} ({regime_name(found['regime'])})"
        for found in sorted(models, key=_ratio)
        if (ratio := _ratio(found)) < math.inf
    ]
    if len(ratios) > FEW:
        ratios = [f"from {ratios[0]} to {ratios[-1]}"]
    return [
        *said,
        f"Gradients: {'; '.join(aligned)}.",
        *([f"Output change off/on the manifold: {', '.join(ratios)}."] if ratios else []),
    ]


FEW = 3
"""Models that a sentence names."""


def _who(names: Sequence[str], of: int) -> str:
    return listed(names) if of <= FEW else f"{len(names)} of {of} models"


def _ratio(found: ModelRecord) -> float:
    """off/on; infinity where it was not measured."""
    ratio = estimate(found["ratios"].get(f"off/on {found['settings']['norm']:g}"))
    return math.inf if ratio is None else ratio


def audit_chips(models: Sequence[ModelRecord]) -> list[tuple[str, str]]:
    """How many models are aligned, and in which regimes they are."""
    kinds = {True: "supported", False: "contradicted", None: "undecided"}
    words = {True: "aligned", False: "not aligned", None: "not compared"}
    tally = Counter(is_aligned(found) for found in models)
    regimes = Counter(regime_name(found["regime"]) for found in models)
    chips = [(kinds[kind], f"{count} {words[kind]}") for kind, count in tally.items()]
    return chips + [("plain", f"{count} {name}") for name, count in regimes.items()]


def rows(found: ModelRecord, *, chosen: Sequence[str] | None = None) -> list[Row]:
    """The rows of a model's table: every quantity with the reference values that it is read against.

    Args:
        found: of `audit.json`.
        chosen: of the targets; None: all.
    """
    return list(_rows(found, found["settings"]["targets"] if chosen is None else chosen))


def _rows(found: ModelRecord, chosen: Sequence[str]) -> Iterator[Row]:
    means, settings = found["means"], found["settings"]
    chance = {"chance": "chance rho2"}
    titles = {"correct": "accuracy", "confidence": "confidence"}
    titles |= robust_titles(settings)
    for column, title in titles.items():
        yield from _row(found, title, column, {})
    for name, value in found["ratios"].items():
        kind, _, of = name.partition(" ")
        if value is None or (kind == "rho2" and of not in chosen):
            continue
        if kind == "rho1":
            yield Row("ρ1 (Definition 1)", value, _levels(found, chance))
        elif kind == "rho2":
            said = f"ρ2 of the {target_title(of)}, images weighted by the gradient's energy"
            yield Row(said, value, _levels(found, chance))
        else:
            said = "attacked change off / on" if kind == "attacked" else f"change off / on, norm {of}"
            yield Row(said, value, {"no difference": 1.0})
    for target in chosen:
        kind, said = settings["compared with"].get(target, ""), target_title(target)
        lines = chance | {"untrained": f"control rho2 {target}", "the score itself": f"rho2 score {kind}"}
        yield from _row(found, f"ρ2 of the {said}", f"rho2 {target}", lines)
    for metric in settings["metrics"]:
        for target in chosen:
            kind, said = settings["compared with"].get(target, ""), target_title(target)
            for column in _similarities(means, f"{metric} {target}"):
                of = f"SmoothGrad of {said}" if column.startswith("smooth ") else said
                lines = {"untrained": f"control {column}"}
                if "bayes " in column:
                    lines |= {"another image's direction": f"shuffled {column}"}
                    yield from _row(found, f"{metric_title(metric)}, {of} and Bayes direction", column, lines)
                    continue
                lines |= {
                    "floor": f"floor {metric} {kind}", "another image's score": f"shuffled {column}",
                    "ceiling": f"ceiling {metric} {kind}",
                }  # fmt: skip
                yield from _row(found, f"{metric_title(metric)}, {of} and score of {kind}", column, lines)


def _similarities(means: Mapping[str, object], plain: str) -> list[str]:
    """The columns of a target's similarity, with the score and the Bayes direction, and of its SmoothGrad."""
    own = re.compile(rf"(smooth \S+ )?(bayes )?{re.escape(plain)}")
    return [name for name in means if own.fullmatch(name)]


def _row(found: ModelRecord, title: str, column: str, lines: Mapping[str, str]) -> Iterator[Row]:
    value = found["means"].get(column)
    if value is not None and value["estimate"] is not None:
        yield Row(title, value, _levels(found, lines))


def _levels(found: ModelRecord, columns: Mapping[str, str]) -> dict[str, float]:
    """The estimates of columns that are there."""
    known = {name: estimate(found["means"].get(column)) for name, column in columns.items()}
    return {name: value for name, value in known.items() if value is not None}


def _above(found: ModelRecord) -> dict[str, IntervalRecord]:
    """How far the first target's similarity is above that with another image's score, by metric."""
    settings = found["settings"]
    columns = {metric: f"{metric} {settings['targets'][0]}" for metric in settings["metrics"]}
    known = {metric: found["above_shuffled"].get(column) for metric, column in columns.items()}
    return {metric: value for metric, value in known.items() if value is not None}


def _alignment(found: ModelRecord) -> str:
    known, target = _above(found), found["settings"]["targets"][0]
    if not known:
        return "Alignment was not measured."
    metric, kind = next(iter(known)), found["settings"]["compared with"].get(target, "")
    columns = {
        metric_title(metric): f"{metric} {target}", "another image's score": f"shuffled {metric} {target}",
        "floor": f"floor {metric} {kind}", "ceiling": f"ceiling {metric} {kind}",
    }  # fmt: skip
    numbers = ", ".join(f"{name} {value:.3f}" for name, value in _levels(found, columns).items())
    by = [metric_title(name) for name, value in known.items() if _end(value, "low") > 0]
    more = f"more similar (by {listed(by)})" if by else "no more similar"
    return f"The gradients are {more} to the score of their own image than to others' ({numbers})."


def _robustness(found: ModelRecord) -> str:
    regime, ratio = found["regime"], found["ratios"].get(f"off/on {found['settings']['norm']:g}")
    if regime["name"] is None or ratio is None or ratio["estimate"] is None:
        return f"Its regime is unknown ({regime['rule']})."
    low, high = _end(ratio, "low"), _end(ratio, "high")
    numbers = f"{ratio['estimate']:.2f} times, 95 % interval {low:.2f} to {high:.2f}"
    return f"The output changes {_side(ratio)} on it ({numbers}): {regime['name']}."


def _side(ratio: IntervalRecord) -> str:
    if _end(ratio, "high") < 1:
        return "less off the manifold than"
    return "more off the manifold than" if _end(ratio, "low") > 1 else "about as much off the manifold as"


def caveats(record: AuditRecord, found: ModelRecord) -> list[str]:
    """What is to be kept in mind when the numbers are read."""
    settings = found["settings"]
    told = [*record["estimators"].get("notes", ()), *(f"left out: {line}" for line in settings["missing"])]
    if list(settings["shape"][1:]) != list(settings["size"]):
        size = "×".join(str(side) for side in settings["size"])
        kept = estimate(found["means"].get(f"kept {settings['targets'][0]}"))
        share = "" if kept is None else f" ({kept:.0%} of their energy is left)"
        told.append(
            f"score and tangent spaces are at {size} px: gradients were reduced to that size{share}, and "
            "perturbations made there and enlarged; finer detail is not seen"
        )
    if "sum-of-logits" in settings["targets"]:
        told.append(
            "cross-entropy never moves the sum of the last layer's rows: the gradient of the sum of logits "
            "is determined by the random initialisation; compare it with the untrained network"
        )
    return told + ([f"the regime is decided {found['regime']['rule']}"] if found["regime"]["name"] else [])


# Sweeps and claims -------------------------------------------------------------------------------------


def sweep_answer(record: SweepRecord) -> list[str]:
    """Two sentences: which network's gradients are most similar to the score, and how robust it is."""
    standard, robust = model(record, STANDARD), best(record)
    column = f"{metrics(record)[0]} {targets(record)[0]}"
    a, b = standard["means"].get(column), robust["means"].get(column)
    if estimate(a) is None or estimate(b) is None:
        return ["Similarity with the score was not measured."]
    name, said = described(record, robust), f"{metric_title(metrics(record)[0])} {_pair(b, a)}"
    accuracy = f"accuracy {_pair(robust['means'].get('correct'), standard['means'].get('correct'))}"
    first = f"No accurate robust network aligns its gradients measurably; the most aligned is {name}"
    if _end(b, "low") > _end(a, "high"):
        first = f"Robust training aligns input gradients with the score here, most of all {name}"
    found = [f"{first} ({said} of the standard network, {accuracy})."]
    ratio = f"off/on {record['models'][0]['settings']['norm']:g}"
    off, without = robust["ratios"].get(ratio), standard["ratios"].get(ratio)
    if off is not None:
        found.append(
            f"Its output changes {_side(off)} on it (off/on {_pair(off, without)}){_end_of(record, column)}."
        )
    return found


def _pair(one: IntervalRecord | None, other: IntervalRecord | None) -> str:
    first, second = (
        "–" if (number := estimate(value)) is None else f"{number:.3g}" for value in (one, other)
    )
    return f"{first} against {second}"


def _end_of(record: SweepRecord, column: str) -> str:
    """What becomes of the similarity at the end of the best model's sweep, where that is excessive."""
    line = sweep_of(record, best(record).get("objective", ""))
    last = along(record, line)[-1]
    value = estimate(last["means"].get(column))
    if last["regime"]["name"] != "excessive" or value is None:
        return ""
    strength = f"{line['symbol']} = {line['strengths'][-1]:g}"
    return f"; under excessive regularisation ({strength}) similarity is {value:.3g}"


def headline_models(record: SweepRecord) -> list[ModelRecord]:
    """The rows of the first table: the controls, then the best accurate network of each objective."""
    controls = [found for found in record["models"] if found["name"] in (UNTRAINED, STANDARD)]
    return controls + [best(record, line["objective"]) for line in record["sweeps"]]


def strip_models(record: SweepRecord) -> dict[str, ModelRecord]:
    """Whose gradients stand on the first screen: standard, robust, and the strongest of the same sweep."""
    robust = best(record)
    line = sweep_of(record, robust.get("objective", ""))
    last = along(record, line)[-1]
    words = "excessive" if last["regime"]["name"] == "excessive" else "strongest"
    found = {"robust": robust} | ({} if last is robust else {words: last})
    strengths = {f"{k}, {line['symbol']} = {m.get('strength', 0):g}": m for k, m in found.items()}
    return {"standard": model(record, STANDARD)} | strengths


IMPORTANT = (
    "off-robustness-correlates", "relatively-off-robust", "alignment-peaks-inside", "peak-is-off-robust",
    "peak-is-accurate", "off-falls-more-than-on", "gradients-on-signal", "smoothgrad-aligns",
)  # fmt: skip
"""Claims that carry the paper's explanation, first of all; the others follow in the record's order."""


def claim_tables(claims: Sequence[ClaimRecord], title: Callable[[str], str]) -> list[Record]:
    """The claims by importance as tables, one for each set of subjects; a row holds one claim's verdicts."""
    order = {key: place for place, key in enumerate(IMPORTANT)}
    rows: dict[str, dict[str, ClaimRecord]] = {}
    for claim in sorted(claims, key=lambda claim: order.get(claim["claim"], len(order))):
        rows.setdefault(claim["claim"], {})[title(claim["subject"])] = claim
    tables: dict[tuple[str, ...], list[list[ClaimRecord]]] = {}
    for found in rows.values():
        tables.setdefault(tuple(found), []).append(list(found.values()))
    return [{"subjects": list(subjects), "rows": group} for subjects, group in tables.items()]


def subject_title(subject: str, sweep: SweepRecord | None) -> str:
    """What a claim is judged on, for people: a sweep by its objective, a model also by its strength."""
    objective, _, strength = subject.partition(" ")
    for line in sweep["sweeps"] if sweep else ():
        if line["objective"] == objective:
            return f"{line['title']}, {line['symbol']} = {strength}" if strength else line["title"]
    return subject


# Generation --------------------------------------------------------------------------------------------


def generate_answer(record: Record) -> list[str]:
    """For the first task: the best model against the controls."""
    task, models = record["settings"]["tasks"][0], record["models"]
    measure, form, what = ("psnr", ".1f", "dB PSNR")
    if task.startswith("synthesis"):
        measure, form, what = ("named", ".0%", "of the images are recognised as the target class")
    value = {m["name"]: m["means"][f"{task}: {measure}"]["estimate"] for m in models}
    controls = [m["name"] for m in models if m["control"]]
    best_one = max([n for n in value if n not in controls] or value, key=lambda name: value[name])
    beside = ", ".join(f"{name} {value[name]:{form}}" for name in controls)
    said = f"{task_title(task)} by {best_one}: {value[best_one]:{form}} {what}"
    judge = (
        f"An independent classifier, of accuracy {record['judge']['accuracy']:.1%}, says what it recognises."
    )
    return [f"{said}{f' ({beside})' if beside else ''}.", judge]
