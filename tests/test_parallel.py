"""Several processes: the numbers of one, from any of them an error, and after a power cut the same result."""

import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import lightning
from torch import Tensor, nn

from conftest import Traces, built, network_with_batch_norm, seeded
from pags.classifiers.modes import normalising_by_batch
from pags.data.batches import Batch
from pags.data.imageset import ImageSet
from pags.errors import PagsError, TrainingDiverged, UsageError
from pags.store import Slot, Store
from pags.training import synchronised
from pags.training.attack import PGD
from pags.training.fit import Plan, fit
from pags.training.objectives import (
    AdversarialTraining,
    CrossEntropy,
    GradientNorm,
    Objective,
    RandomisedSmoothing,
    Smoothness,
)
from pags.training.parallel import launch, make_fabric
from pags.training.synchronised import SynchronisedBatchNorm2d, synchronise

module: Any = import_module("pags.training.fit")
DATA = ImageSet(
    torch.randint(0, 256, (45, 1, 6, 6), generator=seeded(1), dtype=torch.uint8),
    torch.randint(0, 3, (45,), generator=seeded(2)),
    ("a", "b", "c"),
    "random",
)
PLAN = Plan(epochs=3, batch_size=8, learning_rate=0.05, crop=1, flip=True)
"""Batches of eight and one of five."""
UNEVEN = PLAN.model_copy(update={"batch_size": 11, "average": 0.8, "clip_norm": 1.0})
"""Batches of eleven and one of a single image, which two processes cannot share."""
OBJECTIVES: dict[str, Objective] = {
    "cross-entropy": CrossEntropy(),
    "pgd": AdversarialTraining(PGD(0.5, steps=3)),
    "gradient-norm": GradientNorm(0.5),
    "smoothness": Smoothness(0.5),
    "smoothing": RandomisedSmoothing(0.3),
}
X = torch.randn(6, 2, 3, 3, generator=seeded(3), dtype=torch.float64)

Tell = Callable[[Any], None]


@dataclass(frozen=True)
class Disturbed:
    """Adversarial training, in which the process `rank` comes to harm at its n-th step."""

    rank: int
    harm: str
    at: int
    calls: list[int]

    def __call__(self, model: nn.Module, batch: Batch, draws: torch.Generator) -> Tensor:
        self.calls.append(1)
        losses = OBJECTIVES["pgd"](model, batch, draws)
        if len(self.calls) != self.at or int(os.environ.get("LOCAL_RANK", 0)) != self.rank:
            return losses
        if self.harm == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.harm == "silent":
            time.sleep(60)
        return losses * torch.nan


def trained(
    fabric: Fabric, plan: Plan, objective: Objective, slot: Slot | None = None
) -> tuple[list[float], list[Tensor]]:
    model = network_with_batch_norm(seed=fabric.global_rank)  # process 0 decides
    records = list(fit(model, objective, DATA, plan, seed=5, fabric=fabric, slot=slot))
    return [r.loss for r in records], list(model.state_dict().values())


def all_curves(fabric: Fabric, tell: Tell) -> dict[str, Any]:
    """Every objective's losses and final weights, and those of one run with a slot."""
    found: dict[str, Any] = {}
    for name, objective in OBJECTIVES.items():
        for plan in (PLAN, UNEVEN):
            losses, weights = trained(fabric, plan, objective)
            found[f"{name} {plan.batch_size}"] = losses, [w.double().flatten().tolist() for w in weights]
            tell(name)
    found["second derivative"] = second_derivative(fabric)
    return found


def second_derivative(fabric: Fabric) -> list[float]:
    """The gradient of ‖∇ₓ Σ cubes of BatchNorm‖² with respect to the images."""
    layer = built(lambda: nn.Sequential(nn.BatchNorm2d(2))).double()
    nn.init.uniform_(next(layer.parameters()), 0.5, 2, generator=seeded(4))
    if fabric.world_size > 1:
        synchronise(layer)
    x = X.chunk(fabric.world_size)[fabric.global_rank].clone().requires_grad_()
    (first,) = torch.autograd.grad(layer(x).pow(3).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    return second.flatten().tolist()


def one_run(fabric: Fabric, tell: Tell, objective: Objective, root: Path) -> list[float]:
    """The last weights of a run whose state is kept after every second batch."""
    module.SECONDS_BETWEEN_CHECKPOINTS, module.BATCHES_BETWEEN_CHECKS = 0, 2
    slot = Store(root).slot("state.safetensors")
    weights = trained(fabric, PLAN, objective, slot)[1]
    return torch.cat([w.double().flatten() for w in weights]).tolist()


def both(fabric: Fabric, tell: Tell, root: Path) -> tuple[dict[str, Any], list[float]]:
    return all_curves(fabric, tell), one_run(fabric, tell, OBJECTIVES["pgd"], root)


def rest_then_nan(fabric: Fabric, tell: Tell, root: Path) -> None:
    """What is left of a run; then one whose loss, in one process, is no number."""
    tell(one_run(fabric, tell, OBJECTIVES["pgd"], root))
    one_run(fabric, tell, Disturbed(1, "loss", 4, []), root / "other")


def two(patience: float = 60) -> Fabric:
    return make_fabric(accelerator="cpu", devices=2, patience=patience)


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[float], list[str]]:
    """Also where the port that Fabric would have chosen is taken before the first process opens it."""
    told, environment = list[str](), dict(os.environ)
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as taken:
        patch.setattr(lightning, "find_free_network_port", lambda: taken.getsockname()[1])
        curves, weights = launch(two(), both, tmp_path_factory.mktemp("whole"), tell=told.append)
    assert dict(os.environ) == environment
    return curves, weights, told


