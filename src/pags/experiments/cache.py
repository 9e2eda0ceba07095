"""One cache: everything kept is a function of its arguments, and its key is made from them.

A *stage* is a function of a module, marked with `columns` or `network`. `cache.made(stage, **arguments)` is
its result to be: the key is the fingerprint of the stage's name and revision and of every argument, so what
is there is right, and no argument that the making reads can be forgotten. Arguments are plain data, settings,
images (by content), other results to be (by key), and things that say their `identity`.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from lightning_fabric import Fabric
from pydantic import BaseModel
from torch import Tensor, nn

from pags.classifiers.about import recipe as recipe_of
from pags.data.imageset import ImageSet
from pags.errors import TrainingDiverged, UsageError
from pags.experiments.plan import FAILURES, claimed, failure, name_of
from pags.records import Record
from pags.score.load import export
from pags.score.unet import UNetDenoiser
from pags.store import DamagedArtefact, Slot, Store, fingerprint
from pags.training.fit import EpochRecord, Plan, epochs
from pags.training.objectives import Objective
from pags.training.parallel import make_fabric
from pags.training.precision import exact_float32

T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)
Columns = dict[str, Tensor]
"""Quantities by name, as a rule one number per image."""
Report = Callable[[float], None]
"""Called with the fraction completed."""
WAIT = 0.5
"""Seconds between looking whether another process has made what is wanted."""


@dataclass(frozen=True)
class Work:
    """What a training gets besides its arguments, and what its result does not depend on.

    Args:
        slot: for the state of unfinished work.
        device: "cpu" or "cuda".
        key: of the result, which a kept state must have too.
        report: called with the fraction completed.
        several: the processes that share the training; None: this one.
        after_epoch: called with the record of each epoch and the network, for what else is to be done then.
        facts: what is to be said of the result beside its recipe.
    """

    slot: Slot
    device: str
    key: str
    report: Report = lambda share: None
    several: Fabric | None = None
    after_epoch: Callable[[EpochRecord, nn.Module], None] = lambda record, network: None
    facts: Record = field(default_factory=dict)

    def train(
        self, network: M, objective: Objective, data: ImageSet, plan: Plan, *, seed: int,
        precision: str = "32-true", **options: Any,
    ) -> M:  # fmt: skip
        """The network, trained from where a kept state stands."""
        fabric = self.several or make_fabric(accelerator=self.device, precision=precision)  # type: ignore[arg-type]
        run = epochs(
            network, objective, data, plan, seed=seed, slot=self.slot, fabric=fabric, fingerprint=self.key,
            on_progress=self.report, **options,
        )  # fmt: skip
        for record in run:
            self.after_epoch(record, network)
        return network


@dataclass(frozen=True)
class Stage(Generic[T]):
    """A function whose results are kept.

    Args:
        make: the function; a network's takes `work` besides its arguments.
        folder: where results are kept.
        revision: raised by whoever changes what the function computes.
        blank: builds the untrained network from the same arguments; None for columns.
        label: from the arguments to the name of the file, before its key; None: the function's name.
    """

    make: Callable[..., T]
    folder: str
    revision: int
    blank: Callable[..., nn.Module] | None = None
    label: Callable[..., str] | None = None

    @property
    def name(self) -> str:
        """The function's name."""
        return self.make.__name__

    def __call__(self, *given: Any, **arguments: Any) -> T:
        """The function itself."""
        return self.make(*given, **arguments)


STAGES: dict[str, Stage[Any]] = {}
"""All stages by name."""


def columns(folder: str, *, revision: int = 1) -> Callable[[Callable[..., Columns]], Stage[Columns]]:
    """Marks a function whose columns are kept."""
    return lambda make: _registered(Stage(make, folder, revision))


