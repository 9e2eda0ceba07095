"""Training steps of a ResNet-18 against the plain formulation, and against the machine's matrix products.

    python benchmarks/training.py [--device cpu] [--quick] [--out benchmarks/results/training-cpu.json]

The plain formulation has contiguous tensors, an attack whose steps call `backward()` through the weights
with the network in evaluation mode, two forward passes for smoothness, and the allocator as it comes. Each
of the two has a process of its own for each objective, as a training has: an allocator's setting holds for
all of a process, and what an allocator has kept depends on what ran before. The two processes take turns,
step by step; ratios are of the two times of one turn, medians over turns with the least and the largest.

A share of the matrix-product rate is that of the multiplications that cross-entropy needs: those of
convolutions and linear layers in a forward pass, counted by hooks, times three for a training step (once
forward, once for the inputs' gradients, once for the weights'). The rate is that of square float matrices.
Peak memory is of a process of its own that takes two steps of one kind; on cuda, of the device's allocator.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pags.classifiers.resnet import build_resnet
from pags.data.batches import Batch
from pags.memory import keep_freed_memory
from pags.seeds import generator, seeded_construction
from pags.training.objectives import make_objective

NAMES = ("cross-entropy", "pgd", "gradient-norm", "smoothness", "smoothing")
STRENGTH = 0.1
WARM_UP = 2  # steps of each before time is taken: they set up what is kept
Ratio = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description="Training steps, as ratios of times and shares of the peak.")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--quick", action="store_true", help="smaller batches and fewer rounds")
    parser.add_argument("--batch", type=int, default=None, help="images a step; otherwise 64, or 16 if quick")
    parser.add_argument("--rounds", type=int, default=None, help="otherwise 5, or 1 if quick")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    device, rounds = torch.device(arguments.device), arguments.rounds or (1 if arguments.quick else 5)
    n = arguments.batch or (16 if arguments.quick else 64)
    found: dict[str, object] = {
        "torch": torch.__version__, "device": device_name(device), "threads": torch.get_num_threads(),
        "batch": n, "rounds": rounds, "float32": steps(device, n, rounds, torch.float32),
    }  # fmt: skip
    if device.type == "cuda":
        found["bfloat16"] = steps(device, n, rounds, torch.bfloat16)
        found["largest_batch"] = {name: largest_batch(name, device) for name in NAMES}
    else:
        found["peak_mebibytes"] = {name: peak(name, n) for name in NAMES}
    print(json.dumps(found, indent=2))
    out = arguments.out or Path(__file__).parent / "results" / f"training-{device.type}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=2) + "\n")


def steps(device: torch.device, n: int, rounds: int, dtype: torch.dtype) -> dict[str, object]:
    """Times of each objective's step, ours and the plain one's, and what follows from them."""
    times: dict[str, list[tuple[float, float]]] = {}
    rates = [product_rate(device, dtype)]
    for name in NAMES:
        make = partial(process_of, name, n, device, dtype)
        with make(plain=False) as ours, make(plain=True) as plain:
            for _ in range(WARM_UP):
                ours(), plain()
            times[name] = [(ours(), plain()) for _ in range(rounds)]
        rates.append(product_rate(device, dtype))
    rate, work = max(rates), 3 * Trainer(n, device, dtype, plain=False).forward_operations()
    return {
        "matrix_product_gigaflops": rate / 1e9,
        "share_of_matrix_product_rate": spread([work / a / rate for a, _ in times["cross-entropy"]]),
        "times_faster_than_plain": {name: spread([b / a for a, b in found]) for name, found in times.items()},
        "images_a_second": {name: spread([n / a for a, _ in found]) for name, found in times.items()},
    }


@contextmanager
def process_of(
    name: str, n: int, device: torch.device, dtype: torch.dtype, *, plain: bool
) -> Iterator[Callable[[], float]]:
    """A process that trains with one objective; the function given takes one step there, in seconds."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(
        target=_serve, args=(there, torch.get_num_threads(), name, n, device, dtype, plain)
    )
    process.start()
    there.close()  # so that a process that ends is an EOFError here

    def timed() -> float:
        here.send("step")
        return float(here.recv())

    try:
        yield timed
    finally:
        here.close()
        process.join()


def _serve(
    pipe: Connection, threads: int, name: str, n: int, device: torch.device, dtype: torch.dtype, plain: bool
) -> None:
    torch.set_num_threads(threads)
    if not plain:
        keep_freed_memory()
    trainer = Trainer(n, device, dtype, plain=plain)
    with suppress(EOFError):  # the other end is closed
        while pipe.recv():
            pipe.send(seconds(partial(trainer.step, name), device))


