"""What aligned gradients can do: following them makes, cleans, completes, sharpens (Phenomenon 2)."""

from pags.generate.follow import Followed, step_for
from pags.generate.procedures import denoise, inpaint, super_resolve, synthesise
from pags.generate.starts import enlarged, filled, gaussian_starts, with_block_means

__all__ = [
    "Followed", "denoise", "enlarged", "filled", "gaussian_starts", "inpaint", "step_for", "super_resolve",
    "synthesise", "with_block_means",
]  # fmt: skip
