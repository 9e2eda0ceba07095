"""Networks that torchvision and timm know by name, with the number of classes that we ask for."""

from difflib import get_close_matches
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from pags.classifiers.resnet import get_activation
from pags.errors import PagsError, UsageError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""The normalisation of nearly all ImageNet classifiers."""

RESIDUAL = ("resnet", "resnext", "wide_resnet")
"""Families of torchvision in which every ReLU is a module of its own, and so can be replaced."""

WIDE_4 = "wide_resnet50_4"  # Salman et al. (2020) call a ResNet-50 with four times the inner width so

AUXILIARY = ("googlenet", "inception_v3")  # with heads beside the head, which are left out


def torchvision_network(
    name: str, channels: int, classes: int, *, activation: str, size: tuple[int, int] | None
) -> nn.Module:
    """torchvision's network `name`, with fresh weights.

    Raises:
        UsageError: no such network, or an activation or size that it cannot have.
    """
    models = import_module("torchvision.models")
    _check_name("torchvision", name, torchvision_names())
    if activation != "relu":
        _check_activation(name, activation)
    options: dict[str, Any] = {"num_classes": classes}
    if name in AUXILIARY:
        options |= {"aux_logits": False, "init_weights": True}
    if name.startswith("vit_") and size is not None:
        options["image_size"] = _square(name, size)
    if name == WIDE_4:
        network = models.resnet50(width_per_group=4 * 64, **options)
    else:
        network = models.get_model(name, **options)
    if channels != 3:
        _see_channels(network, channels)
    if activation != "relu":
        _replace_relu(network, activation)
    return network


def timm_network(name: str, channels: int, classes: int, *, size: tuple[int, int] | None = None) -> nn.Module:
    """timm's network `name`, with fresh weights.

    Raises:
        UsageError: no such network.
        PagsError: timm is not installed.
    """
    timm = timm_module(name)
    options: dict[str, Any] = {"num_classes": classes, "in_chans": channels}
    if size is not None and timm.get_pretrained_cfg(name).fixed_input_size:
        options["img_size"] = size
    return timm.create_model(name, **options)


def torchvision_names() -> list[str]:
    """The names of the classifiers that torchvision builds, and of the one wider network."""
    models = import_module("torchvision.models")
    return [*models.list_models(module=models), WIDE_4]


def torchvision_pretrained(name: str, which: str) -> tuple[dict[str, Tensor], tuple[Any, Any], int, str]:
    """The weights `which` of torchvision's network: state, normalisation, number of classes, their full name.

    torchvision downloads them and checks their hash; what it keeps is its own affair.

    Raises:
        UsageError: no such network, or no such weights of it.
        PagsError: the download did not work.
    """
    models = import_module("torchvision.models")
    _check_name("torchvision", name, [known for known in torchvision_names() if known != WIDE_4])
    if name in AUXILIARY:
        raise UsageError("trained weights without heads beside the head", got=name, suggestion=f"timm:{name}")
    choices = models.get_model_weights(name)
    if which not in choices.__members__:
        names = ", ".join(["DEFAULT", *(weights.name for weights in choices)])
        raise UsageError(f"weights of {name} among {names}", got=repr(which), suggestion="DEFAULT")
    weights = choices[which]
    with _download(f"torchvision's weights {weights.name} of {name}"):
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    transforms = weights.transforms()
    normalisation = (tuple(transforms.mean), tuple(transforms.std))
    return state, normalisation, len(weights.meta["categories"]), f"{choices.__name__}.{weights.name}"


def timm_pretrained(name: str) -> nn.Module:
    """timm's network `name` with the weights that timm downloads for it.

    Raises:
        UsageError: no such network.
        PagsError: timm is not installed, has no weights for this name, or the download did not work.
    """
    timm = timm_module(name)
    with _download(f"timm's weights of {name}"):
        return timm.create_model(name, pretrained=True)


def timm_normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation that timm notes for its network `name`."""
    config = timm_module(name).get_pretrained_cfg(name)
    return tuple(config.mean), tuple(config.std)


def timm_module(name: str) -> Any:
    """The library timm, which knows a network `name`."""
    try:
        timm = import_module("timm")
    except ImportError as error:
        raise PagsError(
            f"timm, which builds {name}",
            got="no such package installed",
            suggestion="pip install -e '.[timm]'",
        ) from error
    # A name may end in the tag of its weights: resnet50.a1_in1k.
    if not timm.is_model(name):
        _check_name("timm", name.partition(".")[0], timm.list_models())
    tagged = timm.list_pretrained(f"{name.partition('.')[0]}.*") if "." in name else []
    if "." in name and name not in tagged:
        raise UsageError(
            f"weights among {', '.join(tagged) or 'none'}",
            got=repr(name),
            suggestion=f"timm:{name.partition('.')[0]}",
        )
    return timm


class _download:
    """Whatever a library raises while it downloads, as one line."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, PagsError):
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise PagsError(
                f"{self.what}, downloaded or kept from before",
                got=f"{type(error).__name__}: {first[:200]}",
                suggestion="a machine with access to the network, or a file of the weights as the model",
            ) from error


def _check_name(library: str, name: str, known: list[str]) -> None:
    if name not in known:
        close = get_close_matches(name, known, n=3, cutoff=0.6)
        raise UsageError(
            f"a network that {library} knows",
            got=repr(name),
            suggestion=" or ".join(f"{library}:{other}" for other in close) or f"{library}:resnet18",
        )


def _check_activation(name: str, activation: str) -> None:
    get_activation(activation)
    if not name.startswith(RESIDUAL):
        raise UsageError(
            f"the activation that torchvision's {name} has",
            got=activation,
            suggestion="one of torchvision's residual networks, where the activation can be chosen",
        )


def _square(name: str, size: tuple[int, int]) -> int:
    if size[0] != size[1]:
        raise UsageError(
            f"square images for {name}", got=f"{size[0]}×{size[1]}", suggestion="a residual network"
        )
    return size[0]


def _see_channels(network: nn.Module, channels: int) -> None:
    """Put a first convolution of `channels` in the place of the one for three."""
    for name, old in network.named_modules():
        if isinstance(old, nn.Conv2d):
            if isinstance(old.padding, str):  # torchvision has none of these
                raise UsageError(
                    "a first convolution with numbers for padding", got=name, suggestion="resnet18"
                )
            new = nn.Conv2d(
                channels, old.out_channels, _pair(old.kernel_size), _pair(old.stride), _pair(old.padding),
                bias=old.bias is not None,
            )  # fmt: skip
            _replace(network, name, new)
            return


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    return values[0], values[1]


def _replace_relu(network: nn.Module, activation: str) -> None:
    for name, old in list(network.named_modules()):
        if isinstance(old, nn.ReLU):
            _replace(network, name, get_activation(activation)())


def _replace(network: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, new)
