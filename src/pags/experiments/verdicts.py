"""The claims over all that a reproduction measured: sweeps, other sizes, distractors, phenomena."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from pags.errors import PagsError
from pags.experiments import smoothgrad
from pags.experiments.claims import Verdict, claim_record, judged
from pags.experiments.distractor import Distractor
from pags.experiments.distractor_claims import distractor_claims
from pags.experiments.figures.sources import Sources
from pags.experiments.figures.sweeps import best
from pags.experiments.stages import SIGMAS
from pags.experiments.transfer import Transfer
from pags.measure.statistics import Interval, spearman
from pags.seeds import generator
from pags.store import Record

RECORD = "records/claims.json"


def all_claims(sources: Sources, parts: tuple[str, ...]) -> list[Record]:
    """The verdicts on every claim that the given parts of the experiment can decide.

    Args:
        sources: the parts.
        parts: names among `PARTS`.
    """
    return [record for part in PARTS if part in parts for record in PARTS[part](sources)]


def _of_sweeps(sources: Sources) -> list[Record]:
    return list(sources.sweep["claims"])


def _of_score(sources: Sources) -> list[Record]:
    """What the proof of Theorem 2 takes for granted, at the smallest noise level that is measured."""
    table = sources.score_shares[f"off-share {SIGMAS[0]:g}"][:, None]
    chance = sources.sweep["chance"]["rho2"]
    rule = Verdict(
        "score-is-tangent", "A, proof of Theorem 2",
        "The gradients of the data's log-density lie in the tangent space.",
        f"share of the score's energy in the tangent space at σ = {SIGMAS[0]:g}, less chance",
        lambda means: chance - means[:, 0],
    )  # fmt: skip
    return [_judged(sources, rule, "score", table)]


def _of_distractor(sources: Sources) -> list[Record]:
    assert sources.distractor
    return distractor_claims(Distractor(sources.settings.distractor, sources.store))


def _of_transfer(sources: Sources) -> list[Record]:
    """Figure 4: alignment rises with strength while accuracy lasts, also at a higher resolution."""
    assert sources.transfer
    state = Transfer(sources.settings.transfer, sources.stages)
    columns = [state.measures(strength)["similarity"] for strength in state.strengths]
    order = torch.arange(len(columns), dtype=torch.float64)[None]
    rule = Verdict(
        "alignment-rises-at-higher-resolution", "4.2, Fig. 4",
        "On ImageNet too, the similarity of gradients with the score gradually increases with robustness.",
        "Spearman's correlation of strength and mean similarity, networks at a higher resolution than the "
        "score",
        lambda means: spearman(order.expand_as(means), means),
    )  # fmt: skip
    return [_judged(sources, rule, "pgd", torch.stack(columns, 1))]


def _of_generation(sources: Sources) -> list[Record]:
    """Phenomenon 2: the best-aligned accurate model against controls and against the start."""
    record = sources.generation
    chosen = best(sources.sweep, sources.objective)
    name = f"{sources.objective} {chosen['strength']:g}"
    model = next(model for model in record["models"] if model["name"] == name)
    tasks = record["settings"]["tasks"]
    found = []
    for task in (task for task in tasks if task.startswith("synthesis")):
        rule = _rule(
            f"{task}-by-robust", "1, Phenomenon 2",
            "Following the gradient of a robust model makes images of a class.",
            "share named as the target by an independent network, robust − unrobust model",
        )  # fmt: skip
        found.append(claim_record(rule, name, _interval(model["above"]["unrobust"][f"{task}: named"])))
    for task in (task for task in tasks if not task.startswith("synthesis")):
        rule = _rule(
            f"{task}-by-robust", "abstract; 1",
            "The gradients of robust models can restore images.",
            "gain in PSNR over the degraded image, dB",
        )  # fmt: skip
        found.append(claim_record(rule, name, _interval(model["gain"][f"{task}: psnr"])))
    return found


def _of_smoothgrad(sources: Sources) -> list[Record]:
    """Phenomenon 3: SmoothGrad on the unrobust model, and how much more than on the best-aligned one."""
    record = sources.smoothgrad
    level = f"{smoothgrad.LEVELS[1]:g}"
    chosen = best(sources.sweep, sources.objective)["strength"]
    weak = record["strengths"][0]
    robust = next(entry for entry in record["strengths"] if entry["strength"] == chosen)
    helps = _rule(
        "smoothgrad-aligns", "1, Phenomenon 3",
        "SmoothGrad makes the gradients of standard models more perceptually aligned.",
        f"gain in 1 − LPIPS with the score at noise {level}, unrobust model",
    )  # fmt: skip
    more = _rule(
        "smoothgrad-helps-weak-models-more", "1, Phenomenon 3; 3.1",
        "SmoothGrad stands in for robustness: it adds less where robustness is there.",
        f"that gain less the gain of the {sources.objective} {chosen:g} model",
    )  # fmt: skip
    return [
        claim_record(helps, sources.objective, _interval(weak["gain"][f"similarity {level}"])),
        claim_record(more, sources.objective, _interval(robust["more at 0"][f"similarity {level}"])),
    ]


PARTS: dict[str, Callable[[Sources], list[Record]]] = {
    "sweep": _of_sweeps,
    "score": _of_score,
    "transfer": _of_transfer,
    "distractor": _of_distractor,
    "generation": _of_generation,
    "smoothgrad": _of_smoothgrad,
}
"""Which part decides which claims."""


def _rule(key: str, place: str, statement: str, rule: str) -> Verdict:
    """A claim whose interval has been measured already."""
    return Verdict(key, place, statement, rule, partial(_measured, key))


def _measured(key: str, means: Tensor) -> Tensor:
    raise PagsError("a claim to be judged", got=f"{key}, measured already", suggestion="claim_record")


def _interval(record: Record) -> Interval:
    parts = (record[part] for part in ("estimate", "low", "high"))
    estimate, low, high = (math.nan if part is None else part for part in parts)
    return Interval(estimate, low, high, record["level"])


def _judged(sources: Sources, rule: Verdict, about: str, table: Tensor) -> Record:
    config = sources.settings.sweep
    draws = generator(config.seed, "claim", rule.key, about)
    return judged(rule, about, table.cpu(), draws=draws, resamples=config.resamples)
