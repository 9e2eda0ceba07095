"""A batch that several processes share is, put together, the batch of one."""

from typing import Any

import pytest
import torch

from conftest import seeded
from pags.data.batches import Batch, epoch_batches, share
from pags.data.imageset import ImageSet
from pags.seeds import generator

DATA = ImageSet(
    torch.randint(0, 256, (45, 1, 6, 6), generator=seeded(1), dtype=torch.uint8),
    torch.randint(0, 3, (45,), generator=seeded(2)),
    ("a", "b", "c"),
    "random",
)


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
@pytest.mark.parametrize("rows", [1, 2, 6, 13])
def test_draws_for_parts_are_parts_of_the_draws_for_the_whole(rows: int, processes: int) -> None:
    data = DATA.take(slice(0, rows))
    options: dict[str, Any] = {"seed": 3, "epoch": 1, "crop": 2, "flip": True}
    (whole,) = epoch_batches(data, 20, **options)
    parts = [
        next(epoch_batches(data, 20, rank=rank, processes=processes, **options)) for rank in range(processes)
    ]
    if rows < processes:
        parts = parts[:1]  # each of them has all
    assert torch.equal(torch.cat([p.images for p in parts]), whole.images)
    assert torch.equal(torch.cat([p.index for p in parts]), whole.index)
    for draw in (Batch.normal, Batch.uniform):
        drawn = torch.cat([draw(p, generator(0, "x")) for p in parts])
        assert torch.equal(drawn, draw(whole, generator(0, "x")))
    sizes = [share(rows, rank, processes) for rank in range(processes)]
    lengths = [len(range(rows)[s]) for s in sizes]
    assert max(lengths) - min(lengths) <= 1
    assert min(lengths) > 0


def test_draws_are_the_plain_ones_where_the_batch_is_whole() -> None:
    """Normal and uniform numbers of torch's own, in the order of the images."""
    images = torch.rand(5, 2, 3, 3, generator=seeded(0), dtype=torch.float64)
    batch = Batch(images, torch.zeros(5, dtype=torch.long), torch.arange(5))
    normal, uniform = batch.normal(seeded(7)), batch.uniform(seeded(7))
    assert torch.equal(normal, torch.randn(5, 2, 3, 3, generator=seeded(7)).double())
    assert torch.equal(uniform, torch.rand(5, generator=seeded(7)).double())


def test_alternating_flips_show_each_image_from_both_sides_in_two_epochs() -> None:
    """Which side comes first is a coin for each image, the same however the epoch is cut into batches."""

    def sides(epoch: int, size: int = 20, first: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        batches = list(epoch_batches(DATA, size, seed=3, epoch=epoch, first=first, flip="alternate"))
        index = torch.cat([b.index for b in batches])
        seen, plain = torch.cat([b.images for b in batches]), DATA.images[index]
        turned = (seen == plain.flip(-1)).flatten(1).all(1)
        assert torch.equal(turned, ~(seen == plain).flatten(1).all(1))
        return index, turned[index.argsort()] if not first else turned

    (_, one), (_, two), (_, three) = sides(0), sides(1), sides(2)
    assert torch.equal(one, ~two)
    assert torch.equal(one, three)
    assert 10 < int(one.sum()) < 35
    assert torch.equal(sides(1, size=7)[1], two)
    index, rest = sides(1, first=1)
    assert torch.equal(rest, two[index])


def test_smoothed_losses_are_cross_entropies_with_smoothed_targets() -> None:
    logits = torch.randn(6, 4, generator=seeded(), dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    target = 0.8 * torch.eye(4, dtype=torch.float64)[labels] + 0.2 / 4
    batch = Batch(torch.rand(6, 1, 2, 2), labels, torch.arange(6), label_smoothing=0.2)
    torch.testing.assert_close(batch.losses(logits), -(target * logits.log_softmax(1)).sum(1))
