"""Whatever a user brings, adapted once: models as they come, images, labels; and what cannot be is said."""

import copy
import io
import json
import threading
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conftest import Linear, built, network_with_batch_norm, seeded
from pags.classifiers.about import describe
from pags.classifiers.adapt import Adapted, as_classifier, as_images, as_labels, copied
from pags.classifiers.check import check_classifier
from pags.classifiers.load import load_classifier
from pags.errors import ModelError, PagsError, UsageError

pytestmark = pytest.mark.usefixtures("global_state_untouched")

X = torch.rand(24, 3, 8, 8, generator=seeded())


def network() -> nn.Module:
    return network_with_batch_norm(3, 10).eval()


class Wrapped(nn.Module):
    """A network and what a user does around it."""

    def __init__(self, call: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.network, self.call = network(), call

    def forward(self, x: Tensor) -> Any:
        return self.call(self.network, x)


@dataclass
class Output:
    logits: Tensor
    loss: object = None


def in_place(n: nn.Module, x: Tensor) -> Tensor:
    return n(x.sub_(0.3).div_(0.5))


# --- models ----------------------------------------------------------------------------------------------

SAME: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "a tuple with features": lambda n, x: (n(x), x), "a dict": lambda n, x: {"logits": n(x), "loss": None},
    "an object": lambda n, x: Output(n(x)), "one pixel of logits": lambda n, x: n(x)[:, :, None, None],
    "a list": lambda n, x: [n(x)],
}  # fmt: skip


@pytest.mark.parametrize("what", SAME)
def test_logits_are_found_in_what_a_model_returns(what: str) -> None:
    model = check_classifier(Wrapped(SAME[what]), X, 10)
    assert torch.equal(model(X), network()(X))


