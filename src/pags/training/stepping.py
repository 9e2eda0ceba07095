"""How one step of a training is computed: in which precision, by which optimiser, always in the same way."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from pags.errors import UsageError
from pags.training.objectives import Objective
from pags.training.plan import Plan


class InPrecision(nn.Module):
    """A network computed in the precision of a Fabric, its logits in float32.

    Fabric's own wrapper allows no derivative but that of the loss, and attacks take others.
    """

    def __init__(self, network: nn.Module, fabric: Fabric) -> None:
        super().__init__()
        self.network, self.fabric = network, fabric

    def forward(self, *inputs: Any) -> Any:
        with self.fabric.autocast():
            out = self.network(*inputs)
        return out.float()

    def __getattr__(self, name: str) -> Any:
        """What the network says of itself, it says here too."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("network"), name)


@contextmanager
def explained(objective: Objective) -> Iterator[None]:
    """Say in our words what torch's compiler says of a second derivative."""
    try:
        yield
    except RuntimeError as error:
        if "double backward" not in str(error):
            raise
        raise UsageError(
            "an objective without a second derivative, for a compiled network",
            got=type(objective).__name__,
            suggestion="training it without --compile",
        ) from error


@contextmanager
def reproducible() -> Iterator[None]:
    """Convolutions on a GPU in a fixed order of additions, so that a resumed run is the same run."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before


def make_optimizer(model: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    """The optimiser of a plan."""
    groups: list[dict[str, Any]] = [{"params": list(model.parameters())}]
    if plan.decayed == "matrices":
        vectors = [weight for weight in model.parameters() if weight.ndim < 2]
        groups = [{"params": [weight for weight in model.parameters() if weight.ndim >= 2]}]
        groups += [{"params": vectors, "weight_decay": 0.0}] if vectors else []
    if plan.optimizer == "adam":
        return torch.optim.Adam(groups, lr=plan.learning_rate, weight_decay=plan.weight_decay)
    return torch.optim.SGD(
        groups, lr=plan.learning_rate, momentum=plan.momentum, weight_decay=plan.weight_decay,
        nesterov=plan.nesterov,
    )  # fmt: skip
