"""One claim and one rule for its verdict, whatever it is about.

A claim is *supported* where the whole interval lies inside the range in which it holds, *contradicted* where
the whole interval lies outside, and *undecided* otherwise. The claims of a table share an error rate (Holm).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pags.claims.networks import Estimate, Networks, Statistic, Undecidable
from pags.records import ClaimRecord

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
LEVEL = 0.95
TANGENT = 0.1
"""The largest share of energy off the manifold with which a vector is called tangent, wherever it is said."""


@dataclass(frozen=True)
class Claim:
    """One claim, about one kind of table.

    Args:
        key: a short name.
        place: where the paper makes it.
        statement: what it says.
        rule: the statistic in words; the claim holds where every number of it is above 0.
        statistic: from (judged, chosen) to one number or several, see `Means`. What is picked by its size,
            such as a peak, is picked on `chosen`: other images and, where there are, other seeds.
        given: numbers of the same kind that must be above 0 for the claim to be about anything.
        table: what it is judged on: "sweep", "transfer", "distractor", "generation", "smoothgrad" or "score".
    """

    key: str
    place: str
    statement: str
    rule: str
    statistic: Statistic
    given: Statistic | None = None
    table: str = "sweep"


@dataclass(frozen=True)
class Judged:
    """A claim with its estimates, before the correction for the other claims of its table."""

    claim: Claim
    subject: str
    parts: Sequence[Estimate]
    given: Sequence[Estimate] = ()
    notes: tuple[str, ...] = ()

    @property
    def weakest(self) -> Estimate:
        """The part that is least surely above 0."""
        return min(self.parts, key=lambda part: part.in_errors)

    @property
    def p_supported(self) -> float:
        """Probability of such estimates where the claim does not hold: all parts must be above 0."""
        return max(part.p_not_above for part in (*self.parts, *self.given))

    @property
    def p_contradicted(self) -> float:
        """Probability of such estimates where it holds: any one part may be below 0, so all are counted."""
        below = min(1.0, len(self.parts) * (1 - self.weakest.p_not_above))
        return max(below, *(part.p_not_above for part in self.given), 0.0)

    @property
    def p(self) -> float:
        """Of both sides; NaN where the statistic is not defined."""
        if not self.parts or any(math.isnan(e.value) for e in (*self.parts, *self.given)):
            return math.nan
        return min(1.0, 2 * min(self.p_supported, self.p_contradicted))


def verdict(low: float, high: float, *, above: float = 0.0, below: float = math.inf) -> str:
    """The verdict on a claim that holds for values in the open range (above, below)."""
    if low > above and high < below:
        return SUPPORTED
    return CONTRADICTED if high < above or low > below else UNDECIDED


def claim_records(table: Sequence[Judged]) -> list[ClaimRecord]:
    """The records of a table's claims, in its order, corrected for their number.

    The k-th smallest of m probabilities is compared with 0.05 / (m − k + 1), up to the first that is too
    large (Holm 1979). The interval of a record is that of the level at which its claim was tested, so that
    a claim is decided only where it lies on one side of 0.
    """
    defined = sorted((judged.p, place) for place, judged in enumerate(table) if not math.isnan(judged.p))
    errors, error, decided = {}, 1 - LEVEL, True
    for tested, (p, place) in enumerate(defined):
        if decided:
            error = (1 - LEVEL) / (len(defined) - tested)
            decided = p < error
        errors[place] = error
    return [_record(judged, errors.get(place, 1 - LEVEL)) for place, judged in enumerate(table)]


def _record(judged: Judged, error: float) -> ClaimRecord:
    claim, notes = judged.claim, list(judged.notes)
    estimate = low = high = math.nan
    said = UNDECIDED
    if not math.isnan(judged.p):
        weakest = judged.weakest
        estimate = weakest.value
        low, high = weakest.low(error / 2), weakest.high(error / 2 / len(judged.parts))
        established = all(part.p_not_above <= error / 2 for part in judged.given)
        said = verdict(low, high) if established else UNDECIDED
        if not established:
            notes.append("what the claim presupposes is not established")
        if estimate == 0:
            notes.append("a tie")
    elif judged.parts:
        notes.append("not defined for these networks")
    record: ClaimRecord = {
        "claim": claim.key, "subject": judged.subject, "place": claim.place, "statement": claim.statement,
        "rule": claim.rule, "estimate": finite(estimate), "low": finite(low), "high": finite(high),
        "level": 1 - error, "verdict": said,
    }  # fmt: skip
    if notes:
        record["note"] = "; ".join(notes)
    return record


def finite(value: float) -> float | None:
    """The value, or None for what is not defined."""
    return value if math.isfinite(value) else None


def judge(claim: Claim, subject: str, networks: Networks, *notes: str) -> Judged:
    """A claim's estimates from networks; where they say nothing about it, the reason as a note."""
    if networks.seeds == 1:
        notes = (*notes, "of this network: one training each, their spread assumed")
    try:
        parts = networks.estimates(claim.statistic)
        given = networks.estimates(claim.given) if claim.given else []
    except Undecidable as reason:
        return Judged(claim, subject, (), notes=(*notes, str(reason)))
    return Judged(claim, subject, parts, given, notes)