class Trainer:
    """A ResNet-18 with a batch of CIFAR's shape, and its training steps; ours, or the plain ones."""

    def __init__(self, n: int, device: torch.device, dtype: torch.dtype, *, plain: bool) -> None:
        with seeded_construction(0, "benchmark"):
            model = build_resnet("resnet18", 3, 10, mean=(0.5,) * 3, std=(0.25,) * 3)
        layout = torch.contiguous_format if plain else torch.channels_last
        self.model: nn.Module = model.to(device=device, memory_format=layout).train()  # type: ignore[call-overload]
        images = torch.rand(n, 3, 32, 32, generator=generator(0, "images")).to(device)
        labels = torch.arange(n, device=device) % 10
        self.batch = Batch(images.contiguous(memory_format=layout), labels, labels)
        self.device, self.dtype, self.plain = device, dtype, plain

    def step(self, name: str) -> None:
        """Forward and backward passes of one step, without the optimiser's, which is the same for all."""
        self.model.zero_grad()
        with self.precision():
            if self.plain:
                loss = PLAIN[name](self.model, self.batch.images, self.batch.labels)
            else:
                objective = make_objective(name, STRENGTH)
                loss = objective(self.model, self.batch, generator(0, "objective")).mean()
        loss.backward()

    def precision(self) -> AbstractContextManager[object]:
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def forward_operations(self) -> int:
        """Multiplications and additions of convolutions and linear layers in one forward pass."""
        counted: list[int] = []

        def count(layer: nn.Module, _: object, output: Tensor) -> None:
            weight = layer.get_parameter("weight")  # each output number is a product with one filter
            counted.append(2 * output.numel() * weight[0].numel())

        layers = [m for m in self.model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        hooks = [layer.register_forward_hook(count) for layer in layers]
        with torch.no_grad():
            self.model(self.batch.images)
        for hook in hooks:
            hook.remove()
        return sum(counted)


def plain_cross_entropy(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(model(images), labels)


def plain_pgd(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Ten steps of 2.5 epsilon/10 that take the gradients of all weights as well."""
    delta = torch.zeros_like(images)
    model.eval()
    for _ in range(10):
        attacked = (images + delta).requires_grad_()
        cross_entropy(model(attacked), labels, reduction="sum").backward()
        assert attacked.grad is not None
        delta = delta + 0.25 * STRENGTH * attacked.grad / lengths(attacked.grad)
        delta = delta * (STRENGTH / lengths(delta)).clamp_max(1)
        delta = ((images + delta).clamp(0, 1) - images).detach()
    model.train()
    model.zero_grad()
    return cross_entropy(model(images + delta), labels)


def plain_gradient_norm(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    images = images.clone().requires_grad_()
    losses = cross_entropy(model(images), labels, reduction="none")
    (gradient,) = torch.autograd.grad(losses.sum(), images, create_graph=True)
    return losses.mean() + STRENGTH * gradient.square().sum() / len(images)


def plain_smoothness(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    clean, noisy = model(images), model(images + 0.1 * normal(images))
    return cross_entropy(clean, labels) + STRENGTH * (noisy - clean).square().sum(1).mean()


def plain_smoothing(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(model(images + STRENGTH * normal(images)), labels)


PLAIN: dict[str, Callable[[nn.Module, Tensor, Tensor], Tensor]] = {
    "cross-entropy": plain_cross_entropy, "pgd": plain_pgd, "gradient-norm": plain_gradient_norm,
    "smoothness": plain_smoothness, "smoothing": plain_smoothing,
}  # fmt: skip


def lengths(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]


def normal(images: Tensor) -> Tensor:
    return torch.randn(images.shape, generator=generator(0, "noise")).to(images)


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a product of square matrices; the best of several."""
    side = 8192 if device.type == "cuda" else 2048
    a = torch.randn(side, side, generator=generator(0, "matrix")).to(device, dtype)
    return max(2 * side**3 / seconds(lambda: a @ a, device) for _ in range(5))


def peak(name: str, n: int) -> float:
    """The largest memory of a process that takes two steps, in MiB above what it held before them."""
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[float] = context.Queue()
    process = context.Process(target=_peak_of, args=(name, n, torch.get_num_threads(), results))
    process.start()
    found = results.get(timeout=600)
    process.join()
    return found


def _peak_of(name: str, n: int, threads: int, results: "multiprocessing.Queue[float]") -> None:
    torch.set_num_threads(threads)
    keep_freed_memory()
    trainer = Trainer(n, torch.device("cpu"), torch.float32, plain=False)
    before, sizes, done = resident(), list[float](), threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            sizes.append(resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(2):
        trainer.step(name)
    done.set()
    watcher.join()
    results.put(max(sizes, default=before) - before)


def resident() -> float:
    """MiB of this process in memory; 0 where the system does not tell."""
    # Not `ru_maxrss`, which a new process inherits from the one that started it.
    statm = Path("/proc/self/statm")
    pages = int(statm.read_text().split()[1]) if statm.exists() else 0
    return pages * resource.getpagesize() / 2**20


def largest_batch(name: str, device: torch.device) -> int:
    """The largest power of two of images that one float32 step fits into the device's memory."""
    n = 64
    while n < 2**20:
        try:
            torch.cuda.empty_cache()
            Trainer(2 * n, device, torch.float32, plain=False).step(name)
        except torch.OutOfMemoryError:
            break
        n *= 2
    return n


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def seconds(run: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def spread(values: list[float]) -> Ratio:
    return {"median": statistics.median(values), "least": min(values), "largest": max(values)}


if __name__ == "__main__":
    main()
