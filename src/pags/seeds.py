"""Named random generators. Nothing in the package draws from torch's global state."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


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