def test_a_model_that_changes_its_input_gets_a_copy() -> None:
    before, plain = X.clone(), network()
    model = check_classifier(Wrapped(in_place), X)
    images = X.clone().requires_grad_()
    assert torch.equal(model(images), plain((X - 0.3) / 0.5))
    (gradient,) = torch.autograd.grad(model(images).sum(), images)
    mirror = X.clone().requires_grad_()
    (expected,) = torch.autograd.grad(plain((mirror - 0.3) / 0.5).sum(), mirror)
    assert torch.allclose(gradient, expected)
    assert torch.equal(X, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_of_another_precision_gets_images_of_its_own(dtype: torch.dtype) -> None:
    half = network().to(dtype)
    model = check_classifier(half, X)
    assert model(X).dtype == torch.float32
    assert torch.equal(model(X), half(X.to(dtype)).float())


def test_what_was_built_here_stays_as_it_is() -> None:
    own = load_classifier("torchvision:resnet18?untrained", classes=3)
    assert as_classifier(own) is own
    around = as_classifier(network())
    assert as_classifier(around) is around
    assert check_classifier(around, X) is around
    bare = check_classifier(lambda x: network()(x), X)
    assert isinstance(bare, Adapted)
    assert describe(bare)["parameters"] == 0


BROKEN: dict[str, tuple[Callable[[nn.Module, Tensor], Any], str]] = {
    "small noise": (lambda n, x: n(x + 0.002 * torch.randn_like(x)), "the same logits when"),
    "dropout": (lambda n, x: nn.functional.dropout(n(x), 0.2, training=True), "the same logits when"),
    "softmax": (lambda n, x: n(x).softmax(1), "outputs that are probabilities"),
    "saturated softmax": (lambda n, x: (50 * n(x)).softmax(1), "outputs that are probabilities"),
    "sigmoid": (lambda n, x: n(x).sigmoid(), "outputs that are sigmoids"),
    "two candidates": (lambda n, x: (n(x), 2 * n(x)), "a tuple of 2"),
    "text": (lambda n, x: "cat", "a str"),
    "a root of zero": (lambda n, x: n(x) + (0 * x[:, 0, 0, :1]).sqrt(), "NaN or infinity in 24 of 24"),
    "an error of its own": (lambda n, x: n(x[:, :2]), r"an error of the model, RuntimeError: .*channels"),
    "an assertion without words": (lambda n, x: exec("assert False"), "AssertionError: no message"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_no_classifier_is_told_so_in_one_line(what: str) -> None:
    call, message = BROKEN[what]
    with pytest.raises(PagsError, match=message) as caught:
        check_classifier(Wrapped(call), X)
    assert "\n" not in str(caught.value)


def test_every_image_is_tried() -> None:
    images = torch.cat([X, torch.zeros(1, 3, 8, 8)])
    nan = Wrapped(lambda n, x: n(x) + 0.01 * x[:, :, 2, 2].pow(2).sum(1).sqrt()[:, None])
    with pytest.raises(PagsError, match="NaN or infinity in 1 of 25 images, the first of them number 24"):
        check_classifier(nan, images, batch_size=7)
    huge = Wrapped(lambda n, x: n(x) / x.flatten(1).amax(1)[:, None])
    with pytest.raises(PagsError, match="finite logits"):
        check_classifier(huge, images)
    flat = Wrapped(lambda n, x: n(x) * (x.flatten(1).amax(1) > 0)[:, None])
    assert describe(check_classifier(flat, images))["zero gradients"] == "1 of 25 images"


@pytest.mark.parametrize("outputs", ["probabilities", "log-probabilities", "sigmoids"])
def test_outputs_that_are_no_logits_can_be_inverted(outputs: str, tmp_path: Path) -> None:
    after: dict[str, Callable[[Tensor], Tensor]] = {
        "probabilities": lambda z: z.softmax(1), "log-probabilities": lambda z: z.log_softmax(1),
        "sigmoids": lambda z: z.sigmoid(),
    }  # fmt: skip
    plain = network()
    model = check_classifier(Wrapped(lambda n, x: after[outputs](n(x))), X, outputs=outputs)
    if outputs == "sigmoids":
        assert torch.allclose(model(X), plain(X), atol=1e-4)
    assert torch.allclose(model(X).softmax(1), plain(X).softmax(1), atol=1e-4)
    call = "sigmoid()" if outputs == "sigmoids" else "softmax(1)"
    text = f"def f(): return lambda x: (x.mean((2, 3)) * 9).{call}"
    (tmp_path / "mine.py").write_text(text)
    if outputs != "log-probabilities":
        loaded = load_classifier(f"{tmp_path / 'mine.py'}:f?outputs={outputs}")
        assert torch.allclose(
            check_classifier(loaded, X)(X).softmax(1), (X.mean((2, 3)) * 9).softmax(1), atol=1e-4
        )


def test_insisting_on_logits_takes_them_as_they_are() -> None:
    model = Wrapped(lambda n, x: n(x).softmax(1))
    assert torch.equal(check_classifier(model, X, outputs="logits")(X), network()(X).softmax(1))
    with pytest.raises(UsageError, match="outputs among"):
        check_classifier(model, X, outputs="cats")


def test_a_network_of_another_size_is_told_which(tmp_path: Path) -> None:
    text = "from torch import nn\ndef f(): return nn.Sequential(nn.Flatten(), nn.Linear(3 * {0} * {1}, 10))"
    path = tmp_path / "mine.py"
    for height, width in ((12, 12), (48, 48), (20, 36), (56, 28)):
        path.write_text(text.format(height, width))
        model = built(lambda: load_classifier(f"{path}:f", size=(height, width)))  # noqa: B023
        assert model(torch.zeros(1, 3, height, width)).shape == (1, 10)
    with pytest.raises(ModelError, match=r"of 8×8 in 3 channels.*mat1 and mat2"):
        built(lambda: load_classifier(f"{path}:f", size=(8, 8)))
    with pytest.raises(ModelError, match="mat1 and mat2"):
        check_classifier(built(lambda: load_classifier(f"{path}:f")), X)
    with pytest.raises(ModelError, match="AssertionError"):
        check_classifier(load_classifier("torchvision:vit_b_32?untrained", classes=3), X)


def test_what_a_model_raises_elsewhere_is_its_own() -> None:
    class Stubborn(Linear):
        def train(self, mode: bool = True) -> "Stubborn":
            raise KeyError("no modes here")

    with pytest.raises(ModelError, match="KeyError: 'no modes here'"):
        check_classifier(Stubborn(torch.ones(2, 192)), X)

    class Locked(Linear):
        def __init__(self) -> None:
            super().__init__(torch.ones(2, 192))
            self.lock = threading.Lock()

    with pytest.raises(ModelError, match=r"can be copied.*TypeError: cannot pickle '_thread.lock'"):
        copied(Locked())
    assert torch.equal(copied(network())(X), network()(X))


# --- images and labels -----------------------------------------------------------------------------------

BYTES = (X * 255).round().to(torch.uint8)
SAME_IMAGES: dict[str, Any] = {
    "bytes": BYTES, "numpy bytes": BYTES.numpy(), "numpy floats": (BYTES.float() / 255).numpy(),
    "a list": list(BYTES), "a list of numpy": [each.numpy() for each in BYTES],
    "channels last": BYTES.permute(0, 2, 3, 1).numpy(),
    "with a gradient": (BYTES.float() / 255).requires_grad_(),
}  # fmt: skip


@pytest.mark.parametrize("what", SAME_IMAGES)
def test_images_of_any_type_become_the_same(what: str) -> None:
    images = as_images(SAME_IMAGES[what])
    assert torch.equal(images, BYTES.float() / 255)
    assert not images.requires_grad
    assert as_images(BYTES[:, 0]).shape == (24, 1, 8, 8)


@pytest.mark.parametrize(
    "images",
    [X[0], 255 * X, X - 0.5, (X * 60000).to(torch.int32), "images", None, [X[0], X[0, :, :3]], X * torch.nan,
     (X.numpy() * 60000).astype(np.uint16), np.array([object()])],
)  # fmt: skip
def test_what_cannot_be_images_is_refused(images: Any) -> None:
    with pytest.raises(UsageError, match="images"):
        as_images(images)


Y = torch.arange(24) % 10


@pytest.mark.parametrize(
    "labels",
    [Y, Y.int(), Y.byte(), Y.tolist(), Y[:, None], Y.numpy(), Y.numpy().astype(np.uint16), torch.eye(10)[Y],
     torch.eye(10, dtype=torch.long)[Y]],
)  # fmt: skip
def test_labels_of_any_type_become_the_same(labels: Any) -> None:
    assert torch.equal(as_labels(labels, 24, 10), Y)
    check_classifier(network(), X, labels=labels)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (Y.float(), r"labels\.long\(\)"), (Y > 4, r"labels\.long\(\)"), (Y[:5], "5 of them"),
        (torch.arange(30), r"labels\[:24\]"), (Y - 1, "from -1"), (Y + 1, "labels - 1"),
        (Y + 5, "more classes"), (X, "24 images"), ("cats", "24 images"), (None, "24 images"),
        (torch.rand(24, 10, generator=seeded()), "of shape"), (3, "24 images"),
    ],
)  # fmt: skip
def test_labels_that_cannot_be_are_refused(labels: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        as_labels(labels, 24, 10)


# --- programs --------------------------------------------------------------------------------------------


def quietly(make: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


def exported(path: Path) -> None:
    def make() -> None:
        batch = {0: torch.export.Dim("batch", min=2)}
        done = torch.export.export(network(), (X[:2],), dynamic_shapes=(batch,))
        torch.export.save(done, path)

    quietly(make)


@pytest.mark.parametrize("kind", ["scripted", "traced"])
def test_torchscript_is_read_and_only_its_graph_runs(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    net = network()
    make = torch.jit.script if kind == "scripted" else lambda n: torch.jit.trace(n, X[:2])
    quietly(lambda: make(net).save(path))  # type: ignore[no-untyped-call]
    model = check_classifier(load_classifier(f"{path}?mean=.5&std=.25", size=(8, 8)), X, 10)
    assert torch.allclose(model(X), net((X - 0.5) / 0.25), atol=1e-6)
    assert "TorchScript" in describe(model)["weights"]


class Writes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        torch.save(x, "written.pt")
        return x.flatten(1)


def test_torchscript_that_writes_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        quietly(lambda: torch.jit.script(Writes()).save("evil.pt"))
    except Exception:
        pytest.skip("this torch cannot write it")
    with pytest.raises(PagsError, match="only computes with tensors; got save"):
        load_classifier("evil.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["evil.pt"]


def test_an_exported_program_is_read(tmp_path: Path) -> None:
    exported(path := tmp_path / "net.pt2")
    model = load_classifier(str(path), size=(8, 8))
    assert torch.allclose(model(X), network()(X), atol=1e-6)
    assert "torch.export" in describe(model)["weights"]
    with pytest.raises(ModelError, match="an error of the model"):
        load_classifier(str(path), size=(9, 9), channels=1)


def edited(path: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """The archive with its members changed."""
    target = path.with_name("changed.pt2")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return target


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("written"),)


def with_target(name: str, content: bytes) -> bytes:
    return content.replace(b"torch.ops.aten.relu.default", b"torch.hub.load").replace(
        b"torch.ops.aten.softplus.default", b"torch.hub.load"
    )


def with_expression(name: str, content: bytes) -> bytes:
    if not name.endswith(".json"):
        return content
    tree = json.loads(content)

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            return {k: "open('written', 'w')" if k == "expr_str" else walk(v) for k, v in node.items()}
        return [walk(value) for value in node] if isinstance(node, list) else node

    return json.dumps(walk(tree)).encode()


def with_object(name: str, content: bytes) -> bytes:
    if not name.endswith(".pt"):
        return content
    buffer = io.BytesIO()
    torch.save(Evil(), buffer)
    return buffer.getvalue()


def with_pickles(name: str, content: bytes) -> bytes:
    return content.replace(b'"use_pickle": false', b'"use_pickle": true')


@pytest.mark.parametrize("change", [with_target, with_expression, with_object, with_pickles])
def test_an_exported_program_that_could_run_code_is_refused(
    change: Callable[[str, bytes], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exported(path := tmp_path / "net.pt2")
    other = edited(path, change)
    if other.read_bytes() == edited(path, lambda name, content: content).read_bytes():
        pytest.skip("this torch writes nothing of the kind")
    with pytest.raises(PagsError, match=r"expected a torch\.export program"):
        load_classifier(str(edited(path, change)), size=(8, 8))
    assert not (tmp_path / "written").exists()


def test_a_damaged_program_is_one_line(tmp_path: Path) -> None:
    exported(path := tmp_path / "net.pt2")
    other = edited(path, lambda name, content: content[: len(content) // 2] if "weight_" in name else content)
    with pytest.raises(PagsError, match=r"changed\.pt2"):
        load_classifier(str(other), size=(8, 8))


def test_onnx_needs_its_packages_and_has_gradients(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"\x08\x07\x12\x07pytorch")
    try:
        import onnx
        import onnx2torch  # noqa: F401
    except ImportError:
        with pytest.raises(PagsError, match=r"pip install -e '\.\[onnx\]'"):
            load_classifier(str(path))
        return
    make, kind = onnx.helper, onnx.TensorProto.FLOAT
    weight = np.random.default_rng(0).normal(size=(10, 192)).astype(np.float32)
    nodes = [make.make_node("Flatten", ["x"], ["f"]), make.make_node("Gemm", ["f", "w"], ["y"], transB=1)]
    ends = [
        make.make_tensor_value_info(n, kind, shape) for n, shape in (("x", ["n", 3, 8, 8]), ("y", ["n", 10]))
    ]
    graph = make.make_graph(nodes, "g", ends[:1], ends[1:], [onnx.numpy_helper.from_array(weight, "w")])
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 13)]), path)
    model = check_classifier(load_classifier(str(path), size=(8, 8)), X, 10)
    assert torch.allclose(model(X), X.flatten(1) @ torch.from_numpy(weight).T, atol=1e-5)


def test_a_copy_of_an_adapted_model_is_as_good() -> None:
    model = as_classifier(Wrapped(in_place))
    assert torch.equal(copy.deepcopy(model)(X), model(X))
