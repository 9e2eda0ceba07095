"""`pags audit`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from pags.cli.progress import ProgressLine, console
from pags.cli.show import interval_text, show_files

EXAMPLE = """Example: pags audit model.safetensors --data cifar10 --out pags-out/audit

Example: pags audit my_model.py:network torchvision:resnet18?weights=DEFAULT
--data 'folder:val?size=224&classes=imagenet' --denoiser edm.safetensors"""


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(epilog=EXAMPLE)(audit)


def audit(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Files, torchvision:NAME, timm:NAME, madry:FILE, robustbench:FILE, or file.py:function.",
        ),
    ],
    data: Annotated[
        str, typer.Option(help="Data set: a name, folder:PATH?size=224&classes=imagenet, npz:PATH.")
    ] = "digits",
    images: Annotated[int, typer.Option(help="Test images, a seeded balanced sample.")] = 256,
    arch: Annotated[str | None, typer.Option(help="Architecture of a foreign file.")] = None,
    classes: Annotated[int | None, typer.Option(help="Number of classes of a foreign file.")] = None,
    denoiser: Annotated[
        Path | None, typer.Option(help="Denoiser for the score; trained here where not given.")
    ] = None,
    second_denoiser: Annotated[
        Path | None, typer.Option(help="Another one, for the ceiling; otherwise the ideal denoiser.")
    ] = None,
    autoencoder: Annotated[
        Path | None, typer.Option(help="Autoencoder of the manifold; trained here where not given.")
    ] = None,
    tangent_data: Annotated[
        str | None, typer.Option(help="Images to estimate manifold and score from; else the training images.")
    ] = None,
    side: Annotated[
        int | None, typer.Option(help="Pixels of score and tangent spaces; the images' own up to 64.")
    ] = None,
    latent: Annotated[int | None, typer.Option(help="Dimensions of the manifold.")] = None,
    sigma: Annotated[
        float | None, typer.Option(help="Noise level of the score, EDM's unit; 0.5, or 1.2 from 64 px.")
    ] = None,
    norm: Annotated[
        list[float] | None, typer.Option(help="l2 norms of perturbations (repeat); else the paper's, scaled.")
    ] = None,
    radius: Annotated[list[float] | None, typer.Option(help="Radii of the l2 attack (repeat).")] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="lpips, cosine, ssim, rank, lpips-vgg, dists, dreamsim (repeat).")
    ] = None,
    directions: Annotated[int, typer.Option(help="Random directions an image.")] = 8,
    reference: Annotated[
        Path | None,
        typer.Option(help="records/sweep.json of a pags demo, to tell how much accuracy is lost."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Names every random draw.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder for artefacts, records and the report.")] = Path(
        "pags-out/audit"
    ),
) -> None:
    """Accuracy, on- and off-manifold robustness, and alignment with the score, of any classifier.

    Manifold and score come from files, or are estimated from the training images in some minutes. What is
    finished is never done twice.
    """
    from pags.experiments.audit import RECORD, TENSORS, make_settings, run_audit
    from pags.report.audit import verdict, write_audit_report
    from pags.store import Store

    settings = make_settings(
        data=data, images=images, architecture=arch, classes=classes, denoiser=denoiser,
        second_denoiser=second_denoiser, autoencoder=autoencoder, tangent_data=tangent_data, side=side,
        latent=latent, sigma=sigma, norms=norm, radii=radius, metrics=metric, directions=directions,
        reference=reference, seed=seed, device=device,
    )  # fmt: skip
    store = Store(out)
    with ProgressLine() as progress:
        record = run_audit(models, settings, store, progress)
        progress("drawing the figures", 1.0)
        written = write_audit_report(store, record, store.read_tensors(TENSORS)[0])
    for model in record["models"]:
        _show(model, verdict(model))
    show_files([store.path(RECORD), store.path(TENSORS), *written])


def _show(model: dict[str, Any], sentence: str) -> None:
    """The numbers of a model for the first target as a table, and its verdict; the page has the others."""
    from pags.report.audit import rows

    console.print(f"\n{model['name']}", style="bold", markup=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("quantity")
    table.add_column("mean [95 %]", no_wrap=True)
    table.add_column("lines")
    for row in rows(model, targets=model["settings"]["targets"][:1]):
        lines = ", ".join(f"{name} {value:.3g}" for name, value in row["lines"].items())
        table.add_row(row["title"], interval_text(row["value"], ".3g"), lines)
    console.print(table)
    console.print(f"\n{sentence}\n", markup=False)
