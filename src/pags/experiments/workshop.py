"""Where artefacts are made, once: networks and columns, each kept under the name of its recipe."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from lightning_fabric import Fabric
from torch import Tensor, nn

from pags.classifiers.about import recipe as recipe_of
from pags.data.imageset import ImageSet
from pags.score.load import export
from pags.score.unet import UNetDenoiser
from pags.store import Record, Store, fingerprint
from pags.training.fit import Plan, Report, fit
from pags.training.objectives import Objective

M = TypeVar("M", bound=nn.Module)

Columns = dict[str, Tensor]
"""Quantities by name, as a rule one number for each measured image."""


@dataclass(frozen=True)
class Workshop:
    """A store, and the device on which what it lacks is made.

    Args:
        store: where artefacts are kept and looked for.
        device: "cpu" or "cuda".
    """

    store: Store
    device: str = "cpu"

    def trained(
        self,
        folder: str,
        recipe: Record,
        build: Callable[[], M],
        objective: Objective,
        data: ImageSet,
        plan: Plan,
        *,
        seed: int,
        report: Report | None = None,
    ) -> M:
        """A network in evaluation mode, trained unless the store holds it; a killed training continues.

        Args:
            folder: which part of the store.
            recipe: everything that the trained weights are a function of.
            build: makes the untrained network.
            objective, data, plan, seed: see `pags.training.fit.fit`.
            report: told the share of the training that is done.
        """
        key = fingerprint(recipe)
        name = f"{folder}/{key}.safetensors"
        if not self.store.has(name):
            slot = self.store.slot(f"unfinished/{key}.safetensors")
            network = build()
            fabric = Fabric(accelerator=self.device, devices=1)
            tell = report or (lambda share: None)
            for _ in fit(
                network, objective, data, plan, seed=seed, slot=slot, fabric=fabric, on_progress=tell
            ):
                pass
            self.store.write_tensors(name, network.state_dict(), about(network) | {"recipe": recipe})
            slot.clear()
        # Always the stored weights in a fresh network: the memory layout that training leaves behind changes
        # the last digits of a convolution, and a run that continues must measure the same.
        model = build()
        model.load_state_dict(self.store.read_tensors(name)[0])
        return model.to(self.device).eval()

    def computed(self, folder: str, recipe: Record, compute: Callable[[], Columns]) -> Columns:
        """Columns that are a function of a recipe, computed where the store does not hold them."""
        name = f"{folder}/{fingerprint(recipe)}.safetensors"
        if not self.store.has(name):
            self.store.write_tensors(name, compute(), {"recipe": recipe})
        columns = self.store.read_tensors(name)[0]
        return {name: column.to(self.device) for name, column in columns.items()}


def about(network: nn.Module) -> Record:
    """What a file says of its network, so that it can be loaded by itself as a classifier or a denoiser."""
    if isinstance(network, UNetDenoiser):
        return export(network)[1]
    built = recipe_of(network)
    return {} if built is None else {"classifier": built}
