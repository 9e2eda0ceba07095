"""One table of architectures, and the one function that builds a classifier from its name."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from torch import Tensor, nn

from pags.arrays import Images, Logits
from pags.classifiers.about import remember
from pags.classifiers.libraries import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    timm_network,
    timm_normalisation,
    torchvision_names,
    torchvision_network,
)
from pags.classifiers.plain import PlainNetwork, plain_widths
from pags.classifiers.resnet import LAYOUTS, Normalise, build_resnet
from pags.classifiers.wide import PREACTIVATION, WIDE, build_preactivation
from pags.data.imageset import ImageSet
from pags.errors import UsageError
from pags.seeds import seeded_construction

ARCHITECTURES = {
    "resnet18": "ResNet-18 for small images: a 3×3 stem, no first pooling (the paper's; He et al. 2016)",
    "resnet34": "ResNet-34 for small images",
    "resnet50": "ResNet-50 for small images, of bottlenecks",
    "wide-resnet-28-10": "WideResNet-28-10 for small images, as many robust models have (Zagoruyko 2016)",
    "wide-resnet-34-10": "WideResNet-34-10, likewise",
    "wide-resnet-16-4": "WideResNet-16-4, a small one of the kind; also wide-resnet-28-4, wide-resnet-40-2",
    "preact-resnet18": "PreActResNet-18 for small images, with a normalisation at its end (He et al. 2016b)",
    "preact-resnet18-plain": "the same without a normalisation at its end",
    "cifar-resnet20": "He et al.'s networks for CIFAR-10 (2016, 4.2), also -32, -44, -56, -110",
    "small-resnet": "three blocks, for small images on a CPU",
    "plain-32-128-128": "plain convolutions of these widths, learns in minutes on a CPU; others likewise",
    "plain-64-256-256": "plain convolutions of these widths, learns in minutes on a GPU",
    "resnet18-224": "ResNet-18 for ImageNet, the same as torchvision:resnet18",
    "torchvision:NAME": "any classifier of torchvision, such as torchvision:wide_resnet50_2",
    "timm:NAME": "any classifier of timm, such as timm:convnext_atto (needs the extra: pags[timm])",
}
"""What `build_classifier` takes, and what it is."""

OTHER_NAMES = {"resnet18-224": "torchvision:resnet18"}


class Normalised(nn.Module):
    """A network behind its normalisation, so that images stay in [0, 1]."""

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.normalise = Normalise(mean, std)
        self.network = network

    def forward(self, images: Images) -> Logits:
        return self.network(self.normalise(images))


def build_classifier(
    architecture: str,
    channels: int,
    classes: int,
    *,
    activation: str = "relu",
    mean: Sequence[float],
    std: Sequence[float],
    size: tuple[int, int] | None = None,
) -> nn.Module:
    """A classifier with fresh weights: images in [0, 1] to logits, its normalisation inside.

    Build it inside `pags.seeds.seeded_construction`, for its weights are drawn.

    Args:
        architecture: a name of `ARCHITECTURES`.
        channels: colour channels of the images.
        classes: number of logits.
        activation: one of `resnet.ACTIVATIONS`; softplus and gelu are twice differentiable. Our networks
            and torchvision's residual ones can have any; other networks have their own, for "relu".
        mean, std: normalisation of each channel, for images in [0, 1].
        size: height and width of the images in pixels, for vision transformers, which have one size only;
            our networks and residual ones pool adaptively and take images of any size.

    Raises:
        UsageError: no such architecture, or one that cannot be as asked.
        PagsError: the library that builds it is not installed.
    """
    _check_numbers(channels, classes, mean, std)
    if architecture in LAYOUTS:
        model: nn.Module = build_resnet(
            architecture, channels, classes, activation=activation, mean=mean, std=std
        )
    elif widths := plain_widths(architecture):
        model = PlainNetwork(channels, classes, widths=widths, activation=activation, mean=mean, std=std)
    elif architecture in WIDE or architecture in PREACTIVATION:
        wide = build_preactivation(architecture, channels, classes, activation=activation)
        model = Normalised(wide, mean, std)
    else:
        network = _library_network(architecture, channels, classes, activation, size)
        model = Normalised(network, mean, std)
    built = {"architecture": architecture, "channels": channels, "classes": classes, "activation": activation}
    numbers = {"mean": [float(value) for value in mean], "std": [float(value) for value in std]}
    remember(model, recipe={**built, **numbers, "size": list(size) if size else None})
    return model


def new_classifier(
    data: ImageSet, architecture: str = "small-resnet", *, activation: str = "relu", seed: int = 0
) -> nn.Module:
    """A classifier with fresh weights for a set of images: their channels, size, classes and normalisation.

    Args:
        data: as a rule the training images.
        architecture, activation: as in `build_classifier`.
        seed: of the weights.

    Raises:
        UsageError, PagsError: as `build_classifier`.
    """
    mean, std = data.statistics()
    channels, height, width = data.shape
    with seeded_construction(seed, "classifier"):
        return build_classifier(
            architecture, channels, len(data.classes), activation=activation, mean=mean, std=std,
            size=(height, width),
        )  # fmt: skip


def default_normalisation(architecture: str, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The normalisation that goes with an architecture where nobody names one.

    timm's own note for its networks, ImageNet's for torchvision's, and none for the networks for small images
    and for images that are not in three colours.
    """
    library, _, name = OTHER_NAMES.get(architecture, architecture).partition(":")
    if channels != 3 or not name:
        return (0.0,) * channels, (1.0,) * channels
    return timm_normalisation(name) if library == "timm" else (IMAGENET_MEAN, IMAGENET_STD)


def without_normaliser(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a classifier built here, named as in its network, without the normalisation."""
    return {
        name.removeprefix("network."): value
        for name, value in model.state_dict().items()
        if name not in {"normalise.mean", "normalise.std"}
    }


def load_network(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put into a classifier built here the tensors that `without_normaliser` names."""
    normaliser = {name: model.state_dict()[name] for name in ("normalise.mean", "normalise.std")}
    prefix = "network." if isinstance(model, Normalised) else ""
    model.load_state_dict({**normaliser, **{prefix + name: value for name, value in state.items()}})


def _library_network(
    architecture: str, channels: int, classes: int, activation: str, size: tuple[int, int] | None
) -> nn.Module:
    library, _, name = OTHER_NAMES.get(architecture, architecture).partition(":")
    if library == "torchvision" and name:
        return torchvision_network(name, channels, classes, activation=activation, size=size)
    if library == "timm" and name:
        if activation != "relu":
            raise UsageError(
                f"the activation that timm's {name} has",
                got=activation,
                suggestion="resnet18, where the activation can be chosen",
            )
        return timm_network(name, channels, classes, size=size)
    close = get_close_matches(architecture, ARCHITECTURES, n=1) or ["resnet18"]
    raise UsageError(
        f"an architecture among {', '.join(ARCHITECTURES)}",
        got=repr(architecture),
        suggestion=f"torchvision:{architecture}" if architecture in torchvision_names() else close[0],
    )


def _check_numbers(channels: int, classes: int, mean: Sequence[float], std: Sequence[float]) -> None:
    if channels < 1 or classes < 1:
        raise UsageError(
            "at least one channel and one class", got=f"{channels} and {classes}", suggestion="3 and 10"
        )
    if len(mean) != channels or len(std) != channels or not all(value > 0 for value in std):
        raise UsageError(
            f"mean and std of {channels} channels, std above zero",
            got=f"mean {tuple(mean)} and std {tuple(std)}",
            suggestion="one number per channel, for images in [0, 1]",
        )
