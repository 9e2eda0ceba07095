"""Tangent bases against one backward pass per pixel, and against the machine's matrix products.

    python benchmarks/tangent.py [--quick] [--out benchmarks/results/tangent.json]

The paper's decoder (3×32×32, k = 128, widths 128-256-512-1024) with random weights, in float32. Everything
is a ratio of times taken in turns within one process, so that a busy machine slows both sides, and each time
is the best of three; ratios are medians over rounds, with the least and the largest. Backward passes are
timed for a sample of pixels and scaled to all of them.

The share of the matrix-product rate is that of the k tangent passes as they are usually counted (2 × inputs ×
outputs × kernel × positions for each transposed convolution). The share of what was truly computed stands
beside it: taps that padding cuts off and channels that a ReLU has switched off are left out.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pags.manifold.autoencoder import Autoencoder
from pags.manifold.projection import gram_projection
from pags.manifold.tangent import decoder_tangent, forward_jacobian, jacobian, orthonormal_basis
from pags.seeds import generator, seeded_construction

SHAPE, LATENT, WIDTHS = (3, 32, 32), 128, (128, 256, 512, 1024)
PIXELS = 3 * 32 * 32
PRODUCTS = ((512, 512, 512), (1024, 1024, 1024), (1024, 1024, 256), (4096, 512, 128))
BATCH = 4  # images a batch where memory is measured

Ratio = dict[str, float]


def main() -> None:
    arguments = parsed()
    if arguments.memory:
        print(json.dumps(memory(*arguments.memory)))
        return
    torch.set_num_threads(arguments.threads)
    rounds, counts = (2, (1, 4)) if arguments.quick else (5, (1, 2, 4, 8))
    found: dict[str, Any] = {"torch": torch.__version__, "threads": arguments.threads, "rounds": rounds}
    found |= {"cores": len(os.sched_getaffinity(0)), "float_operations": operations()}
    found |= rates(rounds, 8 if arguments.quick else 16)
    found["seconds_by_images"] = by_images(counts)
    found["seconds_by_k"] = by_k((32, 128) if arguments.quick else (16, 32, 64, 128))
    many = (8,) if arguments.quick else (4, 16, 64)
    found["memory"] = [measured(kind, n) for kind in ("basis", "gram") for n in many]
    print(json.dumps(found, indent=2))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=2) + "\n")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Tangent bases, as ratios of times.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and sizes")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "tangent.json")
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def model(latent: int = LATENT) -> Autoencoder:
    with seeded_construction(0, "benchmark"):
        return Autoencoder(SHAPE, latent, WIDTHS).eval().requires_grad_(False)


def some(n: int, *shape: int) -> Tensor:
    return torch.rand(n, *shape, generator=generator(0, "images"))


def seconds(run: Callable[[], object], times: int = 3) -> float:
    """The best of several times, which leaves out most of what other processes add."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return min(found)


# --- what is counted --------------------------------------------------------------------------------------


