"""Figure 17: alignment of one class's gradient with the conditional score, for every objective."""

from pags.experiments.figures import sweeps
from pags.experiments.figures.kinds import FigureData, curves
from pags.experiments.figures.sources import Sources

TITLE, PLACE, NEEDS = "Alignment with the conditional score", "B.4", ("sweep",)


def data(sources: Sources) -> FigureData:
    """One panel an objective."""
    record = sources.sweep
    row = [
        sweeps.alignment_panel(record, sweep, ("logit",), sweeps.title(sweep))
        for sweep in record["settings"]["sweeps"]
    ]
    caption = (
        "As Figure 3, bottom, with the gradient of the predicted class's logit and the score of that class."
    )
    return curves(TITLE, caption, [row])
