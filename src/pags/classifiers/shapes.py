"""Networks built from the shapes of their weights: sequential ones, and residual ones without normalisation.

Shapes do not show strides, padding and pooling. These are searched for among the usual ones: they have to
turn images of the given size into as many numbers as the first linear layer takes. Where several do, nothing
is guessed: the error names the options that decide. ReLU and max pooling are taken for granted.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from torch import Tensor, nn

from pags.checkpoints import State
from pags.classifiers.foreign import beside, few, views
from pags.classifiers.resnet import get_activation
from pags.errors import PagsError, UsageError
from pags.seeds import seeded_construction

SHAPED = {
    "sequential": "convolutions and linear layers one after another, built from the shapes of their weights",
    "plain-resnet": "residual blocks without normalisation and linear layers, built likewise",
}
"""Architectures that only a file of weights can describe."""

STRIDES, POOLS = (1, 2, 3, 4), (1, 2, 3)


@dataclass(frozen=True)
class Layer:
    """A convolution, a linear layer or a BatchNorm by its name in the file, and its tensors."""

    name: str
    tensors: State
    norm: bool

    @property
    def weight(self) -> Tensor:
        return self.tensors["weight"]

    @property
    def kernel(self) -> int:
        """The side of a convolution's kernel; 0 of other layers."""
        return self.weight.shape[-1] if self.weight.ndim == 4 else 0


