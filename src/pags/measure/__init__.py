"""Measures of one classifier on one set of images: pure functions, one number per image."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
