"""Checkpoints and architectures as people have them, in files made here, and published ones where present."""

import gzip
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from conftest import built, seeded, used
from pags.checkpoints import read, state_dict_in
from pags.classifiers.about import describe
from pags.classifiers.load import load_classifier
from pags.errors import PagsError

pytestmark = pytest.mark.usefixtures("global_state_untouched")

State = dict[str, Tensor]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SHARED = Path(__file__).parents[2] / "shared" / "data"
PUBLISHED = SHARED / "published"


def saved(content: Any, path: Path) -> str:
    torch.save(content, path)
    return str(path)


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: value for name, value in state.items()}


def normalise(x: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    return (x - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)


def same(model: nn.Module, expected: Tensor, x: Tensor) -> None:
    with torch.no_grad():
        assert torch.allclose(model(x), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def refused(message: str, spec: str, **options: Any) -> str:
    with pytest.raises(PagsError, match=message) as caught:
        load_classifier(spec, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value.suggestion)


# --- what stands beside the network ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def imagenet18() -> nn.Module:
    from torchvision import models

    def make() -> nn.Module:
        net = models.resnet18(num_classes=10)
        used(net)
        return net

    return built(make).eval()


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.rand(2, 3, 32, 32, generator=seeded())


MEANS = {"mean": torch.tensor(IMAGENET[0]), "std": torch.tensor(IMAGENET[1])}


def inner(state: State, word: str) -> State:
    """The names with a wrapper's word inside, as FSDP and compiled blocks have them."""
    return {
        name.replace("layer", f"{word}.layer").replace(".conv1", f".{word}.conv1"): state[name]
        for name in state
    }


BESIDE: dict[str, Callable[[State], State]] = {
    "alone": lambda s: prefixed(s, "model."),
    "weights of the loss": lambda s: {**prefixed(s, "model."), "criterion.pos_weight": torch.tensor(3.2)},
    "class weights": lambda s: {**prefixed(s, "model."), "loss_fn.weight": torch.ones(10)},
    "loss in a bare file": lambda s: {**s, "loss.weight": torch.ones(10)},
    "counts of a metric": lambda s: {**prefixed(s, "model."), "pl_accuracy.correct": torch.tensor(1)},
    "confusion of a metric": lambda s: {**prefixed(s, "net."), "train_acc.confmat": torch.zeros(10, 10)},
    "a moving average": lambda s: {**prefixed(s, "model."), **prefixed(s, "model_ema.module.")},
    "a teacher": lambda s: {**prefixed(s, "network."), **prefixed(s, "teacher.")},
    "a student": lambda s: {**prefixed(s, "student."), **prefixed(s, "teacher.")},
    "AveragedModel": lambda s: {"n_averaged": torch.tensor(3), **prefixed(s, "module.")},
    "FSDP": lambda s: prefixed(inner(s, "_fsdp_wrapped_module"), "_fsdp_wrapped_module."),
    "compiled blocks": lambda s: inner(s, "_orig_mod"),
    "parallel blocks": lambda s: inner(s, "module"),
    "a name that nobody knows": lambda s: prefixed(s, "my_net_of_friday."),
    "a normaliser beside the model": lambda s: {
        **prefixed(s, "model."), **prefixed(MEANS, "normalizer."), "criterion.weight": torch.ones(10)
    },
    "a normaliser's own names": lambda s: {
        **prefixed(s, "net."), "pixel_mean": 255 * MEANS["mean"], "pixel_std": 255 * MEANS["std"]
    },
    "underscores": lambda s: {**prefixed(s, "net."), "_mean": MEANS["mean"], "_std": MEANS["std"]},
    "mu and sigma": lambda s: {**prefixed(s, "1."), "0.mu": MEANS["mean"], "0.sigma": MEANS["std"]},
}  # fmt: skip


@pytest.mark.parametrize("what", BESIDE)
def test_what_stands_beside_a_network_does_not_block_it(
    what: str, imagenet18: nn.Module, x: Tensor, tmp_path: Path
) -> None:
    state = BESIDE[what](imagenet18.state_dict())
    path = saved({"state_dict": state, "epoch": 3}, tmp_path / "a.ckpt")
    model = load_classifier(path)
    same(model, imagenet18(normalise(x, *IMAGENET)), x)  # torchvision's networks have ImageNet's unless told
    about = describe(model)
    in_file = any(word in what for word in ("normaliser", "underscores", "sigma"))
    assert about["normalisation"] == ("in the file" if in_file else "of torchvision")
    left = about.get("left out", [])
    assert len(left) == len(state) - len(imagenet18.state_dict()) - 2 * in_file


def test_a_tensor_that_nobody_knows_is_named_and_dropped_on_request(
    imagenet18: nn.Module, x: Tensor, tmp_path: Path
) -> None:
    state = prefixed(imagenet18.state_dict(), "model.")
    path = saved(state | {"projector.0.weight": torch.ones(3, 3)}, tmp_path / "a.pt")
    suggestion = refused(r"1 unknown \(projector.0.weight\)", path, architecture="resnet18")
    assert suggestion == "?ignore=projector behind the file's name"
    model = load_classifier(f"{path}?ignore=projector&arch=resnet18")
    same(model, imagenet18(normalise(x, *IMAGENET)), x)
    same(load_classifier(f"{path}?key=model"), imagenet18(normalise(x, *IMAGENET)), x)  # a prefix does it too


def test_two_normalisations_in_a_file_are_not_chosen_from(imagenet18: nn.Module, tmp_path: Path) -> None:
    others = {"old.mean": torch.zeros(3), "old.std": torch.ones(3), **prefixed(MEANS, "normalize.")}
    path = saved(imagenet18.state_dict() | others, tmp_path / "a.pt")
    suggestion = refused("one normalisation", path)
    load_classifier(path + suggestion)


PLACES: dict[str, tuple[Callable[[State, State], Any], str | None, str]] = {
    "a list of one": (lambda s, o: {"state_dict": [s], "epoch": 1}, None, "state_dict.0"),
    "accuracy first": (lambda s, o: {"acc": torch.tensor(0.9), "state_dict": [s]}, None, "state_dict.0"),
    "a list of two": (lambda s, o: {"state_dict": [s, o]}, "state_dict.0", "state_dict.0"),
    "an unusual key": (lambda s, o: {"my_net": s, "optimizer": {"state": {}}}, None, "my_net"),
    "nested": (lambda s, o: {"best": {"weights": s}, "epoch": 3}, None, "best.weights"),
    "of two unusual keys": (lambda s, o: {"encoder": s, "decoder": o}, "encoder", "encoder"),
    "a prefix": (lambda s, o: {"state_dict": prefixed(s, "g.") | prefixed(o, "h.")}, "g", "state_dict.g"),
    "numbers beside the tensors": (lambda s, o: {**s, "epoch": 3}, None, ""),
}


@pytest.mark.parametrize("what", PLACES)
def test_a_state_dict_is_found_wherever_it_is(what: str, tmp_path: Path) -> None:
    nets = [built(lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 4)), seed=seed) for seed in (0, 1)]
    make, key, place = PLACES[what]
    path = saved(make(nets[0].state_dict(), nets[1].state_dict()), tmp_path / "a.pt")
    images = torch.rand(2, 3, 2, 2, generator=seeded())
    model = load_classifier(path + (f"?key={key}" if key else ""), size=(2, 2))
    same(model, nets[0](images), images)
    where, tensors = state_dict_in(read(Path(path)), key)  # what `pags convert` writes
    assert where == place
    assert all(torch.equal(tensors[name], value) for name, value in nets[0].state_dict().items())


