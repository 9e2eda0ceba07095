"""Robust training: the attack, the objectives, and one loop for every network of the project."""
