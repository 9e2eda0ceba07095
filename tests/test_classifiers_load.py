"""Models that others wrote, in files made here in the formats that others write; outputs must stay equal.

The networks are written out below, in the layout and with the names of the usual CIFAR code; no file comes
from one of those projects.
"""

import importlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from conftest import built, seeded, used
from pags.classifiers.about import describe, recipe, weights_sha256
from pags.classifiers.build import build_classifier
from pags.classifiers.check import check_classifier
from pags.classifiers.load import load_classifier
from pags.errors import PagsError, UsageError
from pags.seeds import seeded_construction
from pags.store import Store

pytestmark = pytest.mark.usefixtures("global_state_untouched")

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
State = dict[str, Tensor]


# --- networks as they stand elsewhere --------------------------------------------------------------------


class CifarBlock(nn.Module):
    def __init__(self, inside: int, width: int, stride: int, deep: bool) -> None:
        super().__init__()
        outside = 4 * width if deep else width
        shapes = [(inside, width, 3, stride), (width, width, 3, 1)]
        if deep:
            shapes = [(inside, width, 1, 1), (width, width, 3, stride), (width, outside, 1, 1)]
        for place, (a, b, kernel, step) in enumerate(shapes, 1):
            self.add_module(f"conv{place}", nn.Conv2d(a, b, kernel, step, kernel // 2, bias=False))
            self.add_module(f"bn{place}", nn.BatchNorm2d(b))
        self.places = range(1, len(shapes) + 1)
        self.shortcut = nn.Sequential()
        if stride != 1 or inside != outside:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for place in self.places:
            out = self.get_submodule(f"bn{place}")(self.get_submodule(f"conv{place}")(out))
            out = out.relu() if place != self.places[-1] else out
        return (out + self.shortcut(x)).relu()


class CifarResNet(nn.Module):
    def __init__(self, depths: tuple[int, ...], classes: int = 10, deep: bool = False) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64)
        inside = 64
        for stage, depth in enumerate(depths):
            blocks = []
            for place in range(depth):
                blocks.append(CifarBlock(inside, 64 * 2**stage, 2 if stage and not place else 1, deep))
                inside = 64 * 2**stage * (4 if deep else 1)
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.linear = nn.Linear(inside, classes)
        used(self)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.conv1(x)).relu()
        for stage in range(1, 5):
            out = self.get_submodule(f"layer{stage}")(out)
        return self.linear(out.mean((2, 3)))


class WidePeer(nn.Module):
    """WideResNet-16-4 in the names of TRADES' files, written with plain functions."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        for stage, (a, b) in enumerate([(16, 64), (64, 128), (128, 256)], 1):
            block = nn.Module()
            block.layer = nn.Sequential(self.block(a, b, 1 + (stage > 1)), self.block(b, b, 1))
            self.add_module(f"block{stage}", block)
        self.sub_block1 = self.block(16, 64, 1)  # never called
        self.bn1, self.fc = nn.BatchNorm2d(256), nn.Linear(256, classes)
        used(self)

    @staticmethod
    def block(a: int, b: int, stride: int) -> nn.Module:
        block = nn.Module()
        block.bn1, block.bn2 = nn.BatchNorm2d(a), nn.BatchNorm2d(b)
        block.conv1 = nn.Conv2d(a, b, 3, stride, 1, bias=False)
        block.conv2 = nn.Conv2d(b, b, 3, 1, 1, bias=False)
        if a != b:
            block.convShortcut = nn.Conv2d(a, b, 1, stride, bias=False)
        return block

    def forward(self, x: Tensor) -> Tensor:
        part: Callable[[str], nn.Module] = self.get_submodule
        x = self.conv1(x)
        for stage in (1, 2, 3):
            for name in (f"block{stage}.layer.0", f"block{stage}.layer.1"):
                active = part(f"{name}.bn1")(x).relu()
                if name.endswith("0"):
                    x = part(f"{name}.convShortcut")(active)
                inner = part(f"{name}.bn2")(part(f"{name}.conv1")(active)).relu()
                x = x + part(f"{name}.conv2")(inner)
        return self.fc(self.bn1(x).relu().mean((2, 3)))


@pytest.fixture(scope="module")
def resnet18() -> CifarResNet:
    return built(lambda: CifarResNet((2, 2, 2, 2))).eval()


@pytest.fixture(scope="module")
def imagenet18() -> nn.Module:
    from torchvision import models

    def make() -> nn.Module:
        net = models.resnet18(num_classes=12)
        used(net)
        return net

    return built(make).eval()


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.rand(2, 3, 16, 16, generator=seeded())


def normalise(x: Tensor, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD) -> Tensor:
    return (x - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)


def same(model: nn.Module, expected: Tensor, x: Tensor) -> None:
    """The same logits; the last digits may differ, for a mean may be taken in another order."""
    assert not model.training
    with torch.no_grad():
        logits, expected = model(x), expected.detach()
    assert torch.allclose(logits, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def prefixed(state: Mapping[str, Tensor], prefix: str) -> State:
    return {prefix + name: value for name, value in state.items()}


def network_state(model: nn.Module) -> State:
    """The state of the library's network inside a classifier."""
    state = model.state_dict()
    return {key.removeprefix("network."): state[key] for key in state if key.startswith("network.")}


