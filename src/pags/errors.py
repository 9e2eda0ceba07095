"""The one kind of error that a person is meant to read: expected, got, try."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any


class PagsError(Exception):
    """Something the caller can put right.

    The command line prints the message on one line without a traceback and exits with status 1.
    """

    def __init__(self, expected: str, *, got: object, suggestion: str) -> None:
        # Names of others may hold line breaks.
        super().__init__(" ".join(f"expected {expected}; got {got}; try {suggestion}".splitlines()))
        self.expected, self.got, self.suggestion = expected, got, suggestion

    def __reduce__(self) -> tuple[Any, ...]:
        """So that it reaches the caller from another process."""
        return partial(type(self), got=str(self.got), suggestion=self.suggestion), (self.expected,)


class UsageError(PagsError):
    """The request itself makes no sense (an unknown name, a value out of range); exit status 2."""


class TrainingDiverged(PagsError):
    """The loss stopped being finite. The last finite state is in the checkpoint."""


class NothingLeft(TrainingDiverged):
    """No network is left of those that a figure compares: it is left out, and all others are made."""


class ModelError(PagsError):
    """What a model of the user did or raised; the message is its own."""


@contextmanager
def model_error(expected: str) -> Iterator[None]:
    """Report whatever is raised inside as the model's; errors of ours, and exhausted memory, pass.

    Args:
        expected: what the model should have done.

    Raises:
        ModelError: for any other exception, with its type and message on one line.
    """
    try:
        yield
    except (PagsError, MemoryError):
        raise
    except Exception as error:
        if "OutOfMemory" in type(error).__name__:
            raise
        words = " ".join(str(error).split()) or "no message"
        raise ModelError(
            expected,
            got=f"an error of the model, {type(error).__name__}: {words[:300]}",
            suggestion="images of the size and channels that it was made for, or running the model alone",
        ) from error
