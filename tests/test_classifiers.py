"""Architectures against the libraries' own networks, and the contract that any classifier is held to."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from conftest import Linear, built, seeded, smooth_network, used
from pags.classifiers.about import describe, recipe, weights_sha256
from pags.classifiers.build import ARCHITECTURES, build_classifier
from pags.classifiers.check import check_classifier
from pags.errors import PagsError, UsageError
from pags.seeds import seeded_construction

pytestmark = pytest.mark.usefixtures("global_state_untouched")

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def build(name: str, channels: int = 3, classes: int = 10, **options: Any) -> nn.Module:
    """The architecture with plain numbers, in evaluation mode."""
    mean, std = (0.5,) * channels, (0.25,) * channels
    with seeded_construction(0, "test"):
        return build_classifier(name, channels, classes, **{"mean": mean, "std": std, **options}).eval()


def images(n: int = 2, channels: int = 3, height: int = 16, width: int = 16) -> Tensor:
    return torch.rand(n, channels, height, width, generator=seeded())


def normalised(x: Tensor) -> Tensor:
    """What the user of a library does before calling its network."""
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


# --- the table -------------------------------------------------------------------------------------------


def test_the_papers_network_has_as_many_weights_as_everyone_elses() -> None:
    assert sum(p.numel() for p in build("resnet18").parameters()) == 11_173_962


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("resnet34", 21_282_122), ("resnet50", 23_520_842),
        ("wide-resnet-28-10", 36_479_194), ("wide-resnet-34-10", 46_160_474),
    ],
)  # fmt: skip
def test_deeper_networks_have_the_numbers_of_weights_known_for_cifar(name: str, weights: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in build(name).parameters()) == weights


@pytest.mark.parametrize("name", ["resnet18-224", "torchvision:resnet18"])
def test_resnet18_224_is_torchvisions_fed_with_normalised_images(name: str) -> None:
    from torchvision import models

    model = build(name, classes=7, mean=MEAN, std=STD)
    with seeded_construction(0, "test"):
        peer = models.resnet18(num_classes=7).eval()
    x = images(height=64, width=64)
    assert torch.equal(model(x), peer(normalised(x)))


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "mobilenet_v3_small", "wide_resnet50_4"])
def test_other_networks_of_torchvision_too(name: str) -> None:
    from torchvision import models

    with torch.device("meta"):  # names and shapes only
        model = build(f"torchvision:{name}", classes=7)
        if name == "wide_resnet50_4":
            # Salman et al. (2020): twice the inner width of wide_resnet50_2.
            narrow = dict(models.wide_resnet50_2(num_classes=7).named_parameters())
            wide = dict(model.network.named_parameters())  # type: ignore[union-attr]
            assert wide["layer3.1.conv2.weight"].shape[0] == 2 * narrow["layer3.1.conv2.weight"].shape[0]
            assert wide["fc.weight"].shape == narrow["fc.weight"].shape
            return
        peer = models.get_model(name, num_classes=7)
    found = {key.removeprefix("network."): value.shape for key, value in model.state_dict().items()}
    assert {key: found[key] for key in found if "normalise" not in key} == {
        key: value.shape for key, value in peer.state_dict().items()
    }


def test_timms_network_is_fed_with_normalised_images() -> None:
    timm = pytest.importorskip("timm")
    model = build("timm:resnet10t", classes=7, mean=MEAN, std=STD)
    with seeded_construction(0, "test"):
        peer = timm.create_model("resnet10t", num_classes=7).eval()
    x = images(height=32, width=32)
    assert torch.equal(model(x), peer(normalised(x)))


def test_a_vision_transformer_is_built_for_the_size_of_the_images() -> None:
    pytest.importorskip("timm")
    assert build("timm:vit_tiny_patch16_224", size=(32, 48))(images(height=32, width=48)).shape == (2, 10)
    with torch.device("meta"):
        vit = build("torchvision:vit_b_32", size=(64, 64))
    assert vit.state_dict()["network.encoder.pos_embedding"].shape[1] == 4 + 1  # patches and the class token
    with pytest.raises(UsageError, match="square"):
        build("torchvision:vit_b_32", size=(64, 32))


@pytest.mark.parametrize("name", ["small-resnet", "resnet18", "wide-resnet-16-4", "resnet18-224"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (56, 28), (64, 64)])
def test_any_size_and_number_of_channels_goes_in(name: str, channels: int, size: tuple[int, int]) -> None:
    logits = build(name, channels, 4)(images(1, channels, *size))
    assert logits.shape == (1, 4)
    assert bool(logits.isfinite().all())


def test_a_large_image_goes_in() -> None:
    assert build("small-resnet")(images(1, 3, 224, 224)).shape == (1, 10)
    assert build("resnet18-224")(images(1, 3, 224, 224)).shape == (1, 10)


@pytest.mark.parametrize("name", ["small-resnet", "resnet18-224"])
@pytest.mark.parametrize("activation", ["softplus", "gelu"])
def test_smooth_networks_have_the_second_derivative_that_differences_have(name: str, activation: str) -> None:
    model = build(name, classes=3, activation=activation).double()
    x = images(1, 3, 8, 8).double()
    direction = torch.randn(x.shape, generator=seeded(1), dtype=torch.float64)
    direction /= direction.norm()

    def slope(x: Tensor, create_graph: bool = False) -> Tensor:
        x = x.detach().requires_grad_() if not create_graph else x
        return torch.autograd.grad(model(x)[0, 1], x, create_graph=create_graph)[0]

    leaf = x.clone().requires_grad_()
    curvature = torch.autograd.grad((slope(leaf, create_graph=True) * direction).sum(), leaf)[0]
    step = 1e-5
    expected = (slope(x + step * direction) - slope(x - step * direction)) / (2 * step)
    assert float(expected.norm()) > 1e-6
    assert torch.allclose(curvature, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet81", {}, "try resnet18"),
        ("wide_resnet50_2", {}, "torchvision:wide_resnet50_2"),
        ("torchvision:resnet81", {}, "torchvision:resnet18"),
        ("torchvision:", {}, "an architecture among"),
        ("torchvision:vgg11", {"activation": "gelu"}, "vgg11 has"),
        ("resnet18-224", {"activation": "tanh"}, "relu, softplus, gelu"),
        ("small-resnet", {"mean": (0.5,)}, "3 channels"),
        ("small-resnet", {"std": (0.5, 0.0, 0.5)}, "above zero"),
        ("small-resnet", {"classes": 0}, "at least one"),
    ],
)
def test_what_cannot_be_built_is_said(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        build(name, **options)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_of_timm_is_answered_with_names_that_are_close() -> None:
    pytest.importorskip("timm")
    with pytest.raises(UsageError, match="timm:convnext_atto"):
        build("timm:convnext_ato")
    with pytest.raises(UsageError, match=r"resnet50\.a1_in1k"):
        build("timm:resnet50.of_mine")
    with pytest.raises(UsageError, match="activation that timm"):
        build("timm:resnet10t", activation="gelu")


def test_without_timm_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(PagsError, match=r"pip install -e '\.\[timm\]'"):
        build("timm:resnet18")


def test_the_recipe_builds_the_same_network_again() -> None:
    model = build("small-resnet", 1, 5, activation="softplus", mean=(0.1,), std=(0.3,))
    again = recipe(model)
    assert again is not None
    with seeded_construction(0, "test"):
        twin = build_classifier(**again).eval()
    assert torch.equal(twin(images(channels=1)), model(images(channels=1)))


def test_every_plain_name_of_the_table_can_be_built() -> None:
    for name in ARCHITECTURES:
        if ":" not in name:
            with torch.device("meta"):
                assert recipe(build(name)) is not None


# --- the contract ----------------------------------------------------------------------------------------


class Outputs(nn.Module):
    """A linear classifier, and then something done to its logits."""

    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.linear = Linear(torch.randn(4, 12, generator=seeded()))
        self.change = change

    def forward(self, x: Tensor) -> Any:
        return self.change(self.linear(x))


class ByBatch(nn.Module):
    """BatchNorm with the statistics of the batch, in evaluation mode too."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) - x.flatten(1).mean(0)


