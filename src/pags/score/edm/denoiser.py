"""EDM's networks behind the house's contract: images in [0, 1], labels as class indices."""

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from pags.arrays import Images, Labels, PerImage, check_labels
from pags.errors import UsageError
from pags.score.edm.preconditioning import Preconditioner


class EDMDenoiser(nn.Module):
    """A preconditioned network as a `Denoiser`.

    The network answers in float32; the answer is returned in the type of the images.

    Args:
        net: the network with its preconditioner, on images in [-1, 1] and one-hot labels.
        batch_size: images that go through the network at a time.

    Raises:
        UsageError: when called with images of other channels or another side than the network's, with labels
            of an unconditional network or outside of [0, classes), with a noise level not above zero, or with
            as many levels or labels as there are no images.
    """

    def __init__(self, net: Preconditioner, *, batch_size: int = 16) -> None:
        super().__init__()
        if batch_size < 1:
            raise UsageError("a batch of one image at least", got=batch_size, suggestion="batch_size=16")
        self.net, self.batch_size = net, batch_size

    @property
    def classes(self) -> int:
        """Number of classes; 0 for an unconditional network."""
        return self.net.label_dim

    @property
    def unconditional(self) -> bool:
        """Whether it gives the score of all classes: a conditional network does where it was trained without
        some of the labels."""
        return not self.classes or getattr(self.net.model, "label_dropout", 0.0) > 0

    def forward(self, images: Images, sigma: float | PerImage, labels: Labels | None = None) -> Images:
        """The denoised images.

        Args:
            images: (n, c, h, w), noisy, for clean pixels in [0, 1].
            sigma: noise level in EDM's unit, for all images or (n,) for each; an entry of 0 in a tensor
                gives NaN where the network takes the level's logarithm.
            labels: (n,), classes; None for the unconditional network, and for a conditional one without a
                class: a row of zeros, which means "any image" only to a network that was trained with such.
        """
        self._check(images, sigma, labels)
        if not len(images):
            return images
        levels = torch.as_tensor(sigma, dtype=torch.float32, device=images.device).reshape(-1)
        # One level for all stays one, so that its embedding is computed once.
        each = len(levels) == len(images) and len(levels) > 1
        parts = images.split(self.batch_size)
        noise = levels.split(self.batch_size) if each else [levels] * len(parts)
        rows = [None] * len(parts) if labels is None else self._rows(labels, images).split(self.batch_size)
        return torch.cat([self._denoised(*part) for part in zip(parts, noise, rows, strict=True)])

    def _denoised(self, images: Tensor, sigma: Tensor, rows: Tensor | None) -> Tensor:
        return ((self.net(2 * images - 1, sigma, rows) + 1) / 2).to(images.dtype)

    def _rows(self, labels: Labels, images: Images) -> Tensor:  # (n, classes)
        return one_hot(labels.long(), self.classes).to(images.device, torch.float32)

    def _check(self, images: Images, sigma: float | Tensor, labels: Tensor | None) -> None:
        wanted = (self.net.img_channels, self.net.img_resolution, self.net.img_resolution)
        if images.shape[1:] != wanted:
            raise UsageError(
                f"images of shape (n, {', '.join(map(str, wanted))}), for which this denoiser was trained",
                got=tuple(images.shape),
                suggestion="a denoiser of these images' size, or images resized to it",
            )
        if isinstance(sigma, Tensor) and sigma.shape != images.shape[:1]:
            raise UsageError(
                "one noise level, or one for each image",
                got=f"{tuple(sigma.shape)} for {len(images)} images",
                suggestion="sigma=0.5, or sigma.expand(len(images))",
            )
        if not isinstance(sigma, Tensor) and not sigma > 0:
            raise UsageError("a noise level above zero", got=sigma, suggestion="sigma=0.5")
        if labels is not None:
            self._check_labels(images, labels)

    def _check_labels(self, images: Images, labels: Tensor) -> None:
        if not self.classes:
            raise UsageError(
                "labels=None, for this denoiser is unconditional",
                got=f"{len(labels)} labels",
                suggestion="the conditional network of the same data, or no labels",
            )
        if len(labels) != len(images):
            raise UsageError(
                "one label for each image",
                got=f"{len(labels)} labels for {len(images)} images",
                suggestion="labels.expand(len(images)) for one class",
            )
        check_labels(labels, self.classes)