def saved(content: Any, path: Path, **options: Any) -> str:
    torch.save(content, path, **options)
    return str(path)


# --- foreign checkpoints ---------------------------------------------------------------------------------

WRAPPINGS: dict[str, Callable[[State], Any]] = {
    "bare": lambda state: state,
    "state_dict": lambda state: {"epoch": 3, "state_dict": state},
    "net": lambda state: {"net": state, "acc": 91.2, "epoch": 200},
    "model_state_dict": lambda state: {"model_state_dict": state, "optimizer_state_dict": {"lr": 0.1}},
    "ema only": lambda state: {"ema": state, "step": 7},
    "two levels": lambda state: {"checkpoint": {"model": state}},
    "DataParallel": lambda state: {"state_dict": prefixed(state, "module.")},
    "compiled and DataParallel": lambda state: prefixed(state, "_orig_mod.module."),
    "Lightning": lambda state: {
        "state_dict": prefixed(state, "model.backbone."), "pytorch-lightning_version": "2.4.0",
        "hyper_parameters": {"lr": 0.1}, "callbacks": {},
    },
}  # fmt: skip


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_weights_are_found_wherever_they_are(
    wrapping: str, zipped: bool, resnet18: CifarResNet, x: Tensor, tmp_path: Path
) -> None:
    content = WRAPPINGS[wrapping](resnet18.state_dict())
    path = saved(content, tmp_path / "net.pt", _use_new_zipfile_serialization=zipped)
    model = load_classifier(path, architecture="resnet18")
    same(model, resnet18(x), x)
    check_classifier(model, x, 10)


def test_safetensors_of_others_are_read_too(resnet18: CifarResNet, x: Tensor, tmp_path: Path) -> None:
    save_file(resnet18.state_dict(), tmp_path / "net.safetensors", {"format": "pt"})
    model = load_classifier(str(tmp_path / "net.safetensors"), architecture="resnet18", classes=10)
    same(model, resnet18(x), x)


def test_our_blocks_hold_the_same_weights_as_those_they_were_read_from(
    resnet18: CifarResNet, tmp_path: Path
) -> None:
    model = load_classifier(saved(resnet18.state_dict(), tmp_path / "net.pth"), architecture="resnet18")
    theirs = sorted(float(value.double().sum()) for value in resnet18.state_dict().values())
    ours = {key: value for key, value in model.state_dict().items() if not key.startswith("normalise")}
    assert sorted(float(value.double().sum()) for value in ours.values()) == theirs


@pytest.mark.parametrize(("name", "deep"), [("resnet34", False), ("resnet50", True)])
def test_deeper_networks_give_the_same(name: str, deep: bool, x: Tensor, tmp_path: Path) -> None:
    peer = built(lambda: CifarResNet((3, 4, 6, 3), 4, deep)).eval()
    model = load_classifier(saved(peer.state_dict(), tmp_path / "net.pt"), architecture=name, classes=4)
    same(model, peer(x), x)


def test_counters_of_batches_may_be_missing_and_nothing_else(
    resnet18: CifarResNet, x: Tensor, tmp_path: Path
) -> None:
    state = {k: v for k, v in resnet18.state_dict().items() if not k.endswith("num_batches_tracked")}
    model = load_classifier(saved(state, tmp_path / "old.pt"), architecture="resnet18")
    same(model, resnet18(x), x)
    del state["bn1.running_var"]
    with pytest.raises(PagsError, match=r"1 missing \(bn1.running_var\)"):
        load_classifier(saved(state, tmp_path / "torn.pt"), architecture="resnet18")


