"""The site and the release: made pages are current, every page is in the site, and files say the same."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import pags

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(ROOT / "scripts"))
import make_reference  # noqa: E402


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("name", ["commands.md", "api.md"])
def test_made_pages_are_current(name: str) -> None:
    """Where not: python scripts/make_reference.py."""
    assert (DOCS / name).read_text() == make_reference.pages()[name]


@pytest.mark.parametrize("package", ["", *make_reference.PACKAGES])
def test_the_api_has_every_public_name(package: str) -> None:
    module = getattr(pags, package) if package else pags
    public = {name for name in module.__all__ if not name.startswith("__")} - set(make_reference.PACKAGES)
    assert set(make_reference.public(package)) == public


def in_navigation(entries: Any) -> list[str]:
    if isinstance(entries, str):
        return [entries]
    values = entries.values() if isinstance(entries, dict) else entries
    return [page for entry in values for page in in_navigation(entry)]


def test_every_page_in_the_navigation_is_there_and_in_it_once() -> None:
    named = in_navigation(read_yaml(ROOT / "mkdocs.yml")["nav"])
    assert len(named) == len(set(named))
    assert [name for name in named if not (DOCS / name).is_file()] == []


def test_every_picture_of_the_docs_is_shown_and_small() -> None:
    text = "\n".join(page.read_text() for page in (*DOCS.glob("*.md"), ROOT / "README.md"))
    for picture in (DOCS / "images").iterdir():
        assert picture.name in text
        assert picture.stat().st_size < 500_000
    assert re.findall(r"!\[\]\(", text) == []  # each says what is seen


def test_ci_calls_targets_that_make_has() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    jobs = read_yaml(ROOT / ".github/workflows/ci.yml")["jobs"]
    called = {
        target
        for job in jobs.values()
        for step in job["steps"]
        for target in re.findall(r"^make (\w+)", step.get("run", ""))
    }
    called |= set(jobs["checks"]["strategy"]["matrix"]["target"])
    assert {"lint", "types", "test", "docs"} <= called <= targets
    assert jobs["tests"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]


def test_version_and_name_are_the_same_everywhere() -> None:
    citation = read_yaml(ROOT / "CITATION.cff")
    assert citation["version"] == pags.__version__
    assert citation["preferred-citation"]["title"] in (DOCS / "index.md").read_text()
    assert f"## {pags.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_extras_that_texts_name_are_there() -> None:
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    texts = [*DOCS.glob("*.md"), ROOT / "README.md", *(ROOT / "src").rglob("*.py")]
    named = {extra for path in texts for extra in re.findall(r"'\.\[(\w+)\]'", path.read_text())}
    assert named <= extras
    assert "pandas" in named


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    return folder


def test_the_site_builds_without_warnings_and_asks_no_other_host(site: Path) -> None:
    for page in (path for path in site.rglob("*") if path.suffix in (".html", ".css")):
        asked = re.findall(
            r"""(?:\bsrc=|<link[^>]*href=|url\(|@import )["']?((?:https?:)?//[^"')]+)""", page.read_text()
        )
        assert asked == [], page.name


def test_the_site_is_read_and_searched_from_a_folder(site: Path, browser: Any) -> None:
    opened, asked = browser.new_page(viewport={"width": 1280, "height": 900}), list[str]()
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto((site / "index.html").as_uri())
    opened.locator("input.md-search__input").click()
    opened.keyboard.type("tangent")
    opened.wait_for_selector('.md-search-result__link[href*="concepts.html"]', timeout=10_000)
    assert [address for address in asked if not address.startswith(("file:", "data:"))] == []
    opened.close()
