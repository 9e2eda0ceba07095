"""Exact worlds: labelled images with tangent spaces, densities, scores and Bayes gradients in closed form."""

from pags.data.worlds.curved import curved_world
from pags.data.worlds.flat import distractor_world, linear_world, mixture_world
from pags.data.worlds.world import Bayes, World

__all__ = ["Bayes", "World", "curved_world", "distractor_world", "linear_world", "mixture_world"]