def test_half_precision_weights_become_the_same_in_full(
    resnet18: CifarResNet, x: Tensor, tmp_path: Path
) -> None:
    state = {k: v.half() if v.is_floating_point() else v for k, v in resnet18.state_dict().items()}
    model = load_classifier(saved(state, tmp_path / "half.pt"), architecture="resnet18")
    whole = built(lambda: CifarResNet((2, 2, 2, 2)), seed=1).eval()
    whole.load_state_dict(state)
    same(model, whole(x), x)


def test_of_several_state_dicts_another_can_be_asked_for(
    resnet18: CifarResNet, x: Tensor, tmp_path: Path
) -> None:
    other = built(lambda: CifarResNet((2, 2, 2, 2)), seed=1).eval()
    content = {"state_dict": resnet18.state_dict(), "state_dict_ema": other.state_dict()}
    path = saved(content, tmp_path / "both.pt")
    model = load_classifier(path, architecture="resnet18")
    same(model, resnet18(x), x)
    assert describe(model)["weights"].endswith("under state_dict")
    same(load_classifier(f"{path}?key=state_dict_ema", architecture="resnet18"), other(x), x)
    with pytest.raises(PagsError, match="under 'ema'"):
        load_classifier(f"{path}?key=ema", architecture="resnet18")


def test_a_model_that_was_pickled_whole_is_read_for_its_weights(
    resnet18: CifarResNet, x: Tensor, tmp_path: Path
) -> None:
    path = saved({"net": nn.DataParallel(resnet18), "epoch": 3}, tmp_path / "whole.pt")
    model = load_classifier(path, architecture="resnet18")
    same(model, resnet18(x), x)
    assert describe(model)["weights"].endswith("under net.the pickled model")


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_wide_network_of_robustbench_gives_the_same(prefix: str, x: Tensor, tmp_path: Path) -> None:
    peer = built(lambda: WidePeer(7)).eval()
    path = saved(prefixed(peer.state_dict(), prefix), tmp_path / "wide.pt")
    model = load_classifier(f"robustbench:{path}", architecture="wide-resnet-16-4", mean=MEAN, std=STD)
    same(model, peer(normalise(x)), x)
    refused("missing.*'wide-resnet-16-4', which", path, architecture="wide-resnet-28-10")


# --- normalisation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (("mu", "sigma"), ""), (("normalize.mean", "normalize.std"), "model."),
        (("0.mean", "0.std"), "1."), (("module.mu", "module.sigma"), "module."),
    ],
)  # fmt: skip
def test_a_normaliser_in_the_file_goes_inside(
    names: tuple[str, str], prefix: str, resnet18: CifarResNet, x: Tensor, tmp_path: Path
) -> None:
    tensors = {name: torch.tensor(v).view(1, 3, 1, 1) for name, v in zip(names, (MEAN, STD), strict=True)}
    path = saved({**tensors, **prefixed(resnet18.state_dict(), prefix)}, tmp_path / "net.pt")
    model = load_classifier(f"robustbench:{path}", architecture="resnet18")
    same(model, resnet18(normalise(x)), x)
    assert describe(model)["normalisation"] == "in the file"
    with pytest.raises(UsageError, match="normalisation that the file holds"):
        load_classifier(path, architecture="resnet18", mean=(0.5, 0.5, 0.5), std=(1, 1, 1))


def test_a_given_normalisation_goes_inside(resnet18: CifarResNet, x: Tensor, tmp_path: Path) -> None:
    path = saved(resnet18.state_dict(), tmp_path / "net.pt")
    model = load_classifier(path, architecture="resnet18", mean=MEAN, std=STD)
    same(model, resnet18(normalise(x)), x)
    assert describe(model)["normalisation"] == "given"
    assert describe(load_classifier(path, architecture="resnet18"))["normalisation"] == "none"
    with pytest.raises(UsageError, match="mean and std together"):
        load_classifier(path, architecture="resnet18", mean=MEAN)


# --- MadryLab's robustness --------------------------------------------------------------------------------


