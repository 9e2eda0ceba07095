"""A classifier from one line of text: a file, a library's name, or Python code."""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import parse_qsl

from torch import nn

from pags.classifiers.about import remember
from pags.classifiers.build import Normalised, build_classifier, default_normalisation
from pags.classifiers.custom import made_by
from pags.classifiers.files import from_file
from pags.classifiers.fitting import filled
from pags.classifiers.foreign import Normalisation
from pags.classifiers.libraries import (
    timm_normalisation,
    timm_pretrained,
    torchvision_names,
    torchvision_pretrained,
)
from pags.errors import UsageError
from pags.seeds import seeded_construction

FILES = (".safetensors", ".pt", ".pth", ".ckpt", ".pkl", ".bin", ".tar")

FORMS = (
    "FILE.safetensors", "FILE.pt", "madry:FILE", "robustbench:FILE", "torchvision:NAME", "timm:NAME",
    "package.module:function", "file.py:function",
)  # fmt: skip
"""What `load_classifier` takes."""


def load_classifier(
    spec: str,
    *,
    architecture: str | None = None,
    classes: int | None = None,
    channels: int = 3,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int = 0,
) -> nn.Module:
    """The classifier that `spec` names, in evaluation mode: images in [0, 1] to logits.

    Files are read without running code from them. `package.module:function` and `file.py:function` are the
    one exception, and mean to be: **they run that code**.

    Args:
        spec: one of `FORMS`. A file written by `pags train` needs nothing else. `torchvision:NAME` has fresh
            weights from `seed`, `torchvision:NAME?weights=DEFAULT` those that torchvision downloads;
            `timm:NAME` and `timm:NAME?pretrained=1` likewise. `FILE?key=NAME` takes the state dict under that
            key of a checkpoint. `madry:` insists on the normaliser that MadryLab's robustness stores.
        architecture: for a foreign file, a name of `build.ARCHITECTURES`. A plain name of torchvision
            (`resnet50`) means torchvision's network where the file's names are torchvision's.
        classes: number of logits; for a file found in its last layer, and checked where given; for fresh
            weights of a library 1000 unless given.
        channels: colour channels of the images.
        mean, std: normalisation of each channel for images in [0, 1], which goes inside the classifier.
            Unless given: the file's own, else the library's for its networks, else none.
        seed: of fresh weights.

    Returns:
        The classifier; `about.describe` says which.

    Raises:
        UsageError: the request makes no sense: an unknown spec or name, a file that is not there, a number of
            classes or a normalisation that contradicts the file.
        PagsError: the file, the library or the code does not give such a classifier.
    """
    if (mean is None) != (std is None):
        raise UsageError("mean and std together", got="one of them", suggestion="giving both or neither")
    kind, rest, options = _parsed(spec)
    given = (tuple(mean), tuple(std)) if mean is not None and std is not None else None
    if kind in {"torchvision", "timm"}:
        _refuse(architecture, f"no architecture beside {spec}")
        model = _from_library(kind, rest, options, classes, channels, given, seed)
    elif kind == "python":
        where, _, name = rest.rpartition(":")
        _refuse(architecture, "no architecture beside a function, which builds its own")
        _refuse(given, "no mean and std beside a function, whose classifier takes images in [0, 1]")
        model, classes, source = made_by(where, name, channels=channels, classes=classes)
        remember(model, architecture=type(model).__name__, classes=classes, weights=source)
        remember(model, normalisation="inside, as the code has it")
    else:
        model = from_file(kind, Path(rest), options.get("key"), architecture, classes, channels, given)
    remember(model, spec=spec)
    return model.eval()


# Specs ---------------------------------------------------------------------------------------------------


def _parsed(spec: str) -> tuple[str, str, dict[str, str]]:
    """What kind of spec it is, its name or path, and what stands behind a question mark."""
    if Path(spec).is_file():
        return "file", spec, {}
    body, _, query = spec.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    kind, _, rest = body.partition(":")
    allowed = {"torchvision": {"weights"}, "timm": {"pretrained"}, "madry": {"key"}, "robustbench": {"key"}}
    if kind not in allowed:
        is_file = Path(body).is_file() or (Path(body).suffix in FILES and ":" not in body)
        module, _, function = body.rpartition(":")
        kind, rest = ("file", body) if is_file else ("python", body)
        if not is_file and not (module and function.isidentifier()):
            raise _unknown(spec)
    if (
        not rest
        or options.keys() - allowed.get(kind, {"key"} if kind == "file" else set())
        or (query and not options)
    ):
        raise _unknown(spec)
    return kind, rest, options


def _unknown(spec: str) -> UsageError:
    close = [f"torchvision:{spec}"] if spec in torchvision_names() else []
    suggestion = close or (["a file, or file.py:function"] if Path(spec).exists() else FORMS[4:6])
    return UsageError(
        f"a model as one of {', '.join(FORMS)}", got=repr(spec), suggestion=" or ".join(suggestion)
    )


def _refuse(given: object, expected: str) -> None:
    if given is not None:
        raise UsageError(expected, got=repr(given), suggestion="leaving it out")


# Libraries -----------------------------------------------------------------------------------------------


def _from_library(
    library: str, name: str, options: dict[str, str], classes: int | None, channels: int,
    given: Normalisation | None, seed: int,
) -> nn.Module:  # fmt: skip
    architecture = f"{library}:{name}"
    trained = _trained_weights(library, options)
    if trained is not None and channels != 3:
        raise UsageError("three channels for trained weights", got=channels, suggestion="fresh weights, or 3")
    if trained is not None and library == "torchvision":
        state, own, found, weights = torchvision_pretrained(name, trained)
        model = filled(architecture, state, _agreed_classes(classes, found), channels, given or own)
    elif trained is not None:
        network = timm_pretrained(name)
        found = int(network.num_classes)  # type: ignore[arg-type]  # timm's networks all have this number
        _agreed_classes(classes, found)
        model = Normalised(network, *(given or timm_normalisation(name)))
        remember(model, architecture=architecture, classes=found)
        weights = f"timm's {name}"
    else:
        found = classes or 1000
        mean, std = given or default_normalisation(architecture, channels)
        with seeded_construction(seed, "classifier", architecture):
            model = build_classifier(architecture, channels, found, mean=mean, std=std)
        remember(model, architecture=architecture, classes=found)
        weights = f"untrained, seed {seed}"
    remember(model, weights=weights, normalisation="given" if given else f"of {library}")
    return model


def _trained_weights(library: str, options: dict[str, str]) -> str | None:
    if library == "torchvision":
        return options.get("weights")
    if (value := options.get("pretrained", "0")) not in {"0", "1"}:
        raise UsageError("pretrained=0 or pretrained=1", got=repr(value), suggestion="pretrained=1")
    return "default" if value == "1" else None


def _agreed_classes(given: int | None, found: int) -> int:
    if given is not None and given != found:
        raise UsageError(
            f"the number of classes of the trained weights, {found}", got=given, suggestion=f"classes={found}"
        )
    return found
