"""Everything on an accelerator that is not there: the parts, and the whole chain above them.

torch's own fake tensors have no values and, without a GPU, no backward pass on "cuda". Here a tensor says
that it is on another device (`meta`), holds its values on the CPU, and refuses to be mixed with tensors of
the CPU as a GPU's would. So whole chains run, and their numbers must be those of the CPU.

Forward mode crashes on such tensors; it is stood in for by two backward passes, and itself tried on torch's.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map, tree_map_only

import pags
import tiny
from conftest import built, network_with_batch_norm, seeded
from pags import claims
from pags.arrays import project
from pags.auditing import EvaluationSet
from pags.auditing.columns import measured
from pags.auditing.result import model_record
from pags.auditing.run import settings_of
from pags.classifiers.identity import behaviour
from pags.classifiers.modes import correct
from pags.data.batches import Batch
from pags.data.imageset import DataSet, ImageSet
from pags.experiments.cache import Cache, Lazy
from pags.experiments.classifiers import Subject
from pags.experiments.distractor import distractor_measures
from pags.experiments.experiment import Experiment
from pags.experiments.generation import generated
from pags.experiments.problems import GenerateSettings
from pags.generate import denoise, inpaint, super_resolve, synthesise
from pags.generate.starts import gaussian_starts
from pags.manifold import denoised, projection, tangent
from pags.manifold.autoencoder import Autoencoder, Reconstruction
from pags.manifold.denoised import DenoiserTangent
from pags.manifold.dimension import neighbour_dimension
from pags.manifold.estimators import LocalPCA
from pags.manifold.projection import project_by_gram
from pags.manifold.tangent import DecoderTangent
from pags.measure.alignment import Reference
from pags.measure.distractor import energy_on_signal, relative_noise_robustness
from pags.measure.gradients import TARGETS, input_gradient, smooth_gradient
from pags.measure.lpips import LPIPS
from pags.measure.metrics import get_metric
from pags.measure.restoration import named_as, perceptual_distance, psnr
from pags.measure.robustness import definition_1, equal_norm, off_manifold_share
from pags.measure.statistics import interval, mean_intervals, paired_differences
from pags.score.denoiser import score_of
from pags.score.exact import IdealDenoiser
from pags.score.unet import Denoising, UNetDenoiser
from pags.seeds import seeded_construction
from pags.store import Store
from pags.training.attack import PGD, robust_correct
from pags.training.fit import Plan, fit
from pags.training.objectives import OBJECTIVES, make_objective
from pags.training.smoothed import certify

AWAY = torch.device("meta")
aten = torch.ops.aten
CROSSING = {aten._to_copy.default, aten.copy_.default}
"""What may take tensors of two devices, as on a GPU; indices may be on the CPU too."""
INDEXING = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}


class Away(Tensor):
    """A tensor that says it is on another device."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Away":
        return Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, device=AWAY, requires_grad=inner.requires_grad,
        )  # fmt: skip

    def __init__(self, inner: Tensor) -> None:
        self.held = inner

    def tolist(self) -> Any:
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return dispatched(func, args, kwargs or {})


class Device(TorchDispatchMode):
    """While it is on, the other device is there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatched(func, args, kwargs or {})


def dispatched(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operation on the values, where all its tensors are on one device."""
    checked = args[:1] if func in INDEXING and isinstance(args[0], Away) else args
    tensors = [t for t in tree_flatten((checked, kwargs))[0] if isinstance(t, Tensor) and t.ndim]
    away = [isinstance(t, Away) for t in tensors]
    if func not in CROSSING and any(away) and not all(away):
        raise RuntimeError(f"{func}: tensors of two devices, {[tuple(t.shape) for t in tensors]}")
    here = any(isinstance(t, Away) for t in tree_flatten((args, kwargs))[0])
    asked = kwargs.get("device")
    gone = here if asked is None else torch.device(asked) == AWAY
    if func is aten.copy_.default:
        gone = isinstance(args[0], Away)
    values = tree_map_only(Away, lambda t: t.held, (args, kwargs))
    if asked is not None:
        values[1]["device"] = torch.device("cpu")
    out = func(*values[0], **values[1])
    if not gone:
        return out
    wrapped = tree_map(lambda t: Away(t) if isinstance(t, Tensor) and not isinstance(t, Away) else t, out)
    return return_and_correct_aliasing(func, args, kwargs, wrapped) if here else wrapped


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for module in (tangent, denoised, projection):
        monkeypatch.setattr(module, "jvp", jvp_by_backward)
        monkeypatch.setattr(module, "vmap", vmap_by_loop, raising=False)
        monkeypatch.setattr(module, "vjp", vjp_by_backward, raising=False)
    for name in ("tensor", "as_tensor"):  # they go past dispatch modes
        make: Any = getattr(torch, name)

        def made(data: Any, *, make: Any = make, device: Any = None, **options: Any) -> Tensor:
            found = data if isinstance(data, Tensor) else make(data, **options)
            return found.to(device=device, **options)

        monkeypatch.setattr(torch, name, made)
    with Device():  # type: ignore[no-untyped-call]
        yield


