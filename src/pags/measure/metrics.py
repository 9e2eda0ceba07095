"""Several measures of how alike two vectors look or point, behind one contract.

A gradient and a score are compared as *vectors attached to an image*, whose scale means nothing. Every metric
here is a similarity (higher is more alike), one number per image, and does not see the scale of either side.
Where either side has no direction (it is zero or not finite) every metric is NaN:

* `lpips`: 1 − LPIPS (AlexNet) of both as pictures, enlarged to 64 px, then scaled to fill [-1, 1]; at most 1,
  as a rule above 0;
* `cosine`: in [-1, 1];
* `ssim`: the mean structural similarity (Wang et al. 2004) of both as pictures, zero being mid-grey; in
  [-1, 1];
* `rank`: Spearman's rank correlation over the entries of an image; in [-1, 1].

`make_metric` makes a metric of any other function; `get_metric` knows these by name, and some whose packages
and weights a person may have: VGG-LPIPS, DISTS, DreamSim.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pags.arrays import Images, PerImage, cosines, flatten, max_abs_scaled
from pags.errors import PagsError
from pags.measure.alignment import Comparison, PairReference, Reference, Similarity
from pags.measure.lpips import LPIPS
from pags.measure.ssim import ssim
from pags.plugins import instead_of


class Metric(Protocol):
    """A similarity of a reference (a score) and vectors (gradients), both (n, c, h, w), of any scale."""

    @property
    def name(self) -> str: ...

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest value it can have."""
        ...

    def compare(self, reference: Images, vectors: Images) -> PerImage:
        """One number per image, higher for more alike."""
        ...

    def reference(self, score: Images) -> Comparison:
        """A reference to compare with many vectors; what can be computed once is computed once."""
        ...


@dataclass(frozen=True)
class PairMetric:
    """A metric given by a function of the pair, with nothing worth computing once.

    Args:
        name: what it is called in records.
        bounds: lowest and highest value.
        pair: (reference, vectors) to one number per image.
    """

    name: str
    bounds: tuple[float, float]
    pair: Similarity

    def compare(self, reference: Images, vectors: Images) -> PerImage:
        """One number per image.

        Raises:
            UsageError: the shapes differ.
        """
        return self.reference(reference).similarity(vectors)

    def reference(self, score: Images) -> Comparison:
        """The score, held for comparison."""
        return PairReference(score, self.pair)


@dataclass(frozen=True)
class PerceptualMetric:
    """1 − LPIPS, whose reference features are computed once (`pags.measure.alignment.Reference`).

    Args:
        lpips: the distance; the default enlarges images under 64 px to 64.
    """

    lpips: LPIPS = field(default_factory=LPIPS.load)
    name: str = "lpips"
    bounds: tuple[float, float] = (-torch.inf, 1.0)

    def compare(self, reference: Images, vectors: Images) -> PerImage:
        """One number per image."""
        return self.reference(reference).similarity(vectors)

    def reference(self, score: Images) -> Reference:
        """The score with its features."""
        return Reference.of(score, self.lpips)


def rank_correlation(a: Images, b: Images) -> PerImage:
    """Spearman's rank correlation over each image's entries; ties share a rank; NaN for a constant side."""
    x, y = _ranks(flatten(a)), _ranks(flatten(b))
    return cosines(x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)).to(a.dtype)


def make_metric(
    function: Callable[[Tensor, Tensor], Tensor],
    *,
    name: str,
    bounds: tuple[float, float] = (-torch.inf, 1.0),
    distance: bool = True,
    unit: bool = False,
    at_least: int = 1,
) -> PairMetric:
    """A metric made of any function of two batches of pictures.

    Args:
        function: (n, 3, h, w) twice, to n numbers in any shape.
        name: what it is called in records.
        bounds: lowest and highest value of the similarity.
        distance: whether the function is a distance d, so that 1 − d is the similarity.
        unit: whether pictures are handed over in [0, 1] (zero is mid-grey), and not in [-1, 1].
        at_least: pictures whose smaller side is below this many pixels are first enlarged bilinearly.
    """

    @torch.no_grad()
    def pair(reference: Images, vectors: Images) -> PerImage:
        a, b = (_picture(v, unit=unit, at_least=at_least) for v in (reference, vectors))
        values = function(a, b)
        if values.numel() != len(reference):
            raise PagsError(
                f"one number per pair from {name}, {len(reference)} in all",
                got=f"shape {tuple(values.shape)}",
                suggestion="taking the mean over (1, 2, 3) alone",
            )
        values = values.reshape(len(reference)).to(reference)
        return 1 - values if distance else values

    return PairMetric(name, bounds, pair)


def get_metric(metric: str | Callable[..., Any] | Metric, *, device: torch.device | str = "cpu") -> Metric:
    """A metric.

    Args:
        metric: "lpips", "cosine", "ssim", "rank"; or "lpips-vgg" (package `lpips`), "dists"
            (`DISTS_pytorch`), "dreamsim" (`dreamsim`), each of which needs its package and its weights; or
            one of the user's own, or `file.py:name` or `package.module:name` of one (which runs that code):
            a `Metric`, or a function of two batches of pictures (n, 3, h, w) in [-1, 1] to n numbers, higher
            for more alike. Its attributes `title`, `bounds`, `distance` (True where lower is more alike),
            `unit` and `at_least` are those of `make_metric`.
        device: where a network's weights go.

    Raises:
        UsageError: no metric has this name, or it cannot be called.
        PagsError: its package is not installed, or its weights are not at hand.
    """
    return metric_entry(metric).make(device)


