"""Argument 2: robust linear models have weights in the span of the data.

And the weights of coordinates that are uncorrelated with the label go to zero with the number of images. This
second half needs more than the paper says: a coordinate that is uncorrelated with the label but not with the
signal's coordinates is worth a weight, for it tells which part of them is noise.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from pags.arrays import flatten
from pags.data.worlds import World
from pags.measure.statistics import Interval, interval
from pags.seeds import derive, generator
from pags.store import Record
from pags.theory.rows import exactly, part, row, slope

PLACE = "Argument 2 (3.3)"

Vectors = Float[Tensor, "n d"]
Weights = Float[Tensor, " d"]


def argument_2(
    independent: World,
    informative: World,
    *,
    seed: int,
    runs: int,
    sizes: Sequence[int],
    penalty: float = 1e-2,
    steps: int = 2000,
) -> Record:
    """Weights of linear regressions of the label, ±1, on the pixels.

    Args:
        independent: a signal × distractor world of two classes whose distractor is independent of the label.
        informative: the same with an informative distractor, as a control.
        seed: random seed of every draw.
        runs: repetitions with other images.
        sizes: numbers of training images, rising.
        penalty: λ of mean (wᵀx − y)² + λ‖w‖².
        steps: steps of gradient descent.

    Returns:
        Rows on the span and on the decay of weights; the numbers behind them.
    """
    d = len(flatten(independent.sample(1, generator(seed))[0])[0])
    x, y = regression(independent, d // 2, seed, "span")  # fewer images than pixels, so there is an outside
    start = torch.randn(d, generator=generator(seed, "start"), dtype=torch.float64)
    start = start / start.norm()
    solutions = {
        "ridge": ridge(x, y, penalty),
        "gradient descent from zero": descent(x, y, torch.zeros_like(start), 0.0, steps),
        "gradient descent from elsewhere": descent(x, y, start, 0.0, steps),
        "the same with weight decay": descent(x, y, start, 0.3, steps),
    }
    shares = {name: outside_span(weights, x) for name, weights in solutions.items()}
    seeds = [derive(seed, "argument 2", run) for run in range(runs)]
    decays = {
        "uncorrelated": [_norms(independent, sizes, penalty, each) for each in seeds],
        "correlated": [_norms(informative, sizes, penalty, each) for each in seeds],
        "leaking": [_norms(independent, sizes, penalty, each, leak=1.0) for each in seeds],
    }
    rows = [*_span_rows(shares), *_decay_rows(sizes, decays, seed)]
    return part(rows, span=shares, sizes=list(sizes), penalty=penalty, decays=decays)


def regression(world: World, n: int, seed: int, *names: str | int) -> tuple[Vectors, Tensor]:
    """Pixels around mid-grey, and labels as −1 and +1."""
    images, labels = world.sample(n, generator(seed, "argument 2", *names))
    return flatten(images) - 0.5, 2.0 * labels.double() - 1


def ridge(x: Vectors, y: Tensor, penalty: float) -> Weights:
    """argmin mean (wᵀx − y)² + λ‖w‖², by the d×d normal equations, which know nothing of the span."""
    n, d = x.shape
    return torch.linalg.solve(x.T @ x / n + penalty * torch.eye(d, dtype=x.dtype), x.T @ y / n)


def descent(x: Vectors, y: Tensor, start: Weights, penalty: float, steps: int) -> Weights:
    """Gradient descent on the same objective, at the step 1 / (largest curvature)."""
    n = len(x)
    gram, moment = x.T @ x / n, x.T @ y / n
    rate = 1 / (float(torch.linalg.eigvalsh(gram)[-1]) + penalty)
    w = start
    for _ in range(steps):
        w = w - rate * (gram @ w + penalty * w - moment)
    return w


def outside_span(weights: Weights, x: Vectors) -> float:
    """‖w − P w‖ / ‖w‖, with P the projection on the span of the data."""
    span = torch.linalg.qr(x.T)[0]  # (d, n), for n linearly independent images
    return float((weights - span @ (span.T @ weights)).norm() / weights.norm())


def _norms(
    world: World, sizes: Sequence[int], penalty: float, seed: int, *, leak: float = 0.0
) -> list[float]:
    """Root mean square weight of the distractor's pixels, with an intercept, for each number of images.

    With `leak`, so much of each distractor pixel is added to one signal pixel. The distractor is as
    independent of the label as before, but no longer of the signal's pixels.
    """
    mask = world.mask.flatten()
    found = []
    for n in sizes:
        x, y = regression(world, n, seed, "decay", n)
        mixing = leak * torch.eye(int((~mask).sum()), int(mask.sum()), dtype=x.dtype)
        x[:, mask] += x[:, ~mask] @ mixing
        w = ridge(x - x.mean(0), y - y.mean(), penalty)
        found.append(float(w[~mask].square().mean().sqrt()))
    return found


def _span_rows(shares: dict[str, float]) -> list[Record]:
    statements = {
        "ridge": "Weight decay puts the weights in the span of the data.",
        "gradient descent from zero": "So does gradient descent from zero, without any penalty.",
    }
    return [
        row(
            f"{name}: in the span", PLACE, statement,
            "‖w − P w‖ / ‖w‖, P the projection on the span; below 1e-9",
            exactly(shares[name]), below=1e-9, expected=0.0,
        )
        for name, statement in statements.items()
    ]  # fmt: skip


def _decay_rows(
    sizes: Sequence[int], decays: Mapping[str, Sequence[Sequence[float]]], seed: int
) -> list[Record]:
    slopes = {name: _decay(sizes, norms, seed) for name, norms in decays.items()}
    rule = f"log-log slope over N of their root mean square over {len(decays['uncorrelated'])} runs; "
    return [
        row(
            "weights of an independent distractor vanish", PLACE,
            "Weights of coordinates uncorrelated with the label go to zero, like N^(−1/2).",
            rule + "within 0.15 of −1/2", slopes["uncorrelated"], above=-0.65, below=-0.35, expected=-0.5,
        ),
        row(
            "weights of an informative distractor stay", PLACE + ", control",
            "Weights of coordinates correlated with the label do not go to zero.",
            rule + "within 0.15 of 0", slopes["correlated"], above=-0.15, below=0.15, expected=0.0,
        ),
        row(
            "weights of a leaking distractor vanish", PLACE,
            "Weights of coordinates uncorrelated with the label go to zero even where the signal's pixels "
            "contain them.",
            rule + "below −0.35", slopes["leaking"], below=-0.35, expected=-0.5,
        ),
    ]  # fmt: skip


def _decay(sizes: Sequence[int], norms: Sequence[Sequence[float]], seed: int) -> Interval:
    """The slope of log rms over log N, with its bootstrap interval over runs."""
    squares = torch.tensor(norms, dtype=torch.float64).square()  # (runs, sizes)
    counts = torch.tensor(sizes)
    return interval(lambda means: slope(counts, means) / 2, squares, draws=generator(seed, "decay"))
