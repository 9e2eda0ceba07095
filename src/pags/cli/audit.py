"""`pags audit`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, cast

import typer

from pags.cli.options import command
from pags.cli.progress import ProgressLine, console
from pags.cli.show import finish, interval_text, number_text, said, show_table
from pags.experiments.audit import RECORD, TENSORS, AuditSettings, run_audit
from pags.records import AuditRecord, ModelRecord
from pags.report.pages import write_audit_report
from pags.report.words import one_row, rows, verdict
from pags.store import Store

EXAMPLE = """Example: pags audit model.safetensors --data cifar10 --out pags-out/audit

Example: pags audit my_model.py:network torchvision:resnet18
--data 'folder:val?size=224&classes=imagenet' --denoiser edm.safetensors"""


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    command(app, AuditSettings, epilog=EXAMPLE)(audit)


def audit(
    settings: AuditSettings,
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Files, torchvision:NAME, timm:NAME, madry:FILE, robustbench:FILE, or file.py:function.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for artefacts, records and the report.")] = Path(
        "pags-out/audit"
    ),
) -> None:
    """Accuracy, on- and off-manifold robustness, and alignment with the score, of any classifier.

    Manifold and score come from files, or are estimated from the training images in some minutes. What is
    finished is never done twice.
    """
    store = Store(out)
    with ProgressLine() as progress:
        before = set(store.root.glob("earlier/*"))
        record = run_audit(models, settings, store, progress, command=said())
        aside = next(iter(set(store.root.glob("earlier/*")) - before), None)
        progress("drawing the figures", 1.0)
        written = write_audit_report(store, cast(AuditRecord, record), store.read_tensors(TENSORS)[0])
    for model in record["models"]:
        _show(model)
    if len(record["models"]) > 1:
        _compare(record["models"])
    if aside is not None:
        console.print(f"The audit that was in {out} is now in {aside}.\n", markup=False)
    finish(record, [store.path(RECORD), store.path(TENSORS), *written])


def _compare(models: Sequence[ModelRecord]) -> None:
    """A row per model."""
    lines = [one_row(model) for model in models]
    show_table(
        ("model", *lines[0]),
        [(model["name"], *line.values()) for model, line in zip(models, lines, strict=True)],
    )
    console.print()


def _show(model: ModelRecord) -> None:
    """The numbers of a model for the first target as a table, and its verdict; the page has the others."""
    console.print(f"\n{model['name']}", style="bold", markup=False)
    found = []
    for row in rows(model, chosen=model["settings"]["targets"][:1]):
        lines = ", ".join(f"{name} {number_text(value)}" for name, value in row.lines.items())
        found.append((row.title, interval_text(row.value), lines))
    show_table(("quantity", "mean [95 %]", "reference values"), found)
    console.print(f"\n{verdict(model)}\n", markup=False)
