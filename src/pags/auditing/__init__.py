"""All measures of one classifier on one set of images, as one call; and the paired comparison of several.

The room is called `auditing` because `pags.audit` is the function.
"""

from pags.auditing.result import Audit, compare
from pags.auditing.run import audit

__all__ = ["Audit", "audit", "compare"]
