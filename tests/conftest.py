"""What all tests share: shapes checked by the machine, seeds, and two or three ways to know the truth.

Every function and dataclass of the package is checked against its annotations while the tests run: jaxtyping
for the shapes, beartype for the rest. The hook must be in place before the package is first imported.
"""

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Self, TypeVar, get_args, runtime_checkable

import jaxtyping
import numpy as np
import pytest
import torch
from beartype import BeartypeConf, beartype
from hypothesis import settings
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)
CHECKS = BeartypeConf(is_pep484_tower=True)  # an int is taken for a float, as mypy does


def checked(thing: Any) -> Any:
    """beartype, with three concessions to what Python annotations cannot say about themselves.

    `Self` is left unchecked: the hook decorates methods one by one, and beartype needs the class to know it.
    Protocols are looked at by the names of their methods, whether or not they are marked `runtime_checkable`;
    those with properties alone are not looked at, for Python 3.11 would compute these.
    """
    if isinstance(hints := getattr(thing, "__annotations__", None), dict):
        thing.__annotations__ = {n: hint for n, hint in hints.items() if hint is not Self and not lazy(hint)}
        for hint in hints.values():
            for part in (hint, *get_args(hint)):
                if getattr(part, "_is_protocol", False):
                    runtime_checkable(part)
    return beartype(conf=CHECKS)(thing)


def module_at(path: Path) -> ModuleType:
    """A script or another file that is in no package, as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lazy(hint: Any) -> bool:
    """Whether a hint is a protocol that has properties and nothing else."""
    members = (
        [value for name, value in vars(hint).items() if not name.startswith("_")]
        if isinstance(hint, type)
        else []
    )
    return (
        bool(members)
        and getattr(hint, "_is_protocol", False)
        and all(isinstance(m, property) for m in members)
    )


jaxtyping.install_import_hook("pags", f"{__name__}.checked")
torch.set_num_threads(1)  # the networks are tiny, and two threads wait for each other where cores are shared
settings.register_profile("pags", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("pags")


def pytest_configure(config: pytest.Config) -> None:
    folder = tempfile.TemporaryDirectory(prefix="pags-cache-")  # estimators of audits, not the user's
    config.add_cleanup(folder.cleanup)
    os.environ["PAGS_CACHE"] = folder.name
    # torch (2.15) compiles its forward-mode rules the old way on the first `torch.func.jvp`.
    config.addinivalue_line("filterwarnings", "ignore:`torch.jit.script` is deprecated:FutureWarning")


SLOW = (
    "test_cli.py::test_ctrl_c", "test_cli.py::test_theory_prints", "test_cli.py::test_the_paper_in_100_lines",
    "test_demo.py::", "test_docs.py::test_snippets_run", "test_notebooks.py::test_a_notebook_runs",
    "test_parallel.py::test_a_killed_process", "test_parallel.py::test_two_processes",
    "test_reproduce.py::", "test_site.py::test_the_site_builds",
)  # fmt: skip
"""Beginnings of the names of tests that take more than about 15 seconds; so do those with a Ray cluster."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them, so that -m "not slow" is the fast suite."""
    for item in items:
        of_ray = {"cluster", "spread"} & set(getattr(item, "fixturenames", ()))
        if of_ray or any(f"tests/{name}" in item.nodeid or item.nodeid.startswith(name) for name in SLOW):
            item.add_marker("slow")


@pytest.fixture
def global_state_untouched() -> Iterator[None]:
    """The law that nothing in the package draws from, or seeds, a global generator.

    Python's own is left out, for beartype draws from it; `test_rooms` finds it in the source.
    """
    torch_before, numpy_before = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    yield
    assert torch.equal(torch.get_rng_state(), torch_before), "torch's global generator was used"
    assert str(np.random.get_state()) == numpy_before, "numpy's global generator was used"  # noqa: NPY002


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def built(make: Callable[[], M], seed: int = 0) -> M:
    """A network with seeded weights, made without a trace in the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def central_differences(f: Callable[[Tensor], Tensor], x: Tensor, step: float = 1e-5) -> Tensor:
    """The derivative of a tensor-valued function, (*f(x).shape, *x.shape), by float64 central differences."""
    assert x.dtype == torch.float64
    columns = []
    for place in range(x.numel()):
        h = torch.zeros_like(x)
        h.view(-1)[place] = step
        columns.append((f(x + h) - f(x - h)).detach() / (2 * step))
    return torch.stack(columns, -1).reshape(*columns[0].shape, *x.shape)


class Linear(nn.Module):
    """The classifier W x + b, of which everything is known in closed form."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)  # (classes, d)
        self.bias = nn.Parameter(weight.new_zeros(len(weight)) if bias is None else bias)

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight.T + self.bias


def smooth_network(d: int = 4, classes: int = 3, seed: int = 0) -> nn.Module:
    """A small smooth classifier in float64, without BatchNorm."""
    layers = lambda: nn.Sequential(  # noqa: E731
        nn.Flatten(), nn.Linear(d, 6), nn.Softplus(), nn.Linear(6, 5), nn.GELU(), nn.Linear(5, classes)
    )
    return built(layers, seed).double()


def used(net: nn.Module) -> None:
    """Give every BatchNorm statistics that are not those of its first day."""
    for name, buffer in net.named_buffers():
        if name.endswith("running_mean"):
            nn.init.normal_(buffer, std=0.3)
        if name.endswith("running_var"):
            nn.init.uniform_(buffer, 0.5, 2)


def network_with_batch_norm(channels: int = 1, classes: int = 3, seed: int = 0) -> nn.Sequential:
    """A small convolutional classifier with BatchNorm."""

    def make() -> nn.Sequential:
        net = nn.Sequential(
            nn.Conv2d(channels, 5, 3, padding=1), nn.BatchNorm2d(5), nn.Softplus(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, classes),
        )  # fmt: skip
        used(net)
        return net

    return built(make, seed)


def confident_network(margin: float, images: Tensor) -> tuple[nn.Module, Tensor]:
    """A float32 classifier, and the half of the images on which its margin is larger: `margin` or more."""
    model = network_with_batch_norm(seed=2).eval()
    with torch.no_grad():
        model[-1].bias -= model(images).mean(0)
        first, second = model(images).topk(2, 1).values.T
        kept = (first - second).topk(len(images) // 2)
        for parameter in model[-1].parameters():
            parameter.mul_(margin / kept.values[-1])
    return model, images[kept.indices]


class Traces:
    """Everything that looking at a network might change: modes, `.grad`, weights and statistics."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        for parameter in list(model.parameters())[::2]:  # some with a gradient, some without
            parameter.grad = torch.full_like(parameter, 0.25)
        model.train()
        next(model.children()).eval()  # a submodule in another mode than the rest
        self.before = self.look()

    def look(self) -> list[Any]:
        gradients = [None if p.grad is None else p.grad.tolist() for p in self.model.parameters()]
        state = {name: value.tolist() for name, value in self.model.state_dict().items()}
        return [[module.training for module in self.model.modules()], gradients, state]

    def assert_none(self) -> None:
        assert self.look() == self.before


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window; skipped where there is none."""
    api = pytest.importorskip("playwright.sync_api")
    executable = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if executable is None:
        pytest.skip("no chromium")
    with api.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield opened
        opened.close()