class Schedule:
    """Something that only an unpickler with dill could bring back."""

    def __init__(self) -> None:
        self.rate = lambda epoch: 0.1 * epoch


def madry(net: nn.Module, mean: tuple[float, ...], std: tuple[float, ...], wrapper: str = "module.") -> State:
    """The state of an AttackerModel: normaliser, model, and both once more inside the attacker."""
    m, s = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    state = {"normalizer.new_mean": m, "normalizer.new_std": s, **prefixed(net.state_dict(), "model.")}
    state |= {"attacker.normalize.new_mean": m, "attacker.normalize.new_std": s}
    return prefixed(state | prefixed(net.state_dict(), "attacker.model."), wrapper)


@pytest.mark.parametrize("key", ["model", "state_dict"])
def test_a_cifar_checkpoint_of_robustness_is_read(
    key: str, resnet18: CifarResNet, x: Tensor, tmp_path: Path
) -> None:
    content = {key: madry(resnet18, MEAN, STD), "epoch": 150, "schedule": Schedule()}
    path = saved(content, tmp_path / "cifar.ckpt", pickle_module=importlib.import_module("dill"))
    model = load_classifier(f"madry:{path}", architecture="resnet18", classes=10)
    same(model, resnet18(normalise(x)), x)
    check_classifier(model, x, 10)
    assert describe(model)["spec"] == f"madry:{path}"


@pytest.mark.parametrize("name", ["resnet18", "resnet18-224", "torchvision:resnet18"])
def test_an_imagenet_checkpoint_of_robustness_is_torchvisions_network(
    name: str, imagenet18: nn.Module, tmp_path: Path
) -> None:
    x = torch.rand(1, 3, 64, 64, generator=seeded())
    content = {"model": madry(imagenet18, *IMAGENET), "optimizer": {"state": {}, "param_groups": []}}
    path = saved(content, tmp_path / "net.ckpt", pickle_module=importlib.import_module("dill"))
    model = load_classifier(f"madry:{path}", architecture=name)
    same(model, imagenet18(normalise(x, *IMAGENET)), x)
    assert describe(model)["classes"] == 12


def test_an_attacker_that_holds_another_network_is_refused(resnet18: CifarResNet, tmp_path: Path) -> None:
    state = madry(resnet18, MEAN, STD)
    state["module.attacker.model.linear.bias"] = state["module.attacker.model.linear.bias"] + 1
    with pytest.raises(PagsError, match=r"attacker.model.linear.bias differs"):
        load_classifier(f"madry:{saved({'model': state}, tmp_path / 'a.pt')}", architecture="resnet18")


def test_without_a_normaliser_it_is_not_robustness(resnet18: CifarResNet, x: Tensor, tmp_path: Path) -> None:
    path = saved({"model": prefixed(resnet18.state_dict(), "module.model.")}, tmp_path / "a.pt")
    with pytest.raises(PagsError, match="with normalizer"):
        load_classifier(f"madry:{path}", architecture="resnet18")
    model = load_classifier(f"madry:{path}", architecture="resnet18", mean=MEAN, std=STD)
    same(model, resnet18(normalise(x)), x)


# --- files of ours ---------------------------------------------------------------------------------------


def trained(**options: Any) -> nn.Module:
    with seeded_construction(0, "test"):
        model = build_classifier("small-resnet", 1, 5, **{"mean": (0.3,), "std": (0.2,), **options})
        used(model)
    return model.eval()


def test_a_file_of_ours_says_everything_itself(tmp_path: Path) -> None:
    model = trained(activation="softplus")
    path = Store(tmp_path).write_tensors("m.safetensors", model.state_dict(), {"classifier": recipe(model)})
    again = load_classifier(str(path))
    x = torch.rand(2, 1, 12, 8, generator=seeded())
    assert torch.equal(again(x), model(x))
    assert describe(again)["sha256"] == weights_sha256(model.state_dict())
    assert json.loads(json.dumps(describe(again))) == describe(again)
    for wrong in ({"architecture": "resnet18"}, {"classes": 10}, {"mean": (0.0,), "std": (1.0,)}):
        with pytest.raises(UsageError, match="leaving"):
            load_classifier(str(path), **wrong)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda recipe: recipe.pop("mean"), "in the metadata"),
        (lambda recipe: recipe.update(flavour="sweet"), "in the metadata"),
        (lambda recipe: recipe.update(architecture="resnet18"), "missing"),
        (lambda recipe: recipe.update(classes=6), "6"),
        (lambda recipe: recipe.update(architecture="vgg"), "an architecture among"),
    ],
)
def test_a_file_of_ours_that_says_something_else_is_refused(
    damage: Callable[[dict[str, Any]], Any], message: str, tmp_path: Path
) -> None:
    model = trained()
    about = recipe(model)
    assert about is not None
    damage(about)
    path = Store(tmp_path).write_tensors("m.safetensors", model.state_dict(), {"classifier": about})
    with pytest.raises(PagsError, match=message):
        load_classifier(str(path))


