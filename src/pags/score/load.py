"""Denoisers from files, and denoisers to files: EDM's pickles, and plain weights as safetensors.

In a safetensors file the tensors have the names of the network's state dict, and the plain data about them
say how to build it; further keys (a source, a digest) may stand beside these:

- EDM's networks: `{"kind": "denoiser", "denoiser": "edm", "preconditioner": class, "arguments": {...},
  "attributes": {path: {...}}}`, with the constructor's arguments by name where they are not the defaults, and
  the attributes that were edited after construction. Tensors are named as published, `model.enc.…`.
- A `UNetDenoiser` that was trained here: `{"kind": "denoiser", "denoiser": "unet", "channels": int,
  "classes": int, "widths": [int, ...]}`. Tensors are named `net.…`.
"""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from pags import checkpoints
from pags.arrays import Images, Labels
from pags.errors import PagsError, UsageError
from pags.plugins import Plugin, failed, is_plugin, load_plugin
from pags.score.denoiser import as_denoiser
from pags.score.edm.arguments import refused, shown
from pags.score.edm.build import blank, described, filled, set_attributes
from pags.score.edm.denoiser import EDMDenoiser
from pags.score.edm.preconditioning import Preconditioner
from pags.score.edm.published import network_in
from pags.score.foreign import DiffusersDenoiser, from_diffusers
from pags.score.unet import UNetDenoiser
from pags.shipped import DENOISER, shipped
from pags.store import Record, expanded, read_safetensors

WIDEST, LONGEST = 65536, 12  # of a U-Net: channels and levels


class CalledDenoiser(nn.Module):
    """A denoiser of the user's own, as a module.

    Args:
        function: (images, sigma) or (images, sigma, labels) to images, all for pixels in [0, 1] and sigma in
            EDM's unit; one without a third parameter knows no classes.
        source: `pags.plugins.Plugin.source`.
    """

    def __init__(self, function: Callable[..., Any], source: str = "") -> None:
        super().__init__()
        self.function, self.source = function, source
        called = function.forward if isinstance(function, nn.Module) else function
        self.labelled = len(inspect.signature(called).parameters) > 2
        if not self.labelled or hasattr(function, "classes"):
            self.classes = int(getattr(function, "classes", 0))

    def forward(self, images: Images, sigma: float, labels: Labels | None = None) -> Images:
        if labels is not None and not self.labelled:
            raise UsageError(
                "labels=None, for this denoiser takes no labels",
                got=f"{len(labels)} labels",
                suggestion="a third parameter, labels=None",
            )
        found: Any = self.function(images, sigma, labels) if self.labelled else self.function(images, sigma)
        if not isinstance(found, Tensor) or found.shape != images.shape:
            raise PagsError(
                f"denoised images of shape {tuple(images.shape)}",
                got=f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__,
                suggestion="returning the clean images, for pixels in [0, 1]",
            )
        return found.to(images)


LoadedDenoiser: TypeAlias = EDMDenoiser | UNetDenoiser | DiffusersDenoiser | CalledDenoiser


def load_denoiser(path: Path | str, *, which: str = "ema") -> LoadedDenoiser:
    """A denoiser from a file, without running code from it; or one that the user's code makes.

    Args:
        path: an EDM pickle (`.pkl`), a `.safetensors` that `export` describes, or a folder of diffusers with
            a UNet2DModel and its scheduler; `pags:cifar10`, which ships with the package; `file.py:name` or
            `package.module:name`, **which runs that code**: a denoiser (of images alone: a blind one), or a
            class or function without arguments that makes one.
        which: the key of the network in a pickle.

    Returns:
        The denoiser on the CPU, in evaluation mode and without gradients of its weights.

    Raises:
        UsageError: a file of another kind; a key that the pickle does not have; code that is not there.
        PagsError: a file that is missing, damaged, or not a whole denoiser; code that fails.
    """
    path = located(path)
    if not Path(path).exists() and is_plugin(str(path)):
        return _of_user(load_plugin(str(path)))
    path = expanded(path)
    if path.is_dir():
        return from_diffusers(path)
    if path.suffix == ".pkl":
        return EDMDenoiser(network_in(checkpoints.read(path), which, str(path)))
    if path.suffix == ".safetensors":
        return _from_plain(*read_safetensors(path), str(path))
    raise UsageError(
        "a denoiser as .pkl (EDM's), .safetensors, a folder of diffusers, or file.py:name",
        got=str(path),
        suggestion="EDM's network-snapshot, not its training state; for other networks a function of images, "
        "sigma and labels",
    )


