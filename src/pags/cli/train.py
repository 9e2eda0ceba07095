"""`pags train`."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pags.cli.options import command
from pags.cli.progress import ProgressLine, console
from pags.cli.show import finish
from pags.experiments.training import TrainSettings
from pags.experiments.training import train as run
from pags.store import Store

HIDDEN = ("scale_rate", "device", "resamples", "channels_last", "evaluate_images", "evaluate_steps")
"""Settings that are no options: the first has one of its own."""

EXAMPLE = """Example: pags train --data digits --objective pgd --strength 0.5

With the paper's settings: pags train --recipe cifar10 --objective pgd --strength 0.5 --preset paper"""


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    command(app, TrainSettings, epilog=EXAMPLE, without=HIDDEN)(train)


def train(
    settings: TrainSettings,
    fixed_rate: Annotated[
        bool, typer.Option("--fixed-rate", help="Do not lower the learning rate for strong penalties.")
    ] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write curves for TensorBoard.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for classifiers and records.")] = Path("pags-out/train"),
) -> None:
    """Train one robust classifier, and measure its clean and adversarial accuracy.

    Interrupted, the same command continues; finished, it does nothing again.
    """
    settings = settings.with_(scale_rate=not fixed_rate)
    _, training = settings.resolved()
    name = f"{training.name}, seed {settings.seed}"
    curves = _curves(out / "tensorboard" / name.replace(", ", "-").replace(" ", "-")) if tensorboard else None
    store = Store(out)
    with ProgressLine() as progress:
        epoch, reached = f"training {training.name}", 0.0

        def show(row: dict[str, Any]) -> None:
            nonlocal epoch
            epoch = line(row)
            progress(epoch, reached)
            if curves:
                curves(row)

        def show_share(what: str, share: float) -> None:
            nonlocal reached
            reached = share
            progress.begun_at(share)
            progress(epoch if what == "training" else what, share)

        record = run(settings, store, progress=show, on_share=show_share)
    radius, accuracy = record["attack"]["radius"], record["accuracy"]
    for what, key in (("clean accuracy", "clean"), (f"under l2 attacks of {radius:g}", "adversarial")):
        number = accuracy[key]
        console.print(
            f"{what}: {number['estimate']:.1%} [{number['low']:.1%}, {number['high']:.1%}]", markup=False
        )
    finish(record, [store.path(file) for file in record["files"]])


def line(row: dict[str, Any]) -> str:
    """One epoch in one line."""
    words = [f"epoch {row['epoch']}/{row['epochs']}", f"loss {row['loss']:.4g}"]
    if row["clean"] is not None:
        words.append(f"accuracy {row['clean']:.1%} clean, {row['adversarial']:.1%} attacked")
    return ", ".join([*words, f"{row['images_per_second']:,.0f} images/s"])


def _curves(folder: Path) -> Callable[[dict[str, Any]], None]:
    """Writes each epoch's numbers where TensorBoard finds them."""
    from pags.errors import PagsError

    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise PagsError(
            "the package tensorboard, for --tensorboard",
            got="none installed",
            suggestion="pip install -e '.[tensorboard]', or leaving --tensorboard out",
        ) from error
    writer = SummaryWriter(str(folder))

    def write(row: dict[str, Any]) -> None:
        for name in ("loss", "learning_rate", "clean", "adversarial", "images_per_second"):
            if row[name] is not None:
                writer.add_scalar(name, row[name], row["epoch"])
        writer.flush()

    return write
