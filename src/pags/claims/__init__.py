"""The claims of the paper, and one judge for all of them: functions of per-image columns."""

from pags.claims import distractor, phenomena, sweep
from pags.claims.claim import (
    CONTRADICTED,
    SUPPORTED,
    TANGENT,
    UNDECIDED,
    Claim,
    claim_records,
    judge,
    verdict,
)
from pags.claims.distractor import judge_distractor
from pags.claims.networks import Columns, Estimate, Means, Networks, Quantity, Undecidable
from pags.claims.phenomena import judge_generation, judge_score, judge_smoothgrad, judge_transfer
from pags.claims.sweep import judge_sweep

CLAIMS = (
    *sweep.CLAIMS,
    *phenomena.SCORE_CLAIMS,
    *phenomena.TRANSFER_CLAIMS,
    *distractor.CLAIMS,
    *distractor.INFORMATIVE_CLAIMS,
    *phenomena.GENERATION_CLAIMS,
    *phenomena.SMOOTHGRAD_CLAIMS,
)
"""Every claim of the paper, by `Claim.table`; a claim of the user's is given beside them to its judge."""

__all__ = [
    "CLAIMS", "CONTRADICTED", "SUPPORTED", "TANGENT", "UNDECIDED", "Claim", "Columns", "Estimate", "Means",
    "Networks", "Quantity", "Undecidable", "claim_records", "judge", "judge_distractor", "judge_generation",
    "judge_score", "judge_smoothgrad", "judge_sweep", "judge_transfer", "verdict",
]  # fmt: skip
