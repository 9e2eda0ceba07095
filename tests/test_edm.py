"""EDM's networks, held against the formulas of their description, written out once more in float64."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from conftest import built, seeded
from pags.errors import UsageError
from pags.score.denoiser import Denoiser, score_of
from pags.score.edm.block import attention
from pags.score.edm.denoiser import EDMDenoiser
from pags.score.edm.dhariwal import DhariwalUNet
from pags.score.edm.parts import Conv2d, FourierEmbedding, PositionalEmbedding, glorot
from pags.score.edm.preconditioning import (
    PRECONDITIONERS,
    EDMPrecond,
    Preconditioner,
    VEPrecond,
    VPPrecond,
    iDDPMPrecond,
)
from pags.score.edm.song import SongUNet

pytestmark = pytest.mark.usefixtures("global_state_untouched")

State = Mapping[str, Tensor]
TINY_SONG: dict[str, Any] = {
    "model_channels": 8,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [4],
}
TINY_ADM: dict[str, Any] = {
    "model_channels": 32,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [4],
}


def awake(make: Callable[[], nn.Module], seed: int = 0) -> Any:
    """A network whose every weight says something; as published, the last layers start silent."""
    net = built(make, seed)
    draws = seeded(seed)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            spread = 0.3 if weight.ndim == 1 else 1 / math.sqrt(weight[0].numel())
            weight.copy_(spread * torch.randn(weight.shape, generator=draws))
            if "norm" in name and name.endswith("weight"):
                weight.add_(1)
    return net.eval()


def noisy(n: int, side: int = 8, channels: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(n, channels, side, side, generator=seeded(seed))


def assert_near(found: Tensor, truth: Tensor, tolerance: float = 1e-5) -> None:
    """Relative to the largest output, as float32 demands."""
    assert found.shape == truth.shape
    assert (found.double() - truth).abs().max() <= tolerance * truth.abs().max()


# --- the description, in float64 -------------------------------------------------------------------------


def silu_(x: Tensor) -> Tensor:
    return x / (1 + (-x).exp())


def doubled(x: Tensor, f: Tensor) -> Tensor:
    """The transposed convolution with 4 F, stride 2: zeros between the pixels, then F turned round."""
    n, c, h, w = x.shape
    t, p = len(f), (len(f) - 1) // 2
    apart = x.new_zeros(n * c, 1, 2 * h - 1, 2 * w - 1)
    apart[:, 0, ::2, ::2] = x.reshape(n * c, h, w)
    full = conv2d(pad(apart, [t - 1] * 4), 4 * f.flip(0, 1)[None, None])
    return full[:, :, p : full.shape[2] - p, p : full.shape[3] - p].reshape(n, c, 2 * h + t - 2 - 2 * p, -1)


def halved(x: Tensor, f: Tensor, padding: int) -> Tensor:
    n, c, h, w = x.shape
    alone = pad(x.reshape(n * c, 1, h, w), [padding] * 4)
    out = conv2d(alone, f[None, None])[:, :, ::2, ::2]
    return out.reshape(n, c, *out.shape[2:])


def norm(sd: State, name: str, x: Tensor, eps: float) -> Tensor:
    n, c, h, w = x.shape
    groups = x.reshape(n, min(32, c // 4), -1)
    mean = groups.mean(2, keepdim=True)
    variance = (groups - mean).square().mean(2, keepdim=True)
    y = ((groups - mean) / (variance + eps).sqrt()).reshape(n, c, h, w)
    return y * sd[f"{name}.weight"][:, None, None] + sd[f"{name}.bias"][:, None, None]


def conv(sd: State, name: str, x: Tensor, *, up: bool = False, fused: bool = False) -> Tensor:
    """Resampling happens exactly where there is a filter."""
    f, weight = sd.get(f"{name}.resample_filter"), sd.get(f"{name}.weight")
    margin = 0 if weight is None else weight.shape[-1] // 2
    inner = 0 if f is None else (f.shape[-1] - 1) // 2
    if f is not None and not fused:
        x = doubled(x, f[0, 0]) if up else halved(x, f[0, 0], inner)
    if weight is None:
        return x
    x = conv2d(x, weight, padding=margin + (inner if fused else 0))
    if f is not None and fused:
        x = halved(x, f[0, 0], 0)
    return x + sd[f"{name}.bias"][:, None, None]


def linear(sd: State, name: str, x: Tensor) -> Tensor:
    return x @ sd[f"{name}.weight"].T + (sd.get(f"{name}.bias", torch.zeros(())))


def looked_at(qkv: Tensor, heads: int) -> Tensor:
    """Attention head by head, with the channels picked by their numbers."""
    n, channels, h, w = qkv.shape
    d, flat = channels // 3 // heads, qkv.reshape(n, channels, h * w)
    outs = []
    for head in range(heads):
        q, k, v = (flat[:, [3 * (head * d + c) + r for c in range(d)]] for r in range(3))
        weights = (torch.einsum("ncq,nck->nqk", q, k) / math.sqrt(d)).softmax(2)
        outs.append(torch.einsum("nqk,nck->ncq", weights, v))
    return torch.cat(outs, 1).reshape(n, channels // 3, h, w)


def block(sd: State, name: str, x: Tensor, e: Tensor, *, adm: bool) -> Tensor:
    eps, s, up = (1e-5, 1.0, name.endswith("_up")) if adm else (1e-6, math.sqrt(0.5), name.endswith("_up"))
    a = conv(sd, f"{name}.conv0", silu_(norm(sd, f"{name}.norm0", x, eps)), up=up)
    p = linear(sd, f"{name}.affine", e)[:, :, None, None]
    if adm:
        half = p.shape[1] // 2
        a = silu_(norm(sd, f"{name}.norm1", a, eps) * (p[:, :half] + 1) + p[:, half:])
    else:
        a = silu_(norm(sd, f"{name}.norm1", a + p, eps))
    a = conv(sd, f"{name}.conv1", a)
    skipped = any(key.startswith(f"{name}.skip.") for key in sd)
    y = (a + (conv(sd, f"{name}.skip", x, up=up) if skipped else x)) * s
    if f"{name}.qkv.weight" not in sd:
        return y
    heads = y.shape[1] // 64 if adm else 1
    seen = looked_at(conv(sd, f"{name}.qkv", norm(sd, f"{name}.norm2", y, eps)), heads)
    return (conv(sd, f"{name}.proj", seen) + y) * s


def waves(c: Tensor, width: int, delta: int) -> tuple[Tensor, Tensor]:
    half = width // 2
    omega = torch.tensor([10000 ** (-i / (half - delta)) for i in range(half)], dtype=torch.float64)
    return (c[:, None] * omega).cos(), (c[:, None] * omega).sin()


def roles(kind: str, levels: int, blocks: int, side: int, encoder: str, decoder: str) -> Iterator[str]:
    """The names of the layers in the order of construction: first all of `enc`, then all of `dec`."""
    for level in range(levels):
        at = f"enc.{side >> level}x{side >> level}"
        yield f"{at}_conv" if not level else f"{at}_down"
        if level and encoder == "residual":
            yield f"{at}_aux_residual"
        if level and encoder == "skip":
            yield from (f"{at}_aux_down", f"{at}_aux_skip")
        yield from (f"{at}_block{i}" for i in range(blocks))
    for level in reversed(range(levels)):
        at = f"dec.{side >> level}x{side >> level}"
        yield from (f"{at}_in0", f"{at}_in1") if level == levels - 1 else (f"{at}_up",)
        yield from (f"{at}_block{i}" for i in range(blocks + 1))
        if kind == "song" and (decoder == "skip" or not level):
            if decoder == "skip" and level < levels - 1:
                yield f"{at}_aux_up"
            yield from (f"{at}_aux_norm", f"{at}_aux_conv")


def by_the_page(
    net: SongUNet | DhariwalUNet,
    names: Sequence[str],
    x: Tensor,
    c: Tensor,
    labels: Tensor | None,
    augment: Tensor | None,
) -> Tensor:
    """The network's answer in float64, from its tensors alone."""
    sd = {name: value.double() for name, value in net.state_dict().items()}
    x, c, adm = x.double(), c.double(), isinstance(net, DhariwalUNet)
    width = sd["map_layer0.weight"].shape[1]
    if "map_noise.freqs" in sd:
        angles = c[:, None] * 2 * math.pi * sd["map_noise.freqs"]
        cos, sin = angles.cos(), angles.sin()
    else:
        cos, sin = waves(c, width, 0 if adm else 1)
    e = torch.cat([cos, sin] if adm else [sin, cos], 1)
    if augment is not None and "map_augment.weight" in sd:
        e = e + linear(sd, "map_augment", augment.double())
    classes = sd["map_label.weight"].shape[1] if "map_label.weight" in sd else 0
    rows = torch.zeros(1, max(classes, 1), dtype=torch.float64) if labels is None else labels.double()
    if classes and not adm:
        e = e + linear(sd, "map_label", rows * math.sqrt(classes))
    e = linear(sd, "map_layer1", silu_(linear(sd, "map_layer0", e)))
    if classes and adm:
        e = e + linear(sd, "map_label", rows)
    e = silu_(e)

    aux, skips, out = x, list[Tensor](), None
    for name in names:
        role = name.partition("_")[2]
        if role == "conv":
            x = conv(sd, name, x)
            skips.append(x)
        elif role == "aux_residual":
            aux = x = skips[-1] = (x + conv(sd, name, aux, fused=True)) / math.sqrt(2)
        elif role == "aux_down":
            aux = conv(sd, name, aux)
        elif role == "aux_skip":
            x = skips[-1] = x + conv(sd, name, aux)
        elif role == "aux_up":
            assert out is not None
            out = conv(sd, name, out, up=True)
        elif role == "aux_conv":
            o = conv(sd, name, silu_(norm(sd, name.replace("conv", "norm"), x, 1e-6)))
            out = o if out is None else out + o
        elif role != "aux_norm":
            x = torch.cat([x, skips.pop()], 1) if name.startswith("dec") and "block" in role else x
            x = block(sd, name, x, e, adm=adm)
            if name.startswith("enc"):
                skips.append(x)
    assert not skips
    if adm:
        return conv(sd, "out_conv", silu_(norm(sd, "out_norm", x, 1e-5)))
    assert out is not None
    return out


