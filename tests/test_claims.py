"""One claim, one judge: errors against closed forms and known worlds, choices, corrections, every table."""

import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import module_at, seeded
from pags.claims import (
    CLAIMS,
    CONTRADICTED,
    SUPPORTED,
    UNDECIDED,
    Claim,
    Estimate,
    Means,
    Networks,
    Quantity,
    claim_records,
    judge,
    judge_distractor,
    judge_generation,
    judge_score,
    judge_smoothgrad,
    judge_sweep,
    judge_transfer,
    verdict,
)
from pags.claims.claim import Judged
from pags.claims.sweep import correlation, rank_trend
from pags.errors import UsageError
from pags.records import ClaimRecord

Columns = dict[str, Tensor]


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    """The networks of the benchmark, as columns."""
    return module_at(Path(__file__).parents[1] / "benchmarks" / "claims.py")


def verdicts(records: list[ClaimRecord]) -> dict[str, str]:
    return {record["claim"]: record["verdict"] for record in records}


def value(spread: float = 0.0) -> dict[str, Quantity]:
    return {"x": Quantity(lambda c: c("x"), spread)}


def first(m: Means, chosen: Means) -> list[Tensor]:
    return [m["x"][0]]


# --- the verdict and Holm's correction -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.1, 0.9, SUPPORTED), (-0.1, 0.9, UNDECIDED), (0.1, 1.1, UNDECIDED), (-1, 2, UNDECIDED),
        (-0.2, -0.1, CONTRADICTED), (1.1, 1.2, CONTRADICTED), (0.0, 0.0, UNDECIDED),
    ],
)  # fmt: skip
def test_verdict_follows_the_whole_interval(low: float, high: float, said: str) -> None:
    assert verdict(low, high, above=0, below=1) == said


def normal(z: float) -> Estimate:
    return Estimate(z, 1.0, 1e9)


def claim(key: str = "a", **more: Any) -> Claim:
    return Claim(key, "place", "statement", "rule", first, **more)


def test_holm_as_in_his_paper() -> None:
    """p = .01, .04, .03, .005 at .05: the first and the last are decided (adjusted .03, .06, .06, .02)."""
    two_sided = {0.01: 2.5758, 0.04: 2.0537, 0.03: 2.1701, 0.005: 2.8070}
    table = [Judged(claim(str(p)), "s", [normal(z)]) for p, z in two_sided.items()]
    records = claim_records(table)
    assert [r["verdict"] for r in records] == [SUPPORTED, UNDECIDED, UNDECIDED, SUPPORTED]
    assert [round(1 - r["level"], 4) for r in records] == [0.0167, 0.025, 0.025, 0.0125]
    assert verdicts(claim_records([Judged(claim(), "s", [normal(2.0537)])])) == {"a": SUPPORTED}


def test_a_claim_of_several_parts_needs_all_of_them() -> None:
    def said(*parts: float, given: tuple[float, ...] = ()) -> str:
        judged = Judged(claim(), "s", [normal(z) for z in parts], [normal(z) for z in given])
        return claim_records([judged])[0]["verdict"]

    assert said(5, 3) == SUPPORTED
    assert said(5, 1) == UNDECIDED
    assert said(5, -2.1) == UNDECIDED  # contradicted by one of two, which is looked for in two places
    assert said(-2.1) == CONTRADICTED
    assert said(5, -2.5) == CONTRADICTED
    assert said(5, given=(3,)) == SUPPORTED
    assert said(5, given=(0,)) == UNDECIDED
    assert said(-5, given=(0,)) == UNDECIDED
    assert said(math.nan) == UNDECIDED


def test_undefined_claims_do_not_cost_the_others() -> None:
    alone = claim_records([Judged(claim(), "s", [normal(2.0)])])
    beside = claim_records([Judged(claim(), "s", [normal(2.0)]), Judged(claim("b"), "s", [], notes=("why",))])
    assert beside[0] == alone[0]
    assert (beside[1]["estimate"], beside[1].get("note")) == (None, "why")


# --- errors ----------------------------------------------------------------------------------------------


