"""Training: a run that is killed and resumed is the run that was left alone, bit by bit."""

import itertools
import logging
import math
import os
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from conftest import built, network_with_batch_norm, seeded
from pags.data.batches import Batch, batch_count, epoch_batches, random_crop, random_flip
from pags.data.imageset import ImageSet
from pags.errors import PagsError, TrainingDiverged, UsageError
from pags.store import Slot, Store
from pags.training.attack import PGD
from pags.training.fit import EpochRecord, Plan, epochs, fit, learning_rate
from pags.training.objectives import (
    AdversarialTraining,
    CrossEntropy,
    GradientNorm,
    Objective,
    RandomisedSmoothing,
)

module: Any = import_module("pags.training.fit")
pytestmark = pytest.mark.usefixtures("global_state_untouched")

DATA = ImageSet(
    torch.randint(0, 256, (44, 1, 4, 4), generator=seeded(1), dtype=torch.uint8),
    torch.randint(0, 3, (44,), generator=seeded(2)),
    ("a", "b", "c"),
    "random",
)
PLAN = Plan(epochs=4, batch_size=8, learning_rate=0.05)  # six batches an epoch, the last of four images
PLANS = {
    "sgd": PLAN,
    "adam, averaged": PLAN.model_copy(update={"optimizer": "adam", "learning_rate": 0.01, "average": 0.9}),
    "augmented, clipped, in steps": PLAN.model_copy(
        update={"crop": 1, "flip": True, "clip_norm": 0.5, "schedule": "steps", "milestones": (2, 3)}
    ),
}


class Killed(Exception):
    """What a run sees of a power cut."""


class Interrupted:
    """An objective during whose n-th call the power goes, or the loss or its gradient becomes NaN."""

    def __init__(self, inner: Objective, at: int, what: str = "killed") -> None:
        self.inner, self.at, self.what, self.calls = inner, at, what, 0

    def __call__(self, model: nn.Module, batch: Batch, draws: torch.Generator) -> Tensor:
        self.calls += 1
        losses = self.inner(model, batch, draws)
        if self.calls != self.at:
            return losses
        if self.what == "killed":
            raise Killed
        if self.what == "loss":
            return losses * math.nan
        weights = next(model.parameters()).sum()
        return losses + (weights - weights.detach()).sqrt()  # + 0, with an infinite slope


