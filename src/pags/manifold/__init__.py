"""The data manifold: autoencoders, and tangent spaces from any of several estimators."""
