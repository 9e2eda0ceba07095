"""Named random generators. Nothing in the package draws from torch's global state."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

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


def image_noise(images: Tensor, seed: int, *names: str | int, places: Sequence[int] | None = None) -> Tensor:
    """Standard normal noise of the images' shape, from a generator for each image.

    Args:
        images: (n, …), whose type and device the noise has.
        seed, names: of the draw.
        places: the images' places in the whole set, which end their names, so that noise does not depend on
            how the set was cut; None: 0 to n − 1.
    """
    each = range(len(images)) if places is None else places
    rows = [torch.randn(images.shape[1:], generator=generator(seed, *names, place)) for place in each]
    return torch.stack(rows).to(images) if rows else torch.zeros_like(images)


@contextmanager
def seeded_construction(seed: int, *names: str | int) -> Iterator[None]:
    """Modules built inside draw their initial weights from a named seed; the global state is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, *names))
        yield
