"""EDM's networks in files: pickles read as plain data, safetensors, and files that are not what they seem."""

import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conftest import built, seeded
from pags.checkpoints import Opaque
from pags.cli import app
from pags.errors import PagsError, UsageError
from pags.score.edm.denoiser import EDMDenoiser
from pags.score.edm.preconditioning import PRECONDITIONERS, EDMPrecond, Preconditioner
from pags.score.edm.published import network_in
from pags.score.load import export, load_denoiser
from pags.score.unet import UNetDenoiser
from pags.store import Store

pytestmark = pytest.mark.usefixtures("global_state_untouched")

SONG: dict[str, Any] = {
    "model_type": "SongUNet",
    "model_channels": 8,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [4],
}
NCSN: dict[str, Any] = SONG | {
    "embedding_type": "fourier",
    "encoder_type": "residual",
    "resample_filter": [1, 3, 3, 1],
}
ADM: dict[str, Any] = {
    "model_type": "DhariwalUNet",
    "model_channels": 64,
    "channel_mult": [1],
    "num_blocks": 1,
    "augment_dim": 9,
}
KINDS = [
    ("EDMPrecond", SONG | {"label_dim": 4}),
    ("EDMPrecond", NCSN),
    ("EDMPrecond", ADM | {"label_dim": 4}),
    ("VPPrecond", SONG | {"beta_d": 15.0}),
    ("VEPrecond", NCSN | {"sigma_max": 50}),
    ("iDDPMPrecond", ADM | {"M": 100}),
]
SOURCE = "raise SystemExit('the source text of the file was run')"


def made(name: str = "EDMPrecond", options: dict[str, Any] = SONG) -> Preconditioner:
    """A small network whose every weight says something."""
    net = built(lambda: PRECONDITIONERS[name](8, 3, **options))
    draws = seeded(1)
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=draws))
    return net.eval()


def answer(net: Preconditioner) -> Tensor:
    x = torch.randn(2, 3, 8, 8, generator=seeded(2))
    labels = torch.eye(4)[[1, 3]] if net.label_dim else None
    with torch.no_grad():
        return net(x, torch.tensor([0.5, 1.2]), labels)


# --- what EDM's training writes, by its description ------------------------------------------------------

Wrap = Callable[[str, dict[str, Any]], Any]
ATTRIBUTES = {
    "EDMPrecond": "img_resolution img_channels label_dim use_fp16 sigma_min sigma_max sigma_data",
    "VEPrecond": "img_resolution img_channels label_dim use_fp16 sigma_min sigma_max",
    "VPPrecond": "img_resolution img_channels label_dim use_fp16 "
    "sigma_min sigma_max beta_d beta_min M epsilon_t",
    "iDDPMPrecond": "img_resolution img_channels label_dim use_fp16 sigma_min sigma_max C_1 C_2 M",
    "SongUNet": "label_dropout",
    "DhariwalUNet": "label_dropout",
    "UNetBlock": "in_channels out_channels emb_channels num_heads dropout skip_scale adaptive_scale",
    "Conv2d": "in_channels out_channels up down fused_resample",
    "Linear": "in_features out_features",
    "GroupNorm": "num_groups eps",
    "PositionalEmbedding": "num_channels max_positions endpoint",
}


def saved(module: nn.Module, wrap: Wrap, arguments: dict[str, Any] | None = None) -> Any:
    """A module as EDM's training saves it; `wrap` makes the outermost object of class and `__dict__`."""
    name = type(module).__name__
    state: dict[str, Any] = {
        "training": False,
        "_parameters": OrderedDict(module._parameters),
        "_buffers": OrderedDict(module._buffers),
        "_non_persistent_buffers_set": set(),
        "_forward_hooks": OrderedDict(),
        "_modules": OrderedDict((key, saved(child, wrap)) for key, child in module.named_children()),
    }
    state |= {key: getattr(module, key) for key in ATTRIBUTES.get(name, "").split()}
    state |= {"_init_args": (), "_init_kwargs": {} if arguments is None else arguments}
    return wrap(name, state)


