"""One training loop, for classifiers, autoencoders and denoisers alike.

`fit` is a generator: it yields a small record after every epoch and leaves showing, saving and
averaging to its caller. Every draw is named by seed, epoch and batch, and the learning rate is a
function of the step, so the state of a run is weights, optimiser and position: a run that was
killed resumes bit by bit on the same machine.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from pags.data.batches import batch_count, epoch_batches
from pags.data.imageset import ImageSet
from pags.errors import TrainingDiverged
from pags.seeds import generator
from pags.store import Slot
from pags.training.objectives import Objective


class Plan(BaseModel):
    """How a network is trained.

    `one-cycle` raises the learning rate linearly over the first fifth of the steps and lowers it along a
    cosine to zero; `steps` multiplies it by 0.1 at each of `milestones` (epochs).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: PositiveInt
    batch_size: PositiveInt = 128
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: PositiveFloat
    momentum: NonNegativeFloat = 0.9
    weight_decay: NonNegativeFloat = 5e-4
    schedule: Literal["constant", "one-cycle", "steps"] = "one-cycle"
    milestones: tuple[PositiveInt, ...] = ()
    average: NonNegativeFloat = 0.0
    """Decay of an exponential moving average of the weights, which the model holds at the end; 0: none."""
    clip_norm: PositiveFloat | None = None
    crop: int = 0
    flip: bool = False


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch did; `seconds` is the only number that two equal runs do not share."""

    epoch: int
    epochs: int
    loss: float
    learning_rate: float
    seconds: float


SECONDS_BETWEEN_CHECKPOINTS = 15.0
BATCHES_BETWEEN_CHECKS = 25


def fit(
    model: nn.Module,
    objective: Objective,
    data: ImageSet,
    plan: Plan,
    *,
    seed: int,
    slot: Slot | None = None,
    fabric: Fabric | None = None,
) -> Iterator[EpochRecord]:
    """Train `model` in place, yielding a record after each epoch.

    Args:
        model: any network that `objective` can use.
        objective: a loss for each image of a batch.
        data: the training images.
        plan: epochs, optimiser, schedule, augmentation.
        seed: names every draw of the run.
        slot: where the state is kept and looked for; None: nowhere.
        fabric: device, precision and processes; None: one process in float32 on the CPU.

    Raises:
        TrainingDiverged: the loss is not finite. The last finite state stays in the slot.
    """
    fabric = fabric or Fabric(accelerator="cpu", devices=1)
    run = _Run(model, objective, data.to(fabric.device), plan, seed, slot, fabric)
    run.restore()
    while run.epoch < plan.epochs:
        yield run.one_epoch()
    run.finish()


def learning_rate(plan: Plan, step: int, total: int) -> float:
    """The learning rate of a step, a function of the step alone."""
    if plan.schedule == "one-cycle":
        rise = max(1, total // 5)
        if step < rise:
            return plan.learning_rate * (step + 1) / rise
        return plan.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))
    if plan.schedule == "steps":
        epoch = step * plan.epochs // total
        return plan.learning_rate * 0.1 ** sum(epoch >= milestone for milestone in plan.milestones)
    return plan.learning_rate


class _Run:
    """The state of one training: weights, optimiser, averages, and the position in the epoch."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        data: ImageSet,
        plan: Plan,
        seed: int,
        slot: Slot | None,
        fabric: Fabric,
    ) -> None:
        self.objective, self.data, self.plan, self.seed = objective, data, plan, seed
        self.slot, self.fabric, self.inner = slot, fabric, model
        model.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model, self.optimizer = fabric.setup(model, _optimizer(model, plan))
        self.average = _floats(model) if plan.average else {}
        self.epoch = self.batch = 0
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=fabric.device)
        self.saved_at = time.monotonic()

    def one_epoch(self) -> EpochRecord:
        started = time.monotonic()
        plan, batches = self.plan, batch_count(self.data, self.plan.batch_size)
        self.model.train()
        for batch in epoch_batches(
            self.data, plan.batch_size, seed=self.seed, epoch=self.epoch,
            first=self.batch, crop=plan.crop, flip=plan.flip,
        ):  # fmt: skip
            rate = learning_rate(plan, self.epoch * batches + self.batch, plan.epochs * batches)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            draws = generator(self.seed, "objective", self.epoch, self.batch)
            losses = self.objective(self.model, batch, draws)
            self.optimizer.zero_grad()
            self.fabric.backward(losses.mean())
            if plan.clip_norm is not None:
                self.fabric.clip_gradients(self.model, self.optimizer, max_norm=plan.clip_norm)
            self.optimizer.step()
            self._update_average()
            self.loss_sum += losses.detach().double().sum()
            self.batch += 1
            if self.batch % BATCHES_BETWEEN_CHECKS == 0:
                self.check()
                self.save()
        self.check()
        loss = float(self.loss_sum) / len(self.data)
        self.epoch, self.batch = self.epoch + 1, 0
        self.loss_sum.zero_()
        self.save()
        return EpochRecord(self.epoch, plan.epochs, loss, rate, time.monotonic() - started)

    def _update_average(self) -> None:
        """Move the averaged weights; the decay is ramped up so that the start is soon forgotten."""
        step = self.epoch * batch_count(self.data, self.plan.batch_size) + self.batch
        decay = min(self.plan.average, (1 + step) / (10 + step))
        for name, value in _floats(self.inner, copy=False).items() if self.average else ():
            self.average[name].lerp_(value, 1 - decay)

    def check(self) -> None:
        """Raise where loss or weights stopped being finite, before anything is saved over.

        The weights too: a finite loss can have a gradient that is not, and the next loss would tell too late.
        """
        total = float(self.loss_sum)
        if math.isfinite(total) and all(bool(w.isfinite().all()) for w in self.inner.parameters()):
            return
        kept = self.slot is not None and self.slot.store.has(self.slot.name)
        where = (
            f"; the last finite state is {self.slot.store.path(self.slot.name)}" if self.slot and kept else ""
        )
        found = "weights that are not finite" if math.isfinite(total) else str(total)
        raise TrainingDiverged(
            "a finite loss",
            got=f"{found} in epoch {self.epoch + 1}, batch {self.batch}{where}",
            suggestion=f"a learning rate below {self.plan.learning_rate:g}, a smaller strength, or clip_norm",
        )

    def save(self) -> None:
        """Keep the state, but not so often that it costs time."""
        if self.slot is None or time.monotonic() - self.saved_at < SECONDS_BETWEEN_CHECKPOINTS:
            return
        self.slot.write(
            {
                "model": self.inner.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": self.average,
                "epoch": self.epoch,
                "batch": self.batch,
                "loss_sum": self.loss_sum,
            }
        )
        self.saved_at = time.monotonic()

    def restore(self) -> None:
        """Continue from the slot, where it holds a state."""
        state: dict[str, Any] | None = self.slot.read() if self.slot else None
        if state is None:
            return
        self.inner.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average = {name: value.to(self.fabric.device) for name, value in state["average"].items()}
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.loss_sum.copy_(state["loss_sum"])

    def finish(self) -> None:
        """Leave the model in evaluation mode, with its averaged weights where there are any."""
        self.inner.load_state_dict({**self.inner.state_dict(), **self.average})
        self.inner.eval()


def _floats(model: nn.Module, *, copy: bool = True) -> dict[str, Tensor]:
    """Weights and floating-point buffers by name."""
    values = {name: v.detach() for name, v in model.state_dict().items() if v.is_floating_point()}
    return {name: v.clone() for name, v in values.items()} if copy else values


def _optimizer(model: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    if plan.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay)
    return torch.optim.SGD(
        model.parameters(), lr=plan.learning_rate, momentum=plan.momentum, weight_decay=plan.weight_decay
    )
