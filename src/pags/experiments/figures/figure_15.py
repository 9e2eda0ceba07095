"""Figure 15: gradients of models at a higher resolution than the score (ImageNet in the paper)."""

from pags.experiments.figures import sweeps
from pags.experiments.figures.kinds import FigureData, Line, grid
from pags.experiments.figures.sources import Sources

TITLE, PLACE, NEEDS = (
    "Gradients scaled down to the score's resolution, l2-PGD",
    "C; B.8",
    ("sweep", "transfer"),
)


def data(sources: Sources) -> FigureData:
    """Scaled-down image, conditional score there, and gradients of the predicted class's logit."""
    record, gallery = sources.transfer, sources.transfer_gallery
    lines = [Line("image", gallery["images"]), Line("score", gallery["score"], signed=True)]
    for model in record["models"]:
        strength = f"{model['strength']:g}"
        numbers = gallery[f"similarity {strength}"].tolist()
        lines.append(Line(f"ε = {strength}", gallery[f"gradient {strength}"], signed=True, numbers=numbers))
    size = "×".join(str(side) for side in record["size"][1:])
    caption = f"{sweeps.LOGIT_CAPTION} Networks {record['networks']}, of {size} pixels, on {record['data']}."
    return grid(f"{TITLE}: {record['data']}", caption, lines)
