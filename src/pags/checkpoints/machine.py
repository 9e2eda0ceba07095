"""The state of a pickle machine that builds plain data and nothing else, and what it may hold."""

from collections.abc import Callable
from typing import Any

from pags.checkpoints.bounds import Refusal, Window, shown
from pags.checkpoints.opaque import Name, Opaque, Unfinished

Build = Callable[[str, tuple[Any, ...]], Any]
"""Name and arguments → what stands for the call."""
Finish = Callable[[Unfinished, Any], Any]
"""An unfinished array and its state → the tensor, or an opaque array."""
Persistent = Callable[[Any], Any]
"""A persistent id → what it stands for."""

LARGEST_KEY = 2**60  # from 2**61 − 1 on, integers of different value can have the same hash
HASHED = (str, bytes, int, float, type(None), Opaque)
LONGEST_NAME = 512


class Machine:
    """A pickle on its way: its stack, its memo, and what calls of names amount to.

    Args:
        window: where the pickle begins; left standing behind it.
        build, finish: what calls of names, and states of arrays, amount to.
        persistent: what persistent ids stand for; None where the format has none.
        wanted: places in the file of large bytes that are read at once instead of left there.
    """

    def __init__(
        self, window: Window, build: Build, finish: Finish, persistent: Persistent | None, wanted: set[int]
    ) -> None:
        self.window, self.build, self.finish, self.persistent = window, build, finish, persistent
        self.wanted = wanted
        self.spans: list[Window] = []
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under the marks
        self.memo: dict[int, Any] = {}
        self.ordered: set[int] = set()  # dicts that may be given attributes, which are dropped

    def push(self, value: Any) -> None:
        """Put a value on the stack, as it is after the value was computed."""
        self.stack.append(value)

    def pop_mark(self) -> list[Any]:
        """What was pushed since the last mark."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def call(self, function: Any, arguments: Any) -> None:
        """Push what stands for the call of something that the file refers to."""
        if not isinstance(function, Opaque) or not isinstance(arguments, tuple):
            raise Refusal("a call of a class or function with a tuple of arguments", got=f"{kind(function)}")
        self.window.budget.allocate(8 * len(arguments))  # which may be copied
        if isinstance(function, Name):
            with self.window.elsewhere():
                result = self.build(function.name, arguments)
        else:
            result = Opaque(f"{function.name.removesuffix('()')}()", (function, *arguments))
        if type(result) is dict:
            self.ordered.add(id(result))
        self.push(result)


def kind(value: object) -> str:
    """The type of a value, for an error."""
    return f"a {type(value).__name__}"


def check_key(key: Any) -> Any:
    """A key of a dict, or an element of a set, whose hash and comparison cost nothing and collide rarely."""
    parts = key if type(key) is tuple else (key,)
    allowed = (str, bytes, int, type(None)) if type(key) is tuple else HASHED
    if len(parts) > 8:
        raise Refusal("tuples of at most 8 as keys", got=f"one of {len(parts):,}")
    for part in parts:
        if not isinstance(part, allowed) or (isinstance(part, int) and abs(part) >= LARGEST_KEY):
            what = f"the integer {part:.3e}" if isinstance(part, int) else kind(part)
            raise Refusal("keys that are texts or numbers below 2^60, or short tuples of them", got=what)
    return key


def named(module: Any, name: Any) -> Name:
    """A reference to a class or function; Python 2's names of modules become Python 3's."""
    if not isinstance(module, str) or not isinstance(name, str):
        raise Refusal("the name of a class or function as text", got=f"{kind(module)} and {kind(name)}")
    module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
    if len(module) + len(name) > LONGEST_NAME:
        raise Refusal(f"names of at most {LONGEST_NAME} characters", got=shown(module + "." + name))
    return Name(f"{module}.{name}")