def layers_of(net: nn.Module) -> list[str]:
    """The layers' names in the order of the state dict."""
    parts = (name.split(".") for name in net.state_dict() if name.startswith(("enc.", "dec.")))
    return list(dict.fromkeys(".".join(part[:2]) for part in parts))


# --- both networks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ["standard", "residual", "skip"])
@pytest.mark.parametrize("decoder", ["standard", "skip"])
@pytest.mark.parametrize(
    ("taps", "embedding"), [([1, 1], "positional"), ([1, 3, 3, 1], "fourier"), ([1, 2], "positional")]
)
def test_song_answers_as_described(encoder: str, decoder: str, taps: list[int], embedding: str) -> None:
    make = lambda: SongUNet(  # noqa: E731
        16,
        3,
        2,
        4,
        5,
        8,
        [1, 2, 3],
        2,
        1,
        [16, 4],
        embedding_type=embedding,
        channel_mult_noise=2,
        encoder_type=encoder,
        decoder_type=decoder,
        resample_filter=taps,
    )
    net = awake(make)
    names = list(roles("song", 3, 1, 16, encoder, decoder))
    assert layers_of(net) == names
    x, c = noisy(2, 16), torch.tensor([0.3, -1.0])
    labels, augment = torch.eye(4)[[1, 3]], torch.randn(2, 5, generator=seeded(1))
    assert_near(net(x, c, labels, augment), by_the_page(net, names, x, c, labels, augment))
    assert_near(net(x, c[:1], None), by_the_page(net, names, x, c[:1], None, None))


