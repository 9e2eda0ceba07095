"""The claims about signal and distractor (section 4.3, Figure 5, Phenomenon 1, Definition 3)."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from pags.claims.claim import Claim, claim_records, judge
from pags.claims.networks import Columns, Means, Networks, Quantity
from pags.claims.sweep import CHANGE, SHARE, UNTRAINED
from pags.measure.regimes import TOLERANCE
from pags.records import ClaimRecord

INFORMATIVE = "informative"


def _standard_ignores(m: Means, chosen: Means) -> list[Tensor]:
    own = m.of("standard", "ratio")
    return [own, own - m.of(UNTRAINED, "ratio")] if UNTRAINED in m else [own]


CLAIMS = (
    Claim(
        "standard-ignores-distractor", "4.3, Fig. 5",
        "The standard model is more robust to noise on the distractor than to noise on the signal.",
        "mean over noise levels of ln(change under noise on signal / on distractor), standard network, also "
        "relative to the untrained one", _standard_ignores, table="distractor",
    ),
    Claim(
        "robust-ignores-distractor-more", "4.3, Fig. 5; Hypothesis 2",
        "The robust model is relatively much more robust to noise on the distractor.",
        "the same mean for the robust network, less that of the standard network",
        lambda m, chosen: [m.of("robust", "ratio") - m.of("standard", "ratio")], table="distractor",
    ),
    Claim(
        "gradients-on-signal", "Phenomenon 1; Hypothesis 1",
        "The gradients of the robust model highlight the signal and ignore the distractor.",
        "share of the robust network's gradient energy on the signal − share of pixels on the signal",
        lambda m, chosen: [m.of("robust", "energy") - m.of("robust", "pixels")], table="distractor",
    ),
    Claim(
        "robust-gradients-more-on-signal", "Phenomenon 1; 4.3",
        "They do so more than those of the standard model.",
        "share of gradient energy on the signal, robust − standard network",
        lambda m, chosen: [m.of("robust", "energy") - m.of("standard", "energy")], table="distractor",
    ),
)  # fmt: skip

INFORMATIVE_CLAIMS = (
    Claim(
        "informative-distractor-is-signal", "Definition 3; Theorem 2",
        "What depends on the label belongs to the signal: gradients turn to an informative distractor.",
        "share of the robust network's gradient energy on the digit, beside a distractor that says nothing − "
        "beside one that tells the label",
        lambda m, chosen: [m.of("robust", "energy") - m.of(INFORMATIVE, "energy")], table="distractor",
    ),
)  # fmt: skip


def judge_distractor(
    standard: Sequence[Columns],
    robust: Sequence[Columns],
    *,
    subject: str,
    levels: Sequence[int],
    untrained: Sequence[Columns] = (),
    informative: Sequence[Columns] = (),
    seed: int = 0,
    claims: Iterable[Claim] = CLAIMS,
) -> list[ClaimRecord]:
    """The verdicts for one distractor that says nothing about the label.

    Args:
        standard, robust: for each seed, the columns of the two networks: `signal N` and `distractor N` for
            each noise level, `energy on signal`, `pixels on signal`, `correct`.
        subject: the name of the variant.
        levels: the numbers N of the noise levels above 0.
        untrained: for each seed, those of an untrained network.
        informative: for each seed, those of the robust network beside the same distractor where it tells the
            label; adds the claim about Definition 3.
        seed, claims: as in `judge_sweep`.
    """
    extra = {UNTRAINED: untrained, INFORMATIVE: informative}
    named = [
        {"standard": standard[place], "robust": robust[place]}
        | {name: given[place % len(given)] for name, given in extra.items() if given}
        for place in range(len(standard))
    ]
    networks = Networks(named, _quantities(levels), 2, seed)
    judged = (*claims, *(INFORMATIVE_CLAIMS if informative else ()))
    notes = _warning(standard, robust)
    return claim_records([judge(claim, subject, networks, *notes) for claim in judged])


def _quantities(levels: Sequence[int]) -> dict[str, Quantity]:
    def ratio(c: Callable[[str], Tensor]) -> Tensor:
        return torch.stack([(c(f"signal {n}") / c(f"distractor {n}")).log() for n in levels]).mean(0)

    return {
        "ratio": Quantity(ratio, CHANGE),
        "energy": Quantity(lambda c: c("energy on signal"), SHARE),
        "pixels": Quantity(lambda c: c("pixels on signal")),
    }


def _warning(standard: Sequence[Columns], robust: Sequence[Columns]) -> tuple[str, ...]:
    """What must be known of a robust network that is no longer accurate: it is another regime's."""
    before, after = (
        sum(float(columns["correct"].double().mean()) for columns in each) / len(each)
        for each in (standard, robust)
    )
    return (f"the robust network's accuracy is {after:.0%}",) if before - after > TOLERANCE else ()