def test_a_torn_file_of_ours_is_refused(tmp_path: Path) -> None:
    path = Store(tmp_path).write_tensors("m.safetensors", trained().state_dict())
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(PagsError, match=r"m\.safetensors"):
        load_classifier(str(path))


# --- wrong everything ------------------------------------------------------------------------------------


def refused(message: str, spec: str, **options: Any) -> None:
    with pytest.raises(PagsError, match=message) as caught:
        load_classifier(spec, **options)
    assert "\n" not in str(caught.value)


def test_a_wrong_architecture_is_named_with_the_right_one(
    resnet18: CifarResNet, imagenet18: nn.Module, tmp_path: Path
) -> None:
    ours, theirs = (
        saved(net.state_dict(), tmp_path / f"{place}.pt") for place, net in enumerate((resnet18, imagenet18))
    )
    refused(
        r"80 missing \(layer1.2.conv1.weight.*'resnet18', which",
        ours,
        architecture="resnet34",
    )
    refused("'resnet18', which these weights fit", ours, architecture="torchvision:resnet18")
    same_as_named = describe(load_classifier(ours))
    assert (same_as_named["architecture"], same_as_named["recognised"]) == ("resnet18", True)
    refused("'torchvision:resnet18', which these weights fit", theirs, architecture="resnet34")
    refused("'torchvision:resnet18'", theirs, architecture="small-resnet")
    refused("try resnet18", ours, architecture="resnet81")


def test_names_and_shapes_that_differ_are_listed(resnet18: CifarResNet, tmp_path: Path) -> None:
    state = resnet18.state_dict()
    state["bn1.weight"] = torch.ones(32)
    state["extra.one"] = torch.ones(1)
    for name in [name for name in state if name.startswith("layer4.1.conv")]:
        del state[name]
    message = (
        r"2 missing \(layer4.1.conv1.weight, layer4.1.conv2.weight\); 1 unknown \(extra.one\); "
        r"1 of another shape \(bn1.weight is 32 instead of 64\)"
    )
    refused(message, saved(state, tmp_path / "a.pt"), architecture="resnet18")


def test_a_wrong_number_of_classes_or_channels_is_named(resnet18: CifarResNet, tmp_path: Path) -> None:
    path = saved(resnet18.state_dict(), tmp_path / "a.pt")
    refused("try classes=10", path, architecture="resnet18", classes=100)
    refused("64×3×3×3 instead of 64×1×3×3", path, architecture="resnet18", channels=1)


def test_weights_that_are_not_numbers_are_refused(resnet18: CifarResNet, tmp_path: Path) -> None:
    state = {name: value.clone() for name, value in resnet18.state_dict().items()}
    state["linear.bias"][3] = float("nan")
    refused("NaN or infinity in 1 .linear.bias", saved(state, tmp_path / "a.pt"), architecture="resnet18")


