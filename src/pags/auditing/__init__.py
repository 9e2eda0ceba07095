"""All measures of one classifier on one evaluation set, as one call; and the paired comparison of several.

The layer is called `auditing` because `pags.audit` is the function.
"""

from pags.auditing.evaluation import EvaluationSet
from pags.auditing.measures import Measures
from pags.auditing.result import Audit, compare
from pags.auditing.run import audit

__all__ = ["Audit", "EvaluationSet", "Measures", "audit", "compare"]