def test_of_several_state_dicts_every_one_is_named(tmp_path: Path) -> None:
    state = {"0.weight": torch.ones(2, 2)}
    path = saved({"encoder": state, "decoder": state}, tmp_path / "a.pt")
    suggestion = refused(r"2 of them \(encoder, decoder\)", path)
    assert "?key=encoder" in suggestion
    assert "?key=encoder" in refused("under 'encodr'", f"{path}?key=encodr")


# --- architectures ---------------------------------------------------------------------------------------


class HeBlock(nn.Module):
    """Section 4.2 of He et al. (2016): identity shortcuts, zero-padded where the width doubles."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.stride = outside // inside
        self.conv1 = nn.Conv2d(inside, outside, 3, self.stride, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outside), nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        if self.stride == 2:
            extra = x.shape[1] // 2
            x = pad(x[:, :, ::2, ::2], (0, 0, 0, 0, extra, extra))
        return (out + x).relu()


class HeNet(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        for stage, (a, b) in enumerate([(16, 16), (16, 32), (32, 64)], 1):
            blocks = [HeBlock(a if place == 0 else b, b) for place in range(n)]
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)
        used(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        for stage in (1, 2, 3):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.linear(x.mean((2, 3)))


class PreBlock(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(inside), nn.BatchNorm2d(outside)
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        if inside != outside:
            self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        active = self.bn1(x).relu()
        around = self.shortcut(active) if hasattr(self, "shortcut") else x
        return self.conv2(self.bn2(self.conv1(active)).relu()) + around


class PreActNet(nn.Module):
    def __init__(self, last: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        inside = 64
        for stage, width in enumerate((64, 128, 256, 512), 1):
            blocks = nn.Sequential(PreBlock(inside, width, 1 + (stage > 1)), PreBlock(width, width, 1))
            self.add_module(f"layer{stage}", blocks)
            inside = width
        if last:
            self.bn = nn.BatchNorm2d(512)
        self.linear = nn.Linear(512, 10)
        used(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for stage in (1, 2, 3, 4):
            x = self.get_submodule(f"layer{stage}")(x)
        x = self.bn(x).relu() if hasattr(self, "bn") else x
        return self.linear(x.mean((2, 3)))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "cifar-resnet20": lambda: HeNet(3), "cifar-resnet56": lambda: HeNet(9),
    "preact-resnet18": lambda: PreActNet(True), "preact-resnet18-plain": lambda: PreActNet(False),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_the_field_are_recognised_and_give_the_same(name: str, x: Tensor, tmp_path: Path) -> None:
    peer = built(NETWORKS[name]).eval()
    path = saved({"state_dict": prefixed(peer.state_dict(), "module.")}, tmp_path / "a.th")
    model = load_classifier(f"{path}?normalise=imagenet")
    same(model, peer(normalise(x, *IMAGENET)), x)
    about = describe(model)
    assert (about["architecture"], about["recognised"], about["normalisation"]) == (name, True, "given")
    named = load_classifier(f"{path}?arch={name.removesuffix('-plain')}")
    same(named, peer(x), x)


def wong(pad: int = 1) -> nn.Sequential:
    features = [nn.Conv2d(3, 4, 4, 2, pad), nn.ReLU(), nn.Conv2d(4, 8, 4, 2, pad), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*features, nn.Linear(8 * (8 if pad else 6) ** 2, 20), nn.ReLU(), nn.Linear(20, 10))


def mixed() -> nn.Sequential:
    features = [
        nn.Conv2d(3, 4, 3, 1, 1), nn.ReLU(), nn.Conv2d(4, 4, 4, 2, 1), nn.ReLU(),
        nn.Conv2d(4, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 8, 4, 2, 1), nn.ReLU(), nn.Flatten(),
    ]  # fmt: skip
    return nn.Sequential(*features, nn.Linear(512, 10))


def normed() -> nn.Sequential:
    layers = [
        nn.Conv2d(3, 4, 5, 2, 2, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1024, 7),
    ]
    return nn.Sequential(*layers)


def perceptron() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 9), nn.ReLU(), nn.Linear(9, 10))


SEQUENTIAL: dict[str, tuple[Callable[[], nn.Sequential], str]] = {
    "two halvings": (wong, ""), "without padding": (lambda: wong(0), ""), "normed": (normed, ""),
    "kernels of two sizes": (mixed, ""), "linear layers": (perceptron, ""),
    "a prefix and a wrapper": (wong, "module.net."),
}  # fmt: skip


@pytest.mark.parametrize("what", SEQUENTIAL)
def test_sequential_networks_are_built_from_the_shapes_of_their_weights(
    what: str, x: Tensor, tmp_path: Path
) -> None:
    make, prefix = SEQUENTIAL[what]

    def with_statistics() -> nn.Module:
        used(net := make())
        return net

    peer = built(with_statistics).eval()
    model = load_classifier(saved(prefixed(peer.state_dict(), prefix), tmp_path / "a.model"), size=(32, 32))
    same(model, peer(x), x)
    assert describe(model)["architecture"].startswith("sequential: ")


class LeNet(nn.Module):
    def __init__(self, pooled: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, 1 if pooled else 2, 1)
        self.conv2 = nn.Conv2d(4, 8, 3, 1 if pooled else 2, 1)
        self.linear1, self.linear2 = nn.Linear(8 * 49, 20), nn.Linear(20, 10)
        self.pool = nn.MaxPool2d(2) if pooled else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.conv2(self.pool(self.conv1(x).relu())).relu())
        return self.linear2(self.linear1(x.flatten(1)).relu())


@pytest.mark.parametrize(("pooled", "option"), [(True, "?pool=2"), (False, "?stride=2")])
def test_shapes_with_two_readings_need_the_option_that_the_error_names(
    pooled: bool, option: str, tmp_path: Path
) -> None:
    peer = built(lambda: LeNet(pooled)).eval()
    path = saved(peer.state_dict(), tmp_path / "lenet.pt")
    suggestion = refused("2 of them", path, channels=1)
    assert option in suggestion
    images = torch.rand(3, 1, 28, 28, generator=seeded())
    same(load_classifier(path + option, channels=1), peer(images), images)
    same(load_classifier(f"{path}{option}&arch=sequential", channels=1), peer(images), images)


def test_shapes_that_fit_no_size_say_so(tmp_path: Path) -> None:
    path = saved(built(wong).state_dict(), tmp_path / "a.pt")
    assert "?size=" in refused("from 20×20 pixels to 512 numbers; got none", path, size=(20, 20))
    load_classifier(f"{path}?size=32", size=(20, 20))
    refused("1 for each of|one for each of 2 convolutions", f"{path}?stride=2,2,2")
    refused("try classes=10", path, classes=7)
    refused("a sequential", path, channels=1, architecture="sequential")


def test_an_activation_that_shapes_do_not_show_can_be_said(x: Tensor, tmp_path: Path) -> None:
    layers: Callable[[], nn.Sequential] = lambda: nn.Sequential(  # noqa: E731
        nn.Flatten(), nn.Linear(3072, 9), nn.GELU(), nn.Linear(9, 10)
    )
    peer = built(layers)
    path = saved(peer.state_dict(), tmp_path / "a.pt")
    same(load_classifier(f"{path}?activation=gelu"), peer(x), x)
    refused("an activation among", f"{path}?activation=swish")


# --- options in a spec -----------------------------------------------------------------------------------


def test_options_of_a_spec_go_before_the_arguments(x: Tensor, tmp_path: Path) -> None:
    peer = built(perceptron)
    path = saved(peer.state_dict(), tmp_path / "a.pt")
    spec = f"{path}?mean=.5&std=.25,.25,.25&classes=10"
    same(load_classifier(spec, mean=(0, 0, 0), std=(1, 1, 1), classes=3), peer((x - 0.5) / 0.25), x)
    assert describe(load_classifier(spec))["spec"] == spec
    same(load_classifier(path, normalise="none"), peer(x), x)
    same(load_classifier(f"{path}?normalise=cifar10"), load_classifier(path, normalise="cifar10")(x), x)
    refused("mean and std together", f"{path}?mean=.5")
    refused("mean and std, or normalise", f"{path}?mean=.5&std=.5&normalise=none")
    refused("normalise as one of imagenet", f"{path}?normalise=mnist")
    refused("mean as numbers", f"{path}?mean=half&std=1")
    refused("mean and std of 3 channels", f"{path}?mean=.5,.5&std=1,1")
    refused("with options among", f"{path}?weights=DEFAULT")


def test_a_function_of_a_user_can_be_normalised(x: Tensor, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from torch import nn\ndef f(): return lambda x: x.mean((2, 3)) * 3\n")
    model = load_classifier(f"{tmp_path / 'mine.py'}:f?mean=.5&std=.25")
    same(model, 12 * (x.mean((2, 3)) - 0.5), x)
    assert describe(model)["normalisation"] == "given, before what the code has"


def test_names_of_libraries_mean_trained_weights(
    monkeypatch: pytest.MonkeyPatch, imagenet18: nn.Module
) -> None:
    asked: list[str] = []

    def closed(url: str, **options: Any) -> State:
        asked.append(url)
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", closed)
    refused("no network", "torchvision:resnet18")
    assert "resnet18" in asked[0]
    assert describe(load_classifier("torchvision:resnet18?untrained"))["weights"] == "untrained, seed 0"
    refused("three channels", "torchvision:resnet18", channels=1)
    assert load_classifier("torchvision:resnet18?untrained", channels=1)(torch.zeros(1, 1, 32, 32)).shape == (
        1,
        1000,
    )
    vit = load_classifier("torchvision:vit_b_32?untrained", size=(64, 64), classes=3)
    assert vit(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


# --- suggestions -----------------------------------------------------------------------------------------


def applied(suggestion: str, spec: str, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The request with the first alternative of a suggestion done to it, in the words of the suggestion."""
    first = re.split(r" or |, which|, for which| behind", suggestion)[0]
    if found := re.search(r"(?:^|\()(architecture|classes|channels|outputs|normalise)=(.*?)(?:\)|$)", first):
        name, value = found.groups()
        return spec.partition("?")[0], options | {name: int(value) if value.isdecimal() else value.strip("'")}
    if leaving := re.match(r"leaving (.*?) out", first):
        return spec, {key: value for key, value in options.items() if key not in leaving.group(1)}
    if first.startswith("?"):
        return spec.partition("?")[0] + first, options
    if ":" not in first:
        return spec, options | {"architecture": first}
    fresh = "" if "?" in first else "?untrained"  # without the network
    return first + fresh, {key: value for key, value in options.items() if key == "channels"}