def metric_entry(metric: str | Callable[..., Any] | Metric) -> "MetricEntry":
    """All that is known of a metric before it is made; see `get_metric`.

    Raises:
        UsageError: no metric has this name, or it cannot be called.
    """
    if isinstance(metric, str) and metric in METRICS:
        return METRICS[metric]
    plugin = instead_of(metric, "a metric", METRICS, "lpips")
    value: Any = plugin.value
    if all(hasattr(value, name) for name in ("compare", "reference", "name", "bounds")):
        return MetricEntry(lambda device: value, value.name, value.name, value.bounds, plugin.source)
    plugin.check_callable("(a, b)", "return -(a - b).square().mean((1, 2, 3))")
    options = {name: getattr(value, name) for name in ("bounds", "unit", "at_least") if hasattr(value, name)}
    made = make_metric(
        value, name=plugin.name, distance=bool(getattr(value, "distance", False)),
        **{"bounds": (-torch.inf, torch.inf), **options},
    )  # fmt: skip
    title = str(getattr(value, "title", plugin.name))
    return MetricEntry(lambda device: made, plugin.name, title, made.bounds, plugin.source)


@dataclass(frozen=True)
class MetricEntry:
    """All that is known of a metric before it is made. Every metric is higher for more alike.

    Args:
        make: from the device of its weights.
        name: what it is called in records.
        title: for people.
        bounds: lowest and highest value.
        source: of a user's metric, `pags.plugins.Plugin.source`.
    """

    make: Callable[[torch.device | str], Metric]
    name: str
    title: str
    bounds: tuple[float, float]
    source: str = ""


def _lpips(device: torch.device | str) -> Metric:
    return PerceptualMetric(LPIPS.load().to(device))


def _foreign(package: str, name: str, options: Mapping[str, Any], device: torch.device | str) -> Metric:
    """A metric whose network comes from another package, built when it is asked for."""
    try:
        network = _BUILDERS[name](import_module(package), device)
    except ImportError as error:
        raise PagsError(
            f"the package {package}, for the metric {name}",
            got=f"no such package ({error})",
            suggestion=f"pip install {package}, or --metric lpips",
        ) from error
    except (OSError, RuntimeError) as error:
        raise PagsError(
            f"the weights of {name} in the cache of {package}",
            got=str(error).partition("\n")[0],
            suggestion="running once with a network connection, or --metric lpips",
        ) from error
    return make_metric(network, name=name, **options)


def _lpips_vgg(package: Any, device: torch.device | str) -> Callable[[Tensor, Tensor], Tensor]:
    return package.LPIPS(net="vgg", verbose=False).eval().to(device)


def _dists(package: Any, device: torch.device | str) -> Callable[[Tensor, Tensor], Tensor]:
    return package.DISTS().eval().to(device)


def _dreamsim(package: Any, device: torch.device | str) -> Callable[[Tensor, Tensor], Tensor]:
    return package.dreamsim(pretrained=True, device=str(device))[0]


def _of_a_pair(name: str, title: str, pair: Similarity) -> MetricEntry:
    return MetricEntry(lambda device: PairMetric(name, (-1.0, 1.0), pair), name, title, (-1.0, 1.0))


def _of_a_package(name: str, title: str, package: str, **options: Any) -> MetricEntry:
    return MetricEntry(partial(_foreign, package, name, options), name, title, (-torch.inf, 1.0))


_BUILDERS: dict[str, Callable[[Any, torch.device | str], Callable[[Tensor, Tensor], Tensor]]] = {
    "lpips-vgg": _lpips_vgg,
    "dists": _dists,
    "dreamsim": _dreamsim,
}

METRICS: dict[str, MetricEntry] = {
    entry.name: entry
    for entry in (
        MetricEntry(_lpips, "lpips", "1 − LPIPS", (-torch.inf, 1.0)),
        _of_a_pair("cosine", "cosine", cosines),
        _of_a_pair("ssim", "SSIM", ssim),
        _of_a_pair("rank", "rank correlation", rank_correlation),
        _of_a_package("lpips-vgg", "1 − LPIPS (VGG)", "lpips", at_least=64),
        _of_a_package("dists", "1 − DISTS", "DISTS_pytorch", unit=True, at_least=64),
        _of_a_package("dreamsim", "1 − DreamSim", "dreamsim", unit=True, at_least=224),
    )
}
"""Metrics by name."""


def _picture(vectors: Images, *, unit: bool, at_least: int) -> Tensor:  # (n, 3, h, w)
    smaller = min(vectors.shape[-2:])
    if smaller < at_least:
        sides = [round(side * at_least / smaller) for side in vectors.shape[-2:]]
        vectors = interpolate(vectors, size=sides, mode="bilinear", align_corners=False)
    scaled = max_abs_scaled(vectors)
    coloured = scaled.expand(-1, 3, -1, -1) if scaled.shape[1] == 1 else scaled
    return (coloured + 1) / 2 if unit else coloured


def _ranks(rows: Tensor) -> Tensor:  # (n, d), float64
    """Ranks from 0 along each row; equal entries share the mean of theirs."""
    ordered = rows.sort(dim=1).values.contiguous()
    first = torch.searchsorted(ordered, rows.contiguous())
    last = torch.searchsorted(ordered, rows.contiguous(), right=True)
    return (first + last - 1).double() / 2
