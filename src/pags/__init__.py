"""pags: are a classifier's input gradients perceptually aligned, and why?"""

__version__ = "0.1.0"
