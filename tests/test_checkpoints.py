"""The reader against the programs that write what it reads: pickle, torch, dill and numpy."""

import collections
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any

import dill  # type: ignore[import-untyped]
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from conftest import built
from pags.checkpoints import Opaque, leaves, read, state_dict_in, tensors_in
from pags.errors import PagsError

WRITERS: dict[str, dict[str, Any]] = {
    "an archive": {},
    "an archive by dill": {"pickle_module": dill},
    "an archive in protocol 4": {"pickle_protocol": 4},
    "an old file": {"_use_new_zipfile_serialization": False},
    "an old file by dill": {"_use_new_zipfile_serialization": False, "pickle_module": dill},
    "an old file in protocol 4": {"_use_new_zipfile_serialization": False, "pickle_protocol": 4},
}
DTYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
    torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2,
)  # fmt: skip


def saved(path: Path, content: Any, writer: str = "an archive") -> Path:
    torch.save(content, path, **WRITERS[writer])
    return path


def pickled(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def same(a: Any, b: Any) -> bool:
    """Equal to the last bit and of the same types."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and a.tolist() == b.tolist()
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


def network() -> nn.Sequential:
    return built(
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Linear(200, 300)))
    )


def training_state() -> dict[str, Any]:
    """What training scripts save: weights, an optimiser with momentum, a schedule, plain values."""
    net = network()
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.1)
    net[1](net[0](torch.ones(1, 3, 4, 4))).sum().backward()
    optimiser.step()
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, 3)
    return {
        "model": dict(net.state_dict()), "optimizer": optimiser.state_dict(),
        "schedule": schedule.state_dict(), "epoch": 3, "name": "é", "history": [(1, 0.5), (2, None)],
        "size": torch.Size([2, 3]),
    }  # fmt: skip


# --- plain data ----------------------------------------------------------------------------------------

KEYS = st.one_of(st.text(), st.binary(), st.integers(-(2**59), 2**59), st.booleans(), st.none())
LEAVES = st.one_of(
    st.text(), st.binary(), st.integers(-(2**2000), 2**2000), st.floats(), st.booleans(), st.none(),
    st.binary().map(bytearray), st.sets(KEYS), st.frozensets(KEYS), st.complex_numbers(allow_nan=False),
)  # fmt: skip
DATA = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner), st.lists(inner).map(tuple), st.dictionaries(KEYS | st.tuples(KEYS, KEYS), inner)
    ),
    max_leaves=30,
)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_are_what_pickle_reads(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "data.pkl"

    @given(DATA)
    def law(data: Any) -> None:
        content = pickle.dumps(data, protocol=protocol)
        path.write_bytes(content)
        assert same(read(path), pickle.loads(content))

    law()


@pytest.mark.parametrize("protocol", range(6))
def test_long_bytes_are_data_too(protocol: int, tmp_path: Path) -> None:
    data = [bytes(100_000), {"a": bytearray(70_000)}, np.arange(20_000.0), (bytes(65_536),)]
    array = torch.arange(20_000, dtype=torch.float64)
    assert same(read(pickled(tmp_path / "a.pkl", data, protocol)), [*data[:2], array, data[3]])


@pytest.mark.parametrize("protocol", range(6))
def test_ordered_and_counting_dicts_become_dicts(protocol: int, tmp_path: Path) -> None:
    ordered = collections.OrderedDict([("b", 1), ("a", [2])])
    ordered._metadata = {"version": 1}  # type: ignore[attr-defined]
    data: list[Any] = [ordered, collections.Counter("aab"), collections.defaultdict(list, {"x": 3})]
    assert same(
        read(pickled(tmp_path / "a.pkl", data, protocol)), [{"b": 1, "a": [2]}, {"a": 2, "b": 1}, {"x": 3}]
    )


# --- numpy ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "kind", ["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"]
)
def test_numeric_arrays_become_tensors(protocol: int, kind: str, tmp_path: Path) -> None:
    values = np.arange(24).reshape(2, 3, 4).astype(kind)
    arrays = [
        values,
        values.T,
        values.astype(np.dtype(kind).newbyteorder(">")),
        values[:, ::2],
        values[0, 0, 1],
    ]
    expected = [torch.from_numpy(np.ascontiguousarray(a.astype(kind))) for a in arrays[:4]]
    scalar = arrays[4].item()
    assert same(read(pickled(tmp_path / "a.pkl", arrays, protocol)), [*expected, scalar])


def test_arrays_of_other_things_stay_opaque(tmp_path: Path) -> None:
    arrays = [np.array(["a", "bc"]), np.array([{}, None]), np.zeros(2, "M8[s]"), np.zeros(2, "i4,f4")]
    for protocol in range(5):
        found = read(pickled(tmp_path / "a.pkl", arrays, protocol))
        assert [type(array) for array in found] == [Opaque] * 4
        assert {array.name for array in found} == {"numpy.ndarray"}


# --- torch ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("writer", WRITERS)
def test_training_states_come_back(writer: str, tmp_path: Path) -> None:
    state = training_state()
    expected = {**state, "size": (2, 3)}
    assert same(read(saved(tmp_path / "a.pt", state, writer)), expected)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_type_of_number_comes_back(writer: str, dtype: torch.dtype, tmp_path: Path) -> None:
    values = torch.tensor([[0, 1, 2], [3, 0, 5]]).to(dtype)
    assert same(
        read(saved(tmp_path / "a.pt", {"a": values, "empty": values[:0]}, writer)),
        {"a": values, "empty": values[:0]},
    )


@pytest.mark.parametrize("writer", WRITERS)
def test_views_come_back_with_their_strides_and_shared_memory(writer: str, tmp_path: Path) -> None:
    whole = torch.arange(24.0)
    views = [
        whole,
        whole.view(4, 6).T,
        whole[5:9],
        whole[::3],
        whole[7],
        whole.view(2, 3, 4).permute(2, 0, 1),
    ]
    found = read(saved(tmp_path / "a.pt", views, writer))
    assert same(found, views)
    assert [view.stride() for view in found] == [view.stride() for view in views]
    found[0].zero_()
    assert not any(view.any() for view in found)


@pytest.mark.parametrize("writer", WRITERS)
def test_parameters_become_tensors(writer: str, tmp_path: Path) -> None:
    parameter = nn.Parameter(torch.ones(2))
    marked = nn.Parameter(torch.ones(3))
    marked.note = "kept by torch"  # type: ignore[attr-defined]
    found = read(saved(tmp_path / "a.pt", [parameter, marked], writer))
    assert same(found, [torch.ones(2), torch.ones(3)])
    assert not any(tensor.requires_grad for tensor in found)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickled_network_is_opaque_down_to_its_tensors(protocol: int, tmp_path: Path) -> None:
    net = network()
    tree = read(pickled(tmp_path / "a.pkl", {"ema": net}, protocol))
    assert tree["ema"].name == "torch.nn.modules.container.Sequential"
    found = {name: leaf for name, leaf in leaves(tree) if isinstance(leaf, Tensor)}
    for name, value in net.state_dict().items():
        *way, last = name.split(".")
        place = "ema.state." + "".join(f"_modules.{part}.state." for part in way)
        assert same(found.get(f"{place}_parameters.{last}", found.get(f"{place}_buffers.{last}")), value)


@pytest.mark.parametrize("writer", [writer for writer in WRITERS if "dill" in writer])
def test_functions_and_classes_by_dill_stay_opaque(writer: str, tmp_path: Path) -> None:
    def again(n: int) -> Any:
        return [again, n]

    class Kept:
        def __init__(self) -> None:
            self.me, self.value = self, torch.ones(2)

    content = {
        "model": {"w": torch.ones(2)},
        "f": again,
        "lambda": lambda x: x + 1,
        "type": int,
        "object": Kept(),
    }
    tree = read(saved(tmp_path / "a.ckpt", content, writer))
    assert same(tree["model"], {"w": torch.ones(2)})
    assert all(isinstance(tree[key], Opaque) for key in ("f", "lambda", "type", "object"))
    assert tree["lambda"].name == "dill._dill._create_function"
    assert list(leaves(tree))  # a walk ends, though the function and the object refer to themselves


def test_sparse_and_conjugated_tensors_are_not_misread(tmp_path: Path) -> None:
    sparse = torch.eye(3).to_sparse()
    found = read(saved(tmp_path / "a.pt", [sparse, torch.tensor([1 + 2j]).conj()]))
    assert [leaf.name for leaf in found] == [
        "torch._utils._rebuild_sparse_tensor",
        "torch._utils._rebuild_tensor_v2",
    ]


# --- safetensors, and files that are none --------------------------------------------------------------


def test_safetensors_come_back(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6).reshape(2, 3), "b.c": torch.ones(2).bfloat16(), "none": torch.zeros(0, 3)}
    save_file(tensors, path := tmp_path / "a.safetensors", {"format": "pt"})
    assert same(dict(sorted(read(path).items())), dict(sorted(tensors.items())))


def test_refusals_name_the_file_and_what_to_try(tmp_path: Path) -> None:
    with pytest.raises(PagsError, match=r"a checkpoint that can be read; got .*missing\.pt"):
        read(tmp_path / "missing.pt")
    with pytest.raises(PagsError, match="can be read; got "):
        read(tmp_path)
    path = saved(tmp_path / "a.pt", training_state())
    with pytest.raises(PagsError, match=r"at most 1,000 bytes; got .* bytes, in .*a\.pt; try a higher limit"):
        read(path, limit=1000)
    with (
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as packed,
        zipfile.ZipFile(path) as good,
    ):
        for name in good.namelist():
            packed.writestr(name, good.read(name))
    with pytest.raises(PagsError, match="uncompressed members"):
        read(tmp_path / "b.pt")


def test_tensors_are_found_by_dotted_paths() -> None:
    one = torch.ones(1)
    tree = {"a": {"b": one, 3: {"c": one}}, "list": [one], "n": 1, "object": Opaque("x", (one,))}
    assert list(tensors_in(tree)) == ["a.b", "a.3.c"]
    with pytest.raises(PagsError, match=r"got two at a\.b"):
        tensors_in({"a": {"b": one}, "a.b": one})


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net", ""])
def test_state_dicts_are_found_where_scripts_put_them(key: str) -> None:
    state = {
        "module.model.conv1.weight": torch.ones(1),
        "module.model.bn.num_batches_tracked": torch.tensor(3),
    }
    tree = {key: state, "epoch": 3, "optimizer": {"state": {}}} if key else state
    assert state_dict_in(tree) == (key, state)


@pytest.mark.parametrize("tree", [[1, 2], {"epoch": 3, "model": Opaque("x")}, Opaque("x"), {}, torch.ones(2)])
def test_a_checkpoint_without_state_dict_is_named(tree: Any) -> None:
    with pytest.raises(PagsError, match="expected a state dict, alone or under one of state_dict"):
        state_dict_in(tree)
