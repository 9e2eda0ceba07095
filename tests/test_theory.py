"""The checks of the theory against closed forms, against themselves under sabotage, and as one run."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from conftest import Linear, seeded, smooth_network
from pags.arrays import Images, project
from pags.claims import CONTRADICTED, SUPPORTED, UNDECIDED
from pags.data.worlds import distractor_world, linear_world, mixture_world
from pags.data.worlds.laws import Mixture
from pags.measure.robustness import definition_1
from pags.measure.statistics import Interval
from pags.report.pages import write_theory
from pags.store import Record, Store
from pags.theory import Subject, argument_1, run_theory, theorem_1, theorem_2
from pags.theory.argument_1 import half_life
from pags.theory.argument_2 import descent, outside_span, ridge
from pags.theory.bayes import _there_and_back
from pags.theory.rows import exactly, over_seeds, slope
from pags.theory.theorem_1 import approach
from pags.theory.two_layer import problem, trained, two_layer


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, Store, list[tuple[str, float]]]:
    """One quick run, with its store and what it told about its progress."""
    store, told = Store(tmp_path_factory.mktemp("theory")), list[tuple[str, float]]()
    record = run_theory(store, quick=True, on_progress=lambda what, share: told.append((what, share)))
    return record, store, told


def rows_of(part: Record) -> dict[str, Record]:
    return {row["claim"]: row for row in part["rows"]}


def random_basis(n: int, d: int, k: int) -> Tensor:
    return torch.linalg.qr(torch.randn(n, d, k, generator=seeded(), dtype=torch.float64))[0]


def some_images(n: int = 24) -> tuple[Images, Tensor]:
    images = torch.rand(n, 1, 2, 3, generator=seeded(1), dtype=torch.float64)
    return images, torch.randint(0, 3, (n,), generator=seeded(2))


class Quadratic(nn.Module):
    """f(x) = g·x + xᵀ H x / 2 as the only logit that is asked for; rho1 is known for every σ."""

    def __init__(self, g: Tensor, h: Tensor) -> None:
        super().__init__()
        self.g, self.h = g, h

    def forward(self, images: Images) -> Tensor:
        x = images.flatten(1)
        f = x @ self.g + torch.einsum("ni,ij,nj->n", x, self.h, x) / 2
        return f[:, None]


# --- rows ----------------------------------------------------------------------------------------------


def test_interval_over_seeds_covers_the_median_as_often_as_it_says() -> None:
    draws = torch.randn(4000, 4, generator=seeded()).exp() - 1  # skewed, of median 0
    found = [over_seeds(run.tolist()) for run in draws]
    covered = sum(f.low <= 0 <= f.high for f in found) / len(found)
    assert found[0].level == pytest.approx(0.875)
    assert covered == pytest.approx(0.875, abs=0.02)


def test_slope_of_a_power() -> None:
    x = torch.tensor([0.1, 0.3, 2.0], dtype=torch.float64)
    torch.testing.assert_close(
        slope(x, torch.stack([5 * x**2.5, x**-0.5])), torch.tensor([2.5, -0.5]).double()
    )


# --- Theorem 1 -------------------------------------------------------------------------------------------


def test_rho1_of_a_linear_model_is_rho2_at_every_noise_level() -> None:
    images, labels = some_images()
    weight = torch.randn(3, 6, generator=seeded(), dtype=torch.float64)
    basis = random_basis(len(images), 6, 2)
    found = approach(
        Subject(Linear(weight), None, [1e-4, 0.1, 10.0]),
        images,
        labels,
        {"b": basis},
        draws=seeded(),
        directions=3,
    )["b"]
    w = weight[labels].reshape(images.shape)
    off = w - project(w, basis)
    rho2 = off.flatten(1).square().sum(1) / w.flatten(1).square().sum(1)
    torch.testing.assert_close(found.rho2, rho2)
    torch.testing.assert_close(found.rho1, rho2.expand(3, -1), rtol=1e-9, atol=1e-9)


def test_rho1_of_a_quadratic_function_is_its_closed_form() -> None:
    """E(g·u + uᵀHu/2)² = σ²‖g‖² + σ⁴ (tr(H)² + 2 tr(H²)) / 4, and the same with P⊥ on both sides of H."""
    n, sigma = 6, 0.7
    images = torch.zeros(n, 1, 2, 3, dtype=torch.float64)  # where the gradient is g
    g = torch.randn(6, generator=seeded(3), dtype=torch.float64)
    h = torch.randn(6, 6, generator=seeded(4), dtype=torch.float64)
    h = h + h.T
    basis = random_basis(n, 6, 2)
    found = approach(
        Subject(Quadratic(g, h), 2.0, [sigma]), images, torch.zeros(n).long(), {"b": basis},
        draws=seeded(), directions=20_000,
    )["b"]  # fmt: skip

    def energy(p: Tensor) -> float:
        m = p @ h @ p
        return float(
            sigma**2 * (p @ g).square().sum() + sigma**4 * (m.trace() ** 2 + 2 * (m @ m).trace()) / 4
        )

    eye = torch.eye(6, dtype=torch.float64)
    expected = torch.tensor([energy(eye - b @ b.T) / energy(eye) for b in basis], dtype=torch.float64)
    assert float((found.rho2 - expected).abs().min()) > 0.01  # so that the noise level matters
    torch.testing.assert_close(found.rho1[0], expected, rtol=0.04, atol=0.002)


def test_rho1_agrees_with_the_package_s_definition_1() -> None:
    """Copies of each image stand for directions, so that many are drawn at once."""
    images, labels = some_images(12)
    model, basis, sigma = smooth_network(6), random_basis(12, 6, 2), 3.0
    subject = Subject(model, 2.0, [sigma])
    mine = approach(subject, images, labels, {"b": basis}, draws=seeded(0), directions=4000)["b"]
    copies = 400
    plain = definition_1(
        model, images.repeat(copies, 1, 1, 1), basis.repeat(copies, 1, 1), sigma,
        draws=seeded(1), directions=20, labels=labels.repeat(copies),
    )  # fmt: skip
    rho1 = plain.off.reshape(copies, 12).mean(0) / plain.all.reshape(copies, 12).mean(0)
    assert float(mine.distance.mean()) > 0.02  # so that the noise level matters
    torch.testing.assert_close(mine.rho1[0], rho1, rtol=0, atol=0.03)
    torch.testing.assert_close(mine.rho1[0].mean(), rho1.mean(), rtol=0, atol=0.008)


def test_the_correction_needs_few_directions() -> None:
    """Two of them show a distance from rho2 that plain means would need millions for."""
    images, labels = some_images()
    subject = Subject(smooth_network(6), 2.0, [0.001])
    basis = random_basis(len(images), 6, 2)
    few = approach(subject, images, labels, {"b": basis}, draws=seeded(2), directions=2)["b"]
    assert 0 < float(few.distance.max()) < 1e-4


def test_a_wrong_rate_is_contradicted() -> None:
    images, labels = some_images()
    subjects = {"net": Subject(smooth_network(6), 1.0, [0.01, 0.03, 0.1])}
    part = theorem_1(subjects, images, labels, {"b": random_basis(len(images), 6, 2)}, seed=0, directions=8)
    assert [r["verdict"] for r in part["rows"]] == [SUPPORTED, CONTRADICTED]
    assert part["rows"][1]["estimate"] == pytest.approx(2, abs=0.1)


def test_a_nonlinear_model_is_not_taken_for_linear() -> None:
    images, labels = some_images()
    subjects = {"net": Subject(smooth_network(6), None, [0.01, 0.1])}
    part = theorem_1(subjects, images, labels, {"b": random_basis(len(images), 6, 2)}, seed=0, directions=8)
    assert [r["verdict"] for r in part["rows"]] == [CONTRADICTED]


# --- Theorem 2 -------------------------------------------------------------------------------------------


def test_theorem_2_fails_where_it_must() -> None:
    """A distractor that always informs, and a claim on classes with manifolds of their own."""
    telling = [distractor_world(informative=t) for t in (0.5, 1.0)]
    own = mixture_world(own_manifolds=True)
    rows = rows_of(theorem_2(telling, {"own": own}, seed=0, images=64, sigmas=[0.01]))
    assert rows["Bayes gradient on the distractor"]["verdict"] == CONTRADICTED
    assert rows["own: Bayes gradient is tangent"]["verdict"] == CONTRADICTED
    falling = theorem_2(telling[::-1], {}, seed=0, images=64, sigmas=[0.01])
    assert rows_of(falling)["an informative distractor"]["verdict"] == CONTRADICTED


def test_score_s_normal_share_is_its_closed_form() -> None:
    """One class: off the subspace −r / (s² + v) with ‖r‖² = (d − k) s², on it −Σ z √e / (e + v)."""
    world = linear_world((1, 6, 6), classes=2, k=2, noise=0.02)
    assert isinstance(world.law, Mixture)
    first = torch.zeros(2).long()  # the first class, twice
    spreads = world.law.spreads[first]
    law = dataclasses.replace(
        world.law, means=world.law.means[first], axes=world.law.axes[first], spreads=spreads
    )
    world = dataclasses.replace(world, law=law)
    images, labels = world.sample(4000, seeded())
    for sigma in (0.0, 0.1):
        v, e, s2 = (sigma / 2) ** 2, spreads[0], 0.02**2
        score = world.score(images, sigma, labels)
        on = project(score, world.tangent_basis(images)).flatten(1).square().sum(1).mean()
        off = score.flatten(1).square().sum(1).mean() - on
        expected_on = float(((e + s2) / (e + s2 + v).square()).sum())
        assert float(on) == pytest.approx(expected_on, rel=0.08)
        assert float(off) == pytest.approx(34 * s2 / (s2 + v) ** 2, rel=0.03)


# --- Argument 1 ------------------------------------------------------------------------------------------


def test_half_life_counts_from_the_peak() -> None:
    assert half_life([1, 4, 8, 5, 4.1, 3.9, 1]) == 5
    assert half_life([8, 3, 9, 8, 7]) == 5  # never
    assert half_life([2, 0.5]) == 1


def test_argument_1_without_penalty_supports_nothing() -> None:
    """A penalty that is too weak to matter: what is measured is the penalty's effect, not the training's."""
    part = argument_1(linear_world((1, 4, 4), k=2), [0.0, 1e-9], seed=0, runs=3, images=128, epochs=3)
    assert SUPPORTED not in {r["verdict"] for r in part["rows"]}
    assert [len(t["runs"]) for t in part["curves"]["traces"]] == [3, 3]
    assert {len(run["on"]) for t in part["curves"]["traces"] for run in t["runs"]} == {4}


# --- Argument 2 ------------------------------------------------------------------------------------------


def test_ridge_and_descent_agree_and_ridge_is_a_minimum() -> None:
    x = torch.randn(40, 5, generator=seeded(), dtype=torch.float64)
    y = torch.randn(40, generator=seeded(1), dtype=torch.float64)
    w = ridge(x, y, 0.1).requires_grad_()
    loss = (x @ w - y).square().mean() + 0.1 * w.square().sum()
    assert float(torch.autograd.grad(loss, w)[0].norm()) < 1e-12
    torch.testing.assert_close(descent(x, y, torch.ones(5).double(), 0.1, 500), w.detach())


def test_outside_span_is_the_share_that_it_says() -> None:
    x = torch.eye(4, dtype=torch.float64)[:2]
    assert outside_span(torch.tensor([1.0, 2.0, 0.0, 0.0]).double(), x) == 0
    assert outside_span(torch.tensor([3.0, 0.0, 0.0, 4.0]).double(), x) == pytest.approx(0.8)


# --- two-layer networks --------------------------------------------------------------------------------


def test_two_layer_training_follows_autograd_on_a_network_of_its_own() -> None:
    """Weights after three steps, and gradients on and off the subspace, from torch's own parts."""
    p = problem(3, d=12, k=3, width=16, images=20)
    found = trained(p, 0.5, 0.01, steps=3)
    net = nn.Sequential(nn.Linear(12, 16, bias=False), nn.ReLU()).double()
    (weight,) = net.parameters()
    weight.data = 0.5 * p.start
    optimiser = torch.optim.SGD([weight], lr=1 / 12, weight_decay=0.01 * 12)  # decay · weights a step
    for _ in range(3):
        optimiser.zero_grad()
        nn.functional.softplus(-p.labels * (net(p.train) @ p.output)).mean().backward()
        optimiser.step()
    torch.testing.assert_close(found.weights, weight.detach())
    x = p.test.clone().requires_grad_()
    score = net(x) @ p.output
    (gradient,) = torch.autograd.grad(score.sum(), x)
    on = gradient @ p.basis @ p.basis.T
    torch.testing.assert_close(found.on, on.norm(dim=1))
    torch.testing.assert_close(found.off, (gradient - on).norm(dim=1))


