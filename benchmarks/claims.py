"""How often claims are decided: where robustness does nothing (null), and where the paper is right (power).

    python benchmarks/claims.py [--quick] [--out benchmarks/results/claims.json]

Networks are simulated as columns per image, with noise of images (in part shared by all networks) and of
trainings, at the sizes of the demo, of a laptop and of the paper. The rates of the rules before (of commit
e0719d9) are kept in the results file and printed beside the new ones.
"""

import argparse
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from pags.claims import (
    judge_distractor,
    judge_generation,
    judge_score,
    judge_smoothgrad,
    judge_sweep,
    judge_transfer,
)
from pags.records import ClaimRecord

Truth = Callable[[float], dict[str, float]]
"""The true quantities of a network at a strength in [0, 1]; below 0 is the untrained one."""

SIZES = {
    "demo": (360, 6, 1),
    "laptop": (1000, 9, 1),
    "laptop, two seeds": (1000, 9, 2),
    "paper": (2000, 31, 10),
}
"""Images, strengths, seeds."""
RUNS = {"demo": 200, "laptop": 100, "laptop, two seeds": 60, "paper": 10}
TASKS = ("synthesis-from-noise", "synthesis-from-class", "denoising", "in-painting", "super-resolution")


def null(strength: float) -> dict[str, float]:
    """Robustness does nothing: all networks are alike, and chance is what they are compared with."""
    return {
        "on": 0.4, "off": 0.4, "rho1": 0.75, "accuracy": 0.93, "alignment": 0.3, "bayes": 0.2, "gain": 0.0,
        "ratio": 0.0, "energy": 0.5, "informative": 0.5, "named": 0.5, "psnr": 15.0, "tangent": 0.1,
        "loss": 0.1,
    }  # fmt: skip


def paper(strength: float) -> dict[str, float]:
    """What the paper describes: weak, Bayes-aligned and excessive strengths."""
    if strength < 0:
        return null(0) | {"alignment": 0.05, "bayes": 0.0, "accuracy": 0.1}
    gained, lost = _sigmoid(10 * (strength - 0.4)), _sigmoid(20 * (strength - 0.85))
    bump = math.exp(-(((strength - 0.6) / 0.22) ** 2))
    return {
        "on": 0.4 * (1 - 0.9 * lost), "off": 0.6 * (1 - 0.95 * gained) + 0.01, "rho1": 0.9 - 0.6 * gained,
        "accuracy": 0.95 - 0.4 * lost, "alignment": 0.2 + 0.4 * bump, "bayes": 0.3 + 0.25 * bump,
        "gain": 0.2 * (1 - gained), "ratio": 0.5 + gained, "energy": 0.55 + 0.2 * gained, "informative": 0.55,
        "named": 0.3 + 0.6 * gained, "psnr": 14 + 2 * gained, "tangent": 0.03,
        "loss": 0.1 + lost,
    }  # fmt: skip


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


class World:
    """Networks as columns: truth + training + image, where images are in part alike for all networks."""

    def __init__(self, truth: Truth, images: int, seed: int, training: float) -> None:
        self.truth, self.n, self.training = truth, images, training
        self.draws = torch.Generator().manual_seed(seed)
        self.shared = self.normal(images)
        self.difficulty = self.normal(images)

    def normal(self, n: int) -> Tensor:
        return torch.randn(n, generator=self.draws, dtype=torch.float64)

    def around(self, mean: float, image: float, training: float) -> Tensor:
        noise = 0.7 * (self.normal(self.n) + self.shared)
        return mean + self.training * training * self.normal(1) + image * noise

    def share(self, mean: float, training: float) -> Tensor:
        """0 or 1 per image; the same images are hard for all networks."""
        hard = 0.5 * torch.erfc((0.8 * self.difficulty + 0.6 * self.normal(self.n)) / 2**0.5)
        return (hard < mean + self.training * training * self.normal(1)).double()

    def network(self, strength: float) -> dict[str, Tensor]:
        """All columns of one training."""
        true = self.truth(strength)
        squared = self.around(0, 1, 0.1).exp()
        share = (
            true["rho1"] * (self.training * 0.04 * self.normal(1) + 0.1 * self.normal(self.n) - 0.005).exp()
        )
        level = (
            self.training * 0.08 * self.normal(1)
        )  # networks differ in their level more than in on and off
        columns = {
            "on 0.5": true["on"] * (level + self.around(0, 0.8, 0.03)).exp(),
            "off 0.5": true["off"] * (level + self.around(0, 0.8, 0.03)).exp(),
            "squared change": squared, "squared change off": squared * share.clamp(max=1),
            "chance rho2": torch.full((self.n,), 0.75, dtype=torch.float64),
            "correct": self.share(true["accuracy"], 0.004),
            "training loss": true["loss"] * self.around(0, 0.8, 0.08).exp(),
            "bayes cosine logit": self.around(true["bayes"], 0.15, 0.01),
            "smooth 0.1 bayes cosine logit": self.around(true["bayes"] + true["gain"], 0.15, 0.01),
            "energy on signal": self.around(true["energy"], 0.15, 0.02),
            "pixels on signal": torch.full((self.n,), 0.5, dtype=torch.float64),
            "rho2 score predicted class": self.around(true["tangent"], 0.05, 0.01),
            "rho2 bayes direction": self.around(true["tangent"], 0.05, 0.01),
        }  # fmt: skip
        for name, kind, extra in (
            ("lpips logit", "predicted class", 0.0),
            ("smooth 0.1 lpips logit", "predicted class", true["gain"]),
            ("lpips sum-of-logits", "all classes", 0.0),
        ):  # fmt: skip
            columns[name] = self.around(0.6 + 0.3 * (true["alignment"] + extra), 0.06, 0.004)
            columns[f"shuffled {name}"] = self.around(0.6, 0.06, 0)
            columns[f"ceiling lpips {kind}"] = self.around(0.9, 0.03, 0)
        for level in range(3):
            columns[f"signal {level}"] = 0.3 * math.exp(true["ratio"]) * self.around(0, 0.8, 0.04).exp()
            columns[f"distractor {level}"] = 0.3 * self.around(0, 0.8, 0.04).exp()
        for task in TASKS:
            columns[f"{task}: named"] = self.share(true["named"], 0.03)
            columns[f"{task}: psnr"] = self.around(true["psnr"], 2, 0.1)
        return columns