def file_of(net: Preconditioner, wrap: Wrap) -> dict[str, Any]:
    """The dict that the pickle holds, with the arguments as the constructor got them."""
    name, own = type(net).__name__, {"img_resolution": 8, "img_channels": 3, "use_fp16": net.use_fp16}
    options = dict(net.options) | {"model_type": net.model_type, "label_dim": net.label_dim}
    constants = ATTRIBUTES[name].split()[4:]
    # What the constructor takes, and not what it works out.
    own |= {
        key: getattr(net, key)
        for key in constants
        if name in ("EDMPrecond", "VEPrecond") or "sigma_" not in key
    }

    def outer(kind: str, state: dict[str, Any]) -> Any:
        if kind == name:
            state = state | {"_init_kwargs": own | options}
        if kind == net.model_type:
            answers = 6 if name == "iDDPMPrecond" else 3
            passed = {
                "img_resolution": 8,
                "in_channels": 3,
                "out_channels": answers,
                "label_dim": net.label_dim,
            }
            state = state | {"_init_kwargs": passed | net.options}
        if kind == "UNetBlock" and net.model_type == "SongUNet":
            state = state | {"skip_scale": np.sqrt(0.5) if wrap is real else float(np.sqrt(0.5))}
        return wrap(kind, state)

    return {"ema": saved(net, outer), "loss_fn": wrap("EDMLoss", {"P_mean": -1.2}), "augment_pipe": None}


def plain(kind: str, state: dict[str, Any]) -> Opaque:
    """As the restricted reader hands it over."""
    if kind == "ModuleDict":
        own = {key: value for key, value in state.items() if not key.startswith("_init")}
        return Opaque("torch.nn.modules.container.ModuleDict", (), own)
    tensors = {
        key: {k: None if v is None else v.detach() for k, v in state[key].items()}
        for key in ("_parameters", "_buffers")
        if key in state
    }
    meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": kind, "state": state | tensors}
    return Opaque("torch_utils.persistence._reconstruct_persistent_obj", (meta,))


class Persistent:
    """Pickled as a call of the stand-in for EDM's function."""

    def __init__(self, meta: dict[str, Any]) -> None:
        self.meta = meta

    def __reduce__(self) -> tuple[Any, ...]:
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (self.meta,)


def real(kind: str, state: dict[str, Any]) -> Any:
    """As it goes into a pickle."""
    if kind == "ModuleDict":
        module = nn.ModuleDict.__new__(nn.ModuleDict)
        module.__dict__.update({key: value for key, value in state.items() if not key.startswith("_init")})
        return module
    return Persistent(
        {"type": "class", "version": 6, "module_src": SOURCE, "class_name": kind, "state": state}
    )


@pytest.fixture
def stand_in() -> Iterator[None]:
    """A module of the name of EDM's, there only while a test writes."""

    def _reconstruct_persistent_obj(meta: dict[str, Any]) -> None:
        raise AssertionError("a class of the file was asked for")

    module = types.ModuleType("torch_utils.persistence")
    _reconstruct_persistent_obj.__module__ = module.__name__
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    sys.modules |= {"torch_utils": types.ModuleType("torch_utils"), "torch_utils.persistence": module}
    yield
    del sys.modules["torch_utils"], sys.modules["torch_utils.persistence"]


# --- pickles ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), KINDS)
def test_a_published_tree_is_the_network_that_was_saved(name: str, options: dict[str, Any]) -> None:
    net = made(name, options)
    found = network_in(file_of(net, plain), "ema", "net.pkl")
    assert type(found) is type(net)
    assert list(found.state_dict()) == list(net.state_dict())
    assert torch.equal(answer(found), answer(net))
    assert not found.training
    assert not any(weight.requires_grad for weight in found.parameters())
    assert (found.sigma_min, found.sigma_max) == (net.sigma_min, net.sigma_max)
    first, own = next(iter(found.parameters())), next(iter(net.parameters()))
    assert first.data_ptr() == own.data_ptr(), "the tensors of the file were copied"


@pytest.mark.parametrize(("name", "options"), KINDS)
def test_a_published_file_is_the_network_that_was_saved(
    name: str, options: dict[str, Any], stand_in: None, tmp_path: Path
) -> None:
    net = made(name, options)
    path = tmp_path / "net.pkl"
    path.write_bytes(pickle.dumps(file_of(net.requires_grad_(False), real), protocol=4))
    denoiser = load_denoiser(path)
    assert isinstance(denoiser, EDMDenoiser)
    assert torch.equal(answer(denoiser.net), answer(net))


def test_the_command_converts_a_published_file(stand_in: None, tmp_path: Path) -> None:
    net, path, out = made(), tmp_path / "net.pkl", tmp_path / "net.safetensors"
    path.write_bytes(pickle.dumps(file_of(net.requires_grad_(False), real), protocol=4))
    app(["convert", str(path), str(out)], standalone_mode=False)
    denoiser = load_denoiser(out)
    assert isinstance(denoiser, EDMDenoiser)
    assert torch.equal(answer(denoiser.net), answer(net))


