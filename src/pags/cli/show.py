"""What commands print in the end: verdicts, and the files that they wrote."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from pags.cli.progress import console
from pags.records import ClaimRecord


def interval_text(found: Mapping[str, Any], form: str) -> str:
    """An interval's record as "estimate [low, high]", for a table of Rich; – for what is not a number."""
    parts = [found[name] for name in ("estimate", "low", "high")]
    estimate, low, high = ("–" if part is None else format(part, form) for part in parts)
    return f"{estimate} \\[{low}, {high}]"


def show_claims(claims: Sequence[ClaimRecord]) -> None:
    """The verdicts as a table: a line a claim and sweep."""
    table = Table(box=None, pad_edge=False)
    for heading in ("claim", "subject", "verdict", "estimate [95 %]"):
        # Numbers and verdicts stay whole on narrow terminals; names are folded.
        table.add_column(heading, no_wrap=heading not in ("claim", "subject"), overflow="fold")
    last = ""
    for claim in sorted(claims, key=lambda c: [d["claim"] for d in claims].index(c["claim"])):
        key = str(claim["claim"])
        numbers = interval_text(claim, "+.3f")
        table.add_row("" if key == last else key, str(claim["subject"]), str(claim["verdict"]), numbers)
        last = key
    console.print("The paper's claims, on these data. Above 0 the claim holds; intervals are over images.\n")
    console.print(table)
    console.print()


def show_files(paths: Sequence[Path]) -> None:
    """The files that a command wrote."""
    console.print("wrote")
    for path in paths:
        console.print(f"  {path}", markup=False)
