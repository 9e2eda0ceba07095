"""Hostile files of graphs and folders of diffusers: nothing runs, nothing takes long or much memory.

Each is a good file of its format with something changed, and has to be refused in one line. One process of
limited memory reads them all, in an empty folder, where the payloads would leave the canary.
"""

import importlib.util
import io
import json
import os
import pickle
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from test_hostile import Call, gadgets, live, pickles

Change = Callable[[str, bytes], bytes]
MANY = 300_000_000


class Loops(nn.Module):
    """Reading it never ends."""

    def __init__(self) -> None:
        super().__init__()
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    @torch.jit.export
    def __getstate__(self) -> tuple[int, bool]:
        return 1, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[int, bool]) -> None:
        self.training = state[1]
        found = 0
        while state[0] > 0:
            found += state[0]


def quietly(make: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


def scripted(network: nn.Module) -> bytes:
    file = io.BytesIO()
    quietly(lambda: torch.jit.save(torch.jit.script(network), file))
    return file.getvalue()


def exported(network: nn.Module) -> bytes:
    def make() -> bytes:
        batch = {0: torch.export.Dim("batch", min=2)}
        done = torch.export.export(network, (torch.zeros(2, 1, 8, 8),), dynamic_shapes=(batch,))
        torch.export.save(done, file := io.BytesIO())
        return file.getvalue()

    return quietly(make)


def edited(archive: bytes, change: Change, method: int = zipfile.ZIP_STORED) -> bytes:
    """The archive with its members changed."""
    with (
        zipfile.ZipFile(io.BytesIO(archive)) as old,
        zipfile.ZipFile(out := io.BytesIO(), "w", method) as new,
    ):
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return out.getvalue()


def instead(ending: str, content: bytes) -> Change:
    """What ends so is replaced."""
    return lambda name, before: content if name.endswith(ending) else before


def with_expression(text: str) -> Change:
    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            return {name: text if name == "expr_str" else walk(value) for name, value in node.items()}
        return [walk(value) for value in node] if isinstance(node, list) else node

    return lambda name, content: (
        json.dumps(walk(json.loads(content))).encode() if name.endswith(".json") else content
    )


def unlike(archive: bytes) -> bytes:
    """Its first member says that it is encrypted."""
    changed = bytearray(archive)
    changed[changed.find(b"PK\x01\x02") + 8] |= 1
    return bytes(changed)


def programs(folder: Path, canary: Path) -> Iterator[tuple[str, bytes]]:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    script, export = scripted(network), exported(network)
    bomb = zipfile.ZIP_DEFLATED
    yield "never ends.pt", scripted(Loops())
    yield "code bomb.pt", edited(script, instead(".py", b" " * MANY), bomb)
    yield "code no text.pt", edited(script, instead(".py", b"\xff\xfe"))
    yield "code cut.pt", edited(script, lambda name, old: old[:60] if name.endswith(".py") else old)
    yield "other operators.pt", edited(script, instead(".py", b"class A(Module):\n  x = ops.evil.run()\n"))
    yield "encrypted.pt", unlike(script)
    for name, payload in (live(folder, canary) | gadgets(folder, canary)).items():
        yield f"data {name}.pt", edited(script, instead("data.pkl", payload))
        yield f"constants {name}.pt", edited(script, instead("constants.pkl", payload))
        yield f"inputs {name}.pt2", edited(export, instead(".pt", payload))
    for name, content in pickles().items():
        if name.partition(" ")[0] == "refused" and 0 < len(content) < 100_000:
            yield f"data {name}.pt", edited(script, instead("data.pkl", content))
            yield f"inputs {name}.pt2", edited(export, instead(".pt", content))
    yield "text bomb.pt2", edited(export, instead(".json", b" " * MANY), bomb)
    yield "deep text.pt2", edited(export, instead(".json", b"[" * 1_000_000))
    yield "many objects.pt2", edited(export, instead(".json", b"[" + b"{}," * 10_000_000 + b"{}]"), bomb)
    yield "text cut.pt2", edited(export, lambda name, old: old[:99] if name.endswith(".json") else old)
    yield "no text.pt2", edited(export, instead(".json", b"\xff\xfe"))
    yield "encrypted.pt2", unlike(export)
    for text in (
        "9**9**9**9",
        "(9**9)**9**9",
        "Pow(Integer(9), Pow(Integer(9), Pow(Integer(9), Integer(9))))",
        "Pow(Pow(Pow(Integer(99), Integer(99)), Integer(99)), Integer(9999))",
        "s0+" * 500_000 + "s0",
        "(" * 900,
    ):
        yield (
            f"expression {text[:9].replace('*', '^')} {len(text)}.pt2",
            edited(export, with_expression(text)),
        )
    yield (
        "shapes.pt2",
        edited(
            export, lambda name, old: old.replace(b"64", b"99999999999") if name.endswith(".json") else old
        ),
    )


def graphs(folder: Path) -> Iterator[tuple[str, bytes]]:
    onnx = pytest.importorskip("onnx")
    make, kind = onnx.helper, onnx.TensorProto.FLOAT
    ends = [make.make_tensor_value_info(n, kind, s) for n, s in (("x", ("n", 1, 8, 8)), ("y", ("n", 10)))]

    def model(weight: Any, *nodes: Any) -> bytes:
        steps = [make.make_node("Flatten", ["x"], ["f"]), make.make_node("MatMul", ["f", "w"], ["y"]), *nodes]
        graph = make.make_graph(steps, "g", ends[:1], ends[1:], [weight])
        return make.make_model(graph, opset_imports=[make.make_opsetid("", 13)]).SerializeToString()

    def weight(**changed: Any) -> Any:
        found = onnx.TensorProto(name="w", data_type=kind, dims=[64, 10], raw_data=b"\0" * 2560)
        for name, value in changed.items():
            found.ClearField(name)
            getattr(found, name).extend(value) if name == "dims" else setattr(found, name, value)
        return found

    outside = weight(raw_data=b"", data_location=onnx.TensorProto.EXTERNAL)
    (folder / "secret").write_bytes(b"\0" * 2560)
    outside.external_data.add(key="location", value=str(folder / "secret"))
    yield "weights elsewhere.onnx", model(outside)
    yield "huge.onnx", model(weight(dims=[2**31, 2**31]))
    yield "negative.onnx", model(weight(dims=[-64, -10]))
    yield "short.onnx", model(weight(raw_data=b"\0" * 8))
    yield "unknown type.onnx", model(weight(data_type=99))
    yield "unknown operator.onnx", model(weight(), make.make_node("Evil", ["y"], ["z"], domain="evil"))
    yield (
        "circle.onnx",
        model(weight(), make.make_node("Relu", ["a"], ["b"]), make.make_node("Relu", ["b"], ["a"])),
    )
    yield "deep.onnx", b"\x3a\x80\x80\x04" * 50_000
    yield "cut.onnx", model(weight())[:-100]
    yield "long.onnx", b"\x3a\xff\xff\xff\xff\x07"
    yield "pickle.onnx", pickle.dumps(Call(os.system, "touch canary"))
    yield "empty.onnx", b""


READER = """
import resource, signal, sys, time, json, warnings
from pathlib import Path
import torch, torch.export
from pags.classifiers.load import load_classifier
from pags.errors import PagsError
from pags.score.load import load_denoiser

warnings.simplefilter("ignore")
def read(path):
    return load_denoiser(path) if path.is_dir() else load_classifier(str(path), size=(8, 8), channels=1)
folder, warm, canary = map(Path, sys.argv[1:])
for path in sorted(warm.iterdir()):
    read(path)
base = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (base + 2 * 2**30, -1))
for path in sorted(folder.iterdir()):
    signal.alarm(30)  # ends this process
    began, said = time.perf_counter(), None
    try:
        read(path)
    except PagsError as error:
        said = str(error)
    except BaseException as error:
        said = f"CRASH {type(error).__name__}: {error}"
    signal.alarm(0)
    ran = [str(each) for each in (canary, *Path().iterdir()) if each.exists()]
    print(json.dumps([path.name, f"RAN {ran}" if ran else said, time.perf_counter() - began]), flush=True)
    canary.unlink(missing_ok=True)
"""


def assert_refused(folder: Path, warm: Path, empty: Path, canary: Path) -> None:
    empty.mkdir()
    paths = [str(Path(__file__).parents[1] / "src"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    words = [sys.executable, "-c", READER, str(folder), str(warm), str(canary)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=empty, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    after = sorted(path.name for path in folder.iterdir())[len(lines) :]
    assert done.returncode == 0, f"{done.returncode} at {after[:1]}: {done.stderr[-2000:]}"
    assert len(lines) == len(list(folder.iterdir()))
    wrong = [
        (name, said and said[:300])
        for name, said, _ in lines
        if said is None or "\n" in said or not said.startswith("expected ") or len(said) > 900
    ]
    assert wrong == []
    slowest = max(lines, key=lambda line: line[2])
    print(f"{len(lines)} files, slowest {slowest[0]} {slowest[2]:.1f} s")


def written(folder: Path, files: Iterator[tuple[str, bytes]]) -> Path:
    folder.mkdir()
    for name, content in files:
        (folder / name).write_bytes(content)
    return folder


def test_programs_that_are_hostile_are_refused(tmp_path: Path) -> None:
    network, warm = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval(), tmp_path / "warm"
    good = iter([("good.pt", scripted(network)), ("good.pt2", exported(network))])
    folder = written(tmp_path / "files", programs(tmp_path, tmp_path / "canary"))
    assert_refused(folder, written(warm, good), tmp_path / "empty", tmp_path / "canary")


@pytest.mark.skipif(importlib.util.find_spec("onnx2torch") is None, reason="needs onnx2torch")
def test_graphs_of_onnx_that_are_hostile_are_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "files", graphs(tmp_path))
    assert_refused(folder, written(tmp_path / "warm", iter(())), tmp_path / "empty", tmp_path / "canary")


UNET = {
    "_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 1, "out_channels": 1,
    "block_out_channels": [8, 8], "layers_per_block": 1, "norm_num_groups": 4,
    "down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2, "add_attention": False,
}  # fmt: skip
STEPS = {"num_train_timesteps": 10, "prediction_type": "epsilon"}
CHANGES: dict[str, tuple[Any, Any]] = {
    "wide": ({"block_out_channels": [2**20] * 2}, {}),
    "deep": ({"layers_per_block": 10**9}, {}),
    "many blocks": ({"block_out_channels": [8] * 10**6}, {}),
    "many classes": ({"num_class_embeds": 10**12}, {}),
    "text": ({"layers_per_block": "os.system"}, {}),
    "negative": ({"block_out_channels": [-8, 8]}, {}),
    "other class": ({"_class_name": "os.system"}, {}),
    "other block": ({"down_block_types": ["os.system"] * 2}, {}),
    "many steps": ({}, {"num_train_timesteps": 10**11}),
    "no list": ([1], {}),
    "steps no list": ({}, "steps"),
}


def folder_of(parent: Path, name: str, unet: Any, steps: Any, weights: bytes) -> None:
    for part, file, change, base in (
        ("unet", "config.json", unet, UNET), ("scheduler", "scheduler_config.json", steps, STEPS)
    ):  # fmt: skip
        (parent / name / part).mkdir(parents=True)
        text = json.dumps(base | change if isinstance(change, dict) else change)
        (parent / name / part / file).write_text(text)
    (parent / name / "unet" / "diffusion_pytorch_model.bin").write_bytes(weights)


def test_folders_of_diffusers_that_are_hostile_are_refused(tmp_path: Path) -> None:
    """Where it is not installed, all are, for that or another reason; none may take long before."""
    torch.save({"conv_in.weight": torch.zeros(8, 1, 3, 3)}, good := io.BytesIO())
    for name, (unet, steps) in CHANGES.items():
        folder_of(tmp_path / "files", name, unet, steps, good.getvalue())
    for name, payload in live(tmp_path, tmp_path / "canary").items():
        folder_of(tmp_path / "files", name, {}, {}, payload)
    folder_of(tmp_path / "files", "deep text", {}, {}, good.getvalue())
    (tmp_path / "files" / "deep text" / "unet" / "config.json").write_text("[" * 1_000_000)
    folder_of(tmp_path / "files", "long text", {}, {}, good.getvalue())
    with (tmp_path / "files" / "long text" / "unet" / "config.json").open("wb") as file:
        file.truncate(8 * 2**30)
    (tmp_path / "warm").mkdir()
    assert_refused(tmp_path / "files", tmp_path / "warm", tmp_path / "empty", tmp_path / "canary")
