"""The claims about the score, higher resolutions, generation and SmoothGrad (Figure 4; Phenomena 2 and 3)."""

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor

from pags.claims.claim import TANGENT, Claim, Judged, claim_records, judge
from pags.claims.networks import Columns, Means, Networks, Quantity, numbered
from pags.claims.sweep import ACCURACY, COSINE, MEASURES, SHARE, best, headline, rank_trend
from pags.records import ClaimRecord

# The score ----------------------------------------------------------------------------------------------

SCORE_CLAIMS = (
    Claim(
        "score-is-tangent", "A, proof of Theorem 2",
        "The gradients of the data's log-density lie in the tangent space.",
        f"{TANGENT:g} − share of the score's energy off the manifold",
        lambda m, chosen: [TANGENT - m["score"][0]], table="score",
    ),
    Claim(
        "bayes-direction-is-tangent", "Theorem 2",
        "The gradient of log p(y|x) lies in the tangent space.",
        f"{TANGENT:g} − share of the Bayes direction's energy off the manifold",
        lambda m, chosen: [TANGENT - m["bayes"][0]], table="score",
    ),
)  # fmt: skip


def judge_score(
    columns: Columns,
    *,
    subject: str = "score",
    score: str = "rho2 score predicted class",
    bayes: str = "rho2 bayes direction",
    seed: int = 0,
    claims: Iterable[Claim] = SCORE_CLAIMS,
) -> list[ClaimRecord]:
    """The verdicts on where the score and the Bayes direction point.

    Args:
        columns: per image, the share of energy off the manifold of the two, and `chance rho2`.
        subject: of the records.
        score, bayes: the names of the two columns.
        seed, claims: as in `judge_sweep`.
    """
    named = {"score": score, "bayes": bayes}
    shares = {name: Quantity(_mean_of(column), COSINE) for name, column in named.items()}
    networks = Networks([{"denoiser": columns}], shares, 1, seed)
    chance = columns.get("chance rho2")
    note = () if chance is None else (f"chance is {1 - float(chance.nanmean()):.3g} on the manifold",)
    return claim_records([judge(claim, subject, networks, *note) for claim in claims])


def _mean_of(column: str) -> Callable[[Callable[[str], Tensor]], Tensor]:
    return lambda c: c(column)


# A higher resolution ------------------------------------------------------------------------------------


def _rises(measure: str) -> Callable[[Means, Means], list[Tensor]]:
    return lambda m, chosen: [rank_trend(m[measure])]


TRANSFER_CLAIMS = tuple(
    Claim(
        f"{prefix}alignment-rises-at-higher-resolution", "4.2, Fig. 4",
        "On ImageNet too, the similarity of gradients with the score gradually increases with robustness.",
        f"rise of the {of} along its trend over the rank of the strength, networks at a higher resolution "
        "than the score", _rises(measure), table="transfer",
    )
    for prefix, measure, of in MEASURES
)  # fmt: skip


def judge_transfer(
    models: Sequence[Sequence[Columns]],
    *,
    subject: str = "pgd",
    metric: str = "lpips",
    target: str = "logit",
    kind: str = "predicted class",
    seed: int = 0,
    claims: Iterable[Claim] = TRANSFER_CLAIMS,
) -> list[ClaimRecord]:
    """The verdicts on networks at a higher resolution than the score.

    Args:
        models: for each seed, the columns at each strength, rising; all of the same images.
        subject: of the records.
        metric, target, kind, seed, claims: as in `judge_sweep`.
    """
    measures = {
        "alignment": headline(f"{metric} {target}", f"{metric} {kind}"),
        "bayes": Quantity(_mean_of(f"bayes cosine {target}"), COSINE),
    }
    networks = Networks(numbered(models), measures, len(models[0]), seed)
    return claim_records([judge(claim, subject, networks) for claim in claims])


# Generation ---------------------------------------------------------------------------------------------

SYNTHESES = ("synthesis-from-noise", "synthesis-from-class")
RESTORATIONS = ("denoising", "in-painting", "super-resolution")
DECIBELS = 0.2
"""Assumed spread among trainings of a restoration's PSNR."""


def _than_standard(task: str) -> Callable[[Means, Means], list[Tensor]]:
    return lambda m, chosen: [m.of("robust", task) - m.of("standard", task)]


def _than_all(task: str) -> Callable[[Means, Means], list[Tensor]]:
    return lambda m, chosen: [
        m.of("robust", task) - m.of(other, task) for other in ("start", "standard", "blur")
    ]


GENERATION_CLAIMS = (
    *(
        Claim(
            f"{task}-by-robust", "1, Phenomenon 2",
            "Following the gradient of a robust model makes images of a class.",
            "share recognised as the target class by an independent classifier, robust − standard network",
            _than_standard(task), table="generation",
        )
        for task in SYNTHESES
    ),
    *(
        Claim(
            f"{task}-by-robust", "abstract; 1",
            "The gradients of robust models can restore images.",
            "PSNR of the robust network's result, less that of the degraded image, of the standard network's "
            "result, and of a plain blur, dB", _than_all(task), table="generation",
        )
        for task in RESTORATIONS
    ),
)  # fmt: skip


