"""What commands print: tables that fit, three digits, JSON, the bare answer, and help in groups."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

import made_records as made
import pags
from pags.cli import COMMANDS
from pags.cli.output import PANELS, Grouped, Output
from pags.cli.show import finish, interval_text, number_text, show_claims, show_table
from test_cli import made_command, run
from test_reproduction_page import folder_of

ROWS = [
    (f"a quantity with a rather long name {n}", "0.123 [0.100, 0.150]", "floor 0.1, ceiling 0.9")
    for n in range(3)
]


@pytest.fixture(autouse=True)
def usual_form() -> Any:
    yield
    Output.choose([])


@pytest.mark.parametrize("wide", [60, 80, 120])
def test_tables_fit_with_a_line_per_row(
    wide: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(wide))
    show_table(("quantity", "mean [95 %]", "reference values"), ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(ROWS)
    assert max(map(len, lines)) <= wide
    assert all("0.123 [0.100, 0.150]" in line for line in lines[1:])
    assert ("ceiling" in lines[1]) == (wide >= 81)
    show_claims(made.claims())
    assert max(map(len, capsys.readouterr().out.splitlines()[2:])) <= wide


def test_what_is_no_terminal_gets_whole_rows(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    show_table(("quantity", "mean", "reference values"), ROWS)
    assert "ceiling 0.9" in capsys.readouterr().out


def test_numbers_have_three_significant_digits() -> None:
    assert [number_text(v) for v in (0.5, 12.345, 0.0012345, 123.0, None)] == [
        "0.500", "12.3", "0.00123", "123", "–"
    ]  # fmt: skip
    assert interval_text(made.about(0.25), "+") == "+0.250 [+0.240, +0.260]"
    assert interval_text({"estimate": None, "low": None, "high": None}) == "– [–, –]"


ANSWERS = {
    ("doctor",): "torch", ("data", "list"): "digits", ("data", "show", "digits"): "shape",
    ("reproduce", "3", "--list"): "3",
}  # fmt: skip


@pytest.mark.parametrize("words", ANSWERS)
def test_json_is_all_that_is_printed(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words, "--json") == 0
    assert ANSWERS[words] in json.loads(capsys.readouterr().out)
    assert run("--json", *words) == 0
    assert ANSWERS[words] in json.loads(capsys.readouterr().out)


def test_quiet_and_json_name_the_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder_of("audit", tmp_path)
    assert run("report", str(tmp_path), "--quiet") == 0
    quiet = capsys.readouterr().out.splitlines()
    assert all(Path(line).is_file() for line in quiet)
    assert quiet[-1] == str(tmp_path / "report.html")
    assert run("report", str(tmp_path), "--json") == 0
    assert json.loads(capsys.readouterr().out)["files"] == quiet


@pytest.mark.parametrize("kind", ["audit", "reproduction", "theory"])
def test_numbers_of_records_become_a_table_of_csv(kind: str, tmp_path: Path) -> None:
    store, path = folder_of(kind, tmp_path / "made"), tmp_path / "numbers.csv"
    assert run("report", str(store.root), "--table", str(path), "--quiet") == 0
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = pags.load_results(store.root).to_pandas()
    assert [float(row["estimate"]) for row in rows] == table["estimate"].tolist()
    assert list(rows[0]) == list(table)


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"pags {pags.__version__}\n"


def test_a_shell_completes_commands_and_options() -> None:
    for words, there in (("pags au", "audit"), ("pags audit --side", "--side")):
        asked = {"_PAGS_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        code = "from pags.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | asked, capture_output=True, text=True, check=False
        )
        assert there in done.stdout.split(), done.stderr


GROUPS = ("data", "sweep", "store")
"""Commands that have commands of their own."""


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in GROUPS])
def test_help_has_its_options_in_groups_that_can_be_overlooked(name: str) -> None:
    command = made_command(name)
    assert isinstance(command, Grouped)
    groups = command.groups(typer.Context(command))
    shown = [option for found in groups.values() for option in found]
    assert len(shown) == len(command.get_params(typer.Context(command))) + 3
    assert max(map(len, groups.values())) <= 11


def test_every_grouped_option_is_one_of_some_command() -> None:
    known = {param.name for name in COMMANDS if name not in GROUPS for param in made_command(name).params}
    assert {name for names in PANELS.values() for name in names} <= known


def test_a_folder_of_many_figures_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    figures = [tmp_path / "figures" / f"{n}.svg" for n in range(21)]
    finish({}, [tmp_path / "audit.json", *figures])
    said = capsys.readouterr().out.split()
    assert said == ["wrote", f"{tmp_path / 'figures'}/", "(21", "files)", str(tmp_path / "audit.json")]
    finish({}, figures[:20])
    assert capsys.readouterr().out.split() == ["wrote", *map(str, figures[:20])]