def counted(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def operations() -> dict[str, float]:
    """Float operations of one image's Jacobian, as usually counted and as truly computed."""
    layer, inside = nn.ConvTranspose2d(1024, 512, 4, 2, 1), torch.zeros(1, 1024, 2, 2)
    by_hand = 2 * 1024 * 512 * 4 * 4 * 2 * 2  # 2 · inputs · outputs · kernel · positions
    if counted(lambda: layer(inside)) != by_hand:
        raise AssertionError("the counter and the hand disagree about one transposed convolution")
    codes, decoder = some(1, LATENT), model().decoder
    with torch.no_grad():
        usual = LATENT * counted(lambda: decoder(codes))
        return {"usual": usual, "computed": counted(lambda: jacobian(decoder, codes))}


# --- what is timed ----------------------------------------------------------------------------------------


def rates(rounds: int, pixels: int) -> dict[str, Any]:
    """All ratios of one image's tangent basis, taken in turns."""
    autoencoder, images = model(), some(6, *SHAPE)
    counts = operations()
    found = [one_round(autoencoder, images, pixels, counts) for _ in range(rounds)]
    return {name: spread([entry[name] for entry in found]) for name in found[0]}


def one_round(
    autoencoder: Autoencoder, images: Tensor, pixels: int, counts: dict[str, float]
) -> dict[str, float]:
    with torch.no_grad():
        codes = autoencoder.encode(images)
        peak = max(product_rate(*size) for size in PRODUCTS)
        derivative = jacobian(autoencoder.decode, codes)
        ours = seconds(lambda: jacobian(autoencoder.decode, codes), 2) / len(images)
        whole = seconds(lambda: decoder_tangent(autoencoder, images), 2) / len(images)
        basis = seconds(lambda: orthonormal_basis(derivative)) / len(images)
        generic = seconds(lambda: forward_jacobian(autoencoder.decode, codes[:2])) / 2
    naive = backward_pass(autoencoder, codes[:1], pixels) * PIXELS
    return {
        "times_faster_than_a_backward_pass_per_pixel": naive / whole,
        "times_faster_than_vmap_of_jvp": generic / ours,
        "share_of_matrix_product_rate": counts["usual"] / ours / peak,
        "share_of_matrix_product_rate_with_encoder_and_basis": counts["usual"] / whole / peak,
        "share_of_matrix_product_rate_computed": counts["computed"] / ours / peak,
        "share_of_time_in_orthonormal_basis": basis / whole,
        "matrix_product_gigaflops": peak / 1e9,
        "seconds_an_image": whole,
    }


def product_rate(rows: int, inner: int, columns: int) -> float:
    """Float operations a second of one float32 matrix product."""
    a, b = some(rows, inner), some(inner, columns)
    out = torch.empty(rows, columns)
    return 2 * rows * inner * columns / seconds(lambda: torch.mm(a, b, out=out), 5)


def backward_pass(autoencoder: Autoencoder, code: Tensor, pixels: int) -> float:
    """Seconds of one pixel's backward pass to the code, the forward pass being shared by all pixels."""
    code = code.clone().requires_grad_()
    image = autoencoder.decode(code).flatten()
    places = range(0, PIXELS, PIXELS // pixels)

    def run() -> None:
        for place in places:
            torch.autograd.grad(image[place], code, retain_graph=True)

    return seconds(run) / len(places)


def spread(values: list[float]) -> Ratio:
    return {"median": statistics.median(values), "least": min(values), "largest": max(values)}


def by_images(counts: tuple[int, ...]) -> dict[int, float]:
    """Seconds an image."""
    autoencoder = model()
    return {n: timed(autoencoder, some(n, *SHAPE)) / n for n in counts}


def by_k(latents: tuple[int, ...]) -> dict[int, float]:
    """Seconds an image for other latent dimensions."""
    return {k: timed(model(k), some(2, *SHAPE)) / 2 for k in latents}


def timed(autoencoder: Autoencoder, images: Tensor) -> float:
    return seconds(lambda: decoder_tangent(autoencoder, images), 2)


# --- what is held -----------------------------------------------------------------------------------------


def measured(kind: str, n: int) -> dict[str, Any]:
    """`memory` in a process of its own, as a process's peak never falls."""
    command = [sys.executable, "-W", "ignore", __file__, "--memory", kind, str(n)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def memory(kind: str, count: str) -> dict[str, Any]:
    """Growth of the process's peak (VmHWM, Linux) from one batch to n images, beside the result's size.

    Not `ru_maxrss`, which a child process inherits from the one that started it.
    """
    autoencoder, n = model(), int(count)

    def run(n: int) -> int:
        images = some(n, *SHAPE)
        with torch.no_grad():
            if kind == "basis":
                basis, ranks = decoder_tangent(autoencoder, images, batch_size=BATCH)
                return basis.nbytes + ranks.nbytes
            return gram_projection(
                autoencoder.decode, autoencoder.encode(images), batch_size=BATCH
            ).roots.nbytes

    run(BATCH)
    before = peak()
    size = run(n)
    after = peak()
    return {
        "kind": kind, "images": n, "result_mib": size / 2**20,
        "peak_mib": after / 2**10, "peak_grown_mib": (after - before) / 2**10,
    }  # fmt: skip


def peak() -> int:
    """The most memory that this process has held, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