def judge_generation(
    robust: Columns,
    standard: Columns,
    *,
    start: Columns,
    blur: Columns | None = None,
    subject: str,
    labels_predicted: bool = True,
    seed: int = 0,
    claims: Iterable[Claim] = GENERATION_CLAIMS,
) -> list[ClaimRecord]:
    """The verdicts on following the gradient, for the tasks that were done.

    Args:
        robust, standard: per image, `TASK: named` and, for restorations, `TASK: psnr` of the results.
        start: the same of the images that were started from.
        blur: the same of a plain blur of these; without it restoration is not judged.
        subject: the robust network's name. It was chosen by its alignment, not by these results.
        labels_predicted: whether the classes followed in restoration are those that the network itself
            predicts. Where they are the true ones, restoration is not judged: the label helps.
        seed, claims: as in `judge_sweep`.
    """
    named = {"robust": robust, "standard": standard, "start": start} | ({"blur": blur} if blur else {})
    measures = {task: Quantity(_mean_of(f"{task}: named"), 5 * ACCURACY) for task in SYNTHESES}
    measures |= {task: Quantity(_mean_of(f"{task}: psnr"), DECIBELS) for task in RESTORATIONS}
    networks = Networks([named], measures, len(named), seed)
    done = {name.split(":")[0] for name in robust}
    found = []
    for claim in (claim for claim in claims if claim.key.removesuffix("-by-robust") in done):
        if claim.key.startswith(RESTORATIONS) and not labels_predicted:
            found.append(
                Judged(claim, subject, (), notes=("the true labels were given, not predicted ones",))
            )
        else:
            found.append(judge(claim, subject, networks, *_at_the_maximum(claim, robust, standard)))
    return claim_records(found)


def _at_the_maximum(claim: Claim, robust: Columns, standard: Columns) -> tuple[str, ...]:
    name = claim.key.replace("-by-robust", ": named")
    full = claim.key.startswith(SYNTHESES) and all(float(c[name].min()) == 1 for c in (robust, standard))
    return ("both at the maximum",) if full else ()


# SmoothGrad ---------------------------------------------------------------------------------------------


def _gain(measure: str) -> Callable[[Means, Means], list[Tensor]]:
    return lambda m, chosen: [m[f"{measure} gain"][0]]


def _more_gain(measure: str) -> Callable[[Means, Means], list[Tensor]]:
    def more(m: Means, chosen: Means) -> list[Tensor]:
        gain = m[f"{measure} gain"]
        return [gain[0] - gain[best(chosen, measure)]]

    return more


SMOOTHGRAD_CLAIMS = tuple(
    claim
    for prefix, measure, of in MEASURES
    for claim in (
        Claim(
            f"{prefix}smoothgrad-aligns", "1, Phenomenon 3",
            "SmoothGrad makes the gradients of standard models more perceptually aligned.",
            f"what SmoothGrad adds to the {of} of the standard network", _gain(measure), table="smoothgrad",
        ),
        Claim(
            f"{prefix}smoothgrad-helps-weak-models-more", "1, Phenomenon 3; 3.1",
            "SmoothGrad stands in for robustness: it adds less where robustness is there.",
            f"that gain, less the gain of the accurate robust network with the largest {of}",
            _more_gain(measure), table="smoothgrad",
        ),
    )
)  # fmt: skip


def judge_smoothgrad(
    models: Sequence[Sequence[Columns]],
    *,
    objective: str,
    level: float = 0.1,
    metric: str = "lpips",
    target: str = "logit",
    kind: str = "predicted class",
    seed: int = 0,
    claims: Iterable[Claim] = SMOOTHGRAD_CLAIMS,
) -> list[ClaimRecord]:
    """The verdicts on SmoothGrad along a sweep.

    Args:
        models: for each seed, the columns at each strength, rising from 0, with those of `smooth LEVEL `.
        objective: the subject of the records.
        level: SmoothGrad's noise.
        metric, target, kind, seed, claims: as in `judge_sweep`.
    """
    similarity, ceiling, smooth = f"{metric} {target}", f"{metric} {kind}", f"smooth {level:g} "
    plain, smoothed = headline(similarity, ceiling), headline(smooth + similarity, ceiling)
    cosine = f"bayes cosine {target}"
    measures = {
        "accuracy": Quantity(_mean_of("correct"), ACCURACY),
        "alignment": plain,
        "bayes": Quantity(_mean_of(cosine), COSINE),
        "alignment gain": Quantity(lambda c: smoothed.of(c) - plain.of(c), SHARE),
        "bayes gain": Quantity(lambda c: c(smooth + cosine) - c(cosine), COSINE),
    }
    networks = Networks(numbered(models), measures, len(models[0]), seed)
    return claim_records([judge(claim, objective, networks) for claim in claims])