def requests(folder: Path, net: nn.Module) -> dict[str, tuple[str, dict[str, Any]]]:
    """Requests that cannot be granted, each of which is told what to try."""
    state = net.state_dict()
    path = {name: saved(content, folder / f"{name}.pt") for name, content in {
        "plain": state, "stray": state | {"projector.weight": torch.ones(2)},
        "lenet": LeNet(True).state_dict(),
        "grey": state | {"conv1.weight": state["conv1.weight"].sum(1, keepdim=True)}, "two": [state, state],
        "normalised": state | prefixed(MEANS, "normalizer."), "several": {"encoder": state, "decoder": state},
    }.items()}  # fmt: skip
    (folder / "mine.py").write_text("def f(): return lambda x: x.mean((2, 3)).softmax(1)")
    return {
        "an architecture of another name": (path["plain"], {"architecture": "resnet34"}),
        "an architecture that nobody knows": (path["plain"], {"architecture": "resnet18x"}),
        "another number of classes": (path["plain"], {"classes": 100}),
        "grey weights for colour": (path["grey"], {"architecture": "torchvision:resnet18"}),
        "a stray tensor": (path["stray"], {"architecture": "resnet18"}),
        "several state dicts": (path["several"], {}),
        "a list of state dicts": (path["two"], {}),
        "a key that is not there": (f"{path['several']}?key=encodr", {}),
        "another normalisation": (path["normalised"], {"mean": (0.5,) * 3, "std": (1.0,) * 3}),
        "strides with two readings": (path["lenet"], {"channels": 1}),
        "a network of torchvision": ("resnet18", {}),
        "a misspelt network of torchvision": ("torchvision:resnet81", {}),
        "grey images for trained weights": ("torchvision:resnet18", {"channels": 1}),
        "no such normalisation": (f"{path['plain']}?normalise=imagenett", {}),
        "no such outputs": (f"{path['plain']}?outputs=cats", {}),
    }


