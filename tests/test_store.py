"""The store: what is read is what was written, and an artefact is there whole or not at all."""

import errno
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save
from torch import Tensor, nn

from pags.errors import PagsError
from pags.store import DamagedArtefact, Slot, Store, fingerprint, read_safetensors

pytestmark = pytest.mark.usefixtures("global_state_untouched")

numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63)
plain = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One folder for all examples of a law."""
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "out")


def files(store: Store) -> list[str]:
    return sorted(str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file())


def assert_same(read: Any, written: Any) -> None:
    """Equal to the last digit, types included; a tuple is read back as a list."""
    if isinstance(written, Tensor):
        assert isinstance(read, Tensor)
        assert read.dtype == written.dtype
        assert torch.equal(read, written.detach())
    elif isinstance(written, dict):
        assert list(read) == list(written)
        for key in written:
            assert_same(read[key], written[key])
    elif isinstance(written, list | tuple):
        assert len(read) == len(written)
        for one, other in zip(read, written, strict=True):
            assert_same(one, other)
    else:
        assert type(read) is type(written)
        assert read == written


# --- round trips -----------------------------------------------------------------------------------------


@given(record=st.dictionaries(st.text(), plain, max_size=5))
def test_records_come_back_to_the_last_digit(shared: Store, record: dict[str, Any]) -> None:
    shared.write_record("a/record.json", record)
    assert_same(shared.read_record("a/record.json"), record)


def test_records_keep_their_order_and_can_be_read_by_a_person(store: Store) -> None:
    path = store.write_record("record.json", {"sigma": 0.1, "name": "ε größer"})
    text = '{\n "sigma": 0.1,\n "name": "ε größer",\n "checksum": "sha256:'
    assert path.read_text().startswith(text)
    assert len(path.read_text()) == len(text) + 16 + len('"\n}\n')


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_records_hold_no_number_that_json_does_not_know(store: Store, value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.write_record("record.json", {"value": value})
    assert files(store) == []


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor([0.1, -0.0, torch.inf, 1e-45]),
        torch.tensor([0.1, 1e300], dtype=torch.float64),
        torch.tensor([0.1, 3e38], dtype=torch.bfloat16),
        torch.tensor([0.1], dtype=torch.float16),
        torch.tensor([2**63 - 1, -(2**63)]),
        torch.tensor([0, 255], dtype=torch.uint8),
        torch.tensor([True, False]),
        torch.tensor(3.5),
        torch.zeros(0, 3),
        torch.arange(24.0).reshape(2, 3, 2, 2).to(memory_format=torch.channels_last),
        torch.arange(6.0).reshape(2, 3).T,
        torch.arange(6.0, requires_grad=True),
    ],
    ids=lambda tensor: f"{tensor.dtype} {tuple(tensor.shape)}",
)
def test_tensors_come_back_exactly(store: Store, tensor: Tensor) -> None:
    store.write_tensors("x.safetensors", {"x": tensor}, {"recipe": {"sigma": 0.1}})
    tensors, about = store.read_tensors("x.safetensors")
    assert_same(tensors, {"x": tensor})
    assert about == {"recipe": {"sigma": 0.1}}


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_the_state_of_an_optimiser_comes_back(store: Store, kind: str) -> None:
    """With its integer keys, its lists of groups, its tuples and its tensors of no dimension."""
    weights = [nn.Parameter(torch.linspace(-1, 1, 5)), nn.Parameter(torch.tensor(0.3))]
    optimizer: torch.optim.Optimizer = (
        torch.optim.Adam(weights, lr=0.1)
        if kind == "adam"
        else torch.optim.SGD(weights, lr=0.1, momentum=0.9)
    )
    for _ in range(3):
        optimizer.zero_grad()
        (weights[0].square().sum() * weights[1]).backward()
        optimizer.step()
    slot = store.slot("unfinished/state.safetensors")
    slot.write({"optimizer": optimizer.state_dict(), "epoch": 3})
    state = slot.read()
    assert state is not None
    assert_same(state["optimizer"]["state"], optimizer.state_dict()["state"])
    optimizer.load_state_dict(state["optimizer"])
    assert state["epoch"] == 3


leaves = st.none() | st.booleans() | numbers | st.text() | st.sampled_from([torch.ones(2), torch.tensor(1)])
states = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.integers() | st.text(), inner, max_size=3),
    max_leaves=12,
)


@given(state=st.dictionaries(st.text(), states, max_size=4))
def test_nested_states_come_back(shared: Store, state: dict[str, Any]) -> None:
    slot = shared.slot("state.safetensors")
    slot.write(state)
    assert_same(slot.read(), state)


def test_tensors_that_share_memory_come_back_as_two(store: Store) -> None:
    """As tied weights do, and a view of a buffer."""
    whole = torch.arange(4.0)
    slot = store.slot("state.safetensors")
    slot.write({"model": {"encoder": whole, "decoder": whole, "part": whole[1:3]}})
    assert_same(slot.read(), {"model": {"encoder": whole, "decoder": whole, "part": whole[1:3]}})


def test_a_slot_is_empty_until_written_and_after_it_is_cleared(store: Store) -> None:
    slot = Slot(store, "unfinished/state.safetensors")
    assert slot.read() is None
    slot.write({"epoch": 1})
    slot.write({"epoch": 2})
    assert slot.read() == {"epoch": 2}
    slot.clear()
    slot.clear()
    assert slot.read() is None
    assert files(store) == []


# --- whole or not at all ---------------------------------------------------------------------------------


def fail(error: BaseException) -> Callable[..., NoReturn]:
    def instead(*_: object, **__: object) -> NoReturn:
        raise error

    return instead


@pytest.mark.parametrize("place", ["fsync", "chmod", "replace"])
@pytest.mark.parametrize(
    ("error", "raised"),
    [(OSError(errno.ENOSPC, "No space left on device"), PagsError), (KeyboardInterrupt(), KeyboardInterrupt)],
    ids=["full disk", "interrupt"],
)
def test_a_write_that_fails_leaves_everything_as_it_was(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    error: BaseException,
    raised: type[BaseException],
) -> None:
    store.write_record("a.json", {"value": "old"})
    with monkeypatch.context() as patched:
        patched.setattr(os if place == "fsync" else Path, place, fail(error))
        for name in ("a.json", "new/b.json"):
            with pytest.raises(raised):
                store.write_record(name, {"value": "new"})
    assert store.read_record("a.json") == {"value": "old"}
    assert files(store) == ["a.json"]
    assert not store.has("new/b.json")


def test_a_full_disk_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", fail(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(PagsError, match=r"room and permission to write .*a\.json; got No space left.*--out"):
        store.write_record("a.json", {})


def test_nobody_ever_sees_half_a_file(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Just before the last step the new content is already whole, and the name still means the old one."""
    store.write_record("a.json", {"value": "old"})
    seen = []

    def look(self: Path, target: Path) -> None:
        values = [json.loads(path.read_text())["value"] for path in (self, target)]
        seen.append((*values, self.parent == target.parent))
        os.replace(self, target)  # noqa: PTH105

    monkeypatch.setattr(Path, "replace", look)
    store.write_record("a.json", {"value": "new"})
    assert seen == [("new", "old", True)]
    assert store.read_record("a.json") == {"value": "new"}


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A path under a regular file, which stops even root."""
    (tmp_path / "file").write_text("")
    with pytest.raises(PagsError, match=r"folder that can be written; got .*file/out .*--out"):
        Store(tmp_path / "file" / "out")
    with pytest.raises(PagsError, match="folder that can be written"):
        Store(tmp_path / "file")
    store = Store(tmp_path)
    with pytest.raises(PagsError, match="room and permission"):
        store.write_record("file/a.json", {})


# --- damaged files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b'{"value": 1', b"\xff\xfe\x00", b"[1, 2"])
def test_damaged_records_are_named(store: Store, content: bytes) -> None:
    store.write_bytes("a.json", content)
    with pytest.raises(PagsError, match=r"readable artefact.*a\.json.*removing the file"):
        store.read_record("a.json")


@pytest.mark.parametrize("kept", [0, 4, 20, -1])
def test_truncated_tensors_are_named(store: Store, kept: int) -> None:
    path = store.write_tensors("x.safetensors", {"x": torch.arange(5.0)})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(PagsError, match=r"readable artefact.*x\.safetensors.*removing the file"):
        store.read_tensors("x.safetensors")


def flipped(path: Path, bit: int) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["a.json", "a.safetensors"])
def test_a_bit_flip_is_found_wherever_it_is(store: Store, name: str) -> None:
    """Or it changes nothing, as an E for an e in a number."""
    about = {"rate": 1e-05, "recipe": {"classes": ["ä", "b"], "k": 3}, "last": "text"}
    tensors = {"x": torch.arange(3.0), "y": torch.tensor(True)}

    def read() -> Any:
        return store.read_record(name) if name.endswith("json") else store.read_tensors(name)

    path = (
        store.write_record(name, about)
        if name.endswith("json")
        else store.write_tensors(name, tensors, about)
    )
    whole, unnoticed = path.read_bytes(), []
    for bit in range(8 * len(whole)):
        path.write_bytes(whole)
        flipped(path, bit)
        try:
            found = read()
        except DamagedArtefact:
            continue
        unnoticed.append(bit)
        assert_same(found, about if name.endswith("json") else (tensors, about))
    assert len(unnoticed) < 4


def test_artefacts_of_earlier_times_are_read_without_a_checksum(store: Store) -> None:
    store.write_bytes("a.json", b'{"key": "0123456789abcdef"}')
    assert store.read_record("a.json") == {"key": "0123456789abcdef"}
    store.write_bytes("x.safetensors", save({"x": torch.ones(2)}, {"about": '{"key": "0123456789abcdef"}'}))
    assert store.read_tensors("x.safetensors")[1] == {"key": "0123456789abcdef"}


def test_a_damaged_state_begins_again(store: Store) -> None:
    slot = store.slot("unfinished/state.safetensors")
    slot.write({"epoch": 1, "weight": torch.ones(100)})
    path = store.path("unfinished/state.safetensors")
    flipped(path, 8 * (len(path.read_bytes()) - 5))
    assert slot.read() is None


def test_a_record_is_finished_with_its_tensors_alone(store: Store) -> None:
    asked = ("a.json", "a.safetensors", "key")
    assert store.finished(*asked) is None
    record = {"key": "key", "value": 1}
    store.write_record("a.json", record)
    assert store.finished(*asked) is None
    path = store.write_tensors("a.safetensors", {"x": torch.ones(100)})
    assert store.finished(*asked) == record
    assert store.finished("a.json", "a.safetensors", "other") is None
    flipped(path, 8 * (len(path.read_bytes()) - 5))
    assert store.finished(*asked) is None


def test_a_folder_is_a_path_or_its_name(tmp_path: Path) -> None:
    assert Store(str(tmp_path)) == Store(tmp_path)
    assert Store(str(tmp_path)).path("a") == tmp_path / "a"


def test_missing_files_are_named(store: Store) -> None:
    with pytest.raises(PagsError, match=r"missing\.json"):
        store.read_record("missing.json")
    with pytest.raises(PagsError, match=r"missing\.safetensors"):
        store.read_tensors("missing.safetensors")
    with pytest.raises(PagsError, match="readable artefact"):
        read_safetensors(store.root)


# --- fingerprints ----------------------------------------------------------------------------------------

recipes = st.dictionaries(st.text(), plain, min_size=2, max_size=5)


@given(recipe=recipes)
def test_a_fingerprint_does_not_see_the_order_of_keys(recipe: dict[str, Any]) -> None:
    assert fingerprint(recipe) == fingerprint(dict(reversed(list(recipe.items()))))
    assert fingerprint({"a": recipe, "b": 1}) == fingerprint({"b": 1, "a": recipe})


@given(one=recipes, other=recipes)
def test_unlike_recipes_have_unlike_fingerprints(one: dict[str, Any], other: dict[str, Any]) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (fingerprint(one) == fingerprint(other)) == same


def test_a_fingerprint_sees_the_last_digit_and_the_order_of_a_list() -> None:
    prints = [fingerprint(x) for x in ([0.1], [0.1 + 2**-56], [1, 2], [2, 1], ["1", 2], {"a": 1}, {"b": 1})]
    assert len(set(prints)) == len(prints)
    assert all(len(digits) == 16 for digits in prints)


def test_a_fingerprint_is_the_same_on_every_machine() -> None:
    """SHA-256 of `{"a":[1,0.5],"b":"x"}`, computed by another tool (sha256sum)."""
    assert fingerprint({"b": "x", "a": [1, 0.5]}) == SHA


def test_what_has_no_fingerprint_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint({"a": math.nan})


SHA = "360f7f88950464b5"
