"""The smallest experiment that has everything, on scikit-learn's digits: settings as a TOML file has them."""

from typing import Any

from pags.experiments.scales import settings_for
from pags.experiments.settings import ExperimentSettings
from pags.figures.reproduce import merged

PLAN = {"epochs": 1, "learning_rate": 0.1}
ADAM = {"epochs": 1, "optimizer": "adam", "learning_rate": 2e-3, "weight_decay": 0}
TABLES: dict[str, Any] = {
    "train_images": 160,
    "images": 30,
    "resamples": 50,
    "gallery": 3,
    "training": {"plan": PLAN},
    "sweeps": (
        {"objective": "gradient-norm", "strengths": (0, 0.1, 1)},
        {"objective": "pgd", "strengths": (0, 0.5, 1.5), "attack_steps": 1},
    ),
    "manifold": {"latent": 4, "widths": (8, 16), "plan": ADAM},
    "score": {"widths": (8, 16), "plan": ADAM | {"average": 0.99}},
    "measures": {"directions": 1},
}
"""Two sweeps of three strengths."""

PARTS: dict[str, Any] = {
    "transfer": {"strengths": (0, 1), "attack_steps": 1, "plan": PLAN},
    "distractor": {
        "data": "digits", "plan": PLAN, "radii": (0.3, 0.6), "attack_steps": 1, "train_images": 160,
        "images": 30, "levels": (0, 0.1, 1), "directions": 1,
        "variants": ({"distractor": "AX"}, {"distractor": "AX", "informative": 1}),
    },
    "generation": {"images": 4, "steps": 2, "shown": 3},
    "smoothgrad_samples": 2,
}  # fmt: skip
"""A little of everything else."""


def settings(tables: dict[str, Any] | None = None, **more: Any) -> ExperimentSettings:
    """The settings of the tables, and of what is said by table."""
    base = settings_for("digits", "smoke")
    return merged(merged(base, tables or TABLES, where="test"), more, where="test")
