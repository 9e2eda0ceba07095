"""Looking through what was read: its bounds, its tensors, its state dict."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pags.checkpoints.bounds import Refusal, Window, shown
from pags.checkpoints.opaque import Opaque
from pags.errors import PagsError

DEEPEST = 200
LARGEST = 10_000_000
"""Objects that a walk through the contents meets, one that is referred to twice counted twice."""
HOLDS = (dict, list, tuple, set, frozenset, Opaque)


@dataclass(eq=False)
class _Visit:
    """A container on the way down: what is still to be looked at, and what was counted below it."""

    node: Any
    rest: Iterator[Any]
    size: int = 1
    depth: int = 0

    def count(self, size: int, depth: int) -> None:
        self.size, self.depth = self.size + size, max(self.depth, depth)
        if self.size > LARGEST:
            raise Refusal(f"contents of at most {LARGEST:,} objects", got="references that multiply")


def check_walkable(tree: Any) -> None:
    """Make sure that every walk through the contents ends, soon and without deep recursion.

    Circles through an `Opaque` are cut there: it loses what it holds. Python's own data have none.

    Raises:
        Refusal: a circle of plain data, more than `DEEPEST` levels, or more than `LARGEST` objects on a walk.
    """
    visits = 0
    if isinstance(tree, Window):
        raise _shared_bytes()
    while True:
        visits, whole = _walk(tree, visits)
        if whole:
            return


def _shared_bytes() -> Refusal:
    return Refusal("bytes that are either data or the inside of a tensor", got="some that are both")


def _walk(tree: Any, visits: int) -> tuple[int, bool]:
    """The objects visited so far, and whether no circle had to be cut."""
    done: dict[int, tuple[int, int]] = {}  # size and depth below
    way: dict[int, _Visit] = {}
    whole = True
    visits += _enter(way, tree)
    while way:
        visit = way[next(reversed(way))]
        for child in visit.rest:
            if isinstance(child, Window):
                raise _shared_bytes()
            if not isinstance(child, HOLDS):
                visit.count(1, 0)
            elif id(child) in done:
                visit.count(*done[id(child)])
            elif id(child) in way:
                _cut(way, child)
                whole = False
            else:
                visits += _enter(way, child)
                break
            if len(way) + visit.depth > DEEPEST or visits > LARGEST:
                raise Refusal(f"contents at most {DEEPEST} levels deep", got="deeper ones, or many circles")
        else:
            way.popitem()
            done[id(visit.node)] = visit.size, visit.depth + 1
            if way:
                way[next(reversed(way))].count(visit.size, visit.depth + 1)
    return visits, whole


def _enter(way: dict[int, _Visit], node: Any) -> int:
    """Go down to a container; how many objects there are to look at."""
    if len(way) >= DEEPEST:
        raise Refusal(f"contents at most {DEEPEST} levels deep", got="deeper ones")
    inside = [value for _, value in parts(node)]
    way[id(node)] = _Visit(node, iter(inside))
    return 1 + len(inside)


def _cut(way: dict[int, _Visit], child: Any) -> None:
    """Empty the last opaque object of the circle that goes back to `child`."""
    for key in reversed(way):
        node = way[key].node
        if isinstance(node, Opaque):
            node.arguments, node.state, node.items = (), None, None
            return
        if node is child:
            break
    raise Refusal("data that do not contain themselves", got="a circle")


def parts(node: Any) -> list[tuple[str, Any]]:
    """What a container holds, each under a name: keys, positions, or the fields of an `Opaque`."""
    if isinstance(node, dict):
        inside = [(f"key {place}", key) for place, key in enumerate(node) if isinstance(key, Opaque)]
        return inside + [(_name(place, key), node[key]) for place, key in enumerate(node)]
    if isinstance(node, list | tuple | set | frozenset):
        return [(str(place), value) for place, value in enumerate(node)]
    if isinstance(node, Opaque):
        return [("arguments", node.arguments), ("state", node.state), ("items", node.items)]
    return []


def _name(place: int, key: Any) -> str:
    return f"under key {place}" if isinstance(key, Opaque) else str(key)


def leaves(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Tensor | Opaque]]:
    """All tensors and opaque objects with their dotted paths, also those inside opaque objects."""
    if isinstance(tree, Tensor | Opaque):
        yield ".".join(path), tree
    for name, value in parts(tree):
        yield from leaves(value, (*path, name))


def tensors_in(tree: Any) -> dict[str, Tensor]:
    """All tensors that stand in dicts within dicts, by their dotted paths; other containers are passed over.

    Raises:
        PagsError: two tensors have the same path, as under the keys "a.b" and "a" → "b".
    """
    found: dict[str, Tensor] = {}
    for path, tensor in _in_dicts(tree, ()):
        if path in found:
            raise PagsError(
                "one tensor for each dotted path",
                got=f"two at {shown(path)}",
                suggestion="saving a state dict alone, whose names are distinct",
            )
        found[path] = tensor
    return found


def _in_dicts(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Tensor]]:
    if isinstance(tree, Tensor):
        yield ".".join(path), tree
    elif isinstance(tree, dict):
        for place, (key, value) in enumerate(tree.items()):
            yield from _in_dicts(value, (*path, _name(place, key)))