@dataclass(frozen=True)
class Plan:
    """What shapes do not show: stride, padding and pooling after each convolution."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    pool: tuple[int, ...]
    average: bool  # over all places, before the first linear layer

    def side(self, side: int, kernels: Sequence[int]) -> int:
        """Pixels along one axis after the convolutions; 0 if they do not fit."""
        for kernel, stride, padding, pool in zip(kernels, self.stride, self.padding, self.pool, strict=True):
            side = max(0, (side + 2 * padding - kernel) // stride + 1) // pool
        return side


def shaped(
    architecture: str | None,
    state: State,
    channels: int,
    size: tuple[int, int] | None,
    *,
    activation: str = "relu",
    ignore: Sequence[str] = (),
    **given: Sequence[int],
) -> tuple[nn.Module, str] | None:
    """The network of these weights, on normalised images, and what it is in words.

    Args:
        architecture: a name of `SHAPED`; None for whichever the names and shapes are of.
        state: tensors in the order of the layers, with or without prefixes.
        channels: of the images.
        size: their height and width in pixels; None for 32×32 in colour and 28×28 otherwise.
        activation: one of `resnet.ACTIVATIONS`, between all layers.
        ignore: names, or beginnings of names, of tensors that are left out.
        given: "stride", "padding" and "pool": one number for all convolutions, or one for each.

    Returns:
        None where no architecture was named and the tensors are of neither kind.

    Raises:
        UsageError: several strides, paddings or poolings fit the shapes, or none.
        PagsError: the tensors are not those of the architecture.
    """
    size = size or ((32, 32) if channels == 3 else (28, 28))
    get_activation(activation)
    with seeded_construction(0, "to be replaced"):
        return _shaped(architecture, state, channels, size, activation, ignore, given)


def _shaped(
    architecture: str | None, state: State, channels: int, size: tuple[int, int], activation: str,
    ignore: Sequence[str], given: dict[str, Sequence[int]],
) -> tuple[nn.Module, str] | None:  # fmt: skip
    for whole in views(state):
        view = {name: value for name, value in whole.items() if not beside(name, ignore)}
        if architecture != "plain-resnet" and (layers := _chain(view, channels)):
            return _sequential(layers, channels, size, activation, given)
        if architecture != "sequential" and "layer1.0.conv1.weight" in view and _without_norm(view):
            return _residual(view, channels, size, activation)
    if architecture is None:
        return None
    raise PagsError(
        f"a {architecture}: {SHAPED[architecture]}, for {channels} channels",
        got=f"the tensors {few(list(state))}",
        suggestion="the architecture they were trained with, or file.py:function that builds it",
    )


# Sequential ----------------------------------------------------------------------------------------------


def _chain(state: State, channels: int) -> list[Layer]:
    """The layers in an order in which each takes what the one before gives; [] where there is none."""
    names = list(dict.fromkeys(name.rpartition(".")[0] for name in state))
    natural = sorted(names, key=lambda name: [int(part) if part.isdecimal() else 0 for part in _parts(name)])
    for order in (names, natural):
        layers = [_layer(state, name) for name in order]
        chained = [layer for layer in layers if layer is not None]
        if len(chained) == len(layers) and _fits(chained, channels):
            return chained
    return []


def _parts(name: str) -> list[str]:
    return re.findall(r"\d+|\D+", name)


def _layer(state: State, name: str) -> Layer | None:
    own = {key.rpartition(".")[2]: value for key, value in state.items() if key.rpartition(".")[0] == name}
    norm = {"running_mean", "running_var"} <= own.keys()
    known = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
    if "weight" not in own or own.keys() - known or own["weight"].ndim not in ((1,) if norm else (2, 4)):
        return None
    return Layer(name, own, norm)


def _fits(layers: Sequence[Layer], channels: int) -> bool:
    """Whether each layer takes the channels that the one before gives, and the last one is linear."""
    width, flat = channels, False
    for layer in layers:
        ndim, inside = layer.weight.ndim, layer.weight.shape[0 if layer.norm else 1]
        first_linear = ndim == 2 and not flat
        if (ndim == 4 and flat) or (inside % width if first_linear else inside != width):
            return False
        width, flat = layer.weight.shape[0], flat or ndim == 2
    return flat and layers[-1].weight.ndim == 2


def _sequential(
    layers: list[Layer], channels: int, size: tuple[int, int], activation: str,
    given: dict[str, Sequence[int]],
) -> tuple[nn.Module, str]:  # fmt: skip
    convolutions = [layer for layer in layers if layer.kernel]
    plan = _plan(layers, channels, size, given)
    modules: list[nn.Module] = []
    place, flat = 0, False  # of the convolution, and whether linear layers have begun
    for number, layer in enumerate(layers):
        if layer.weight.ndim == 2 and not flat:
            modules += [nn.AdaptiveAvgPool2d(1)] * plan.average + [nn.Flatten()]
            flat = True
        modules.append(_built(layer, plan, place, flat))
        place += bool(layer.kernel)
        normed = number + 1 < len(layers) and layers[number + 1].norm
        if number + 1 < len(layers) and not normed:
            modules.append(get_activation(activation)())
            if not flat and place and plan.pool[place - 1] > 1:
                modules.append(nn.MaxPool2d(plan.pool[place - 1]))
    words = [
        f"conv {len(layer.weight)} {layer.kernel}×{layer.kernel} stride {plan.stride[place]} padding "
        f"{plan.padding[place]}" + (f" max pool {plan.pool[place]}" if plan.pool[place] > 1 else "")
        for place, layer in enumerate(convolutions)
    ]
    words += ["average"] * plan.average + [
        f"linear {len(each.weight)}" for each in layers if _is_linear(each)
    ]
    return nn.Sequential(*modules), f"sequential: {', '.join(words)}; {activation}"


def _is_linear(layer: Layer) -> bool:
    return layer.weight.ndim == 2


def _built(layer: Layer, plan: Plan, place: int, flat: bool) -> nn.Module:
    outside, bias = len(layer.weight), "bias" in layer.tensors
    if layer.norm:
        made: nn.Module = nn.BatchNorm1d(outside) if flat else nn.BatchNorm2d(outside)
    elif layer.kernel:
        stride, padding = plan.stride[place], plan.padding[place]
        made = nn.Conv2d(layer.weight.shape[1], outside, layer.kernel, stride, padding, bias=bias)
    else:
        made = nn.Linear(layer.weight.shape[1], outside, bias=bias)
    return _loaded(made, layer.tensors)


def _plan(
    layers: Sequence[Layer], channels: int, size: tuple[int, int], given: dict[str, Sequence[int]]
) -> Plan:
    """The one plan that fits the first linear layer.

    Raises:
        UsageError: there are several, or none.
    """
    convolutions = [layer for layer in layers if layer.kernel]
    if wrong := [name for name, values in given.items() if len(values) not in (1, len(convolutions))]:
        raise UsageError(
            f"one {wrong[0]}, or one for each of {len(convolutions)} convolutions",
            got=",".join(map(str, given[wrong[0]])),
            suggestion=f"{wrong[0]}={given[wrong[0]][0]}",
        )
    kernels = [layer.kernel for layer in convolutions]
    width = len(convolutions[-1].weight) if convolutions else channels
    wanted = next(layer.weight.shape[1] for layer in layers if layer.weight.ndim == 2)
    every = {
        plan
        for plan in _plans(layers, given, wanted == width)
        if _numbers(plan, kernels, size, width) == wanted
    }
    if len(every) == 1:
        return every.pop()
    plans = sorted(every, key=lambda plan: (sum(plan.stride), sum(plan.pool), plan.padding))
    place = f"{size[0]}×{size[1]} pixels to {wanted} numbers"
    raise UsageError(
        f"one usual choice of stride, padding and pooling from {place}",
        got=f"{len(plans)} of them" if plans else "none",
        suggestion=" or ".join(dict.fromkeys(_option(plan, plans) for plan in plans[:4]))
        + " behind the file's name"
        if plans
        else "?size=PIXELS of the images behind the file's name, or file.py:function that builds it",
    )


def _plans(layers: Sequence[Layer], given: dict[str, Sequence[int]], average: bool) -> Iterator[Plan]:
    convolutions = [layer for layer in layers if layer.kernel]
    kinds = sorted({layer.kernel for layer in convolutions})
    steps = [
        [
            (stride, padding)
            for stride in STRIDES
            if stride <= max(kind, 2)
            for padding in {0, (kind - 1) // 2}
        ]
        for kind in kinds
    ]
    room = _room_for_pools(layers)
    for chosen, pool, averaged in product(product(*steps), POOLS, {False, average}):
        by_kernel = dict(zip(kinds, chosen, strict=True))
        own = {
            "stride": [by_kernel[layer.kernel][0] for layer in convolutions],
            "padding": [by_kernel[layer.kernel][1] for layer in convolutions],
            "pool": [pool if free else 1 for free in room],
        }
        full = {
            name: tuple(values * len(own[name]) if len(values) == 1 else values)
            for name, values in (own | {key: list(value) for key, value in given.items()}).items()
        }
        yield Plan(full["stride"], full["padding"], full["pool"], averaged)


def _numbers(plan: Plan, kernels: Sequence[int], size: tuple[int, int], width: int) -> int:
    """How many numbers reach the first linear layer."""
    sides = [plan.side(side, kernels) for side in size]
    return width * (min(1, prod(sides)) if plan.average else prod(sides))


def _room_for_pools(layers: Sequence[Layer]) -> list[bool]:
    """Whether a pooling may follow each convolution: where layers are numbered, if a number is free."""
    room = []
    for place, layer in enumerate(layers):
        if not layer.kernel:
            continue
        later = next(other for other in layers[place + 1 :] if not other.norm)
        numbers = [each.name for each in layers[place : layers.index(later) + 1]]
        if not all(name.isdecimal() for name in numbers):
            room.append(True)
        else:
            needed = len(numbers) - 1 + 1 + (later.weight.ndim == 2)  # norms and itself, ReLU, flatten
            room.append(int(numbers[-1]) - int(numbers[0]) > needed)
    return room


def _option(plan: Plan, plans: Sequence[Plan]) -> str:
    """The option, or the few, that single this plan out."""
    values = {name: getattr(plan, name) for name in ("stride", "pool", "padding")}
    values = dict(sorted(values.items(), key=lambda each: -max(each[1])))  # what is done before what is not
    names: list[str] = []
    left = list(plans)
    for name, own in values.items():
        fewer = [other for other in left if getattr(other, name) == own]
        if len(fewer) < len(left):
            left, names = fewer, [*names, name]
    texts = [
        f"{name}={','.join(map(str, values[name][:1] if len(set(values[name])) == 1 else values[name]))}"
        for name in names
    ]
    return "?" + "&".join(texts)


# Residual ------------------------------------------------------------------------------------------------


class PlainBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut, without normalisation."""

    def __init__(self, inside: int, outside: int, stride: int, shortcut: bool, activation: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1)
        self.shortcut = nn.Sequential(*[nn.Conv2d(inside, outside, 1, stride)] * shortcut)
        self.act1, self.act2 = get_activation(activation)(), get_activation(activation)()

    def forward(self, x: Tensor) -> Tensor:
        return self.act2(self.conv2(self.act1(self.conv1(x))) + self.shortcut(x))