@pytest.fixture
def slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slot:
    """A slot that is written after every second batch, on a disk that nobody waits for."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(module, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    monkeypatch.setattr(module, "BATCHES_BETWEEN_CHECKS", 2)
    return Store(tmp_path).slot("unfinished/run.safetensors")


def train(
    plan: Plan, objective: Objective | None = None, *, slot: Slot | None = None, seed: int = 5, **options: Any
) -> tuple[dict[str, Tensor], list[EpochRecord]]:
    """The weights and the records of a whole run (or of what is left of it)."""
    model = network_with_batch_norm()
    records = list(fit(model, objective or CrossEntropy(), DATA, plan, seed=seed, slot=slot, **options))
    return model.state_dict(), records


def without_seconds(records: list[EpochRecord]) -> list[tuple[Any, ...]]:
    return [(r.epoch, r.epochs, r.loss, r.learning_rate) for r in records]


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def differ(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return any(not torch.equal(one[name], other[name]) for name in one)


# --- resuming --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("epochs", [1, 3])
def test_a_run_abandoned_between_epochs_continues_bit_by_bit(plan: Plan, epochs: int, slot: Slot) -> None:
    weights, records = train(plan)
    run = module.epochs(network_with_batch_norm(), CrossEntropy(), DATA, plan, seed=5, slot=slot)
    before = list(itertools.islice(run, epochs))
    run.close()
    resumed, after = train(plan, slot=slot)
    assert_equal(resumed, weights)
    assert without_seconds(before + after) == without_seconds(records)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("call", [3, 10, 24])
def test_a_run_killed_within_an_epoch_continues_bit_by_bit(plan: Plan, call: int, slot: Slot) -> None:
    """With an objective that draws, from the last batch whose state was kept."""
    objective = AdversarialTraining(PGD(0.3, steps=2))
    weights, records = train(plan, objective)
    killed = Interrupted(objective, at=call)
    with pytest.raises(Killed):
        train(plan, killed, slot=slot)
    rest = Interrupted(objective, at=0)
    resumed, after = train(plan, rest, slot=slot)
    assert_equal(resumed, weights)
    assert without_seconds(after) == without_seconds(records)[-len(after) :]
    assert rest.calls == 24 - (call - 1) // 2 * 2  # no finished pair of batches was done again


def test_a_run_killed_twice_continues_bit_by_bit(slot: Slot) -> None:
    weights, _ = train(PLAN)
    for call in (9, 4):
        with pytest.raises(Killed):
            train(PLAN, Interrupted(CrossEntropy(), at=call), slot=slot)
    assert_equal(train(PLAN, slot=slot)[0], weights)


def test_progress_begins_where_the_run_does(slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    """After every batch, were they slow: of 24, here in a run that is killed in the tenth and continued."""
    monkeypatch.setattr(module, "SECONDS_BETWEEN_WORDS", -1.0)
    first, rest = list[float](), list[float]()
    with pytest.raises(Killed):
        train(PLAN, Interrupted(CrossEntropy(), at=10), slot=slot, on_progress=first.append)
    train(PLAN, slot=slot, on_progress=rest.append)
    assert (first[0], first[-1]) == (0.0, 9 / 24)
    assert (rest[0], rest[-1]) == (8 / 24, 1.0)  # the state of the second batch of that epoch
    for shares in (first, rest):
        assert shares == sorted(shares)
        assert max(b - a for a, b in itertools.pairwise(shares)) == pytest.approx(1 / 24)


def test_a_run_killed_before_its_first_state_begins_again(slot: Slot) -> None:
    with pytest.raises(Killed):
        train(PLAN, Interrupted(CrossEntropy(), at=1), slot=slot)
    assert slot.read() is None
    assert_equal(train(PLAN, slot=slot)[0], train(PLAN)[0])


def test_a_finished_run_does_nothing_again(slot: Slot) -> None:
    plan = PLANS["adam, averaged"]
    weights, _ = train(plan, slot=slot)
    again, records = train(plan, slot=slot)
    assert_equal(again, weights)
    assert records == []


def test_states_are_not_kept_more_often_than_asked(slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS_BETWEEN_CHECKPOINTS", 1e6)
    train(PLAN, slot=slot)
    assert slot.read() is None


# --- the same and not the same ---------------------------------------------------------------------------


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_a_seed_names_a_run(plan: Plan) -> None:
    objective = RandomisedSmoothing(0.2)
    weights, records = train(plan, objective)
    again, same = train(plan, objective)
    assert_equal(again, weights)
    assert without_seconds(same) == without_seconds(records)
    assert differ(train(plan, objective, seed=6)[0], weights)


def test_every_step_draws_its_own_randomness() -> None:
    seen: list[float] = []

    class Watching(CrossEntropy):
        def __call__(self, model: nn.Module, batch: Batch, draws: torch.Generator) -> Tensor:
            seen.append(torch.rand((), generator=draws).item())
            return super().__call__(model, batch, draws)

    train(PLAN, Watching())
    assert len(set(seen)) == 24


def test_training_learns_and_leaves_a_network_in_evaluation_mode() -> None:
    model = network_with_batch_norm()
    with torch.no_grad():
        before = float(cross_entropy(model.eval()(DATA.images), DATA.labels))
    plan = PLAN.model_copy(update={"epochs": 30})
    records = list(fit(model, CrossEntropy(), DATA, plan, seed=0))
    assert not any(part.training for part in model.modules())
    with torch.no_grad():
        assert float(cross_entropy(model(DATA.images), DATA.labels)) < before - 0.1
    assert records[-1].loss < records[0].loss - 0.1
    assert [(r.epoch, r.epochs) for r in records] == [(e, 30) for e in range(1, 31)]


@pytest.mark.parametrize("nesterov", [False, True])
def test_one_epoch_of_gradient_descent_by_hand(nesterov: bool) -> None:
    """Full batch, momentum (Nesterov's looks ahead) and weight decay, against the recursion in float64."""
    weight = torch.randn(3, 16, generator=seeded(0))
    linear = built(lambda: nn.Linear(16, 3, bias=False))
    model = nn.Sequential(nn.Flatten(), linear)
    with torch.no_grad():
        linear.weight.copy_(weight)
    plan = Plan(
        epochs=3, batch_size=100, learning_rate=0.3, schedule="constant", weight_decay=0.01, nesterov=nesterov
    )
    records = list(fit(model, CrossEntropy(), DATA, plan, seed=0))
    x, y = DATA.pixels.double().flatten(1) / 255, torch.eye(3, dtype=torch.float64)[DATA.labels]
    w, velocity, expected = weight.double(), torch.zeros(3, 16, dtype=torch.float64), []
    for _ in range(3):
        probabilities = (x @ w.T).softmax(1)
        expected.append(float(-(probabilities * y).sum(1).log().mean()))
        gradient = (probabilities - y).T @ x / len(x) + 0.01 * w
        velocity = 0.9 * velocity + gradient
        w = w - 0.3 * (gradient + 0.9 * velocity if nesterov else velocity)
    torch.testing.assert_close(linear.weight.detach().double(), w, rtol=0, atol=1e-5)
    assert [record.loss for record in records] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_matrices_alone_decay_where_that_is_asked(optimizer: Literal["sgd", "adam"]) -> None:
    """Without a gradient, SGD multiplies what decays by 1 − ηλ; Adam takes a step of η against its sign."""

    class Nothing(CrossEntropy):
        def __call__(self, model: nn.Module, batch: Batch, draws: torch.Generator) -> Tensor:
            return super().__call__(model, batch, draws) * 0

    model = network_with_batch_norm()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    plan = Plan(
        epochs=1, batch_size=100, learning_rate=0.125, schedule="constant", weight_decay=0.5,
        decayed="matrices", optimizer=optimizer,
    )  # fmt: skip
    list(fit(model, Nothing(), DATA, plan, seed=0))
    kinds = set()
    for name, p in model.named_parameters():
        shrunk = before[name] - 0.125 * (0.5 * before[name] if optimizer == "sgd" else before[name].sign())
        torch.testing.assert_close(p.detach(), shrunk if p.ndim > 1 else before[name], rtol=1e-4, atol=1e-6)
        kinds.add(p.ndim > 1)
    assert kinds == {True, False}


def test_smoothed_labels_reach_the_objectives_and_not_the_penalty() -> None:
    """The loss of the first epoch, in one batch, of cross-entropy and of a gradient norm, by hand."""
    losses: dict[tuple[float, float], float] = {}
    for smoothing, strength in itertools.product((0.0, 0.3), (0.0, 2.0)):
        model = nn.Sequential(nn.Flatten(), built(lambda: nn.Linear(16, 3)))
        plan = Plan(epochs=1, batch_size=100, learning_rate=0.1, label_smoothing=smoothing)
        (record,) = fit(model, GradientNorm(strength), DATA, plan, seed=0)
        losses[smoothing, strength] = record.loss
    linear = built(lambda: nn.Linear(16, 3))
    logits = linear(DATA.images.flatten(1)).detach()
    smoothed = 0.7 * cross_entropy(logits, DATA.labels) - 0.1 * logits.log_softmax(1).sum(1).mean()
    assert losses[0.3, 0.0] == pytest.approx(float(smoothed), rel=1e-5)
    penalty = losses[0.0, 2.0] - losses[0.0, 0.0]
    assert losses[0.3, 2.0] - losses[0.3, 0.0] == pytest.approx(penalty, rel=1e-4)
    assert penalty > 1e-3


def test_the_average_is_that_of_the_weights_after_each_step() -> None:
    """With decay min(average, (1 + t) / (10 + t)), by a loop over the weights that the objective sees."""
    seen: list[Tensor] = []

    class Watching(CrossEntropy):
        def __call__(self, model: nn.Module, batch: Batch, draws: torch.Generator) -> Tensor:
            seen.append(next(model.parameters()).detach().clone().double())
            return super().__call__(model, batch, draws)

    plan = PLAN.model_copy(update={"epochs": 1, "average": 0.35})
    averaged = next(iter(train(plan, Watching())[0].values()))
    seen.append(next(iter(train(plan.model_copy(update={"average": 0.0}))[0].values())).double())
    mean = seen[0]
    for t, weights in enumerate(seen[1:]):
        decay = min(0.35, (1 + t) / (10 + t))
        mean = decay * mean + (1 - decay) * weights
    torch.testing.assert_close(averaged.double(), mean, rtol=0, atol=1e-6)


# --- divergence ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [7, 8, 12, 24])
def test_a_loss_that_is_not_finite_stops_the_run_at_its_last_finite_state(call: int, slot: Slot) -> None:
    with pytest.raises(
        TrainingDiverged, match=r"finite loss; got nan in epoch .*run\.safetensors.*below 0.05"
    ):
        train(PLAN, Interrupted(CrossEntropy(), at=call, what="loss"), slot=slot)
    state = slot.read()
    assert state is not None
    assert state["epoch"] * 6 + state["batch"] == (call - 1) // 2 * 2
    assert all(value.isfinite().all() for value in state["model"].values())
    assert_equal(train(PLAN, slot=slot)[0], train(PLAN)[0])


@pytest.mark.parametrize("call", [7, 8, 12, 24])
def test_weights_that_are_not_finite_are_never_kept(call: int, slot: Slot) -> None:
    """A finite loss may have a gradient that is not, as a root at zero has; the loss tells too late."""
    with pytest.raises(TrainingDiverged):
        train(PLAN, Interrupted(CrossEntropy(), at=call, what="gradient"), slot=slot)
    state = slot.read()
    assert state is not None
    assert all(value.isfinite().all() for value in state["model"].values())


def test_divergence_without_a_slot_says_so_too() -> None:
    with pytest.raises(TrainingDiverged, match="in epoch 1, batch 6; try a learning rate below"):
        train(PLAN, Interrupted(CrossEntropy(), at=2, what="loss"))


# --- the learning rate -----------------------------------------------------------------------------------


def rates(plan: Plan, total: int) -> list[float]:
    return [learning_rate(plan, step, total) for step in range(total)]


def test_one_cycle_by_hand() -> None:
    plan = Plan(epochs=1, learning_rate=2, schedule="one-cycle")
    root = math.sqrt(0.5)
    expected = [1, 2, 2, 1 + math.cos(math.pi / 8), 1 + root, 1 + math.cos(3 * math.pi / 8), 1,
                1 - math.cos(3 * math.pi / 8), 1 - root, 1 - math.cos(math.pi / 8)]  # fmt: skip
    assert rates(plan, 10) == pytest.approx(expected)


@given(total=st.integers(1, 2000))
def test_one_cycle_rises_to_the_rate_and_falls_to_nearly_nothing(total: int) -> None:
    found = rates(Plan(epochs=1, learning_rate=0.1), total)
    top = found.index(max(found))
    assert max(found) == pytest.approx(0.1)
    assert min(found) > 0
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)
    if total >= 100:
        assert found[-1] < 0.1 * 1e-3


