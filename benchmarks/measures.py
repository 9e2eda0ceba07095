"""LPIPS and robustness, in batches against one image at a time, and against the package `lpips`.

    python benchmarks/measures.py [--quick] [--out benchmarks/results/measures.json]

All ratios are of times taken in turns within one process, medians over rounds with the least and the largest.
`lpips` is given our weights; it is asked for one pair at a time, as in a loop over images, and in batches.
"""

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from pags.arrays import max_abs_scaled
from pags.classifiers.resnet import build_resnet
from pags.measure.alignment import Reference
from pags.measure.lpips import LPIPS
from pags.measure.robustness import equal_norm
from pags.seeds import generator, seeded_construction

Ratio = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description="LPIPS and robustness, as ratios of times.")
    parser.add_argument("--quick", action="store_true", help="fewer images and rounds")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "measures.json")
    arguments = parser.parse_args()
    rounds, images, models = (2, 64, 2) if arguments.quick else (5, 128, 16)
    found = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "lpips": lpips_ratios(rounds, images, models),
        "robustness": robustness_ratios(rounds, 128 if arguments.quick else 1000),
    }
    print(json.dumps(found, indent=2))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=2) + "\n")


def lpips_ratios(rounds: int, n: int, models: int) -> dict[str, Ratio]:
    """Gradients of several models against one score, 3×32×32, enlarged to 64 px on both sides."""
    score, *gradients = (some(n, 3, 32, 32, seed=place) for place in range(models + 1))
    peer, ours = peer_lpips(), LPIPS.load()

    def enlarged(x: Tensor) -> Tensor:
        return max_abs_scaled(ours.enlarge(x))

    def one_by_one() -> None:
        with torch.no_grad():
            for gradient in gradients[:1]:  # one model is enough to know the time of a pair
                for a, b in zip(gradient.split(1), score.split(1), strict=True):
                    peer(enlarged(a), enlarged(b))

    def peer_in_batches() -> None:
        with torch.no_grad():
            for gradient in gradients:
                for a, b in zip(gradient.split(64), score.split(64), strict=True):
                    peer(enlarged(a), enlarged(b))

    def kept_reference() -> None:
        reference = Reference.of(score, ours)
        for gradient in gradients:
            reference.similarity(gradient)

    times = [
        (seconds(one_by_one) * models, seconds(peer_in_batches), seconds(kept_reference))
        for _ in range(rounds)
    ]
    return {
        "times_faster_than_lpips_one_by_one": spread([a / c for a, _, c in times]),
        "times_faster_than_lpips_in_batches": spread([b / c for _, b, c in times]),
        "images_a_second": spread([models * n / c for _, _, c in times]),
    }


def robustness_ratios(rounds: int, n: int) -> dict[str, Ratio]:
    """4 norms × 8 directions, on and off the manifold and isotropic, small ResNet on 1×8×8."""
    with seeded_construction(0, "benchmark"):
        model = build_resnet("small-resnet", 1, 10, mean=(0.3,), std=(0.4,)).eval()
    images = torch.rand(n, 1, 8, 8, generator=generator(0, "images"))
    basis = torch.linalg.qr(torch.randn(n, 64, 16, generator=generator(0, "basis")))[0]
    norms = (0.25, 0.5, 1.0, 2.0)

    def measured(part: slice) -> None:
        equal_norm(model, images[part], basis[part], norms, draws=generator(0, "directions"), directions=8)

    few = max(4, n // 16)
    times = [
        (
            seconds(lambda: [measured(slice(i, i + 1)) for i in range(few)]) / few,
            seconds(lambda: measured(slice(n))) / n,
        )
        for _ in range(rounds)
    ]
    return {
        "times_faster_than_one_image_at_a_time": spread([a / b for a, b in times]),
        "images_a_second": spread([1 / b for _, b in times]),
    }


def peer_lpips() -> nn.Module:
    """The package's LPIPS with our convolutions (its own need a download) and its own heads."""
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    ours, convolutions = LPIPS.load(), [m for m in peer.net.modules() if isinstance(m, nn.Conv2d)]
    for place, convolution in enumerate(convolutions):
        scale = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1) if place == 0 else 1  # which ours holds
        convolution.weight.data.copy_(ours.get_buffer(f"filters{place}") * scale)
        convolution.bias.data.copy_(ours.get_buffer(f"bias{place}"))
    return peer.eval()


def some(n: int, *shape: int, seed: int) -> Tensor:
    return torch.randn(n, *shape, generator=generator(seed, "images"))


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def spread(values: list[float]) -> Ratio:
    return {"median": statistics.median(values), "least": min(values), "largest": max(values)}


if __name__ == "__main__":
    main()
