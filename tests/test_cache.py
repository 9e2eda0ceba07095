"""The law of the cache: the key of everything kept changes with every argument that its making reads."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conftest import seeded
from pags.auditing import EvaluationSet, Measures
from pags.data.imageset import ImageSet
from pags.experiments import audit, bayes, distractor, estimators, experiment, generation, training  # noqa: F401
from pags.experiments.cache import STAGES, Cache, Lazy, Made, Stage, columns, identity
from pags.experiments.classifiers import Training
from pags.experiments.problems import GenerateSettings
from pags.manifold.estimators import LocalPCA
from pags.score.exact import IdealDenoiser
from pags.store import Store
from pags.training.attack import PGD
from pags.training.fit import Plan


def images(seed: int = 0, n: int = 12) -> ImageSet:
    pixels = torch.rand(n, 1, 8, 8, generator=seeded(seed))
    return ImageSet(pixels, torch.arange(n) % 3, ("a", "b", "c"), "made")


def evaluation(**changes: Any) -> EvaluationSet:
    options = {"directions": 2, "metrics": ("cosine",), "radii": ()} | changes
    return EvaluationSet.of(images(options.pop("of", 0)), **options)  # type: ignore[arg-type]


def lazy(name: str) -> Lazy[nn.Module]:
    return Lazy(name, nn.Identity)


OTHERS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "train": (images, lambda: images(1)), "test": (images, lambda: images(1)),
    "whole": (images, lambda: images(1)), "part": (images, lambda: images(1)),
    "images": (images, lambda: images(1)), "fitted": (images, lambda: None),
    "training": (Training, lambda: Training(architecture="resnet18")),
    "latent": (lambda: 4, lambda: 5), "classes": (lambda: 3, lambda: 0),
    "widths": (lambda: (4, 4, 4), lambda: (8, 4, 4)), "decoder": (lambda: "mirror", lambda: "pythae"),
    "plan": (lambda: Plan(epochs=1, learning_rate=0.1), lambda: Plan(epochs=1, learning_rate=0.2)),
    "seed": (lambda: 0, lambda: 1), "sigma": (lambda: 0.5, lambda: 0.6),
    "conditional": (lambda: True, lambda: False), "directions": (lambda: 2, lambda: 3),
    "levels": (lambda: (0.0, 1.0), lambda: (0.0, 2.0)),
    "attack": (lambda: PGD(0.5), lambda: PGD(0.5, steps=3)),
    "model": (lambda: lazy("a"), lambda: lazy("b")), "judge": (lambda: lazy("a"), lambda: lazy("b")),
    "control": (lambda: lazy("a"), lambda: None), "estimator": (lambda: lazy("a"), lambda: lazy("b")),
    "denoiser": (lambda: lazy("a"), lambda: lazy("b")), "gallery": (lambda: 2, lambda: 3),
    "attacks": (lambda: ["pgd"], lambda: ["pgd", "square"]),
    "precision": (lambda: "32-true", lambda: "bf16-mixed"),
    "radius": (lambda: 0.5, lambda: 0.4), "steps": (lambda: 3, lambda: 4),
    "evaluation": (evaluation, lambda: evaluation(directions=3)),
    "settings": (GenerateSettings, lambda: GenerateSettings(noise=0.2)),
}  # fmt: skip
"""For every name of an argument, two values of it."""


@pytest.mark.parametrize("name", sorted(STAGES))
def test_every_key_changes_with_every_argument(name: str, tmp_path: Path) -> None:
    """Every parameter of the function is in its key: there is no other way to hand it something."""
    stage, cache = STAGES[name], Cache(Store(tmp_path))
    asked = [p for p in inspect.signature(stage.make).parameters if p != "work"]
    first = {argument: OTHERS[argument][0]() for argument in asked}
    key = cache.made(stage, **first).identity
    assert cache.made(stage, **{a: OTHERS[a][0]() for a in asked}).identity == key
    for argument in asked:
        other = cache.made(stage, **first | {argument: OTHERS[argument][1]()})
        assert other.identity != key, argument


@pytest.mark.parametrize("name", sorted(STAGES))
def test_a_stage_is_a_function_of_a_module(name: str) -> None:
    """Which closes over nothing that could change its result unseen."""
    assert "<locals>" not in STAGES[name].make.__qualname__


MEASURES = {
    "sigma": 0.6, "score_draws": 2, "attacked": False,
    "norms": (0.4, 0.5), "norm": 0.3, "directions": 3, "change": "logits-l2",
    "targets": ("logit", "loss"), "metrics": ("rank",), "upsample_to": 32, "radii": (0.2,), "attack_steps": 3,
    "smooth_targets": (), "smooth_sigmas": (0.2,), "smooth_samples": 3, "of_class": "true", "seed": 1,
}  # fmt: skip


@pytest.mark.parametrize("field", Measures.model_fields)
def test_the_key_of_an_evaluation_set_changes_with_every_measure(field: str) -> None:
    base: dict[str, Any] = {"norms": (0.3, 0.5), "norm": 0.5, "smooth_targets": ("logit",)}
    changed = base | {field: MEASURES[field]}
    assert identity(evaluation(**base)) != identity(evaluation(**changed))


def test_the_key_of_an_evaluation_set_changes_with_what_it_is_made_of() -> None:
    data, more = images(), images(2)
    one = evaluation()
    others = [
        evaluation(of=1),
        evaluation(tangent=LocalPCA(data.images, 2, neighbours=5)),
        evaluation(tangent=LocalPCA(more.images, 2, neighbours=5)),
        evaluation(denoiser=IdealDenoiser(data.images, data.labels)),
        evaluation(denoiser=IdealDenoiser(more.images, more.labels)),
        evaluation(denoiser=IdealDenoiser(data.images, data.labels), conditional=False),
        evaluation(denoiser=IdealDenoiser(data.images), second=IdealDenoiser(data.images)),
        evaluation(size=(4, 4)),
    ]
    keys = [str(identity(each)) for each in (one, *others)]
    assert len(set(keys)) == len(keys)


def test_strength_0_is_one_network_for_all_objectives() -> None:
    standard = [Training(objective=name, attack_steps=s) for name, s in (("pgd", 3), ("smoothing", 7))]
    assert identity(standard[0]) == identity(standard[1])
    robust = [Training(objective="pgd", strength=1, attack_steps=steps) for steps in (3, 7)]
    assert identity(robust[0]) != identity(robust[1])


def test_what_does_not_say_what_it_is_cannot_be_kept() -> None:
    with pytest.raises(TypeError, match="has no identity"):
        identity(object())


def test_equal_arguments_are_computed_once_and_read_again(tmp_path: Path) -> None:
    calls = []

    def doubled(values: Tensor) -> dict[str, Tensor]:
        calls.append(values)
        return {"twice": 2 * values}

    stage: Stage[dict[str, Tensor]] = Stage(doubled, "made", 1)
    cache = Cache(Store(tmp_path))
    for _ in range(2):
        made: Made[dict[str, Tensor]] = cache.made(stage, values=torch.ones(3))
        assert made.value()["twice"].tolist() == [2, 2, 2]
    assert len(calls) == 1
    cache.made(stage, values=torch.zeros(3)).value()
    assert len(calls) == 2
    assert cache.made(Stage(doubled, "made", 2), values=torch.ones(3)).identity != made.identity


def test_stages_are_found_by_their_names() -> None:
    @columns("made")
    def only_here(values: Tensor) -> dict[str, Tensor]:
        return {"values": values}

    try:
        assert STAGES["only_here"] is only_here
        assert only_here(torch.ones(1))["values"] == 1
    finally:
        del STAGES["only_here"]


def test_every_column_is_measured_in_exact_float32(tmp_path: Path) -> None:
    """Whatever is kept as columns, by whichever function: some of them did not ask for it themselves."""

    def precisions() -> dict[str, Tensor]:
        exact = torch.get_float32_matmul_precision() == "highest" and not torch.backends.cudnn.allow_tf32
        return {"exact": torch.tensor([float(exact)])}

    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.allow_tf32 = True
    try:
        assert Cache(Store(tmp_path)).made(Stage(precisions, "measures", 1)).value()["exact"].tolist() == [1]
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
