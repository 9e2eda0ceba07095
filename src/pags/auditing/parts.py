"""What is measured of some images at a time. Each function gives one number an image, or one vector.

The definitions are those of `pags.measure`; here all targets share a forward pass, every image has draws of
its own, and perturbations may be made at another size than the classifier's (`pags.auditing.sizes`).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pags.arrays import Basis, Images, Labels, PerImage, scale_to, split
from pags.auditing.sizes import Noise, Size, enlarged
from pags.classifiers.modes import evaluating, predict
from pags.measure.gradients import find_target
from pags.measure.robustness import OUTPUT_CHANGES, Definition1, EqualNorm, check_basis
from pags.seeds import generator
from pags.training.attack import PGD

Columns = dict[str, Tensor]
"""Quantities by name, one number an image."""


def classified(model: nn.Module, images: Images, labels: Labels) -> Columns:
    """Whether the label is named, the probability of the class named, and that of the label."""
    shares = predict(model, images).softmax(1)
    confidence, named = shares.max(1)
    truth = shares.gather(1, labels[:, None])[:, 0]
    return {"correct": (named == labels).to(images), "confidence": confidence, "probability of label": truth}


def gradients(model: nn.Module, images: Images, wanted: Mapping[str, Labels]) -> dict[str, Images]:
    """The gradient of each target, for the classes given, from one forward pass.

    Args:
        wanted: target to (n,) classes; targets that need no class ignore theirs.
    """
    with evaluating(model), torch.enable_grad():
        x = images.detach().requires_grad_()
        logits = model(x)
        scalars = [find_target(name)(logits, labels).sum() for name, labels in wanted.items()]
        found = [torch.autograd.grad(scalar, x, retain_graph=True)[0] for scalar in scalars]
    return dict(zip(wanted, found, strict=True))


def smooth_gradients(
    model: nn.Module,
    images: Images,
    wanted: Mapping[str, Labels],
    *,
    sigma: float,
    samples: int,
    noise: Noise,
) -> dict[str, Images]:
    """SmoothGrad (Smilkov et al. 2017) of each target: the mean of `gradients` over noisy copies."""
    total = {name: torch.zeros_like(images) for name in wanted}
    for _ in range(samples):
        for name, gradient in gradients(model, images + sigma * noise.like(images), wanted).items():
            total[name] += gradient
    return {name: gradient / samples for name, gradient in total.items()}


def equal_norm_changes(
    model: nn.Module,
    images: Images,
    basis: Basis,
    norms: Sequence[float],
    *,
    size: Size,
    noise: Noise,
    directions: int,
    change: str = "softmax-l2",
) -> EqualNorm:
    """`pags.measure.robustness.equal_norm`, with directions made at `size`, where the basis lives."""
    check_basis(basis)
    whole = (images.shape[-2], images.shape[-1])
    blank = images.new_zeros(len(images), images.shape[1], *size)
    clean = predict(model, images)
    total = torch.zeros(3, len(norms), len(images), dtype=torch.float64, device=images.device)
    for _ in range(directions):
        u = noise.like(blank)
        for which, part in enumerate((*split(u, basis), u)):
            lifted = enlarged(part, whole)
            for place, norm in enumerate(norms):
                moved = predict(model, images + scale_to(lifted, norm))
                total[which, place] += OUTPUT_CHANGES[change](clean, moved).double()
    on, off, undivided = (total / directions).to(images.dtype)
    return EqualNorm(on, off, undivided)


def definition_1_changes(
    model: nn.Module,
    images: Images,
    basis: Basis,
    sigma: float,
    *,
    size: Size,
    noise: Noise,
    directions: int,
    target: str = "logit",
) -> Definition1:
    """`pags.measure.robustness.definition_1` for the predicted class, with noise made at `size`.

    Enlarged noise is smoother, so that its deviation in the classifier's pixels is below `sigma`.
    """
    scalar = find_target(target)
    whole = (images.shape[-2], images.shape[-1])
    blank = images.new_zeros(len(images), images.shape[1], *size)
    clean = predict(model, images)
    labels = clean.argmax(1)
    base = scalar(clean, labels)
    off_sum, all_sum = torch.zeros_like(base), torch.zeros_like(base)
    for _ in range(directions):
        u = sigma * noise.like(blank)
        for total, part in ((off_sum, split(u, basis)[1]), (all_sum, u)):
            total += (scalar(predict(model, images + enlarged(part, whole)), labels) - base).square()
    return Definition1(off_sum / directions, all_sum / directions)


def robust(
    model: nn.Module, images: Images, labels: Labels, attack: PGD, *, seed: int, places: Sequence[int]
) -> PerImage:
    """1 where the model names the label, with and without l2-PGD, else 0."""
    right = predict(model, images).argmax(1) == labels
    if attack.radius == 0 or not bool(right.any()):
        return right.to(images)
    chosen = right.nonzero()[:, 0].tolist()
    x, y = images[right], labels[right]
    draws = [generator(seed, "attack", f"{attack.radius:g}", places[place]) for place in chosen]
    start = torch.cat([attack.start(one[None].cpu(), own) for one, own in zip(x, draws, strict=True)]).to(x)
    attacked = predict(model, attack.perturb(model, x, y, start)).argmax(1)
    return right.to(images).index_put((right,), (attacked == y).to(images))
