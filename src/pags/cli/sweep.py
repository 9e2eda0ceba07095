"""`pags sweep`: how far a run is that goes on elsewhere."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from pags.cli.options import group
from pags.cli.progress import console, duration
from pags.cli.show import finish
from pags.errors import UsageError
from pags.experiments.plan import seconds_left, states


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    examples = {status: "pags sweep status pags-out/digits-smoke --json"}
    group(app, "sweep", "How far a run is that goes on elsewhere, or was interrupted.", examples)


def status(
    folder: Annotated[Path, typer.Argument(help="What the run writes to, its --out.")],
) -> None:
    """Which tasks are done, running, failed and waiting, and about how long the rest takes.

    It looks at files alone, and may run on any machine that sees the folder.
    """
    tasks = list(states(folder))
    if not tasks:
        raise UsageError(
            "a folder with a plan of tasks", got=folder, suggestion="pags reproduce 3 --out FOLDER"
        )
    counts = {
        name: sum(t["state"] == name for t in tasks) for name in ("done", "running", "failed", "waiting")
    }
    left = seconds_left(folder, tasks)
    console.print(", ".join(f"{count} {name}" for name, count in counts.items()), markup=False)
    for task in tasks:
        if task["state"] in ("running", "failed"):
            console.print(f"  {task['state']:8} {task['name']}: {_detail(task)}", markup=False)
    if left:
        console.print(f"about {duration(left)} left with {max(1, counts['running'])} at a time", markup=False)
    finish({**counts, "seconds_left": left, "tasks": tasks})


def _detail(task: dict[str, Any]) -> str:
    if task["state"] == "failed":
        return str(task["reason"])
    return f"by process {task['process']} of {task['host']} for {duration(time.time() - task['since'])}"
