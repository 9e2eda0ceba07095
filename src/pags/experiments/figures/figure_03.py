"""Figure 3: off-manifold robustness above, perceptual alignment below, along three objectives' strengths."""

from pags.experiments.figures import sweeps
from pags.experiments.figures.kinds import FigureData, curves
from pags.experiments.figures.sources import Sources

TITLE, PLACE, NEEDS = "Robust models are off-manifold robust, and aligned", "4.1, 4.2", ("sweep",)
OBJECTIVES = ("gradient-norm", "smoothing", "pgd")


def data(sources: Sources) -> FigureData:
    """Two panels an objective."""
    record = sources.sweep
    found = [s for s in record["settings"]["sweeps"] if s["objective"] in OBJECTIVES]
    norm = record["settings"]["norm"]
    above = [sweeps.robustness_panel(record, s, norm, sweeps.title(s)) for s in found]
    below = [sweeps.alignment_panel(record, s, ("logit", "sum-of-logits"), "") for s in found]
    seeds = record["settings"]["repeats"]
    caption = (
        f"Above: change of the output under perturbations of l2 norm {norm:g} on and off the manifold; "
        "larger is less robust. Below: perceptual similarity of input gradient and score, between its "
        "floor (noise) and its ceiling (the ideal denoiser's score), and accuracy. Bands: 95 % intervals "
        f"over {'seeds and ' if seeds > 1 else ''}images ({seeds} seed{'s' if seeds > 1 else ''})."
    )
    return curves(TITLE, caption, [above, below])