TINY = torch.rand(3, 3, 2, 2, generator=seeded(1))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_an_honest_classifier_passes_and_keeps_its_mode(n: int) -> None:
    net = built(lambda: nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 4)))
    check_classifier(net, TINY[:n], 4)
    assert net.training
    check_classifier(smooth_network(12), TINY[:n].double())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Outputs(lambda y: (y, y)), "a tuple"),
        (Outputs(lambda y: y[0]), r"shape \(4,\)"),
        (Outputs(lambda y: y.argmax(1, keepdim=True).expand(-1, 4)), "not labels"),
        (Outputs(lambda y: y[:, :3]), r"\(3, 4\)"),
        (Outputs(lambda y: y * math.nan), "NaN or infinity in 3 of 3"),
        (Outputs(lambda y: y.detach()), "do not depend on them"),
        (Outputs(lambda y: 0 * y), "zero for every image"),
        (Outputs(lambda y: y.abs().detach().sqrt() + (y - y.detach()).abs().sqrt()), "NaN or infinity"),
        (Outputs(lambda y: y + 10 * len(y)), "alone"),
        (nn.Sequential(ByBatch(), nn.Linear(12, 4)), "rest of its batch"),
    ],
)
def test_what_breaks_the_contract_is_named(model: nn.Module, message: str) -> None:
    with pytest.raises(PagsError, match=message):
        check_classifier(model, TINY, 4)