def test_arguments_may_stand_in_positions() -> None:
    net = made("EDMPrecond", SONG | {"label_dim": 4})
    tree = file_of(net, plain)
    state, inner = _state(tree["ema"]), _state(_state(tree["ema"])["_modules"]["model"])
    state["_init_args"], state["_init_kwargs"] = (
        (8, 3, 4, False, 0, float("inf"), 0.5, "SongUNet"),
        dict(net.options),
    )
    inner["_init_args"], inner["_init_kwargs"] = (8, 3, 3, 4, 0, 8, [1, 2], 4, 1, [4]), {}
    assert torch.equal(answer(network_in(tree, "ema", "net.pkl")), answer(net))


def test_attributes_edited_after_construction_hold() -> None:
    net = made("EDMPrecond", SONG)
    assert isinstance(net, EDMPrecond)
    net.sigma_data, net.sigma_min = 0.7, 0.01
    block = net.model.enc["8x8_block0"]
    block.skip_scale = block.norm0.eps = 0.25  # type: ignore[assignment,union-attr]
    tree = file_of(net, plain)
    _state(tree["ema"])["_init_kwargs"] |= {"sigma_data": 0.5, "sigma_min": 0}
    _state(_model(tree)["enc"].state["_modules"]["8x8_block0"])["skip_scale"] = 0.25
    for found in (network_in(tree, "ema", "net.pkl"), _again(net)):
        assert (found.sigma_data, found.sigma_min) == (0.7, 0.01)
        assert found.model.enc["8x8_block0"].skip_scale == 0.25
        assert torch.equal(answer(found), answer(net))


def _again(net: nn.Module) -> Any:
    """Through plain data and tensors, as a safetensors file holds them."""
    from pags.score.load import _from_plain

    tensors, about = export(net)
    found = _from_plain(tensors, about, "again")
    return found.net if isinstance(found, EDMDenoiser) else found


def _state(node: Opaque) -> dict[str, Any]:
    return node.arguments[0]["state"]


def _model(tree: dict[str, Any]) -> dict[str, Any]:
    """The modules of the network in a tree."""
    return _state(_state(tree["ema"])["_modules"]["model"])["_modules"]


Edit = Callable[[dict[str, Any]], Any]


def _set(*path: str, **values: Any) -> Edit:
    """Change the state (or one of its groups) of the network, or of the preconditioner after "ema"."""

    def edit(tree: dict[str, Any]) -> None:
        outer = path[0] == "ema"
        state = _state(tree["ema"]) if outer else _state(_state(tree["ema"])["_modules"]["model"])
        for key in path[1:]:
            state = state[key]
        state.update(values)

    return edit


def _rename(tree: dict[str, Any]) -> None:
    tree["ema"].arguments[0]["class_name"] = "EvilPrecond"


def _other_model(tree: dict[str, Any]) -> None:
    _state(tree["ema"])["_modules"]["model"].arguments[0]["class_name"] = "Transformer"


def _other_block(tree: dict[str, Any]) -> None:
    _model(tree)["enc"].state["_modules"]["8x8_block0"].arguments[0]["class_name"] = "Transformer"


def _evil_module(tree: dict[str, Any]) -> None:
    _model(tree)["enc"].state["_modules"]["8x8_block0"] = Opaque("os.system", ("true",))


def _drop_weight(tree: dict[str, Any]) -> None:
    _state(_model(tree)["map_layer0"])["_parameters"].pop("weight")


def _extra_weight(tree: dict[str, Any]) -> None:
    _state(_model(tree)["map_layer0"])["_parameters"]["more"] = torch.zeros(1)


def _shape(tree: dict[str, Any]) -> None:
    _state(_model(tree)["map_layer0"])["_parameters"]["weight"] = torch.zeros(2, 2)


def _integers(tree: dict[str, Any]) -> None:
    group = _state(_model(tree)["map_layer0"])["_parameters"]
    group["weight"] = group["weight"].long()


def _not_a_tensor(tree: dict[str, Any]) -> None:
    _state(_model(tree)["map_layer0"])["_parameters"]["weight"] = SOURCE


def _extra_layer(tree: dict[str, Any]) -> None:
    modules = _model(tree)["enc"].state["_modules"]
    modules["8x8_block9"] = modules["8x8_block0"]


