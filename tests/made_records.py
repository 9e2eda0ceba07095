"""Small valid records and galleries of the schema in `pags.records`, made by hand, for figures and pages."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor

from conftest import seeded
from pags.figures.sweeps import settled
from pags.records import (
    AuditRecord,
    ClaimRecord,
    DataRecord,
    IntervalRecord,
    ModelRecord,
    Record,
    RegimeRecord,
    ReproductionRecord,
    SweepLine,
    SweepRecord,
)

OBJECTIVES = ("gradient-norm", "smoothing", "pgd", "smoothness")
TITLES = {
    "gradient-norm": ("Gradient-norm regularisation", "λ"), "smoothing": ("Randomised smoothing", "σ"),
    "pgd": ("Adversarial training (l2-PGD)", "ε"), "smoothness": ("Smoothness penalty", "λ"),
}  # fmt: skip
STRENGTHS = (0.0, 0.3, 0.6, 1.0)
REGIMES = ("weak", "Bayes-aligned", "Bayes-aligned / excessive", "excessive")
TARGETS, METRICS = ("logit", "sum-of-logits"), ("lpips", "cosine")
NORMS = (0.25, 0.5, 1.0)
CLASSES = [f"digit {place}" for place in range(10)]
KINDS = {"logit": "predicted class", "sum-of-logits": "all classes", "loss": "true class"}


def about(estimate: float) -> IntervalRecord:
    """An estimate with a narrow interval."""
    return {"estimate": estimate, "low": estimate - 0.01, "high": estimate + 0.01, "level": 0.95}


def model(
    name: str, step: int, *, targets: Sequence[str] = TARGETS, metrics: Sequence[str] = METRICS, **more: Any
) -> ModelRecord:
    """A model whose numbers tell its place in a sweep of four; the second and third are the most aligned."""
    peak = (0.3, 0.45, 0.55, 0.35)[min(step, 3)]
    means: dict[str, IntervalRecord | None] = {
        "correct": about(0.98 - 0.01 * step - 0.2 * (step == 3)), "confidence": about(0.9),
        "robust 0.5": about(0.2 + 0.15 * step), "chance rho2": about(0.75), "kept logit": about(0.8),
    }  # fmt: skip
    for norm in NORMS:
        means |= {f"on {norm:g}": about(norm * 0.2), f"off {norm:g}": about(norm * (0.35 - 0.1 * step)),
                  f"any {norm:g}": about(norm * (0.3 - 0.05 * step))}  # fmt: skip
    for target in targets:
        kind = KINDS.get(target, "all classes")
        means |= {f"rho2 {target}": about(0.7 - 0.1 * step), f"control rho2 {target}": about(0.74)}
        means[f"rho2 score {kind}"] = about(0.4)
        for place, metric in enumerate(metrics):
            column, by = f"{metric} {target}", 0.2 * place
            means |= {
                column: about(peak - by), f"shuffled {column}": about(0.28 - by),
                f"control {column}": about(0.2 - by), f"smooth 0.1 {column}": about(peak + 0.05 - by),
                f"shuffled smooth 0.1 {column}": about(0.3 - by),
                f"floor {metric} {kind}": about(0.15 - by), f"ceiling {metric} {kind}": about(0.8 - by),
            }  # fmt: skip
        means[f"bayes cosine {target}"] = about(0.1 * step - 0.00402)
    ratios = {f"off/on {norm:g}": about(1.3 - 0.25 * step) for norm in NORMS} | {
        "rho1": about(0.6 - 0.1 * step)
    }
    above = {f"{metric} {target}": about(peak - 0.28) for metric in metrics for target in targets}
    regime: RegimeRecord = {
        "name": None if name == "untrained" else REGIMES[min(step, 3)], "accuracy_lost": about(0.01 * step),
        "rule": "by off/on 0.5, and at most 0.05 of accuracy lost",
    }  # fmt: skip
    settings = {
        "targets": list(targets), "metrics": list(metrics), "norms": list(NORMS), "norm": 0.5, "radii": [0.5],
        "compared with": {target: KINDS.get(target, "all classes") for target in targets},
        "missing": [], "shape": [1, 8, 8], "size": [8, 8], "change": "softmax-l2", "seed": 0,
    }  # fmt: skip
    made = {
        "name": name, "about": {"spec": name}, "settings": settings, "means": means, "ratios": dict(ratios),
        "above_shuffled": dict(above), "regime": regime,
    }  # fmt: skip
    return cast(ModelRecord, made | more)


def data_record(shape: Sequence[int] = (1, 8, 8)) -> DataRecord:
    """Of digits that nobody wrote."""
    return {
        "name": "patterns", "train": 100, "images": 50, "shape": list(shape), "classes": CLASSES,
        "provenance": {"source": "made"},
    }  # fmt: skip


def sweep_record(
    objectives: Sequence[str] = OBJECTIVES,
    strengths: Sequence[float] = STRENGTHS,
    *,
    shape: Sequence[int] = (1, 8, 8),
    targets: Sequence[str] = TARGETS,
    metrics: Sequence[str] = METRICS,
) -> SweepRecord:
    """What finished sweeps say; an objective that is not ours is called as a user called it."""
    lines: list[SweepLine] = []
    models = [model("untrained", 0, targets=targets, metrics=metrics),
              model("standard", 0, targets=targets, metrics=metrics, objective=objectives[0], strength=0.0),
              ]  # fmt: skip
    for objective in objectives:
        title, symbol = TITLES.get(objective, (f"My {objective}", "τ"))
        lines.append({"objective": objective, "strengths": list(strengths), "title": title, "symbol": symbol})
        steps = len(strengths) - 1
        for place, strength in enumerate(strengths[1:], 1):
            step, name = round(3 * place / steps), f"{objective} {strength:g}"
            about_it = {"objective": objective, "strength": strength}
            models.append(model(name, step, targets=targets, metrics=metrics, **about_it))
    settings = {"repeats": 1, "seed": 0}
    return {
        "key": "0", "settings": settings, "data": data_record(shape), "estimators": {},
        "chance": {"rho2": 0.75, "k": 16}, "sweeps": lines, "models": models,
    }  # fmt: skip


def strokes(images: int, shape: Sequence[int]) -> Tensor:
    """Pictures that are not noise: a bright ring whose size and place differ."""
    c, height, width = shape
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    found = [
        torch.exp(-((((x - 0.1 * n) ** 2 + (y + 0.08 * n) ** 2).sqrt() - 0.35 - 0.05 * n) ** 2) / 0.03)
        for n in range(images)
    ]
    return torch.stack(found)[:, None].expand(images, c, height, width).contiguous()


def gallery_of(record: SweepRecord, images: int = 3) -> dict[str, Tensor]:
    """Its pictures: scores that see the image, gradients that see it more with the strength."""
    draws, shape = seeded(1), record["data"]["shape"]
    pixels = strokes(images, shape)
    found = {"images": pixels, "labels": torch.arange(images) % 10}
    found["directions"] = torch.randn((3, images, *shape), generator=draws)
    found["directions on"] = found["directions"] / 3
    measured = record["models"][0]["settings"]
    targets, metrics = measured["targets"], measured["metrics"]
    edges = pixels - pixels.roll(1, -1)
    for target in targets:
        found[f"score {target}"] = edges + 0.05 * torch.randn((images, *shape), generator=draws)
        found[f"on score {target}"] = found[f"score {target}"] / 2
    for entry in record["models"]:
        share = min(1.0, entry.get("strength", 0.0))
        for target in targets:
            key = f"{entry['name']} {target}"
            noise = torch.randn((images, *shape), generator=draws)
            found[f"gradient {key}"] = share * edges + (1.05 - share) * 0.3 * noise
            found[f"on gradient {key}"] = found[f"gradient {key}"] * torch.rand(
                (images, *shape), generator=draws
            )
            for metric in metrics:
                found[f"{metric} {key}"] = torch.rand(images, generator=draws)
            found[f"layers {key}"] = torch.rand((images, 5), generator=draws) / 5
    return found


def claim(key: str, subject: str, verdict: str, **more: str) -> ClaimRecord:
    """A verdict that its numbers allow."""
    estimate = {"supported": 0.25, "contradicted": -0.25, "undecided": 0.0}[verdict]
    made = {
        "claim": key, "subject": subject, "place": "4.1", "statement": f"What {key} says.",
        "rule": f"rule of {key}", "verdict": verdict,
    }  # fmt: skip
    return cast(ClaimRecord, made | dict(about(estimate)) | more)


def claims(objectives: Sequence[str] = OBJECTIVES) -> list[ClaimRecord]:
    """Two claims on every sweep, one on a model, one on a variant of the data."""
    keys = ("off-falls-monotonically", "alignment-peaks-inside", "sum-of-logits-agrees")
    found = [claim(key, name, "supported") for name in objectives for key in keys]
    note = "The smallest gain stands at the last strength."
    return [
        *found, claim("synthesis", "pgd 0.6", "contradicted", note=note),
        claim("on-signal", "null bar", "undecided"),
    ]  # fmt: skip


MADE = {"pags": "0.1.0", "torch": "2.9", "commit": "0123abc", "date": "2026-11-27", "machine": "2 cores"}


def reproduction_record(parts: Sequence[str], figures: Sequence[str]) -> ReproductionRecord:
    """What ran."""
    return {
        "command": "pags reproduce 1 3 --data patterns --scale smoke", "scale": "smoke",
        "settings": {"data": "patterns", "seed": 5}, "parts": list(parts),
        "figures": list(figures),
        "data": data_record() if "sweep" in parts else None, "claims": claims(), "made": MADE,
    }  # fmt: skip


def audit_record(names: Sequence[str] = ("standard", "robust")) -> AuditRecord:
    """Several models on one evaluation set."""
    targets = ("logit", "loss", "sum-of-logits")
    models = [model(name, 2 * place, targets=targets) for place, name in enumerate(names)]
    pairs: list[Record] = [
        {"first": a["name"], "second": b["name"],
         "differences": {n: about(0.1) for n in [*a["means"], *a["ratios"]]}}
        for place, a in enumerate(models) for b in models[place + 1 :]
    ]  # fmt: skip
    estimators = {
        "manifold": {"from": "an autoencoder trained here"}, "score": {"from": "a denoiser trained here"},
        "ceiling": {"from": "the ideal denoiser"}, "sigma": 0.5, "size": [8, 8], "notes": ["50 images only"],
    }  # fmt: skip
    return {
        "settings": {"seed": 0}, "data": data_record(), "estimators": estimators, "models": models,
        "pairs": pairs, "made": MADE,
    }  # fmt: skip


def audit_tensors(record: AuditRecord) -> dict[str, Tensor]:
    """The pictures of an audit, four images for each model."""
    found: dict[str, Tensor] = {}
    shape = record["data"]["shape"]
    for place in range(len(record["models"])):
        draws, pixels = seeded(place), strokes(4, shape)
        edges = pixels - pixels.roll(1, -1)
        noise = torch.randn((4, *shape), generator=draws) / (1 + 4 * place)
        panels = {"image": pixels, "gradient": edges + noise, "score": edges, "smooth": edges + noise / 2,
                  "value": torch.linspace(0.7, 0.2, 4)}  # fmt: skip
        found |= {f"{place}/panel/{name}": value for name, value in panels.items()}
    return found


TASKS = ("synthesis-from-noise", "synthesis-from-class", "denoising", "in-painting", "super-resolution")


def generation_record(models: Sequence[str] = ("untrained", "standard", "pgd 0.6")) -> Record:
    """What following gradients made."""

    def means(step: int) -> dict[str, IntervalRecord]:
        found: dict[str, IntervalRecord] = {}
        for task in TASKS:
            names = (
                {"named": 0.1 + 0.3 * step}
                if task.startswith("synthesis")
                else {"psnr": 12 + 2.0 * step, "lpips": 0.4 - 0.1 * step}
            )
            found |= {f"{task}: {name}": about(value) for name, value in names.items()}
        return found

    entries = [
        {
            "name": name,
            "control": place < 2,
            "accuracy": 0.9,
            "means": means(place),
            "gain": means(place),
            "above": {},
        }
        for place, name in enumerate(models)
    ]
    return {
        "settings": {"tasks": list(TASKS), "images": 20, "shown": 4, "seed": 0}, "data": data_record() | {},
        "judge": {"accuracy": 0.97}, "starts": means(0), "models": entries, "made": MADE,
    }  # fmt: skip


def generation_panels(record: Record) -> dict[str, Tensor]:
    """The images that were made."""
    pixels = strokes(4, (1, 8, 8))
    labels = torch.arange(4)
    found = {"originals": pixels, "labels": labels, "targets": labels + 1, "masks": torch.zeros(4, 1, 8, 8)}
    for place, task in enumerate(record["settings"]["tasks"]):
        noise = torch.rand(pixels.shape, generator=seeded(place))
        found[f"start {task}"] = noise
        for step, entry in enumerate(record["models"]):
            share = (step + 1) / len(record["models"])
            found[f"{entry['name']} {task}"] = (1 - share) * noise + share * pixels
    return found


def parts(record: SweepRecord | None = None) -> Any:
    """All parts of an experiment, as `pags.figures.kinds.Parts`."""
    record = sweep_record() if record is None else record
    strengths = (0.0, 0.6, 1.2)
    transferred = [
        model("standard" if not s else f"pgd {s:g}", place, strength=s) for place, s in enumerate(strengths)
    ]
    transfer = {"data": "patterns ×2", "size": [1, 16, 16], "networks": "trained on larger images",
                "images": 50, "models": transferred}  # fmt: skip
    small = gallery_of(sweep_record(("pgd",), strengths))
    levels = [0.0, 0.1, 0.2, 0.4]
    network = {
        "ratios": [about(1.5), about(1.6), about(1.7)],
        "means": {"energy on signal": about(0.6), "pixels on signal": about(0.5)},
    }
    names = ("A", "H", "AX")
    distractor = {
        "settings": {"data": "mnist", "levels": levels},
        "variants": [{"name": f"{n}, informative 0", "standard": network, "robust": network} for n in names],
    }
    pixels = strokes(4, (1, 8, 16))
    drawn = {"images 0": pixels, "noise on signal 0": pixels, "noise on distractor 0": pixels,
             "gradient standard 0": pixels - 0.3, "gradient robust 0": pixels - 0.1}  # fmt: skip
    smooth = [
        {"strength": s, "means": {f"{prefix}{metric} logit": about(0.3 + 0.1 * place)
                                  for prefix in ("", "smooth 0.05 ", "smooth 0.1 ") for metric in METRICS}}
        for place, s in enumerate(STRENGTHS)
    ]  # fmt: skip
    generation = generation_record()
    return SimpleNamespace(
        settings=SimpleNamespace(seed=0), objective="pgd", sweep=record,
        gallery=gallery_of(record), score_shares={"sigmas": [0.1, 1.0], "off": [about(0.8), about(0.5)]},
        transfer=transfer, transfer_gallery=small, distractor=distractor, distractor_gallery=drawn,
        generation=generation, generation_panels=generation_panels(generation),
        smoothgrad={"objective": "pgd", "levels": [0.05, 0.1], "strengths": smooth},
        manifold=dependence_record(record), bayes=bayes_record(record),
    )  # fmt: skip


def bayes_record(record: SweepRecord) -> Record:
    """The denoiser's own classifier at two noise levels."""
    levels = [
        {
            "sigma": sigma,
            "off/on": about(0.4 * sigma),
            "correct": about(0.9),
            "on": about(0.2),
            "off": about(0.1),
        }
        for sigma in (0.5, 1.0)
    ]
    return {"norm": settled(record, "norm", None), "images": 20, "directions": 2, "levels": levels}


