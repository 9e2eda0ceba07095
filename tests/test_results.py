"""What texts say of the studies in results/ is what their records say."""

from pathlib import Path
from types import ModuleType

import pytest

from conftest import module_at

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def results() -> ModuleType:
    return module_at(ROOT / "scripts" / "results.py")


def test_every_table_is_that_of_the_records(results: ModuleType) -> None:
    for text in results.TEXTS:
        written = (ROOT / text).read_text()
        assert "<!-- table " in written, text
        assert results.filled(written) == written, f"{text}: make results fills its tables"


def test_a_table_that_was_changed_by_hand_is_made_again(results: ModuleType) -> None:
    (study, *_) = results.studies()
    text = f"Before.\n<!-- table models {study.name} -->\nby hand\n<!-- end -->\nAfter.\n"
    made = results.filled(text)
    assert "by hand" not in made
    assert "| Standard network | " in made
    assert results.filled(made) == made


def test_every_study_says_how_it_was_made(results: ModuleType) -> None:
    for study in results.studies():
        record = results.Store(study).read_record("records/reproduction.json")
        assert record["command"].startswith("pags "), study.name
        assert {"date", "machine", "versions"} <= set(record["made"]), study.name
