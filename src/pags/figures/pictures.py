"""The figures that are pictures: gradients beside scores, and perturbations of images."""

from pags.arrays import cosines, scale_to
from pags.classifiers.load import load_classifier
from pags.figures import sweeps
from pags.figures.kinds import FigureData, Line, Parts, grid
from pags.measure.gradients import input_gradient
from pags.score.denoiser import bayes_direction, score_of
from pags.score.load import load_denoiser
from pags.shipped import shipped_images

OWN = (
    "Gradients are those of the logit of the image's own class, and the score is that of the same class; "
    "the number is the {metric} of exactly the gradient above it and the score of its image."
)
SUM = (
    "Gradients of the sum of the logits beside the score of all classes, from no robustness (top) to "
    "excessive robustness; each number is the {metric} of the gradient and the score of its image. "
    "Cross-entropy never trains the sum of the last layer's rows, so this gradient is determined by the "
    "random initialisation; gradients of single logits are in Figures 1, 6 and 14."
)

NATURAL = {
    "cifar10-standard": "standard network",
    "cifar10-pgd-0.25": "adversarial training\nε = 0.25",
    "cifar10-pgd-0.5": "adversarial training\nε = 0.5",
    "cifar10-pgd-1": "adversarial training\nε = 1",
}
"""The networks that ship with the package, from none to excessive robustness."""
SHOWN = 8
"""Images of the dozen that are shown, each of another class."""
SIGMA = 0.5
"""Noise level of score and Bayes direction, the paper's for images of 32 pixels."""


def natural_images(parts: Parts) -> FigureData:
    """Gradients, score and Bayes direction on natural images: networks that ship with the package."""
    images, labels = (each[:SHOWN] for each in shipped_images())
    denoiser = load_denoiser("pags:cifar10")
    bayes = bayes_direction(denoiser, images, SIGMA, labels)
    lines = [
        Line("image", images),
        Line("score", score_of(denoiser, images, SIGMA, labels), signed=True),
        Line("Bayes direction", bayes, signed=True),
    ]
    for name, label in NATURAL.items():
        gradient = input_gradient(load_classifier(f"pags:{name}"), images, "logit", labels)
        numbers = cosines(gradient, bayes).tolist()
        lines.append(Line(label, gradient, signed=True, numbers=numbers))
    caption = (
        "The first test image of each of eight classes of CIFAR-10 (JPEG), a lossy copy; the score and the "
        "gradient of the Bayes classifier, by a denoiser, at noise level 0.5; and gradients of the logit of "
        "the image's class. Numbers are cosines of the gradient with the Bayes direction."
    )
    return grid(caption, lines)


def _metric(parts: Parts) -> str:
    return sweeps.metrics(parts.sweep)[0]


def _said(text: str, parts: Parts) -> str:
    return text.format(metric=sweeps.metric_title(_metric(parts)))


def standard_and_robust(parts: Parts) -> FigureData:
    """Figure 1: images, standard gradients, gradients of the best-aligned accurate model, scores."""
    record, gallery, metric = parts.sweep, parts.gallery, _metric(parts)
    robust = sweeps.best(record, "pgd")
    strength = f"{sweeps.sweep_of(record, 'pgd')['symbol']} = {robust.get('strength', 0):g}"
    standard = sweeps.model(record, sweeps.STANDARD)
    lines = [
        Line("image", gallery["images"]),
        sweeps.gradient_line(gallery, standard, "logit", "standard gradient", metric),
        sweeps.gradient_line(gallery, robust, "logit", f"robust gradient\n({strength})", metric),
        Line("score", gallery["score logit"], signed=True),
    ]
    caption = (
        "A network trained without and with l2-PGD; the robust one is the accurate network with the largest "
        f"mean similarity. {_said(OWN, parts)}"
    )
    return grid(caption, lines)


def regimes(parts: Parts) -> FigureData:
    """Figure 6: the untrained control, then the strengths of l2-PGD with the regime of each."""
    record, gallery = parts.sweep, parts.gallery
    lines = sweeps.gradient_lines(record, gallery, "pgd", "logit")
    untrained = sweeps.model(record, sweeps.UNTRAINED)
    control = sweeps.gradient_line(gallery, untrained, "logit", "untrained\ncontrol", _metric(parts))
    caption = (
        f"{_said(OWN, parts)} The regime of a network is decided by the written rule; where an interval "
        "holds a border, both are named."
    )
    return grid(caption, [*lines[:2], control, *lines[2:]], across=True)


def of_sum(parts: Parts, *, objective: str, title: str) -> FigureData:
    """Figures 10 to 13: image, score and gradients of the sum of logits along one sweep."""
    lines = sweeps.gradient_lines(parts.sweep, parts.gallery, objective, "sum-of-logits")
    shown = sweeps.sweep_of(parts.sweep, objective)
    instead = "" if shown["objective"] == objective else f" (no sweep of {objective} here: {shown['title']})"
    return grid(_said(SUM, parts), lines, title=title + instead if instead else "")


def of_one_class(parts: Parts) -> FigureData:
    """Figure 14: image, score of its class, and gradients of its logit (ImageNet-64 in the paper)."""
    lines = sweeps.gradient_lines(parts.sweep, parts.gallery, "pgd", "logit")
    caption = f"From no robustness (top) to the strongest. {_said(OWN, parts)}"
    return grid(caption, lines, title=f"Gradients of one class, l2-PGD: {parts.sweep['data']['name']}")


def at_higher_resolution(parts: Parts) -> FigureData:
    """Figure 15: networks at a higher resolution than the score, gradients scaled down to it."""
    record, gallery, metric = parts.transfer, parts.transfer_gallery, _metric(parts)
    lines = [Line("image", gallery["images"]), Line("score", gallery["score logit"], signed=True)]
    for model in record["models"]:
        label = f"ε = {model['strength']:g}"
        lines.append(sweeps.gradient_line(gallery, model, "logit", label, metric))
    size = "×".join(str(side) for side in record["size"][1:])
    caption = (
        f"Networks {record['networks']}, of {size} pixels, on {record['data']}; gradients are scaled down to "
        f"the score's size before anything is compared. {_said(OWN, parts)}"
    )
    title = f"Gradients scaled down to the score's resolution, l2-PGD: {record['data']}"
    return grid(caption, lines, title=title)


def directions(parts: Parts) -> FigureData:
    """Figure 7: images; then both parts of the same random directions."""
    gallery = parts.gallery
    on, whole = gallery["directions on"], gallery["directions"]
    lines = [Line("image", gallery["images"])]
    lines += [Line(f"on {place + 1}", part, signed=True) for place, part in enumerate(on)]
    lines += [Line(f"off {place + 1}", part, signed=True) for place, part in enumerate(whole - on)]
    caption = (
        f"Parts of normal noise in the estimated tangent space of each image (dimension "
        f"{parts.sweep['chance']['k']:g}), and orthogonal to it; each scaled by its largest absolute value."
    )
    return grid(caption, lines, across=True)


def sizes(parts: Parts) -> FigureData:
    """Figure 8: images with a random perturbation at each norm that is measured."""
    gallery, norms = parts.gallery, sweeps.settled(parts.sweep, "norms", ())
    images, noise = gallery["images"], gallery["directions"][0]
    lines = [Line("image", images)]
    lines += [Line(f"norm {n:g}", (images + scale_to(noise, n)).clamp(0, 1)) for n in norms]
    caption = "Random perturbations of each l2 norm, clipped to the range of pixels for display."
    return grid(caption, lines)
