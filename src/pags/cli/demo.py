"""`pags demo` and `pags report`."""

from pathlib import Path
from typing import Annotated

import typer

from pags.cli.progress import ProgressLine
from pags.cli.show import show_claims, show_files


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(epilog="Example: pags demo --out pags-out/demo; run again, it continues where it was.")(demo)
    app.command(epilog="Example: pags report pags-out/demo")(report)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for artefacts, figures and the report.")] = Path(
        "pags-out/demo"
    ),
    data: Annotated[str | None, typer.Option(help="Data set; digits where nothing says otherwise.")] = None,
    seed: Annotated[int | None, typer.Option(help="Names every random draw; 0 as a rule.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with settings (keys of pags.SweepConfig).")
    ] = None,
) -> None:
    """The main job on real handwriting: robust sweeps, tangent spaces, score, measures, claims, report.

    Takes two to three minutes on two cores and downloads nothing. What is finished is never done twice.
    """
    from pags.experiments.config import SweepConfig, read_config
    from pags.experiments.demo import GALLERY, RECORD, run_sweeps
    from pags.report.page import write_report
    from pags.store import Store

    settings = read_config(config) if config else SweepConfig()
    said = {"data": data, "seed": seed}  # what is said here wins over the file
    settings = settings.model_copy(update={key: value for key, value in said.items() if value is not None})
    store = Store(out)
    with ProgressLine() as progress:
        record = run_sweeps(settings, store, progress)
        progress("drawing the figures", 1.0)
        written = write_report(store, record, store.read_tensors(GALLERY)[0])
    show_claims(record["claims"])
    show_files([store.path(RECORD), store.path(GALLERY), *written])


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished `pags demo` or `pags reproduce`.")],
) -> None:
    """Draw figures and report again, from the records alone."""
    from pags.errors import UsageError
    from pags.experiments.demo import GALLERY, RECORD
    from pags.experiments.reproduce import RECORD as REPRODUCTION
    from pags.report.page import write_report
    from pags.report.reproduction import read_reproduction, write_reproduction
    from pags.store import Store

    if (folder / REPRODUCTION).is_file():  # which holds the record of a sweep too
        store = Store(folder)
        show_files(write_reproduction(store, read_reproduction(store)))
        return
    if not (folder / RECORD).is_file():
        raise UsageError(f"a folder that holds {RECORD}", got=folder, suggestion=f"pags demo --out {folder}")
    store = Store(folder)
    written = write_report(store, store.read_record(RECORD), store.read_tensors(GALLERY)[0])
    show_files(written)
