"""The exact laboratory, end to end: worlds, models, the six parts, and their record."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from pags.arrays import Basis, Images
from pags.data.imageset import ImageSet
from pags.data.worlds import World, curved_world, distractor_world, linear_world, mixture_world
from pags.manifold.autoencoder import Autoencoder, Reconstruction
from pags.manifold.estimators import LocalPCA
from pags.manifold.tangent import decoder_tangent
from pags.records import Result
from pags.seeds import derive, generator, seeded_construction
from pags.store import Record, Store
from pags.theory.argument_1 import argument_1
from pags.theory.argument_2 import argument_2
from pags.theory.bayes import bayes_alignment
from pags.theory.models import linear_model, perceptron, small_plan, trained
from pags.theory.rows import withheld
from pags.theory.theorem_1 import Subject, theorem_1
from pags.theory.theorem_2 import theorem_2
from pags.theory.two_layer import two_layer
from pags.training.objectives import CrossEntropy

RECORD = "theory.json"
SHAPE = (1, 8, 8)

Progress = Callable[[str, float], None]
"""Called with what is being done and the fraction completed."""


@dataclass(frozen=True)
class Size:
    """How much is drawn and trained; `quick` is for tests, and decides less."""

    images: int = 512
    points: int = 4096
    training_images: int = 512
    directions: int = 8
    epochs: int = 40
    runs: int = 6
    regressions: int = 24
    strengths: tuple[float, ...] = (0.0, 1e-2, 1e-1, 1.0)
    sizes: tuple[int, ...] = (250, 500, 1000, 2000, 4000, 8000)


TRAINED = ("argument_1", "bayes_gradient")
"""Parts whose verdicts depend on how long networks are trained."""

QUICK = Size(
    images=64, points=256, training_images=128, directions=4, epochs=8, runs=3, regressions=6,
    strengths=(0.0, 1e-1, 1.0), sizes=(250, 1000, 4000),
)  # fmt: skip


def run_theory(
    store: Store,
    *,
    seed: int = 0,
    quick: bool = False,
    on_progress: Progress = lambda what, share: None,
) -> Result:
    """Check theorems, arguments and the way to the Bayes gradient in exact worlds; write `theory.json`.

    Args:
        store: where the record goes; the figures are drawn from it by `pags.report.pages.write_theory`.
        seed: random seed of every draw; equal seeds give equal records on the same machine.
        quick: a few seconds instead of a minute or more; intervals are wider, and verdicts that depend
            on long trainings are withheld.
        on_progress: told what is being done.

    Returns:
        The record: seed, size, and for each part its rows (claim, place, statement, rule, estimate with
        interval, expected value, verdict) and curves.

    Raises:
        PagsError: the record cannot be written.
    """
    with _one_thread():
        parts = _parts(seed, QUICK if quick else Size(), on_progress)
    if quick:
        parts |= {name: withheld(parts[name], "quick trains too briefly") for name in TRAINED}
    record = {"seed": seed, "quick": quick, "parts": parts}
    store.write_record(RECORD, record)
    return Result(record, store.root)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Work this small is done faster by one thread, many times so where the cores are shared with others."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _parts(seed: int, size: Size, on_progress: Progress) -> Record:
    on_progress("Theorem 1", 0.0)
    parts = {"theorem_1": _theorem_1(seed, size)}
    on_progress("Theorem 2", 0.12)
    parts["theorem_2"] = _theorem_2(seed, size)
    on_progress("Argument 2", 0.16)
    parts["argument_2"] = _argument_2(seed, size)
    on_progress("Two-layer networks", 0.18)
    parts["two_layer"] = two_layer(seed=seed, runs=size.runs)
    parts["argument_1"] = argument_1(
        linear_world(SHAPE, seed=seed), size.strengths, seed=seed, runs=size.runs,
        images=size.training_images, epochs=size.epochs,
        on_run=lambda share: on_progress("Argument 1", 0.22 + 0.28 * share),
    )  # fmt: skip
    parts["bayes_gradient"] = bayes_alignment(
        linear_world(SHAPE, noise=0.02, seed=seed), seed=seed, runs=size.runs,
        images=size.training_images, epochs=size.epochs // 2,
        on_run=lambda share: on_progress("Bayes gradient", 0.5 + 0.5 * share),
    )  # fmt: skip
    order = ("theorem_1", "theorem_2", "argument_1", "argument_2", "two_layer", "bayes_gradient")
    return {name: parts[name] for name in order}


def _theorem_1(seed: int, size: Size) -> Record:
    world = curved_world(SHAPE, seed=seed)
    data = world.image_set(4 * size.training_images, seed=derive(seed, "theorem 1", "training"))
    images, labels = world.sample(size.points, generator(seed, "theorem 1", "test"))
    subjects = {
        "linear": Subject(_classifier(data, None, seed, size), None, _levels(-8, -3)),
        "softplus": Subject(_classifier(data, nn.Softplus(beta=10), seed, size), 2.0, _levels(-8, -3)),
        "ReLU": Subject(_classifier(data, nn.ReLU(), seed, size), 1.0, _levels(-8, -5)),
    }
    bases = _bases(world, data, images, seed, size)
    return theorem_1(subjects, images, labels, bases, seed=seed, directions=size.directions)


def _levels(first: int, last: int) -> list[float]:
    """Noise levels, two a decade."""
    return [10 ** (step / 2) for step in range(first, last + 1)]


def _classifier(data: ImageSet, activation: nn.Module | None, seed: int, size: Size) -> nn.Module:
    """A trained classifier in float64; linear without an activation."""
    classes = len(data.classes)
    with seeded_construction(seed, "theorem 1", str(activation)):
        model = (
            perceptron(data.shape, classes, activation) if activation else linear_model(data.shape, classes)
        )
    return trained(model, CrossEntropy(), data, small_plan(size.epochs), seed).double()


def _bases(world: World, data: ImageSet, images: Images, seed: int, size: Size) -> dict[str, Basis]:
    """The exact tangent spaces, two estimates of them, and spaces of no meaning."""
    k = world.k
    with seeded_construction(seed, "theorem 1", "autoencoder"):
        autoencoder = Autoencoder(data.shape, k, (16, 32))
    trained(autoencoder, Reconstruction(), data, small_plan(size.epochs), seed).double()
    d = images[0].numel()
    noise = torch.randn((len(images), d, k), generator=generator(seed, "random"), dtype=torch.float64)
    return {
        "exact": world.tangent_basis(images),
        "local PCA": LocalPCA(data.images.double(), k, neighbours=30)(images)[0],
        "decoder": decoder_tangent(autoencoder, images)[0],
        "random": torch.linalg.qr(noise)[0],
    }


def _theorem_2(seed: int, size: Size) -> Record:
    slider = [distractor_world(SHAPE, informative=step / 4, seed=seed) for step in range(5)]
    return theorem_2(
        slider,
        {
            "one flat manifold": linear_world(SHAPE, seed=seed),
            "one curved manifold": curved_world(SHAPE, seed=seed),
            "a manifold a class": mixture_world(SHAPE, own_manifolds=True, seed=seed),
        },
        seed=seed,
        images=size.images,
        sigmas=[0.01 * 10 ** (step / 3) for step in range(7)],
    )


def _argument_2(seed: int, size: Size) -> Record:
    independent, informative = (
        distractor_world(SHAPE, classes=2, informative=value, seed=seed) for value in (0.0, 1.0)
    )
    return argument_2(independent, informative, seed=seed, runs=size.regressions, sizes=size.sizes)
