"""Files that try to run something, or to take all time or memory: refused in a line, or read as plain data.

The payloads are live: an ordinary unpickler runs them, which the control shows, and each leaves a file, the
canary. All files are read in one process of limited memory in which every import, call to the system and
compilation is noticed. The first word of a file's name is what has to become of it: "refused", "opaque"
(read, with nothing run) or "either".
"""

import importlib
import io
import json
import os
import pickle
import random
import runpy
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dill  # type: ignore[import-untyped]
import torch

STOP = b"."


class Call:
    """Pickled, it becomes a call of `function` when an ordinary unpickler reads it."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.made = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.made


# --- instructions of the pickle format -----------------------------------------------------------------


def name(module: str, qualname: str) -> bytes:
    return f"c{module}\n{qualname}\n".encode()


def text(content: str) -> bytes:
    return b"X" + struct.pack("<I", len(content.encode())) + content.encode()


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + b"(" + b"".join(arguments) + b"tR"


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(b"I%d\n" % value for value in values) + b"t"


def live(folder: Path, canary: Path) -> dict[str, bytes]:
    """Payloads that run when an ordinary unpickler reads them."""
    touch, write = f"touch {canary}", f"open({str(canary)!r}, 'w').close()"
    shell, system = text(touch), name("os", "system")
    (script := folder / "script.py").write_text(write)
    (inner := folder / "inner.pkl").write_bytes(pickle.dumps(Call(os.system, touch)))
    (folder / "canary_module.py").write_text(f"import sys\nsys.modules.pop(__name__)\n{write}")
    made: dict[str, Any] = {}
    exec(f"def function():\n    {write}", made)
    function = dill.dumps(made["function"], protocol=2, recurse=True)[2:-1]
    get = call(name("builtins", "getattr"), call(name("builtins", "__import__"), text("os")), text("system"))
    return {
        "system": pickle.dumps(Call(os.system, touch)),
        "system in protocol 0": pickle.dumps(Call(os.system, touch), protocol=0),
        "eval": pickle.dumps(Call(eval, write)),
        "exec": pickle.dumps(Call(exec, write)),
        "subprocess": pickle.dumps(Call(subprocess.check_call, ["touch", str(canary)])),
        "getattr chain": call(get, shell) + STOP,
        "map": call(
            name("builtins", "list"), call(name("builtins", "map"), system, b"(" + shell + b"l")
        ) + STOP,
        "runpy": pickle.dumps(Call(runpy.run_path, str(script))),
        "importlib": pickle.dumps(Call(importlib.import_module, "canary_module")),
        "dill import": call(name("dill._dill", "_import_module"), text("canary_module")) + STOP,
        "dill function": b"\x80\x02" + call(function) + STOP,
        "pickle.loads": pickle.dumps(Call(pickle.loads, inner.read_bytes())),
        "numpy.load": call(name("numpy", "load"), text(str(inner)), b"N", b"\x88") + STOP,
        "dotted names": b"\x80\x04" + text("os") + text("system.__call__") + b"\x93(" + shell + b"tR" + STOP,
        "names from the memo": b"\x80\x04" + text("os") + b"\x940" + text("system")
        + b"\x940h\x00h\x01\x93(" + shell + b"tR" + STOP,
        "INST": b"(" + shell + b"ios\nsystem\n" + STOP,
        "OBJ": b"(" + system + shell + b"o" + STOP,
        "a key": b"}" + call(system, shell) + b"Ns" + STOP,
        "something popped": call(system, shell) + b"0N" + STOP,
        "state": call(name("types", "SimpleNamespace")) + b"}" + text("x")
         + call(system, shell) + b"sb" + STOP,
    }  # fmt: skip


def gadgets(folder: Path, canary: Path) -> dict[str, bytes]:
    """Names that lead to code in torch, numpy and Python, and builders of ours with arguments for others."""
    shell, system = text(f"touch {canary}"), name("os", "system")
    source = text(f"open({str(canary)!r}, 'w')")
    meta = (
        b"}(" + text("type") + text("class") + text("version") + b"K\x06" + text("module_src") + source
        + text("class_name") + text("Evil") + text("state") + b"}u"
    )  # fmt: skip
    encode, parameter = name("_codecs", "encode"), name("torch.nn.parameter", "Parameter")
    return {
        "torch.load": call(name("torch", "load"), text(str(folder / "inner.pkl"))) + STOP,
        "torch.jit.load": call(name("torch.jit", "load"), text(str(folder / "inner.pkl"))) + STOP,
        "torch deps": call(name("torch", "_load_global_deps")) + STOP,
        "torch.hub": call(name("torch.hub", "load"), text(str(folder)), text("x"), text("local")) + STOP,
        "torch ops": call(name("torch.ops", "load_library"), text(str(folder / "x.so"))) + STOP,
        "numpy runstring": call(name("numpy.testing._private.utils", "runstring"), source, b"}") + STOP,
        "numpy object array": call(
            name("numpy.core.multiarray", "_reconstruct"), name("numpy", "ndarray"), b"K\x00\x85", b"C\x01b"
        ) + b"(K\x01K\x01\x85" + call(name("numpy", "dtype"), text("O8")) + b"\x89]"
        + call(system, shell) + b"atb" + STOP,
        "webbrowser": call(name("webbrowser", "open"), text("http://localhost")) + STOP,
        "persistence": call(name("torch_utils.persistence", "_reconstruct_persistent_obj"), meta) + STOP,
        "NEWOBJ_EX": b"\x80\x04" + system + b"(" + shell + b"t}\x92" + STOP,
        "NEWOBJ": b"\x80\x02" + system + b"(" + shell + b"t\x81" + STOP,
        "__newobj__": call(name("copyreg", "__newobj__"), system, shell) + STOP,
        "_reconstructor": call(
            name("copyreg", "_reconstructor"), system, name("builtins", "str"), shell
        ) + STOP,
        "defaultdict": call(name("collections", "defaultdict"), system) + STOP,
        "from type": call(
            name("torch._tensor", "_rebuild_from_type_v2"), system, parameter, b"(" + shell + b"t", b"}"
        ) + STOP,
        "codec": call(encode, shell, text("zip")) + STOP,
        "bytes of a size": call(name("builtins", "bytes"), b"J\xff\xff\xff\x7f") + STOP,
        "numpy zeros": call(name("numpy", "zeros"), b"J\xff\xff\xff\x7f") + STOP,
        "rebuilding nothing": call(
            name("torch._utils", "_rebuild_tensor"), b"N", b"K\x00", b")", b")"
        ) + STOP,
        "circle through an object": call(name("os", "x")) + b"q\x00}X\x01\x00\x00\x00ah\x00sb" + STOP,
        "set to nothing": call(system, shell) + b"]b" + STOP,
    }  # fmt: skip


# --- files that take all time or memory, or break the format -------------------------------------------


def nested(opening: bytes, closing: bytes, depth: int = 100_000) -> bytes:
    return opening * depth + closing * depth + STOP


def doubled(start: bytes, step: bytes, times: int) -> bytes:
    """Each step pops the last object and makes one that holds it twice."""
    return start + step * times + STOP


def pickles() -> dict[str, bytes]:
    keys = b"".join(b"\x8a\x0c" + (k * (2**61 - 1)).to_bytes(12, "little") + b"N" for k in range(1, 100_000))
    pairs = b"".join(
        b"(" + b"".join(b"J" + struct.pack("<i", -1 - (k >> bit & 1)) for bit in range(16)) + b"tN"
        for k in range(2**16)
    )
    long = b"(" + b"K\x01" * 200_000 + b"lq\x00"
    load = name("torch.storage", "_load_from_bytes")
    inside = torch_file({"x": torch.zeros(3)}, legacy=True)
    for _ in range(6):
        inside = b"\x80\x04" + call(load, b"B" + struct.pack("<I", len(inside)) + inside) + STOP
    storage = torch_file(torch.zeros(2_000_000).untyped_storage(), legacy=True)
    many = (
        b"\x80\x04B" + struct.pack("<I", len(storage)) + storage + b"q\x000]" + (load + b"h\x00\x85Ra") * 2000
    )
    return {
        "refused list bomb": b"]q\x00" + b"".join(
            b"](" + b"h%c" % k * 10 + b"eq%c" % (k + 1) for k in range(60)
        ) + STOP,
        "refused tuple bomb": doubled(b")", b"2\x86", 150),
        "refused key of a tuple bomb": b"}" + b")" + b"2\x86" * 150 + b"Ns" + STOP,
        "refused deep lists": nested(b"(", b"l"),
        "refused deep tuples": b")" + b"\x85" * 100_000 + STOP,
        "refused deep dicts": b"(N" * 50_000 + b"Nd" * 50_000 + STOP,
        "refused deep calls": name("os", "system") + b")R" * 100_000 + STOP,
        "refused deep states": (name("os", "x") + b")R") * 50_001 + b"b" * 50_000 + STOP,
        "refused itself": b"]q\x00h\x00a" + STOP,
        "refused dict of itself": b"}q\x00X\x01\x00\x00\x00ah\x00s" + STOP,
        "refused LONG4": b"\x8b" + struct.pack("<i", 2**31 - 1) + b"\x01" * 100 + STOP,
        "refused negative LONG4": b"\x8b" + struct.pack("<i", -1) + STOP,
        "refused large LONG4": b"\x8b" + struct.pack("<i", 10_000_000) + b"\x7f" * 10_000_000 + STOP,
        "refused long number": b"L" + b"9" * 5_000_000 + b"L\n" + STOP,
        "refused BINUNICODE8": b"\x8d" + struct.pack("<Q", 2**62) + b"x" + STOP,
        "refused BINBYTES8": b"\x8e" + struct.pack("<Q", 2**63) + b"x" + STOP,
        "refused BYTEARRAY8": b"\x96" + struct.pack("<Q", 2**40) + b"x" + STOP,
        "refused BINSTRING": b"T" + struct.pack("<i", -5) + STOP,
        "refused frame": b"\x80\x04\x95" + struct.pack("<Q", 2**63) + STOP,
        "refused memo": b"Nr\xff\xff\xff\xffp99999999999999\n" + STOP,
        "refused memo of nothing": b"h\x07" + STOP,
        "refused negative memo": b"Np-1\n" + STOP,
        "refused colliding numbers": b"}(" + keys + b"u" + STOP,
        "refused colliding tuples": b"}(" + pairs + b"u" + STOP,
        "refused copied sets": long + b"](" + call(name("builtins", "set"), b"h\x00") * 100 + b"e" + STOP,
        "refused copied lists": long + (name("builtins", "list") + b"h\x00\x85R0") * 100_000 + STOP,
        "refused copied arguments": long.replace(b"lq", b"tq")
        + (name("os", "x") + b"h\x00}\x92") * 3_000 + STOP,
        "refused arguments of results": long.replace(b"lq", b"tq")
        + (name("os", "x") + b")Rh\x00R") * 3_000 + STOP,
        "opaque few circles": circles(6),
        "refused many circles": circles(30),
        "refused long circles": circles(200),
        "refused copied bytes": text("x" * 1_000_000) + b"q\x00"
        + (name("_codecs", "encode") + b"h\x00" + text("latin1") + b"\x86R") * 50_000 + STOP,
        "refused copied storages": many + STOP,
        "either long sizes": long + (name("torch", "Size") + b"h\x00\x85R0") * 3_000 + STOP,
        "refused empty sets": b"\x8f" * 2_000_001 + STOP,
        "refused marks": b"(" * 300_000 + STOP,
        "either many dicts": b"}" * 300_000 + STOP,
        "refused wide text": (b"X\x00\x00\xf0\x00" + b"a" * 0xEFFFFC + "\U0001f600".encode()) * 12 + STOP,
        "refused nested torch files": inside,
        "refused unknown extension": b"\x82\x01" + STOP,
        "refused extension 2": b"\x83\x01\x00" + STOP,
        "refused extension 4": b"\x84\x01\x00\x00\x00" + STOP,
        "refused persistent id": b"Pos.system\n" + STOP,
        "refused persistent object": b"]Q" + STOP,
        "refused buffer": b"\x80\x05\x97" + STOP,
        "refused protocol": b"\x80\x09N" + STOP,
        "refused state of a list": b"]}b" + STOP,
        "refused state of a name": name("os", "system") + b"}b" + STOP,
        "refused items of a name": name("os", "system") + b"Na" + STOP,
        "refused call of a text": text("os.system") + b")R" + STOP,
        "refused call without tuple": name("os", "system") + text("true") + b"R" + STOP,
        "refused name that is a number": b"\x80\x04K\x01K\x02\x93" + STOP,
        "refused long name": name("os", "x" * 100_000) + STOP,
        "refused UTF-8": b"X\x04\x00\x00\x00\xff\xfe\xff\xfe" + STOP,
        "refused name in UTF-8": b"c\xff\xfe\nx\n" + STOP,
        "refused empty stack": STOP,
        "refused pop of nothing": b"0" + STOP,
        "refused empty": b"",
        "refused only a protocol": b"\x80\x04",
        "refused web page": b"<!DOCTYPE html><html>Too many requests</html>",
        "refused LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "refused tar": b"x" * 257 + b"ustar" + b"x" * 300,
        "refused noise": random.Random(0).randbytes(5000),
        "refused list as a key": b"}]Ns" + STOP,
        "refused odd items": b"}(NNNu" + STOP,
        "refused array too short": array(shape=(1000,), content=b"1234"),
        "either array of negative size": array(shape=(-1, -1), content=b"1234"),
        "either array of dates": array(shape=(1,), content=b"12345678", kind="M8"),
        "either array of records": array(shape=(1,), content=b"1234", kind="V4"),
        "refused array of 10^9": array(shape=(10**9,), content=b"1234"),
        "refused array of 10^18 by 0": array(shape=(10**18, 0), content=b""),
    }  # fmt: skip


def circles(count: int) -> bytes:
    """Objects each of which refers to all."""
    objects = b"".join(name("os", "x") + b")Rq%c0" % k for k in range(count))
    everyone = b"](" + b"".join(b"h%c" % k for k in range(count)) + b"e"
    return objects + b"](" + b"".join(b"h%c" % k + everyone + b"b" for k in range(count)) + b"e" + STOP


def array(*, shape: tuple[int, ...], content: bytes, kind: str = "f4") -> bytes:
    begin = call(
        name("numpy.core.multiarray", "_reconstruct"), name("numpy", "ndarray"), b"K\x00\x85", b"C\x01b"
    )
    raw = b"B" + struct.pack("<I", len(content)) + content
    dtype = call(name("numpy", "dtype"), text(kind), b"\x89", b"\x88")
    return b"\x80\x04" + begin + b"(K\x01" + numbers(*shape) + dtype + b"\x89" + raw + b"tb" + STOP


def torch_file(content: Any, *, legacy: bool = False) -> bytes:
    torch.save(content, file := io.BytesIO(), _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def tensor(*, offset: int, size: bytes, stride: bytes, kind: str, count: int) -> bytes:
    """The pickle of one tensor on the storage "0"."""
    identity = (
        b"(" + text("storage") + name("torch", kind) + text("0") + text("cpu") + b"I%d\n" % count + b"tQ"
    )
    view = (identity, b"I%d\n" % offset, size, stride, b"\x89", call(name("collections", "OrderedDict")))
    return b"\x80\x02" + call(name("torch._utils", "_rebuild_tensor_v2"), *view) + STOP


def zipped(members: dict[str, bytes], *, method: int = zipfile.ZIP_STORED) -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), "w", method) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return file.getvalue()


def stored(**changes: Any) -> bytes:
    """A torch archive of one tensor of six float32, some of it changed."""
    good = {"offset": 0, "size": numbers(2, 3), "stride": numbers(3, 1), "kind": "FloatStorage", "count": 6}
    return zipped({"a/data.pkl": tensor(**{**good, **changes}), "a/data/0": b"\0" * 24})


def legacy(pickled: bytes, *, keys: list[Any], tail: bytes) -> bytes:
    head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    pickles = [pickle.dumps(part, protocol=2) for part in head]
    return b"".join(pickles) + pickled + pickle.dumps(keys, protocol=2) + tail


def safetensors(header: Any, data: bytes = b"\0" * 16, *, length: int | None = None) -> bytes:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(content) if length is None else length) + content + data


def entry(dtype: Any, shape: Any, *place: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": place}


def overlapping() -> bytes:
    """An archive whose two entries point at one member."""
    content = zipped({"a/data.pkl": b"N.", "b/data.pkl": b"N."})
    second = content.rfind(b"PK\x01\x02")
    changed = content[:second] + content[second:].replace(b"b/data.pkl", b"a/data.pkl")
    return changed[: second + 42] + struct.pack("<L", 0) + changed[second + 46 :]


def archives() -> dict[str, bytes]:
    good = stored()
    pickled = tensor(offset=0, size=numbers(2), stride=numbers(1), kind="FloatStorage", count=2)
    huge = tensor(offset=0, size=numbers(10**9), stride=numbers(1), kind="FloatStorage", count=10**9)
    tensors = tensor(offset=0, size=numbers(2), stride=numbers(1), kind="FloatStorage", count=2)[:-1]
    encrypted = bytearray(good)
    encrypted[good.find(b"PK\x01\x02") + 8] |= 1
    two = zipped({"a/data.pkl": b"N.", "b/data.pkl": b"K\x01."}).replace(b"b/data.pkl", b"a/data.pkl")
    end = good.rfind(b"PK\x05\x06")
    lying = good[: end + 8] + struct.pack("<HHLL", 65535, 65535, 2**32 - 1, 2**32 - 1) + good[end + 20 :]
    crowd = good[: end + 8] + struct.pack("<HHLL", 60000, 60000, 100, 0) + good[end + 20 :]
    return {
        "refused zip bomb": zipped({"a/data.pkl": b"N" * 30_000_000 + STOP}, method=zipfile.ZIP_DEFLATED),
        "refused zip bomb of storage": zipped(
            {"a/data.pkl": huge, "a/data/0": b"\0" * 30_000_000}, method=zipfile.ZIP_DEFLATED
        ),
        "refused compressed with bzip2": zipped({"a/data.pkl": b"N."}, method=zipfile.ZIP_BZIP2),
        "refused nested zip": zipped({"a/data.zip": good}),
        "refused path upwards": zipped({"../../data.pkl": b"N."}),
        "refused path from the root": zipped({"/etc/data.pkl": b"N.", "a/data.pkl": b"N."}),
        "refused two of a name": two,
        "refused overlapping": overlapping(),
        "refused encrypted": bytes(encrypted),
        "refused 64-bit table": lying,
        "refused crowd": crowd,
        "refused two pickles": zipped({"a/data.pkl": b"N.", "b/data.pkl": b"N."}),
        "refused no pickle": zipped({"a.npy": b"x"}),
        "refused missing storage": zipped({"a/data.pkl": pickled}),
        "refused big-endian": zipped({"a/data.pkl": b"N.", "a/byteorder": b"big"}),
        "refused no end": b"PK\x03\x04" + b"\0" * 100,
        "refused shape too large": stored(size=numbers(3, 3)),
        "refused 10^9 elements": stored(size=numbers(10**9), stride=numbers(0)),
        "refused 10^9 in one": zipped({"a/data.pkl": huge, "a/data/0": b"\0" * 8}),
        "refused stride too large": stored(stride=numbers(100, 1)),
        "refused stride beyond integers": stored(stride=numbers(2**61, 1)),
        "opaque negative stride": stored(stride=numbers(-3, 1)),
        "opaque negative size": stored(size=numbers(-2, -3)),
        "opaque negative offset": stored(offset=-4),
        "opaque size of texts": stored(size=b"(" + text("2") + text("3") + b"t"),
        "opaque 40 dimensions": stored(size=numbers(*[1] * 40), stride=numbers(*[1] * 40)),
        "refused offset too large": stored(offset=1),
        "refused offset beyond integers": stored(offset=2**61),
        "refused fewer strides": stored(stride=numbers(1)),
        "refused other type": stored(kind="DoubleStorage"),
        "refused unknown type": stored(kind="EvilStorage"),
        "refused quantised type": stored(kind="QInt8Storage"),
        "refused longer storage": stored(count=7),
        "refused negative count": stored(count=-6),
        "refused count beyond": stored(count=2**70),
        "refused truth of 255": zipped({
            "a/data.pkl": tensor(offset=0, size=numbers(2), stride=numbers(1), kind="BoolStorage", count=2),
            "a/data/0": b"\xff\xff",
        }),
        "refused old, 10^9": legacy(huge, keys=["0"], tail=struct.pack("<q", 10**9)),
        "refused old, 10^15": legacy(
            huge.replace(b"I1000000000\n", b"I1000000000000000\n"), keys=["0"], tail=b"\0" * 8
        ),
        "refused old, other length": legacy(pickled, keys=["0"], tail=struct.pack("<q", 3) + b"\0" * 12),
        "refused old, negative length": legacy(pickled, keys=["0"], tail=struct.pack("<q", -2) + b"\0" * 12),
        "refused old, cut": legacy(pickled, keys=["0"], tail=struct.pack("<q", 2) + b"\0" * 5),
        "refused old, other keys": legacy(pickled, keys=["1"], tail=struct.pack("<q", 2) + b"\0" * 8),
        "refused old, odd keys": legacy(pickled, keys=[[], {}], tail=struct.pack("<q", 2) + b"\0" * 8),
        "refused old, no keys": legacy(pickled, keys=[], tail=b""),
        "refused old, two types": legacy(
            tensors + tensors[2:].replace(b"Float", b"Double") + b"\x86.", keys=["0"], tail=b"\0" * 24
        ),
        "refused many views": zipped({
            "a/data.pkl": b"\x80\x02](" + tensor(
                offset=0, size=numbers(10**6), stride=numbers(1), kind="FloatStorage", count=10**6
            )[2:-1] * 20_000 + b"e.",
            "a/data/0": b"\0" * 4_000_000,
        }),
    }  # fmt: skip


def headers() -> dict[str, bytes]:
    f32 = entry("F32", [4], 0, 16)
    return {
        "refused header of 10^9": safetensors({"a": entry("F32", [10**9], 0, 4 * 10**9)}),
        "refused header of 10^19": safetensors({"a": entry("F32", [10**10, 10**9], 0, 16)}),
        "refused header length": safetensors({"a": f32}, length=2**62),
        "refused header of 20 MB": safetensors(b"{" + b" " * 20_000_000 + b"}"),
        "refused header, overlapping": safetensors({"a": f32, "b": f32}),
        "refused header, hole": safetensors({"a": entry("F32", [2], 8, 16)}),
        "refused header, type": safetensors({"a": entry("X32", [4], 0, 16)}),
        "refused header, type of list": safetensors({"a": entry([], [4], 0, 16)}),
        "refused header, shape": safetensors({"a": entry("F32", [-4], 0, 16)}),
        "refused header, text": safetensors({"a": entry("F32", ["4"], 0, 16)}),
        "refused header, order": safetensors({"a": entry("F32", [4], 16, 0)}),
        "refused header, deep": safetensors(b'{"a":' + b"[" * 1_000_000),
        "refused header, UTF-8": safetensors(b'{"\xff": 1}'),
        "refused header, JSON": safetensors(b"{nonsense}"),
        "refused header, cut": safetensors({"a": f32}, b"\0" * 3),
        "refused header, about": safetensors({"__metadata__": {"about": "[" * 100_000}, "a": f32}),
    }


def damaged() -> dict[str, bytes]:
    """Good files cut at many places, and with single bits flipped."""
    state = {
        "state_dict": {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3).bool()},
        "epoch": 3,
    }
    good = {
        "archive": torch_file(state),
        "old file": torch_file(state, legacy=True),
        "pickle": pickle.dumps({"ema": state, "note": ["text", 1.5, None, {1, 2}, b"bytes"]}, protocol=4),
    }
    draws, files = random.Random(1), {}
    for kind, content in good.items():
        for place in sorted(draws.sample(range(1, len(content) - 1), 40)):
            files[f"refused {kind} cut at {place}"] = content[:place]
        for place in sorted(draws.sample(range(len(content) * 8), 150)):
            flipped = bytearray(content)
            flipped[place // 8] ^= 1 << place % 8
            files[f"either {kind} with bit {place} flipped"] = bytes(flipped)
    return files


READER = """
import codecs, json, resource, signal, sys, time
from pathlib import Path
import torch
from pags.checkpoints import read, leaves, tensors_in
from pags.errors import PagsError

