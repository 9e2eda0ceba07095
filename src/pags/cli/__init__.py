"""The command line: parsing only. What a command does stands in the layer it calls."""

import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.main import get_command_from_info, get_group

from pags.cli.output import ANYWHERE, Grouped, Output
from pags.errors import PagsError, UsageError
from pags.memory import keep_freed_memory

COMMANDS = {
    "demo": ("demo", "The main job on what ships with the package, in minutes and without a download."),
    "audit": (
        "audit",
        "Accuracy, on- and off-manifold robustness, and alignment with the score, of any classifier.",
    ),
    "reproduce": ("reproduce", "The paper's figures, the records under them, and a verdict on each claim."),
    "train": ("train", "Train one robust classifier, and measure its clean and adversarial accuracy."),
    "theory": (
        "theory",
        "The exact laboratory: the paper's theorems and arguments on worlds where the answer is known.",
    ),
    "generate": (
        "generate",
        "Follow the gradient of a classifier: make, clean, complete and sharpen images, and measure "
        "the results.",
    ),
    "convert": (
        "convert",
        "Weights out of a foreign checkpoint as safetensors; no code of the file is ever run.",
    ),
    "sweep": ("sweep", "How far a run is that goes on elsewhere, or was interrupted."),
    "store": ("store", "Look after what was kept: verify it, clear leftovers, take it elsewhere."),
    "data": ("data", "List, fetch, prepare and look at images."),
    "lpips": ("look", "The perceptual distance of two images (LPIPS, AlexNet): 0 for equal ones."),
    "report": ("demo", "Draw figures and pages again, from the records alone."),
    "doctor": ("look", "What this machine has: versions, cores, memory, accelerators."),
}
"""Command to the file that it stands in, and what it does; a file is imported when its command is called."""


class Commands(TyperGroup):
    """All commands, of which only the one that is called is imported."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        file = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None, context_settings=CONTEXT)
        import_module(f"pags.cli.{COMMANDS[cmd_name][0]}").register(file)
        groups = [group.typer_instance for group in file.registered_groups]
        for info in (info for each in (file, *groups) if each for info in each.registered_commands):
            info.cls = Grouped
        for info in file.registered_commands:
            if (info.name or getattr(info.callback, "__name__", "")) == cmd_name:
                return get_command_from_info(info, pretty_exceptions_short=False, rich_markup_mode=None)
        return get_group(file).commands[cmd_name]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])


INTERRUPTED = 130
"""The status after Ctrl-C, which typer gives back in place of the exception."""
CONTEXT = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(
    name="pags",
    cls=Commands,
    help="Are an image classifier's input gradients perceptually aligned, and why?",
    epilog="Start with: pags demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=CONTEXT,
)


def print_version(wanted: bool) -> bool:
    """Answer `pags --version`, and end."""
    if wanted:
        print(f"pags {import_module('pags').__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def options(
    version: bool = typer.Option(
        False, "--version", help="Print the version.", callback=print_version, is_eager=True
    ),
    debug: bool = typer.Option(False, "--debug", help=f"{ANYWHERE['--debug'][:-1]} (also after a command)."),
    json: bool = typer.Option(False, "--json", help="Print the answer as JSON (also after a command)."),
    quiet: bool = typer.Option(False, "--quiet", help="Print the answer alone (also after a command)."),
) -> None:
    """Are an image classifier's input gradients perceptually aligned, and why?"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; errors end in one line and status 1, or 2 where the request itself was wrong."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = Output.choose(words) or ["--help"]
    if not debug:
        # torch announces deprecations of its own to us; they tell a user of pags nothing.
        warnings.filterwarnings("ignore", module=r"torch\.")
    keep_freed_memory()  # of this process, which is ours
    try:
        status = typer.main.get_command(app).main(words, prog_name="pags", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except BrokenPipeError:  # the reader of our output left; that is its right
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        _end(*_explained(error))
    if status == INTERRUPTED:
        _end("interrupted: finished work is kept; the same command continues", INTERRUPTED)
    sys.exit(status if isinstance(status, int) else 0)


def _explained(error: Exception) -> tuple[str, int]:
    """One line for a person, and the exit status."""
    if isinstance(error, PagsError):
        return f"error: {error}", 2 if isinstance(error, UsageError) else 1
    if hasattr(error, "format_message"):  # what the parser raises, whichever package it comes from
        return f"error: {error.format_message()} Try pags --help.", 2
    return f"error: internal error in pags: {type(error).__name__}: {error}; --debug shows where", 1


def _end(message: str, status: int) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(status)
