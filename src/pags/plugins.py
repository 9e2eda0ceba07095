"""What a user brings: Python of his own, as `file.py:name`, `package.module:name`, or an object.

**Loading runs that code**, with everything that it may do. What was loaded is known by its source: a digest
of its file and of every file from the same folder (or the same package) that it imports, at any depth.
"""

import ast
import hashlib
import inspect
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from pags.errors import PagsError, UsageError

_SPEC = re.compile(r"(?P<where>.+\.py|[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<name>[^\W\d]\w*)")


@dataclass(frozen=True)
class Plugin:
    """Something that a user brings.

    Args:
        value: the object itself.
        name: what it is called in its module.
        where: the file or the module that it comes from.
        source: SHA-256 of its source and of the neighbours that it imports, for keys; "" where Python knows
            no source.
    """

    value: Any
    name: str
    where: str
    source: str

    def check_callable(self, parameters: str, body: str, *, what: str = "a function") -> None:
        """Raise a `UsageError` that shows how such a function begins, unless it can be called."""
        if not callable(self.value):
            raise UsageError(
                f"{what} {self.name}{parameters}",
                got=f"a {type(self.value).__name__}",
                suggestion=f"def {self.name}{parameters}: {body}",
            )


def is_plugin(spec: object) -> bool:
    """Whether a text has the form `file.py:name` or `package.module:name`.

    `folder:birds` has it too: whoever has names with a colon of his own looks for those first.
    """
    return isinstance(spec, str) and _SPEC.fullmatch(spec) is not None


def load_plugin(spec: str) -> Plugin:
    """What `spec` names. **This runs the user's code.**

    A file may import its neighbours: its folder is looked through after everything that is installed, so that
    it shadows nothing, while the file is imported and later. A file is run anew at every call, and its
    neighbours with it.

    Args:
        spec: `file.py:name` or `package.module:name`.

    Raises:
        UsageError: the text has another form, or there is no such file, module or name.
        PagsError: the file or module fails when it is imported.
    """
    found = _SPEC.fullmatch(spec)
    if found is None:
        raise UsageError("file.py:name or package.module:name", got=repr(spec), suggestion="mine.py:function")
    where, name = found["where"], found["name"]
    try:
        module = _from_file(Path(where)) if where.endswith(".py") else import_module(where)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{where} to be importable" if where.endswith(".py") else f"a Python module {where} to import",
            got=str(error),
            suggestion="installing that module, or the path of a file: path/to/file.py:function",
        ) from error
    except UsageError:
        raise
    except Exception as error:
        raise failed(f"{where} to be imported", where, error) from error
    if not hasattr(module, name):
        names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UsageError(
            f"a function {name} in {where}",
            got="no such name",
            suggestion=" or ".join(names[:5]) or "defining it there",
        )
    return Plugin(getattr(module, name), name, where, source_digest(module))


def as_plugin(thing: object) -> Plugin:
    """A plug-in from its spec, or from the object itself."""
    if isinstance(thing, str):
        return load_plugin(thing)
    made: Any = getattr(thing, "func", thing)  # what is behind functools.partial
    kind = made if hasattr(made, "__qualname__") else type(made)
    name = str(getattr(thing, "name", "") or getattr(kind, "__name__", "object"))
    return Plugin(thing, name, str(getattr(kind, "__module__", "")), _source_of(kind))


def instead_of(thing: object, kind: str, names: Iterable[str], default: str) -> Plugin:
    """What a user gives where a registry's names are known: no such name, so his own.

    Args:
        thing: a spec, or the object itself.
        kind: what is wanted, for the error: "a metric".
        names: those of the registry.
        default: one of them, to try.

    Raises:
        UsageError: a text that is no spec.
    """
    if isinstance(thing, str) and not is_plugin(thing):
        known = f"{', '.join(names)}, or file.py:name"
        raise UsageError(f"{kind} among {known}", got=repr(thing), suggestion=default)
    return as_plugin(thing)


def failed(expected: str, what: str, error: Exception) -> PagsError:
    """One line about an exception of the user's code."""
    first = (str(error).strip() or "no message").splitlines()[0]
    return PagsError(
        expected,
        got=f"{type(error).__name__}: {first[:200]}",
        suggestion=f"running {what} alone in Python, for the whole traceback",
    )


# Source --------------------------------------------------------------------------------------------------