REQUESTS = (
    "an architecture of another name", "an architecture that nobody knows", "another number of classes",
    "grey weights for colour", "a stray tensor", "several state dicts", "a list of state dicts",
    "a key that is not there", "another normalisation", "strides with two readings",
    "a network of torchvision", "a misspelt network of torchvision", "grey images for trained weights",
    "no such normalisation",
    "no such outputs",
)  # fmt: skip


@pytest.mark.parametrize("what", REQUESTS)
def test_a_suggestion_applied_to_its_request_works(what: str, imagenet18: nn.Module, tmp_path: Path) -> None:
    asked = built(lambda: Holder(requests(tmp_path, imagenet18))).requests
    assert set(asked) == set(REQUESTS)
    spec, options = asked[what]
    suggestion = refused("expected", spec, **options)
    spec, options = applied(suggestion, spec, options)
    load_classifier(spec, **options)


class Holder(nn.Module):
    def __init__(self, requests: dict[str, tuple[str, dict[str, Any]]]) -> None:
        super().__init__()
        self.requests = requests


def test_a_file_without_its_head_is_told_so_without_a_circle(imagenet18: nn.Module, tmp_path: Path) -> None:
    state = {name: value for name, value in imagenet18.state_dict().items() if not name.startswith("fc.")}
    path = saved(state, tmp_path / "a.pt")
    assert "the last layer" in refused("2 missing", path, architecture="torchvision:resnet18")


