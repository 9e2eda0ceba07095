"""What calls of names amount to: a fixed table of plain reconstructions, and `Opaque` for everything else.

Each builder takes the arguments as they stand in the file and returns plain data, or `UNKNOWN` where the
arguments are not of the form that Python, torch or numpy write; the call then stays opaque.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pags.checkpoints.bounds import Budget, Refusal, Window, empty
from pags.checkpoints.machine import check_key
from pags.checkpoints.opaque import Name, Opaque, Unfinished
from pags.checkpoints.torch_names import DTYPES, NUMPY

UNKNOWN = object()
PARTS = 64  # a guess at the bytes that one element of a set or dict takes


class Builders:
    """The table for one file.

    Args:
        budget: what copies and tensors are paid from.
        inner: reads a torch file that stands in a pickle as bytes.
    """

    def __init__(self, budget: Budget, inner: Callable[[bytes | Window], Any]) -> None:
        self.budget, self.inner = budget, inner
        self.used: set[int] = set()  # where those large bytes stand that were made use of
        self.table: dict[str, Callable[[tuple[Any, ...]], Any]] = {
            "builtins.set": self._collection(set),
            "builtins.frozenset": self._collection(frozenset),
            "builtins.list": self._collection(list),
            "builtins.tuple": self._collection(tuple),
            "builtins.complex": lambda a: complex(*a) if _numbers(a, 2) else UNKNOWN,
            "builtins.bytes": lambda a: b"" if a == () else UNKNOWN,
            "builtins.bytearray": self._bytearray,
            "builtins.dict": self._dict,
            "collections.OrderedDict": self._dict,
            "collections.Counter": self._dict,
            "collections.defaultdict": lambda a: {} if len(a) <= 1 else UNKNOWN,
            "_codecs.encode": self._encode,
            "copyreg._reconstructor": _reconstructor,
            "copyreg.__newobj__": self._new,
            "torch.Size": lambda a: tuple(a[0]) if len(a) == 1 and _whole(a[0]) else UNKNOWN,
            "torch.device": _device,
            "torch.storage._load_from_bytes": self._load_from_bytes,
            "torch._utils._rebuild_tensor": lambda a: self._tensor(*a) if len(a) == 4 else UNKNOWN,
            "torch._utils._rebuild_tensor_v2": self._tensor_v2,
            "torch._utils._rebuild_tensor_v3": self._tensor_v3,
            "torch._utils._rebuild_parameter": lambda a: _first_tensor(a, 3),
            "torch._utils._rebuild_parameter_with_state": lambda a: _first_tensor(a, 4),
            "torch._tensor._rebuild_from_type_v2": self._from_type,
        }
        for core in ("numpy.core", "numpy._core"):
            self.table |= {
                f"{core}.multiarray._reconstruct": _unfinished,
                f"{core}.multiarray.scalar": self._scalar,
                f"{core}.numeric._frombuffer": self._frombuffer,
            }

    def build(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """What stands for the call of `name`."""
        builder = self.table.get(name)
        result = UNKNOWN if builder is None else builder(arguments)
        return Opaque(name, arguments) if result is UNKNOWN else result

    def finish(self, array: Unfinished, state: Any) -> Any:
        """The tensor of a numpy array whose contents came, or an opaque array."""
        if isinstance(state, tuple) and len(state) in (4, 5):
            shape, dtype, fortran, content = state[-4:]
            result = self._array(content, dtype, shape, fortran=bool(fortran))
            if result is not UNKNOWN:
                return result
        return Opaque(array.name, array.arguments, state)

    # --- Python ------------------------------------------------------------------------------------------

    def _collection(self, make: type) -> Callable[[tuple[Any, ...]], Any]:
        def build(arguments: tuple[Any, ...]) -> Any:
            if arguments == ():
                return make()
            if len(arguments) != 1 or type(arguments[0]) not in (list, tuple, set, frozenset):
                return UNKNOWN
            self.budget.allocate(PARTS * len(arguments[0]))
            hashed = make in (set, frozenset)
            return make(check_key(item) if hashed else item for item in arguments[0])

        return build

    def _dict(self, arguments: tuple[Any, ...]) -> Any:
        if arguments == ():
            return {}
        if len(arguments) != 1 or not isinstance(arguments[0], list | dict):
            return UNKNOWN
        self.budget.allocate(2 * PARTS * len(arguments[0]))
        pairs = list(arguments[0].items()) if isinstance(arguments[0], dict) else arguments[0]
        if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
            return UNKNOWN
        return {check_key(key): value for key, value in pairs}

    def _encode(self, arguments: tuple[Any, ...]) -> Any:
        """Bytes, as protocols below 3 write them."""
        match arguments:
            case (str(text), str("latin1" | "latin-1")):
                self.budget.allocate(len(text))
                return text.encode("latin-1")
        return UNKNOWN

    def _bytearray(self, arguments: tuple[Any, ...]) -> Any:
        match arguments:
            case ():
                return bytearray()
            case (bytes(content),):
                self.budget.allocate(len(content))
                return bytearray(content)
        encoded = self._encode(arguments)
        return UNKNOWN if encoded is UNKNOWN else bytearray(encoded)

    def _new(self, arguments: tuple[Any, ...]) -> Any:
        match arguments:
            case (Name(name), *rest):
                return self.build(name, tuple(rest))
        return UNKNOWN

    # --- torch -------------------------------------------------------------------------------------------

    def _load_from_bytes(self, arguments: tuple[Any, ...]) -> Any:
        match arguments:
            case (bytes() | Window() as content,):
                self._used(content)
                return self.inner(content)
        return UNKNOWN

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any) -> Any:
        """A strided view of a storage, a one-dimensional tensor; nothing outside of it is reached."""
        if not isinstance(storage, Tensor) or not (_whole([offset]) and _whole(size) and _whole(stride)):
            return UNKNOWN
        last, count = offset, 1
        for length, step in zip(size, stride, strict=True):
            last, count = last + (length - 1) * step, count * length
        fits = storage.ndim == 1 and storage.is_contiguous() and (count == 0 or last < len(storage))
        if not fits or offset > len(storage) or max(size, default=0) >= 2**40:
            raise Refusal(
                f"tensors inside their storages, this one of {storage.numel():,} elements",
                got=f"one that begins at element {offset:.3g} and ends at element {last:.3g}",
            )
        self.budget.view(count * storage.element_size())
        return torch.as_strided(storage, size, stride, storage.storage_offset() + offset)

    def _tensor_v2(self, arguments: tuple[Any, ...]) -> Any:
        # (storage, offset, size, stride, requires_grad, hooks[, whether conjugated or negated])
        plain = len(arguments) == 6 or (len(arguments) == 7 and not arguments[6])
        return self._tensor(*arguments[:4]) if plain else UNKNOWN

    def _tensor_v3(self, arguments: tuple[Any, ...]) -> Any:
        # (storage in bytes, offset, size, stride, requires_grad, hooks, dtype[, metadata])
        plain = len(arguments) == 7 or (len(arguments) == 8 and not arguments[7])
        match arguments[:7]:
            case (Tensor() as raw, offset, size, stride, _, _, Name(name)) if plain and name in DTYPES:
                if raw.dtype == torch.uint8 and raw.ndim == 1:
                    return self._tensor(typed(raw, DTYPES[name]), offset, size, stride)
        return UNKNOWN

    def _from_type(self, arguments: tuple[Any, ...]) -> Any:
        """A tensor that had attributes of its own, which are dropped; other subclasses stay opaque."""
        match arguments:
            case (Name(function), Name("torch.nn.parameter.Parameter" | "torch.Tensor"), tuple(inner), _):
                return self.build(function, inner)
        return UNKNOWN

    # --- numpy -------------------------------------------------------------------------------------------

    def _scalar(self, arguments: tuple[Any, ...]) -> Any:
        if len(arguments) != 2:
            return UNKNOWN
        value = self._array(arguments[1], arguments[0], (), fortran=False)
        return value.item() if isinstance(value, Tensor) else UNKNOWN

    def _frombuffer(self, arguments: tuple[Any, ...]) -> Any:
        match arguments:
            case (content, dtype, shape, "C" | "F" as order):
                return self._array(content, dtype, shape, fortran=order == "F")
        return UNKNOWN

    def _array(self, content: Any, dtype: Any, shape: Any, *, fortran: bool) -> Any:
        """A tensor with the contents of a numeric array."""
        known = _numpy_dtype(dtype)
        if known is None or not isinstance(content, bytes | bytearray | str | Window) or not _whole(shape):
            return UNKNOWN
        raw = self._raw(content)
        element, big_endian = known
        count = 1
        for length in shape:
            count *= length
        if count * element.itemsize != len(raw) or max(shape, default=0) >= 2**40:
            raise Refusal(
                "arrays with as many bytes as their shape needs",
                got=f"{len(raw):,} bytes for {count:.3g} elements of {element}",
            )
        if big_endian:
            part = element.itemsize // (2 if element.is_complex else 1)
            raw = raw.reshape(-1, part).flip(1).reshape(-1)
        values = typed(raw, element)
        if fortran:
            return values.reshape(shape[::-1]).permute(tuple(range(len(shape)))[::-1])
        return values.reshape(shape)

    def _raw(self, content: bytes | bytearray | str | Window) -> Tensor:
        if isinstance(content, Window):
            self._used(content)
            return content.tensor()
        content = content.encode("latin-1") if isinstance(content, str) else content
        raw = empty(len(content), self.budget)
        raw.numpy().data[:] = content
        return raw

    def _used(self, content: bytes | Window) -> None:
        if isinstance(content, Window):
            self.used.add(content.start)


def typed(raw: Tensor, dtype: torch.dtype) -> Tensor:
    """The elements of `dtype` that some bytes hold, as a view of them."""
    if len(raw) % dtype.itemsize:
        raise Refusal(f"whole elements of {dtype}", got=f"{len(raw):,} bytes")
    if dtype == torch.bool and len(raw) and int(raw.max()) > 1:
        raise Refusal("truth values stored as 0 or 1", got=str(int(raw.max())))
    return raw.view(dtype)


def _numpy_dtype(dtype: Any) -> tuple[torch.dtype, bool] | None:
    """The element type of a pickled numpy dtype and whether it is big-endian; None if it is not numeric."""
    match dtype:
        case Opaque("numpy.dtype", (str(kind), *_), state) if kind in NUMPY:
            order = state[1] if isinstance(state, tuple) and len(state) > 1 else "<"
            return (NUMPY[kind], order == ">") if order in ("<", ">", "|") else None
    return None


def _unfinished(arguments: tuple[Any, ...]) -> Any:
    match arguments:
        case (Name("numpy.ndarray"), _, _):
            return Unfinished("numpy.ndarray", arguments)
    return UNKNOWN


def _reconstructor(arguments: tuple[Any, ...]) -> Any:
    """An object of a class, as protocols 0 and 1 write it: opaque under the name of its class."""
    match arguments:
        case (Name(name), Name("builtins.object"), None):
            return Opaque(name)
        case (Name(name), Name(), base):
            return Opaque(name, (base,))
    return UNKNOWN


def _device(arguments: tuple[Any, ...]) -> Any:
    match arguments:
        case (str(kind),):
            return kind
        case (str(kind), int(index)):
            return f"{kind}:{index}"
    return UNKNOWN


def _first_tensor(arguments: tuple[Any, ...], count: int) -> Any:
    return arguments[0] if len(arguments) == count and isinstance(arguments[0], Tensor) else UNKNOWN


def _numbers(values: tuple[Any, ...], count: int) -> bool:
    return len(values) == count and all(type(value) in (int, float) for value in values)


def _whole(values: Any) -> bool:
    """Whether these are a few natural numbers, as a shape or a place is made of."""
    few = isinstance(values, tuple | list) and len(values) <= 32
    return few and all(type(value) is int and 0 <= value < 2**62 for value in values)