def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path) -> None:
    (tmp_path / "noise.pt").write_bytes(b"not a checkpoint at all")
    (tmp_path / "empty.ckpt").write_bytes(b"")
    (tmp_path / "folder.pt").mkdir()
    refused("noise.pt", str(tmp_path / "noise.pt"), architecture="resnet18")
    refused("empty.ckpt", str(tmp_path / "empty.ckpt"), architecture="resnet18")
    refused("a folder", str(tmp_path / "folder.pt"), architecture="resnet18")
    refused("missing.pt", str(tmp_path / "missing.pt"), architecture="resnet18")
    refused("missing.pt", f"madry:{tmp_path / 'missing.pt'}", architecture="resnet18")
    for content in ({"epoch": 3, "lr": 0.1}, [1, 2], torch.ones(3), {}):
        refused("state dict", saved(content, tmp_path / "a.pt"), architecture="resnet18")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet18", "torchvision:resnet18"), ("", "FILE.safetensors"), ("nonsense", "as one of"),
        ("madry:", "as one of"), ("a.pt?flavour=sweet", "as one of"),
        ("timm:resnet18?weights=1", "as one of"),
        ("torchvision:resnet81", "torchvision:resnet18"), ("ftp:a b", "as one of"),
        ("torchvision:resnet18?weights", "weights of resnet18 among DEFAULT, IMAGENET1K_V1"),
        ("timm:resnet18?pretrained=yes", "pretrained=1"),
        ("torchvision:inception_v3?weights=DEFAULT", "timm:inception_v3"),
    ],
)  # fmt: skip
def test_specs_that_mean_nothing_are_refused(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_classifier(spec)


# --- libraries -------------------------------------------------------------------------------------------


def test_fresh_weights_of_torchvision_come_from_the_seed_and_say_so(x: Tensor) -> None:
    from torchvision import models

    model = load_classifier("torchvision:resnet18?untrained", seed=3)
    peer = built(lambda: models.resnet18()).eval()
    peer.load_state_dict(network_state(model))
    same(model, peer(normalise(x, *IMAGENET)), x)
    about = describe(model)
    assert (about["weights"], about["classes"]) == ("untrained, seed 3", 1000)
    assert describe(load_classifier("torchvision:resnet18?untrained", seed=3)) == about
    assert describe(load_classifier("torchvision:resnet18?untrained", seed=4))["sha256"] != about["sha256"]


def test_timms_own_normalisation_goes_inside(x: Tensor) -> None:
    timm = pytest.importorskip("timm")
    model = load_classifier("timm:vit_tiny_patch16_224?untrained", classes=3)
    peer = built(lambda: timm.create_model("vit_tiny_patch16_224", num_classes=3)).eval()
    peer.load_state_dict(network_state(model))
    x = torch.rand(1, 3, 224, 224, generator=seeded())
    half = peer.default_cfg["mean"]
    assert half == (0.5, 0.5, 0.5)  # not ImageNet's, so that a mistake shows
    same(model, peer(normalise(x, half, peer.default_cfg["std"])), x)


def test_a_file_can_fill_a_network_of_timm(x: Tensor, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    peer = built(lambda: timm.create_model("resnet10t", num_classes=6)).eval()
    path = saved({"state_dict": peer.state_dict()}, tmp_path / "a.pth")
    model = load_classifier(path, architecture="timm:resnet10t")
    config = peer.default_cfg
    same(model, peer(normalise(x, config["mean"], config["std"])), x)
    assert describe(model)["normalisation"] == "of timm"


def test_downloaded_weights_of_torchvision_bring_their_normalisation(
    monkeypatch: pytest.MonkeyPatch, x: Tensor
) -> None:
    from torchvision import models

    peer = built(lambda: models.resnet18()).eval()
    asked: list[Any] = []

    def download(url: str, **options: Any) -> State:
        asked.append((url, options))
        return peer.state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    model = load_classifier("torchvision:resnet18?weights=DEFAULT")
    same(model, peer(normalise(x, *IMAGENET)), x)
    assert describe(model)["weights"] == "ResNet18_Weights.IMAGENET1K_V1"
    assert asked[0][1]["weights_only"]
    assert asked[0][1]["check_hash"]
    refused("try classes=1000", "torchvision:resnet18?weights=DEFAULT", classes=10)
    refused("three channels", "torchvision:resnet18?weights=DEFAULT", channels=1)
    refused("IMAGENET1K_V1", "torchvision:resnet18?weights=BEST")


def test_a_closed_network_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: Any, **__: Any) -> State:
        raise URLError("Name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", closed)
    refused("Name or service not known.*access to the network", "torchvision:resnet18?weights=DEFAULT")
    timm = pytest.importorskip("timm")
    monkeypatch.setattr(timm, "create_model", closed)
    refused("Name or service not known.*access to the network", "timm:resnet10t?pretrained=1")


def test_trained_weights_of_timm_keep_their_classes(monkeypatch: pytest.MonkeyPatch, x: Tensor) -> None:
    timm = pytest.importorskip("timm")
    peer = built(lambda: timm.create_model("resnet10t")).eval()
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: peer)
    model = load_classifier("timm:resnet10t?pretrained=1")
    config = peer.default_cfg
    same(model, peer(normalise(x, config["mean"], config["std"])), x)
    refused("try classes=1000", "timm:resnet10t?pretrained=1", classes=10)


