"""Looking after a store: what is in it, whether it is whole, what nobody needs, and taking it elsewhere."""

import zipfile
from pathlib import Path

from pags.errors import PagsError, UsageError
from pags.experiments.plan import CLAIMS, RUNS, clear, holder
from pags.store import Store

PASSING = (CLAIMS, RUNS, "unfinished")
"""Folders of what belongs to work that goes on."""


def artefacts(root: Path) -> list[str]:
    """The names of what is kept and can be verified."""
    _check(root)
    found = (p for ending in ("json", "safetensors") for p in root.rglob(f"*.{ending}") if p.is_file())
    return sorted(str(path.relative_to(root)) for path in found if not path.name.startswith("."))


def damage(root: Path, name: str) -> str | None:
    """What is wrong with an artefact, or None."""
    store = Store(root)
    try:
        store.read_record(name) if name.endswith(".json") else store.read_tensors(name)
    except PagsError as error:
        return str(error.got)
    return None


def garbage(root: Path) -> dict[str, int]:
    """Remove leftovers of dead processes, and the states of work whose result is there.

    Returns:
        The names of the files that were removed, with their sizes.
    """
    _check(root)
    names = [path.name for path in (root / CLAIMS).glob("*")]
    found = {str(p): 0 for p in clear(root, (name for name in names if holder(root, name) is None))}
    results = {path.stem.rpartition("-")[2] for path in root.glob("*/*-*.safetensors")}
    for state in (root / "unfinished").glob("*"):
        if state.stem in results:
            found[str(state)] = state.stat().st_size
            state.unlink()
    return found


def exported(root: Path, out: Path) -> Path:
    """Write what is finished into a ZIP file.

    Raises:
        UsageError: the file is there already.
        PagsError: it cannot be written.
    """
    if out.exists():
        raise UsageError("a new file", got=f"{out}, which exists", suggestion="another name")
    _check(root)
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    try:
        with zipfile.ZipFile(out, "x", zipfile.ZIP_STORED) as archive:
            for path in files:
                name = path.relative_to(root)
                if name.parts[0] not in PASSING and path.resolve() != out.resolve():
                    archive.write(path, name)
    except OSError as error:
        out.unlink(missing_ok=True)
        raise PagsError(
            f"room and permission to write {out}", got=error.strerror, suggestion="another place"
        ) from error
    return out


def _check(root: Path) -> None:
    if not root.is_dir():
        raise UsageError("a folder that a run wrote to", got=root, suggestion="the --out of the run")
