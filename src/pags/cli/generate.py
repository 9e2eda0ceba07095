"""`pags generate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from pags.cli.progress import ProgressLine, console
from pags.cli.show import interval_text, show_files

if TYPE_CHECKING:
    from torch import nn

    from pags.experiments.generate import Subject
    from pags.experiments.stages import Stages

What = Literal["synthesis", "denoise", "inpaint", "super-resolution", "all"]
TASKS = {
    "synthesis": ("synthesis-from-noise", "synthesis-from-class"),
    "denoise": ("denoising",),
    "inpaint": ("in-painting",),
    "super-resolution": ("super-resolution",),
}


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(
        epilog="Example: pags generate robust.safetensors --data digits --what all; or, along a sweep: "
        "pags generate pags-out/demo --objective pgd"
    )(generate)


def generate(
    model: Annotated[
        str, typer.Argument(help="A classifier (file or name, as in pags audit), or a finished pags demo.")
    ],
    data: Annotated[str | None, typer.Option(help="Data set; of a demo its own, else digits.")] = None,
    arch: Annotated[
        str | None, typer.Option(help="Architecture of a file that does not name it, such as resnet18.")
    ] = None,
    what: Annotated[What, typer.Option(help="What is made.")] = "all",
    objective: Annotated[str | None, typer.Option(help="Of a demo: which sweep; else its last.")] = None,
    images: Annotated[int, typer.Option(help="Images of each kind; intervals are over them.")] = 64,
    shown: Annotated[int, typer.Option(help="How many of them are drawn.")] = 10,
    steps: Annotated[int | None, typer.Option(help="Steps; each procedure has its own default.")] = None,
    classes: Annotated[
        Literal["given", "predicted"],
        typer.Option(help="Restore towards the original's class, or the one seen in the degraded image."),
    ] = "given",
    noise: Annotated[float, typer.Option(help="Noise to remove, for pixels in [0, 1].")] = 0.3,
    hole: Annotated[float, typer.Option(help="Side of the hole to fill, as a share of the image's.")] = 0.5,
    factor: Annotated[int, typer.Option(help="How many times larger small images become.")] = 2,
    seed: Annotated[int, typer.Option(help="Names every random draw.")] = 0,
    config: Annotated[
        Path | None, typer.Option(help="TOML file (keys of pags.SweepConfig) for the controls and the judge.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for records and figures.")] = None,
) -> None:
    """Follow the gradient of a classifier: make, clean, complete and sharpen images, and measure the results.

    Beside the classifier stand an unrobust and an untrained network, trained here where they are missing; an
    independent network, of another seed, says what it sees in the results.
    """
    from pags.experiments.generate import PANELS, RECORD, GenerateSettings, independent_judge, run_generate
    from pags.report.generate import draw_generate
    from pags.store import Store

    chosen = [task for name, tasks in TASKS.items() if what in (name, "all") for task in tasks]
    settings = _checked(
        GenerateSettings, tasks=chosen, images=images, shown=shown, steps=steps, classes=classes, noise=noise,
        hole=hole, factor=factor, seed=seed,
    )  # fmt: skip
    stages = _stages(model, data, seed, config, out)
    store = Store(out) if out else stages.store
    with ProgressLine() as progress:
        progress("loading the models, training the controls where they are missing", 0.0)
        subjects = _subjects(stages, model, arch, objective)
        judge = independent_judge(stages)
        record = run_generate(subjects, judge, stages.data, store, settings, progress)
        progress("drawing the figures", 1.0)
        written = draw_generate(record, store.read_tensors(PANELS)[0], store)
    _show(record)
    console.print(f"\nThe network that names has accuracy {record['judge']['accuracy']:.1%}.\n", markup=False)
    show_files([store.path(RECORD), store.path(PANELS), *written])


def _is_demo(model: str) -> bool:
    from pags.experiments.demo import RECORD

    return (Path(model) / RECORD).is_file()


def _stages(model: str, data: str | None, seed: int, config: Path | None, out: Path | None) -> "Stages":
    """Where controls and judge come from: the demo's own store, or that of the output."""
    from pags.errors import UsageError
    from pags.experiments.config import SweepConfig, read_config
    from pags.experiments.demo import RECORD
    from pags.experiments.stages import Stages
    from pags.store import Store

    if _is_demo(model):
        if data or config:
            raise UsageError(
                "no --data and no --config beside a demo, which has its own",
                got=data or config,
                suggestion="leaving them out",
            )
        store = Store(Path(model))
        return Stages(SweepConfig.model_validate(store.read_record(RECORD)["settings"]), store)
    settings = read_config(config) if config else SweepConfig(seed=seed)
    settings = settings.model_copy(update={"data": data} if data else {})
    return Stages(settings, Store(out or Path("pags-out/generate")))


def _subjects(stages: "Stages", model: str, arch: str | None, objective: str | None) -> "list[Subject]":
    from pags.errors import UsageError
    from pags.experiments.generate import Subject, along_sweep, with_controls

    if _is_demo(model):
        return along_sweep(stages, objective or stages.config.sweeps[-1].objective)
    if objective:
        raise UsageError(
            "an objective only beside a finished demo",
            got=repr(objective),
            suggestion="leaving --objective out",
        )
    name = Path(model).stem if Path(model).is_file() else model
    return with_controls(stages, [Subject(name, _classifier(stages, model, arch))])


def _classifier(stages: "Stages", model: str, arch: str | None) -> "nn.Module":
    from pags.classifiers.load import load_classifier

    test = stages.data.test
    found = load_classifier(model, architecture=arch, classes=len(test.classes), channels=test.shape[0])
    return found.to(stages.config.device)


def _checked(make: Any, **values: Any) -> Any:
    """Settings, or one line that says what is wrong with them."""
    from pydantic import ValidationError

    from pags.errors import UsageError

    try:
        return make(**values)
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0])
        raise UsageError(
            f"--{name} in its range", got=f"{problem['input']!r} ({problem['msg'].lower()})",
            suggestion="pags generate --help",
        ) from error  # fmt: skip


def _show(record: dict[str, Any]) -> None:
    """A table a task: the share named for a synthesis, decibels for a restoration."""
    for task in record["settings"]["tasks"]:
        synthesis = task.startswith("synthesis")
        name = f"{task}: {'named' if synthesis else 'psnr'}"
        console.print(f"\n{task}: {'share named as aimed at' if synthesis else 'PSNR in dB'}", style="bold")
        table = Table(box=None, pad_edge=False)
        for heading in ("", "estimate [95 %]", "over the start"):
            table.add_column(heading, no_wrap=True)
        table.add_row("(the start)", _cell(record["starts"][name], ""))
        for model in record["models"]:
            table.add_row(model["name"], _cell(model["means"][name], ""), _cell(model["gain"][name], "+"))
        console.print(table)


def _cell(found: dict[str, float], sign: str) -> str:
    return interval_text(found, f"{sign}.2f")