def records(
    truth: Truth, size: tuple[int, int, int], seed: int, training: float = 1.0
) -> Iterator[ClaimRecord]:
    """The verdicts on all claims about one simulated reproduction."""
    images, strengths, seeds = size
    world = World(truth, images, seed, training)
    steps = [place / (strengths - 1) for place in range(strengths)]
    models = [[world.network(step) for step in steps] for _ in range(seeds)]
    untrained = [world.network(-1) for _ in range(seeds)]
    standard, robust = [each[0] for each in models], [each[round(0.6 * (strengths - 1))] for each in models]
    telling = [c | {"energy on signal": world.around(truth(0)["informative"], 0.15, 0.02)} for c in robust]
    rising = [each[: max(4, round(0.6 * strengths))] for each in models]
    yield from chain(
        judge_sweep(models, objective="pgd", norm=0.5, control=untrained, seed=seed),
        judge_transfer(rising, seed=seed),
        judge_distractor(
            standard, robust, subject="A", levels=range(3), untrained=[], informative=telling, seed=seed
        ),
        judge_generation(
            robust[0], standard[0], start=world.network(0), blur=world.network(0), subject="pgd", seed=seed
        ),
        judge_smoothgrad(models, objective="pgd", seed=seed),
        judge_score(models[0][0], seed=seed),
    )


def rates(truth: Truth, size: str, runs: int, training: float = 1.0) -> dict[str, dict[str, float]]:
    """For each claim the share of runs in which it is supported, and contradicted."""
    counts: dict[str, Counter[str]] = {}
    for seed in range(runs):
        for record in records(truth, SIZES[size], seed, training):
            counts.setdefault(record["claim"], Counter())[record["verdict"]] += 1
    return {
        claim: {verdict: count[verdict] / runs for verdict in ("supported", "contradicted")}
        for claim, count in counts.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Null rates and power of all claims.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the runs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "claims.json")
    arguments = parser.parse_args()
    kept = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    found = {"before": kept.get("before", {}), "after": {}, "runs": {}}
    for name, truth, training in (
        ("null", null, 1.0), ("null, twice the training noise", null, 2.0), ("power", paper, 1.0)
    ):  # fmt: skip
        for size in SIZES:
            runs = RUNS[size] // (10 if arguments.quick else 1)
            found["after"].setdefault(name, {})[size] = rates(truth, size, runs, training)
            found["runs"].setdefault(name, {})[size] = runs
            show(name, size, runs, found)
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(found, indent=1) + "\n")


def show(
    name: str, size: str, runs: int, found: dict[str, dict[str, dict[str, dict[str, dict[str, float]]]]]
) -> None:
    print(f"\n{name}, {size}: {runs} runs; supported / contradicted, before and after")
    before, after = (found[when].get(name, {}).get(size, {}) for when in ("before", "after"))
    for claim in [*after, *(claim for claim in before if claim not in after)]:
        cells = (table.get(claim) for table in (before, after))
        text = (f"{c['supported']:.2f} / {c['contradicted']:.2f}" if c else "–" for c in cells)
        print(f"{claim:45s}" + "".join(f"{cell:>16s}" for cell in text), flush=True)


if __name__ == "__main__":
    main()
