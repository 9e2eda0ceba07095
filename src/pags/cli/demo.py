"""`pags demo` and `pags report`."""

from pathlib import Path
from typing import Annotated, cast

import typer

from pags.cli.options import command
from pags.cli.progress import ProgressLine
from pags.cli.show import finish, said, show_claims
from pags.experiments.experiment import GALLERY
from pags.experiments.experiment import RECORD as SWEEP
from pags.figures.reproduce import DEMO_FIGURES, ReproduceSettings
from pags.figures.reproduce import reproduce as run
from pags.records import ReproductionRecord
from pags.report.pages import write_report, write_reproduction
from pags.store import Store

ELSEWHERE = (
    "scale", "pretrained", "pretrained_data", "pretrained_arch", "experiment", "conditional_denoiser",
    "preset",
)  # fmt: skip
"""Settings of `pags reproduce` that the demo has not."""


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    example = "Example: pags demo --out pags-out/demo; run again, it continues where it was."
    command(app, ReproduceSettings, epilog=example, without=ELSEWHERE)(demo)
    app.command(epilog="Example: pags report pags-out/demo")(report)


def demo(
    settings: ReproduceSettings,
    out: Annotated[Path, typer.Option(help="Folder for artefacts, figures and the report.")] = Path(
        "pags-out/demo"
    ),
) -> None:
    """The main job on what ships with the package, in minutes and without a download.

    Robust sweeps, tangent spaces, score, measures, claims and report on real handwriting: two to three
    minutes on two cores. What is finished is never done twice.
    """
    store = Store(out)
    with ProgressLine() as progress:
        asked = settings.with_(scale="demo", engine=settings.engine or "local")
        record = run(DEMO_FIGURES, asked, store, progress, command=said())
        progress("drawing the figures", 1.0)
        written = write_reproduction(store, cast(ReproductionRecord, record))
    show_claims(record["claims"])
    finish({"claims": record["claims"]}, [store.path(SWEEP), store.path(GALLERY), *written])


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished demo, reproduction, audit or theory.")],
    table: Annotated[
        Path | None, typer.Option(help="CSV file for every number of the records, instead of the pages.")
    ] = None,
) -> None:
    """Draw figures and pages again, from the records alone."""
    from pags.errors import UsageError
    from pags.plots import csv_of, load_results

    if not folder.is_dir():
        raise UsageError("a folder with records", got=folder, suggestion=f"pags demo --out {folder}")
    if table is None:
        finish({}, write_report(folder))
    else:
        finish({}, [Store(table.parent).write_bytes(table.name, csv_of(load_results(folder)))])
