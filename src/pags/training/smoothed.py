"""The smoothed classifier (Cohen et al. 2019): the class that a network names most often under noise.

g(x) = argmax_c P(f(x + ε) = c), ε ~ N(0, σ²). Where the top class has a probability of at least p > 1/2, no
perturbation of an l2 norm below σ Φ⁻¹(p) changes g. The probability is bounded from counts, so a certificate
is wrong with a probability of at most alpha.

Each image's noise comes from a generator of its own, in blocks of a fixed size: it does not depend on how
images or noises are cut into batches.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pags.arrays import Images, Labels, PerImage
from pags.classifiers.modes import evaluating
from pags.errors import UsageError
from pags.seeds import generator

ABSTAIN = -1
BLOCK = 16
"""Noises that are drawn at a time; smaller blocks cost more calls, larger ones are drawn in vain."""


@dataclass(frozen=True)
class Certificate:
    """What is known of the smoothed classifier at n images.

    Args:
        label: (n,) the class; `ABSTAIN` where the counts do not decide.
        radius: (n,) the l2 radius, for images in [0, 1], in which the class is the same; 0 where abstained.
        probability: (n,) the lower bound of the class's probability under noise.
    """

    label: Labels
    radius: PerImage
    probability: PerImage


def smoothed_counts(
    model: nn.Module, images: Images, *, sigma: float, n: int, draws: torch.Generator, batch_size: int = 512
) -> Int[Tensor, "images classes"]:
    """How often each class is named for each image under n draws of noise.

    Args:
        model: a classifier.
        images: (images, c, h, w) in [0, 1].
        sigma: the noise's standard deviation, for images in [0, 1].
        n: noises an image.
        draws: names the generators of the images, one number per image.
        batch_size: noisy images that are seen at a time.

    Raises:
        UsageError: no images, no noises, no batch, or noise that is not positive.
    """
    if not (len(images) > 0 and n > 0 and batch_size > 0 and 0 < sigma < float("inf")):
        raise UsageError(
            "images, at least one noise of positive sigma, and a positive batch size",
            got=f"{len(images)} images, n = {n}, sigma = {sigma}, batch size {batch_size}",
            suggestion="sigma=0.25, n=1000",
        )
    # At most 2^53: above, generators on accelerators have no such integers.
    seeds = torch.randint(2**53, (len(images),), generator=draws, device=draws.device).tolist()
    counts: Tensor | None = None
    with evaluating(model), torch.no_grad():
        for places, noises in _batches(images, seeds, n, batch_size, draws.device):
            logits = model(images[places] + sigma * noises)
            named = torch.nn.functional.one_hot(logits.argmax(1), logits.shape[1])
            counts = (
                images.new_zeros(len(images), logits.shape[1], dtype=torch.long) if counts is None else counts
            )
            counts.index_add_(0, places, named)
    assert counts is not None
    return counts


def smoothed_predict(
    model: nn.Module,
    images: Images,
    *,
    sigma: float,
    n: int = 1000,
    alpha: float = 0.001,
    draws: torch.Generator,
    batch_size: int = 512,
) -> Labels:
    """The class of the smoothed classifier, or `ABSTAIN` (Cohen et al. 2019, Predict).

    Args:
        model, images, sigma, draws, batch_size: as in `smoothed_counts`.
        n: noises an image.
        alpha: the greatest probability, for each image, that a class is returned that is not g(x).

    Returns:
        (images,) the class that leads the runner-up in a two-sided binomial test at level alpha.
    """
    _check_level(alpha)
    from scipy.stats import binom  # type: ignore[import-untyped]

    counts = smoothed_counts(model, images, sigma=sigma, n=n, draws=draws, batch_size=batch_size)
    if counts.shape[1] == 1:
        return counts.argmax(1)
    best, classes = counts.topk(2, dim=1)
    both = best.sum(1).cpu().numpy()
    p_value = torch.from_numpy(2 * binom.sf(best[:, 0].cpu().numpy() - 1, both, 0.5)).to(images.device)
    return torch.where(p_value <= alpha, classes[:, 0], ABSTAIN)


def certify(
    model: nn.Module,
    images: Images,
    *,
    sigma: float,
    n0: int = 100,
    n: int = 1000,
    alpha: float = 0.001,
    draws: torch.Generator,
    batch_size: int = 512,
) -> Certificate:
    """Radii within which the smoothed classifier cannot change (Cohen et al. 2019, Certify and Theorem 1).

    Args:
        model, images, sigma, draws, batch_size: as in `smoothed_counts`.
        n0: noises an image from which the class is guessed.
        n: other noises, from which its probability is bounded; the largest radius is σ Φ⁻¹(alpha^(1/n)).
        alpha: the greatest probability, for each image, that its certificate is wrong.
    """
    _check_level(alpha)
    guess = smoothed_counts(model, images, sigma=sigma, n=n0, draws=draws, batch_size=batch_size).argmax(1)
    counts = smoothed_counts(model, images, sigma=sigma, n=n, draws=draws, batch_size=batch_size)
    bound = lower_bound(counts.gather(1, guess[:, None])[:, 0], n, alpha)  # (images,), in float64
    sure = bound > 0.5
    radius = sigma * torch.special.ndtri(bound.clamp(0.5, 1))
    return Certificate(
        torch.where(sure, guess, ABSTAIN), torch.where(sure, radius, 0.0).to(images), bound.to(images)
    )


def lower_bound(successes: Int[Tensor, "k"], n: int, alpha: float) -> Float[Tensor, "k"]:
    """The one-sided lower bound of Clopper and Pearson (1934) for a probability, at confidence 1 − alpha."""
    from scipy.stats import beta

    s = successes.cpu().numpy()
    bound = torch.from_numpy(beta.ppf(alpha, s.clip(1), n - s + 1)).to(successes.device)
    return torch.where(successes > 0, bound, 0.0)


def certified_accuracy(
    certificate: Certificate, labels: Labels, radii: Sequence[float]
) -> Float[Tensor, "radii"]:
    """For each radius, the share of images whose certified class is the label at that radius at least."""
    right = certificate.label == labels
    grid = torch.as_tensor(radii, dtype=torch.float64, device=labels.device)
    return (right & (certificate.radius.double() >= grid[:, None])).double().mean(1)


def _check_level(alpha: float) -> None:
    if not 0 < alpha < 0.5:
        raise UsageError("a level between 0 and 1/2", got=f"alpha = {alpha}", suggestion="alpha=0.001")


def _batches(
    images: Images, seeds: list[int], n: int, size: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of at most `size` noises, with the places of their images."""
    places: list[int] = []
    noises: list[Tensor] = []
    for place, seed in enumerate(seeds):
        for block in range(-(-n // BLOCK)):
            draws = generator(seed, "smoothed", block, device=device)
            drawn = torch.randn(BLOCK, *images.shape[1:], generator=draws, device=device)
            noises += drawn[: n - block * BLOCK]
            places += [place] * min(BLOCK, n - block * BLOCK)
            while len(places) >= size:
                yield _joined(images, places[:size], noises[:size])
                places, noises = places[size:], noises[size:]
    if places:
        yield _joined(images, places, noises)


def _joined(images: Images, places: list[int], noises: list[Tensor]) -> tuple[Tensor, Tensor]:
    return torch.tensor(places, device=images.device), torch.stack(noises).to(images)