def test_gradients_off_the_subspace_stay_with_a_large_start_and_go_with_a_small_one_or_decay() -> None:
    rows = rows_of(two_layer(seed=1, runs=3, images=60))
    assert {row["verdict"] for row in rows.values()} <= {SUPPORTED, UNDECIDED}
    assert rows["two-layer networks: large gradients off the subspace"]["estimate"] == pytest.approx(
        1, abs=0.2
    )


# --- the Bayes gradient ----------------------------------------------------------------------------------


def test_the_peak_is_chosen_by_the_other_runs() -> None:
    """One lucky strength in each run is no rise: the strength that the others choose is not the lucky one."""
    lucky = torch.tensor([[0.5, 0.9, 0.4, 0.4, 0.1], [0.5, 0.4, 0.9, 0.4, 0.1], [0.5, 0.4, 0.4, 0.9, 0.1]])
    towards, away = _there_and_back("pgd", lucky.double())
    assert towards["high"] == pytest.approx(-0.1)
    assert towards["verdict"] == CONTRADICTED
    assert away["verdict"] == SUPPORTED
    towards, _ = _there_and_back("pgd", (lucky + torch.tensor([0, 0, 0.6, 0, 0])).double())
    assert towards["verdict"] == SUPPORTED


def test_each_part_of_the_penalty_takes_away_its_own_part_of_the_gradient(
    ran: tuple[Record, Store, list[tuple[str, float]]],
) -> None:
    """Of every run. What that does to the angle with the exact gradient is for the whole run to say."""
    part = ran[0]["parts"]["bayes_gradient"]
    for run in part["curves"]["runs"]:
        assert run["only off"][-1]["rho2"] < run["only off"][0]["rho2"]
        assert run["only on"][-1]["rho2"] > run["only on"][0]["rho2"]
    rows = rows_of(part)
    assert rows["aligning the gradient makes robust off the manifold"]["low"] > 0
    assert rows["pgd: away under excessive regularisation"]["estimate"] > 0


