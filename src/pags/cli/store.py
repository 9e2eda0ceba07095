"""`pags store`: look after what was kept."""

from pathlib import Path
from typing import Annotated

import typer

from pags.cli.options import group
from pags.cli.progress import ProgressLine, console
from pags.cli.show import finish

Folder = Annotated[Path, typer.Argument(help="What a run wrote to, its --out.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    examples = {
        verify: "pags store verify pags-out/digits-smoke",
        gc: "pags store gc pags-out/digits-smoke",
        export: "pags store export pags-out/digits-smoke digits.zip",
    }
    group(app, "store", "Look after what was kept: verify it, clear leftovers, take it elsewhere.", examples)


def verify(folder: Folder) -> None:
    """Read every artefact and compare its checksum; exit status 1 where one is damaged.

    A damaged artefact that a run needs is found and made anew by itself.
    """
    from pags.experiments.keeping import artefacts, damage

    names, found = artefacts(folder), []
    with ProgressLine() as progress:
        for place, name in enumerate(names):
            progress("reading artefacts", place / len(names))
            found += [error] if (error := damage(folder, name)) else []
    for error in found:
        console.print(error, markup=False)
    console.print(f"{len(names) - len(found)} artefacts are whole, {len(found)} damaged", markup=False)
    finish({"whole": len(names) - len(found), "damaged": [str(error) for error in found]})
    raise typer.Exit(bool(found))


def gc(folder: Folder) -> None:
    """Remove what no run needs any more: leftovers of dead processes, states of work that was finished.

    Networks and measures stay, those of other settings too.
    """
    from pags.experiments.keeping import garbage

    removed = garbage(folder)
    console.print(f"removed {len(removed)} files, {sum(removed.values()) / 1e6:.1f} MB", markup=False)
    finish({"removed": {str(path): size for path, size in removed.items()}})


def export(
    folder: Folder,
    out: Annotated[Path, typer.Argument(help="The ZIP file to write.", dir_okay=False)],
) -> None:
    """Write all that is finished into one ZIP file; unpacked elsewhere, it is a folder to go on from."""
    from pags.experiments.keeping import exported

    finish({}, [exported(folder, out)])