def test_steps_by_hand() -> None:
    plan = Plan(epochs=5, learning_rate=1, schedule="steps", milestones=(2, 4))
    assert rates(plan, 10) == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01])
    assert rates(plan, 5) == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    assert rates(Plan(epochs=5, learning_rate=0.3, schedule="constant"), 4) == [0.3] * 4


def test_records_tell_the_rate_that_was_used() -> None:
    plan = Plan(epochs=5, batch_size=22, learning_rate=0.01, schedule="steps", milestones=(2, 4))
    records = train(plan)[1]
    assert [r.learning_rate for r in records] == pytest.approx([0.01, 0.01, 1e-3, 1e-3, 1e-4])


# --- batches ---------------------------------------------------------------------------------------------


def numbered(n: int, side: int = 5, channels: int = 2) -> ImageSet:
    """Images without an equal pixel in any two of them."""
    pixels = torch.rand(n, channels, side, side, generator=seeded(n))
    return ImageSet(pixels, torch.arange(n) % 3, ("a", "b", "c"), "numbered")


def joined(batches: Iterator[Batch]) -> Batch:
    parts = list(batches)
    return Batch(
        torch.cat([b.images for b in parts]),
        torch.cat([b.labels for b in parts]),
        torch.cat([b.index for b in parts]),
    )


