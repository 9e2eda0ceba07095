"""`pags reproduce`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from pags.cli.progress import ProgressLine, console
from pags.cli.show import show_claims, show_files


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    example = "Example: pags reproduce 3 9 --data digits; pags reproduce all --list shows what each needs."
    app.command(epilog=example)(reproduce)


def reproduce(
    figures: Annotated[
        list[str] | None,
        typer.Argument(help="1 to 17, phenomenon-2, phenomenon-3, score-share, … (see --list), or all."),
    ] = None,
    data: Annotated[str, typer.Option(help="Data set, see pags data list.")] = "digits",
    scale: Annotated[
        str, typer.Option(help="smoke: minutes on two cores; small: a day on a GPU; paper.")
    ] = "smoke",
    out: Annotated[
        Path | None, typer.Option(help="Folder; pags-out/DATA-SCALE where nothing is said.")
    ] = None,
    engine: Annotated[str, typer.Option(help="inline, or ray for many processes or machines.")] = "inline",
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto for what there is.")] = "auto",
    preset: Annotated[str | None, typer.Option(help="ours, paper or release, see docs/choices.md.")] = None,
    seed: Annotated[int, typer.Option(help="Names every random draw.")] = 0,
    data_folder: Annotated[
        Path | None, typer.Option(help="Where data sets lie or are downloaded to.")
    ] = None,
    denoiser: Annotated[
        Path | None, typer.Option(help="Denoiser for the unconditional score: EDM's .pkl or .safetensors.")
    ] = None,
    conditional_denoiser: Annotated[
        Path | None, typer.Option(help="Denoiser for the score of a class.")
    ] = None,
    pretrained: Annotated[
        list[str] | None,
        typer.Option(help="RADIUS=MODEL for Figures 4 and 15, such as 3=madry:resnet18_l2_eps3.ckpt."),
    ] = None,
    pretrained_data: Annotated[str | None, typer.Option(help="Images for them, such as folder:PATH.")] = None,
    pretrained_arch: Annotated[str | None, typer.Option(help="Their architecture, such as resnet18.")] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="Only say what each needs, takes, and what is there.")
    ] = False,
) -> None:
    """The paper's figures, the records under them, and a verdict on each claim.

    What is finished is never done twice: the same command continues after an interruption.
    """
    from pags.experiments.figures.catalogue import chosen
    from pags.experiments.reproduce import reproduce as run
    from pags.report.reproduction import write_reproduction
    from pags.store import Store

    wanted = chosen(figures or (["all"] if list_ else []))
    settings = _settings(
        data, scale, device, preset, seed, data_folder, denoiser, conditional_denoiser,
        pretrained or [], pretrained_data, pretrained_arch,
    )  # fmt: skip
    folder = out or Path("pags-out") / f"{_plain(data)}-{scale}"
    if list_:
        _list(wanted, settings, folder)
        return
    store = Store(folder)
    with ProgressLine() as progress:
        made = run(wanted, settings, store, progress, engine=engine)
        progress("drawing the figures", 1.0)
        written = write_reproduction(store, made.record)
    show_claims(made.record["claims"])
    show_files(written)


def _settings(
    data: str, scale: str, device: str, preset: str | None, seed: int, data_folder: Path | None,
    denoiser: Path | None, conditional: Path | None, pretrained: list[str], pretrained_data: str | None,
    architecture: str | None,
) -> Any:  # fmt: skip
    """The settings of a scale with what was said on the command line."""
    from pags.errors import UsageError
    from pags.experiments.scales import SCALES, settings_for
    from pags.experiments.transfer import Pretrained, TransferConfig

    if scale not in SCALES:
        raise UsageError(f"a scale among {', '.join(SCALES)}", got=repr(scale), suggestion="--scale smoke")
    changes: dict[str, Any] = {"seed": seed, "device": _device(device)}
    said = {
        "data_folder": data_folder, "denoiser_file": denoiser, "conditional_denoiser_file": conditional
    }  # fmt: skip
    changes |= {name: str(path) for name, path in said.items() if path is not None}
    changes |= _of_preset(preset)
    settings = settings_for(data, scale, **changes)
    if pretrained:
        pairs = [_pair(text) for text in pretrained]
        if len(dict(pairs)) < len(pairs):
            raise UsageError(
                "networks of different radii", got=", ".join(pretrained), suggestion="one for each radius"
            )
        networks = tuple(Pretrained(strength=radius, spec=spec) for radius, spec in pairs)
        transfer = TransferConfig(pretrained=networks, data=pretrained_data, architecture=architecture)
        settings = settings.model_copy(update={"transfer": transfer})
    return settings


def _of_preset(preset: str | None) -> dict[str, Any]:
    """What a preset sets together (docs/choices.md)."""
    from pags.errors import UsageError

    presets: dict[str, dict[str, Any]] = {
        "ours": {},
        "paper": {"preset": "paper", "upsample_to": 0, "scale_rate": True},
        "release": {"preset": "release", "upsample_to": 0, "scale_rate": True, "change": "softmax-l1"},
    }
    if preset is not None and preset not in presets:
        raise UsageError(f"a preset among {', '.join(presets)}", got=repr(preset), suggestion="--preset ours")
    return presets[preset or "ours"]


def _pair(text: str) -> tuple[float, str]:
    from pags.errors import UsageError

    radius, mark, spec = text.partition("=")
    try:
        if mark and spec and 0 <= float(radius) < float("inf"):
            return float(radius), spec
    except ValueError:
        pass
    raise UsageError(
        "--pretrained RADIUS=MODEL", got=repr(text), suggestion="--pretrained 3=madry:resnet18_l2_eps3.ckpt"
    )


def _device(name: str) -> str:
    import torch

    from pags.errors import UsageError

    if name not in {"auto", "cpu", "cuda"}:
        raise UsageError("a device among auto, cpu, cuda", got=repr(name), suggestion="--device auto")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("an accelerator for --device cuda", got="none here", suggestion="--device cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def _plain(data: str) -> str:
    """A data set's name as part of a folder's."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in data)


def _list(figures: Any, settings: Any, folder: Path) -> None:
    """What each figure needs, what its parts take here, and what is already there."""
    from pags.experiments.estimate import estimate

    seconds = estimate(settings)
    table = Table(box=None, pad_edge=False)
    for heading in ("figure", "shows", "paper", "needs", "there"):
        table.add_column(heading)
    for figure in figures:
        there = "yes" if (folder / "records" / f"{figure.stem}.json").is_file() else "no"
        table.add_row(figure.name, figure.title, figure.place, ", ".join(figure.needs), there)
    console.print(table)
    needed = list(dict.fromkeys(need for figure in figures for need in figure.needs))
    if seconds is None:
        console.print(
            f"\nThe data are not at hand, so times are not known: pags data fetch {settings.sweep.data}"
        )
        return
    console.print("\nestimated time here, from nothing; a part is shared by all figures that need it")
    for need in [*needed, ""]:
        total = sum(seconds[part] for part in needed) if not need else seconds[need]
        console.print(f"  {need or 'all of these':14} {_time(total)}", markup=False)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
