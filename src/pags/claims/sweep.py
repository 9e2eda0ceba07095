"""The claims about a sweep of strengths (sections 3.3, 4.1, 4.2 and 5; Figure 3)."""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from pags.claims.claim import Claim, claim_records, judge
from pags.claims.networks import Columns, Means, Networks, Quantity, Undecidable, numbered
from pags.measure.regimes import TOLERANCE
from pags.records import ClaimRecord

UNTRAINED = "untrained"
CHANGE, RATIO, SHARE, COSINE, ACCURACY, LOSS = 0.12, 0.06, 0.02, 0.015, 0.006, 0.15
"""Assumed spreads among trainings: of ln(output change), ln(off/on) and ln rho1, headline, cosines, accuracy,
and of ln(training loss).
Four trainings of small networks on digits gave .04–.13, .03–.06, .01, .005–.012, .002–.007 and .03–.20."""
ROOM = math.log(2)
"""How far a logarithm may move that stays roughly constant."""
MEASURES = (("", "alignment", "headline"), ("bayes-", "bayes", "cosine with the Bayes direction"))
"""The two measures of alignment that claims are judged on: prefix of the keys, quantity, words."""


def quantities(
    norm: float, *, metric: str = "lpips", target: str = "logit", kind: str = "predicted class"
) -> dict[str, Quantity]:
    """What the claims read of a network; changes and rho1 as natural logarithms.

    Args:
        norm: of the perturbations.
        metric: of the headline, the share of the way from shuffled to ceiling.
        target: whose gradient.
        kind: of the score that it is compared with.
    """
    return {
        "on": Quantity(lambda c: c(f"on {norm:g}").log(), CHANGE),
        "off": Quantity(lambda c: c(f"off {norm:g}").log(), CHANGE),
        "off/on": Quantity(lambda c: (c(f"off {norm:g}") / c(f"on {norm:g}")).log(), RATIO),
        "rho1": Quantity(lambda c: (c("squared change off") / c("squared change")).log(), RATIO),
        "chance": Quantity(lambda c: c("chance rho2").log()),
        "accuracy": Quantity(lambda c: c("correct"), ACCURACY),
        "training loss": Quantity(lambda c: c("training loss").log(), LOSS),
        "alignment": headline(f"{metric} {target}", f"{metric} {kind}"),
        "bayes": Quantity(lambda c: c(f"bayes cosine {target}"), COSINE),
        "raw": Quantity(lambda c: c(f"{metric} {target}"), COSINE),
        "alignment of the sum": headline(f"{metric} sum-of-logits", f"{metric} all classes"),
    }


def headline(similarity: str, ceiling: str) -> Quantity:
    """(similarity − shuffled) / (ceiling − shuffled), of means over images."""

    def share(c: Callable[[str], Tensor]) -> Tensor:
        shuffled = c(f"shuffled {similarity}")
        return (c(similarity) - shuffled) / (c(f"ceiling {ceiling}") - shuffled)

    return Quantity(share, SHARE)


# What rules are made of ---------------------------------------------------------------------------------


def accurate(chosen: Means) -> Tensor:
    """Which strengths lose at most the tolerated accuracy against the most accurate one."""
    return chosen["accuracy"] >= chosen["accuracy"].max() - TOLERANCE


def last_accurate(chosen: Means) -> int:
    """The strongest accurate strength above 0."""
    return int(_robust(chosen)[-1])


def best(chosen: Means, quantity: str, sign: float = 1.0) -> int:
    """The accurate strength above 0 with the largest quantity (the smallest for sign −1)."""
    among = _robust(chosen)
    return int(among[(sign * chosen[quantity][among]).argmax()])


def peak(chosen: Means, measure: str) -> int:
    """The strength above 0, accurate or not, with the largest alignment."""
    return 1 + int(chosen[measure][1:].argmax())


def _robust(chosen: Means) -> Tensor:
    among = accurate(chosen)[1:].nonzero()[:, 0] + 1
    if not len(among):
        raise Undecidable("no network above strength 0 is accurate")
    return among