def vjp_by_backward(f: Any, x: Tensor) -> tuple[Tensor, Any]:
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        y = f(x)
    return y.detach(), lambda v: torch.autograd.grad(y, x, v)


def jvp_by_backward(f: Any, primals: tuple[Tensor], tangents: tuple[Tensor]) -> tuple[Tensor, Tensor]:
    """The derivative of vᵀJ by v, along the tangent."""
    x = primals[0].detach().requires_grad_()
    with torch.enable_grad():
        y = f(x)
        v = torch.zeros_like(y, requires_grad=True)
        pulled = torch.autograd.grad(y, x, v, create_graph=True)[0]
        return y.detach(), torch.autograd.grad(pulled, v, tangents[0])[0]


def vmap_by_loop(f: Any, in_dims: int = 0, chunk_size: int | None = None) -> Any:
    return lambda batch: torch.stack([f(part) for part in batch.unbind(in_dims)])


def here(thing: Any) -> Any:
    """The thing as it is."""
    return thing


def there(thing: Any) -> Any:
    """The same on the other device; a module itself, anything else a copy."""
    return thing.to(AWAY)


def values(thing: Any) -> Tensor:
    """What came out, which must be on the other device."""
    assert isinstance(thing, Tensor)
    assert thing.device == AWAY
    return thing.detach().cpu()


# --- the device ------------------------------------------------------------------------------------------


def test_the_device_refuses_what_a_gpu_refuses(away: None) -> None:
    x = torch.rand(3, 2, generator=seeded())
    y = x.to(AWAY)
    mixtures: list[Callable[[], Tensor]] = [
        lambda: x + y, lambda: torch.cat([x, y]), lambda: x @ y.T, lambda: x[y[:, 0].long()],
    ]  # fmt: skip
    for mixed in mixtures:
        with pytest.raises(RuntimeError, match="two devices"):
            mixed()
    assert (y + torch.tensor(1.0)).device == AWAY
    assert torch.equal(values(y[torch.tensor([2, 0])]), x[[2, 0]])
    y += 1
    assert torch.equal(values(y), x + 1)
    assert torch.zeros(2, device=AWAY).device == AWAY
    assert float(y[0, 0]) == float(x[0, 0] + 1)