def _without_norm(state: State) -> bool:
    return not any(name.endswith("running_mean") for name in state)


def _residual(state: State, channels: int, size: tuple[int, int], activation: str) -> tuple[nn.Module, str]:
    """A stem, blocks `layerI.J`, and linear layers; blocks with a shortcut of their own halve the image."""
    places = sorted({tuple(map(int, found.groups())) for name in state if (found := _BLOCK.match(name))})
    linear = [name for name in state if state[name].ndim == 2]
    wanted, width = (
        state[linear[0]].shape[1],
        len(state[f"layer{places[-1][0]}.{places[-1][1]}.conv2.weight"]),
    )
    halving = [f"layer{i}.{j}.shortcut.0.weight" in state for i, j in places]
    fitting = [
        strides
        for strides in product((1, 2), (1, 2))
        if wanted
        == width * prod(_halved(_halved(side, strides[0]), strides[1] ** sum(halving)) for side in size)
    ]
    if len(fitting) != 1 or state["conv1.weight"].shape[1] != channels:
        raise UsageError(
            f"one choice of strides from {channels}×{size[0]}×{size[1]} to {wanted} numbers",
            got=f"{len(fitting)} of them",
            suggestion="?size=PIXELS of the images, or file.py:function that builds it",
        )
    stem, step = fitting[0]
    kernel, inside = state["conv1.weight"].shape[-1], len(state["conv1.weight"])
    first = nn.Conv2d(channels, inside, kernel, stem, kernel // 2)
    modules: list[nn.Module] = [_loaded(first, _inside(state, "conv1")), get_activation(activation)()]
    for (i, j), halved in zip(places, halving, strict=True):
        name = f"layer{i}.{j}"
        outside = len(state[f"{name}.conv1.weight"])
        block = PlainBlock(inside, outside, step if halved else 1, halved, activation)
        modules.append(_loaded(block, _inside(state, name)))
        inside = outside
    modules.append(nn.Flatten())
    for weight in linear:
        layer = nn.Linear(state[weight].shape[1], len(state[weight]))
        loaded = _loaded(layer, _inside(state, weight.removesuffix(".weight")))
        modules += [loaded, get_activation(activation)()]
    words = f"plain-resnet: {len(places)} blocks, stem stride {stem}, blocks stride {step}; {activation}"
    return nn.Sequential(*modules[:-1]), words


def _inside(state: State, name: str) -> State:
    return {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}


_BLOCK = re.compile(r"layer(\d+)\.(\d+)\.conv1\.weight")


def _halved(side: int, step: int) -> int:
    return -(-side // step)


def _loaded(module: nn.Module, tensors: State) -> nn.Module:
    """The module with these tensors for its own; counters of batches may be missing."""
    counters = {name: value for name, value in module.state_dict().items() if name.endswith("_tracked")}
    try:
        module.load_state_dict({**counters, **tensors})
    except RuntimeError as error:
        raise PagsError(
            f"the tensors of a {type(module).__name__}",
            got=" ".join(str(error).split()),
            suggestion="file.py:function that builds the network",
        ) from error
    return module
