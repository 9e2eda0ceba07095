"""`pags theory`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pags.cli.progress import ProgressLine, console
from pags.cli.show import interval_text, show_files


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(epilog="Example: pags theory --out pags-out/theory")(theory)


def theory(
    out: Annotated[Path, typer.Option(help="Folder for the record and the figures.")] = Path(
        "pags-out/theory"
    ),
    seed: Annotated[int, typer.Option(help="Random seed of everything that is drawn.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="A few seconds; wider intervals.")] = False,
) -> None:
    """The exact laboratory: the paper's theorems and arguments on worlds where the answer is known.

    Takes about a minute on two cores and downloads nothing.
    """
    from pags.report.pages import write_theory
    from pags.store import Store
    from pags.theory.run import RECORD, run_theory

    store = Store(out)
    with ProgressLine() as progress:
        record = run_theory(store, seed=seed, quick=quick, on_progress=progress)
        progress("drawing the figures", 1.0)
        written = write_theory(store, record)
    for name, part in record["parts"].items():
        console.print(f"\n{name.replace('_', ' ').capitalize()}", style="bold")
        console.print(_table(part["rows"]))
    console.print("\nIntervals are over images or over runs, as the rules in theory.json say.\n")
    show_files([store.path(RECORD), *written])


def _table(rows: list[dict[str, object]]) -> Table:
    """A line a row: claim, estimate with its interval, what was expected, verdict."""
    table = Table(box=None, pad_edge=False)
    table.add_column("claim", ratio=1)
    for heading in ("estimate", "expected", "verdict"):
        table.add_column(heading, no_wrap=True)
    for row in rows:
        expected = "" if row["expected"] is None else f"{row['expected']:.3g}"
        table.add_row(str(row["claim"]), interval_text(row, ".3g"), expected, str(row["verdict"]))
    return table
