"""Scores of the data distribution: the denoiser contract, networks, and closed forms."""