noticed = []
WATCHED = ("import", "exec", "compile", "os.", "subprocess.", "socket.", "pickle.", "ctypes.", "webbrowser.",
           "marshal.", "code.", "object.__setattr__", "cpython.", "shutil.", "tempfile.")
def notice(event, arguments):
    if watching and event.startswith(WATCHED):
        noticed.append([event, repr(arguments)[:80]])
    elif watching and event == "open" and arguments[0] != str(path):
        noticed.append([event, repr(arguments)[:80]])
def peak_memory():  # in KiB; what a parent process had is not counted
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
def alarm(*_):
    raise SystemExit(f"more than 30 s for {path}")
folder, warm = map(Path, sys.argv[1:])
codecs.lookup("raw-unicode-escape")  # Python imports its codecs when they are first used
watching, path = False, warm
list(leaves(read(warm)))
sys.addaudithook(notice)
signal.signal(signal.SIGALRM, alarm)
base = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resident = peak_memory()
resource.setrlimit(resource.RLIMIT_AS, (base + 2 * 2**30, -1))
for path in sorted(folder.iterdir()):
    signal.alarm(30)
    began, said, opaque, numel = time.perf_counter(), None, [], 0
    noticed.clear()
    watching = True
    try:
        tree = read(path)
        if isinstance(tree, dict):
            tensors_in(tree)
        for _, leaf in leaves(tree):
            if isinstance(leaf, torch.Tensor):
                numel += int((leaf == leaf).sum())  # every element can be read
            else:
                opaque.append(leaf.name)
        tree = leaf = None
    except PagsError as error:
        said, error = str(error), None
    except Exception as error:
        said = f"CRASH {type(error).__name__}: {error}"
    watching = False
    signal.alarm(0)
    seconds = time.perf_counter() - began
    peak = peak_memory() - resident
    print(json.dumps([path.name, said, opaque[:5], list(noticed), seconds, peak]), flush=True)