def test_quick_withholds_verdicts_that_its_trainings_cannot_bear(
    ran: tuple[Record, Store, list[tuple[str, float]]],
) -> None:
    for name, part in ran[0]["parts"].items():
        trained_long = name in {"argument_1", "bayes_gradient"}
        assert all(("note" in row) == trained_long for row in part["rows"])
        if trained_long:
            assert {row["verdict"] for row in part["rows"]} == {UNDECIDED}


# --- the whole -------------------------------------------------------------------------------------------


def test_run_reaches_the_verdicts_that_need_no_luck(
    ran: tuple[Record, Store, list[tuple[str, float]]],
) -> None:
    parts = ran[0]["parts"]
    verdicts = {r["claim"]: r["verdict"] for part in parts.values() for r in part["rows"]}
    expected = {
        "linear: rho1 = rho2 at every σ": SUPPORTED,
        "softplus: rho1 → rho2": SUPPORTED,
        "softplus: rate of the limit": SUPPORTED,
        "ReLU: rho1 → rho2": SUPPORTED,
        "Bayes gradient on the distractor": SUPPORTED,
        "log-density's gradient on the distractor": SUPPORTED,
        "an informative distractor": SUPPORTED,
        "one flat manifold: Bayes gradient is tangent": SUPPORTED,
        "one flat manifold: ∇ log p(x|y) is tangent": CONTRADICTED,
        "one curved manifold: Bayes gradient is tangent": SUPPORTED,
        "a manifold a class: Bayes gradient is tangent": CONTRADICTED,
        "ridge: in the span": SUPPORTED,
        "gradient descent from zero: in the span": SUPPORTED,
        "weights of an informative distractor stay": SUPPORTED,
        "weights of a leaking distractor vanish": CONTRADICTED,
        "weights off the subspace stay as they began": SUPPORTED,
        "weight decay takes them away": SUPPORTED,
        "weight decay removes them": SUPPORTED,
        "a small initialisation removes them": SUPPORTED,
    }
    assert {claim: verdicts[claim] for claim in expected} == expected
    assert parts["argument_2"]["curves"]["span"]["gradient descent from elsewhere"] > 1e-3