@pytest.mark.parametrize("side", [8, 16])
def test_adm_answers_as_described(side: int) -> None:
    """With widths of 32, too narrow for a head, 64 and 128."""
    net = awake(lambda: DhariwalUNet(side, 3, 6, 4, 5, 32, [1, 2, 4], 3, 1, [side, side // 2]))
    names = list(roles("adm", 3, 1, side, "", ""))
    assert layers_of(net) == names
    assert f"enc.{side}x{side}_block0.qkv.weight" not in net.state_dict()
    assert net.dec[f"{side // 4}x{side // 4}_in0"].num_heads == 2
    x, c = noisy(2, side), torch.tensor([3.0, 700.0])
    labels, augment = torch.eye(4)[[1, 3]], torch.randn(2, 5, generator=seeded(1))
    # c is large: the angles hold its rounding.
    assert_near(net(x, c, labels, augment), by_the_page(net, names, x, c, labels, augment), 1e-4)
    assert_near(net(x, c[:1], None), by_the_page(net, names, x, c[:1], None, None))


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_queries_keys_and_values_are_interleaved(heads: int) -> None:
    qkv = 2 * torch.randn(2, 36, 3, 4, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(attention(qkv, heads), looked_at(qkv, heads), rtol=1e-5, atol=1e-5)


def test_augmentation_labels_of_zero_are_none() -> None:
    for net in (
        awake(lambda: SongUNet(8, 3, 3, augment_dim=9, **TINY_SONG)),
        awake(lambda: DhariwalUNet(8, 3, 3, augment_dim=9, **TINY_ADM)),
    ):
        x, c = noisy(2), torch.tensor([0.1])
        torch.testing.assert_close(net(x, c), net(x, c, None, torch.zeros(2, 9)), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(net(x, c), net(x, c, None, torch.ones(2, 9)))


def test_gradients_and_forward_mode_go_through() -> None:
    """The derivative along a direction, from both modes and from finite differences."""
    net = EDMDenoiser(awake(lambda: EDMPrecond(8, 3, model_type="DhariwalUNet", **TINY_ADM)))
    x, v = noisy(2).sigmoid(), noisy(2, seed=1)
    out, forward = torch.func.jvp(lambda y: net(y, 0.7), (x,), (v,))[:2]
    x.requires_grad_()
    (gradient,) = torch.autograd.grad((net(x, 0.7) * out.detach()).sum(), x)
    assert float((gradient * v).sum()) == pytest.approx(float((forward * out).detach().sum()), rel=1e-3)
    with torch.no_grad():
        slope = (net(x + 1e-2 * v, 0.7) - net(x - 1e-2 * v, 0.7)) / 2e-2
    assert_near(forward.detach(), slope.double(), 1e-2)


@pytest.mark.parametrize("share", [0.0, 0.6])
def test_dropout_works_in_training_alone(share: float) -> None:
    make = lambda: SongUNet(8, 3, 3, dropout=share, **TINY_SONG)  # noqa: E731
    net, x, c = awake(make), noisy(2), torch.tensor([0.1])
    quiet = net(x, c)
    assert torch.equal(net(x, c), quiet)
    with torch.random.fork_rng():
        loud = net.train()(x, c)
    assert torch.equal(loud, quiet) == (share == 0)


@pytest.mark.parametrize("make", [SongUNet, DhariwalUNet])
def test_label_dropout_zeroes_whole_rows_in_training(make: Any) -> None:
    tiny = TINY_SONG if make is SongUNet else TINY_ADM
    net = awake(lambda: make(8, 3, 3, 4, dropout=0, label_dropout=0.5, **tiny))
    x, c, labels = noisy(1).expand(40, -1, -1, -1), torch.tensor([0.1]), torch.eye(4)[1].expand(40, -1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = net.train()(x, c, labels)
    kept, dropped = net.eval()(x[:1], c, labels[:1]), net(x[:1], c, 0 * labels[:1])
    is_kept, is_dropped = ((found - one).flatten(1).abs().amax(1) < 1e-4 for one in (kept, dropped))
    assert bool((is_kept ^ is_dropped).all())
    assert 8 <= int(is_dropped.sum()) <= 32


def test_half_precision_holds_where_it_should() -> None:
    """On a CPU by calling the network itself: mapping in float32, the rest in float16, weights untouched."""
    net = awake(lambda: SongUNet(8, 3, 3, 4, **TINY_SONG))
    seen: dict[str, set[torch.dtype]] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda _, inputs, output: seen.setdefault(name, set()).update((inputs[0].dtype, output.dtype))

    for name, layer in net.named_modules():
        layer.register_forward_hook(note(name))
    x, c = noisy(2), torch.tensor([0.1])
    found, truth = net(x.half(), c), net(x, c)
    assert found.dtype == torch.float16
    seen = {}
    net(x.half(), c)
    for name, types in seen.items():
        maps = name.startswith("map_") or name.endswith("affine")
        assert types == {torch.float32 if maps else torch.float16}, name
    assert {weight.dtype for weight in net.parameters()} == {torch.float32}
    assert_near(found, truth.double(), 2e-2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SongUNet(32, 3, 3, model_channels=144, channel_mult=[1]), r"groups divide; got 144"),
        (
            lambda: SongUNet(30, 3, 3, **{**TINY_SONG, "channel_mult": [1, 1, 1]}),
            r"halved 2 times.*30 pixels",
        ),
        (lambda: SongUNet(8, 3, 3, **{**TINY_SONG, "channel_mult": []}), r"one level"),
        (lambda: SongUNet(8, 3, 3, encoder_type="both"), r"encoder_type among standard, residual, skip"),
        (lambda: SongUNet(8, 3, 3, decoder_type="residual"), r"decoder_type among standard, skip"),
        (lambda: SongUNet(8, 3, 3, embedding_type="none"), r"embedding_type among positional, fourier"),
        (lambda: DhariwalUNet(8, 3, 3, model_channels=224, channel_mult=[1]), "3 heads for 224"),
        (lambda: EDMPrecond(8, 3, model_type="ResNet"), r"SongUNet, DhariwalUNet; got 'ResNet'"),
    ],
)
def test_networks_that_cannot_be_are_refused(make: Callable[[], nn.Module], message: str) -> None:
    with torch.device("meta"), pytest.raises(UsageError, match=message):
        make()


# --- parts -----------------------------------------------------------------------------------------------


def test_filters_are_normalised_products() -> None:
    two, four = (Conv2d(3, 3, 0, up=True, resample_filter=t, init=glorot()) for t in ([1, 1], [1, 3, 3, 1]))
    assert two.resample_filter is not None
    assert four.resample_filter is not None
    assert two.resample_filter.tolist() == [[[[0.25, 0.25], [0.25, 0.25]]]]
    eighths = torch.tensor([1.0, 3, 3, 1]) / 8
    assert torch.equal(four.resample_filter[0, 0], eighths[:, None] * eighths)
    assert list(two.state_dict()) == ["resample_filter"]


def test_two_taps_double_and_average_exactly() -> None:
    x = noisy(2)
    up, down = Conv2d(3, 3, 0, up=True, init=glorot()), Conv2d(3, 3, 0, down=True, init=glorot())
    assert torch.equal(up(x), x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    blocks = x.reshape(2, 3, 4, 2, 4, 2)
    torch.testing.assert_close(down(x), blocks.mean((3, 5)), rtol=0, atol=1e-6)
    torch.testing.assert_close(down(up(x)), x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("taps", [[1, 1], [1, 3, 3, 1], [1, 2], [3]])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("kind", [{"up": True}, {"down": True}, {"down": True, "fused_resample": True}])
def test_resampling_is_as_described(taps: list[int], kernel: int, kind: dict[str, bool]) -> None:
    net = awake(lambda: Conv2d(3, 4, kernel, resample_filter=taps, init=glorot(), **kind))
    sd = {f"a.{name}": value.double() for name, value in net.state_dict().items()}
    x = noisy(2)
    truth = conv(sd, "a", x.double(), up="up" in kind, fused="fused_resample" in kind)
    assert_near(net(x), truth)


@pytest.mark.parametrize(
    ("kernel", "taps", "cut", "padding"),
    [(3, [1, 1], 0, 1), (1, [1, 3, 3, 1], 1, 0), (3, [1, 3, 3, 1], 0, 0)],
)
def test_the_fused_doubling_pads_as_described(kernel: int, taps: list[int], cut: int, padding: int) -> None:
    """Transposed convolution with padding max(p_f − p_w, 0), then convolution with max(p_w − p_f, 0)."""
    kind = {"up": True, "fused_resample": True}
    net, x = awake(lambda: Conv2d(3, 4, kernel, **kind, resample_filter=taps, init=glorot())), noisy(2)
    f = net.resample_filter.double()[0, 0]
    whole = doubled(pad(x.double(), [2] * 4), f)  # a wide margin of zeros, cut to what is wanted
    start, size = 4 - (len(f) - 1) // 2 + cut, 2 * 8 - 2 + len(f) - 2 * cut
    part = whole[:, :, start : start + size, start : start + size]
    truth = conv2d(part, net.weight.double(), padding=padding) + net.bias.double()[:, None, None]
    assert_near(net(x), truth)


@given(seed=st.integers(0, 2**32), big=st.floats(0, 1000))
@settings(max_examples=20)
def test_noise_is_embedded_in_cosines_then_sines(seed: int, big: float) -> None:
    c = torch.tensor([0.0, big, -1.3])
    for endpoint in (True, False):
        found = PositionalEmbedding(16, endpoint=endpoint)(c)
        truth = torch.cat(waves(c.double(), 16, int(endpoint)), 1)
        torch.testing.assert_close(found.double(), truth, rtol=0, atol=1e-4)
    net = built(lambda: FourierEmbedding(16), seed)
    angles = 2 * math.pi * torch.outer(c.double()[[0, 2]], net.freqs.double())
    torch.testing.assert_close(
        net(c[[0, 2]]).double(), torch.cat([angles.cos(), angles.sin()], 1), rtol=0, atol=1e-4
    )


def test_first_weights_are_drawn_as_described() -> None:
    """Bounds and spread of a layer that is large enough to show them."""
    song = built(
        lambda: SongUNet(8, 3, 3, 4, model_channels=64, channel_mult=[1], num_blocks=1, attn_resolutions=[8])
    )
    adm = built(
        lambda: DhariwalUNet(
            8, 3, 3, 400, 9, model_channels=64, channel_mult=[1], num_blocks=1, attn_resolutions=[8]
        )
    )
    one = "enc.8x8_block0"
    bounds = {
        f"{one}.conv0.weight": math.sqrt(6 / (2 * 64 * 9)),
        f"{one}.conv1.weight": 1e-5 * math.sqrt(6 / (2 * 64 * 9)),
        f"{one}.qkv.weight": math.sqrt(0.2 * 6 / (64 + 192)),
        f"{one}.proj.weight": 1e-5 * math.sqrt(6 / 128),
        f"{one}.affine.weight": math.sqrt(6 / (256 + 64)),
        f"{one}.affine.bias": 0,
        "dec.8x8_aux_conv.weight": 1e-5 * math.sqrt(6 / (9 * 67)),
        "map_label.bias": 0,
        f"{one}.norm0.bias": 0,
    }
    silent = dict.fromkeys(
        (
            f"{one}.conv1.weight",
            f"{one}.conv1.bias",
            f"{one}.proj.weight",
            "out_conv.weight",
            "out_conv.bias",
            "map_augment.weight",
        ),
        0.0,
    )
    loud = {
        f"{one}.conv0.weight": 1 / math.sqrt(9 * 64),
        f"{one}.conv0.bias": 1 / math.sqrt(9 * 64),
        "map_layer1.weight": 1 / 16,
    }
    for net, expected in ((song, bounds), (adm, silent | loud)):
        for name, bound in expected.items():
            values = net.state_dict()[name]
            assert values.abs().max() <= bound * (1 + 1e-6), name
            assert values.abs().max() >= 0.9 * bound, name
    assert adm.map_label is not None
    assert float(adm.map_label.weight.detach().std()) == pytest.approx(1, rel=0.02)
    assert bool((song.state_dict()[f"{one}.norm0.weight"] == 1).all())


# --- the published configurations ------------------------------------------------------------------------

DDPM: dict[str, Any] = {
    "model_type": "SongUNet",
    "model_channels": 128,
    "augment_dim": 9,
    "channel_mult": [2, 2, 2],
}
NCSN: dict[str, Any] = {
    **DDPM,
    "embedding_type": "fourier",
    "channel_mult_noise": 2,
    "encoder_type": "residual",
    "resample_filter": [1, 3, 3, 1],
}
FOUR = {"channel_mult": [1, 2, 2, 2]}
ADM: dict[str, Any] = {"model_channels": 192, "channel_mult": [1, 2, 3, 4], "use_fp16": True}


def unfilled(side: int, classes: int, options: dict[str, Any]) -> EDMPrecond:
    with torch.device("meta"):
        return EDMPrecond(side, 3, classes, **options)


@pytest.mark.parametrize(
    ("side", "classes", "options", "parameters", "tensors"),
    [
        (32, 0, DDPM, 55_733_891, 425),
        (32, 10, DDPM, 55_735_299, 427),
        (32, 0, NCSN, 56_397_827, 432),
        (32, 10, NCSN, 56_400_643, 434),
        (64, 0, DDPM | FOUR, 61_805_571, 553),
        (64, 0, NCSN | FOUR, 62_761_091, 563),
        (64, 1000, ADM, 295_899_267, 553),
    ],
)
def test_sizes_are_the_published_ones(
    side: int, classes: int, options: dict[str, Any], parameters: int, tensors: int
) -> None:
    net = unfilled(side, classes, options)
    assert sum(weight.numel() for weight in net.parameters()) == parameters
    assert len(net.state_dict()) == tensors
    assert {tensor.device.type for tensor in net.state_dict().values()} == {"meta"}


def test_names_and_shapes_are_the_published_ones() -> None:
    ddpm, ncsn, adm = (
        {name: tuple(tensor.shape) for name, tensor in unfilled(*one).state_dict().items()}
        for one in ((32, 10, DDPM), (32, 10, NCSN), (64, 1000, ADM))
    )
    expected = {
        "model.map_layer0.weight": (512, 128),
        "model.map_label.weight": (128, 10),
        "model.map_label.bias": (128,),
        "model.enc.32x32_conv.weight": (128, 3, 3, 3),
        "model.enc.32x32_block0.norm0.weight": (128,),
        "model.enc.32x32_block0.conv0.weight": (256, 128, 3, 3),
        "model.enc.32x32_block0.affine.weight": (256, 512),
        "model.enc.32x32_block0.skip.weight": (256, 128, 1, 1),
        "model.enc.16x16_down.conv0.resample_filter": (1, 1, 2, 2),
        "model.dec.8x8_in0.qkv.weight": (768, 256, 1, 1),
        "model.map_augment.weight": (128, 9),
    }
    assert {name: ddpm[name] for name in expected} == expected
    assert list(ddpm)[:8] == [
        "model.map_label.weight",
        "model.map_label.bias",
        "model.map_augment.weight",
        "model.map_layer0.weight",
        "model.map_layer0.bias",
        "model.map_layer1.weight",
        "model.map_layer1.bias",
        "model.enc.32x32_conv.weight",
    ]
    assert ncsn["model.map_layer0.weight"] == (512, 256)
    assert next(iter(ncsn)) == "model.map_noise.freqs"
    assert ncsn["model.map_noise.freqs"] == (128,)
    assert ncsn["model.enc.16x16_aux_residual.weight"] == (256, 3, 3, 3)
    assert ncsn["model.enc.8x8_aux_residual.weight"] == (256, 256, 3, 3)
    assert {shape for name, shape in ncsn.items() if "filter" in name} == {(1, 1, 4, 4)}
    assert adm["model.map_label.weight"] == (768, 1000)
    assert "model.map_label.bias" not in adm
    assert adm["model.enc.32x32_down.affine.weight"] == (384, 768)
    assert adm["model.enc.32x32_down.skip.resample_filter"] == (1, 1, 2, 2)
    assert "model.enc.32x32_down.skip.weight" not in adm
    assert list(adm)[-4:] == [
        f"model.{last}" for last in ("out_norm.weight", "out_norm.bias", "out_conv.weight", "out_conv.bias")
    ]
    in_block = [name.removeprefix("model.dec.8x8_in0.") for name in adm if "8x8_in0" in name]
    pairs = ("norm0", "conv0", "affine", "norm1", "conv1", "norm2", "qkv", "proj")
    assert in_block == [f"{part}.{what}" for part in pairs for what in ("weight", "bias")]


def widths(net: EDMPrecond, side: int) -> list[tuple[str, int, int, int]]:
    """Of a side's blocks in the decoder: role, widths in and out, heads."""
    found = []
    for name, layer in net.model.dec.items():
        at, _, role = name.partition("_")
        if at == f"{side}x{side}" and "aux" not in role:
            found.append((role, int(layer.in_channels), int(layer.out_channels), int(layer.num_heads)))  # type: ignore[arg-type]
    return found


def test_widths_and_heads_are_the_published_ones() -> None:
    ddpm, adm = unfilled(32, 0, DDPM), unfilled(64, 1000, ADM)
    assert widths(ddpm, 8) == [
        ("in0", 256, 256, 1),
        ("in1", 256, 256, 0),
        *((f"block{i}", 512, 256, 0) for i in range(5)),
    ]
    assert widths(ddpm, 16) == [
        ("up", 256, 256, 0),
        *((f"block{i}", 512, 256, int(i == 4)) for i in range(5)),
    ]
    assert widths(ddpm, 32) == [
        ("up", 256, 256, 0),
        *((f"block{i}", 512 if i < 4 else 384, 256, 0) for i in range(5)),
    ]
    assert widths(adm, 8) == [
        ("in0", 768, 768, 12),
        ("in1", 768, 768, 0),
        *((f"block{i}", 1536 if i < 3 else 1344, 768, 12) for i in range(4)),
    ]
    assert widths(adm, 16)[1:] == [(f"block{i}", w, 576, 9) for i, w in enumerate((1344, 1152, 1152, 960))]
    assert widths(adm, 32)[1:] == [(f"block{i}", w, 384, 6) for i, w in enumerate((960, 768, 768, 576))]
    assert widths(adm, 64) == [
        ("up", 384, 384, 0),
        *((f"block{i}", w, 192, 0) for i, w in enumerate((576, 384, 384, 384))),
    ]
    assert [layer.num_heads for name, layer in ddpm.model.enc.items() if "block" in name] == [0] * 4 + [
        1
    ] * 4 + [0] * 4


# --- preconditioning -------------------------------------------------------------------------------------


class Recorder(nn.Module):
    """Stands in for the network: keeps what it was asked and answers with something known."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor, c: Tensor, labels: Tensor | None, **more: Any) -> Tensor:
        self.x, self.c, self.labels, self.more = x, c, labels, more
        return torch.cat([x.cos()] * (self.channels // 3), 1)


def recorded(name: str, classes: int = 0, **options: Any) -> tuple[Preconditioner, Recorder]:
    net = built(lambda: PRECONDITIONERS[name](8, 3, classes, model_type="SongUNet", **options, **TINY_SONG))
    recorder = Recorder(6 if name == "iDDPMPrecond" else 3)
    net.model = recorder  # type: ignore[assignment]
    return net, recorder


def coefficients(name: str, s: float) -> tuple[float, float, float, float | None]:
    """c_skip, c_out, c_in and c_noise in float64."""
    if name == "EDMPrecond":
        v = s * s + 0.25
        return 0.25 / v, s * 0.5 / math.sqrt(v), 1 / math.sqrt(v), math.log(s) / 4
    if name == "VEPrecond":
        return 1, s, 1, math.log(s / 2)
    t = (math.sqrt(0.01 + 2 * 19.9 * math.log1p(s * s)) - 0.1) / 19.9
    return 1, -s, 1 / math.sqrt(s * s + 1), 999 * t if name == "VPPrecond" else None


@pytest.mark.parametrize("name", PRECONDITIONERS)
@given(s=st.floats(0.02, 80))
@settings(max_examples=20)
def test_preconditioning_is_the_table(name: str, s: float) -> None:
    net, recorder = recorded(name)
    s = float(torch.tensor(s))  # as float32 has it
    x = 3 * noisy(2).double()
    skip, out, scale, noise = coefficients(name, s)
    found = net(x, torch.tensor(s, dtype=torch.float64))
    assert found.dtype == torch.float32
    single = x.float().double()
    assert_near(found, skip * single + out * (scale * single).cos(), 3e-6)
    if noise is not None:
        assert recorder.c.tolist() == pytest.approx(
            [noise], rel=1e-3 if name == "VPPrecond" else 1e-5, abs=1e-6
        )


@pytest.mark.parametrize("name", PRECONDITIONERS)
def test_noise_levels_come_in_three_shapes(name: str) -> None:
    net, recorder = recorded(name)
    x, levels = noisy(3), torch.tensor([0.1, 0.5, 2.0])
    parts = torch.cat([net(one[None], s) for one, s in zip(x, levels, strict=True)])
    assert torch.equal(net(x, levels), parts)
    assert recorder.c.shape == (3,)
    assert torch.equal(net(x, levels.reshape(3, 1, 1, 1)), parts)
    assert torch.equal(net(x, torch.tensor(0.5)), net(x, levels[1:2].expand(3)))


def test_iddpm_leaves_the_second_half_of_the_answer() -> None:
    net = awake(lambda: iDDPMPrecond(8, 3, **TINY_ADM))
    assert net.model.out_conv.weight.shape[0] == 6
    x = noisy(2)
    f = net.model(x / math.sqrt(1.25), torch.tensor([289.0]))
    torch.testing.assert_close(net(x, 0.5), x - 0.5 * f[:, :3], rtol=1e-4, atol=1e-5)


def test_labels_are_zeros_where_none_are_given() -> None:
    net, recorder = recorded("EDMPrecond", 4)
    net(noisy(2), 0.5)
    assert torch.equal(recorder.labels, torch.zeros(1, 4))  # type: ignore[arg-type]
    net(noisy(2), 0.5, torch.eye(4, dtype=torch.float64)[[1, 2]])
    assert torch.equal(recorder.labels, torch.eye(4)[[1, 2]])  # type: ignore[arg-type]
    augment = torch.ones(2, 9)
    net(noisy(2), 0.5, augment_labels=augment)
    assert recorder.more == {"augment_labels": augment}
    free, recorder = recorded("EDMPrecond")
    free(noisy(2), 0.5, torch.ones(2, 4))
    assert recorder.labels is None


def test_zero_labels_add_a_bias_in_song_and_nothing_in_adm() -> None:
    x = noisy(2)
    song = awake(lambda: EDMPrecond(8, 3, 4, model_type="SongUNet", **TINY_SONG))
    adm = awake(lambda: EDMPrecond(8, 3, 4, **TINY_ADM))
    for net, changes in ((song, True), (adm, False)):
        before = net(x, 0.5)
        torch.testing.assert_close(before, net(x, 0.5, torch.zeros(2, 4)), rtol=1e-4, atol=1e-5)
        with torch.no_grad():
            (net.model.map_label.bias if changes else net.model.map_label.weight).add_(1.0)
        assert torch.equal(net(x, 0.5), before) != changes


def test_ranges_are_the_published_numbers() -> None:
    vp, _ = recorded("VPPrecond")
    assert (vp.sigma_min, vp.sigma_max) == (0.0009765625, 152.16697692871094)
    iddpm, _ = recorded("iDDPMPrecond")
    assert iddpm.sigma_min == pytest.approx(0.0064223, abs=1e-7)
    assert iddpm.sigma_max == pytest.approx(20291.17, abs=0.01)
    assert [recorded(name)[0].sigma_min for name in ("VEPrecond", "EDMPrecond")] == [0.02, 0]
    assert [recorded(name)[0].sigma_max for name in ("VEPrecond", "EDMPrecond")] == [100, math.inf]
    ends = (
        recorded("VEPrecond", sigma_min=0.1, sigma_max=3.0)[0],
        recorded("EDMPrecond", sigma_min=0.1, sigma_max=3.0)[0],
    )
    assert {(net.sigma_min, net.sigma_max) for net in ends} == {(0.1, 3.0)}


def test_the_levels_of_iddpm_are_those_of_its_recursion() -> None:
    """Against float64: ᾱ gives u by u² = Π max(ᾱ ratios)⁻¹ − 1."""
    net, recorder = recorded("iDDPMPrecond")
    assert isinstance(net, iDDPMPrecond)
    alpha = [math.sin(math.pi * j / (2 * 1000 * 1.008)) ** 2 for j in range(1001)]
    product, levels = 1.0, [0.0]
    for j in range(1000, 0, -1):
        product /= max(alpha[j - 1] / alpha[j], 0.001)
        levels.append(math.sqrt(product - 1))
    torch.testing.assert_close(
        net.u.double(), torch.tensor(levels[::-1], dtype=torch.float64), rtol=1e-3, atol=0
    )
    assert next(iter(net.state_dict())) == "u"
    asked = torch.tensor([0.002, 0.5, 1.2, 80], dtype=torch.float64)
    assert net.round_sigma(asked, return_index=True).tolist() == [1000, 710, 446, 8]
    net(noisy(4), asked)
    assert recorder.c.tolist() == [-1, 289, 553, 991]
    assert torch.equal(net.round_sigma(net.u), net.u)
    assert net.round_sigma(asked[:, None]).shape == (4, 1)
    assert net.round_sigma(asked).dtype == torch.float64


@given(st.lists(st.floats(0.0064, 80), min_size=1, max_size=40))
@settings(max_examples=20)
def test_rounding_takes_the_nearest_level(asked: list[float]) -> None:
    net, _ = recorded("iDDPMPrecond")
    levels = net.u.tolist()  # type: ignore[operator]
    for s, found in zip(asked, net.round_sigma(torch.tensor(asked)).tolist(), strict=True):
        assert abs(found - s) <= min(abs(level - s) for level in levels) * (1 + 1e-4) + 1e-6 * s


@pytest.mark.parametrize("name", ["VPPrecond", "VEPrecond", "EDMPrecond"])
def test_others_do_not_round(name: str) -> None:
    net, _ = recorded(name)
    levels = torch.tensor([[0.1, 0.123456]], dtype=torch.float64)
    assert torch.equal(net.round_sigma(levels), levels)
    assert torch.equal(net.round_sigma(0.25), torch.tensor(0.25))


@pytest.mark.parametrize("name", PRECONDITIONERS)
def test_without_noise_an_image_stays_or_the_logarithm_shows(name: str) -> None:
    net = awake(lambda: PRECONDITIONERS[name](8, 3, model_type="SongUNet", **TINY_SONG))
    x = noisy(2)
    torch.testing.assert_close(net(x, 1e-5), x, rtol=0, atol=1e-3)
    if name in ("EDMPrecond", "VEPrecond"):
        assert bool(net(x, 0.0).isnan().all())
    else:
        assert torch.equal(net(x, 0.0), x)


def test_half_precision_is_for_gpus_only() -> None:
    net = awake(lambda: EDMPrecond(8, 3, model_type="SongUNet", **TINY_SONG))
    found = net(noisy(2), 0.5)
    net.use_fp16 = True
    assert torch.equal(net(noisy(2), 0.5), found)


@pytest.mark.parametrize("kind", [VPPrecond, VEPrecond])
def test_arguments_go_by_position_too(kind: type[VPPrecond] | type[VEPrecond]) -> None:
    net = built(lambda: kind(8, 3, 4, False, 0.1, 7.0, **TINY_SONG))
    first, second = ("beta_d", "beta_min") if kind is VPPrecond else ("sigma_min", "sigma_max")
    assert (getattr(net, first), getattr(net, second), net.label_dim) == (0.1, 7.0, 4)


# --- the contract ----------------------------------------------------------------------------------------


def adapted(classes: int = 4, batch_size: int = 16) -> EDMDenoiser:
    net = awake(lambda: EDMPrecond(8, 3, classes, model_type="SongUNet", **TINY_SONG))
    return EDMDenoiser(net, batch_size=batch_size)


def test_the_adapter_scales_images_and_counts_classes() -> None:
    denoiser, images = adapted(), noisy(3).sigmoid()
    assert isinstance(denoiser, Denoiser)
    assert denoiser.classes == 4
    with torch.no_grad():
        for labels, rows in ((None, None), (torch.tensor([0, 3, 1]), torch.eye(4)[[0, 3, 1]])):
            truth = (denoiser.net(2 * images - 1, 0.5, rows) + 1) / 2
            torch.testing.assert_close(denoiser(images, 0.5, labels), truth)
        assert denoiser(images.double(), 0.5).dtype == torch.float64
        assert (denoiser(images, 1e-4) - images).abs().max() < 1e-3


def test_a_silent_network_gives_the_score_of_a_gaussian() -> None:
    """With F = 0, D is the posterior mean of N(1/2, (0.5/2)²): the score follows in closed form."""
    net = built(lambda: EDMPrecond(8, 3, **TINY_ADM)).eval()  # ADM starts silent
    images = noisy(2).sigmoid()
    for sigma in (0.1, 0.5, 1.2):
        truth = -(images - 0.5) / (0.25**2 + (sigma / 2) ** 2)
        torch.testing.assert_close(score_of(EDMDenoiser(net), images, sigma), truth, rtol=1e-4, atol=1e-4)


@given(n=st.integers(0, 7), batch_size=st.integers(1, 4))
@settings(max_examples=8)
def test_batches_do_not_matter(n: int, batch_size: int) -> None:
    images, levels = noisy(n).sigmoid(), torch.linspace(0.1, 3, n)
    labels = torch.arange(n) % 4
    with torch.no_grad():
        whole = adapted(batch_size=64)
        cut = EDMDenoiser(whole.net, batch_size=batch_size)
        assert whole(images, 0.5).shape == images.shape
        for sigma in (0.5, levels):
            torch.testing.assert_close(
                cut(images, sigma, labels), whole(images, sigma, labels), rtol=1e-4, atol=1e-4
            )


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda d, x: d(x[:, :1], 0.5), r"images of shape \(n, 3, 8, 8\).*got \(2, 1, 8, 8\)"),
        (lambda d, x: d(x[:, :, :4], 0.5), r"got \(2, 3, 4, 8\)"),
        (lambda d, x: d(x, 0.5, torch.tensor([0, 4])), r"labels from 0 to 3; got labels from 0 to 4"),
        (lambda d, x: d(x, 0.5, torch.tensor([0, -1])), r"labels from 0 to 3"),
        (lambda d, x: d(x, 0.0), r"above zero; got 0"),
        (lambda d, x: d(x, math.nan), r"above zero; got nan"),
        (lambda d, x: adapted(0)(x, 0.5, torch.tensor([0, 0])), r"unconditional; got 2 labels"),
        (lambda d, x: EDMDenoiser(d.net, batch_size=0), r"one image at least; got 0"),
    ],
)
def test_requests_that_make_no_sense_are_refused(
    ask: Callable[[EDMDenoiser, Tensor], Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        ask(adapted(), noisy(2).sigmoid())


def test_a_level_of_zero_among_others_gives_nan_there_alone() -> None:
    found = adapted()(noisy(2).sigmoid(), torch.tensor([0.5, 0.0]))
    assert bool(found[0].isfinite().all())
    assert bool(found[1].isnan().all())
