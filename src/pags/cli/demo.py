"""`pags demo` and `pags report`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pags.cli.progress import ProgressLine, console


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(epilog="Example: pags demo --out pags-out/demo; run again, it continues where it was.")(demo)
    app.command(epilog="Example: pags report pags-out/demo")(report)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for artefacts, figures and the report.")] = Path(
        "pags-out/demo"
    ),
    data: Annotated[str, typer.Option(help="Data set.")] = "digits",
    seed: Annotated[int, typer.Option(help="Names every random draw.")] = 0,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with settings (keys of pags.SweepConfig).")
    ] = None,
) -> None:
    """The main job on real handwriting: robust sweeps, tangent spaces, score, measures, claims, report.

    Takes about two minutes on two cores and downloads nothing. What is finished is never done twice.
    """
    from pags.experiments.config import SweepConfig, read_config
    from pags.experiments.demo import GALLERY, RECORD, run_sweeps
    from pags.report.page import write_report
    from pags.store import Store

    settings = read_config(config) if config else SweepConfig(data=data, seed=seed)
    store = Store(out)
    with ProgressLine() as progress:
        record = run_sweeps(settings, store, progress)
        progress("drawing the figures", 1.0)
        written = write_report(store, record, store.read_tensors(GALLERY)[0])
    show_claims(record["claims"])
    show_files([store.path(RECORD), store.path(GALLERY), *written])


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished `pags demo`.")],
) -> None:
    """Draw figures and report again, from the records alone."""
    from pags.errors import UsageError
    from pags.experiments.demo import GALLERY, RECORD
    from pags.report.page import write_report
    from pags.store import Store

    if not (folder / RECORD).is_file():
        raise UsageError(f"a folder that holds {RECORD}", got=folder, suggestion=f"pags demo --out {folder}")
    store = Store(folder)
    written = write_report(store, store.read_record(RECORD), store.read_tensors(GALLERY)[0])
    show_files(written)


def show_claims(claims: Sequence[dict[str, object]]) -> None:
    """The verdicts as a table: a line a claim and sweep."""
    table = Table(box=None, pad_edge=False)
    for heading in ("claim", "sweep", "verdict", "estimate [95 %]"):
        table.add_column(heading, no_wrap=True)
    last = ""
    for claim in sorted(claims, key=lambda c: [d["claim"] for d in claims].index(c["claim"])):
        key = str(claim["claim"])
        numbers = f"{claim['estimate']:+.3f} \\[{claim['low']:+.3f}, {claim['high']:+.3f}]"
        table.add_row("" if key == last else key, str(claim["sweep"]), str(claim["verdict"]), numbers)
        last = key
    console.print("The paper's claims, on these data. Above 0 the claim holds; intervals are over images.\n")
    console.print(table)
    console.print()


def show_files(paths: Sequence[Path]) -> None:
    """The files that a command wrote."""
    console.print("wrote")
    for path in paths:
        console.print(f"  {path}", markup=False)
