"""The direction of imports, and what no room may do; the checker itself is held to small violations."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import pags

ROOMS = (
    "errors", "memory", "display", "records", "settings", "seeds", "arrays", "plugins", "store", "shipped",
    "checkpoints", "data", "classifiers", "training", "manifold", "score", "measure", "auditing", "generate",
    "experiments", "claims", "theory", "figures", "report", "plots", "cli", "__main__",
)  # fmt: skip
"""From the ground up: a module imports only from its own room and from rooms before it."""

FOLDER = Path(pags.__file__).parent

DRAWS = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson"}
IN_PLACE = {"normal", "uniform", "bernoulli", "random", "exponential", "log_normal", "cauchy", "geometric"}
DRAWS_IN_PLACE = {f"{name}_" for name in IN_PLACE}
SEEDING = {f"torch.{name}" for name in ("manual_seed", "seed", "set_rng_state", "cuda.manual_seed")}
SEEDING |= {"torch.cuda.manual_seed_all"}


def sources() -> dict[str, str]:
    """The text of every module by its dotted name; a package's `__init__` goes by the package's name."""
    found = {}
    for path in sorted(FOLDER.rglob("*.py")):
        parts = path.relative_to(FOLDER.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text()
    return found


def imports(source: str, known: set[str]) -> set[str]:
    """The modules of the package that a module imports, at any depth in its text."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the room"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            # `from pags.data import batches` imports a module, `from pags.data import x` may not.
            found |= {name if name in known else str(node.module) for name in inside}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] == "pags"}


def room(module: str) -> str:
    return module.split(".")[1]


def misplaced(modules: dict[str, str]) -> list[str]:
    """Imports that go the wrong way, and modules in no room; the package's own `__init__` is free."""
    wrong = []
    for module, source in modules.items():
        if module == "pags":
            continue
        if room(module) not in ROOMS:
            wrong.append(f"{module} is in no room")
            continue
        for imported in imports(source, set(modules)):
            above = imported == "pags" or room(imported) not in ROOMS
            if above or ROOMS.index(room(imported)) > ROOMS.index(room(module)):
                wrong.append(f"{module} imports {imported}")
    return wrong


def cycle(modules: dict[str, str]) -> list[str]:
    """Modules that import each other in a circle, or nothing."""
    graph = {module: imports(source, set(modules)) - {module} for module, source in modules.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def full_names(tree: ast.AST) -> dict[str, str]:
    """What the names that a module imports stand for."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
    return names


def dotted(node: ast.expr, names: dict[str, str]) -> str:
    """`np.random.rand` as "numpy.random.rand"; something computed as ""."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value, names)}.{node.attr}"
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else ""


def offences(source: str, module: str) -> Iterator[str]:
    """What the module does that no module may."""
    tree = ast.parse(source)
    names = full_names(tree)
    own = room(module) if "." in module else ""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield "a bare except"
        if isinstance(node, ast.Attribute | ast.Name):
            name = dotted(node, names)
            if name in {"os.getcwd", "pathlib.Path.cwd", "Path.cwd"}:
                yield f"{name} instead of a folder that is handed in"
            if name.partition(".")[0] in {
                "pickle",
                "cPickle",
                "dill",
                "cloudpickle",
                "joblib",
                "_pickle",
            } and name.endswith((".load", ".loads")):
                yield f"{name} runs code from files"
            if own != "seeds" and (name in SEEDING or name.startswith(("numpy.random.", "random."))):
                yield f"{name} is global random state"
        if isinstance(node, ast.Call):
            yield from _call_offences(node, dotted(node.func, names), own)


def _call_offences(node: ast.Call, name: str, own: str) -> Iterator[str]:
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    if name == "torch.load" and not _is_true(keywords.get("weights_only")):
        yield "torch.load without weights_only=True"
    if name == "numpy.load" and "allow_pickle" in keywords:
        yield "numpy.load with pickles"
    if name == "print" and own != "cli":
        yield "print outside the command line"
    method = name.rpartition(".")[2]
    if "generator" not in keywords and (
        (name.startswith("torch.") and method.removesuffix("_like") in DRAWS and name.count(".") == 1)
        or (
            method in DRAWS_IN_PLACE
            and not name.startswith("torch.nn.init.")
            and "init" not in name.split(".")
        )
    ):
        yield f"{name} draws without a generator"


def _is_true(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


# --- the package -----------------------------------------------------------------------------------------


def test_imports_go_from_the_ground_up() -> None:
    assert misplaced(sources()) == []


def test_imports_go_in_no_circle() -> None:
    assert cycle(sources()) == []


def test_only_the_command_line_changes_the_process() -> None:
    """How memory is kept is set for a whole process, which is the user's where pags is a library."""
    modules = sources()
    asking = {room(m) for m, text in modules.items() if "pags.memory" in imports(text, set(modules))}
    assert asking <= {"cli"}


@pytest.mark.parametrize("module", sources())
def test_no_module_does_what_none_may(module: str) -> None:
    assert list(offences(sources()[module], module)) == []


# --- the checker -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pags.arrays", "from pags.store import Store"),
        ("pags.arrays", "import pags.store"),
        ("pags.store", "def f():\n    from pags.data.batches import Batch"),
        ("pags.measure.a", "if TYPE_CHECKING:\n    from pags import report"),
        ("pags.score.a", "from pags import LPIPS"),
        ("pags.attic.a", ""),
        ("pags.attic.a", "import torch"),
    ],
)
def test_misplaced_imports_are_found(module: str, source: str) -> None:
    others = dict.fromkeys(["pags", "pags.store", "pags.data.batches", "pags.report"], "")
    assert len(misplaced({**others, module: source})) == 1