def test_rows_are_complete_and_written(ran: tuple[Record, Store, list[tuple[str, float]]]) -> None:
    record, store, told = ran
    assert store.read_record("theory.json") == json.loads(json.dumps(record)) == record
    keys = {"claim", "place", "statement", "rule", "expected", "estimate", "low", "high", "level", "verdict"}
    rows = [row for part in record["parts"].values() for row in part["rows"]]
    assert all(set(row) - {"note"} == keys and row["low"] <= row["estimate"] <= row["high"] for row in rows)
    assert len({row["claim"] for row in rows}) == len(rows)
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] == pytest.approx(1)
    assert all(math.isfinite(row["estimate"]) for row in rows)


@pytest.mark.usefixtures("global_state_untouched")
def test_equal_seeds_give_equal_records(
    ran: tuple[Record, Store, list[tuple[str, float]]], tmp_path: Path
) -> None:
    assert run_theory(Store(tmp_path), quick=True) == ran[0]


def test_figures_are_drawn_from_the_record_alone(
    ran: tuple[Record, Store, list[tuple[str, float]]], tmp_path: Path
) -> None:
    record = ran[1].read_record("theory.json")
    files = write_theory(Store(tmp_path / "a"), record)
    again = write_theory(Store(tmp_path / "b"), record)
    parts = ("theorem-1", "theorem-2", "argument-1", "argument-2", "two-layer", "bayes-gradient")
    drawn = {file.name for file in files if file.suffix == ".svg"}
    assert drawn == {f"theory-{part}.svg" for part, name in zip(parts, record["parts"], strict=True)}
    for one, other in zip(files, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
        assert b"<dc:date>" not in one.read_bytes()
    page = files[-1].read_text()
    assert page.count("</tr>") >= sum(len(part["rows"]) for part in record["parts"].values())


def test_exact_values_have_no_width() -> None:
    assert exactly(0.25) == Interval(0.25, 0.25, 0.25, 1.0)
