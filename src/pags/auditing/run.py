"""`pags.audit`: all measures of one classifier on one set of images."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor, nn

from pags.arrays import Basis, Images, Labels, check_images
from pags.auditing.chunk import Work
from pags.auditing.options import Options, default_norms, default_radii
from pags.auditing.result import Audit
from pags.auditing.whole import Progress, Run, check_enough
from pags.measure.gradients import TARGETS
from pags.measure.metrics import Metric, find_metric
from pags.score.denoiser import Denoiser

Tangent = Callable[[Images], tuple[Basis, Int[Tensor, "n"]]] | Basis


def audit(
    classifier: nn.Module,
    images: Images,
    labels: Labels,
    *,
    tangent: Tangent | None,
    denoiser: Denoiser | None,
    second: Denoiser | None = None,
    control: nn.Module | None = None,
    size: tuple[int, int] | None = None,
    conditional: bool | None = None,
    sigma: float = 0.5,
    norms: Sequence[float] | None = None,
    norm: float | None = None,
    directions: int = 8,
    targets: Sequence[str] = tuple(TARGETS),
    metrics: Sequence[str | Metric] = ("lpips", "cosine", "ssim", "rank"),
    radii: Sequence[float] | None = None,
    attack_steps: int = 10,
    smooth_targets: Sequence[str] = ("logit", "sum-of-logits"),
    smooth_sigma: float = 0.1,
    smooth_samples: int = 16,
    gallery: int = 6,
    seed: int = 0,
    batch_size: int = 64,
    progress: Progress = lambda share: None,
) -> Audit:
    """Accuracy, on- and off-manifold robustness, rho1, rho2, and alignment with the score, image by image.

    Nothing of size n·d·k is kept: images are worked on some at a time, and every image has draws of its own,
    so that results depend neither on `batch_size` nor, but for shuffled pairs, on the other images.

    Args:
        classifier: images to logits, its normalisation inside; seen in evaluation mode, left as it was.
        images: (n, c, h, w) in [0, 1], n at least 2.
        labels: (n,) true classes.
        tangent: an estimator of tangent spaces (`pags.DecoderTangent`, `pags.LocalPCA`, …), or bases
            (n, d, r) of these images; None leaves out everything that needs the manifold.
        denoiser: whose score the gradients are compared with; None leaves out alignment.
        second: another estimate of the same score, for the ceiling of the similarities.
        control: the same network untrained, whose gradients are those of random features.
        size: height and width at which `tangent` and `denoiser` work; None: the images' own. Where they
            differ, see `pags.auditing.sizes` for what is done and what it approximates.
        conditional: False: class labels are never asked for; None: where the denoiser says that it knows
            classes, by `classes` above 0 or `labels` that are there, or says nothing.
        sigma: the score's noise level, in EDM's unit.
        norms: l2 norms of the perturbations, for images in [0, 1]; None: the paper's four (1.438, 2.637,
            4.833, 8.859 for 3×32×32) times √(d / 3072), so that a pixel changes as much at every size.
        norm: the one of `norms` by which the regime is told; None: the second (or the only one).
        directions: random directions an image; Definition 1 uses as many, with noise of norm/√d.
        targets: what the gradient is taken of, among `pags.measure.gradients.TARGETS`.
        metrics: similarities, by name (`pags.measure.metrics.METRICS`) or as `Metric`.
        radii: of the l2-PGD attack; None: 0.25, 0.5 and 1 times √(d / 3072).
        attack_steps: of the attack.
        smooth_targets: targets of which SmoothGrad is taken too.
        smooth_sigma, smooth_samples: SmoothGrad's noise, for images in [0, 1], and its copies.
        gallery: how many of the best and of the worst aligned images are kept as pictures.
        seed: names every draw.
        batch_size: images worked on at a time, at most; large images are cut into smaller parts.
        progress: told the share that is done.

    Returns:
        An `Audit`; columns that could not be measured are left out, and `settings["missing"]` says why.

    Raises:
        UsageError: what was given does not fit together, before any work where that can be seen.
    """
    check_images(images)
    check_enough(images, labels)
    d = images[0].numel()
    norms = tuple(norms) if norms is not None else default_norms(d)
    options = Options(
        sigma=sigma, norms=norms, norm=norms[min(1, len(norms) - 1)] if norm is None and norms else norm,
        directions=directions, targets=tuple(targets),
        metrics=tuple(metric if isinstance(metric, str) else metric.name for metric in metrics),
        radii=default_radii(d) if radii is None else tuple(radii), attack_steps=attack_steps,
        smooth_targets=tuple(smooth_targets), smooth_sigma=smooth_sigma, smooth_samples=smooth_samples,
        gallery=gallery, seed=seed,
    )  # fmt: skip
    run = Run(
        Work(classifier, tangent, control, _found(metrics, images.device), options),
        images, labels, size or (images.shape[-2], images.shape[-1]), batch_size,
    )  # fmt: skip
    run.check()
    run.check_scores(denoiser, second, conditional)
    return run(denoiser, second, conditional, progress)


def _found(metrics: Sequence[str | Metric], device: torch.device) -> tuple[Metric, ...]:
    return tuple(find_metric(m, device=device) if isinstance(m, str) else m for m in metrics)