def _order(tree: dict[str, Any]) -> None:
    modules = _model(tree)["enc"].state["_modules"]
    modules["8x8_conv"] = modules.pop("8x8_conv")


def _circle(tree: dict[str, Any]) -> None:
    enc = _model(tree)["enc"]
    enc.state["_modules"]["8x8_block0"] = enc


def _edited_width(tree: dict[str, Any]) -> None:
    _state(_model(tree)["enc"].state["_modules"]["8x8_block0"])["num_heads"] = 7


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_rename, r"preconditioner among .*; got 'EvilPrecond'"),
        (_other_model, r"network among SongUNet, DhariwalUNet; got 'Transformer'"),
        (_other_block, r"UNetBlock at model.enc.8x8_block0; got 'Transformer'"),
        (_evil_module, r"as EDM saves them; got an object of 'os.system' at model.enc.8x8_block0"),
        (
            lambda tree: tree.update(ema=Opaque("os.system", ("true",))),
            r"got an object of 'os.system' at ema",
        ),
        (lambda tree: tree.update(ema=[1]), r"got a list at ema"),
        (_drop_weight, r"got no model.map_layer0.weight"),
        (_extra_weight, r"got unknown 'model.map_layer0.more'"),
        (_shape, r"model.map_layer0.weight \(2, 2\) instead of \(32, 8\)"),
        (_integers, r"model.map_layer0.weight of torch.int64"),
        (_not_a_tensor, r"a tensor at model.map_layer0.weight; got a str"),
        (_extra_layer, r"modules of model.enc.*got unknown 8x8_block9"),
        (_order, r"got them in another order"),
        (_circle, r"UNetBlock at model.enc.8x8_block0; got 'ModuleDict'"),
        (_edited_width, r"num_heads = 0, as the file's arguments say; got 7"),
        (_set("ema", label_dim=9), r"label_dim = 0, as"),
        (_set("ema", sigma_data="a"), r"sigma_data, a number; got 'a'"),
        (_set("ema", _modules={}), r"as EDM saves them; got a NoneType at model"),
        (_set("ema", _modules=None), r"_modules of a module; got a NoneType"),
        (_set("ema", "_init_kwargs", hidden=1), r"arguments of EDMPrecond and SongUNet; got 'hidden'"),
        (
            _set("ema", "_init_kwargs", img_channels=4),
            r"in_channels, out_channels that its preconditioner hands over",
        ),
        (_set("ema", _init_args=(8,)), r"every argument once; got img_resolution twice"),
        (_set("ema", _init_args=(8,) * 30), r"at most 8 arguments by position; got 30"),
        (_set("ema", _init_kwargs=None), r"arguments of a constructor; got none for EDMPrecond"),
        (_set("model", "_init_kwargs", channel_mult=[10**9, 2]), r"channel_mult, .*; got \[1000000000, 2\]"),
        (_set("model", "_init_kwargs", channel_mult=[1024, 1024], model_channels=65536), r"got no skip"),
        (
            _set("model", "_init_kwargs", channel_mult_emb=65536, model_channels=65536),
            r"that can be built; got",
        ),
        (_set("model", "_init_kwargs", model_channels=65536), r"num_channels = 65536, as"),
        (
            _set("model", "_init_kwargs", channel_mult_emb=65536),
            r"affine.in_features|emb_channels|out_features = 524288",
        ),
        (_set("model", "_init_kwargs", augment_dim=65536), r"got no map_augment"),
        (_set("model", "_init_kwargs", channel_mult=[1] * 10**5), r"channel_mult, 1 to 12"),
        (_set("model", "_init_kwargs", num_blocks=10**9), r"num_blocks, from 1 to 64; got 1000000000"),
        (_set("model", "_init_kwargs", channel_mult="12"), r"channel_mult, .*got '12'"),
        (_set("model", "_init_kwargs", channel_mult=[True, 2]), r"channel_mult"),
        (_set("model", "_init_kwargs", model_channels=-8), r"model_channels, from 1 to 65536; got -8"),
        (_set("model", "_init_kwargs", dropout=float("nan")), r"dropout, from 0 to 1; got nan"),
        (
            _set("model", "_init_kwargs", resample_filter=[Opaque("a.b", (SOURCE,))]),
            r"resample_filter, .*got a list",
        ),
        (_set("model", "_init_kwargs", encoder_type="evil"), r"encoder_type among .*got 'evil'"),
        (_set("model", "_init_kwargs", model_channels=12), r"num_channels = 12, as"),
        (_set("model", "_init_kwargs", hidden=1), r"arguments of EDMPrecond and SongUNet; got 'hidden'"),
    ],
)
def test_a_tree_that_is_no_whole_network_is_refused(edit: Edit, message: str) -> None:
    tree = file_of(made(), plain)
    edit(tree)
    with pytest.raises(PagsError, match=message) as refusal:
        network_in(tree, "ema", "net.pkl")
    assert "SystemExit" not in str(refusal.value) or edit is _not_a_tensor
    assert "net.pkl" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_only_what_the_file_has_can_be_asked_for() -> None:
    tree = file_of(made(), plain)
    with pytest.raises(UsageError, match=r"with 'model'; got 'ema', 'loss_fn', 'augment_pipe' in net.pkl"):
        network_in(tree, "model", "net.pkl")
    with pytest.raises(UsageError, match=r"with 'ema'; got a Opaque"):
        network_in(tree["ema"], "ema", "net.pkl")
    with pytest.raises(PagsError, match="preconditioner among"):
        network_in(tree, "loss_fn", "net.pkl")


