"""Draws the pictures of docs/concepts.md, from scikit-learn's digits and from a world in the plane.

python scripts/make_concept_pictures.py
"""

from pathlib import Path
from typing import Any

import numpy as np

import pags
from pags.report.style import BLUE, GREEN, GREY, ORANGE, RED, new_figure, render, styled

FOLDER = Path(__file__).parents[1] / "docs" / "images"
WIDTH = 0.12
"""Standard deviation of the plane's images around their curve."""


def main() -> None:
    """Write every picture."""
    data = pags.load_data("digits")
    denoiser = pags.score.IdealDenoiser(data.train.images, data.train.labels)
    models = {"standard": trained(data.train, 0.0), "robust": trained(data.train, 0.6)}
    some = data.test.take(slice(0, 8))
    score = pags.score.score_of(denoiser, some.images, 0.5, some.labels)
    write("gradients", pags.plot_gradients(some.images, models, score))
    evaluation = pags.EvaluationSet.of(
        data.test.sample(32), tangent=pags.manifold.LocalPCA(data.train.images, k=16, neighbours=40),
        denoiser=denoiser, second=second(data.train), targets=("logit",), metrics=("lpips", "cosine"),
        smooth_targets=(), radii=(), attacked=False,
    )  # fmt: skip
    audits = {
        name: pags.audit(model, evaluation, control=pags.new_classifier(data.train))
        for name, model in models.items()
    }
    write("references", pags.plot_audit(audits))
    write("manifold", plane())


def trained(images: pags.ImageSet, strength: float) -> Any:
    """A network after l2-adversarial training; of strength 0, a standard one."""
    model = pags.new_classifier(images)
    objective = pags.make_objective("pgd", strength, attack_steps=2)
    pags.fit(model, objective, images, pags.Plan(epochs=6, learning_rate=0.1), seed=0)
    return model.eval()


def second(images: pags.ImageSet) -> Any:
    """A second estimate of the score: the ideal denoiser of the other half of the images."""
    half = images.take(slice(0, len(images) // 2))
    return pags.score.IdealDenoiser(half.images, half.labels)


@styled
def plane() -> Any:
    """A perturbation on and off a curved manifold, the score towards it, and the Bayes direction along it."""
    figure, axes = new_figure(1, 3, width=10, height=2.5)
    places = np.linspace(-1, 1, 160)
    curve = np.stack([places, 0.7 * places**2], 1)
    draws = np.random.default_rng(0)
    points = curve[::2] + WIDTH / 2 * draws.normal(size=(80, 2))
    titles = ("a perturbation on and off the manifold", "score ∇ log p(x)", "Bayes direction ∇ log p(y | x)")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.scatter(*points.T, s=8, color=GREY, alpha=0.5, lw=0)
        axis.set(title=title, xlim=(-1.3, 1.3), ylim=(-0.6, 1.15), aspect="equal", xticks=[], yticks=[])
    at, step = np.array([0.45, 0.7 * 0.45**2]), np.array([0.05, 0.55])
    tangent = np.array([1, 1.4 * 0.45]) / np.hypot(1, 1.4 * 0.45)
    on = tangent * (tangent @ step)
    line = at + np.outer([-0.8, 0.8], tangent)
    axes[0, 0].plot(*line.T, color=GREEN, lw=1, ls="--")
    for vector, colour, name in ((step, BLUE, "perturbation"), (on, GREEN, "on"), (step - on, RED, "off")):
        arrow(axes[0, 0], at, vector, colour)
        end = at + vector
        axes[0, 0].annotate(name, end, xytext=(4, 2), textcoords="offset points", color=colour)
    grid = np.stack(np.meshgrid(np.linspace(-1.15, 1.15, 12), np.linspace(-0.45, 1.0, 8)), -1).reshape(-1, 2)
    whole, of_class = gradient(grid, curve), gradient(grid, curve[80:])
    for axis, field, colour in ((axes[0, 1], whole, ORANGE), (axes[0, 2], of_class - whole, BLUE)):
        axis.quiver(*grid.T, *shortened(field).T, color=colour, angles="xy", scale_units="xy", scale=1)
    axes[0, 2].plot(*curve[80:].T, color=BLUE, lw=2, alpha=0.5)
    axes[0, 2].annotate("class y", (0.1, 0.75), color=BLUE)
    return figure


def gradient(points: Any, curve: Any) -> Any:
    """∇ log of the density of a curve's points with normal noise, in closed form."""
    apart = curve[None] - points[:, None]  # (points, curve, 2)
    weight = -(apart**2).sum(2) / (2 * (2 * WIDTH) ** 2)
    weight = np.exp(weight - weight.max(1, keepdims=True))
    return (weight[..., None] * apart).sum(1) / weight.sum(1, keepdims=True) / (2 * WIDTH) ** 2


def shortened(field: Any) -> Any:
    """Arrows that keep their direction and whose lengths can be seen together."""
    length = np.linalg.norm(field, axis=1, keepdims=True)
    return 0.2 * field / np.maximum(length, 1e-9) * np.tanh(length / 6)


def arrow(axis: Any, start: Any, vector: Any, colour: str) -> None:
    """An arrow from a point."""
    how = {"arrowstyle": "-|>", "color": colour, "lw": 2, "shrinkA": 0, "shrinkB": 0}
    axis.annotate("", start + vector, xytext=start, arrowprops=how)


def write(name: str, figure: Any) -> None:
    """Write a picture on white, for either ground of the site."""
    (FOLDER / f"{name}.png").write_bytes(render(figure, "png"))


if __name__ == "__main__":
    main()
