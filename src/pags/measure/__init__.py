"""Measures of one classifier on one set of images: pure functions, tensors in, one number an image out."""