def test_one_image_is_enough_to_find_a_classifier_that_looks_at_its_batch() -> None:
    with pytest.raises(PagsError, match="beside another image"):
        check_classifier(Outputs(lambda y: y + y.mean(0)), TINY[:1])


def test_no_image_is_not_enough() -> None:
    with pytest.raises(UsageError, match="at least one image"):
        check_classifier(Outputs(lambda y: y), TINY[:0])


# --- what is said of a classifier -------------------------------------------------------------------------


@given(st.permutations(["a", "b", "c", "d"]))
def test_the_fingerprint_does_not_depend_on_the_order(order: list[str]) -> None:
    tensors = {
        "a": torch.arange(6.0).reshape(2, 3),
        "b": torch.tensor(3),
        "c": torch.ones(2, dtype=torch.bfloat16),
        "d": torch.arange(6.0).reshape(3, 2).T,
    }
    assert weights_sha256({name: tensors[name] for name in order}) == weights_sha256(tensors)


@pytest.mark.parametrize(
    "other",
    [
        {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0])},
        {"b": torch.tensor([1.0]), "a": torch.tensor([2.0, 3.0])},
        {"a": torch.tensor([1.0]), "b": torch.tensor([2.0, 3.0 + 1e-6])},
        {"a": torch.tensor([1.0]), "b": torch.tensor([2.0, 3.0]).double()},
        {"a": torch.tensor([1.0]).view(torch.int32), "b": torch.tensor([2.0, 3.0])},
        {"a": torch.tensor([1.0]), "b": torch.tensor([[2.0, 3.0]])},
        {"a": torch.tensor([1.0])},
    ],
)
def test_the_fingerprint_depends_on_everything_else(other: dict[str, Tensor]) -> None:
    first = {"a": torch.tensor([1.0]), "b": torch.tensor([2.0, 3.0])}
    assert weights_sha256(first) != weights_sha256(other)


def test_a_model_of_unknown_origin_can_be_described() -> None:
    about = describe(Linear(torch.ones(4, 12)))
    assert (about["parameters"], about["spec"], about["recipe"]) == (52, None, None)
    assert describe(Outputs(lambda y: y))["sha256"] != about["sha256"]


def test_what_is_known_goes_with_a_copy_and_the_fingerprint_with_the_weights() -> None:
    model = build("small-resnet")
    twin = copy.deepcopy(model)
    assert describe(twin) == describe(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        used(twin)
    assert describe(twin)["sha256"] != describe(model)["sha256"]
