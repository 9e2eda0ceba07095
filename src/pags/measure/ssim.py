"""The structural similarity of two vectors seen as pictures (Wang, Bovik, Sheikh and Simoncelli 2004)."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d

from pags.arrays import Images, PerImage, max_abs_scaled

WINDOW, SIGMA = 11, 1.5
RANGE = 1.0
"""Of what is compared: pictures in [0, 1]."""
K1, K2 = 0.01, 0.03


def ssim(a: Images, b: Images) -> PerImage:
    """The mean structural similarity (equation 13) of two vectors as pictures: scaled to fill [-1, 1], zero
    being mid-grey.

    Pictures are in [0, 1] and the range of the data is 1, which is the same as [0, 2] and 2. On [-1, 1]
    itself the index would be blind to the sign: for −a its term of the means and its term of the structure
    are both negative, and their product is near 1.

    The window is Gaussian, 11×11 with a standard deviation of 1.5 px, moved over the places where it lies
    wholly inside; where an image is smaller than that, the largest odd window that fits. Moments are weighted
    and not corrected for bias, as in the paper. The mean is over places and channels.

    Args:
        a, b: (n, c, h, w), of any scale; the result is symmetric in them.

    Returns:
        n numbers in [-1, 1]; 1 for equal pictures.
    """
    x, y = ((max_abs_scaled(v.double()) + 1) / 2 for v in (a, b))
    window = gaussian_window(x)
    mean_x, mean_y = _smoothed(x, window), _smoothed(y, window)
    var_x = _smoothed(x * x, window) - mean_x**2
    var_y = _smoothed(y * y, window) - mean_y**2
    covariance = _smoothed(x * y, window) - mean_x * mean_y
    c1, c2 = (K1 * RANGE) ** 2, (K2 * RANGE) ** 2
    above = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    below = (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return (above / below).mean((1, 2, 3)).to(a.dtype)


def gaussian_window(images: Images) -> Float[Tensor, " side"]:
    """One side of the window for images of this size, summing to 1."""
    smaller = min(images.shape[-2:])
    size = min(WINDOW, smaller - (smaller + 1) % 2)  # odd
    places = torch.arange(size, dtype=images.dtype, device=images.device) - size // 2
    weights = torch.exp(-(places**2) / (2 * SIGMA**2))
    return weights / weights.sum()


def _smoothed(x: Tensor, window: Tensor) -> Tensor:  # (n, c, h - w + 1, …)
    """Weighted means under the window, rows first, then columns; each channel by itself."""
    channels = x.shape[1]
    across = window.expand(channels, 1, 1, -1)
    down = window[:, None].expand(channels, 1, -1, 1)
    return conv2d(conv2d(x, across, groups=channels), down, groups=channels)
