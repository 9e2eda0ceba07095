"""How often 95 % intervals hold the truth, at 1 to 10 seeds, for means, ratios and shares.

    python benchmarks/coverage.py [--repetitions 1000] [--out benchmarks/results/coverage.json]

Images are shared by the seeds. A quantity is an image's part (deviation 1) plus a seed's plus what is left
of the two (deviation 0.5); the seed's deviation is in units of the mean's over images. A ratio is of
two such quantities' exponentials, so that it is skewed; a share asks whether a quantity is below a border.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from pags.measure.statistics import Interval, interval, mean_intervals
from pags.seeds import generator

SEEDS = (1, 2, 3, 5, 10)
SPREADS = (0.0, 0.5, 1.0, 3.0, 10.0)
SHARES = (0.5, 0.9, 0.99)


def main() -> None:
    parser = argparse.ArgumentParser(description="Coverage of 95 % intervals.")
    parser.add_argument("--repetitions", type=int, default=1000, help="experiments of each kind")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "coverage.json")
    arguments = parser.parse_args()
    repetitions, n = arguments.repetitions, arguments.images
    found = {
        "images": n,
        "repetitions": repetitions,
        "mean": {str(s): by_spread(of_mean, s, n, repetitions) for s in SEEDS},
        "ratio": {str(s): by_spread(of_ratio, s, n, repetitions) for s in SEEDS},
        "share": {
            f"{share:g}": {str(s): coverage(of_share(share), s, 0.5, n, repetitions) for s in SEEDS}
            for share in SHARES
        },
    }
    print(json.dumps(found, indent=2))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=2) + "\n")


Experiment = Callable[[list[Tensor], torch.Generator], tuple[Interval, float]]
"""Quantities (n, 2) of each seed, with draws, to an interval and the truth."""


def by_spread(experiment: Experiment, seeds: int, n: int, repetitions: int) -> dict[str, float]:
    """Coverage for each deviation over seeds, of which a single seed has none."""
    spreads = SPREADS if seeds > 1 else (0.0,)
    return {f"{spread:g}": coverage(experiment, seeds, spread, n, repetitions) for spread in spreads}


def coverage(experiment: Experiment, seeds: int, spread: float, n: int, repetitions: int) -> float:
    """The share of experiments whose interval holds the truth."""
    held = 0
    for repetition in range(repetitions):
        draws = generator(repetition, "coverage", seeds, str(spread))
        found, truth = experiment(quantities(seeds, spread if seeds > 1 else 0.0, n, draws), draws)
        held += found.low <= truth <= found.high
    return held / repetitions


def quantities(seeds: int, spread: float, n: int, draws: torch.Generator) -> list[Tensor]:
    """One table (n, 2) per seed."""
    normal = lambda *shape: torch.randn(shape, generator=draws, dtype=torch.float64)  # noqa: E731
    image = normal(n, 2)
    return [image + spread / n**0.5 * normal(1, 2) + 0.5 * normal(n, 2) for _ in range(seeds)]


def of_mean(tables: list[Tensor], draws: torch.Generator) -> tuple[Interval, float]:
    return mean_intervals([{"a": table[:, 0]} for table in tables], draws=draws)["a"], 0.0


def of_ratio(tables: list[Tensor], draws: torch.Generator) -> tuple[Interval, float]:
    """Of the means of exponentials; both have the same law, so that the truth is 1."""
    return interval(lambda m: m[:, 0] / m[:, 1], [table.exp() for table in tables], draws=draws), 1.0


def of_share(share: float) -> Experiment:
    """Of images whose quantity is below a border; its deviation is that of all three parts."""

    def experiment(tables: list[Tensor], draws: torch.Generator) -> tuple[Interval, float]:
        deviation = (1.25 + (0.25 / len(tables[0]) if len(tables) > 1 else 0.0)) ** 0.5
        border = deviation * float(torch.special.ndtri(torch.tensor(share, dtype=torch.float64)))
        columns = [{"a": (table[:, 0] < border).double()} for table in tables]
        return mean_intervals(columns, draws=draws, resamples=100)["a"], share

    return experiment


if __name__ == "__main__":
    main()
