"""Laws of labelled vectors whose densities and scores are closed forms, in float64.

One core serves every world: mixtures of Gaussians N(m, U E Uᵀ + s² I). Noise of variance v turns s² into
s² + v and nothing else, so the density and the score at every noise level are the same few lines. In the
eigenbasis U the Woodbury identity reads (U E Uᵀ + v I)⁻¹ r = (r − U diag(e / (e + v)) Uᵀ r) / v.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pags.arrays import Labels


class Law(Protocol):
    """p(x | y) of vectors x, blurred by normal noise of a given variance."""

    def log_densities(self, x: Float[Tensor, "n d"], variance: float) -> Float[Tensor, "n classes"]:
        """log p(x | y, variance) for every class."""
        ...

    def scores(self, x: Float[Tensor, "n d"], variance: float) -> Float[Tensor, "n classes d"]:
        """∇ₓ log p(x | y, variance) for every class."""
        ...

    def sample(self, labels: Labels, draws: torch.Generator) -> Float[Tensor, "n d"]:
        """One unblurred vector of each of the given classes."""
        ...


@dataclass(frozen=True)
class Mixture:
    """Gaussians of low rank plus isotropic noise; every class is a mixture of them with its own shares.

    Args:
        means: (m, d).
        axes: (m, d, r), orthonormal columns; r may be 0.
        spreads: (m, r), variances along the axes.
        noise: s, the standard deviation of the isotropic part, above 0.
        log_shares: (classes, m), log p(component | class); −∞ where a class lacks a component.
    """

    means: Float[Tensor, "m d"]
    axes: Float[Tensor, "m d r"]
    spreads: Float[Tensor, "m r"]
    noise: float
    log_shares: Float[Tensor, "classes m"]

    def log_components(self, x: Float[Tensor, "n d"], variance: float) -> Float[Tensor, "n m"]:
        """log N(x; mean, covariance + variance I) for every component."""
        _, d, r = self.axes.shape
        v = self.noise**2 + variance
        along = self._along(x)
        across = (self._squared_distances(x) - along.square().sum(2)).clamp_min(0)
        volumes = (self.spreads + v).log().sum(1) + (d - r) * math.log(v) + d * math.log(2 * math.pi)
        return -((along.square() / (self.spreads + v)).sum(2) + across / v + volumes) / 2

    def log_densities(self, x: Float[Tensor, "n d"], variance: float) -> Float[Tensor, "n classes"]:
        """See `Law`."""
        return torch.logsumexp(self._weighted(x, variance), dim=2)

    def scores(self, x: Float[Tensor, "n d"], variance: float) -> Float[Tensor, "n classes d"]:
        """See `Law`: the components' −Σ⁻¹(x − m), weighted with their probabilities given x and the class."""
        v = self.noise**2 + variance
        weights = self._weighted(x, variance).softmax(2)  # (n, classes, m)
        kept = self._along(x) * (self.spreads / (self.spreads + v))  # (n, m, r)
        tangent = torch.einsum("ncm,nmr,mdr->ncd", weights, kept, self.axes)
        return (tangent - (x[:, None] - weights @ self.means)) / v

    def sample(self, labels: Labels, draws: torch.Generator) -> Float[Tensor, "n d"]:
        """See `Law`."""
        which = torch.multinomial(self.log_shares.exp()[labels], 1, generator=draws)[:, 0]
        latents = _normal((len(labels), self.axes.shape[2]), draws) * self.spreads[which].sqrt()
        clean = self.means[which] + torch.einsum("ndr,nr->nd", self.axes[which], latents)
        return clean + self.noise * _normal((len(labels), self.means.shape[1]), draws)

    def _weighted(self, x: Float[Tensor, "n d"], variance: float) -> Float[Tensor, "n classes m"]:
        """log p(x, component | class)."""
        return self.log_shares + self.log_components(x, variance)[:, None]

    def _along(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n m r"]:
        """Uᵀ(x − m) for every component."""
        return torch.einsum("mdr,nd->nmr", self.axes, x) - torch.einsum("mdr,md->mr", self.axes, self.means)

    def _squared_distances(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n m"]:
        """‖x − m‖²; by matrix products, taken from the middle of the means so that little cancels."""
        middle = self.means.mean(0)
        x, means = x - middle, self.means - middle
        return x.square().sum(1)[:, None] - 2 * x @ means.T + means.square().sum(1)


@dataclass(frozen=True)
class SignalDistractor:
    """p(x | y) = p(s | y) · p(d − shift_y): a masked signal beside a distractor (Definition 3).

    The distractor is one law for all classes, moved by the class's shift. Where the shifts are zero its terms
    are the same numbers for every class, so they cancel to the last bit in the Bayes gradient.

    Args:
        signal: the law of the masked entries, one mixture a class.
        distractor: the law of the others, with a single class.
        shifts: (classes, d − masked entries), zero for a distractor that is independent of the label.
        mask: (d,), true on the signal.
    """

    signal: Mixture
    distractor: Mixture
    shifts: Float[Tensor, "classes rest"]
    mask: Bool[Tensor, " d"]

    def log_densities(self, x: Float[Tensor, "n d"], variance: float) -> Float[Tensor, "n classes"]:
        """See `Law`."""
        rest = x[:, ~self.mask]
        moved = [self.distractor.log_densities(rest - shift, variance) for shift in self.shifts]
        return self.signal.log_densities(x[:, self.mask], variance) + torch.cat(moved, 1)

    def scores(self, x: Float[Tensor, "n d"], variance: float) -> Float[Tensor, "n classes d"]:
        """See `Law`."""
        rest = x[:, ~self.mask]
        scores = x.new_empty(len(x), len(self.shifts), x.shape[1])
        scores[:, :, self.mask] = self.signal.scores(x[:, self.mask], variance)
        moved = [self.distractor.scores(rest - shift, variance) for shift in self.shifts]
        scores[:, :, ~self.mask] = torch.cat(moved, 1)
        return scores

    def sample(self, labels: Labels, draws: torch.Generator) -> Float[Tensor, "n d"]:
        """See `Law`."""
        x = torch.empty(len(labels), len(self.mask), dtype=torch.float64)
        x[:, self.mask] = self.signal.sample(labels, draws)
        x[:, ~self.mask] = self.distractor.sample(torch.zeros_like(labels), draws) + self.shifts[labels]
        return x


def _normal(shape: tuple[int, ...], draws: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=draws, dtype=torch.float64)
