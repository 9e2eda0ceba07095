"""What is known of a classifier: how it was built, where its weights came from, and their fingerprint."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

_NOTES = "_pags_about"


def remember(model: nn.Module, **facts: Any) -> None:
    """Attach plain data to the model itself, so that it goes where the model goes (a deep copy included)."""
    vars(model)[_NOTES] = {**remembered(model), **facts}


def remembered(model: nn.Module) -> dict[str, Any]:
    """What `remember` attached to the model; nothing for a model that was not built here."""
    return dict(vars(model).get(_NOTES, {}))


def recipe(model: nn.Module) -> dict[str, Any] | None:
    """How `build_classifier` built the model, as plain data that builds it again; None for other models.

    This is what stands under "classifier" in the metadata of a file of ours.
    """
    return remembered(model).get("recipe")


def describe(model: nn.Module) -> dict[str, Any]:
    """Which classifier this is, as plain data for a record.

    Args:
        model: any module; what only the loader knows is None for a model that did not come from it.

    Returns:
        "spec" and "architecture"; "parameters", their number; "classes"; "sha256", the fingerprint of the
        weights (None where there are none to be seen); "weights", where they came from; "normalisation", who
        decided it; "recipe", what builds the network again.
    """
    known = {"spec", "architecture", "classes", "weights", "normalisation", "recipe"}
    return {
        **dict.fromkeys(sorted(known)),
        **remembered(model),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "sha256": weights_sha256(model.state_dict()),
    }


def weights_sha256(tensors: Mapping[str, Tensor]) -> str | None:
    """The SHA-256 of named tensors, in whatever order they come; None of no tensors."""
    if not tensors:
        return None
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
