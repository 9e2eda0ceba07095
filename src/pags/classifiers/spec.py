"""One line of text that names a classifier, and what it asks for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

from pags.classifiers.adapt import OUTPUTS
from pags.classifiers.foreign import Normalisation
from pags.classifiers.libraries import IMAGENET_MEAN, IMAGENET_STD, torchvision_names
from pags.errors import UsageError
from pags.shipped import CLASSIFIERS, shipped
from pags.store import expanded

FILES = (".safetensors", ".pt", ".pth", ".th", ".ckpt", ".pkl", ".bin", ".tar", ".model", ".pt2", ".onnx")

FORMS = (
    "FILE.safetensors", "FILE.pt", "pags:NAME", "madry:FILE", "robustbench:FILE", "torchvision:NAME",
    "timm:NAME", "package.module:function", "file.py:function",
)  # fmt: skip
"""What `load_classifier` takes."""

NORMALISATIONS: dict[str, Normalisation] = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    "none": ((0.0,), (1.0,)),
}
"""What `?normalise=` takes: the mean and standard deviation of each channel."""

ALL = {"mean", "std", "normalise", "outputs", "classes"}
OF_FILES = {"arch", "key", "ignore", "size", "stride", "padding", "pool", "activation"}
OPTIONS = {
    "pags": set[str](), "python": ALL, "torchvision": ALL | {"weights", "untrained"},
    "timm": ALL | {"pretrained", "untrained"},
    **dict.fromkeys(("file", "madry", "robustbench"), ALL | OF_FILES),
}  # fmt: skip
"""What may stand behind the question mark of a spec, by its kind."""


@dataclass(frozen=True)
class Spec:
    """A spec in its parts: its kind, a path or a name, and its options as they stand there."""

    kind: str
    rest: str
    options: dict[str, str]

    def numbers(self, name: str) -> tuple[float, ...] | None:
        """An option as numbers, separated by commas; None where it is not given."""
        if name not in self.options:
            return None
        try:
            return tuple(float(value) for value in self.options[name].split(","))
        except ValueError as error:
            raise _not_numbers(name, self.options[name], "0.5") from error

    def naturals(self, name: str) -> tuple[int, ...] | None:
        """An option as natural numbers, separated by commas (or ×, of a size); None where it is not given."""
        values = self.options.get(name, "").replace("×", ",").replace("x", ",")
        if name in self.options and not all(value.isdecimal() for value in values.split(",")):
            raise _not_numbers(name, self.options[name], "2")
        return tuple(int(value) for value in values.split(",")) if values else None

    def size(self) -> tuple[int, int] | None:
        """Height and width that `?size=` gives."""
        values = self.naturals("size")
        return (values[0], values[-1]) if values else None


def parsed(text: str) -> Spec:
    """The parts of a spec.

    Raises:
        UsageError: it means nothing, or has an option that its kind does not take.
    """
    if expanded(text).is_file():
        return Spec("file", str(expanded(text)), {})
    body, _, query = text.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    kind, _, rest = body.partition(":")
    if kind not in OPTIONS or kind in {"file", "python"}:
        path = expanded(body)
        is_file = path.is_file() or (path.suffix in FILES and ":" not in body)
        module, _, function = body.rpartition(":")
        kind, rest = ("file", str(path)) if is_file else ("python", body)
        if not is_file and not (module and function.isidentifier()):
            raise _unknown(text)
    elif kind in {"madry", "robustbench"} and rest:
        rest = str(expanded(rest))
    if not rest or (query and not options):
        raise _unknown(text)
    if kind == "pags" and not query:
        return Spec("file", str(shipped(rest, CLASSIFIERS)), {})
    if unknown := sorted(options.keys() - OPTIONS[kind]):
        raise UsageError(
            f"a model as one of {', '.join(FORMS)}, with options among {', '.join(sorted(OPTIONS[kind]))}",
            got=f"{unknown[0]} in {text!r}",
            suggestion="leaving it out",
        )
    return Spec(kind, rest, options)


def normalisation_of(
    mean: Sequence[float] | None, std: Sequence[float] | None, name: str | None, channels: int
) -> Normalisation | None:
    """The mean and standard deviation of each channel that were asked for; None where none were.

    Args:
        mean, std: one number for all channels, or one for each.
        name: of `NORMALISATIONS`, instead of mean and std.
        channels: of the images.

    Raises:
        UsageError: one of mean and std alone, both ways at once, or no such name.
    """
    if (mean is None) != (std is None):
        raise UsageError("mean and std together", got="one of them", suggestion="giving both or neither")
    if name is not None and (mean is not None or name not in NORMALISATIONS):
        raise UsageError(
            f"mean and std, or normalise as one of {', '.join(NORMALISATIONS)}",
            got="both" if mean is not None else repr(name),
            suggestion="leaving normalise out" if mean is not None else "normalise=imagenet or mean and std",
        )
    mean, std = NORMALISATIONS[name] if name is not None else (mean, std)
    if mean is None or std is None:
        return None
    if {len(mean), len(std)} - {1, channels} or min(std) <= 0:
        raise UsageError(
            f"mean and std of {channels} channels, std above zero",
            got=f"mean {tuple(mean)} and std {tuple(std)}",
            suggestion="one number for each channel, for images in [0, 1]",
        )
    return spread(mean, channels), spread(std, channels)


def spread(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """One number for each channel, where there is one for all."""
    return tuple(values) * channels if len(values) == 1 else tuple(values)


def outputs_of(name: str | None) -> str | None:
    """How the outputs of a model are to be taken.

    Raises:
        UsageError: no such way.
    """
    if name is not None and name not in OUTPUTS:
        raise UsageError(
            f"outputs as one of {', '.join(OUTPUTS)}", got=repr(name), suggestion="outputs=logits"
        )
    return name


def _not_numbers(name: str, value: str, example: str) -> UsageError:
    return UsageError(
        f"{name} as numbers separated by commas", got=repr(value), suggestion=f"{name}={example}"
    )


def _unknown(text: str) -> UsageError:
    close = [f"torchvision:{text}"] if text in torchvision_names() else []
    suggestion = close or (["a file, or file.py:function"] if Path(text).exists() else FORMS[5:7])
    return UsageError(
        f"a model as one of {', '.join(FORMS)}", got=repr(text), suggestion=" or ".join(suggestion)
    )