def test_a_damaged_file_of_the_user_is_not_to_be_removed(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    assert refused("a.safetensors", str(tmp_path / "a.safetensors")) == "another copy of the file"


# --- published networks ----------------------------------------------------------------------------------

WONG = "mean=.485,.456,.406&std=.225"
CIFAR = "mean=.4914,.4824,.4467&std=.2471,.2435,.2616"
FILES = {
    "resnet20-12fca82f.th": ("normalise=imagenet", 0.925),
    "resnet56-4bfd9763.th": ("normalise=imagenet", 0.945),
    "cifar_cnn_a_adv.model": (CIFAR, 0.700),
    "cifar_cnn_a_mix4.model": (CIFAR, 0.745),
    "cifar_wide.pth": (WONG, 0.640),
    "cifar_base.pth": (WONG, 0.580),
    "cifar_conv_small_pgd.pth": ("mean=.4914,.4822,.4465&std=.2023,.1994,.2010", 0.645),
    "cifar_small_36px.pth": (f"key=state_dict.0&{WONG}", 0.575),
    "mnist_lenet5_clntrained.pt": ("pool=2", 0.990),
    "mnist_lenet5_advtrained.pt": ("pool=2", 0.988),
}
"""Options beside which normalisation one at most, and the accuracy that others have measured."""


def mnist() -> tuple[Tensor, Tensor]:
    parts = [("t10k-images-idx3-ubyte.gz", 16), ("t10k-labels-idx1-ubyte.gz", 8)]
    pixels, labels = (
        torch.from_numpy(
            np.frombuffer(gzip.decompress((SHARED / "mnist" / name).read_bytes()), np.uint8, offset=n).copy()
        )
        for name, n in parts
    )
    return pixels.view(-1, 1, 28, 28)[:2000].float() / 255, labels[:2000].long()


def cifar() -> tuple[Tensor, Tensor]:
    arrays = np.load(PUBLISHED / "cifar10-lossless-test.npz")
    return torch.from_numpy(arrays["images"]).float() / 255, torch.from_numpy(arrays["labels"]).long()


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published networks are not here")
@pytest.mark.parametrize("file", FILES)
def test_published_networks_have_their_accuracy(file: str) -> None:
    options, accuracy = FILES[file]
    images, labels = mnist() if "mnist" in file else cifar()
    model = load_classifier(
        f"{PUBLISHED / file}?{options}", channels=images.shape[1], size=(images.shape[2], images.shape[3])
    )
    with torch.no_grad():
        assert float((model(images).argmax(1) == labels).float().mean()) == pytest.approx(accuracy, abs=0.02)


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published networks are not here")
def test_a_published_network_without_normalisation_layers_is_built_from_its_shapes() -> None:
    images, labels = cifar()
    path = PUBLISHED / "resnet4b.pth"
    model = load_classifier(f"{path}?normalise=cifar10")
    with torch.no_grad():
        accuracy = float((model(images).argmax(1) == labels).float().mean())
    assert (
        accuracy > read(path)["test_acc"] - 0.06
    )  # which its training noted; two standard errors of 200 images
