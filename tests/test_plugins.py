"""What a user brings: found, told what is wrong with it, and known by its source and by what it does."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from conftest import Linear, built, network_with_batch_norm, seeded, smooth_network
from pags.classifiers.identity import behaviour, identity
from pags.classifiers.load import load_classifier
from pags.errors import PagsError, UsageError
from pags.plugins import as_plugin, is_plugin, load_plugin

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return written


def test_forms_are_told_from_names() -> None:
    assert all(map(is_plugin, ("a.py:f", "some/where else/a.py:F", "package.module:f", "module:_f")))
    assert not any(map(is_plugin, ("pgd", "a.py", "a.py:", "a.py:1", ":f", "a b:f", "a/b:f", "w.pt", None)))


def test_a_file_imports_its_neighbours_now_and_later(write: Write) -> None:
    write("helper.py", "value = 2")
    write("inner/part.py", "def late(): return 5")
    path = write(
        "mine.py",
        "import helper\ndef f():\n    from inner.part import late\n    return helper.value * late()",
    )
    assert load_plugin(f"{path}:f").value() == 10
    assert not list(path.parent.rglob("*.pyc")), "nothing is written into a user's folder"


def test_neighbours_shadow_nothing(write: Write) -> None:
    """In a process of its own, where `statistics` was not imported before."""
    write("statistics.py", "raise SystemExit('shadowed')")
    path = write("mine.py", "def f():\n    import statistics\n    return statistics.mean([1, 3])")
    code = f"from pags.plugins import load_plugin; print(load_plugin({f'{path}:f'!r}).value())"
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "2"


def test_two_folders_may_have_neighbours_of_one_name(write: Write) -> None:
    for folder, value in (("one", 1), ("two", 2), ("one", 1)):
        write(f"{folder}/helper.py", f"value = {value}")
        path = write(f"{folder}/mine.py", "import helper\ndef f(): return helper.value")
        assert load_plugin(f"{path}:f").value() == value


def test_the_source_is_that_of_all_that_is_imported_from_the_folder(write: Write) -> None:
    """Each file is varied in turn; a file that nothing imports, and the folder's place, do not count."""
    texts = {
        "mine.py": "import torch, a\ndef f():\n    from pack.sub import g\n    return g()",
        "a.py": "import b",
        "b.py": "x = 1",
        "pack/__init__.py": "",
        "pack/sub.py": "from .near import g",
        "pack/near.py": "def g(): return 1",
        "unused.py": "",
    }

    def source() -> str:
        return load_plugin(f"{path}:f").source

    paths = {name: write(name, text) for name, text in texts.items()}
    path, found = paths["mine.py"], set()
    first = source()
    for name, text in texts.items():
        write(name, text + "\n# edited")
        found.add((name, source() != first))
        write(name, text)
    assert found == {(name, name != "unused.py") for name in texts}
    assert source() == first


def test_an_edited_neighbour_is_imported_again(write: Write) -> None:
    """Two edits within a second and of one length, which a cache of compiled code would not tell apart."""
    path = write("mine.py", "import helper\ndef f(): return helper.value")
    for value in (1, 2, 3):
        write("helper.py", f"value = {value}")
        assert load_plugin(f"{path}:f").value() == value


def test_a_module_is_known_by_its_package(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(write("mypack_of_pags/__init__.py", "").parent.parent)
    path = write(
        "mypack_of_pags/sub.py", "import torch\nfrom mypack_of_pags import helper\ndef f(): return helper.x"
    )
    write("mypack_of_pags/helper.py", "x = 4")
    plugin = load_plugin("mypack_of_pags.sub:f")
    assert plugin.value() == 4
    write("mypack_of_pags/helper.py", "x = 5")
    assert load_plugin("mypack_of_pags.sub:f").source != plugin.source
    write("mypack_of_pags/helper.py", "x = 4")
    assert as_plugin(plugin.value).source == plugin.source
    assert path.is_file()


def test_an_object_is_known_by_the_file_that_defines_it() -> None:
    assert as_plugin(seeded).source == as_plugin(built).source != as_plugin(write).source
    assert as_plugin(seeded).name == "seeded"
    assert as_plugin(Linear(torch.eye(2))).name == "Linear"
    assert as_plugin(json.dumps).source


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("g = 1\ndef h(): pass", UsageError, "a function f in .*no such name; try h"),
        ("def f(", PagsError, "SyntaxError"),
        ("import nothing_of_this_name", UsageError, "nothing_of_this_name"),
        ("raise ValueError('first line\\nsecond')", PagsError, "ValueError: first line; try"),
    ],
)
def test_what_cannot_be_loaded_is_said_in_one_line(
    text: str, error: type[PagsError], message: str, write: Write
) -> None:
    with pytest.raises(error, match=message) as raised:
        load_plugin(f"{write('mine.py', text)}:f")
    assert "\n" not in str(raised.value)


