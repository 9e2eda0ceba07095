"""All figures by name, what each needs, and making them: a record each, and the tensors beside it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from pags.errors import UsageError
from pags.experiments.figures.kinds import FigureData
from pags.experiments.figures.sources import Sources
from pags.store import Record, Store

NAMES = {str(number): f"figure_{number:02d}" for number in range(1, 18)} | {
    "phenomenon-2": "phenomenon_2",
    "phenomenon-2-pictures": "phenomenon_2_pictures",
    "phenomenon-3": "phenomenon_3",
    "score-share": "score_share",
}
"""What a person says, and the file that it stands in."""


@dataclass(frozen=True)
class Entry:
    """One figure of the catalogue.

    Args:
        name: "1" to "17", or a phenomenon.
        title: what it shows.
        place: where the paper has it.
        needs: which parts of the experiment it is drawn from.
        data: makes it.
    """

    name: str
    title: str
    place: str
    needs: tuple[str, ...]
    data: Callable[[Sources], FigureData]

    @property
    def stem(self) -> str:
        """The name of its files: figure-03, phenomenon-2."""
        return f"figure-{int(self.name):02d}" if self.name.isdigit() else self.name


def catalogue() -> list[Entry]:
    """All figures, in the paper's order."""
    return [entry(name) for name in NAMES]


def entry(name: str) -> Entry:
    """The figure called `name`."""
    module: ModuleType = import_module(f"pags.experiments.figures.{NAMES[name]}")
    return Entry(name, module.TITLE, module.PLACE, module.NEEDS, module.data)


def chosen(names: Sequence[str]) -> list[Entry]:
    """The figures that are asked for; "all" stands for all.

    Raises:
        UsageError: no figure has such a name.
    """
    unknown = [name for name in names if name not in NAMES and name != "all"]
    if unknown or not names:
        raise UsageError(
            f"figures among all, 1 to 17, {', '.join(name for name in NAMES if not name.isdigit())}",
            got=", ".join(unknown) or "none",
            suggestion="pags reproduce all --data digits",
        )
    wanted = NAMES if "all" in names else names
    return [entry(name) for name in NAMES if name in wanted]


def make(figure: Entry, sources: Sources) -> FigureData:
    """A figure's data, written as `records/STEM.json`, its pictures as `records/STEM.safetensors`."""
    found = figure.data(sources)
    about = {"figure": figure.name, "place": figure.place, "needs": list(figure.needs)}
    record = about | found.record | {"tensors": bool(found.tensors)}
    if found.tensors:
        sources.store.write_tensors(f"records/{figure.stem}.safetensors", found.tensors)
    sources.store.write_record(f"records/{figure.stem}.json", record)
    return FigureData(record, found.tensors)


def read(store: Store, figure: Entry) -> FigureData | None:
    """A figure's data from its records; None where it has not been made."""
    name = f"records/{figure.stem}"
    if not store.has(f"{name}.json"):
        return None
    record: Record = store.read_record(f"{name}.json")
    tensors = store.read_tensors(f"{name}.safetensors")[0] if record["tensors"] else {}
    return FigureData(record, tensors)