@pytest.fixture(scope="module")
def of_one() -> dict[str, Any]:
    return all_curves(make_fabric(accelerator="cpu"), lambda what: None)


@pytest.mark.parametrize("size", [8, 11])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_processes_train_as_one_does(
    name: str, size: int, of_one: dict[str, Any], of_two: tuple[dict[str, Any], list[float], list[str]]
) -> None:
    """Losses to 1e-5, and weights and BatchNorm's statistics, also where the last batch is not even."""
    (losses, weights), (expected, others) = of_two[0][f"{name} {size}"], of_one[f"{name} {size}"]
    assert losses == pytest.approx(expected, rel=0, abs=1e-5)
    for one, other in zip(weights, others, strict=True):
        assert one == pytest.approx(other, rel=0, abs=1e-4)


def test_process_0_alone_is_heard(of_two: tuple[dict[str, Any], list[float], list[str]]) -> None:
    assert of_two[2] == [name for name in OBJECTIVES for _ in range(2)]


def test_the_second_derivative_crosses_processes(
    of_one: dict[str, Any], of_two: tuple[dict[str, Any], list[float], list[str]]
) -> None:
    """In float64, against torch's BatchNorm2d of the whole batch; process 0 has the first half."""
    half = X.numel() // 2
    # The penalty of process 0 is on its own gradient, but its images also move the others' gradients.
    whole = of_one["second derivative"]
    assert of_two[0]["second derivative"] == pytest.approx(whole[:half], rel=1e-9)


def test_a_killed_process_ends_the_run_and_the_run_continues_bit_by_bit(
    tmp_path: Path, of_two: tuple[dict[str, Any], list[float], list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    killed = Disturbed(1, "killed", 9, [])
    with pytest.raises(PagsError, match=r"process 1 terminated with signal SIGKILL.*continues") as caught:
        launch(two(), one_run, killed, tmp_path, tell=lambda what: None)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""
    state = Store(tmp_path).slot("state.safetensors").read()
    assert state is not None
    assert (state["epoch"], state["batch"]) == (1, 2)
    told: list[list[float]] = []
    with pytest.raises(TrainingDiverged, match=r"finite loss; got nan in epoch 1, batch 4; the last finite"):
        launch(two(), rest_then_nan, tmp_path, tell=told.append)
    assert told == [of_two[1]]


def test_a_process_does_not_wait_for_ever(tmp_path: Path) -> None:
    match = "every process to work to the end; got process 0: .*; try the same"
    with pytest.raises(PagsError, match=match):
        launch(two(patience=4), one_run, Disturbed(1, "silent", 4, []), tmp_path, tell=lambda what: None)


# --- one process -----------------------------------------------------------------------------------------


def test_conversion_keeps_names_weights_and_what_evaluation_gives() -> None:
    model, twin = network_with_batch_norm(), network_with_batch_norm()
    names, weights = list(model.state_dict()), list(model.parameters())
    layers = synchronise(model)
    assert [type(layer) for layer in layers] == [SynchronisedBatchNorm2d]
    assert list(model.state_dict()) == names
    assert all(one is other for one, other in zip(model.parameters(), weights, strict=True))
    images = DATA.images
    for mode in (False, True, False):  # training in between, so that statistics move alike
        assert torch.equal(model.train(mode)(images), twin.train(mode)(images))


@pytest.mark.parametrize("processes", [1, 2])
def test_normalising_by_the_batch_leaves_statistics_alone(
    processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one process, and of two that hold equal halves of a batch, whose sums are twice those of one."""
    model = network_with_batch_norm()
    synchronise(model)
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: processes > 1)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: processes)
    monkeypatch.setattr(synchronised, "sum_over_processes", lambda x: x * processes)
    traces = Traces(model)
    with normalising_by_batch(model):
        found = model(DATA.images)
    traces.assert_none()
    torch.testing.assert_close(found, model.train()(DATA.images))
    assert not torch.allclose(found, model.eval()(DATA.images), atol=0.05)


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(4), nn.SyncBatchNorm(4)])
def test_what_cannot_be_synchronised_is_refused(layer: nn.Module) -> None:
    with pytest.raises(UsageError, match=rf"BatchNorm2d, for several processes; got {type(layer).__name__}"):
        synchronise(nn.Sequential(nn.Flatten(), layer))


def test_one_process_needs_no_launch() -> None:
    assert launch(make_fabric(accelerator="cpu"), lambda fabric, tell, x: x + 1, 2, tell=print) == 3


def test_devices_that_are_not_there_are_refused() -> None:
    for options in ({"devices": 0}, {"accelerator": "cuda", "devices": torch.cuda.device_count() + 1}):
        with pytest.raises(UsageError, match="as many as there are"):
            make_fabric(**options)