@given(n=st.integers(1, 40), size=st.integers(1, 50), seed=st.integers(0, 2**40), epoch=st.integers(0, 100))
def test_an_epoch_shows_every_image_once(n: int, size: int, seed: int, epoch: int) -> None:
    data = numbered(n)
    batches = list(epoch_batches(data, size, seed=seed, epoch=epoch))
    assert len(batches) == batch_count(data, size)
    assert [len(b.labels) for b in batches[:-1]] == [size] * (len(batches) - 1)
    whole = joined(iter(batches))
    assert sorted(whole.index.tolist()) == list(range(n))
    assert torch.equal(whole.images, data.images[whole.index])
    assert torch.equal(whole.labels, data.labels[whole.index])


def test_the_order_changes_with_the_epoch_and_with_the_seed() -> None:
    orders = {
        tuple(joined(epoch_batches(numbered(30), 7, seed=seed, epoch=epoch)).index.tolist())
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(orders) == 9


@settings(max_examples=20)
@given(first=st.integers(0, 5), crop=st.integers(0, 2), flip=st.booleans())
def test_batches_left_out_change_none_of_the_others(first: int, crop: int, flip: bool) -> None:
    def batches(first: int) -> Iterator[Batch]:
        return epoch_batches(numbered(20), 4, seed=3, epoch=2, first=first, crop=crop, flip=flip)

    whole, rest = list(batches(0)), list(batches(first))
    assert len(rest) == 5 - first
    for one, other in zip(whole[first:], rest, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.index, other.index)


@pytest.mark.parametrize("padding", [1, 3])
def test_each_image_is_cropped_at_a_place_of_its_own(padding: int) -> None:
    """Every crop is one of those that a loop over all places finds, each as likely as another."""
    images = numbered(400).images + 0.5
    places = []
    for before, after in zip(images, random_crop(images, padding, seeded(0)), strict=True):
        padded = torch.zeros(2, 5 + 2 * padding, 5 + 2 * padding)
        for c, y, x in itertools.product(range(2), range(5), range(5)):
            padded[c, y + padding, x + padding] = before[c, y, x]
        fits = [
            (y, x)
            for y, x in itertools.product(range(2 * padding + 1), repeat=2)
            if torch.equal(padded[:, y : y + 5, x : x + 5], after)
        ]
        assert len(fits) == 1
        places += fits
    possible = (2 * padding + 1) ** 2
    assert len(set(places)) == possible
    most = max(places.count(place) for place in set(places))
    mean = 400 / possible
    assert most < mean + 5 * math.sqrt(mean)


def test_each_image_is_mirrored_or_not_by_a_coin_of_its_own() -> None:
    images = numbered(400).images
    mirrored = 0
    for before, after in zip(images, random_flip(images, seeded(0)), strict=True):
        by_hand = torch.stack([before[:, :, 4 - x] for x in range(5)], 2)
        assert torch.equal(after, before) or torch.equal(after, by_hand)
        mirrored += torch.equal(after, by_hand)
    assert abs(mirrored - 200) < 4 * math.sqrt(100)


def test_an_epoch_is_augmented_image_by_image_where_asked() -> None:
    data = numbered(60)

    def images(**options: Any) -> Tensor:
        return joined(epoch_batches(data, 30, seed=0, epoch=0, **options)).images

    plain = images()
    for options in ({"flip": True}, {"crop": 2}):
        changed = (images(**options) != plain).flatten(1).any(1)
        assert 10 < int(changed.sum()) < 60
        again = joined(epoch_batches(data, 30, seed=0, epoch=1, **options))
        assert (again.images != data.images[again.index]).flatten(1).any(1).tolist() != changed.tolist()


# --- precision, compilation, states of other runs ----------------------------------------------------------


BF16 = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_a_killed_run_in_bfloat16_continues_bit_by_bit(plan: Plan, slot: Slot) -> None:
    objective = GradientNorm(0.3)
    weights, records = train(plan, objective, fabric=BF16)
    assert all(value.isfinite().all() for value in weights.values())
    assert differ(train(plan, objective)[0], weights)  # it is computed with fewer digits
    with pytest.raises(Killed):
        train(plan, Interrupted(objective, at=10), slot=slot, fabric=BF16)
    resumed, after = train(plan, objective, slot=slot, fabric=BF16)
    assert_equal(resumed, weights)
    assert without_seconds(after) == without_seconds(records)[-len(after) :]


def test_an_objective_sees_what_a_network_says_of_itself_in_any_precision() -> None:
    class Asking(CrossEntropy):
        def __call__(self, model: nn.Module, batch: Batch, draws: torch.Generator) -> Tensor:
            assert model.note == "here"
            assert not hasattr(model, "elsewhere")
            assert model(batch.images).dtype == torch.float32
            return super().__call__(model, batch, draws)

    class Noted(nn.Sequential):
        note = "here"

    for fabric in (None, BF16):
        model = built(lambda: Noted(nn.Flatten(), nn.Linear(16, 3)))
        list(fit(model, Asking(), DATA, PLAN, seed=5, fabric=fabric))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"plan": PLAN.model_copy(update={"learning_rate": 0.1})}, r"with plan .*0\.1.* got plan .*0\.05"),
        ({"seed": 6}, "with seed 6 .* got seed 5"),
        ({"fingerprint": "b"}, "with fingerprint b .* got fingerprint a"),
        ({"fingerprint": None}, "with fingerprint None .* got fingerprint a"),
    ],
)
def test_the_state_of_another_run_is_refused(what: dict[str, Any], message: str, slot: Slot) -> None:
    with pytest.raises(Killed):
        train(PLAN, Interrupted(CrossEntropy(), at=10), slot=slot, fingerprint="a")
    state = slot.read()
    with pytest.raises(PagsError, match=message):
        train(**{"plan": PLAN, "slot": slot, "fingerprint": "a", **what})
    assert str(slot.read()) == str(state)
    train(PLAN, slot=slot, fingerprint="a")


