"""In which form commands answer, and their help in groups; light, for every command imports it first."""

from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand

ANYWHERE = {
    "--json": "Print the answer as JSON, and nothing else.",
    "--quiet": "Print no progress and no tables, only the answer or the files written.",
    "--debug": "Show the traceback of an error.",
}
"""What is taken before and after every command."""


class Output:
    """The form of the answer of the command that runs: text, json or quiet."""

    form = "text"

    @classmethod
    def choose(cls, words: Sequence[str]) -> list[str]:
        """Take what is said of the form out of the words of a command."""
        cls.form = "json" if "--json" in words else "quiet" if "--quiet" in words else "text"
        return [word for word in words if word not in ANYWHERE]


PANELS = {
    "Data": ("data", "images", "data_folder", "pretrained_data", "tangent_data", "reference", "gallery"),
    "Models": (
        "arch", "architecture", "mean", "std", "normalise", "classes", "pretrained", "pretrained_arch"
    ),
    "Training": (
        "objective", "objectives", "strength", "activation", "epochs", "batch_size", "learning_rate",
        "fixed_rate", "clip_norm", "evaluate_every", "evaluate_radius",
    ),
    "Manifold and score": (
        "tangent", "autoencoder", "latent", "side", "denoiser", "second_denoiser", "conditional_denoiser",
        "sigma", "score_draws",
    ),
    "Robustness": ("norms", "norm", "directions", "change", "radii", "attack_steps", "attacked"),
    "Gradients and similarity": (
        "targets", "metrics", "smooth_targets", "smooth_sigmas", "smooth_samples", "of_class", "upsample_to"
    ),
    "Machine and randomness": (
        "device", "devices", "accelerator", "engine", "workers", "precision", "compile", "seed", "resamples"
    ),
}  # fmt: skip
"""Under which heading of a command's help a setting stands; the others stand under Options."""


class Grouped(TyperCommand):
    """A command whose help has its options in groups, and at the end those that every command takes."""

    def groups(self, ctx: Any) -> dict[str, list[tuple[str, str]]]:
        """Options with their help by group; up to ten options are one group."""
        params = self.get_params(ctx)
        panels = PANELS if len(params) > 10 else {}
        groups = {title: list[tuple[str, str]]() for title in ("Arguments", "Options", *panels)}
        for param in params:
            if (record := param.get_help_record(ctx)) is not None:
                usual = "Arguments" if param.param_type_name == "argument" else "Options"
                title = next((title for title, names in panels.items() if param.name in names), usual)
                groups[title].append(record)
        return {title: found for title, found in groups.items() if found} | {"Output": list(ANYWHERE.items())}

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the groups."""
        for title, found in self.groups(ctx).items():
            with formatter.section(title):
                formatter.write_dl(found)
