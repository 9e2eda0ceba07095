"""Networks saved with their graph: TorchScript, torch.export and ONNX. Only the graph runs.

torch's own loaders trust such files: `torch.export.load` unpickles objects, evaluates expressions and finds
any name below `torch`; TorchScript has operators that read and write files. So the text of a file is read
first, and whatever is not arithmetic on tensors is refused.
"""

import io
import json
import pickle
import re
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pags import checkpoints
from pags.errors import PagsError
from pags.seeds import seeded_construction

LONGEST = {".py": 32 * 2**20, ".json": 32 * 2**20, ".pt": 256 * 2**20}
"""Bytes of code, of data about a graph and of tensors that are looked at, unpacked."""

FORBIDDEN = re.compile(
    r"\b(?:from_file|save|load|_print|PythonOp|IgnoredPythonOp|rpc_\w+)\b\s*\(|"
    r"def __setstate__"  # which would run already when the file is read, for as long as it likes
)
NAMESPACES = {"aten", "prim", "quantized"}

OPERATORS = re.compile(
    r"torch\.ops\.aten\.(?!from_file|save)\w+\.\w+|torch\.sym_\w+|"
    r"_operator\.(?:add|sub|mul|truediv|floordiv|mod|neg|pow|getitem|eq|ne|lt|le|gt|ge|and_|or_|not_)"
)
EXPRESSION = re.compile(
    r"(?:\s|[-+*/%(),.<>=&|~]|\d|'?\b[suzf]\d+\b'?|\b(?:Symbol|Integer|Rational|Add|Mul|Pow|Max|Min|Mod|"
    r"FloorDiv|CleanDiv|CeilDiv|PythonMod|positive|nonnegative|integer|True|False)\b)*"
)
POWER = re.compile(r"\*\*|\bPow\b")
SQUARE = re.compile(r"\b[suzf]\d+\*\*\d\b(?!\*)|\bPow\(Symbol\('\w+'[^()]*\), Integer\(\d\)\)")
"""A power that is a number of digits, not a number with as many digits as there are atoms."""
MEMBERS = re.compile(
    r"[^/]+/(?:models/\w+\.json|data/(?:weights|constants)/[\w.]+|data/sample_inputs/\w+\.pt|archive_\w+|"
    r"byteorder|version|\.data/\w+)|serialized_\w+\.(?:json|pt)|version|\.data/\w+"
)


def program(path: Path) -> tuple[nn.Module, str] | None:
    """The network of a file that holds its graph, and the name of the format; None for other files.

    Raises:
        PagsError: the file needs more than arithmetic on tensors, is damaged, or the package that reads it is
            not installed.
    """
    if path.suffix == ".onnx":
        return _loaded(_onnx, path), "ONNX"
    names = _names(path)
    if any(re.fullmatch(r"[^/]+/code/.*\.py", name) for name in names):
        return _loaded(_torchscript, path), "TorchScript"
    if any(re.search(r"models/\w+\.json$|^serialized_exported_program\.json$", name) for name in names):
        return _loaded(_exported, path), "torch.export"
    return None


def _names(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile):
        return []


def _torchscript(path: Path) -> nn.Module:
    with zipfile.ZipFile(path) as archive:
        code = "\n".join(text.decode() for name, text in _texts(archive, ".py", path))
    spaces = set(re.findall(r"\bops\.(\w+)\.", code)) - NAMESPACES
    found = [*FORBIDDEN.findall(code), *sorted(f"ops.{space}" for space in spaces)]
    if re.search(r"torch\.classes\.(?!quantized)", code):
        found.append("torch.classes")
    if found:
        raise _refused("a TorchScript program that only computes with tensors", found[0], path)
    return torch.jit.load(path, map_location="cpu")


def _exported(path: Path) -> nn.Module:
    with zipfile.ZipFile(path) as archive:
        if odd := [name for name in archive.namelist() if not MEMBERS.fullmatch(name)]:
            raise _refused("a torch.export program of a graph and tensors", odd[0], path)
        for _, text in _texts(archive, ".json", path):
            for found in _suspicious(json.loads(text)):
                raise _refused("a torch.export program of torch's operators on tensors", found, path)
        for name, content in _texts(archive, ".pt", path):
            for found in _objects(content):
                raise _refused("a torch.export program of a graph and tensors", f"{found} in {name}", path)
    program: Any = torch.export.load(path)
    # Guards are code in the file; the graph itself fails on other shapes.
    options = {"check_guards": False} if "check_guards" in program.module.__code__.co_varnames else {}
    return program.module(**options)


def _texts(archive: zipfile.ZipFile, ending: str, path: Path) -> Iterator[tuple[str, bytes]]:
    """The members of an ending, of bounded length."""
    infos = [info for info in archive.infolist() if info.filename.endswith(ending)]
    if sum(info.file_size for info in infos) > LONGEST[ending]:
        raise _refused(f"at most {LONGEST[ending]:,} bytes of {ending}", "more", path)
    yield from ((info.filename, archive.read(info)) for info in infos)


def _suspicious(node: Any, key: str = "") -> Iterator[str]:
    """What in the data about a graph could do more than compute."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _suspicious(value, name)
    elif isinstance(node, list):
        for value in node:
            yield from _suspicious(value, key)
    elif key in {"target", "as_operator"} and isinstance(node, str) and not OPERATORS.fullmatch(node):
        yield node[:80]
    elif key == "expr_str" and not (isinstance(node, str) and _is_plain(node)):
        yield f"the expression {str(node)[:80]}"
    elif (key == "use_pickle" and node is not False) or (key == "class_fqn" and node):
        yield f"{key} {str(node)[:80]}"


def _is_plain(expression: str) -> bool:
    """Whether an expression is soon evaluated."""
    powers = len(POWER.findall(expression)) == len(SQUARE.findall(expression))
    return len(expression) < 1000 and powers and EXPRESSION.fullmatch(expression) is not None


def _objects(content: bytes) -> Iterator[str]:
    """The objects, other than tensors and plain data, in a torch file, also those that it throws away."""
    if not content:
        return
    with tempfile.TemporaryDirectory() as folder:
        inner = Path(folder) / "inner.pt"
        inner.write_bytes(content)
        leaves = checkpoints.leaves(checkpoints.read(inner))
        yield from (leaf.name for _, leaf in leaves if isinstance(leaf, checkpoints.Opaque))
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except pickle.UnpicklingError:
        yield "an object that is no tensor"


def _onnx(path: Path) -> nn.Module:
    try:
        onnx, converter = import_module("onnx"), import_module("onnx2torch")
    except ImportError as error:
        raise PagsError(
            "onnx and onnx2torch, which make a network with gradients of an ONNX file",
            got=f"no such package ({error.name})",
            suggestion="pip install -e '.[onnx]'",
        ) from error
    with seeded_construction(0, "to be replaced"):
        return converter.convert(onnx.load(io.BytesIO(path.read_bytes())))


def _loaded(load: Callable[[Path], nn.Module], path: Path) -> nn.Module:
    """What a loader makes of a file, without its warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return load(path)
    except PagsError:
        raise
    except Exception as error:
        words = " ".join(str(error).split())
        raise PagsError(
            "a network in a whole file of its format",
            got=f"{path} ({type(error).__name__}: {words[:200]})",
            suggestion="exporting it again with this torch, or a state dict and its architecture",
        ) from error


def _refused(expected: str, found: str, path: Path) -> PagsError:
    return PagsError(
        expected,
        got=f"{found} in {path}",
        suggestion="file.py:function that loads it, if you trust the file: that runs what is in it",
    )
