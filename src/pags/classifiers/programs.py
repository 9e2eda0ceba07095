"""Networks saved with their graph: TorchScript, torch.export and ONNX. Only the graph runs.

torch's own loaders trust such files: `torch.export.load` unpickles objects, evaluates expressions and finds
any name below `torch`; TorchScript has operators that read and write files. So the text of a file is read
first, and whatever is not arithmetic on tensors is refused.
"""

import io
import json
import re
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pags import checkpoints
from pags.errors import PagsError

LONGEST = 256 * 2**20
"""Bytes of code or data about a graph that are looked at, unpacked."""

FORBIDDEN = re.compile(r"\b(?:from_file|save|load|_print|PythonOp|IgnoredPythonOp|rpc_\w+)\b\s*\(")
NAMESPACES = {"aten", "prim", "quantized"}

OPERATORS = re.compile(
    r"torch\.ops\.aten\.(?!from_file|save)\w+\.\w+|torch\.sym_\w+|"
    r"_operator\.(?:add|sub|mul|truediv|floordiv|mod|neg|pow|getitem|eq|ne|lt|le|gt|ge|and_|or_|not_)"
)
EXPRESSION = re.compile(
    r"(?:\s|[-+*/%(),.<>=&|~]|\d|'?\b[suzf]\d+\b'?|\b(?:Symbol|Integer|Rational|Add|Mul|Pow|Max|Min|Mod|"
    r"FloorDiv|CleanDiv|CeilDiv|PythonMod|positive|nonnegative|integer|True|False)\b)*"
)
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
        return _onnx(path), "ONNX"
    names = _names(path)
    if any(re.fullmatch(r"[^/]+/code/.*\.py", name) for name in names):
        return _torchscript(path), "TorchScript"
    if any(re.search(r"models/\w+\.json$|^serialized_exported_program\.json$", name) for name in names):
        return _exported(path), "torch.export"
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
    return _loaded(lambda: torch.jit.load(path, map_location="cpu"), path)


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
    program = _loaded(lambda: torch.export.load(path), path)
    # Guards are code in the file; the graph itself fails on other shapes.
    options = {"check_guards": False} if "check_guards" in program.module.__code__.co_varnames else {}
    return program.module(**options)


def _texts(archive: zipfile.ZipFile, ending: str, path: Path) -> Iterator[tuple[str, bytes]]:
    """The members of an ending, of bounded length."""
    infos = [info for info in archive.infolist() if info.filename.endswith(ending)]
    if sum(info.file_size for info in infos) > LONGEST:
        raise _refused(f"at most {LONGEST:,} bytes about the graph", "more", path)
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
    elif key == "expr_str" and not (isinstance(node, str) and EXPRESSION.fullmatch(node)):
        yield f"the expression {str(node)[:80]}"
    elif (key == "use_pickle" and node is not False) or (key == "class_fqn" and node):
        yield f"{key} {str(node)[:80]}"


def _objects(content: bytes) -> Iterator[str]:
    """The objects, other than tensors and plain data, in a torch file."""
    with tempfile.TemporaryDirectory() as folder:
        inner = Path(folder) / "inner.pt"
        inner.write_bytes(content)
        leaves = checkpoints.leaves(checkpoints.read(inner)) if content else iter(())
        yield from (leaf.name for _, leaf in leaves if isinstance(leaf, checkpoints.Opaque))


def _onnx(path: Path) -> nn.Module:
    try:
        onnx, converter = import_module("onnx"), import_module("onnx2torch")
    except ImportError as error:
        raise PagsError(
            "onnx and onnx2torch, which make a network with gradients of an ONNX file",
            got=f"no such package ({error.name})",
            suggestion="pip install -e '.[onnx]'",
        ) from error
    return _loaded(lambda: converter.convert(onnx.load(io.BytesIO(path.read_bytes()))), path)


def _loaded(load: Any, path: Path) -> Any:
    """What a loader makes of a file, without its warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return load()
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
