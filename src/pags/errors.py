"""The one kind of error that a person is meant to read: expected, got, try."""

from functools import partial
from typing import Any


class PagsError(Exception):
    """Something the caller can put right.

    The command line prints the message on one line without a traceback and exits with status 1.
    """

    def __init__(self, expected: str, *, got: object, suggestion: str) -> None:
        super().__init__(f"expected {expected}; got {got}; try {suggestion}")
        self.expected, self.got, self.suggestion = expected, got, suggestion

    def __reduce__(self) -> tuple[Any, ...]:
        """So that it reaches the caller from another process."""
        return partial(type(self), got=str(self.got), suggestion=self.suggestion), (self.expected,)


class UsageError(PagsError):
    """The request itself makes no sense (an unknown name, a value out of range); exit status 2."""


class TrainingDiverged(PagsError):
    """The loss stopped being finite. The last finite state is in the checkpoint."""
