"""The models of an audit: loaded, tried, named by their content, and their untrained controls."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pags.classifiers.modes import predict
from pags.data.imageset import ImageSet
from pags.errors import UsageError
from pags.experiments.audit_settings import AuditSettings
from pags.experiments.recipes import file_digest
from pags.seeds import generator, seeded_construction
from pags.store import Record


@dataclass(frozen=True)
class Model:
    """A classifier by its name in records."""

    name: str
    network: nn.Module
    about: Record


def load_models(specs: Sequence[str], data: ImageSet, settings: AuditSettings) -> list[Model]:
    from pags.classifiers.about import describe
    from pags.classifiers.check import check_classifier
    from pags.classifiers.load import load_classifier

    if not specs:
        raise UsageError("a model or more", got="none", suggestion="pags audit model.safetensors")
    found = []
    for place, spec in enumerate(specs):
        network = load_classifier(
            spec, architecture=settings.architecture, classes=settings.classes, channels=data.shape[0]
        )
        check_classifier(network, data.take(slice(0, 2)).images, settings.classes)
        code = Path(spec.rpartition(":")[0])
        about = describe(network) | ({"code": file_digest(code)} if code.is_file() else {})
        name = spec if specs.count(spec) == 1 else f"{spec} ({place + 1})"
        found.append(Model(name, network, about))
    return found


def class_count(model: Model, data: ImageSet) -> int:
    """The classifier's classes, which must be the data's."""
    classes = predict(model.network, data.take(slice(0, 1)).images).shape[1]
    if classes != len(data.classes):
        raise UsageError(
            f"a classifier of the {len(data.classes)} classes of {data.name}",
            got=f"{classes} classes in {model.name}",
            suggestion="--data folder:PATH?classes=imagenet for some of ImageNet's classes, or other data",
        )
    return int(classes)


def untrained(model: nn.Module, seed: int) -> nn.Module | None:
    """A copy with every layer's weights drawn anew from its default initialisation; None where none can be.

    Weights that belong to no layer with an initialisation of its own keep their mean and deviation.
    """
    copy = deepcopy(model)
    redrawn = False
    with seeded_construction(seed, "untrained"):
        for module in copy.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
                redrawn = True
            else:
                _redraw(module, seed)
    return copy.eval() if redrawn else None


def _redraw(module: nn.Module, seed: int) -> None:
    for name, own in module.named_parameters(recurse=False):
        if own.numel() > 1:
            draws = generator(seed, "untrained", name, own.numel())
            noise = torch.randn(own.shape, generator=draws).to(own)
            own.data = own.data.mean() + own.data.std() * noise