def test_construction_leaves_the_generators_of_accelerators_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(seed: int) -> None:
        raise AssertionError("an accelerator's generator was seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    before = torch.get_rng_state()
    with seeded_construction(0, "test"):
        first = nn.Linear(2, 2)
    with seeded_construction(0, "test"):
        assert torch.equal(nn.Linear(2, 2).weight, first.weight)
    assert torch.equal(torch.get_rng_state(), before)


# --- the chains ------------------------------------------------------------------------------------------

N = 6


def images() -> Tensor:
    return torch.rand(N, 1, 8, 8, generator=seeded())


def labels() -> Tensor:
    return torch.arange(N) % 3


def model() -> nn.Module:
    return network_with_batch_norm().eval()


def unet() -> nn.Module:
    return built(lambda: UNetDenoiser(1, classes=3, widths=(8, 8))).eval()


def coder() -> nn.Module:
    return built(lambda: Autoencoder((1, 8, 8), 3, (4, 8))).eval()


def bases() -> Tensor:
    return torch.linalg.qr(torch.randn(N, 64, 5, generator=seeded(1)))[0]


def masks() -> Tensor:
    return (torch.arange(64).reshape(8, 8) < 32).expand(N, -1, -1)


Chain = Callable[[Callable[[Any], Any]], Any]
"""Given what brings a thing to the device, what comes out."""

CHAINS: dict[str, Chain] = {
    "correct": lambda on: correct(on(model()), on(images()), on(labels())),
    "attack": lambda on: PGD(0.5, 3)(on(model()), on(images()), on(labels()), seeded()),
    "robust correct": lambda on: robust_correct(
        on(model()), on(images()), on(labels()), PGD(0.5, 3), seeded()
    ),
    "smooth gradient": lambda on: smooth_gradient(
        on(model()), on(images()), sigma=0.1, samples=2, draws=seeded()
    ),
    "decoder tangent": lambda on: projector(DecoderTangent(on(coder()))(on(images()))),
    "denoiser tangent": lambda on: projector(
        DenoiserTangent(IdealDenoiser(images()[:4]), 1.0, 2)(on(images()))
    ),
    "local PCA": lambda on: projector(LocalPCA(images().repeat(3, 1, 1, 1), 2, neighbours=9)(on(images()))),
    "gram projection": lambda on: gram(on(coder()), on(images())),
    "dimension": lambda on: neighbour_dimension(on(images()), neighbours=3).per_image,
    "projection": lambda on: project(on(images()), on(bases())),
    "score": lambda on: score_of(on(unet()), on(images()), 0.5, on(labels())),
    "score of all": lambda on: score_of(on(unet()), on(images()), 0.5),
    "ideal score": lambda on: score_of(IdealDenoiser(images(), labels()), on(images()), 0.5, on(labels())),
    "equal norm": lambda on: equal_norm(
        on(model()), on(images()), on(bases()), (0.5, 1.0), draws=seeded(), directions=2
    ).off,
    "definition 1": lambda on: definition_1(
        on(model()), on(images()), on(bases()), 0.1, draws=seeded(), directions=2
    ).rho1,
    "rho2": lambda on: off_manifold_share(on(images()), on(bases())),
    "noise robustness": lambda on: relative_noise_robustness(
        on(model()), on(images()), on(masks()), (0.1, 0.2), draws=seeded(), directions=2
    ).signal,
    "energy": lambda on: energy_on_signal(on(images()), on(masks())),
    "psnr": lambda on: psnr(on(images()), on(1 - images())),
    "LPIPS of pictures": lambda on: perceptual_distance(on(images()), on(1 - images())),
    "LPIPS elsewhere": lambda on: LPIPS.load()(on(images()), on(1 - images())),
    "named as": lambda on: named_as(on(model()), on(images()), on(labels())),
    "synthesis": lambda on: synthesise(on(model()), on(images()), on(labels()), steps=2).images,
    "denoising": lambda on: denoise(on(model()), on(images()), sigma=0.1, steps=2).images,
    "in-painting": lambda on: inpaint(on(model()), on(images()), on(masks()), steps=2).images,
    "super-resolution": lambda on: super_resolve(on(model()), on(images()[:, :, :4, :4]), 2, steps=2).images,
    "starts": lambda on: gaussian_starts(
        on(ImageSet(images(), labels(), ("a", "b", "c"), "x")), on(labels()), draws=seeded()
    ),
    "certificate": lambda on: certify(
        on(model()), on(images()), sigma=0.1, n0=4, n=16, alpha=0.1, draws=seeded()
    ).probability,
}  # fmt: skip
CHAINS |= {
    f"gradient of {name}": lambda on, name=name: input_gradient(on(model()), on(images()), name)  # type: ignore[misc]
    for name in TARGETS
}


def test_forward_mode_stays_on_the_device() -> None:
    with FakeTensorMode():
        layers = nn.Linear(3, 8, device="cuda"), nn.ConvTranspose2d(2, 1, 2, device="cuda")
        decoder = nn.Sequential(layers[0], nn.Unflatten(1, (2, 2, 2)), layers[1])
        found = tangent.forward_jacobian(decoder, torch.empty(4, 3, device="cuda"))
        assert (found.device.type, found.shape) == ("cuda", (4, 9, 3))


def projector(found: tuple[Tensor, Tensor]) -> Tensor:
    """P of each image, which does not depend on the basis that was chosen."""
    basis, ranks = found
    assert ranks.device == basis.device
    return basis @ basis.mT


def gram(autoencoder: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        return project_by_gram(x, autoencoder.decode, autoencoder.encode(x))


@pytest.mark.parametrize("name", CHAINS)
def test_numbers_are_those_of_the_cpu(name: str, away: None) -> None:
    expected, found = CHAINS[name](here), values(CHAINS[name](there))
    torch.testing.assert_close(found, expected.detach(), atol=1e-4, rtol=1e-4, equal_nan=True)


LOSSES: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    **{name: (network_with_batch_norm, make_objective(name, 0.3, attack_steps=2)) for name in OBJECTIVES},
    "release pgd": (network_with_batch_norm, make_objective("pgd", 0.3, attack_steps=2, preset="release")),
    "release penalty": (network_with_batch_norm, make_objective("gradient-norm", 0.3, preset="release")),
    "cross-entropy": (network_with_batch_norm, make_objective("pgd", 0.0)),
    "autoencoder": (coder, Reconstruction()),
    "denoiser": (unet, Denoising()),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_of_training_is_that_of_the_cpu(name: str, away: None) -> None:
    make, objective = LOSSES[name]
    gradients = []
    for on in (here, there):
        network = on(make()).train()
        batch = Batch(on(images()), on(labels()), torch.arange(N))
        objective(network, batch, seeded()).mean().backward()
        gradients.append([weight.grad.cpu() for weight in network.parameters() if weight.grad is not None])
    assert len(gradients[0]) > 1
    for plain, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other, plain, atol=1e-4, rtol=1e-3)


def test_a_training_is_that_of_the_cpu(away: None, monkeypatch: pytest.MonkeyPatch) -> None:
    data, plan = (
        ImageSet(images(), labels(), ("a", "b", "c"), "x"),
        Plan(epochs=2, batch_size=4, learning_rate=0.1, average=0.9, flip=True, crop=1),
    )
    monkeypatch.setattr(Fabric, "setup_optimizers", lambda self, optimizer: optimizer)
    losses = []
    for place in (here, there):
        fabric, device = Fabric(accelerator="cpu", devices=1), place(torch.zeros(1)).device
        monkeypatch.setattr(Fabric, "device", device)
        objective = make_objective("pgd", 0.3, attack_steps=2)
        losses.append(
            [r.loss for r in fit(network_with_batch_norm(), objective, data, plan, seed=0, fabric=fabric)]
        )
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize("name", ["lpips", "cosine", "ssim", "rank"])
@pytest.mark.parametrize("moved", [True, False])
def test_metrics_follow_the_score(name: str, moved: bool, away: None) -> None:
    """Whether or not the network of the metric was brought to the device."""
    score, vectors = torch.randn(N, 1, 8, 8, generator=seeded(3)), images() - 0.5
    metric, plain = get_metric(name, device=AWAY if moved else "cpu"), get_metric(name)
    reference, expected = metric.reference(there(score)), plain.reference(score)
    torch.testing.assert_close(values(reference.similarity(there(vectors))), expected.similarity(vectors))
    found = reference.similarity_and_shuffled(there(vectors), seeded())
    for part, other in zip(found, expected.similarity_and_shuffled(vectors, seeded()), strict=True):
        torch.testing.assert_close(values(part), other)
    torch.testing.assert_close(values(reference.floor(seeded())), expected.floor(seeded()))


def test_references_follow_the_score(away: None) -> None:
    score, places = torch.randn(N, 1, 8, 8, generator=seeded(3)), torch.tensor([1, 3])
    lpips = LPIPS.load()
    expected = Reference.of(score, lpips).replaced(places, images()[:2])
    found = Reference.of(there(score), lpips).replaced(there(places), there(images()[:2]))
    vectors = images() - 0.5
    torch.testing.assert_close(values(found.similarity(there(vectors))), expected.similarity(vectors))
    layers = found.by_layer(there(vectors[:2]), there(places))
    torch.testing.assert_close(values(layers), expected.by_layer(vectors[:2], places))
    shuffled = found.features[there(torch.tensor([2, 0, 1]))]
    assert len(shuffled) == 3
    assert lpips.get_buffer("shift").device.type == "cpu", "the caller's module stays where it is"


def test_statistics_of_columns_from_the_device(away: None) -> None:
    columns = {"a": images().mean((1, 2, 3)), "b": labels().float()}
    moved = {name: there(column) for name, column in columns.items()}
    assert mean_intervals(moved, draws=seeded()) == mean_intervals(columns, draws=seeded())
    both = [mean_intervals([part, part], draws=seeded()) for part in (moved, columns)]
    assert both[0] == both[1]
    assert paired_differences(moved, columns, draws=seeded())["a"].estimate == 0
    table = torch.stack(list(columns.values()), 1)
    ratio = [interval(lambda m: m[:, 0] / m[:, 1], t, draws=seeded()) for t in (table, there(table))]
    assert ratio[0] == ratio[1]


def test_a_model_is_the_same_on_both_devices(away: None) -> None:
    assert behaviour(there(model()), (1, 8, 8)) == behaviour(model(), (1, 8, 8))
    data = ImageSet(images(), labels(), ("a", "b", "c"), "x")
    assert data.to(AWAY).identity == data.identity


# --- the upper chain -------------------------------------------------------------------------------------
# Fault 3: LPIPS never moved to the device, and statistics mixed its columns with weights of the CPU, so that
# the first measured model raised, after autoencoder and denoiser had been trained.


def image_set(**more: Any) -> ImageSet:
    return ImageSet(images(), labels(), ("a", "b", "c"), "x", **more)


ESTIMATES: dict[str, Callable[[Callable[[Any], Any]], dict[str, Any]]] = {
    "an estimator": lambda on: {"tangent": LocalPCA(images().repeat(3, 1, 1, 1), 2, neighbours=9)},
    "bases of the CPU": lambda on: {"tangent": bases()},
    "nothing of the manifold": lambda on: {},
    "a higher resolution": lambda on: {"size": (4, 4), "conditional": False},
}


def evaluation_set(on: Callable[[Any], Any], kind: str = "an estimator", **more: Any) -> EvaluationSet:
    given = ESTIMATES[kind](on)
    second = None if "size" in given else IdealDenoiser(images(), labels())
    small: dict[str, Any] = {"norms": (0.5,), "radii": (0.3,), "attack_steps": 1, "directions": 1}
    small |= {"targets": ("logit", "loss"), "metrics": ("lpips", "rank"), "smooth_targets": ("logit",)}
    small |= {"smooth_samples": 1, "upsample_to": 32}
    return EvaluationSet.of(
        on(image_set()), denoiser=on(unet()), second=second, **(small | given | more)
    )  # fmt: skip


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name, column in expected.items():
        assert found[name].device.type == "cpu", name
        close = partial(torch.testing.assert_close, atol=2e-3, rtol=2e-3, equal_nan=True)
        close(found[name], column, msg=f"{name}: {found[name]} is not {column}")


@pytest.mark.parametrize("kind", ESTIMATES)
def test_columns_and_records_are_those_of_the_cpu(kind: str, away: None) -> None:
    found, records = [], []
    for on in (here, there):
        evaluation, control = evaluation_set(on, kind), network_with_batch_norm(seed=3).eval()
        evaluation.prepare()
        found.append(measured(on(model()), evaluation, control=on(control)))
        settings = settings_of(evaluation, control=True)
        records.append(model_record("m", {}, settings, [found[-1]], lost=None, resamples=20))
    assert_close(found[1], found[0])
    assert records[1]["settings"] == records[0]["settings"]
    for name, mean in records[0]["means"].items():
        other = records[1]["means"][name]
        assert (mean is None) == (other is None)
        if mean and other:
            assert other["estimate"] == pytest.approx(mean["estimate"], rel=2e-3, abs=2e-3)


def test_an_audit_with_its_pictures_is_that_of_the_cpu(away: None) -> None:
    audits = [
        pags.audit(on(model()), evaluation_set(on, of_class="true", metrics=("lpips",)), gallery=2)
        for on in (here, there)
    ]
    assert_close(audits[1].columns, audits[0].columns)
    assert_close(audits[1].panels, audits[0].panels)


@pytest.fixture
def sweeps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Callable[[Any], Any]], Experiment]:
    """An experiment of networks that are at hand, on the device; nothing of it is trained."""

    def make(on: Callable[[Any], Any]) -> Experiment:
        made = Experiment(
            tiny.settings(
                sweeps=({"objective": "pgd", "strengths": (0, 1, 2)},),
                gallery=3,
                measures={"norms": (0.5,), "upsample_to": 32},
            ),
            Store(tmp_path / on.__name__),
        )
        made.cache = Cache(made.store, "cpu" if on is here else "meta")
        made.data = DataSet(on(image_set()), on(image_set()))
        made.estimators = SimpleNamespace(  # type: ignore[assignment]
            tangent=LocalPCA(images().repeat(3, 1, 1, 1), 2, neighbours=9), second=None,
            denoiser=IdealDenoiser(images(), labels()),
        )  # fmt: skip

        def subject(name: str, seed: int) -> Subject:
            network = network_with_batch_norm(seed=seed).eval()
            return Subject(name, Lazy(["network", seed], lambda: on(network)), {})

        made.untrained = lambda repeat=0: subject("untrained", 9)  # type: ignore[method-assign]
        made.model = lambda objective, strength, repeat=0: subject(  # type: ignore[method-assign]
            f"pgd {strength:g}", int(strength)
        )
        return made

    return make


