"""The untrained control keeps nothing that was learned, however a network holds its weights."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, linear
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from conftest import Traces, built, network_with_batch_norm, seeded
from pags.classifiers.untrained import untrained
from pags.errors import PagsError
from pags.measure.gradients import input_gradient

pytestmark = [
    pytest.mark.usefixtures("global_state_untouched"),
    pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated"),
]

LAYERS = ("first", "second", "head")
IMAGES = torch.rand(24, 1, 8, 8, generator=seeded(1))
LABELS = torch.arange(24) % 5


class Net(nn.Module):
    """A network with a layer of each kind, given weights that no initialisation would draw."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.head = nn.Conv2d(8, 12, 3, padding=1, stride=2), nn.Linear(12 * 16, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(images)))
        return self.head(torch.relu(self.second(x)).flatten(1))


def trained() -> Net:
    """Not by training, which takes longer: a fixed smooth pattern, scaled as weights are."""
    net = built(Net, seed=9)
    with torch.no_grad():
        for weight in net.parameters():
            places = torch.arange(weight.numel()).reshape(weight.shape)
            weight.copy_(0.5 / max(1, weight[0].numel()) ** 0.5 * (places * 0.7).cos() + 0.01)
        net.norm.running_mean.copy_(torch.linspace(-0.3, 0.3, 8))  # type: ignore[union-attr]
    return net.eval()


def wrapped(wrap: Callable[[nn.Module], nn.Module]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        net = trained()
        for name in LAYERS:
            setattr(net, name, wrap(getattr(net, name)))
        net.eval()(IMAGES[:2])  # hooks compute weights, with a graph
        return net

    return make


def pruned(layer: nn.Module) -> nn.Module:
    return prune.l1_unstructured(layer, "weight", amount=0.3)


class Own(nn.Module):
    """A linear layer that does not know how to begin."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.weight.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight)


class Adapted(nn.Linear):
    """A linear layer with weights beside those that its initialisation knows of."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features)
        self.load_state_dict(layer.state_dict())
        self.down = nn.Parameter(layer.weight.detach()[:2].clone())
        self.up = nn.Parameter(layer.weight.detach()[:, :2].clone())

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 30 * x @ self.down.T @ self.up.T


def with_head(make: Callable[[nn.Linear], nn.Module]) -> Callable[[], nn.Module]:
    def whole() -> nn.Module:
        net = trained()
        net.head = make(net.head)  # type: ignore[assignment]
        return net

    return whole


class Doubling(nn.Module):
    """A parametrisation that cannot be gone backwards."""

    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def doubled(layer: nn.Module) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", Doubling())
    return layer


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.randn(1, 16, 8, generator=seeded(5)))
        self.patch, self.head = nn.Linear(4, 8), nn.Linear(8, 5)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)

    def forward(self, images: Tensor) -> Tensor:
        patches = images.unfold(2, 2, 2).unfold(3, 2, 2).reshape(len(images), 16, 4)
        return self.head(self.block(self.patch(patches) + self.place).mean(1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "plain": trained,
    "weight norm, hook": wrapped(weight_norm),
    "weight norm": wrapped(parametrizations.weight_norm),
    "spectral norm, hook": wrapped(spectral_norm),
    "spectral norm": wrapped(parametrizations.spectral_norm),
    "orthogonal": wrapped(parametrizations.orthogonal),
    "one-way parametrisation": wrapped(doubled),
    "pruned": wrapped(pruned),
    "own layer": with_head(Own),
    "adapter": with_head(Adapted),
    "attention": lambda: Attention().eval(),
}


def network(name: str) -> nn.Module:
    return built(NETWORKS[name])


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def weights(model: nn.Module) -> dict[str, Tensor]:
    """What layers compute with: parameters, and what parametrisations make of theirs."""
    found = {name: w for name, w in model.named_parameters() if ".parametrizations." not in name}
    for path, module in model.named_modules():
        if parametrize.is_parametrized(module):
            found |= {f"{path}.{name}": getattr(module, name) for name in module.parametrizations}
    return {name: weight.detach().clone() for name, weight in found.items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_that_was_learned_is_left(name: str) -> None:
    """Neither in the parameters nor in what the network computes, and the network itself is as it was."""
    model = network(name)
    before, learned, answers = state(model), weights(model), model(IMAGES).detach()
    controls = [untrained(model, seed) for seed in range(8)]
    assert state(model).keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in state(model).items())
    assert torch.equal(model(IMAGES), answers)
    gradient = input_gradient(model, IMAGES, labels=LABELS).flatten(1)
    cosines = []
    for control in controls:
        assert not any(module.training for module in control.modules())
        for path, weight in weights(control).items():
            if path in learned and learned[path].unique().numel() > 1:
                assert not torch.equal(weight, learned[path]), path
        other = input_gradient(control, IMAGES, labels=LABELS).flatten(1)
        assert other.isfinite().all()
        assert other.any()
        cosines.append(float(cosine_similarity(other, gradient).mean()))
    assert abs(sum(cosines) / 8) < 0.25, cosines  # of either sign; where weights were left it was above 0.49


@pytest.mark.parametrize("name", NETWORKS)
def test_controls_are_named_by_their_seed(name: str) -> None:
    model = network(name)
    first, again, other = (untrained(model, seed)(IMAGES) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


@pytest.mark.parametrize("name", ["spectral norm, hook", "spectral norm"])
def test_spectral_norms_are_those_of_the_new_weights(name: str) -> None:
    control = untrained(network(name), 0)
    for layer in LAYERS:
        weight = getattr(control, layer).weight.detach().flatten(1)
        assert float(torch.linalg.svdvals(weight)[0]) == pytest.approx(1, abs=0.02)


def test_orthogonal_weights_stay_orthogonal_and_are_others() -> None:
    model = network("orthogonal")
    new, old = (net.head.weight.detach() for net in (untrained(model, 0), model))  # type: ignore[union-attr, operator]
    torch.testing.assert_close(new @ new.T, torch.eye(5), rtol=0, atol=1e-4)
    assert float(cosine_similarity(new, old).abs().max()) < 0.5


def test_a_pruned_network_is_whole_again() -> None:
    control = untrained(network("pruned"), 0)
    assert all((weight != 0).all() for weight in control.parameters() if weight.ndim > 1)


def test_a_control_leaves_no_trace() -> None:
    model = network_with_batch_norm()
    traces = Traces(model)
    control = untrained(model, 0)
    traces.assert_none()
    assert torch.equal(control[1].running_mean, torch.zeros(5))  # type: ignore[index]


def test_where_there_is_no_control_the_reason_is_said() -> None:
    with pytest.raises(PagsError, match="no parameters that differ"):
        untrained(nn.Flatten(), 0)

    class Locked(nn.Linear):
        def __deepcopy__(self, memo: object) -> nn.Module:
            raise TypeError("cannot pickle a lock")

    with pytest.raises(PagsError, match=r"cannot be copied \(TypeError: cannot pickle a lock"):
        untrained(built(lambda: Locked(2, 2)), 0)

    class Stubborn(nn.Linear):
        """Whose weights come back whenever they are looked for."""

        def get_parameter(self, target: str) -> nn.Parameter:
            return nn.Parameter(super().get_parameter(target).clone())

        def reset_parameters(self) -> None:
            pass

    model = built(lambda: Stubborn(2, 2))
    with torch.no_grad():
        model.weight.copy_(torch.eye(2))
        model.bias.copy_(torch.arange(2))
    with pytest.raises(PagsError, match="got weight, bias as trained"):
        untrained(model, 0)
