"""One piece of work in one process or in several, and what several say to each other.

Lightning Fabric starts the processes, places them on devices and connects them. Its usual wrapper around the
network, DDP, is left out: it counts on one forward pass and one backward pass a step, whereas here attacks go
through the network several times and penalties differentiate its gradients. Every process holds the plain
network, and after the backward pass the gradients are added up.
"""

import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from pags.errors import PagsError, UsageError
from pags.training.precision import Precision, choose_precision

Tell = Callable[[Any], None]
"""Takes a small piece of plain data for whoever watches the work."""

AGAIN = "the same request again: it continues from the last state that was kept"
GRACE = 3.0
"""Seconds for which a process that lost the others stays alive, so that whoever failed first is named."""


class Connected(DDPStrategy):
    """Connected processes that do not introduce themselves; `fit` never lets it wrap a network."""

    def setup_environment(self) -> None:
        _silence()
        super().setup_environment()


def make_fabric(
    *,
    accelerator: Literal["auto", "cpu", "cuda"] = "auto",
    devices: int = 1,
    precision: Precision | Literal["auto"] = "32-true",
    patience: float = 600.0,
) -> Fabric:
    """The Fabric with which `fit` trains.

    Args:
        accelerator: "auto" is a GPU where there is one.
        devices: GPUs, or processes on the CPU.
        precision: "bf16-mixed" computes the network in bfloat16 and keeps weights and losses in float32;
            "auto" does so where that is faster, see `choose_precision`.
        patience: seconds after which a process gives up waiting for the others.

    Raises:
        UsageError: there are not so many devices.
    """
    gpus = torch.cuda.device_count() if accelerator != "cpu" else 0
    kind = "cuda" if accelerator == "cuda" or (accelerator == "auto" and gpus) else "cpu"
    if devices < 1 or (kind == "cuda" and devices > gpus):
        raise UsageError(
            "from 1 device to as many as there are",
            got=f"{devices} on {kind}" + (f", which has {gpus}" if kind == "cuda" else ""),
            suggestion="fewer devices, or the accelerator cpu",
        )
    _silence()
    if precision == "auto":
        precision = choose_precision(kind)
    if devices == 1:
        return Fabric(accelerator=kind, devices=1, precision=precision)
    strategy = Connected(start_method="spawn", timeout=timedelta(seconds=patience))
    return Fabric(accelerator=kind, devices=devices, strategy=strategy, precision=precision)


def _silence() -> None:
    """Fabric says in which precision it works and how it connects, for every network anew."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)


def launch(fabric: Fabric, work: Callable[..., Any], *arguments: Any, tell: Tell) -> Any:
    """Do `work(fabric, tell, *arguments)` in every process of `fabric`; of several, process 0 is heard.

    Args:
        fabric: from `make_fabric`.
        work: a function of a module; of several processes, each imports that module anew, so a script that
            calls this must do so under `if __name__ == "__main__"`.
        arguments: plain data; networks are built in `work`.
        tell: called here with whatever process 0 tells while it works.

    Returns:
        What process 0 returns, plain data.

    Raises:
        PagsError: the one that a process raised; or a process was killed, or lost the others.
    """
    if fabric.world_size == 1:
        return work(fabric, tell, *arguments)
    pipes = [multiprocessing.Pipe(duplex=False) for _ in range(fabric.world_size)]
    said = _Listener([reader for reader, _ in pipes], tell)
    with _meeting_place(), _cleaned_up(), said:
        try:
            fabric.launch(_Child(work, arguments, [writer for _, writer in pipes]))
        except (ProcessExitedException, ProcessRaisedException) as error:
            said.finish()
            raise (said.errors or [_lost(error)])[0] from error
    return said.result


@dataclass(frozen=True)
class _Child:
    """What each process runs; `lines` lead to the one that started them all, one for each."""

    work: Callable[..., Any]
    arguments: tuple[Any, ...]
    lines: list[Connection]

    def __call__(self, fabric: Fabric) -> None:
        line, first = self.lines[fabric.global_rank], fabric.global_rank == 0
        tell: Tell = (lambda what: line.send(("told", what))) if first else (lambda what: None)
        try:
            result = self.work(fabric, tell, *self.arguments)
        except PagsError as error:
            line.send(("error", error))
            raise
        except Exception as error:
            time.sleep(GRACE)
            line.send(("error", _lost(error, f"process {fabric.global_rank}: ")))
            raise
        if first:
            line.send(("result", result))


class _Listener:
    """Hears the processes in a thread of its own, so that their lines never fill up."""

    def __init__(self, readers: list[Connection], tell: Tell) -> None:
        self.readers, self.tell = readers, tell
        self.result: Any = None
        self.errors: list[PagsError] = []
        self._ended = threading.Event()
        # A daemon: of a process that was killed while speaking, the rest of the sentence never comes.
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self.finish()

    def finish(self) -> None:
        """Hear what was said, and stop."""
        self._ended.set()
        self._thread.join(2 * GRACE)

    def _listen(self) -> None:
        while (ready := wait(self.readers, timeout=0.1)) or not self._ended.is_set():
            for reader in ready:
                kind, what = cast(Connection, reader).recv()
                if kind == "told":
                    self.tell(what)
                elif kind == "error":
                    self.errors.append(what)
                else:
                    self.result = what


@contextmanager
def _meeting_place() -> Iterator[None]:
    """Where the processes find each other: a store in this process, named in their environment.

    By default the first of them opens it at a port that was free when it was chosen, which it may be no more
    once that process has started; and it is gone for the others when the first is.
    """
    # Port 0 is any that is free.
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    place = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0",  # it is open already
    }  # fmt: skip
    before = {name: os.environ.pop(name, None) for name in place}
    os.environ.update(place)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _cleaned_up() -> Iterator[None]:
    """No process and no remark of the launch is left behind."""
    before = set(multiprocessing.active_children())
    logger = logging.getLogger("torch.multiprocessing.spawn")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        for child in set(multiprocessing.active_children()) - before:
            child.kill()


def _lost(error: Exception, where: str = "") -> PagsError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # Of a traceback, its last line; of another message, its first.
    line = lines[-1] if isinstance(error, ProcessRaisedException) else lines[0]
    return PagsError("every process to work to the end", got=f"{where}{line}", suggestion=AGAIN)


# What processes say to each other ---------------------------------------------------------------------------


def sum_gradients(model: nn.Module) -> None:
    """Add up every parameter's gradient over all processes, in one message for each number format.

    A process must have weighted its loss before its backward pass, for with synchronised BatchNorm its
    gradients hold parts of the other processes' losses, which a factor of its own would distort.
    """
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    for dtype in sorted({gradient.dtype for gradient in gradients}, key=str):
        alike = [gradient for gradient in gradients if gradient.dtype == dtype]
        flat = torch.cat([gradient.flatten() for gradient in alike])
        dist.all_reduce(flat)
        for gradient, part in zip(alike, flat.split([g.numel() for g in alike]), strict=True):
            gradient.copy_(part.reshape(gradient.shape))


@torch.no_grad()
def share_weights(model: nn.Module) -> None:
    """Give every process the weights and buffers of process 0."""
    for tensor in model.state_dict().values():
        common = tensor.contiguous()
        dist.broadcast(common, 0)
        tensor.copy_(common)


def gathered(x: Tensor, processes: int) -> Tensor:  # (processes,)
    """A number of each process, in every process."""
    if processes == 1:
        return x[None].clone()
    parts = [torch.empty_like(x) for _ in range(processes)]
    dist.all_gather(parts, x)
    return torch.stack(parts)