# --- the user's own code ---------------------------------------------------------------------------------

TEN_LINES = """
from torch import nn

def network():
    features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(features, nn.Linear(4, 5))

def function():
    weight = network()
    return lambda images: weight(2 * images - 1)
"""


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        (tmp_path / "mine.py").write_text(text)
        return str(tmp_path / "mine.py")

    return write


@pytest.mark.parametrize("name", ["network", "function"])
def test_ten_lines_of_python_are_a_classifier(name: str, script: Callable[[str], str], x: Tensor) -> None:
    path = script(TEN_LINES)
    model = built(lambda: load_classifier(f"{path}:{name}", classes=5))
    check_classifier(model, x, 5)
    assert not model.training
    about = describe(model)
    assert about["classes"] == 5
    assert f"{path} (sha256 " in about["weights"]
    assert about["parameters"] == (3 * 4 * 9 + 4 + 4 * 5 + 5 if name == "network" else 0)


def test_the_ten_lines_of_the_documentation_work(
    monkeypatch: pytest.MonkeyPatch, script: Callable[[str], str]
) -> None:
    page = Path(__file__).parent.parent / "docs" / "models.md"
    path = script(page.read_text().split("```python\n# mine.py")[1].split("```")[0])
    monkeypatch.chdir(Path(path).parent)
    peer = built(lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.Tanh(), nn.Linear(100, 10)))
    saved(peer.state_dict(), Path("mine.pt"))
    images = torch.rand(3, 1, 28, 28, generator=seeded())
    for name, expected in (("network", peer(images)), ("centred", peer(2 * images - 1))):
        model = built(lambda name=name: load_classifier(f"mine.py:{name}", channels=1))  # type: ignore[misc]
        same(model, expected, images)
        check_classifier(model, images, 10)


def test_a_function_of_a_module_is_a_classifier(
    monkeypatch: pytest.MonkeyPatch, script: Callable[[str], str]
) -> None:
    monkeypatch.syspath_prepend(Path(script(TEN_LINES)).parent)
    monkeypatch.delitem(importlib.import_module("sys").modules, "mine", raising=False)
    model = built(lambda: load_classifier("mine:network"))
    assert re.fullmatch(r"made by mine \(sha256 [0-9a-f]{16}\):network", describe(model)["weights"])


@pytest.mark.parametrize("side", [28, 224])
def test_a_classifier_for_one_size_of_images_is_tried_on_it(side: int, script: Callable[[str], str]) -> None:
    text = f"from torch import nn\ndef f(): return nn.Sequential(nn.Flatten(), nn.Linear({side**2}, 3))"
    model = built(lambda: load_classifier(f"{script(text)}:f", channels=1))
    assert model(torch.zeros(1, 1, side, side)).shape == (1, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def g(): pass", "a function f in .*no such name; try g"),
        ("f = 3", "a int"),
        ("def f(", "SyntaxError"),
        ("import nothing_of_this_name", "nothing_of_this_name"),
        ("def f(): raise ValueError('no weights\\nhere')", "ValueError: no weights"),
        ("def f(x): return x", "TypeError"),
        ("def f(): return 3", "a int"),
        ("def f(): return lambda x: x.flatten(1)[:, :3] * float('nan')", "finite logits"),
        ("def f(): return lambda x: x.flatten(1)[:, :4]", r"\(2, 3\)"),
        ("def f(): return lambda x: x", r"\(2, 3\)"),
        ("def f(): return lambda x: x.no_such_thing", "AttributeError"),
    ],
)
def test_code_that_makes_no_classifier_is_told_what_is_wrong(
    text: str, message: str, script: Callable[[str], str]
) -> None:
    refused(message, f"{script(text)}:f", classes=3)


def test_code_that_is_not_there_is_said(tmp_path: Path) -> None:
    refused("Python file that is there", f"{tmp_path / 'none.py'}:f")
    refused("no_such_module_of_mine", "no_such_module_of_mine:f")
    refused("no architecture beside", "torch.nn:Identity", architecture="resnet18")
