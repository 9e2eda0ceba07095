"""Figure 9: on- and off-manifold robustness at four sizes of the perturbation, for every objective."""

from pags.experiments.figures import sweeps
from pags.experiments.figures.kinds import FigureData, curves
from pags.experiments.figures.sources import Sources

TITLE, PLACE, NEEDS = "On- and off-manifold robustness at several norms", "C; 4.1", ("sweep",)


def data(sources: Sources) -> FigureData:
    """A row a norm, a column an objective."""
    record = sources.sweep
    rows = [
        [
            sweeps.robustness_panel(record, sweep, norm, f"{sweeps.title(sweep)}, norm {norm:g}")
            for sweep in record["settings"]["sweeps"]
        ]
        for norm in record["settings"]["norms"]
    ]
    return curves(TITLE, "As Figure 3, top, for perturbations of each l2 norm.", rows)
