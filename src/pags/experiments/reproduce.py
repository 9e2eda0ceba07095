"""`pags reproduce`: figures, the records under them, and a verdict on every claim that they can decide."""

from collections.abc import Sequence
from dataclasses import dataclass

from pags.experiments.engines import Progress
from pags.experiments.figures.catalogue import Entry, make
from pags.experiments.figures.kinds import FigureData
from pags.experiments.figures.sources import Sources
from pags.experiments.scales import Settings
from pags.experiments.verdicts import RECORD as CLAIMS_RECORD
from pags.experiments.verdicts import all_claims
from pags.store import Record, Store

RECORD = "records/reproduction.json"


@dataclass(frozen=True)
class Reproduction:
    """What was made.

    Args:
        figures: the figures that were asked for, with their data.
        record: settings, what the data are, which figures, and the claims.
    """

    figures: Sequence[tuple[Entry, FigureData]]
    record: Record


def reproduce(
    figures: Sequence[Entry],
    settings: Settings,
    store: Store,
    progress: Progress = lambda what, share: None,
    *,
    engine: str = "inline",
) -> Reproduction:
    """Run what the figures need, and write their records and the claims; finished work is not done again.

    Args:
        figures: from `pags.experiments.figures.catalogue.chosen`.
        settings: from `pags.experiments.scales.settings_for`.
        store: where everything goes.
        progress: told what is being done and which share of its part is finished.
        engine: see `pags.experiments.engines`.

    Raises:
        UsageError: settings that some part refuses.
        PagsError: something cannot be written, or a training diverged; what was finished is kept.
    """
    sources = Sources(settings, store, progress, engine)
    made = [(figure, make(figure, sources)) for figure in figures]
    parts = tuple(dict.fromkeys(need for figure in figures for need in figure.needs))
    claims = all_claims(sources, parts)
    store.write_record(CLAIMS_RECORD, {"claims": claims})
    record = {
        "scale": settings.scale,
        "settings": settings.model_dump(mode="json"),
        "parts": list(parts),
        "figures": [figure.name for figure in figures],
        "data": sources.sweep["data"] if "sweep" in parts else None,
        "claims": claims,
    }
    store.write_record(RECORD, record)
    return Reproduction(made, record)
