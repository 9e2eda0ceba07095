"""`pags reproduce`."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, cast

import typer

from pags.cli.options import command
from pags.cli.progress import ProgressLine, console, duration
from pags.cli.show import finish, said, show_claims, show_table
from pags.experiments.estimate import estimate
from pags.experiments.estimate import plan as plan_of
from pags.figures.catalogue import chosen
from pags.figures.kinds import Figure
from pags.figures.reproduce import ReproduceSettings
from pags.figures.reproduce import reproduce as run
from pags.records import ReproductionRecord
from pags.report.pages import write_reproduction
from pags.store import Store

EXAMPLE = "Example: pags reproduce 3 9 --data digits; pags reproduce all --list shows what each needs."


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    command(app, ReproduceSettings, epilog=EXAMPLE, without=("experiment",))(reproduce)


def reproduce(
    settings: ReproduceSettings,
    figures: Annotated[
        list[str] | None,
        typer.Argument(help="1 to 17, phenomenon-2, phenomenon-3, score-share, … (see --list), or all."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder; pags-out/DATA-SCALE where nothing is said.")
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="Only say what each needs, takes, and what is there.")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what it comes to here: networks, time, memory, disk.")
    ] = False,
) -> None:
    """The paper's figures, the records under them, and a verdict on each claim.

    What is finished is never done twice: the same command continues after an interruption.
    """
    names = figures or (["all"] if list_ else [])
    folder = out or Path("pags-out") / f"{_plain(settings.data)}-{settings.scale}"
    if list_:
        _list(chosen(names), settings, folder)
        return
    wanted = chosen(names)  # before the folder is made
    if plan:
        with TemporaryDirectory() as empty:
            _plan(wanted, settings, Store(folder if folder.is_dir() else Path(empty)))
        return
    store = Store(folder)
    with ProgressLine() as progress:
        record = run(
            names, settings.with_(engine=settings.engine or "local"), store, progress, command=said()
        )
        progress("drawing the figures", 1.0)
        written = write_reproduction(store, cast(ReproductionRecord, record))
    show_claims(record["claims"])
    finish({"claims": record["claims"]}, written)


def _plain(data: str) -> str:
    """A data set's name as part of a folder's."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in data)


def _plan(figures: Sequence[Figure], settings: ReproduceSettings, store: Store) -> None:
    """What the sweeps come to on this machine."""
    found = plan_of(settings.resolved([need for figure in figures for need in figure.needs]), store)
    alone, rows = found["seconds"], dict[str, str]()
    rows["networks"] = f"{found['networks']} to train, of which {found['there']} are there"
    rows["passes"] = f"{found['passes']} over the training images"
    both = f"{duration(alone)} on one core, {duration(alone / found['cores'])} on {found['cores']}"
    rows["time"] = f"{both}: from nothing, by steps of each objective that were timed here"
    rows["memory"] = f"{found['memory'] / 2**30:.1f} GiB for each worker"
    rows["disk"] = f"{found['disk'] / 2**20:.0f} MiB of weights"
    for name, value in rows.items():
        console.print(f"{name:10}{value}", markup=False)
    finish(found)


def _list(figures: Sequence[Figure], settings: ReproduceSettings, folder: Path) -> None:
    """What each figure needs, what its parts take here, and what is already there."""
    needed = list(dict.fromkeys(need for figure in figures for need in figure.needs))
    seconds = estimate(settings.resolved(needed))
    there = {figure.name: (folder / "records" / f"{figure.stem}.json").is_file() for figure in figures}
    rows = [(f.name, "yes" if there[f.name] else "no", ", ".join(f.needs), f.title, f.place) for f in figures]
    show_table(("figure", "there", "needs", "shows", "paper"), rows, needed=3)
    finish({f.name: {"needs": list(f.needs), "there": there[f.name]} for f in figures} | {"seconds": seconds})
    if seconds is None:
        console.print("\nHow long it takes is not known before the data are here.")
        return
    console.print("\nabout, from nothing; a part is shared by all figures that need it")
    for need in [*needed, ""]:
        total = seconds[need] if need else sum(seconds[part] for part in needed)
        console.print(f"  {need or 'all of these':14} {duration(total)}", markup=False)