"""

CONTROL = """
import pickle, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
for path in sorted(Path(sys.argv[1]).iterdir()):
    canary = Path(sys.argv[3])
    canary.unlink(missing_ok=True)
    try:
        pickle.loads(path.read_bytes())
    except Exception as error:
        print(path.name, error, file=sys.stderr)
    print(path.name, canary.exists(), sep="\\t")
"""


def child(script: str, *arguments: Path) -> list[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    words = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def written(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for file, content in files.items():
        (folder / file).write_bytes(content)
    return folder


def test_the_payloads_are_live(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    files = written(tmp_path / "files", live(tmp_path, canary))
    lines = [line.split("\t") for line in child(CONTROL, files, tmp_path, canary)]
    assert len(lines) == len(live(tmp_path, canary))
    assert [file for file, ran in lines if ran != "True"] == []


def test_hostile_files_run_nothing_and_end_soon(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    runs = {f"opaque {file}": content for file, content in live(tmp_path, canary).items()}
    runs |= {f"opaque {file}": content for file, content in gadgets(tmp_path, canary).items()}
    runs |= {
        f"opaque {file} in an archive": zipped({"a/data.pkl": content})
        for file, content in live(tmp_path, canary).items()
    }
    files = runs | pickles() | archives() | headers() | damaged()
    (warm := tmp_path / "warm.pt").write_bytes(torch_file({"a": torch.ones(2)}))
    lines = [json.loads(line) for line in child(READER, written(tmp_path / "files", files), warm)]
    assert len(lines) == len(files)
    assert not canary.exists()
    wrong = []
    for file, said, opaque, noticed, seconds, _ in lines:
        outcome = (
            "refused" if said else "opaque" if opaque or "popped" in file or "defaultdict" in file else "read"
        )
        expected = file.split()[0]
        if expected not in ("either", outcome):
            wrong.append(f"{file}: {outcome}, {said or ''}")
        if noticed:
            wrong.append(f"{file}: {noticed}")
        if said and ("\n" in said or not said.startswith("expected ") or file not in said or len(said) > 700):
            wrong.append(f"{file}: {said[:300]}")
        if seconds > 30:
            wrong.append(f"{file}: {seconds:.0f} s")
    assert wrong == []
    peak = max(line[5] for line in lines) / 2**20
    slowest = max(lines, key=lambda line: line[4])
    assert peak < 2, f"{peak:.2f} GiB"
    print(f"{len(lines)} files, slowest {slowest[0]} {slowest[4]:.1f} s, peak {peak:.2f} GiB above the start")
