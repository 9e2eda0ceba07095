"""The instructions of Python's pickle format, protocols 0 to 5, as `pickletools` describes them.

None of them imports a module, looks up an attribute or calls what a file names: a global yields its name, and
a call of a name yields what `Machine.build` makes of it, an `Opaque` if in doubt.
"""

import pickletools
from collections.abc import Callable
from typing import Any

from pags.checkpoints.bounds import LARGE, Refusal, Window
from pags.checkpoints.machine import Machine, check_key, kind, named
from pags.checkpoints.opaque import Name, Opaque, Unfinished

CODES = {code.code.encode("latin-1"): code for code in pickletools.opcodes}
LONGEST_NUMBER = 8192  # bits; Python itself refuses to print numbers of twice that length


def run(machine: Machine) -> Any:
    """What the pickle leaves on the stack.

    Raises:
        Refusal: it breaks a rule of the format or of the budget, or needs what is not read here.
    """
    while True:
        code = CODES.get(machine.window.read(1))
        if code is None:
            raise Refusal("a pickle, or a format built on pickles", got="an unknown instruction")
        machine.window.budget.step()
        argument = _large(machine, code.name) if code.name in SIZES else _argument(machine, code)
        if code.name == "STOP":
            return machine.stack.pop()
        if code.name in CONSTANTS:
            machine.push(CONSTANTS[code.name])
        elif code.name in PUSHED:
            machine.push(argument)
        elif code.name in HANDLERS:
            HANDLERS[code.name](machine, argument)
        else:
            raise Refusal(
                "a pickle that stands for itself",
                got=f"the instruction {code.name}, which refers to something outside the file",
                suggestion="saving the state dict alone with torch.save",
            )


def _argument(machine: Machine, code: pickletools.OpcodeInfo) -> Any:
    argument = None if code.arg is None else code.arg.reader(machine.window)  # type: ignore[arg-type]
    if isinstance(argument, int) and argument.bit_length() > LONGEST_NUMBER:
        got = f"one of {argument.bit_length():,}"
        raise Refusal(f"integers of at most {LONGEST_NUMBER:,} bits", got=got)
    return argument


def _large(machine: Machine, name: str) -> bytes | bytearray | Window:
    """Bytes: the short ones as they are, the long ones left in the file unless they are wanted."""
    count = int.from_bytes(machine.window.read(SIZES[name]), "little")
    span = machine.window.span(count)
    if count >= LARGE and span.start not in machine.wanted:
        machine.spans.append(span)
        return span
    with machine.window.elsewhere():
        content = span.content()
    return bytearray(content) if name == "BYTEARRAY8" else content


def _proto(machine: Machine, version: int) -> None:
    if version > 5:
        raise Refusal("a pickle of protocol 0 to 5", got=f"protocol {version}")


def _mark(machine: Machine, _: Any) -> None:
    machine.below.append(machine.stack)
    machine.stack = []


def _pop(machine: Machine, _: Any) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.pop_mark()


def _pop_mark(machine: Machine, _: Any) -> None:
    machine.pop_mark()


def _get(machine: Machine, index: int) -> None:
    if index not in machine.memo:
        raise Refusal("a reference to something earlier in the pickle", got="one to nothing")
    machine.push(machine.memo[index])


def _put(machine: Machine, index: int) -> None:
    if not 0 <= index < 2**32:
        raise Refusal("places of the memo below 2^32", got=f"{index:.3e}")
    value = machine.memo[index] = machine.stack[-1]
    if isinstance(value, Unfinished):
        value.places.append(index)


def _tuple(machine: Machine, count: int) -> None:
    if len(machine.stack) < count:
        raise IndexError("pop from an empty stack")
    items = tuple(machine.stack[-count:])
    del machine.stack[-count:]
    machine.push(items)


def _append(machine: Machine, items: list[Any]) -> None:
    target = machine.stack[-1]
    if isinstance(target, Opaque) and not isinstance(target, Name):
        target.items = [] if target.items is None else target.items
        target = target.items
    if not isinstance(target, list):
        raise Refusal("a list to append to", got=kind(target))
    target.extend(items)


def _add(machine: Machine, items: list[Any]) -> None:
    target = machine.stack[-1]
    if type(target) is set:
        target.update(check_key(item) for item in items)
    else:
        _append(machine, items)


def _set(machine: Machine, pairs: list[Any]) -> None:
    target = machine.stack[-1]
    if isinstance(target, Opaque) and not isinstance(target, Name):
        target.items = {} if target.items is None else target.items
        target = target.items
    if not isinstance(target, dict) or len(pairs) % 2:
        raise Refusal("a dict and pairs of key and value", got=f"{kind(target)} and {len(pairs)} objects")
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        target[check_key(key)] = value


