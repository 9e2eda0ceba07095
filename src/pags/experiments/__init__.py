"""Experiments: the only room that knows both files and science."""
