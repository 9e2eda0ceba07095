"""The one kind of error that a person is meant to read: expected, got, try."""


class PagsError(Exception):
    """Something the caller can put right.

    The command line prints the message on one line without a traceback and exits with status 1.
    """

    def __init__(self, expected: str, *, got: object, suggestion: str) -> None:
        super().__init__(f"expected {expected}; got {got}; try {suggestion}")
        self.expected, self.got, self.suggestion = expected, got, suggestion


class UsageError(PagsError):
    """The request itself makes no sense (an unknown name, a value out of range); exit status 2."""


class TrainingDiverged(PagsError):
    """The loss stopped being finite. The last finite state is in the checkpoint."""
