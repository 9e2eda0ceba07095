"""The command line: parsing only. What a command does stands in the room it calls."""

import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

import typer

from pags.cli import audit, convert, data, demo, generate, look, reproduce, theory, train
from pags.errors import PagsError, UsageError

app = typer.Typer(
    name="pags",
    help="Are an image classifier's input gradients perceptually aligned, and why?",
    epilog="Start with: pags demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (demo, theory, train, audit, reproduce, generate, convert, data, look):
    group.register(app)


@app.callback()
def options(
    debug: bool = typer.Option(
        False, "--debug", help="Show the traceback of an error (also after a command)."
    ),
) -> None:
    """Are an image classifier's input gradients perceptually aligned, and why?"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; errors end in one line and status 1, or 2 where the request itself was wrong."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"] or ["--help"]
    if not debug:
        # torch announces deprecations of its own to us; they tell a user of pags nothing.
        warnings.filterwarnings("ignore", module=r"torch\.")
    try:
        status = app(words, standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        _end("interrupted: finished work is kept; the same command continues", 130)
    except BrokenPipeError:  # the reader of our output left; that is its right
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        _end(*_explained(error))
    sys.exit(status if isinstance(status, int) else 0)


def _explained(error: Exception) -> tuple[str, int]:
    """One line for a person, and the exit status."""
    if isinstance(error, PagsError):
        return f"error: {error}", 2 if isinstance(error, UsageError) else 1
    if hasattr(error, "format_message"):  # what the parser raises, whichever package it comes from
        return f"error: {error.format_message()} Try pags --help.", 2
    return f"error: a fault of pags: {type(error).__name__}: {error}; --debug shows where", 1


def _end(message: str, status: int) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(status)
