"""README and docs work when copied: every command parses, every snippet runs, every link leads somewhere."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer

from pags.cli import app
from pags.cli.output import ANYWHERE

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN = ("pags doctor", "pags data list", "pags lpips", "pags --help", "pags convert --help")
"""Commands that take no time and need nothing."""


def blocks(page: Path, kind: str) -> Iterator[str]:
    yield from re.findall(rf"^```{kind}\n(.*?)^```", page.read_text(), flags=re.M | re.S)


def commands(page: Path) -> Iterator[str]:
    """The commands of a page, without comments, continued lines joined."""
    for block in blocks(page, "console"):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield shlex.join(words)


def parsed(command: str) -> None:
    """Have the command line take the words of a command apart, without doing anything."""
    group, words = typer.main.get_command(app), shlex.split(command)[1:]
    with group.make_context(
        "pags", [w for w in words if w not in ANYWHERE], resilient_parsing=False
    ) as outer:
        name, found, rest = group.resolve_command(outer, [*outer._protected_args, *outer.args])  # type: ignore[attr-defined]
        assert found is not None, name
        if hasattr(found, "commands") and rest:
            name, rest = rest[0], rest[1:]
            found = found.commands[name]
        with found.make_context(name, list(rest), parent=outer):
            pass


READER = """
import torch, pags
from pags.classifiers.build import without_normaliser
data = pags.load_data("digits")
some = data.test.sample(24)
images, labels = some.images, some.labels
model = classifier = pags.new_classifier(data.train)
autoencoder = pags.manifold.Autoencoder((1, 8, 8), 4, (8,))
tangent = pags.manifold.LocalPCA(data.train.images, 4)
denoiser = pags.score.IdealDenoiser(data.train.images, data.train.labels)
my_directions = lambda images: torch.randn(len(images), 64, 3)
my_distance = lambda a, b: (a - b).abs().mean((1, 2, 3))
network = lambda noisy, sigma, labels: 0 * noisy
other = pags.audit(classifier, images, labels, tangent=tangent, denoiser=denoiser)
"""
"""What a reader of docs/ has at hand: the names that snippets there take for given."""
FILES = """
import torch, pags
made = pags.load_classifier("torchvision:resnet18?untrained", classes=10)
plain = {n.removeprefix("network."): v for n, v in made.state_dict().items() if "normalise" not in n}
torch.save(plain, "resnet18.pt")
images, labels = torch.rand(4, 3, 32, 32), torch.arange(4)
"""

OURS = [(page.name, command) for page in PAGES for command in commands(page) if command.startswith("pags ")]


@pytest.mark.parametrize(("page", "command"), OURS)
def test_every_command_of_the_docs_is_one(page: str, command: str) -> None:
    if "…" in command or command.endswith("--help"):
        pytest.skip("an outline")
    parsed(command)


def test_the_check_of_commands_finds_a_wrong_one() -> None:
    with pytest.raises(Exception, match="no-such"):
        parsed("pags demo --no-such 1")


@pytest.mark.parametrize("command", sorted({c for _, c in OURS if c.startswith(RUN) and "…" not in c}))
def test_commands_that_take_no_time_run(command: str, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "pags", *shlex.split(command)[1:]]
    if any(Path(w).suffix == ".png" for w in words):
        pytest.skip("needs pictures")
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("page", "code"), [(p.name, b) for p in PAGES for b in blocks(p, "python")])
def test_snippets_run_as_they_stand(page: str, code: str, tmp_path: Path) -> None:
    """Those of the README with nothing before them."""
    code = {"README.md": "", "extending.md": "", "models.md": FILES}.get(page, READER) + code
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, capture_output=True, text=True,
        timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def names(page: Path) -> Iterator[str]:
    """What a page calls pags.this.that, and `folder/module.Name` or `folder/module.py` of the package."""
    text = page.read_text()
    yield from re.findall(r"(?<![\w./-])pags(?:\.[A-Za-z_]\w*)+(?!\w*-)", text)
    for folder, module, name in re.findall(r"`((?:\w+/)+)(\w+)(?:\.(\w+))?`", text):
        if (ROOT / "src/pags" / folder).is_dir():
            last = "" if name in ("", "py", "toml") else f".{name}"
            yield f"pags.{folder.replace('/', '.')}{module}{last}"


def is_there(name: str) -> bool:
    found: Any = import_module("pags")
    for place, part in enumerate(name.split(".")[1:], start=2):
        known = hasattr(found, part) or part in getattr(found, "__annotations__", {})
        if not known:
            try:
                found = import_module(".".join(name.split(".")[:place]))
            except ImportError:
                return False
        else:
            found = getattr(found, part, None)
    return True


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "api.md"], ids=lambda page: page.name)
def test_names_of_the_docs_are_there(page: Path) -> None:
    assert [name for name in names(page) if not is_there(name)] == []


def test_the_check_of_names_finds_a_wrong_one() -> None:
    assert is_there("pags.manifold.LocalPCA")
    assert not is_there("pags.LocalPCA")