def rank_trend(values: Tensor) -> Tensor:
    """The rise from the first to the last rank along the least-squares line over the rank."""
    ranks = torch.arange(len(values), dtype=torch.float64)
    ranks = ranks - ranks.mean()
    return (ranks * values).sum() / ranks.square().sum() * (len(values) - 1)


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation over networks; its error is that of the covariance.

    The error of a correlation near 1 is small even where it is one of noise; that of the covariance is not.
    """
    a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / (a.square().sum() * b.square().sum()).sqrt().detach()


def above_references(means: Means, quantity: str, place: int, sign: float = 1.0) -> list[Tensor]:
    """A strength's quantity less that at strength 0, and less the untrained control's where there is one."""
    own = means[quantity][place]
    found = [own - means[quantity][0]]
    if UNTRAINED in means:
        found.append(own - means.of(UNTRAINED, quantity))
    return [sign * value for value in found]


# The claims ---------------------------------------------------------------------------------------------


def _standard(m: Means, chosen: Means) -> list[Tensor]:
    return [m["off/on"][0]]


def _off_falls(m: Means, chosen: Means) -> list[Tensor]:
    off = m["off"].exp()
    return [-rank_trend(off) / off[0]]


def _definition_1(m: Means, chosen: Means) -> list[Tensor]:
    place = best(chosen, "rho1", -1)
    return [m["chance"][place] - m["rho1"][place], *above_references(m, "rho1", place, -1)]


def _equal_norm(m: Means, chosen: Means) -> list[Tensor]:
    place = best(chosen, "off/on", -1)
    return [-m["off/on"][place], *above_references(m, "off/on", place, -1)]


def _off_more_than_on(m: Means, chosen: Means) -> list[Tensor]:
    return [-rank_trend(m["off/on"][: last_accurate(chosen) + 1])]


def _off_has_fallen(m: Means, chosen: Means) -> list[Tensor]:
    return [m["off"][0] - m["off"][last_accurate(chosen)] - ROOM]


def _on_is_constant(m: Means, chosen: Means) -> list[Tensor]:
    change = rank_trend(m["on"][: last_accurate(chosen) + 1])
    return [ROOM - change, ROOM + change]


def _on_falls_with(quantity: str, sign: float) -> Callable[[Means, Means], list[Tensor]]:
    """From the last accurate to the last strength on falls, and a quantity too (rises, for sign −1)."""

    def falls(m: Means, chosen: Means) -> list[Tensor]:
        last = last_accurate(chosen)
        if last == len(m["on"]) - 1:
            raise Undecidable("no strength is excessive")
        return [m["on"][last] - m["on"][-1], sign * (m[quantity][last] - m[quantity][-1])]

    return falls


def alignment_claims(prefix: str, measure: str, of: str) -> tuple[Claim, ...]:
    """The claims about one measure of alignment.

    Args:
        prefix: of the keys.
        measure: a quantity, larger where gradients are more aligned.
        of: the measure in words.
    """

    def rises(m: Means, chosen: Means) -> list[Tensor]:
        return above_references(m, measure, best(chosen, measure))

    def peaks_inside(m: Means, chosen: Means) -> list[Tensor]:
        if len(m[measure]) < 3:
            raise Undecidable("needs three strengths or more")
        place, values = 1 + int(chosen[measure][1:-1].argmax()), m[measure]
        return [values[place] - values[0], values[place] - values[-1]]

    def peak_is_above_0(m: Means, chosen: Means) -> list[Tensor]:
        return [m[measure][peak(chosen, measure)] - m[measure][0]]

    def peak_is_accurate(m: Means, chosen: Means) -> list[Tensor]:
        most = int(chosen["accuracy"].argmax())
        return [m["accuracy"][peak(chosen, measure)] - m["accuracy"][most] + TOLERANCE]

    def peak_is_off_robust(m: Means, chosen: Means) -> list[Tensor]:
        place = peak(chosen, measure)
        return [m["chance"][place] - m["rho1"][place], *above_references(m, "rho1", place, -1)]

    def correlates(m: Means, chosen: Means) -> list[Tensor]:
        return [correlation(-m["rho1"], m[measure])]

    return (
        Claim(
            f"{prefix}alignment-rises", "abstract; 4.2",
            "Accurate robust models have more aligned gradients than the standard model.",
            f"{of} of the best accurate strength, less that of strength 0 and of the untrained network",
            rises,
        ),
        Claim(
            f"{prefix}alignment-peaks-inside", "4.2, Fig. 3 bottom",
            "Perceptual alignment rises with strength, peaks at an intermediate one, then falls.",
            f"{of} of the best inner strength, less that of the first and of the last", peaks_inside,
        ),
        Claim(
            f"{prefix}peak-is-accurate", "4.2; 5",
            "The most aligned model is an accurate one.",
            f"accuracy at the peak of the {of} − best accuracy + {TOLERANCE:g}", peak_is_accurate,
            peak_is_above_0,
        ),
        Claim(
            f"{prefix}peak-is-off-robust", "4.2; 5; Def. 1",
            "The most aligned model is relatively off-manifold robust.",
            f"fall of ln rho1 at the peak of the {of}, below chance, strength 0 and the untrained network",
            peak_is_off_robust, peak_is_above_0,
        ),
        Claim(
            f"{prefix}off-robustness-correlates", "abstract; 4.2; Def. 1",
            "Off-manifold robustness correlates with perceptual alignment.",
            f"correlation of −ln rho1 and {of} over the networks of the sweep", correlates,
        ),
    )  # fmt: skip


CLAIMS = (
    Claim(
        "standard-off-above-on", "4.1, Fig. 3 top",
        "With little or no regularisation, models are less robust off the manifold than on it.",
        "ln(off/on) at strength 0", _standard,
    ),
    Claim(
        "off-falls-with-strength", "4.1, Fig. 3 top",
        "More regularisation makes models ever more robust off the manifold.",
        "fall of off along its trend over the rank of the strength, as a share of off at 0", _off_falls,
    ),
    Claim(
        "relatively-off-robust", "4.1, Def. 1; Hypothesis 2",
        "Accurate robust models become relatively off-manifold robust.",
        "fall of ln rho1 at the accurate strength where it is smallest, below chance, strength 0 and the "
        "untrained network", _definition_1,
    ),
    Claim(
        "off-below-on", "4.1, Fig. 3 top",
        "At equal norm, accurate robust models change less off the manifold than on it.",
        "−ln(off/on) at the accurate strength where off/on is smallest, also relative to strength 0 and the "
        "untrained network", _equal_norm,
    ),
    Claim(
        "off-falls-more-than-on", "3.3, Argument 1",
        "While accuracy lasts, robustness is gained off rather than on the manifold.",
        "fall of ln(off/on) along its trend over the rank, up to the last accurate strength",
        _off_more_than_on,
    ),
    Claim(
        "on-stays-constant", "4.1, Fig. 3 top",
        "While accuracy lasts, robustness on the manifold stays roughly constant.",
        "ln 2 − |change of ln on along its trend up to the last accurate strength|, where off falls by more "
        "than a factor of two",
        _on_is_constant, _off_has_fallen,
    ),
    Claim(
        "on-falls-with-accuracy", "4.1; 5",
        "Excessive strength makes models robust on the manifold at the price of accuracy.",
        "falls of ln on and of accuracy from the last accurate to the last strength",
        _on_falls_with("accuracy", 1),
    ),
    Claim(
        "on-robustness-costs-training-loss", "3.3, Argument 1",
        "Excessive strength makes models robust on the manifold at the price of training loss.",
        "fall of ln on and rise of ln training loss from the last accurate to the last strength",
        _on_falls_with("training loss", -1),
    ),
    *(claim for measure in MEASURES for claim in alignment_claims(*measure)),
    Claim(
        "sum-of-logits-agrees", "B.4, Fig. 17",
        "The gradient of the sum of the logits gives the same picture as that of one class.",
        "correlation of the two headlines over the networks of the sweep",
        lambda m, chosen: [correlation(m["alignment of the sum"], m["alignment"])],
    ),
)  # fmt: skip


def judge_sweep(
    models: Sequence[Sequence[Columns]],
    *,
    objective: str,
    norm: float,
    control: Sequence[Columns] = (),
    metric: str = "lpips",
    target: str = "logit",
    kind: str = "predicted class",
    seed: int = 0,
    claims: Iterable[Claim] = CLAIMS,
) -> list[ClaimRecord]:
    """The verdicts on the claims about one sweep.

    Args:
        models: for each seed, the columns at each strength, rising from 0; all of the same images.
        objective: the subject of the records.
        norm: of the perturbations that equal-norm claims are about.
        control: for each seed, the columns of the untrained network; none: the claims do without.
        metric, target, kind: of the headline, see `quantities`.
        seed: names the halves of the images.
        claims: what is judged, such as `(*CLAIMS, my_claim)`.

    Returns:
        One record per claim, corrected for their number.

    Raises:
        UsageError: seeds that differ in their networks or images.
    """
    named = numbered(models)
    if control:
        named = [each | {UNTRAINED: control[place % len(control)]} for place, each in enumerate(named)]
    networks = Networks(
        named, quantities(norm, metric=metric, target=target, kind=kind), len(models[0]), seed
    )
    notes = () if control else ("without the untrained control",)
    records = claim_records([judge(claim, objective, networks, *notes) for claim in claims])
    raw = [judge(claim, objective, networks) for claim in alignment_claims("", "raw", metric)]
    beside = {record["claim"]: record for record in claim_records(raw)}
    return [_with_raw(record, beside.get(record["claim"]), metric) for record in records]


def _with_raw(record: ClaimRecord, raw: ClaimRecord | None, metric: str) -> ClaimRecord:
    """A claim about the headline says what the paper's own metric gives."""
    if raw is None or raw["estimate"] is None:
        return record
    said = f"by {metric} alone: {raw['verdict']}, {raw['estimate']:+.3g}"
    return {**record, "note": "; ".join(note for note in (record.get("note"), said) if note)}