def test_errors_of_images_are_those_of_closed_forms() -> None:
    """Of a mean: s / √n. Of the logarithm of a ratio of means: the delta method, written out."""
    x = torch.randn(4000, generator=seeded(), dtype=torch.float64) + 3
    y = x + 2 + torch.rand(4000, generator=seeded(1), dtype=torch.float64)
    quantities = value() | {"ratio": Quantity(lambda c: (c("x") / c("y")).log())}
    networks = Networks([{"net": {"x": x, "y": y}}], quantities, 1)
    (mean,) = networks.estimates(first)
    assert mean.value == pytest.approx(float(x.mean()), abs=1e-12)
    assert mean.error == pytest.approx(float(x.std()) / 4000**0.5, rel=1e-3)
    (ratio,) = networks.estimates(lambda m, chosen: [m["ratio"][0]])
    delta = (x / x.mean() - y / y.mean()).std() / 4000**0.5
    assert ratio.error == pytest.approx(float(delta), rel=2e-3)
    assert ratio.freedom == pytest.approx(3999)


def test_images_without_a_value_are_left_out() -> None:
    x = torch.randn(400, generator=seeded(), dtype=torch.float64)
    gone = x.clone()
    gone[::2] = math.nan
    networks = Networks([{"net": {"x": gone}}], value(), 1)
    (found,) = networks.estimates(first)
    kept = x[1::2]
    assert found.error == pytest.approx(float(kept.std()) / 200**0.5, rel=0.05)
    assert found.value == pytest.approx(float(kept.mean()), abs=0.02)


@pytest.mark.parametrize("seeds", [1, 2, 3, 5, 10])
def test_intervals_over_images_and_seeds_cover_as_often_as_they_say(seeds: int) -> None:
    """The truth is 0; images are shared by the seeds, and the spread of trainings is the one assumed."""
    hit, runs = 0, 400
    for run in range(runs):
        draws = seeded(run)
        images = 0.1 * torch.randn(300, generator=draws)
        models = [
            {
                "net": {
                    "x": images
                    + 0.02 * torch.randn(1, generator=draws)
                    + 0.1 * torch.randn(300, generator=draws)
                }
            }
            for _ in range(seeds)
        ]
        (found,) = Networks(models, value(0.02), 1).estimates(first)
        hit += found.low(0.025) <= 0 <= found.high(0.025)
    assert hit / runs >= 0.93


def test_a_spread_above_the_assumed_one_is_seen_with_seeds() -> None:
    """Ten trainings that differ five times as much as assumed."""
    hit, runs = 0, 200
    for run in range(runs):
        draws = seeded(run)
        models = [{"net": {"x": torch.randn(1, generator=draws).expand(50)}} for _ in range(10)]
        (found,) = Networks(models, value(0.2), 1).estimates(first)
        hit += found.low(0.025) <= 0 <= found.high(0.025)
    assert hit / runs >= 0.92


@pytest.mark.parametrize("seeds", [1, 4])
def test_a_peak_is_judged_on_other_images_and_seeds_than_it_is_chosen_on(seeds: int) -> None:
    """Thirty networks of equal truth: the largest mean is above 0, the peak's estimate is not, on average."""

    def peak(m: Means, chosen: Means) -> list[Tensor]:
        return [m["x"][chosen["x"].argmax()]]

    found, largest = [], []
    for run in range(60):
        x = torch.randn(seeds, 30, 100, generator=seeded(run), dtype=torch.float64)
        models = [{str(s): {"x": x[r, s]} for s in range(30)} for r in range(seeds)]
        found.append(Networks(models, value(), 30, run).estimates(peak)[0].value)
        largest.append(float(x.mean((0, 2)).max()))
    spread = 0.1 / seeds**0.5
    assert sum(largest) / 60 > 1.5 * spread
    assert abs(sum(found) / 60) < 0.5 * spread


def test_networks_of_other_images_are_refused() -> None:
    models = [{"a": {"x": torch.zeros(8)}}, {"a": {"x": torch.zeros(9)}}]
    with pytest.raises(UsageError, match="the same 4 images"):
        Networks(models, value(), 1)


def test_rank_trend_and_correlation_are_numpys() -> None:
    y = torch.randn(9, generator=seeded(), dtype=torch.float64)
    x = torch.randn(9, generator=seeded(1), dtype=torch.float64)
    import numpy as np

    assert float(rank_trend(y)) == pytest.approx(8 * float(np.polyfit(range(9), y.numpy(), 1)[0]))
    assert float(correlation(x, y)) == pytest.approx(float(np.corrcoef(x.numpy(), y.numpy())[0, 1]))


# --- nothing decides by accident -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "runs"), [("demo", 40), ("laptop", 15), ("laptop, two seeds", 10), ("paper", 2)]
)
def test_where_robustness_does_nothing_no_claim_is_decided(
    simulation: ModuleType, size: str, runs: int
) -> None:
    """Each claim in at most 5 % of the runs, one run aside; `benchmarks/claims.py` runs more of them."""
    rates = simulation.rates(simulation.null, size, runs)
    assert set(rates) == {claim.key for claim in CLAIMS}
    decided = {key: runs * sum(rate.values()) for key, rate in rates.items()}
    assert {key: count for key, count in decided.items() if count > 1 + 0.05 * runs} == {}
    assert sum(decided.values()) <= 0.05 * runs * len(decided)


