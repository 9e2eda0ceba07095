"""`pags train`."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pags.cli.progress import ProgressLine, console
from pags.cli.show import show_files

EXAMPLE = """Example: pags train --data digits --objective pgd --strength 0.5

With the paper's settings: pags train --recipe cifar10 --objective pgd --strength 0.5 --preset paper"""


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(epilog=EXAMPLE)(train)


def train(
    data: Annotated[str | None, typer.Option(help="Data set; that of the recipe where one is named.")] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Named settings: cifar10, imagenet64 and mnist-distractor as in the paper, each also with "
            "-fast; digits."
        ),
    ] = None,
    objective: Annotated[str, typer.Option(help="pgd, smoothing, gradient-norm or smoothness.")] = "pgd",
    strength: Annotated[
        float, typer.Option(help="Epsilon (pgd), sigma (smoothing) or lambda, for images in [0, 1].")
    ] = 0.5,
    preset: Annotated[
        Literal["ours", "paper", "release"], typer.Option(help="Whose reading of the objectives.")
    ] = "ours",
    arch: Annotated[str | None, typer.Option(help="Architecture, such as resnet18.")] = None,
    activation: Annotated[str | None, typer.Option(help="relu, softplus or gelu.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step, of all devices together.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest learning rate.")] = None,
    fixed_rate: Annotated[
        bool, typer.Option("--fixed-rate", help="Do not lower the learning rate for strong penalties.")
    ] = False,
    attack_steps: Annotated[int | None, typer.Option(help="Steps of the training's attack.")] = None,
    clip_norm: Annotated[float | None, typer.Option(help="Clip the gradient to this norm; off.")] = None,
    seed: Annotated[int, typer.Option(help="Names every random draw.")] = 0,
    devices: Annotated[int, typer.Option(help="GPUs, or processes on the CPU, that share each batch.")] = 1,
    accelerator: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="auto takes a GPU where there is one.")
    ] = "auto",
    precision: Annotated[Literal["32", "bf16"], typer.Option(help="bf16 is mixed precision.")] = "32",
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the network (not for gradient-norm).")
    ] = False,
    evaluate_every: Annotated[int, typer.Option(help="Epochs between looks at the accuracies; 0: none.")] = 1,
    evaluate_radius: Annotated[float, typer.Option(help="l2 radius of the attack that is looked at.")] = 0.5,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write curves for TensorBoard.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for classifiers and records.")] = Path("pags-out/train"),
    data_folder: Annotated[Path | None, typer.Option(help="Where data sets are kept.")] = None,
) -> None:
    """Train one robust classifier, and measure its clean and adversarial accuracy.

    Interrupted, the same command continues; finished, it does nothing again.
    """
    from pags.experiments.training import train as run
    from pags.experiments.training_settings import resolve, train_settings
    from pags.store import Store

    mixed = {"32": "32-true", "bf16": "bf16-mixed"}[precision]
    settings = train_settings(
        data=data, recipe=recipe, objective=objective, strength=strength, preset=preset, architecture=arch,
        activation=activation, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate,
        scale_rate=not fixed_rate, attack_steps=attack_steps, clip_norm=clip_norm, seed=seed, devices=devices,
        accelerator=accelerator, precision=mixed, compile=compile,
        evaluate_every=evaluate_every, evaluate_radius=evaluate_radius,
        data_folder=str(data_folder) if data_folder else None,
    )  # fmt: skip
    name = resolve(settings).name
    curves = _curves(out / "tensorboard" / f"{name}-seed-{seed}") if tensorboard else None
    store = Store(out)
    with ProgressLine() as progress:
        epoch, reached = f"training {name}", 0.0

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
    show_files([store.path(file) for file in record["files"]])


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
            suggestion="pip install 'pags[tensorboard]', or leaving --tensorboard out",
        ) from error
    writer = SummaryWriter(str(folder))

    def write(row: dict[str, Any]) -> None:
        for name in ("loss", "learning_rate", "clean", "adversarial", "images_per_second"):
            if row[name] is not None:
                writer.add_scalar(name, row[name], row["epoch"])
        writer.flush()

    return write