def test_imports_from_below_and_beside_are_allowed() -> None:
    modules = {
        "pags": "from pags.cli import main",
        "pags.cli": "import pags.report\nimport torch",
        "pags.report": "from pags.measure import regimes",
        "pags.measure.regimes": "from pags.measure.statistics import Interval",
        "pags.measure.statistics": "from pags.errors import PagsError",
        "pags.errors": "",
    }
    assert misplaced(modules) == []
    assert cycle(modules) == []


def test_relative_imports_are_refused() -> None:
    with pytest.raises(AssertionError, match="hide the room"):
        imports("from . import x", set())


def test_circles_are_found() -> None:
    modules = {"pags.data.a": "from pags.data.b import x", "pags.data.b": "from pags.data import a"}
    assert set(cycle(modules)) == set(modules)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.load(file)",
        "from pickle import loads as read\nread(b'')",
        "import joblib\njoblib.load(path)",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "from torch import load\nload(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import torch\ntorch.manual_seed(0)",
        "import numpy as np\nnp.random.rand(3)",
        "from numpy.random import default_rng\ndefault_rng()",
        "import random\nrandom.random()",
        "import torch\ntorch.rand(3)",
        "import torch\ntorch.randn_like(x)",
        "from torch import randn\nrandn(3)",
        "x.normal_()",
        "import os\nos.getcwd()",
        "from os import getcwd\ngetcwd()",
        "from pathlib import Path\nPath.cwd()",
        "try:\n    f()\nexcept:\n    pass",
        "print(1)",
    ],
)
def test_offences_are_found(source: str) -> None:
    assert list(offences(source, "pags.measure.a"))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pags.seeds", "import torch\ntorch.manual_seed(0)"),
        ("pags.cli", "print(1)"),
        ("pags.cli.train", "print(1)"),
        ("pags.store", "import torch\ntorch.load(path, weights_only=True)"),
        ("pags.store", "json.load(file)"),
        ("pags.data.a", "import torch\ntorch.randn(3, generator=draws)"),
        ("pags.data.a", "x.normal_(generator=draws)"),
        ("pags.data.a", "from torch import nn\nnn.init.normal_(weight)"),
        ("pags.data.a", "try:\n    f()\nexcept OSError:\n    console.print(1)"),
        ("pags.checkpoints", "import pickle\nclass Reader(pickle.Unpickler):\n    pass"),
    ],
)
def test_what_is_allowed_is_not_an_offence(module: str, source: str) -> None:
    assert list(offences(source, module)) == []