# --- safetensors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), KINDS)
def test_a_network_comes_back_from_safetensors(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    net = made(name, options)
    tensors, about = export(EDMDenoiser(net))
    path = Store(tmp_path).write_tensors("net.safetensors", tensors, about | {"source": "net.pkl"})
    denoiser = load_denoiser(str(path))
    assert isinstance(denoiser, EDMDenoiser)
    assert torch.equal(answer(denoiser.net), answer(net))
    assert export(denoiser)[1] == about
    assert about["kind"] == "denoiser"


def test_a_trained_denoiser_comes_back_from_safetensors(tmp_path: Path) -> None:
    net = built(lambda: UNetDenoiser(3, classes=4, widths=(8, 16, 8)))
    nn.init.ones_(net.net.last.weight)
    tensors, about = export(net)
    assert about == {
        "kind": "denoiser",
        "denoiser": "unet",
        "channels": 3,
        "classes": 4,
        "widths": [8, 16, 8],
    }
    found = load_denoiser(Store(tmp_path).write_tensors("net.safetensors", tensors, about))
    images, labels = torch.rand(2, 3, 8, 8, generator=seeded(3)), torch.tensor([0, 3])
    with torch.no_grad():
        assert torch.equal(found(images, 0.5, labels), net(images, 0.5, labels))
    assert not found.training


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"denoiser": "vit"}, r"\"edm\" or \"unet\", with its arguments; got 'vit'"),
        ({"preconditioner": "Evil"}, r"preconditioner among .*; got 'Evil'"),
        ({"arguments": {}}, r"got none for img_resolution, img_channels"),
        ({"arguments": 3}, r"with its arguments"),
        ({"arguments": {"img_resolution": 8, "img_channels": 3, "in_channels": 3}}, r"got 'in_channels'"),
        ({"attributes": {"model.none": {"eps": 1.0}}}, r"those of 'model.none'"),
        ({"attributes": {"": {"forward": 1}}}, r"attributes that the module has; got 'forward'"),
        ({"attributes": {"model": 1}}, r"attributes by module"),
        ({"denoiser": "unet", "channels": 3, "classes": 0, "widths": [8]}, r"tensors of a UNetDenoiser"),
        (
            {"denoiser": "unet", "channels": 3, "classes": 0, "widths": [10**9]},
            r"none above 65536; got \[3, 0, 1000000000\]",
        ),
        ({"denoiser": "unet", "channels": 3, "classes": 0, "widths": []}, r"1 to 12 widths"),
    ],
)
def test_data_that_describe_no_network_are_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    tensors, about = export(made())
    path = Store(tmp_path).write_tensors("net.safetensors", tensors, about | change)
    with pytest.raises(PagsError, match=message):
        load_denoiser(path)


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    for name in ("net.pt", "net"):
        with pytest.raises(UsageError, match=r"\.pkl \(EDM's\), \.safetensors"):
            load_denoiser(tmp_path / name)
    for name in ("net.pkl", "net.safetensors"):
        with pytest.raises(PagsError):
            load_denoiser(tmp_path / name)
    (tmp_path / "weights.safetensors").write_bytes(
        Store(tmp_path).write_tensors("a.safetensors", {}).read_bytes()
    )
    with pytest.raises(PagsError, match=r"\"edm\" or \"unet\""):
        load_denoiser(tmp_path / "weights.safetensors")
    with pytest.raises(UsageError, match=r"EDMDenoiser or a UNetDenoiser; got Identity"):
        export(nn.Identity())