def located(path: Path | str) -> Path | str:
    """The file of a denoiser that ships with the package; any other path as it is."""
    kind, _, name = str(path).partition(":")
    return shipped(name, (DENOISER,)) if kind == "pags" else path


def _of_user(plugin: Plugin) -> CalledDenoiser:
    value = plugin.value
    if not callable(value):
        raise UsageError(
            f"a denoiser {plugin.name}(images, sigma, labels=None)",
            got=f"a {type(value).__name__}",
            suggestion="a function, a module, or a class or function that makes one",
        )
    try:
        made = value if isinstance(value, nn.Module) or _takes(value) else value()
        found = CalledDenoiser(as_denoiser(made), plugin.source)
    except Exception as error:
        raise failed(f"{plugin.name} to make a denoiser", plugin.name, error) from error
    return found.eval().requires_grad_(False)


def _takes(function: Any) -> bool:
    """Whether a function takes images itself; classes and functions without arguments do not."""
    needed = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    return not isinstance(function, type) and bool(needed)


def export(network: nn.Module) -> tuple[dict[str, Tensor], Record]:
    """A denoiser as tensors and plain data about them, for `Store.write_tensors`.

    Args:
        network: an `EDMDenoiser`, a bare preconditioner, or a `UNetDenoiser`.

    Returns:
        The state dict, whose tensors are the network's own, and the data from which it is built again; the
        key layout stands at the head of this module.

    Raises:
        UsageError: a denoiser of another kind.
    """
    if isinstance(network, EDMDenoiser):
        network = network.net
    if isinstance(network, Preconditioner):
        about: Record = {"denoiser": "edm", **described(network)}
    elif isinstance(network, UNetDenoiser):
        about = {"denoiser": "unet", **_unet_arguments(network)}
    else:
        raise UsageError(
            "an EDMDenoiser or a UNetDenoiser",
            got=type(network).__name__,
            suggestion="saving its state dict with safetensors",
        )
    return dict(network.state_dict()), {"kind": "denoiser", **about}


def _unet_arguments(network: UNetDenoiser) -> Record:
    convolutions = [(block.conv1.in_channels, block.conv1.out_channels) for block in network.net.down]  # type: ignore[union-attr]
    return {
        "channels": network.net.first.in_channels,
        "classes": network.classes,
        "widths": [outside for _, outside in convolutions],
    }


def _from_plain(tensors: Mapping[str, Tensor], about: Any, source: str) -> EDMDenoiser | UNetDenoiser:
    match about:
        case {"denoiser": "edm", "preconditioner": str(name), "arguments": dict(arguments)}:
            network = blank(name, arguments, source)
            set_attributes(network, _attributes(about.get("attributes", {}), source), source)
            return EDMDenoiser(filled(network, tensors, source))
        case {"denoiser": "unet", "channels": int(channels), "classes": int(classes), "widths": [*widths]}:
            return filled(_blank_unet(channels, classes, widths, source), tensors, source).float()
    kind = shown(about.get("denoiser", about.get("kind"))) if isinstance(about, dict) else shown(about)
    raise refused('a denoiser, "edm" or "unet", with its arguments', kind, source)


def _attributes(given: Any, source: str) -> dict[str, dict[str, Any]]:
    if isinstance(given, dict) and all(isinstance(values, dict) for values in given.values()):
        return given
    raise refused("attributes by module", shown(given), source)


def _blank_unet(channels: int, classes: int, widths: list[Any], source: str) -> UNetDenoiser:
    counted = all(type(count) is int and 1 <= count <= WIDEST for count in (channels, *widths))
    if not (counted and type(classes) is int and 0 <= classes <= WIDEST and 1 <= len(widths) <= LONGEST):
        raise refused(
            f"channels, classes and 1 to {LONGEST} widths, none above {WIDEST}",
            shown([channels, classes, *widths]),
            source,
        )
    with torch.device("meta"):
        return UNetDenoiser(channels, classes=classes, widths=widths)
