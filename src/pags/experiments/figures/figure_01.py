"""Figure 1: gradients of a standard and of a robust model beside the score."""

from pags.experiments.figures import sweeps
from pags.experiments.figures.kinds import FigureData, Line, grid
from pags.experiments.figures.sources import Sources

TITLE, PLACE, NEEDS = "Gradients of robust models look like the score", "1", ("sweep",)


def data(sources: Sources) -> FigureData:
    """Images, standard gradients, gradients of the best-aligned accurate PGD model, scores."""
    record, gallery = sources.sweep, sources.gallery
    standard, robust = sweeps.model(record, "pgd", 0), sweeps.best(record)
    lines = [
        Line("image", gallery["images"]),
        sweeps.gradient_line(gallery, standard, "logit", "standard gradient"),
        sweeps.gradient_line(gallery, robust, "logit", f"robust gradient\n(ε = {robust['strength']:g})"),
        Line("score", gallery["score conditional"], signed=True),
    ]
    caption = (
        "Gradient of the predicted class's logit in a model trained without and with l2-PGD, and the score "
        "of the class. The robust model is the accurate one with the largest mean similarity. Numbers: 1 − "
        "LPIPS of gradient and score."
    )
    return grid(TITLE, caption, lines)
