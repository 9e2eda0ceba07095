"""The plain network: what its first layer is a function of, and what images it takes."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from conftest import seeded
from pags.classifiers.about import recipe
from pags.classifiers.build import build_classifier
from pags.classifiers.load import load_classifier
from pags.classifiers.plain import SMOOTHING, PlainNetwork, plain_widths
from pags.data.imageset import ImageSet
from pags.errors import UsageError
from pags.seeds import seeded_construction
from pags.store import Store
from pags.training.fit import IMAGES_TO_PREPARE, Plan, fit
from pags.training.objectives import CrossEntropy

pytestmark = pytest.mark.usefixtures("global_state_untouched")


def plain(channels: int = 3, name: str = "plain-4-6-8", activation: str = "gelu") -> PlainNetwork:
    with seeded_construction(0, "test"):
        model = build_classifier(
            name, channels, 5, activation=activation, mean=(0.5,) * channels, std=(0.25,) * channels
        )
    assert isinstance(model, PlainNetwork)
    return model


def textures(n: int = 60, channels: int = 3, size: int = 8) -> Tensor:
    """Images whose neighbouring pixels and colours go together, of a spread that `plain` takes for one."""
    rough = torch.randn(n, 1, size, size, generator=seeded(1)) + 0.5 * torch.randn(
        n, channels, size, size, generator=seeded(2)
    )
    return (0.5 + 0.2 * nn.functional.avg_pool2d(rough, 3, 1, 1) * 2).clamp(0, 1)


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (3, 64), (1, 8), (2, 5), (3, 2)])
def test_it_takes_images_of_any_size(channels: int, size: int) -> None:
    model = plain(channels)
    x = torch.rand(3, channels, size, size + 1, generator=seeded())
    model.prepare(x)
    assert model(x).shape == (3, 5)
    assert model.eval()(x[:1]).isfinite().all()


@pytest.mark.parametrize("channels", [1, 3])
def test_whitened_patches_are_uncorrelated_and_of_unit_variance(channels: int) -> None:
    """But for what is added to their variances v: what the filters give has covariance v / (v + added)."""
    model, x = plain(channels), textures(channels=channels)
    model.prepare(x)
    rows = unfold((x - 0.5) / 0.25, 2).movedim(1, -1).flatten(0, 1).double()
    variances = torch.linalg.svdvals(rows).square() / len(rows)
    out = model.whitening(model.normalise(x)).movedim(1, -1).flatten(0, 2).double()
    whitened = out[:, : 4 * channels]
    expected = torch.diag(variances / (variances + SMOOTHING))
    torch.testing.assert_close(whitened.T @ whitened / len(whitened), expected, rtol=1e-4, atol=1e-4)
    assert expected.diag().min() < 0.9 < expected.diag().max()
    torch.testing.assert_close(out[:, 4 * channels :], -whitened)
    assert int(model.whitening.patches) == len(rows)


def test_before_it_is_prepared_it_turns_patches_without_stretching_them() -> None:
    model = plain()
    first = model.whitening.filters[:12].flatten(1).double()
    torch.testing.assert_close(first @ first.T, torch.eye(12, dtype=torch.float64), rtol=0, atol=1e-6)
    # The first coordinate is the brightness, and a patch without contrast has nothing but colours.
    even = torch.rand(3, generator=seeded())[:, None].expand(3, 4).reshape(-1).double()
    seen = first @ even
    assert (seen.abs() > 1e-6).nonzero()[:, 0].tolist() == [0, 4, 8]


def test_it_is_prepared_once() -> None:
    model = plain()
    model.prepare(textures())
    before = model.whitening.filters.clone()
    model.prepare(1 - textures(30))
    assert torch.equal(model.whitening.filters, before)


def test_training_prepares_it_with_a_seeded_choice_and_leaves_its_filters_alone() -> None:
    pixels = textures(IMAGES_TO_PREPARE + 50, size=4)
    labels = torch.arange(len(pixels)) % 5
    data = ImageSet(pixels, labels, tuple("abcde"), "textures")
    plan = Plan(epochs=1, learning_rate=0.1, batch_size=512, weight_decay=0.1, average=0.9)
    model, twin = plain(), plain()
    list(fit(model, CrossEntropy(), data, plan, seed=3))
    twin.prepare(data.sample(IMAGES_TO_PREPARE, 3).images)
    assert torch.equal(model.whitening.filters, twin.whitening.filters)
    assert not torch.equal(model.whitening.bias, twin.whitening.bias)


def test_a_stored_network_needs_its_images_no_more(tmp_path: Path) -> None:
    model, x = plain(), textures()
    model.prepare(x)
    model.eval()
    store = Store(tmp_path)
    store.write_tensors("m.safetensors", model.state_dict(), {"classifier": recipe(model)})
    again = load_classifier(str(store.path("m.safetensors")))
    assert torch.equal(again(x), model(x))


def test_plain_weights_are_recognised(tmp_path: Path) -> None:
    """A file that does not say what it is of is loaded as the architecture that fits."""
    with seeded_construction(0, "test"):
        model = build_classifier("plain-32-128-128", 3, 10, mean=(0.0,) * 3, std=(1.0,) * 3)
    store = Store(tmp_path)
    store.write_tensors("m.safetensors", model.state_dict(), {})
    x = torch.rand(2, 3, 32, 32, generator=seeded())
    for said in (None, "plain-32-128-128"):
        again = load_classifier(str(store.path("m.safetensors")), architecture=said)
        assert torch.equal(again(x), model.eval()(x))


@pytest.mark.parametrize("activation", ["gelu", "softplus"])
def test_it_is_twice_differentiable(activation: str) -> None:
    model = plain(1, "plain-2-2-2", activation).double().eval()
    x = torch.rand(1, 1, 6, 6, generator=seeded(), dtype=torch.float64, requires_grad=True)
    with torch.random.fork_rng(devices=[]):
        assert torch.autograd.gradgradcheck(model, x)


def test_names() -> None:
    assert plain_widths("plain-32-128-96") == (32, 128, 96)
    for name in ("plain", "plain-32-128", "plain-0-1-1", "plain-3-3-3-3", "xplain-1-1-1", "plain-1-1-1x"):
        assert plain_widths(name) is None
    with pytest.raises(UsageError, match="activation"):
        plain(activation="tanh")
    with pytest.raises(UsageError, match="plain-32-128-128"):
        plain(name="plain-32-128")