def _build(machine: Machine, _: Any) -> None:
    state, target = machine.stack.pop(), machine.stack[-1]
    if isinstance(target, Unfinished):
        with machine.window.elsewhere():
            machine.stack[-1] = result = machine.finish(target, state)
        machine.memo.update(dict.fromkeys(target.places, result))
    elif isinstance(target, Opaque) and not isinstance(target, Name) and target.state is None:
        target.state = state
    elif id(target) not in machine.ordered or not isinstance(state, dict):
        raise Refusal("a state for an object without one", got=f"one for {kind(target)}")


def _persistent(machine: Machine, identity: Any) -> None:
    if machine.persistent is None:
        raise Refusal(
            "a pickle that holds its own data",
            got="a reference to data outside of it",
            suggestion="the whole file as torch.save wrote it, not a part of it",
        )
    with machine.window.elsewhere():
        storage = machine.persistent(identity)
    machine.push(storage)


def _new_with_keywords(machine: Machine, _: Any) -> None:
    keywords, arguments, function = machine.stack.pop(), machine.stack.pop(), machine.stack.pop()
    if not isinstance(keywords, dict) or not isinstance(arguments, tuple) or not isinstance(function, Name):
        raise Refusal("a class, a tuple and a dict", got=f"{kind(function)} and {kind(keywords)}")
    machine.window.budget.allocate(8 * len(arguments))
    machine.push(Opaque(function.name, (*arguments, keywords)))


def _global(machine: Machine, names: str) -> None:
    module, _, name = names.partition(" ")
    machine.push(named(module, name))


def _stack_global(machine: Machine, _: Any) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.push(named(module, name))


def _call(machine: Machine, _: Any) -> None:
    arguments, function = machine.stack.pop(), machine.stack.pop()
    machine.call(function, arguments)


def _object(machine: Machine, _: Any) -> None:
    function, *arguments = machine.pop_mark()
    machine.call(function, tuple(arguments))


def _instance(machine: Machine, names: str) -> None:
    module, _, name = names.partition(" ")
    machine.call(named(module, name), tuple(machine.pop_mark()))


def _dict(machine: Machine, _: Any) -> None:
    pairs = machine.pop_mark()
    machine.push({})
    _set(machine, pairs)


def _pair(machine: Machine, _: Any) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    _set(machine, [key, value])


def _frozen(machine: Machine, _: Any) -> None:
    items = machine.pop_mark()
    machine.push(frozenset(check_key(item) for item in items))


def _frame(machine: Machine, count: int) -> None:
    if count > machine.window.left:
        raise Refusal(f"{count:,} more bytes", got=f"{machine.window.left:,} before the end")


Handler = Callable[[Machine, Any], None]
HANDLERS: dict[str, Handler] = {
    "PROTO": _proto, "FRAME": _frame, "MARK": _mark, "POP": _pop,
    "POP_MARK": _pop_mark,
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "GET": _get, "BINGET": _get, "LONG_BINGET": _get,
    "PUT": _put, "BINPUT": _put, "LONG_BINPUT": _put,
    "MEMOIZE": lambda machine, _: _put(machine, len(machine.memo)),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_SET": lambda machine, _: machine.push(set()),
    "LIST": lambda machine, _: machine.push(machine.pop_mark()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_mark())),
    "TUPLE1": lambda machine, _: _tuple(machine, 1),
    "TUPLE2": lambda machine, _: _tuple(machine, 2),
    "TUPLE3": lambda machine, _: _tuple(machine, 3),
    "DICT": _dict, "FROZENSET": _frozen,
    "APPEND": lambda machine, _: _append(machine, [machine.stack.pop()]),
    "APPENDS": lambda machine, _: _append(machine, machine.pop_mark()),
    "ADDITEMS": lambda machine, _: _add(machine, machine.pop_mark()),
    "SETITEM": _pair,
    "SETITEMS": lambda machine, _: _set(machine, machine.pop_mark()),
    "GLOBAL": _global, "STACK_GLOBAL": _stack_global,
    "REDUCE": _call, "NEWOBJ": _call, "NEWOBJ_EX": _new_with_keywords, "OBJ": _object, "INST": _instance,
    "BUILD": _build,
    "BINPERSID": lambda machine, _: _persistent(machine, machine.stack.pop()),
}  # fmt: skip
"""The instructions that do more than push their argument."""

CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
PUSHED = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
SIZES = {"SHORT_BINBYTES": 1, "BINBYTES": 4, "BINBYTES8": 8, "BYTEARRAY8": 8}
"""Bytes by the width of their length, an unsigned little-endian integer."""