def network(
    folder: str,
    blank: Callable[..., nn.Module],
    *,
    revision: int = 1,
    label: Callable[..., str] | None = None,
) -> Callable[[Callable[..., Any]], Stage[Any]]:
    """Marks a function that trains a network, whose weights are kept.

    Args:
        blank: builds the untrained network from those arguments of the stage that it has too.
        label: likewise, gives the name of the file before its key.
    """
    return lambda make: _registered(Stage(make, folder, revision, blank, label))


def _registered(stage: Stage[Any]) -> Stage[Any]:
    STAGES[stage.name] = stage
    return stage


def identity(thing: Any) -> Any:
    """An argument as plain data that is equal for equal arguments alone.

    Raises:
        TypeError: a thing that does not say what it is.
    """
    if thing is None or isinstance(thing, str | bool | int | float):
        return thing
    if (said := getattr(thing, "identity", None)) is not None:
        return identity(said)
    if isinstance(thing, BaseModel):
        return {"settings": type(thing).__name__, **thing.model_dump(mode="json")}
    if isinstance(thing, Mapping):
        return {str(name): identity(value) for name, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [identity(value) for value in thing]
    if isinstance(thing, Tensor):
        content = thing.detach().cpu().contiguous()
        digest = hashlib.sha256(content.flatten().view(torch.uint8).numpy().tobytes()).hexdigest()
        return {"tensor": digest, "type": str(thing.dtype), "shape": list(thing.shape)}
    if is_dataclass(thing) and not isinstance(thing, type):
        values = {part.name: identity(getattr(thing, part.name)) for part in fields(thing)}
        return {"type": type(thing).__name__, **values}
    raise TypeError(f"{type(thing).__name__} has no identity, so nothing that depends on it can be kept")


@dataclass(frozen=True)
class Cache:
    """Where results are kept, and the device on which what is missing is made.

    Args:
        store: where results are kept and looked for.
        device: "cpu" or "cuda".
    """

    store: Store
    device: str = "cpu"

    def made(self, stage: Stage[T], **arguments: Any) -> "Made[T]":
        """The result to be of a stage for some arguments."""
        return Made(self, stage, arguments)

    def kept(self, function: Callable[..., Columns], /, **arguments: Any) -> "Made[Columns]":
        """The columns to be of a function: what an `EvaluationSet` prepares goes through here."""
        known = STAGES.get(function.__name__)
        return self.made(known or _registered(Stage(function, "prepared", 1)), **arguments)

    def keep(self, function: Callable[..., Columns], /, **arguments: Any) -> Columns:
        """These columns."""
        return self.kept(function, **arguments).value()


@dataclass(eq=False)
class Made(Generic[T]):
    """A result to be, which knows its key without being there."""

    cache: Cache
    stage: Stage[T]
    arguments: dict[str, Any]

    @cached_property
    def recipe(self) -> Record:
        """What the result is a function of."""
        stage = {"stage": [self.stage.name, self.stage.revision]}
        return stage | {name: identity(value) for name, value in self.arguments.items()}

    @cached_property
    def identity(self) -> str:
        """The key."""
        return fingerprint(self.recipe)

    @cached_property
    def file(self) -> str:
        """The name of its file in the store."""
        label = self._of(self.stage.label) if self.stage.label else self.stage.name
        return f"{self.stage.folder}/{label}-{self.identity}.safetensors"

    @property
    def state(self) -> str:
        """The name of the file that holds the state of its unfinished making."""
        return f"unfinished/{self.identity}.safetensors"

    def is_there(self) -> bool:
        """Whether it is kept already."""
        return self.cache.store.has(self.file)

    def about(self) -> Record:
        """What its file says: `recipe`, and the facts that were told of it."""
        return self.cache.store.read_about(self.file)

    def value(self, report: Report = lambda share: None) -> T:
        """The result, made and kept unless it is there.

        A network is always the kept weights in a fresh network: the memory layout that training leaves behind
        changes the last digits of a convolution, and a run that continues must measure the same.
        """
        self.ensure(report)
        try:
            tensors = self.cache.store.read_tensors(self.file)[0]
        except DamagedArtefact:
            self.cache.store.path(self.file).unlink(missing_ok=True)
            self.ensure(report)
            tensors = self.cache.store.read_tensors(self.file)[0]
        if self.stage.blank is None:
            return {n: column.to(self.cache.device) for n, column in tensors.items()}  # type: ignore[return-value]
        network = self.blank()
        network.load_state_dict(tensors)
        return network.to(self.cache.device).eval()  # type: ignore[return-value]

    def ensure(self, report: Report = lambda share: None) -> None:
        """Have it there: make and keep it unless it is; while another process makes it, wait.

        Raises:
            TrainingDiverged: now or in an earlier run; why is kept in `failures/`.
        """
        root = self.cache.store.root
        while not self.is_there():
            if why := failure(root, self.file):
                raise TrainingDiverged(why["expected"], got=why["got"], suggestion=why["suggestion"])
            with claimed(root, self.file) as ours:
                if ours and not self.is_there():
                    self._make_once(report)
            if not ours:
                time.sleep(WAIT)

    def _make_once(self, report: Report) -> None:
        try:
            self.make(report=report)
        except TrainingDiverged as error:
            self.cache.store.write_record(f"{FAILURES}/{name_of(self.file)}.json", vars(error))
            raise

    def blank(self) -> nn.Module:
        """The untrained network."""
        assert self.stage.blank is not None
        return self._of(self.stage.blank)

    @torch.enable_grad()
    def make(self, **hooks: Any) -> None:
        """Make it and keep it, wherever it is first asked for; of several processes, the first keeps it.

        Args:
            hooks: for the training of a network, fields of `Work`.
        """
        store, arguments = self.cache.store, {n: _resolved(v) for n, v in self.arguments.items()}
        if self.stage.blank is None:
            with exact_float32():
                made: Any = self.stage.make(**arguments)
            store.write_tensors(self.file, made, {"recipe": self.recipe})
            return
        work = Work(store.slot(self.state), self.cache.device, self.identity, **hooks)
        made = self.stage.make(**arguments, work=work)
        if work.several is None or work.several.is_global_zero:
            store.write_tensors(
                self.file, made.state_dict(), described(made) | {"recipe": self.recipe} | work.facts
            )
            work.slot.clear()

    def _of(self, function: Callable[..., Any]) -> Any:
        """A function of those of the arguments that it asks for."""
        asked = signature(function).parameters
        return function(**{n: _resolved(v) for n, v in self.arguments.items() if n in asked})


@dataclass(frozen=True)
class Lazy(Generic[T]):
    """Something with an identity that is made when it is first used; calls and attributes go to it.

    Args:
        identity: plain data, or a thing with an identity, that says which it is.
        make: makes it.
        facts: what is known of it before it is made.
    """

    identity: Any
    make: Callable[[], T]
    facts: Mapping[str, Any] = field(default_factory=dict)
    made_later: ClassVar[bool] = True

    @cached_property
    def thing(self) -> T:
        """What was made."""
        return self.make()

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self.thing(*arguments, **options)  # type: ignore[operator]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # such as inspect looks for: to ask for a signature makes nothing
            raise AttributeError(name)
        facts = object.__getattribute__(self, "facts")
        return facts[name] if name in facts else getattr(self.thing, name)


def described(network: nn.Module) -> Record:
    """What a file says of its network, so that it can be loaded by itself as a classifier or a denoiser."""
    if isinstance(network, UNetDenoiser):
        return export(network)[1]
    built = recipe_of(network)
    return {} if built is None else {"classifier": built}


def file_digest(path: str | Path) -> str:
    """The SHA-256 of a file, which stands for it in keys.

    Raises:
        UsageError: there is no such file.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(
            "a file that can be read", got=f"{path} ({error.strerror})", suggestion="its path"
        ) from error


def _resolved(value: Any) -> Any:
    if isinstance(value, Made):
        return value.value()
    return value.thing if isinstance(value, Lazy) else value
