"""What commands print in the end: tables that fit the terminal, verdicts, and the files that they wrote."""

import json
import os
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pags.cli.output import Output
from pags.cli.progress import console
from pags.records import ClaimRecord

WIDE = 200
"""Columns where the output is no terminal and nothing says how wide it is."""
MANY = 20
"""Files of one folder that are named one by one."""


def number_text(value: float | None, sign: str = "") -> str:
    """A number with three significant digits; – for what is none."""
    return "–" if value is None else format(value, f"{sign}#.3g").removesuffix(".")


def interval_text(found: Mapping[str, Any], sign: str = "") -> str:
    """An interval's record as "estimate [low, high]"."""
    estimate, low, high = (number_text(found[name], sign) for name in ("estimate", "low", "high"))
    return f"{estimate} [{low}, {high}]"


def show_table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, needed: int = 2) -> None:
    """A table with one line per row: where it is too wide for the terminal, last columns are left out.

    Args:
        headings, rows: texts, equally many in each row.
        needed: columns that stay; the first is cut where even these are too wide.
    """
    room = shutil.get_terminal_size((WIDE, 24)).columns
    lines = [list(headings), *rows]
    wide = [max(len(line[place]) for line in lines) for place in range(len(headings))]
    fitting = (n for n in range(len(wide), needed, -1) if sum(wide[:n]) + 2 * (n - 1) <= room)
    count = next(fitting, needed)
    wide[0] = min(wide[0], max(12, room - sum(w + 2 for w in wide[1:count])))
    for number, line in enumerate(lines):
        first = line[0] if len(line[0]) <= wide[0] else f"{line[0][: wide[0] - 1]}…"
        cells = [cell.ljust(w) for cell, w in zip((first, *line[1:count]), wide, strict=False)]
        console.print("  ".join(cells).rstrip(), style="" if number else "bold", markup=False)


def show_claims(claims: Sequence[ClaimRecord]) -> None:
    """The verdicts as a table: a line per claim and sweep."""
    keys = [str(claim["claim"]) for claim in claims]
    shown = sorted(claims, key=lambda claim: keys.index(claim["claim"]))
    rows = [
        (f"{claim['claim']}, {claim['subject']}", str(claim["verdict"]), interval_text(claim, "+"))
        for claim in shown
    ]
    console.print("The paper's claims, on these data. Above 0 the claim holds; intervals are over images.\n")
    show_table(("claim", "verdict", "estimate [95 %]"), rows)
    console.print()


def said() -> str:
    """The command as it was typed, for the page."""
    return shlex.join(["pags", *sys.argv[1:]])


def finish(answer: Mapping[str, Any], files: Sequence[Path] = ()) -> None:
    """End a command: the files that it wrote, or its answer in the form that was asked for.

    Args:
        answer: plain data.
        files: what was written.
    """
    named = [str(path) for path in files]
    if Output.form == "json":
        print(json.dumps({**answer, **({"files": named} if files else {})}, ensure_ascii=False))
    elif Output.form == "quiet":
        print("\n".join(named or [" ".join(f"{name} {value}" for name, value in answer.items())]))
    elif files:
        lines = ["wrote", *(f"  {name}" for name in _in_short(files))]
        console.print("\n".join(lines), markup=False, soft_wrap=True)  # a path is copied whole


def _in_short(files: Sequence[Path]) -> list[str]:
    """Paths, of a folder with more than `MANY` only their number."""
    folders = Counter(path.parent for path in files)
    few = [f"{path}" for path in files if folders[path.parent] <= MANY]
    return [*(f"{folder}{os.sep} ({n} files)" for folder, n in folders.items() if n > MANY), *few]