@pytest.mark.parametrize(
    ("size", "runs"), [("demo", 6), ("laptop", 4), ("laptop, two seeds", 4), ("paper", 1)]
)
def test_where_the_paper_is_right_its_claims_are_supported(
    simulation: ModuleType, size: str, runs: int
) -> None:
    rates = simulation.rates(simulation.paper, size, runs)
    assert {
        key: rate for key, rate in rates.items() if rate["supported"] <= 0.5 or rate["contradicted"]
    } == {}


# --- the tables ------------------------------------------------------------------------------------------


def sweep(
    simulation: ModuleType, truth: Callable[[float], dict[str, float]], **change: float
) -> list[list[Columns]]:
    world = simulation.World(lambda s: truth(s) | change, 360, 0, 1.0)
    return [[world.network(step / 5) for step in range(6)]]


def test_what_is_missing_is_said(simulation: ModuleType) -> None:
    models = sweep(simulation, simulation.paper)
    without = [[{k: v for k, v in c.items() if "bayes" not in k and "shuffled" not in k} for c in models[0]]]
    records = {r["claim"]: r for r in judge_sweep(without, objective="pgd", norm=0.5)}
    assert "'shuffled lpips logit'" in records["alignment-rises"]["note"]
    assert "'bayes cosine logit'" in records["bayes-alignment-rises"]["note"]
    assert records["alignment-rises"]["estimate"] is None
    whole = {r["claim"]: r for r in judge_sweep(models, objective="pgd", norm=0.5)}
    assert "by lpips alone: supported" in whole["alignment-rises"]["note"]
    for record in records.values():
        assert "without the untrained control" in record["note"]
        assert "of this network" in record["note"]
    two = judge_sweep([*models, *models], objective="pgd", norm=0.5, control=[models[0][0]])
    assert not any("of this network" in record.get("note", "") for record in two)


def test_the_untrained_control_must_be_beaten(simulation: ModuleType) -> None:
    """Robust networks above the standard one, but not above chance features."""
    models = sweep(simulation, simulation.paper)
    same = [models[0][3]]
    without = verdicts(judge_sweep(models, objective="pgd", norm=0.5))
    beside = verdicts(judge_sweep(models, objective="pgd", norm=0.5, control=same))
    for key in ("relatively-off-robust", "off-below-on", "alignment-rises", "bayes-alignment-rises"):
        assert (without[key], beside[key]) == (SUPPORTED, UNDECIDED)


def test_the_opposite_is_contradicted(simulation: ModuleType) -> None:
    backwards = [sweep(simulation, lambda s: simulation.paper(s) | {"accuracy": 0.95})[0][::-1]]
    found = verdicts(judge_sweep(backwards, objective="pgd", norm=0.5))
    for key in ("standard-off-above-on", "off-falls-with-strength", "off-falls-more-than-on"):
        assert found[key] == CONTRADICTED


def test_without_an_excessive_strength_nothing_is_said_of_it(simulation: ModuleType) -> None:
    models = sweep(simulation, simulation.paper, accuracy=0.95)
    records = {r["claim"]: r for r in judge_sweep(models, objective="pgd", norm=0.5)}
    assert "no strength is excessive" in records["on-falls-with-accuracy"]["note"]


def test_a_claim_of_the_users_stands_beside_the_others(simulation: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from pags.claims import Claim\n"
        "CLAIMS = (Claim('accuracy-rises', 'mine', 'Robustness helps.', 'last − first accuracy',\n"
        "                lambda judged, chosen: [judged['accuracy'][-1] - judged['accuracy'][0]]),)\n"
    )
    mine = module_at(tmp_path / "mine.py")
    models = sweep(simulation, simulation.paper)
    found = judge_sweep(models, objective="x", norm=0.5, claims=mine.CLAIMS)
    assert verdicts(found) == {"accuracy-rises": CONTRADICTED}


def test_transfer(simulation: ModuleType) -> None:
    models = sweep(simulation, lambda s: simulation.paper(0.6 * s))
    assert set(verdicts(judge_transfer(models)).values()) == {SUPPORTED}
    assert set(verdicts(judge_transfer([models[0][::-1]])).values()) == {CONTRADICTED}