def source_digest(module: ModuleType) -> str:
    """SHA-256 of a module's source and of what it imports from its folder or package; "" without a file."""
    path = Path(getattr(module, "__file__", None) or "")
    if not path.is_file():
        return ""
    digest = hashlib.sha256()
    for file in sorted(_closure(path.resolve(), module.__name__)):
        content = file.read_bytes()
        digest.update(f"{file.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _source_of(kind: Any) -> str:
    module = sys.modules.get(getattr(kind, "__module__", "") or "")
    if module is not None and (found := source_digest(module)):
        return found
    try:  # a notebook's cell
        return hashlib.sha256(inspect.getsource(kind).encode()).hexdigest()
    except (OSError, TypeError):
        return ""


def _closure(path: Path, name: str) -> set[Path]:
    """The file and all it imports, at any depth, from its root: its package, or its folder if it has none."""
    package, inside = name.split(".")[:-1], path.name == "__init__.py"
    root = path.parents[len(package) + inside] if package or inside else path.parent
    own = name.partition(".")[0] if package or inside or _is_installed(root) else ""
    found, waiting = set[Path](), [path, *_files_of(root, name if package else "")]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        for imported in _imported(file, root):
            if not own or imported.partition(".")[0] == own:
                waiting += _files_of(root, imported)
    return found


def _is_installed(folder: Path) -> bool:
    """Whether a folder is where packages are installed, which are nobody's neighbours."""
    places = {Path(place).resolve() for place in sysconfig.get_paths().values()}
    return folder in places or folder.name in {"site-packages", "dist-packages"}


def _imported(file: Path, root: Path) -> Iterator[str]:
    """The dotted names that a file imports anywhere in its text, relative ones as seen from the root."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = file.parents[node.level - 1] if node.level else root
            start = list(above.relative_to(root).parts) if above.is_relative_to(root) else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}".lstrip(".") for alias in node.names)


def _files_of(root: Path, name: str) -> Iterator[Path]:
    """The files of a module and of the packages around it."""
    folder = root
    for part in name.split(".") if name else ():
        yield from (path for path in (folder / f"{part}.py", folder / part / "__init__.py") if path.is_file())
        folder = folder / part


# Files and their neighbours -------------------------------------------------------------------------------


class _Fresh(SourceFileLoader):
    """Compiles what stands in the file now: a cache cannot tell two edits within a second."""

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.get_data(self.path), self.path, "exec")


class _Neighbours:
    """Finds modules in the folders of plug-ins, after every other finder."""

    def __init__(self) -> None:
        self.folders: list[str] = []

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        for folder in self.folders if path is None else ():
            if spec := FileFinder(folder, (_Fresh, SOURCE_SUFFIXES)).find_spec(name):
                spec.loader_state = self
                return spec
        return None


def _from_file(path: Path) -> ModuleType:
    """The file as a module of its own."""
    if not path.is_file():
        raise UsageError("a Python file that is there", got=str(path), suggestion="checking the path")
    path = path.resolve()
    name = f"_pags_user_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    _look_in(path.parent)
    _forget_others({file.relative_to(path.parent).parts[0] for file in _closure(path, name)})
    spec = spec_from_file_location(name, path, loader=_Fresh(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up there
    with _no_bytecode():
        spec.loader.exec_module(module)
    return module


def _look_in(folder: Path) -> None:
    """Let modules of a folder be found, those of the folder that came last before others."""
    finder = next((f for f in sys.meta_path if isinstance(f, _Neighbours)), None)
    if finder is None:
        finder = _Neighbours()
        sys.meta_path.append(finder)
    finder.folders[:] = [str(folder), *(other for other in finder.folders if other != str(folder))]


def _forget_others(files: set[str]) -> None:
    """Forget neighbours of plug-ins that have these names: an older text, or another folder's."""
    tops = {file.removesuffix(".py") for file in files}
    ours = {top for top in tops if isinstance(_loader_state(top), _Neighbours)}
    for module in [key for key in sys.modules if key.partition(".")[0] in ours]:
        del sys.modules[module]


def _loader_state(module: str) -> object:
    return getattr(getattr(sys.modules.get(module), "__spec__", None), "loader_state", None)


@contextmanager
def _no_bytecode() -> Iterator[None]:
    """Nothing is written into a user's folder."""
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before
