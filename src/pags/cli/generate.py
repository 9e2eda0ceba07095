"""`pags generate`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pags.cli.options import command
from pags.cli.progress import ProgressLine, console
from pags.cli.show import finish, interval_text, show_table
from pags.errors import UsageError
from pags.experiments.classifiers import loaded
from pags.experiments.experiment import RECORD as SWEEP
from pags.experiments.experiment import Experiment
from pags.experiments.generation import (
    PANELS,
    RECORD,
    Followed,
    GenerateSettings,
    along_sweep,
    independent_judge,
    run_generate,
    with_controls,
)
from pags.experiments.settings import ExperimentSettings, read_toml
from pags.report.pages import write_generate
from pags.store import Store

What = Literal["synthesis", "denoise", "inpaint", "super-resolution", "all"]
TASKS = {
    "synthesis": ("synthesis-from-noise", "synthesis-from-class"),
    "denoise": ("denoising",),
    "inpaint": ("in-painting",),
    "super-resolution": ("super-resolution",),
}
EXAMPLE = (
    "Example: pags generate robust.safetensors --data digits --what all; or, along a sweep: "
    "pags generate pags-out/demo --objective pgd"
)


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    command(app, GenerateSettings, epilog=EXAMPLE, without=("tasks", "batch_size"))(generate)


def generate(
    settings: GenerateSettings,
    model: Annotated[
        str, typer.Argument(help="A classifier (file or name, as in pags audit), or a finished pags demo.")
    ],
    data: Annotated[str | None, typer.Option(help="Data set; of a demo its own, else digits.")] = None,
    arch: Annotated[
        str | None, typer.Option(help="Architecture of a file that does not name it, such as resnet18.")
    ] = None,
    what: Annotated[What, typer.Option(help="What is made.")] = "all",
    objective: Annotated[str | None, typer.Option(help="Of a demo: which sweep; else its last.")] = None,
    seed: Annotated[int, typer.Option(help="Random seed of everything that is drawn.")] = 0,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file (keys of pags.ExperimentSettings) for the controls and the judge."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for records and figures.")] = None,
) -> None:
    """Follow the gradient of a classifier: make, clean, complete and sharpen images, and measure the results.

    Beside the classifier stand a standard and an untrained network, trained here where they are missing; an
    independent network, of another seed, says what it recognises in the results.
    """
    tasks = [task for name, some in TASKS.items() if what in (name, "all") for task in some]
    experiment = _experiment(model, data, seed, config, out)
    store = Store(out) if out else experiment.store
    with ProgressLine() as progress:
        progress("loading the models, training the controls where they are missing", 0.0)
        record = run_generate(
            _models(experiment, model, arch, objective), independent_judge(experiment), experiment.data,
            store, settings.with_(tasks=tasks), progress, seed=seed, device=experiment.settings.device,
        )  # fmt: skip
        progress("drawing the figures", 1.0)
        written = write_generate(store, record, store.read_tensors(PANELS)[0])
    _show(record)
    accuracy = record["judge"]["accuracy"]
    console.print(f"\nThe network that recognises classes has accuracy {accuracy:.1%}.\n", markup=False)
    finish(record, [store.path(RECORD), store.path(PANELS), *written])


def _experiment(model: str, data: str | None, seed: int, config: Path | None, out: Path | None) -> Experiment:
    """Where controls and judge come from: the demo's own store, or that of the output."""
    if (Path(model) / SWEEP).is_file():
        if data or config:
            raise UsageError(
                "no --data and no --config beside a demo, which has its own",
                got=data or config,
                suggestion="leaving them out",
            )
        store = Store(Path(model))
        return Experiment(ExperimentSettings.of(store.read_record(SWEEP)["settings"]), store)
    tables = {"seed": seed} | (read_toml(config) if config else {}) | ({"data": data} if data else {})
    settings = ExperimentSettings.of(tables, where=str(config or "settings"))
    return Experiment(settings, Store(out or Path("pags-out/generate")))


def _models(experiment: Experiment, model: str, arch: str | None, objective: str | None) -> list[Followed]:
    if (Path(model) / SWEEP).is_file():
        return along_sweep(experiment, objective or experiment.settings.sweeps[-1].objective)
    if objective:
        raise UsageError(
            "an objective only beside a finished demo",
            got=repr(objective),
            suggestion="leaving --objective out",
        )
    name = Path(model).stem if Path(model).is_file() else model
    test, device = experiment.data.test, experiment.settings.device
    return with_controls(experiment, [loaded(model, test, device=device, name=name, architecture=arch)])


def _show(record: dict[str, Any]) -> None:
    """A table for each task: the share recognised of a synthesis, decibels of a restoration."""
    for task in record["settings"]["tasks"]:
        synthesis = task.startswith("synthesis")
        name = f"{task}: {'named' if synthesis else 'psnr'}"
        title = "recognised as the target class" if synthesis else "PSNR in dB"
        console.print(f"\n{task}: {title}", style="bold")
        rows = [("(the start)", interval_text(record["starts"][name]), "")]
        for model in record["models"]:
            change = interval_text(model["gain"][name], "+")
            rows.append((model["name"], interval_text(model["means"][name]), change))
        show_table(("model", "estimate [95 %]", "over the start"), rows)