def test_other_texts_are_refused() -> None:
    for spec in ("mine.py", "mine", "none.py:f", "no_such_module_of_mine:f"):
        with pytest.raises(UsageError, match="expected"):
            load_plugin(spec)


# --- what a classifier does ------------------------------------------------------------------------------

SHAPE = (1, 8, 8)


def test_behaviour_is_the_same_for_the_same_and_leaves_no_trace(global_state_untouched: None) -> None:
    net = network_with_batch_norm()
    before = [buffer.clone() for buffer in net.state_dict().values()]
    assert behaviour(net, SHAPE, 3) == behaviour(network_with_batch_norm(), SHAPE, 3)
    assert behaviour(net, SHAPE) != behaviour(network_with_batch_norm(seed=1), SHAPE)
    assert all(torch.equal(a, b) for a, b in zip(before, net.state_dict().values(), strict=True))
    assert net.training
    assert all(weight.grad is None for weight in net.parameters())


@pytest.mark.parametrize("seed", range(6))
def test_behaviour_sees_small_changes_and_not_the_last_digits(seed: int) -> None:
    """Between float32 and float64 nothing changes but rounding."""
    net = smooth_network(d=64, seed=seed).float()
    first = behaviour(net, SHAPE)
    with torch.no_grad():
        weight = next(net.parameters())
        weight.add_(0.03 * weight.abs().mean() * torch.randn(weight.shape, generator=seeded(seed)))
    assert behaviour(net, SHAPE) != first

    class Exact(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return exact(images.double())

    exact = smooth_network(d=64, seed=seed).float().double()
    assert behaviour(Exact(), SHAPE) == first


def test_behaviour_sees_the_gradient_alone() -> None:
    class Rounded(nn.Module):
        """The same logits, from images that autograd does not see through."""

        def forward(self, images: Tensor) -> Tensor:
            return net(images.detach() + 0 * images)

    net = smooth_network(d=64).float()
    assert behaviour(Rounded(), SHAPE) != behaviour(net, SHAPE)


MINE = """
import torch
from pathlib import Path
import prep

def net():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    model.load_state_dict(torch.load(Path(__file__).with_name("w.pt"), weights_only=True))
    return model.eval()

def function():
    model = net()
    return lambda x: model(prep.prep(x))

def module():
    class M(torch.nn.Module):
        def __init__(self): super().__init__(); self.net = net()
        def forward(self, x): return self.net(prep.prep(x))
    return M()
"""


@pytest.mark.parametrize("name", ["function", "module"])
def test_weights_that_became_noise_are_another_model(name: str, write: Write) -> None:
    path = write("mine.py", MINE)
    write("prep.py", "def prep(x): return x")
    found = [identity_of(path, name, seed) for seed in (0, 1, 0)]
    assert found[0] == found[2] != found[1]
    assert found[0]["source"] == found[1]["source"]


@pytest.mark.parametrize("name", ["function", "module"])
def test_a_helper_that_was_edited_is_another_model(name: str, write: Write) -> None:
    path, found = write("mine.py", MINE), []
    for text in ("return x", "return (x - 0.5) / 0.1", "return x"):
        write("prep.py", f"def prep(x): {text}")
        found.append(identity_of(path, name, 0))
    assert found[0] == found[2] != found[1]
    assert found[0]["behaviour"] != found[1]["behaviour"]


def test_an_edited_module_is_another_model(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("pags_test_module.py", MINE)
    write("prep.py", "def prep(x): return x")
    monkeypatch.syspath_prepend(path.parent)
    first = identity_of(path, "module", 0, "pags_test_module")
    write("pags_test_module.py", MINE.replace("self.net(prep.prep(x))", "self.net((x - 0.5) / 0.1)"))
    for module in ("pags_test_module", "prep"):  # another process would not have them
        sys.modules.pop(module, None)
    second = identity_of(path, "module", 0, "pags_test_module")
    assert all(first[key] != second[key] for key in ("behaviour", "source"))
    assert first["sha256"] == second["sha256"]


def identity_of(path: Path, name: str, seed: int, where: str = "") -> dict[str, object]:
    layer = built(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), seed)
    torch.save(layer.state_dict(), path.with_name("w.pt"))
    spec = f"{where or path}:{name}"
    return identity(built(lambda: load_classifier(spec, channels=1, classes=3)), SHAPE, 3)
