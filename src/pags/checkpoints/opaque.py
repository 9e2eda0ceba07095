"""What stands in the tree for everything that is not plain data."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False, slots=True)
class Opaque:
    """An object of a class, or the result of a function, that a file names; neither imported nor called.

    Args:
        name: "module.qualname" of the class or function.
        arguments: what it would have been called with; () too where the file only refers to it.
        state: what its `__setstate__` or `__dict__` would have received; None where nothing was given.
        items: what would have been appended (a list) or set by key (a dict).
    """

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] | list[Any] | None = None


@dataclass(eq=False, slots=True)
class Name(Opaque):
    """A class or function that the file refers to without calling it."""


@dataclass(eq=False, slots=True)
class Unfinished(Opaque):
    """An array whose contents come later; `places` are where the memo holds it until then."""

    places: list[int] = field(default_factory=list)
