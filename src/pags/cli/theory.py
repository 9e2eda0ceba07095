"""`pags theory`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pags.cli.progress import ProgressLine, console
from pags.cli.show import finish, interval_text, number_text, show_table


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
        _show(part["rows"])
    console.print("\nIntervals are over images or over runs, as the rules in theory.json say.\n")
    finish({name: part["rows"] for name, part in record["parts"].items()}, [store.path(RECORD), *written])


def _show(rows: list[dict[str, Any]]) -> None:
    """A line per row: claim, verdict, estimate with its interval, what was expected."""
    found = [
        (row["claim"], row["verdict"], interval_text(row), number_text(row["expected"]).replace("–", ""))
        for row in rows
    ]
    show_table(("claim", "verdict", "estimate", "expected"), found)
