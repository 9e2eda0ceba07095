"""Named random generators. Nothing in the package draws from torch's global state."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the draw that `names` names; equal names give equal seeds on every machine."""
    digest = hashlib.blake2b(repr((seed, *names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for one purpose, such as `generator(seed, "attack", step)`.

    As it depends on the names alone, a run that is resumed at step 700 draws what an undisturbed
    one would have drawn there, and no generator state has to be saved.
    """
    return torch.Generator(device).manual_seed(derive(seed, *names))


class ImageDraws:
    """Standard normal draws with a generator for each image, however the images are cut into batches.

    Args:
        seed, names: of the draws.
        places: the images' places in the whole set.
    """

    def __init__(self, seed: int, *names: str | int, places: Sequence[int]) -> None:
        self.generators = [generator(seed, *names, place) for place in places]

    def normal_like(self, images: Tensor) -> Tensor:
        """The next draw for every image, of the images' shape."""
        rows = [torch.randn(images.shape[1:], generator=draws) for draws in self.generators]
        return torch.stack(rows).to(images) if rows else torch.zeros_like(images)


Draws: TypeAlias = torch.Generator | ImageDraws
"""Where noise comes from: one generator for a batch, or one for each image."""


def normal_like(images: Tensor, draws: Draws) -> Tensor:
    """Standard normal numbers of the shape, type and device of `images`."""
    if isinstance(draws, ImageDraws):
        return draws.normal_like(images)
    return torch.randn(images.shape, generator=draws, device=draws.device).to(images)


def image_noise(images: Tensor, seed: int, *names: str | int, places: Sequence[int] | None = None) -> Tensor:
    """Standard normal noise of the images' shape, from a generator for each image.

    Args:
        images: (n, …), whose type and device the noise has.
        seed, names: of the draw.
        places: the images' places in the whole set, which end their names, so that noise does not depend on
            how the set was cut; None: 0 to n − 1.
    """
    each = range(len(images)) if places is None else places
    return ImageDraws(seed, *names, places=each).normal_like(images)


@contextmanager
def seeded_construction(seed: int, *names: str | int) -> Iterator[None]:
    """Modules built inside, on the CPU, draw their weights from a named seed; the state is put back.

    `torch.manual_seed` is not used, for it would seed the generators of all accelerators too.
    """
    before = torch.default_generator.get_state()
    torch.default_generator.manual_seed(derive(seed, *names))
    try:
        yield
    finally:
        torch.default_generator.set_state(before)
