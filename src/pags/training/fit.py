"""One training loop, for classifiers, autoencoders and denoisers alike, in one process or several.

`fit` is a generator: it yields a small record after every epoch and leaves showing, saving and
averaging to its caller. Every draw is named by seed, epoch and batch, and the learning rate is a
function of the step, so the state of a run is weights, optimiser and position: a run that was
killed resumes bit by bit on the same machine.

Several processes share each batch: they draw for the whole of it and take their rows, so the losses and the
gradients are those of one process but for the rounding of sums.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from pags.data.batches import Batch, batch_count, epoch_batches
from pags.data.imageset import ImageSet
from pags.errors import PagsError, TrainingDiverged
from pags.seeds import generator
from pags.store import Record, Slot
from pags.training.objectives import Objective
from pags.training.parallel import gathered, share_weights, sum_gradients
from pags.training.plan import Plan, learning_rate
from pags.training.stepping import InPrecision, explained, make_optimizer, reproducible
from pags.training.synchronised import SynchronisedBatchNorm2d, synchronise

__all__ = ["EpochRecord", "Plan", "epochs", "fit", "learning_rate"]


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch did; two equal runs share all of it but the last two numbers."""

    epoch: int
    epochs: int
    loss: float
    learning_rate: float
    seconds: float
    images_per_second: float


SECONDS_BETWEEN_CHECKPOINTS = 15.0
BATCHES_BETWEEN_CHECKS = 25
SECONDS_BETWEEN_WORDS = 1.0

Report = Callable[[float], None]
"""Called with the fraction of the work completed."""


def epochs(
    model: nn.Module,
    objective: Objective,
    data: ImageSet,
    plan: Plan,
    *,
    seed: int,
    slot: Slot | None = None,
    fabric: Fabric | None = None,
    fingerprint: str | None = None,
    channels_last: bool = True,
    compile: bool = False,
    on_progress: Report = lambda share: None,
) -> Iterator[EpochRecord]:
    """Train `model` in place, yielding a record after each epoch.

    Args:
        model: any network that `objective` can use; one with a method `prepare` is shown some of the images
            first (see `prepare`).
        objective: a loss for each image of a batch.
        data: the training images.
        plan: epochs, optimiser, schedule, augmentation.
        seed: random seed of every draw of the run.
        slot: where the state is kept and looked for; None: nowhere. Of several processes, the first writes.
        fabric: device, precision and processes, see `make_fabric`; None: one process in float32 on the CPU.
        fingerprint: of everything that the run is a function of; a state with another one is refused.
        channels_last: whether weights and images are kept with the channels innermost, as convolutions want.
        compile: whether the objective sees the network through `torch.compile`, which has no second
            derivative: not for penalties on the gradient.
        on_progress: called with the fraction completed: at the start, where a run that is continued
            has some of it behind it, about once a second, and after each epoch.

    Raises:
        TrainingDiverged: the loss is not finite. The last finite state stays in the slot.
        PagsError: the state in the slot is that of another run.
        UsageError: the objective cannot go through a compiled network, or the network not through processes.
    """
    fabric = fabric or Fabric(accelerator="cpu", devices=1)
    run = _Run(model, objective, data, plan, seed, slot, fabric, fingerprint, channels_last, compile)
    run.restore()
    on_progress(run.share())
    while run.epoch < plan.epochs:
        yield run.one_epoch(on_progress)
    run.finish()


