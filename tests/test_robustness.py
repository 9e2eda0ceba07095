"""On- and off-manifold robustness of models of which it is known."""

import math
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from conftest import Linear, Traces, confident_network, network_with_batch_norm, seeded, smooth_network
from pags.errors import UsageError
from pags.measure.gradients import input_gradient
from pags.measure.robustness import (
    OUTPUT_CHANGES,
    attacked_equal_norm,
    check_basis,
    definition_1,
    definition_2,
    equal_norm,
    off_manifold_share,
)

pytestmark = pytest.mark.usefixtures("global_state_untouched")

seeds = st.integers(0, 2**32)
D = 16


def random_images(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 1, 4, 4, generator=seeded(seed), dtype=torch.float64)


def random_basis(n: int, r: int, seed: int = 0, d: int = D) -> Tensor:
    return torch.linalg.qr(torch.randn(n, d, r, generator=seeded(seed), dtype=torch.float64))[0]


def on_and_off(w: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """The squared lengths of a vector's parts in and out of each span, by least squares."""
    inside = torch.stack([b @ torch.linalg.lstsq(b, w[:, None]).solution[:, 0] for b in basis])
    return inside.square().sum(1), (w - inside).square().sum(1)


class Recorder(nn.Module):
    """A classifier that keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.clone())
        return images.flatten(1)[:, :3]


# --- equal norms -----------------------------------------------------------------------------------------


def test_perturbations_have_the_norm_asked_for_and_lie_where_they_should() -> None:
    model, images, basis = Recorder(), random_images(5), random_basis(5, 3)
    equal_norm(model, images, basis, (0.25, 2.0), draws=seeded(0), directions=4)
    clean, *perturbed = model.seen
    assert torch.equal(clean, images)
    assert len(perturbed) == 4 * 2 * 3
    counts = {"on": 0, "off": 0, "any": 0}
    for inputs in perturbed:
        delta = (inputs - images).flatten(1)
        size = delta.norm(dim=1)
        near = 0.25 if size[0] < 1 else 2.0
        torch.testing.assert_close(size, torch.full_like(size, near), rtol=1e-10, atol=0)
        inside = (basis @ (basis.mT @ delta[:, :, None]))[:, :, 0].norm(dim=1) / size  # all images alike
        kind = "on" if (inside > 1 - 1e-9).all() else "off" if (inside < 1e-9).all() else "any"
        if kind == "any":
            assert ((inside > 1e-3) & (inside < 1 - 1e-3)).all()
        counts[kind] += 1
    assert counts == {"on": 8, "off": 8, "any": 8}


@pytest.mark.parametrize("part", ["on", "off"])
def test_a_model_that_ignores_a_part_of_space_does_not_change_along_it(part: str) -> None:
    basis = torch.eye(D, dtype=torch.float64)[None, :, :4].expand(6, -1, -1)
    weight = torch.randn(3, D, generator=seeded(0), dtype=torch.float64)
    weight[:, slice(4, None) if part == "off" else slice(0, 4)] = 0
    found = equal_norm(Linear(weight), random_images(6), basis, (0.5, 1.0), draws=seeded(1))
    ignored, other = (found.off, found.on) if part == "off" else (found.on, found.off)
    assert ignored.shape == found.any.shape == (2, 6)
    assert ignored.abs().max() < 1e-12
    assert other.min() > 1e-3
    assert found.any.min() > 1e-3


@pytest.mark.parametrize(("r", "rest"), [(4, 12), (1, 15)])
def test_logits_of_a_linear_model_change_with_the_energy_of_its_rows(r: int, rest: int) -> None:
    """For unit directions in an m-dimensional part, E (wᵀu)² = ‖w_part‖² / m; the change here is |wᵀu|."""
    n, directions, norm = 400, 40, 0.7
    w = torch.randn(D, generator=seeded(1), dtype=torch.float64)
    model = Linear(torch.stack([w, torch.zeros(D, dtype=torch.float64)]))
    basis = random_basis(1, r).expand(n, -1, -1)
    found = equal_norm(
        model, random_images(n), basis, (norm,), draws=seeded(2), directions=directions, change="logits-l2"
    )
    on, off = on_and_off(w, basis[:1])
    for measured, energy, m in ((found.on, on, r), (found.off, off, rest), (found.any, w @ w, D)):
        # E |u₁| of a uniform unit vector: Γ(m/2) / (√π Γ((m+1)/2))
        mean = math.gamma(m / 2) / (math.sqrt(math.pi) * math.gamma((m + 1) / 2))
        expected = norm * math.sqrt(float(energy)) * mean
        error = norm * math.sqrt(float(energy) / m / (n * directions))
        assert measured.mean().item() == pytest.approx(expected, abs=4 * error + 1e-12)


def test_output_changes_are_what_their_names_say() -> None:
    logits = [[1.0, 2.0, -1.0]], [[0.5, -1.0, 3.0]]
    shares = [[math.exp(z) / sum(math.exp(v) for v in row[0]) for z in row[0]] for row in logits]
    a, b = (torch.tensor(row) for row in logits)
    expected = {
        "softmax-l2": math.dist(*shares),
        "softmax-l1": sum(abs(p - q) for p, q in zip(*shares, strict=True)),
        "logits-l2": math.dist(logits[0][0], logits[1][0]),
    }
    assert expected.keys() == OUTPUT_CHANGES.keys()
    for name, change in OUTPUT_CHANGES.items():
        assert change(a, b).tolist() == pytest.approx([expected[name]])
        assert change(a, a).tolist() == [0]


@pytest.mark.parametrize("margin", [18.0, 60.0])
def test_what_confident_outputs_change_by_is_that_of_float64(margin: float) -> None:
    """Probabilities that round to 1 in float32, of which ratios are taken: off/on, and rho1 of the loss."""
    model, images = confident_network(margin, random_images(60).float())
    basis, labels = random_basis(30, 4).float(), model(images).argmax(1)
    exact = deepcopy(model).double()
    found, expected = (
        equal_norm(net, x, b, (1e-3,), draws=seeded(0), directions=4)
        for net, x, b in ((model, images, basis), (exact, images.double(), basis.double()))
    )
    for part in ("on", "off"):
        torch.testing.assert_close(
            getattr(found, part).double(), getattr(expected, part), rtol=0.02, atol=1e-37
        )
    ours, theirs = (
        definition_1(net, x, b, 1e-3, draws=seeded(0), target="loss", labels=labels)
        for net, x, b in ((model, images, basis), (exact, images.double(), basis.double()))
    )
    torch.testing.assert_close(ours.off / ours.all, theirs.off / theirs.all, rtol=0.05, atol=0)


@pytest.mark.parametrize("batch_size", [1, 3, 1024])
def test_numbers_come_from_the_generator_and_not_from_the_batch_size(batch_size: int) -> None:
    model, images, basis = network_with_batch_norm().double().train(), random_images(7), random_basis(7, 3)
    whole = equal_norm(model, images, basis, (0.5,), draws=seeded(0), directions=2)
    parts = equal_norm(model, images, basis, (0.5,), draws=seeded(0), directions=2, batch_size=batch_size)
    for name in ("on", "off", "any"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=1e-9, atol=1e-12)
    one = definition_1(model, images, basis, 0.3, draws=seeded(0), directions=3)
    same = definition_1(model, images, basis, 0.3, draws=seeded(0), directions=3, batch_size=batch_size)
    torch.testing.assert_close(same.rho1, one.rho1, rtol=1e-9, atol=1e-12)
    other = equal_norm(model, images, basis, (0.5,), draws=seeded(1), directions=2)
    assert not torch.allclose(other.on, whole.on)


def test_measuring_leaves_no_trace() -> None:
    model, images, basis = network_with_batch_norm().double(), random_images(4), random_basis(4, 3)
    traces, copy = Traces(model), images.clone()
    found = equal_norm(model, images, basis, (0.5,), draws=seeded(0), directions=2)
    noise = definition_1(model, images, basis, 0.3, draws=seeded(0), directions=2)
    traces.assert_none()
    assert torch.equal(images, copy)
    assert not any(x.requires_grad for x in (found.on, found.off, found.any, noise.rho1))


@pytest.mark.parametrize("r", [0, D])
def test_a_tangent_space_that_is_nothing_or_everything_is_refused(r: int) -> None:
    images, basis = random_images(3), random_basis(3, r)
    with pytest.raises(UsageError, match=f"of dimension 1 to 15; got dimensions from {r} to {r}"):
        equal_norm(Linear(torch.ones(2, D).double()), images, basis, (0.5,), draws=seeded(0))


def test_one_image_without_a_tangent_space_is_refused() -> None:
    basis = random_basis(3, 4)
    check_basis(basis)
    basis[1] = 0
    with pytest.raises(UsageError, match="got dimensions from 0 to 4"):
        check_basis(basis)


@pytest.mark.parametrize("norms", [(), (0.0,), (0.5, -1.0), (math.inf,), (math.nan,)])
def test_senseless_norms_are_refused(norms: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="perturbation norms above zero"):
        equal_norm(smooth_network(D), random_images(2), random_basis(2, 3), norms, draws=seeded(0))


def test_an_unknown_change_is_refused() -> None:
    with pytest.raises(UsageError, match="softmax-l2, softmax-l1, logits-l2; got 'l2'"):
        equal_norm(
            smooth_network(D), random_images(2), random_basis(2, 3), (1.0,), draws=seeded(0), change="l2"
        )


# --- Definition 1 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("r", [1, 5, 12])
def test_definition_1_of_a_linear_model_is_the_share_of_its_energy(r: int) -> None:
    """E (wᵀP⊥u)² = sigma² ‖P⊥w‖² and E (wᵀu)² = sigma² ‖w‖², each a chi-square with one degree of freedom."""
    n, directions, sigma = 800, 25, 0.3
    w = torch.randn(D, generator=seeded(1), dtype=torch.float64)
    model = Linear(torch.stack([w, -w]))
    basis = random_basis(1, r).expand(n, -1, -1)
    labels = torch.zeros(n, dtype=torch.long)
    found = definition_1(
        model, random_images(n), basis, sigma, draws=seeded(2), directions=directions, labels=labels
    )
    off = float(on_and_off(w, basis[:1])[1])
    error = 4 * math.sqrt(2 / (n * directions))
    assert found.off.mean().item() == pytest.approx(sigma**2 * off, rel=error)
    assert found.all.mean().item() == pytest.approx(sigma**2 * float(w @ w), rel=error)
    ratio = float(found.off.mean() / found.all.mean())
    assert ratio == pytest.approx(off / float(w @ w), rel=2 * error)
    torch.testing.assert_close(found.rho1, found.off / found.all)


def test_definition_1_asks_for_the_target_and_the_class() -> None:
    """Rows of lengths 1 and 2: the changes of their logits are as 1 to 4, and those of the sum vanish."""
    w = torch.randn(D, generator=seeded(1), dtype=torch.float64)
    model, images, basis = Linear(torch.stack([w, -2 * w, w])), random_images(4), random_basis(4, 3)

    def change(target: str, label: int) -> Tensor:
        labels = torch.full((4,), label)
        return definition_1(
            model, images, basis, 0.1, draws=seeded(0), directions=4, target=target, labels=labels
        ).all

    torch.testing.assert_close(change("logit", 1), 4 * change("logit", 0))
    assert change("sum-of-logits", 0).max() < 1e-20
    with pytest.raises(UsageError, match="gradient target"):
        change("x", 0)


def test_definition_1_keeps_to_the_class_of_the_clean_image() -> None:
    """Of the logits (x₁, −x₁) that class changes by exactly the noise, whichever class the copy is in."""
    weight = torch.zeros(2, D, dtype=torch.float64)
    weight[0, 0], weight[1, 0] = 1, -1
    n, sigma = 1000, 5.0
    images = torch.full((n, 1, 4, 4), 0.01, dtype=torch.float64)
    found = definition_1(Linear(weight), images, random_basis(n, 3), sigma, draws=seeded(0), directions=10)
    assert found.all.mean().item() == pytest.approx(sigma**2, rel=4 * math.sqrt(2 / (n * 10)))


def test_a_constant_model_has_no_ratio() -> None:
    model = Linear(torch.zeros(2, D, dtype=torch.float64))
    found = definition_1(model, random_images(2), random_basis(2, 3), 0.1, draws=seeded(0), directions=2)
    assert found.rho1.isnan().all()


# --- attacks in a half of space ---------------------------------------------------------------------------


@settings(max_examples=15)
@given(seed=seeds, r=st.integers(1, D - 1), norm=st.floats(0.01, 3))
def test_attacks_on_a_linear_model_go_along_the_projected_difference_of_its_rows(
    seed: int, r: int, norm: float
) -> None:
    """By norm · P(w_other − w_label) / ‖P(w_other − w_label)‖, which no direction in that half exceeds."""
    weight = torch.randn(2, D, generator=seeded(seed), dtype=torch.float64)
    images, basis = random_images(3, seed), random_basis(3, r, seed)
    net = Linear(weight)
    found = attacked_equal_norm(net, images, basis, (norm,), change="logits-l2")
    towards = (weight[1] - weight[0]) * (1 - 2 * net(images).argmax(1)[:, None])
    pairs = zip(basis, towards, strict=True)
    inside = torch.stack([b @ torch.linalg.lstsq(b, v[:, None]).solution[:, 0] for b, v in pairs])
    for part, way in (("on", inside), ("off", towards - inside), ("any", towards)):
        step = norm * way / way.norm(dim=1, keepdim=True)
        torch.testing.assert_close(
            getattr(found, part)[0], (step @ weight.T).norm(dim=1), rtol=1e-6, atol=1e-9
        )


def test_attacks_stay_in_their_half_and_in_the_ball_and_beat_random_directions() -> None:
    model, images, basis = smooth_network(D), random_images(20), random_basis(20, 5)
    seen = Recorder()
    attacked_equal_norm(seen, images, basis, (0.4,))
    for inputs, part in zip(seen.seen[-1:-34:-11], ("any", "off", "on"), strict=True):
        delta = (inputs - images).flatten(1)
        inside = (basis @ (basis.mT @ delta[:, :, None]))[:, :, 0]
        assert (delta.norm(dim=1) <= 0.4 + 1e-9).all()
        assert delta.norm(dim=1).min() > 0.39
        if part != "any":
            wrong = inside if part == "off" else delta - inside
            assert wrong.abs().max() < 1e-12
    attacked = attacked_equal_norm(model, images, basis, (0.4,))
    random = equal_norm(model, images, basis, (0.4,), draws=seeded(0), directions=20)
    for part in ("on", "off", "any"):
        assert float((getattr(attacked, part) > getattr(random, part)).double().mean()) > 0.9
    assert float(attacked.any.mean()) > max(float(attacked.on.mean()), float(attacked.off.mean()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_a_gradient_does_not_reach_into_is_not_attacked_by_its_rounding(dtype: torch.dtype) -> None:
    basis = random_basis(4, 3).to(dtype)
    inside = basis[0] @ torch.randn(3, 3, generator=seeded(1), dtype=dtype)
    model = Linear(inside.T.contiguous())
    found = attacked_equal_norm(model, random_images(4).to(dtype), basis[:1].expand(4, -1, -1), (0.5,))
    assert found.off.isnan().all()
    assert found.on.isfinite().all()


def test_attacks_do_not_depend_on_the_batch_size() -> None:
    model, images, basis = network_with_batch_norm().double(), random_images(7), random_basis(7, 3)
    whole = attacked_equal_norm(model, images, basis, (0.3, 0.6), steps=3)
    parts = attacked_equal_norm(model, images, basis, (0.3, 0.6), steps=3, batch_size=3)
    assert whole.on.shape == (2, 7)
    for part in ("on", "off", "any"):
        torch.testing.assert_close(getattr(parts, part), getattr(whole, part))
    with pytest.raises(UsageError, match="output change"):
        attacked_equal_norm(model, images, basis, (0.3,), change="x")
    with pytest.raises(UsageError, match="at least one attack step"):
        attacked_equal_norm(model, images, basis, (0.3,), steps=0)


# --- Definition 2 ----------------------------------------------------------------------------------------


@given(seed=seeds, r=st.integers(1, D - 1), exponent=st.integers(-10, 10))
def test_rho2_is_the_energy_outside(seed: int, r: int, exponent: int) -> None:
    w = torch.randn(D, generator=seeded(seed), dtype=torch.float64) * 10.0**exponent
    basis = random_basis(3, r, seed)
    on, off = on_and_off(w, basis)
    found = off_manifold_share(w.reshape(1, 1, 4, 4).expand(3, -1, -1, -1), basis)
    torch.testing.assert_close(found, off / (on + off), rtol=1e-8, atol=1e-12)


def test_rho2_of_what_lies_inside_outside_and_nowhere() -> None:
    basis = torch.eye(D, dtype=torch.float64)[None, :, :2].expand(4, -1, -1)
    vectors = torch.zeros(4, D, dtype=torch.float64)
    vectors[0, 1], vectors[1, 2], vectors[2, [0, 3]] = 5, 5, torch.tensor([3.0, 4.0], dtype=torch.float64)
    found = off_manifold_share(vectors.reshape(4, 1, 4, 4), basis)
    assert found[:3].tolist() == pytest.approx([0, 1, 16 / 25])
    assert found[3].isnan()


@pytest.mark.parametrize("r", [1, 6, 15])
def test_rho2_of_a_random_basis_is_chance(r: int) -> None:
    """Beta((d − r)/2, r/2), whose mean is 1 − r/d."""
    n = 3000
    a, b = (D - r) / 2, r / 2
    found = off_manifold_share(random_images(1).expand(n, -1, -1, -1), random_basis(n, r))
    deviation = math.sqrt(a * b / ((a + b) ** 2 * (a + b + 1)))
    assert found.mean().item() == pytest.approx(1 - r / D, abs=4 * deviation / math.sqrt(n))
    assert found.std().item() == pytest.approx(deviation, rel=0.1)


@pytest.mark.parametrize(("model", "sigma"), [("linear", 3.0), ("linear", 1e-3), ("smooth", 1e-4)])
def test_rho1_is_rho2_where_the_output_is_linear(model: str, sigma: float) -> None:
    """Theorem 1 as an equality of ratios of means, to three standard errors of the draws: 1 %.

    The rows of the linear model have lengths from 1 to 4, so that the mean of the ratios says something else.
    """
    n, directions = 300, 200
    weight = torch.randn(4, D, generator=seeded(1), dtype=torch.float64) * torch.arange(1, 5)[:, None]
    weight[3, :5] *= 6
    net = Linear(weight) if model == "linear" else smooth_network(D, classes=4)
    basis = torch.eye(D, dtype=torch.float64)[None, :, :5].expand(n, -1, -1)
    images, labels = random_images(n), torch.arange(n) % 4
    noise = definition_1(net, images, basis, sigma, draws=seeded(2), directions=directions, labels=labels)
    gradients = definition_2(input_gradient(net, images, "logit", labels), basis)
    rho1, rho2 = (float(both.off.mean() / both.all.mean()) for both in (noise, gradients))
    assert rho1 == pytest.approx(rho2, rel=0.01)
    if model == "linear":
        assert abs(float(gradients.rho2.mean()) - rho2) > 0.05


def test_energies_of_vectors_without_a_direction_are_no_numbers() -> None:
    vectors = torch.randn(4, 1, 4, 4, generator=seeded(0)) * 1e-25  # whose squares float32 does not have
    vectors[1], vectors[2, 0, 0, 0], vectors[3, 0, 1, 1] = 0, torch.nan, torch.inf
    basis = random_basis(4, 3).float()
    found = definition_2(vectors, basis)
    on, off = on_and_off(vectors[0].flatten().double(), basis[:1].double())
    assert found.off[:1].tolist() == pytest.approx(off.tolist(), rel=1e-5)
    assert found.all[:1].tolist() == pytest.approx((on + off).tolist(), rel=1e-6)
    for values in (found.off, found.all, found.rho2, off_manifold_share(vectors, basis)):
        assert values.isnan().tolist() == [False, True, True, True]