def test_distractor(simulation: ModuleType) -> None:
    standard, robust = (sweep(simulation, simulation.paper)[0][place] for place in (0, 5))
    robust = robust | {"correct": robust["correct"] * 0 + 0.5}
    found = judge_distractor([standard], [robust], subject="A", levels=[0, 1, 2], informative=[standard])
    assert set(verdicts(found).values()) == {SUPPORTED}
    assert all("accuracy is 50%" in record["note"] for record in found)
    swapped = verdicts(judge_distractor([robust], [standard], subject="A", levels=[0, 1, 2]))
    assert (
        swapped["robust-ignores-distractor-more"]
        == swapped["robust-gradients-more-on-signal"]
        == CONTRADICTED
    )
    assert "informative-distractor-is-signal" not in swapped
    control = verdicts(judge_distractor([standard], [robust], subject="A", levels=[0], untrained=[standard]))
    assert control["standard-ignores-distractor"] == UNDECIDED


def restored(psnr: float, named: float, n: int = 60) -> Columns:
    draws = torch.randn(n, generator=seeded(), dtype=torch.float64)  # the same images for all
    return {
        "denoising: psnr": psnr + draws, "denoising: named": torch.ones(n),
        "synthesis-from-noise: named": (torch.arange(n) < named * n).double(),
    }  # fmt: skip


def test_generation_is_held_against_the_standard_network_and_a_blur() -> None:
    start, standard, robust = restored(14, 0), restored(15, 0.2), restored(17, 0.9)

    def said(**more: Any) -> dict[str, ClaimRecord]:
        given = {"start": start, "blur": restored(16, 0), "subject": "pgd 1"} | more
        return {r["claim"]: r for r in judge_generation(robust, standard, **given)}

    found = said()
    assert set(found) == {"denoising-by-robust", "synthesis-from-noise-by-robust"}
    assert {r["verdict"] for r in found.values()} == {SUPPORTED}
    assert said(blur=restored(19, 0))["denoising-by-robust"]["verdict"] == CONTRADICTED
    assert "'blur'" in said(blur=None)["denoising-by-robust"]["note"]
    given = said(labels_predicted=False)
    assert given["denoising-by-robust"]["verdict"] == UNDECIDED
    assert "true labels" in given["denoising-by-robust"]["note"]
    assert given["synthesis-from-noise-by-robust"]["verdict"] == SUPPORTED


def test_a_tie_is_called_a_tie() -> None:
    best = restored(15, 1.0)
    (record,) = (
        r for r in judge_generation(best, best, start=best, subject="pgd") if "synthesis" in r["claim"]
    )
    assert record["verdict"] == UNDECIDED
    assert "both at the maximum" in record["note"]
    assert record["note"].endswith("a tie")


def test_smoothgrad(simulation: ModuleType) -> None:
    models = sweep(simulation, simulation.paper)
    assert set(verdicts(judge_smoothgrad(models, objective="pgd")).values()) == {SUPPORTED}
    harmful = sweep(simulation, simulation.paper, gain=-0.2)
    assert verdicts(judge_smoothgrad(harmful, objective="pgd"))["smoothgrad-aligns"] == CONTRADICTED


@pytest.mark.parametrize(("share", "said"), [(0.05, SUPPORTED), (0.42, CONTRADICTED)])
def test_one_threshold_for_what_is_tangent(share: float, said: str) -> None:
    """Also on images: less than chance is not enough."""
    spread = 0.05 * torch.randn(200, generator=seeded(), dtype=torch.float64)
    columns = dict.fromkeys(("rho2 score predicted class", "rho2 bayes direction"), share + spread)
    records = judge_score(columns | {"chance rho2": torch.full((200,), 0.75)})
    assert {r["verdict"] for r in records} == {said}
    assert "chance is 0.25" in records[0]["note"]


def test_judge_names_what_a_statistic_lacks() -> None:
    networks = Networks([{"net": {"x": torch.rand(10)}}], value(), 1)
    missing = Claim("a", "p", "s", "r", lambda m, chosen: [m.of("other", "x")])
    assert judge(missing, "s", networks).notes[-1] == "needs the network 'other'"


def test_the_docs_list_every_claim() -> None:
    text = (Path(__file__).parents[1] / "docs" / "claims.md").read_text()
    assert [
        c.key for c in CLAIMS if f"`{c.key.removeprefix('bayes-')}`" not in text and f"`{c.key}`" not in text
    ] == []
    assert len({c.key for c in CLAIMS}) == len(CLAIMS)