def fit(*arguments: Any, **options: Any) -> list[EpochRecord]:
    """Train a network in place, to the end, and return the record of every epoch.

    Args:
        arguments, options: those of `epochs`, which yields the same records one by one.

    Raises:
        TrainingDiverged, PagsError, UsageError: as `epochs`.
    """
    return list(epochs(*arguments, **options))


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
        fingerprint: str | None,
        channels_last: bool,
        compile: bool,
    ) -> None:
        self.objective, self.data, self.plan, self.seed = objective, data.to(fabric.device), plan, seed
        self.slot, self.fabric, self.inner = slot, fabric, model
        self.settings = {"plan": plan.model_dump(mode="json"), "seed": seed, "images": len(data)}
        self.settings |= {"fingerprint": fingerprint}
        prepare(model, data, seed)
        self.layout = torch.channels_last if channels_last else torch.preserve_format
        model.to(fabric.device, memory_format=self.layout)  # type: ignore[call-overload]
        self.layers = _joined(model) if fabric.world_size > 1 else []
        # Each shape of a batch is compiled for itself, so that a resumed run computes with the same kernels.
        seen: Any = torch.compile(model, dynamic=False) if compile else model
        mixed = fabric.strategy.precision.precision != "32-true"
        self.model = InPrecision(seen, fabric) if mixed else seen
        self.optimizer: Any = fabric.setup_optimizers(make_optimizer(model, plan))
        self.average = _floats(model) if plan.average else {}
        self.epoch = self.batch = 0
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=fabric.device)  # of this process
        self.saved_at = time.monotonic()

    def share(self) -> float:
        """How much of the training is done."""
        within = self.batch / max(1, batch_count(self.data, self.plan.batch_size))
        return (self.epoch + within) / self.plan.epochs

    def one_epoch(self, on_progress: Report) -> EpochRecord:
        """Train to the end of the epoch."""
        started, plan, fabric = time.monotonic(), self.plan, self.fabric
        told = started
        left = max(0, len(self.data) - self.batch * plan.batch_size)
        self.model.train()
        with reproducible():
            for batch in epoch_batches(
                self.data, plan.batch_size, seed=self.seed, epoch=self.epoch, first=self.batch,
                crop=plan.crop, flip=plan.flip, rank=fabric.global_rank, processes=fabric.world_size,
            ):  # fmt: skip
                self.step(batch)
                self.batch += 1
                if time.monotonic() - told > SECONDS_BETWEEN_WORDS:
                    told = time.monotonic()
                    on_progress(self.share())
                if self.batch % BATCHES_BETWEEN_CHECKS == 0:
                    self.save(self.check())
            sums = self.check()
        self.epoch, self.batch = self.epoch + 1, 0
        self.loss_sum.zero_()
        self.save(torch.zeros_like(sums))
        on_progress(self.share())
        seconds, rate = time.monotonic() - started, self.optimizer.param_groups[0]["lr"]
        speed = left / max(seconds, 1e-9)
        return EpochRecord(self.epoch, plan.epochs, float(sums.sum()) / len(self.data), rate, seconds, speed)

    def step(self, batch: Batch) -> None:
        """One step of the optimiser."""
        batches = batch_count(self.data, self.plan.batch_size)
        at = self.epoch * batches + self.batch
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.plan, at, self.plan.epochs * batches)
        # Before the objective, which may leave gradients on purpose (docs/choices.md, 3), and not after it.
        self.optimizer.zero_grad()
        with explained(self.objective):
            losses = self._losses(batch)
            holders = 1 if self._shared(batch) else self.fabric.world_size  # of each image
            # The mean over all rows of all processes, of which these are a part.
            self.fabric.backward(losses.mean() * (len(losses) / (holders * self._rows(batch))))
        if self.fabric.world_size > 1:
            sum_gradients(self.inner)
        if self.plan.clip_norm is not None:
            self.fabric.clip_gradients(self.inner, self.optimizer, max_norm=self.plan.clip_norm)
        self.optimizer.step()
        self._update_average(at)
        self.loss_sum += losses.detach().double().sum() / holders

    def _losses(self, batch: Batch) -> Tensor:
        """The objective's losses for the rows of this process."""
        for layer in self.layers:
            layer.shared = self._shared(batch)
        images = batch.images.contiguous(memory_format=self.layout)
        batch = replace(batch, images=images, label_smoothing=self.plan.label_smoothing)
        draws = generator(self.seed, "objective", self.epoch, self.batch)
        return self.objective(self.model, batch, draws)

    def _rows(self, batch: Batch) -> int:
        return len(batch.images) if batch.whole is None else batch.whole

    def _shared(self, batch: Batch) -> bool:
        """Whether the processes share the batch; one too small for that is done whole by each."""
        return self._rows(batch) >= self.fabric.world_size

    def _update_average(self, step: int) -> None:
        """Move the averaged weights; the decay is ramped up so that the start is soon forgotten."""
        decay = min(self.plan.average, (1 + step) / (10 + step))
        for name, value in _floats(self.inner, copy=False).items() if self.average else ():
            self.average[name].lerp_(value, 1 - decay)

    def check(self) -> Tensor:  # (processes,)
        """The sum of the losses of each process.

        Raises where losses or weights stopped being finite, before anything is saved over. The weights too: a
        finite loss can have a gradient that is not, and the next loss would tell too late.
        """
        sums = gathered(self.loss_sum, self.fabric.world_size)
        total = float(sums.sum())
        finite = [weight.isfinite().all() for weight in self.inner.parameters()]
        if math.isfinite(total) and bool(torch.stack(finite).all()):
            return sums
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

    def save(self, sums: Tensor) -> None:
        """Keep the state, but not so often that it costs time."""
        recent = time.monotonic() - self.saved_at < SECONDS_BETWEEN_CHECKPOINTS
        if self.slot is None or recent or not self.fabric.is_global_zero:
            return
        self.slot.write(
            {
                "settings": self.settings,
                "model": self.inner.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": self.average,
                "epoch": self.epoch,
                "batch": self.batch,
                "loss_sum": sums,
            }
        )
        self.saved_at = time.monotonic()

    def restore(self) -> None:
        """Continue from the slot, where it holds a state."""
        state = self.slot.read() if self.slot else None
        if self.slot is None or state is None:
            return
        _check_same(self.slot, state.get("settings", {}), self.settings)
        self.inner.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average = {name: value.to(self.fabric.device) for name, value in state["average"].items()}
        self.epoch, self.batch = state["epoch"], state["batch"]
        sums, rank = state["loss_sum"], self.fabric.global_rank
        if len(sums) == self.fabric.world_size:
            self.loss_sum.copy_(sums[rank])
        elif rank == 0:  # there were more or fewer processes
            self.loss_sum.copy_(sums.sum())

    def finish(self) -> None:
        """Leave the model in evaluation mode, with its averaged weights where there are any."""
        self.inner.load_state_dict({**self.inner.state_dict(), **self.average})
        self.inner.eval()


