"""pags: are a classifier's input gradients perceptually aligned, and why?

The public names stand in `__init__.pyi`, those of the parts in `pags.data`, `pags.training`, `pags.manifold`,
`pags.score`, `pags.measure` and `pags.generate`. They are loaded when first used, so that `import pags` is
instant.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
