"""Writes docs/commands.md from the help of every command, and docs/api.md from the lists of public names.

    python scripts/make_reference.py

A test says when they are not current. The docstrings are put in when the site is built.
"""

import ast
from pathlib import Path
from typing import Any

import typer

from pags.cli import COMMANDS, Commands
from pags.cli.output import ANYWHERE, Grouped

ROOT = Path(__file__).parents[1]
HEAD = """# Commands

Made from `pags COMMAND --help` by `scripts/make_reference.py`. Every command takes `-h`, and these, before or
after its name:

| option | |
|---|---|
"""


def pages() -> dict[str, str]:
    """Every page that is made, by its name."""
    return {"commands.md": commands(), "api.md": api()}


def commands() -> str:
    """The command reference."""
    shared = "".join(f"| `{option}` | {text} |\n" for option, text in ANYWHERE.items())
    parts = [HEAD + shared + "| `pags --version` | Print the version. |\n"]
    group = Commands(name="pags")
    for name in COMMANDS:
        found: Any = group.get_command(typer.Context(group), name)
        inner = getattr(found, "commands", None)
        parts += [section(f"{name} {n}", c) for n, c in inner.items()] if inner else [section(name, found)]
    return "\n".join(parts)


def section(name: str, command: Grouped) -> str:
    """A command: usage, what it does, its options in groups, an example."""
    context = typer.Context(command, info_name=f"pags {name}")
    usage = " ".join(["pags", name, *command.collect_usage_pieces(context)])
    text = "\n\n".join(" ".join(part.split()) for part in (command.help or "").split("\n\n"))
    example = [f"{' '.join(line.split())}\n" for line in (command.epilog or "").split("\n\n")]
    lines = [f"## pags {name}\n", f"`{usage}`\n", f"{text}\n", *example]
    for title, options in command.groups(context).items():
        if title != "Output":
            lines += [f"**{title}**\n", "| | |", "|---|---|"]
            lines += [
                f"| `{cell(flags)}` | {cell(about)} |" for flags, about in options if "--help" not in flags
            ]
            lines.append("")
    return "\n".join(lines)


def cell(text: str) -> str:
    """A text in a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def api() -> str:
    """The public names in the order of their lists, each with the place of its docstring."""
    parts = [API_HEAD]
    for package in ("", *PACKAGES):
        names = public(package)
        title = ".".join(["pags", *([package] if package else [])])
        parts.append(f"## {title}\n")
        parts += [f"### {title}.{name}\n\n::: {path}\n" for name, path in names.items()]
    return "\n".join(parts)


PACKAGES = ("data", "training", "manifold", "score", "measure", "generate")
API_HEAD = """# Python

Every public name, from its docstring. `import pags` is instant: what a name needs is imported when it is
first used. Images are float tensors (N, C, H, W) in [0, 1]; vectors (gradients, scores, perturbations) have
the same shape.
"""


def public(package: str) -> dict[str, str]:
    """The public names of a package (of `pags` itself, where it is empty), and where each is defined."""
    folder = ROOT / "src" / "pags" / package
    file = folder / "__init__.pyi"
    text = (file if file.is_file() else folder / "__init__.py").read_text()
    base = ".".join(["pags", *([package] if package else [])])
    found: dict[str, str] = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = f"{base}.{node.module}" if node.level else node.module
            found |= {alias.asname or alias.name: f"{module}.{alias.name}" for alias in node.names}
    return found


if __name__ == "__main__":
    for name, text in pages().items():
        (ROOT / "docs" / name).write_text(text)
