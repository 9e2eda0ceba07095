"""The objectives: their weights' gradients by finite differences, their values where they are known."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, softplus

from conftest import (
    Linear,
    Traces,
    built,
    central_differences,
    network_with_batch_norm,
    seeded,
    smooth_network,
    used,
)
from pags.data.batches import Batch
from pags.errors import UsageError
from pags.training.attack import PGD, Norm, frozen_parameters
from pags.training.derivatives import CheaperDerivatives
from pags.training.gradients import Penalised
from pags.training.objectives import (
    OBJECTIVES,
    AdversarialTraining,
    CrossEntropy,
    GradientNorm,
    Objective,
    RandomisedSmoothing,
    Smoothness,
    make_objective,
)
from pags.training.release import ReleaseAdversarialTraining, ReleaseGradientNorm, ReleaseSmoothness

pytestmark = pytest.mark.usefixtures("global_state_untouched")

seeds = st.integers(0, 2**32)


def batch_of(n: int, shape: tuple[int, int, int] = (1, 2, 2), classes: int = 3, seed: int = 0) -> Batch:
    images = torch.rand(n, *shape, generator=seeded(seed), dtype=torch.float64)
    return Batch(images, torch.randint(0, classes, (n,), generator=seeded(seed + 1)), torch.arange(n))


def with_weights(model: nn.Module, flat: Tensor) -> nn.Module:
    """The model computing with the given weights, which lie in one row."""
    names, sizes = zip(*[(name, p.shape) for name, p in model.named_parameters()], strict=True)
    parts = flat.split([math.prod(size) for size in sizes])
    weights = {name: part.view(size) for name, part, size in zip(names, parts, sizes, strict=True)}

    class Reweighted(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return functional_call(model, weights, (images,))

    return Reweighted()


def flat_weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def weight_gradient(losses: Tensor, model: nn.Module) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(losses.mean(), list(model.parameters()))])


# --- gradients -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "objective",
    [
        CrossEntropy(),
        GradientNorm(0.7),
        GradientNorm(0.7, penalised="true-logit"),
        GradientNorm(0.7, penalised="log-probability"),
        Smoothness(0.7, sigma=0.4),
        RandomisedSmoothing(0.4),
        make_objective("gradient-norm", 3e-4, preset="release"),
    ],
    ids=str,
)
def test_gradients_of_the_weights_are_those_of_finite_differences(objective: Objective) -> None:
    model, batch = smooth_network(), batch_of(5)
    truth = central_differences(
        lambda flat: objective(with_weights(model, flat), batch, seeded(3)).mean(), flat_weights(model)
    )
    found = weight_gradient(objective(model, batch, seeded(3)), model)
    torch.testing.assert_close(found, truth, rtol=1e-6, atol=1e-8)
    clean = weight_gradient(CrossEntropy()(model, batch, seeded(3)), model)
    if not isinstance(objective, CrossEntropy):
        assert (found - clean).norm() > 1e-3 * clean.norm()  # so that agreement says something


def test_adversarial_training_descends_at_the_attacked_image() -> None:
    """With the attacked image held fixed, and not differentiated through (Danskin)."""
    model, batch, attack = smooth_network(), batch_of(5), PGD(0.4, steps=3)
    attacked = attack(model, batch.images, batch.labels, seeded(3))
    truth = central_differences(
        lambda flat: cross_entropy(with_weights(model, flat)(attacked), batch.labels), flat_weights(model)
    )
    losses = AdversarialTraining(attack)(model, batch, seeded(3))
    torch.testing.assert_close(weight_gradient(losses, model), truth, rtol=1e-6, atol=1e-8)
    assert (losses > CrossEntropy()(model, batch, seeded(3))).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_adversarial_training_attacks_in_the_norm_asked_for(norm: Norm) -> None:
    model, batch = smooth_network(), batch_of(5)
    attacked = PGD(0.2, norm=norm)(model, batch.images, batch.labels, seeded(3))
    expected = cross_entropy(model(attacked), batch.labels, reduction="none")
    found = make_objective("pgd", 0.2, norm=norm)(model, batch, seeded(3))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_each_batch_draws_its_radius_from_the_radii() -> None:
    """All of them about equally often; the attack is that of PGD with the radius drawn."""
    weight = torch.tensor([[1.0, 0, 0, 0], [-1, 0, 0, 0]], dtype=torch.float64)
    images = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
    batch = Batch(images, torch.zeros(1, dtype=torch.long), torch.arange(1))
    objective = make_objective("pgd", 99, radii=(0.1, 0.2, 0.4), attack_steps=2, relative_step=400)
    model = Linear(weight)
    losses = torch.cat([objective(model, batch, seeded(i)) for i in range(150)]).detach()
    # The margin is 2 x₀, which the attack lowers from 1 by 2 epsilon.
    found = ((1 - losses.expm1().log().neg()) / 2).tolist()
    counts = [sum(abs(value - radius) < 1e-4 for value in found) for radius in (0.1, 0.2, 0.4)]
    assert sum(counts) == 150
    assert min(counts) > 50 - 4 * 5.8  # four standard deviations of a binomial with p = 1/3


def test_two_processes_see_what_one_would() -> None:
    """Each draws for the whole batch and takes its rows."""
    model, batch = smooth_network(), batch_of(5)
    for objective in (
        make_objective("pgd", 0.3), make_objective("pgd", 1, radii=(0.1, 0.4), norm="linf"),
        RandomisedSmoothing(0.3), Smoothness(1.0), GradientNorm(1.0, "true-logit"),
    ):  # fmt: skip
        parts = [
            Batch(batch.images[part], batch.labels[part], batch.index[part], 5, part)
            for part in (slice(0, 2), slice(2, 5))
        ]
        found = torch.cat([objective(model, part, seeded(9)) for part in parts])
        torch.testing.assert_close(found, objective(model, batch, seeded(9)))


# --- cheaper derivatives ---------------------------------------------------------------------------------


def convolutions() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.Softplus(),
        nn.Conv2d(6, 4, 3, padding=1, groups=2, bias=False), nn.BatchNorm2d(4), nn.GELU(),
        nn.MaxPool2d(3, 1, padding=1), nn.GELU("tanh"),
        nn.Conv2d(4, 4, 1, dilation=1), nn.BatchNorm2d(4, affine=False), nn.Tanh(),
        nn.Conv2d(4, 5, 3, padding="same"), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(80, 3),
    )  # fmt: skip


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("training", [True, False])
def test_cheaper_derivatives_are_those_of_torch(layout: torch.memory_format, training: bool) -> None:
    """First and second ones, and the running statistics; of convolutions and norms of several kinds."""
    x = torch.rand(5, 3, 8, 8, generator=seeded(), dtype=torch.float64).contiguous(memory_format=layout)

    def penalty(rules: CheaperDerivatives | None) -> list[Tensor]:
        model = built(convolutions).double().train(training)
        used(model)
        images = x.clone().requires_grad_()
        if rules is None:
            values = model(images).logsumexp(1)
            (gradient,) = torch.autograd.grad(values.sum(), images, create_graph=True)
        else:
            with rules:
                values = model(images).logsumexp(1)
            with rules.of_inputs_alone():
                (gradient,) = torch.autograd.grad(values.sum(), images, create_graph=True)
        (values.mean() + gradient.square().sum()).backward()
        assert images.grad is not None
        state = [b.double() for b in model.buffers()]
        return [
            values,
            gradient,
            images.grad,
            *[g for p in model.parameters() if (g := p.grad) is not None],
            *state,
        ]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        expected = penalty(None)
        torch.manual_seed(1)
        found = penalty(CheaperDerivatives(least=0))
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_cheaper_derivatives_do_what_they_are_there_for() -> None:
    """Rules are used from their size on; a scaling takes the place of BatchNorm with frozen parameters."""
    model, x = built(convolutions).eval(), torch.rand(2, 3, 8, 8, generator=seeded(), requires_grad=True)
    kinds: list[str] = []
    for least in (0, 10**6):
        with frozen_parameters(model), CheaperDerivatives(least=least):
            kinds.append(type(model[:2](x).grad_fn).__name__)
        with CheaperDerivatives(least=least):
            kinds.append(type(model[:1](x).grad_fn).__name__)
    assert kinds == [
        "_ScalingBackward",
        "_ConvolutionBackward",
        "NativeBatchNormBackward0",
        "ConvolutionBackward0",
    ]


@pytest.mark.parametrize("penalised", ["loss", "true-logit", "log-probability"])
def test_what_is_penalised(penalised: Penalised) -> None:
    """Of a linear model ‖w_y‖² for the logit; ‖Wᵀ(p − e)‖² with e of the true or of the predicted class."""
    weight = torch.randn(3, 4, generator=seeded(2), dtype=torch.float64)
    batch = batch_of(40)
    probabilities = (batch.images.flatten(1) @ weight.T).softmax(1)
    one_hot = torch.eye(3, dtype=torch.float64)
    rows = {
        "loss": (probabilities - one_hot[batch.labels]) @ weight,
        "true-logit": weight[batch.labels],
        "log-probability": (probabilities - one_hot[probabilities.argmax(1)]) @ weight,
    }
    found = GradientNorm(1.0, penalised)(Linear(weight), batch, seeded()).detach()
    losses = -probabilities[torch.arange(40), batch.labels].log()
    torch.testing.assert_close(found - losses, rows[penalised].square().sum(1))
    assert (probabilities.argmax(1) != batch.labels).any()


# --- values ----------------------------------------------------------------------------------------------


@given(seed=seeds, strength=st.floats(0, 100))
def test_the_gradient_penalty_of_a_linear_model(seed: int, strength: float) -> None:
    """lambda ‖Wᵀ(p − e_y)‖², for each image on its own."""
    weight = torch.randn(3, 4, generator=seeded(seed), dtype=torch.float64)
    batch = batch_of(4, seed=seed)
    probabilities = (batch.images.flatten(1) @ weight.T).softmax(1)
    errors = probabilities - torch.eye(3, dtype=torch.float64)[batch.labels]
    losses = -probabilities[torch.arange(4), batch.labels].log()
    expected = losses + strength * (errors @ weight).square().sum(1)
    found = GradientNorm(strength)(Linear(weight), batch, seeded())
    torch.testing.assert_close(found.detach(), expected, rtol=1e-10, atol=1e-12)


def test_the_smoothness_penalty_of_a_linear_model() -> None:
    """lambda sigma² ‖W‖² on average over the noise, with the variance of a Gaussian quadratic form."""
    n, strength, sigma = 20_000, 0.3, 0.2
    weight = torch.randn(3, 4, generator=seeded(1), dtype=torch.float64)
    images, labels = torch.full((n, 1, 2, 2), 0.5, dtype=torch.float64), torch.zeros(n, dtype=torch.long)
    batch = Batch(images, labels, labels)
    model = Linear(weight)
    losses = Smoothness(strength, sigma)(model, batch, seeded(2))
    penalties = (losses - CrossEntropy()(model, batch, seeded(2))).detach()
    mean = strength * sigma**2 * float(weight.square().sum())
    deviation = strength * sigma**2 * math.sqrt(2 * float((weight.T @ weight).square().sum()))
    assert float(penalties.mean()) == pytest.approx(mean, abs=4 * deviation / math.sqrt(n))
    assert float(penalties.std()) == pytest.approx(deviation, rel=0.1)


def test_randomised_smoothing_of_a_linear_model() -> None:
    """Two classes see the noise along one line: E softplus(m + s z) by Gauss-Hermite quadrature."""
    n, sigma = 40_000, 0.5
    weight = torch.randn(2, 4, generator=seeded(1), dtype=torch.float64)
    images, labels = torch.full((n, 1, 2, 2), 0.5, dtype=torch.float64), torch.zeros(n, dtype=torch.long)
    towards = weight[1] - weight[0]
    points, shares = np.polynomial.hermite_e.hermegauss(60)
    margin = float(0.5 * towards.sum()) + sigma * float(towards.norm()) * torch.tensor(points)
    mean = float((softplus(margin) * torch.tensor(shares)).sum() / math.sqrt(2 * math.pi))
    losses = RandomisedSmoothing(sigma)(Linear(weight), Batch(images, labels, labels), seeded(2)).detach()
    assert float(losses.mean()) == pytest.approx(mean, abs=4 * float(losses.std()) / math.sqrt(n))
    clean = float(softplus(0.5 * towards.sum()))
    assert abs(mean - clean) > 10 * float(losses.std()) / math.sqrt(n)  # so that it is not the clean loss


ALL: dict[str, Callable[[float], Objective]] = {
    "gradient-norm": GradientNorm, "smoothness": Smoothness, "smoothing": RandomisedSmoothing,
    "pgd": lambda strength: AdversarialTraining(PGD(strength)),
}  # fmt: skip


@pytest.mark.parametrize("name", OBJECTIVES)
def test_strength_zero_is_cross_entropy(name: str) -> None:
    model, batch = smooth_network(), batch_of(6)
    expected = cross_entropy(model(batch.images), batch.labels, reduction="none")
    for objective in (ALL[name](0.0), make_objective(name, 0)):
        torch.testing.assert_close(objective(model, batch, seeded()), expected)
    assert isinstance(make_objective(name, 0), CrossEntropy)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_little_strength_is_a_little_more_loss(name: str) -> None:
    """Every objective is continuous at zero, and harder at a larger strength."""
    model, batch = smooth_network(), batch_of(6)
    with torch.enable_grad():
        losses = [make_objective(name, s)(model, batch, seeded(4)).mean().item() for s in (0, 1e-7, 1e-2, 3)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-6)
    if name != "smoothing":  # which need not raise the loss of one draw
        assert losses[0] < losses[2] < losses[3]


@pytest.mark.parametrize("name", ["gradient-norm"])
@pytest.mark.parametrize("cut", [1, 2, 5])
def test_the_loss_of_an_image_does_not_depend_on_its_batch(name: str, cut: int) -> None:
    model, batch = smooth_network(), batch_of(6)
    objective = make_objective(name, 2.0)
    places = torch.arange(6).split(cut)
    parts = [Batch(batch.images[p], batch.labels[p], p) for p in places]
    found = torch.cat([objective(model, part, seeded()) for part in parts])
    torch.testing.assert_close(found, objective(model, batch, seeded()))


# --- randomness and traces -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["smoothing", "smoothness", "pgd"])
def test_the_randomness_is_that_of_the_generator(name: str) -> None:
    model, batch, objective = smooth_network(), batch_of(4), make_objective(name, 0.5)
    first = objective(model, batch, seeded(1))
    assert torch.equal(first, objective(model, batch, seeded(1)))
    assert not torch.equal(first, objective(model, batch, seeded(2)))
    again = seeded(1)
    assert not torch.equal(objective(model, batch, again), objective(model, batch, again))


def test_noise_is_drawn_for_each_pixel_of_each_image() -> None:
    """Equal images, unequal losses; and the noise has the deviation asked for."""
    seen: list[Tensor] = []

    def record(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].detach())

    model = smooth_network()
    model.register_forward_pre_hook(record)
    n = 2000
    images, labels = torch.full((n, 1, 2, 2), 0.5, dtype=torch.float64), torch.zeros(n, dtype=torch.long)
    for objective in (RandomisedSmoothing(0.3), Smoothness(1.0, sigma=0.3)):
        seen.clear()
        objective(model, Batch(images, labels, labels), seeded(0))
        noise = seen[-1][-n:].flatten(1) - 0.5
        covariance = noise.T @ noise / n
        assert (covariance - 0.09 * torch.eye(4)).abs().max() < 4.5 * 0.09 * math.sqrt(2 / n)
        assert noise.mean().abs() < 4 * 0.3 / math.sqrt(4 * n)


def test_one_step_of_smoothness_counts_once_in_batch_norm() -> None:
    model, batch = network_with_batch_norm().train(), batch_of(4, (1, 4, 4))
    batch = Batch(batch.images.float(), batch.labels, batch.index)
    counts, batches = [], model.get_buffer("1.num_batches_tracked")
    for objective in (CrossEntropy(), Smoothness(1.0), GradientNorm(1.0), AdversarialTraining(PGD(0.1))):
        before = int(batches)
        objective(model, batch, seeded())
        counts.append(int(batches) - before)
    assert counts == [1, 1, 1, 1]


@pytest.mark.parametrize("objective", [GradientNorm(1.0), AdversarialTraining(PGD(0.1)), Smoothness(1.0)])
def test_a_loss_touches_neither_gradients_nor_images(objective: Objective) -> None:
    model, batch = network_with_batch_norm(), batch_of(4, (1, 4, 4))
    batch = Batch(batch.images.float(), batch.labels, batch.index)
    traces, copy = Traces(model), batch.images.clone()
    model.eval()  # training mode is allowed its BatchNorm statistics
    losses = objective(model, batch, seeded())
    assert losses.shape == (4,)
    assert losses.requires_grad
    assert traces.look()[1:] == traces.before[1:]
    assert torch.equal(batch.images, copy)
    assert not batch.images.requires_grad


# --- requests --------------------------------------------------------------------------------------------


def test_names_lead_to_objectives() -> None:
    assert make_objective("pgd", 0.5, attack_steps=3) == AdversarialTraining(PGD(0.5, steps=3))
    assert make_objective("smoothing", 0.5) == RandomisedSmoothing(0.5)
    assert make_objective("gradient-norm", 0.5) == GradientNorm(0.5)
    assert make_objective("smoothness", 0.5) == Smoothness(0.5, sigma=0.1)


def test_options_lead_to_objectives() -> None:
    attack = PGD(0.5, steps=3, relative_step=2.0, norm="linf")
    made = make_objective("pgd", 0.5, attack_steps=3, relative_step=2.0, norm="linf", radii=(1.0, 4.0))
    assert made == AdversarialTraining(attack, radii=(1.0, 4.0))
    assert make_objective("pgd", 0, radii=(1.0, 4.0)) == CrossEntropy()
    assert make_objective("smoothness", 0.5, smoothness_sigma=0.2) == Smoothness(0.5, sigma=0.2)
    assert make_objective("gradient-norm", 0.5, preset="paper") == GradientNorm(0.5, "true-logit")
    other = make_objective("gradient-norm", 0.5, penalised="log-probability", preset="paper")
    assert other == GradientNorm(0.5, "log-probability")
    assert make_objective("gradient-norm", 0.5, preset="release") == ReleaseGradientNorm(0.5)
    release = make_objective("pgd", 0.5, attack_steps=3, relative_step=2.0, preset="release")
    assert release == ReleaseAdversarialTraining(0.5, 3, 2.0)
    assert make_objective("smoothing", 0.5, preset="release") == RandomisedSmoothing(0.5)
    assert make_objective("smoothness", 0.5, preset="release") == ReleaseSmoothness(0.5, 0.1)
    assert make_objective("cross-entropy", 0.5) == CrossEntropy()


def test_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match=r"norm l2 and penalised loss.*norm linf"):
        make_objective("pgd", 1, norm="linf", preset="release")
    with pytest.raises(UsageError, match=r"norm l2 and penalised loss.*penalised true-logit"):
        make_objective("gradient-norm", 1, penalised="true-logit", preset="release")
    with pytest.raises(UsageError, match="attack radius"):
        make_objective("pgd", 1, radii=(1.0, -1.0), preset="release")
    with pytest.raises(UsageError, match="attack radius"):
        make_objective("pgd", 1, radii=(1.0, -1.0))


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UsageError, match=r"an objective among gradient-norm, smoothing.*got 'sam'"):
        make_objective("sam", 1)


@pytest.mark.parametrize("strength", [-0.1, math.nan, math.inf])
def test_a_senseless_strength_is_refused(strength: float) -> None:
    makers: list[Callable[[float], Objective]] = [GradientNorm, Smoothness, RandomisedSmoothing]
    for make in makers:
        with pytest.raises(UsageError, match=f"zero or more; got {strength}"):
            make(strength)
    with pytest.raises(UsageError, match="a noise level of zero or more"):
        Smoothness(1, sigma=strength)
    for name in OBJECTIVES:
        with pytest.raises(UsageError, match="zero or more"):
            make_objective(name, strength)