def dependence_record(record: SweepRecord) -> Record:
    """One sweep's ratios for tangent spaces of two dimensions, by two estimators."""
    norm = settled(record, "norm", None)
    ratios = {"ratios": {f"off/on {norm:g}": about(0.7), "rho1": about(0.6), "rho2 logit": about(0.5)}}
    names = {"autoencoder": "decoder of an autoencoder", "local-pca": "local PCA"}
    return {
        "objective": "pgd", "strengths": list(STRENGTHS), "k": [4, 8], "images": 20, "pixels": 64,
        "models": {name: [[ratios for _ in STRENGTHS]] * 2 for name in names}, "titles": names,
    }  # fmt: skip


def theory_record() -> Record:
    """Rows and curves of the exact laboratory, a few points each."""
    level = {"estimate": 0.2, "low": 0.1, "high": 0.3}
    noise, sizes, runs = [1e-3, 1e-2, 1e-1], [250, 1000, 4000], [[0.3, 0.2, 0.1], [0.4, 0.2, 0.05]]
    line = {"distance": [1e-6, 1e-4, 1e-2], "distance_error": [1e-7, 1e-4, 1e-3]}
    flat = {"distance": [1e-16] * 3, "distance_error": [1e-17] * 3}
    shares = {kind: [level] * 3 for kind in ("noisy", "score", "bayes")} | {"chance": 0.9}
    trace = {"runs": [{"on": run, "off": run, "loss": run} for run in runs]}
    points = [{"cosine": 0.1 * p, "rho2": 0.5, "accuracy": 0.9} for p in range(3)]
    curves = {
        "theorem_1": {
            "linear": {"noise": noise, "rate": None, "bases": {"exact": flat}},
            "softplus": {"noise": noise, "rate": 2.0, "bases": {"exact": line, "decoder": line}},
        },
        "theorem_2": {
            "slider": [{"informative": x, "density": level, "bayes": level} for x in (0.0, 0.5, 1.0)],
            "manifolds": {"one flat manifold": shares, "one curved manifold": shares}, "sigmas": noise,
        },
        "argument_1": {"traces": [trace | {"strength": 0.0}, trace | {"strength": 1.0}]},
        "argument_2": {
            "span": {"gradient descent from elsewhere": 0.1, "ridge": 1e-15}, "sizes": sizes,
            "decays": dict.fromkeys(("correlated", "leaking", "uncorrelated"), runs),
        },
        "bayes_gradient": {
            "strengths": {"pgd": [0, 1, 2]}, "runs": [{"pgd": points}, {"pgd": points}],
            "bayes_accuracy": 0.97,
        },
    }  # fmt: skip
    rows = [
        dict(claim("agrees", "-", "supported")) | {"expected": 0.0},
        dict(claim("falls", "-", "undecided")) | {"expected": None},
    ]
    parts = {name: {"rows": rows, "curves": found} for name, found in curves.items()}
    return {"seed": 0, "quick": True, "parts": parts, "made": MADE}