IMAGES_TO_PREPARE = 2000


def prepare(model: nn.Module, data: ImageSet, seed: int) -> None:
    """Give a network whose first layer is a function of the images, such as `PlainNetwork`, some of them.

    A seeded choice of `IMAGES_TO_PREPARE`; a network that has been prepared or trained keeps what it has.
    """
    if (hook := getattr(model, "prepare", None)) is not None:
        hook(data.sample(min(len(data), IMAGES_TO_PREPARE), seed).images.to(next(model.parameters()).device))


def _check_same(slot: Slot, found: Record, wanted: Record) -> None:
    """Raise unless the state in the slot is one of this run."""
    for name in wanted:
        if found.get(name) != wanted[name]:
            raise PagsError(
                f"an unfinished training with {name} {wanted[name]} in {slot.store.path(slot.name)}",
                got=f"{name} {found.get(name)}",
                suggestion="removing that file to begin again, or the settings it was begun with",
            )


def _joined(model: nn.Module) -> list[SynchronisedBatchNorm2d]:
    """Prepare a network for several processes: one beginning, one BatchNorm."""
    layers = synchronise(model)
    share_weights(model)
    return layers


def _floats(model: nn.Module, *, copy: bool = True) -> dict[str, Tensor]:
    """Weights and floating-point buffers by name."""
    values = {name: v.detach() for name, v in model.state_dict().items() if v.is_floating_point()}
    return {name: v.clone() for name, v in values.items()} if copy else values