def test_gradients_that_an_objective_leaves_are_added() -> None:
    """Zeroed before the objective and not after it: a gradient of its own moves the weights (choices, 3)."""

    class Leaving(CrossEntropy):
        def __call__(self, model: nn.Module, batch: Batch, draws: torch.Generator) -> Tensor:
            cross_entropy(model(batch.images), batch.labels).backward()
            return super().__call__(model, batch, draws)

    class Twice(CrossEntropy):
        def __call__(self, model: nn.Module, batch: Batch, draws: torch.Generator) -> Tensor:
            model(batch.images)  # for BatchNorm's statistics
            return 2 * super().__call__(model, batch, draws)

    one, other = train(PLAN, Leaving())[0], train(PLAN, Twice())[0]
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-5)


def test_records_tell_the_speed() -> None:
    records = train(PLAN)[1]
    assert [r.images_per_second * r.seconds for r in records] == pytest.approx([len(DATA)] * 4)


def test_layouts_give_the_same_but_for_rounding() -> None:
    seen = []

    class Watching(CrossEntropy):
        def __call__(self, model: nn.Module, batch: Batch, draws: torch.Generator) -> Tensor:
            seen.append(batch.images.is_contiguous(memory_format=torch.channels_last))
            return super().__call__(model, batch, draws)

    pixels = torch.rand(20, 3, 6, 6, generator=seeded(0))
    data = ImageSet(pixels, torch.arange(20) % 3, ("a", "b", "c"), "coloured")
    losses = []
    for innermost in (True, False):
        run = epochs(network_with_batch_norm(3), Watching(), data, PLAN, seed=0, channels_last=innermost)
        losses.append([record.loss for record in run])
    assert seen == [True] * 12 + [False] * 12
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own parts
def test_a_compiled_network_is_trained_like_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.root.manager, "disable", logging.DEBUG)  # the compiler says a great deal
    plan = PLAN.model_copy(update={"epochs": 2, "batch_size": 22})
    losses, weights = [], []
    for compiled in (True, False):
        model = built(lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 3)))
        run = epochs(model, RandomisedSmoothing(0.1), DATA, plan, seed=5, compile=compiled)
        losses.append([record.loss for record in run])
        weights.append(model.state_dict())
    assert list(weights[0]) == ["1.weight", "1.bias"]
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=1e-5)
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    with pytest.raises(UsageError, match="without a second derivative, for a compiled network; got Gradient"):
        list(fit(model, GradientNorm(1.0), DATA, plan, seed=5, compile=True))
