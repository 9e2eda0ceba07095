"""`pags data`: what there is, fetching it, preparing it, looking at it."""

from pathlib import Path
from typing import Annotated

import typer

from pags.cli.options import group
from pags.cli.progress import ProgressLine, console
from pags.cli.show import finish

Folder = Annotated[
    Path | None,
    typer.Option(
        "--data-folder",
        help="Folder of data sets; PAGS_DATA, or ~/.cache/pags/data, where nothing says otherwise.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    examples = {
        list_sources: "pags data list",
        fetch: "pags data fetch cifar10 --data-folder data",
        prepare: "pags data prepare imagenet64 imagenet data/imagenet64 --style edm",
        show: "pags data show 'folder:birds?size=32' --out sheet.png",
    }
    group(app, "data", "List, fetch, prepare and look at images.", examples)


def list_sources(folder: Folder = None) -> None:
    """Every source of images and pretrained denoisers: its name, what it is, whether it is here."""
    from pags.data.download import WEIGHTS, default_folder
    from pags.data.sources import SOURCES

    place = folder or default_folder()
    rows = [
        (name, source.about, "" if source.takes_path else "here" if source.here(place) else "not here")
        for name, source in SOURCES.items()
    ]
    for name, remote in WEIGHTS.items():
        size = f", {remote.size / 1e6:.0f} MB" if remote.size else ""
        state = "here" if (place / "weights" / remote.name).is_file() else "not here"
        rows.append((name, f"pretrained denoiser (Karras et al.){size}", state))
    for name, about, state in rows:
        console.print(f"{name:30}{state:10}{about}", markup=False)
    console.print(f"\nThe folder is {place}.", markup=False)
    finish({name: {"about": about, "state": state} for name, about, state in rows})


def fetch(
    name: Annotated[str, typer.Argument(help="A name of `pags data list` that comes from the network.")],
    folder: Folder = None,
) -> None:
    """Download a data set or a pretrained denoiser; what broke off is continued."""
    from pags.data.download import WEIGHTS, default_folder, digest
    from pags.data.download import fetch as fetch_file
    from pags.data.torchvision_sources import NAMES, fetch_all
    from pags.errors import UsageError

    place = folder or default_folder()
    name = name.replace("_", "-")
    if name not in {*NAMES, *WEIGHTS}:
        raise UsageError(
            f"a name among {', '.join((*NAMES, *WEIGHTS))}", got=repr(name), suggestion="pags data list"
        )
    with ProgressLine() as progress:
        if name in NAMES:
            paths = fetch_all(name, place, on_progress=progress)
        else:
            paths = [fetch_file(WEIGHTS[name], place / "weights", on_progress=progress)]
    if name in WEIGHTS:
        known = "" if WEIGHTS[name].sha256 else " (not yet recorded in pags, so not compared)"
        console.print(f"sha256 {digest(paths[0], 'sha256')}{known}", markup=False)
    finish({}, paths)


def prepare(
    name: Annotated[str, typer.Argument(help="imagenet64.")],
    source: Annotated[Path, typer.Argument(help="Folder with train/WNID/*.JPEG, val/WNID/*.JPEG, or one.")],
    out: Annotated[Path, typer.Argument(help="Folder for the arrays.")],
    style: Annotated[str, typer.Option(help="pags (the paper's) or edm (for EDM's denoisers).")] = "pags",
) -> None:
    """Write image files as arrays, once. Interrupted, it continues where it was."""
    from pags.data.prepare import prepare_imagenet64
    from pags.data.prepared import read_about
    from pags.errors import UsageError

    if name != "imagenet64":
        raise UsageError("imagenet64", got=repr(name), suggestion="pags data prepare imagenet64 SOURCE OUT")
    with ProgressLine() as progress:
        path = prepare_imagenet64(source, out, style=style, on_progress=progress)
    parts = read_about(out)["parts"]
    for part, about in parts.items():
        skipped = f", {len(about['skipped'])} left out (named in the JSON)" if about["skipped"] else ""
        console.print(f"{part}: {about['images']} images{skipped}", markup=False)
    arrays = [out / f"{part}-{kind}.npy" for part in parts for kind in ("images", "labels")]
    finish({"parts": parts}, [path, *arrays])


def show(
    spec: Annotated[str, typer.Argument(help="A data set, as everywhere: mnist, folder:PATH?size=32, …")],
    out: Annotated[Path | None, typer.Option(help="PNG file for a contact sheet of training images.")] = None,
    folder: Folder = None,
    seed: Annotated[int, typer.Option(help="Random seed of the sample on the contact sheet.")] = 0,
) -> None:
    """Counts, shape, classes, mean and deviation of a data set, and a contact sheet of its images."""
    from pags.data.sheet import contact_sheet
    from pags.data.sources import load_data
    from pags.store import Store

    data = load_data(spec, folder=folder)
    classes, (mean, std) = data.train.classes, data.train.statistics()
    shown = ", ".join(classes[:10]) + (f", … ({len(classes)} in all)" if len(classes) > 10 else "")
    rows = {
        "name": data.name,
        "images": f"{len(data.train)} for training, {len(data.test)} for testing",
        "shape": "×".join(str(size) for size in data.train.shape),
        "classes": shown,
        "class sizes": ", ".join(
            str(n) for n in data.train.labels.bincount(minlength=len(classes))[:10].tolist()
        )
        + (", …" if len(classes) > 10 else ""),
        "mean": ", ".join(f"{value:.4f}" for value in mean),
        "deviation": ", ".join(f"{value:.4f}" for value in std),
        "masks": "no"
        if data.train.masks is None
        else f"{data.train.masks.float().mean():.3f} of the pixels are signal",
    }
    for name, value in rows.items():
        console.print(f"{name:14}{value}", markup=False)
    sheet = (
        [] if out is None else [Store(out.parent).write_bytes(out.name, contact_sheet(data.train, seed=seed))]
    )
    finish(rows, sheet)