def test_a_sweep_with_gallery_records_and_claims_is_that_of_the_cpu(
    sweeps: Callable[[Callable[[Any], Any]], Experiment], away: None
) -> None:
    galleries, columns, claimed = [], [], []
    for on in (here, there):
        made = sweeps(on)
        made.evaluation.prepare()
        galleries.append(made.gallery())
        columns.append({n: v.cpu() for n, v in made.runs("pgd", 1.0)[0].items()})
        assert made.model_record("pgd", 1.0)["regime"]["rule"]
        assert len(made.score_shares()["off"]) == len(made.score_shares()["sigmas"])
        kinds = [made.runs("pgd", strength)[0] for strength in (0.0, 1.0, 2.0)]
        claimed.append(
            claims.judge_sweep([kinds], objective="pgd", norm=0.5, control=made.runs("untrained", 0.0))
        )
    assert_close(galleries[1], galleries[0])
    assert_close(columns[1], columns[0])
    assert [c["claim"] for c in claimed[1]] == [c["claim"] for c in claimed[0]]
    for plain, other in zip(*claimed, strict=True):
        if plain["estimate"] is not None and abs(plain["estimate"]) < 10:
            assert other["estimate"] == pytest.approx(plain["estimate"], rel=0.02, abs=0.02)


def test_distractor_measures_and_claims_are_those_of_the_cpu(away: None) -> None:
    found = []
    for on in (here, there):
        data = on(image_set(masks=masks()))
        columns = distractor_measures(
            on(model()), data, data, levels=(0.0, 0.2), directions=2, attack=PGD(0.3, 2), seed=0
        )
        found.append({name: column.cpu() for name, column in columns.items()})
        judged = claims.judge_distractor([columns], [columns], subject="A", levels=[1])
        assert len(judged) == len(claims.distractor.CLAIMS)
    assert_close(found[1], found[0])


def test_generation_is_that_of_the_cpu(away: None) -> None:
    found = []
    for on in (here, there):
        judge, settings = network_with_batch_norm(seed=5).eval(), GenerateSettings(images=4, steps=2)
        made = generated(on(model()), on(judge), on(image_set()), on(image_set()), settings, 0)
        found.append({name: value.cpu() for name, value in made.items()})
    assert_close(found[1], found[0])
