"""Freed memory stays with the process: large blocks are not mapped afresh, and no number changes."""

import subprocess
import sys

import pytest

from pags.memory import keep_freed_memory

SCRIPT = """
import resource, torch
from pags.memory import keep_freed_memory
torch.set_num_threads(1)
kept = {keep} and keep_freed_memory()
def work():
    x = torch.ones(12_000_000)  # beyond 32 MB glibc never learns to keep blocks
    for _ in range(20):
        y = x * 2
        del y
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*, keep: bool) -> int:
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT.format(keep=keep)],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return int(found.stdout)


@pytest.mark.skipif(not keep_freed_memory(), reason="the allocator is not glibc's")
def test_large_blocks_are_not_mapped_afresh() -> None:
    """Plainly, each of 20 blocks faults on all its pages anew; kept, one or two blocks do in all."""
    assert 5 * faults(keep=True) < faults(keep=False)


def test_asking_twice_is_as_good_as_once() -> None:
    assert keep_freed_memory() == keep_freed_memory()
