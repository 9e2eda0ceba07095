"""A classifier from one line of text: a file, a library's name, or Python code."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from pags.classifiers.about import remember, remembered
from pags.classifiers.adapt import Adapted, as_classifier
from pags.classifiers.build import Normalised, build_classifier, default_normalisation
from pags.classifiers.custom import made_by, tried
from pags.classifiers.files import from_file
from pags.classifiers.fitting import filled
from pags.classifiers.foreign import Normalisation
from pags.classifiers.libraries import timm_normalisation, timm_pretrained, torchvision_pretrained
from pags.classifiers.programs import program
from pags.classifiers.spec import Spec, normalisation_of, outputs_of, parsed
from pags.errors import UsageError, model_error
from pags.seeds import seeded_construction


def load_classifier(
    spec: str,
    *,
    architecture: str | None = None,
    classes: int | None = None,
    channels: int = 3,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    normalise: str | None = None,
    size: tuple[int, int] | None = None,
    outputs: str | None = None,
    seed: int = 0,
) -> nn.Module:
    """The classifier that `spec` names, in evaluation mode: images in [0, 1] to logits.

    Files are read without running code from them. `package.module:function` and `file.py:function` are the
    one exception, and mean to be: **they run that code**.

    Args:
        spec: one of `spec.FORMS`, with options as in `FILE?arch=resnet18&mean=.49,.48,.45&std=.2,.2,.2`.
            All kinds take `mean`, `std`, `normalise`, `outputs` and `classes`, which go before the arguments
            of these names. Files take `arch`; `key`, where the state dict is, or a prefix of names; `ignore`,
            names that are left out; `activation`; and, for networks built from the shapes of their weights,
            `size`, `stride`, `padding` and `pool`. A file written by `pags train` needs nothing.
            `torchvision:NAME` and `timm:NAME` have the weights that these libraries download,
            `torchvision:NAME?weights=OTHER` others, and `NAME?untrained` fresh ones from `seed`. `madry:`
            insists on the normaliser that MadryLab's robustness stores.
        architecture: for a foreign file, a name of `build.ARCHITECTURES` or `shapes.SHAPED`; where it is not
            given, the one whose tensors the file has. A plain name of torchvision (`resnet50`) means
            torchvision's network where the file's names are torchvision's.
        classes: number of logits; for a file found in its last layer, and checked where given; for fresh
            weights of a library 1000 unless given.
        channels: colour channels of the images.
        mean, std: normalisation of each channel for images in [0, 1], which goes inside the classifier;
            around a function it comes before what that does itself. Unless given: the file's own, else the
            library's for its networks, else none.
        normalise: a name of `spec.NORMALISATIONS` instead of mean and std.
        size: height and width of the images in pixels, where they are known.
        outputs: what the model answers with, if not logits: a name of `adapt.OUTPUTS`.
        seed: of fresh weights.

    Returns:
        The classifier; `about.describe` says which.

    Raises:
        UsageError: the request makes no sense: an unknown spec or name, a file that is not there, a number of
            classes or a normalisation that contradicts the file.
        ModelError: code of the user raises something.
        PagsError: the file, the library or the code does not give such a classifier.
    """
    asked = parsed(spec)
    if asked.options.keys() & {"mean", "std", "normalise"}:
        mean, std = asked.numbers("mean"), asked.numbers("std")
        normalise = asked.options.get("normalise")
    given = normalisation_of(mean, std, normalise, channels)
    outputs = outputs_of(asked.options.get("outputs", outputs))
    classes = (asked.naturals("classes") or (classes,))[0]
    if asked.kind in {"torchvision", "timm"}:
        _refuse(architecture, f"no architecture beside {spec}")
        model = _from_library(asked, classes, channels, given, size, seed)
    elif asked.kind == "python":
        _refuse(architecture, "no architecture beside a function, which builds its own")
        model = _from_python(asked.rest, classes, channels, given, size, outputs)
    elif asked.kind == "file" and (made := program(Path(asked.rest))):
        _refuse(
            asked.options.get("arch", architecture), f"no architecture beside {made[1]}, which is its own"
        )
        about = f"{asked.rest} ({made[1]}; only its graph runs)"
        model = _from_code(made[0], made[1], about, classes, channels, given, size, outputs)
    else:
        architecture = asked.options.get("arch", architecture)
        model = from_file(asked, architecture, classes, channels, given, size)
    if outputs not in (None, "logits") and not isinstance(model, Adapted):
        model = as_classifier(model, outputs=outputs)
    remember(model, spec=spec)
    return model.eval()


def _from_python(
    rest: str, classes: int | None, channels: int, given: Normalisation | None,
    size: tuple[int, int] | None, outputs: str | None,
) -> nn.Module:  # fmt: skip
    where, _, name = rest.rpartition(":")
    made, source, digest = made_by(where, name)
    model = _from_code(made, name, source, classes, channels, given, size, outputs)
    remember(model, source=digest)
    return model


def _from_code(
    made: Callable[..., Any], name: str, source: str, classes: int | None, channels: int,
    given: Normalisation | None, size: tuple[int, int] | None, outputs: str | None,
) -> nn.Module:  # fmt: skip
    """Whatever maps images to logits, adapted, tried on two images, and behind its normalisation."""
    adapted = as_classifier(made, outputs=outputs)
    with model_error(f"{name} to go into evaluation mode"):
        adapted.eval()
    found = tried(adapted, channels, classes, name, size)
    remember(adapted, architecture=type(made).__name__, classes=found, weights=source)
    normalisation = "given, before what the code has" if given else "inside, as the code has it"
    remember(adapted, normalisation=normalisation)
    if given is None:
        return adapted
    model = Normalised(adapted, *given)
    remember(model, **remembered(adapted))
    return model


def _refuse(given: object, expected: str) -> None:
    if given is not None:
        raise UsageError(expected, got=repr(given), suggestion="leaving it out")


# Libraries -----------------------------------------------------------------------------------------------


def _from_library(
    asked: Spec, classes: int | None, channels: int, given: Normalisation | None,
    size: tuple[int, int] | None, seed: int,
) -> nn.Module:  # fmt: skip
    library, name = asked.kind, asked.rest
    architecture, trained = f"{library}:{name}", _trained_weights(asked)
    if trained is not None and channels != 3:
        raise UsageError(
            "three channels for trained weights",
            got=channels,
            suggestion=f"{architecture}?untrained or images in colour",
        )
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
            model = build_classifier(architecture, channels, found, mean=mean, std=std, size=size)
        remember(model, architecture=architecture, classes=found)
        weights = f"untrained, seed {seed}"
    remember(model, weights=weights, normalisation="given" if given else f"of {library}")
    return model


def _trained_weights(asked: Spec) -> str | None:
    """Which weights of a library; None for fresh ones."""
    if asked.options.get("untrained", "0") in {"", "1", "true", "yes"}:
        return None
    if asked.kind == "torchvision":
        return asked.options.get("weights", "DEFAULT")
    if (value := asked.options.get("pretrained", "1")) not in {"0", "1"}:
        raise UsageError("pretrained=0 or pretrained=1", got=repr(value), suggestion="pretrained=1")
    return "default" if value == "1" else None


def _agreed_classes(given: int | None, found: int) -> int:
    if given is not None and given != found:
        raise UsageError(
            f"the number of classes of the trained weights, {found}", got=given, suggestion=f"classes={found}"
        )
    return found
