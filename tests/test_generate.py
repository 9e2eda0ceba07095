"""Following the gradient of models of which it is known where it leads; and the whole chain on digits."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, mse_loss

import tiny
from conftest import Linear, Traces, central_differences, network_with_batch_norm, seeded, smooth_network
from pags.cli import main
from pags.data.imageset import ImageSet
from pags.errors import PagsError, UsageError
from pags.experiments.cache import Lazy
from pags.experiments.classifiers import Subject, network_of
from pags.experiments.experiment import Experiment
from pags.experiments.generation import (
    PANELS,
    RECORD,
    along_sweep,
    digest,
    independent_judge,
    run_generate,
)
from pags.experiments.generation import Followed as FollowedModel
from pags.experiments.problems import GenerateSettings, Task, set_problems
from pags.experiments.settings import Sweep
from pags.experiments.smoothgrad import smoothgrad_along
from pags.figures.phenomena import task_pictures
from pags.generate import (
    Followed,
    denoise,
    enlarged,
    filled,
    gaussian_starts,
    inpaint,
    step_for,
    super_resolve,
    synthesise,
    with_block_means,
)
from pags.measure.restoration import HIGHEST, named_as, perceptual_distance, psnr
from pags.report.layout import draw
from pags.report.pages import write_generate
from pags.report.style import render
from pags.store import Store

pytestmark = pytest.mark.usefixtures("global_state_untouched")

seeds = st.integers(0, 2**32)
D = 16


def random_images(n: int, seed: int = 0, side: int = 4) -> Tensor:
    return torch.rand(n, 1, side, side, generator=seeded(seed), dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def masks_with_both(n: int, seed: int = 0) -> Tensor:
    masks = torch.rand(n, 4, 4, generator=seeded(seed)) < 0.5
    masks[:, 0, 0], masks[:, 0, 1] = True, False
    return masks


# --- synthesis -------------------------------------------------------------------------------------------


@given(seed=seeds, steps=st.integers(1, 20), target=st.integers(0, 1))
def test_with_a_linear_classifier_synthesis_is_a_clipped_line(seed: int, steps: int, target: int) -> None:
    """Of two classes the log-odds are (w₁ − w₀)·x: one direction everywhere. Clipping acts pixel by pixel and
    every pixel moves one way, so all the clips together are one."""
    weight, starts = normal(2, D, seed=seed), random_images(3, seed)
    found = synthesise(Linear(weight), starts, torch.full((3,), target), steps=steps, step_size=0.2)
    direction = weight[target] - weight[1 - target]
    line = starts + 0.2 * steps * (direction / direction.norm()).reshape(1, 1, 4, 4)
    torch.testing.assert_close(found.images, line.clamp(0, 1))


@given(seed=seeds, radius=st.floats(0.01, 3))
def test_synthesis_stays_in_the_ball_and_in_the_range(seed: int, radius: float) -> None:
    starts, model = random_images(4, seed), smooth_network(D)
    found = synthesise(model, starts, torch.arange(4) % 3, steps=7, step_size=0.9, radius=radius)
    assert (found.images - starts).flatten(1).norm(dim=1).max() <= radius * (1 + 1e-12)
    assert found.images.min() >= 0
    assert found.images.max() <= 1


def test_a_step_climbs_the_log_probability_by_its_length() -> None:
    """To first order: length · ‖∇ log p‖, with the gradient by finite differences."""
    model, starts, targets = smooth_network(D), 0.2 + 0.6 * random_images(3), torch.tensor([0, 1, 2])

    def log_probabilities(x: Tensor) -> Tensor:
        return model(x).log_softmax(1)[torch.arange(3), targets]

    jacobian = central_differences(log_probabilities, starts)  # (3, 3, 1, 4, 4)
    slopes = jacobian[torch.arange(3), torch.arange(3)].flatten(1).norm(dim=1)
    found = synthesise(model, starts, targets, steps=1, step_size=1e-4).images
    climbed = log_probabilities(found) - log_probabilities(starts)
    torch.testing.assert_close(climbed, 1e-4 * slopes, rtol=1e-3, atol=0)


def test_a_certain_network_is_followed_still() -> None:
    """Where log p is 0 to the last digit and its gradient vanishes, that of the log-odds does not."""
    weight = torch.zeros(3, D)
    weight[0, 0], weight[1, 1] = 400, 200
    starts = torch.full((1, 1, 4, 4), 0.5)
    starts[0, 0, 0, 0] = 0.9
    model = Linear(weight)
    assert model(starts).log_softmax(1)[0, 0] == 0
    found = synthesise(model, starts, torch.tensor([0]), steps=1, step_size=0.05).images
    # The strongest rival is class 1, so the direction is that of w₀ − w₁ = (400, −200, 0, …).
    moved = (found - starts).flatten()[:2]
    torch.testing.assert_close(moved, 0.05 * torch.tensor([2.0, -1.0]) / 5**0.5)


def test_frames_are_stations_of_the_way() -> None:
    model, starts, targets = smooth_network(D), random_images(3), torch.tensor([0, 1, 2])
    found = synthesise(model, starts, targets, steps=6, step_size=0.1, frames=3, batch_size=2)
    assert found.frames.shape == (3, 3, 1, 4, 4)
    for frame, steps in zip(found.frames, (0, 2, 4), strict=True):
        shorter = synthesise(model, starts, targets, steps=steps, step_size=0.1).images
        torch.testing.assert_close(frame, shorter)


def test_no_images_and_no_steps() -> None:
    model, none = smooth_network(D), torch.zeros(0, 1, 4, 4, dtype=torch.float64)
    assert synthesise(model, none, torch.zeros(0).long(), frames=2).frames.shape == (2, 0, 1, 4, 4)
    starts = random_images(2)
    assert torch.equal(synthesise(model, starts, torch.tensor([0, 1]), steps=0).images, starts)


def test_the_usual_step_is_half_on_cifar_and_scales_with_the_root() -> None:
    assert step_for(torch.zeros(1, 3, 32, 32)) == 0.5
    assert step_for(torch.zeros(1, 3, 64, 64)) == 1.0


# --- restorations ----------------------------------------------------------------------------------------


@given(seed=seeds)
def test_in_painting_never_changes_known_pixels(seed: int) -> None:
    images, masks = random_images(4, seed), masks_with_both(4, seed)
    found = inpaint(smooth_network(D), images, masks, steps=4, step_size=0.5).images
    assert torch.equal(found[masks[:, None]], images[masks[:, None]])
    assert (found != images)[~masks[:, None]].any()
    assert 0 <= found.min() <= found.max() <= 1


@given(seed=seeds, factor=st.sampled_from([2, 3]), double=st.booleans())
def test_super_resolution_keeps_the_small_image(seed: int, factor: int, double: bool) -> None:
    kind = torch.float64 if double else torch.float32
    small = torch.rand(3, 1, 2, 2, generator=seeded(seed), dtype=kind)
    small[0, 0, 0] = torch.tensor([0, 1])  # blocks that leave no freedom
    model = smooth_network(4 * factor**2).to(kind)
    found = super_resolve(model, small, factor, steps=3, step_size=1.0, frames=1)
    for images in (found.images, found.frames[0]):
        torch.testing.assert_close(avg_pool2d(images, factor), small, rtol=0, atol=1e-6)
        assert 0 <= images.min() <= images.max() <= 1
    assert (found.images - found.frames[0]).abs().amax() > 0.01


@settings(max_examples=10)
@given(seed=seeds)
def test_block_means_are_met_by_the_nearest_image(seed: int) -> None:
    """Against the projection found by alternating between the two sets with Dykstra's corrections."""
    images, means = 0.5 + normal(2, 1, 4, 4, seed=seed), random_images(2, seed, side=2)
    x, p, q = images, torch.zeros_like(images), torch.zeros_like(images)
    for _ in range(500):
        lifted = x + p
        y = lifted + torch.kron(means - avg_pool2d(lifted, 2), torch.ones(1, 1, 2, 2, dtype=torch.float64))
        p, x = lifted - y, (y + q).clamp(0, 1)
        q = y + q - x
    torch.testing.assert_close(with_block_means(images, means), x, rtol=0, atol=1e-4)


@pytest.mark.parametrize("labels", [None, torch.tensor([2, 0, 1, 1])])
def test_restorations_aim_at_the_given_class_or_the_one_seen(labels: Tensor | None) -> None:
    model, images = smooth_network(D), random_images(4)
    seen = model(images).argmax(1)
    for found in (
        denoise(model, images, labels, sigma=0.2, steps=2),
        inpaint(model, images, masks_with_both(4), labels, steps=2),
    ):
        assert torch.equal(found.labels, seen if labels is None else labels)


def test_denoising_moves_by_half_the_noise_at_most() -> None:
    noisy = random_images(4)
    found = denoise(smooth_network(D), noisy, sigma=0.3)
    moved = (found.images - noisy).flatten(1).norm(dim=1)
    assert moved.max() <= 0.3 * 4 / 2 * (1 + 1e-12)
    assert moved.min() > 0.1


PROCEDURES = {
    "synthesise": lambda m, x, b: synthesise(m, x, torch.arange(len(x)) % 3, steps=3, batch_size=b),
    "denoise": lambda m, x, b: denoise(m, x, sigma=0.2, steps=3, batch_size=b),
    "inpaint": lambda m, x, b: inpaint(m, x, masks_with_both(len(x)), steps=3, batch_size=b),
    "super_resolve": lambda m, x, b: super_resolve(m, x, 2, steps=3, batch_size=b),
}


@pytest.mark.parametrize("name", PROCEDURES)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_cut_of_the_batch_changes_nothing(name: str, batch_size: int) -> None:
    model, images = network_with_batch_norm().double(), random_images(5)
    whole, cut = (PROCEDURES[name](model, images, size).images for size in (256, batch_size))
    torch.testing.assert_close(whole, cut, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", PROCEDURES)
def test_following_leaves_no_trace_and_tells_how_far_it_is(name: str) -> None:
    model = network_with_batch_norm().double()
    traces = Traces(model)
    found: Followed = PROCEDURES[name](model, random_images(3), 2)
    traces.assert_none()
    assert not found.images.requires_grad
    shares: list[float] = []
    synthesise(model, random_images(3), torch.zeros(3).long(), steps=2, batch_size=2, report=shares.append)
    assert shares == [0.25, 0.5, 0.75, 1.0]


X, Y = random_images(2), torch.tensor([0, 1])
MODEL = smooth_network(D)
WRONG = {
    "pixels above 1": lambda: synthesise(MODEL, 2 * X, Y),
    "a class that is not there": lambda: synthesise(MODEL, X, torch.tensor([0, 3])),
    "too few classes": lambda: synthesise(MODEL, X, torch.tensor([0])),
    "a step of no length": lambda: synthesise(MODEL, X, Y, step_size=0),
    "a negative radius": lambda: synthesise(MODEL, X, Y, radius=-1.0),
    "more frames than steps": lambda: synthesise(MODEL, X, Y, steps=2, frames=3),
    "one logit": lambda: synthesise(Linear(normal(1, D)), X, torch.tensor([0, 0])),
    "noise of no size": lambda: denoise(MODEL, X, sigma=0),
    "masks of another size": lambda: inpaint(MODEL, X, torch.ones(2, 4, 3, dtype=torch.bool)),
    "factor 1": lambda: super_resolve(MODEL, X, 1),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_makes_no_sense_is_refused(what: str) -> None:
    with pytest.raises(UsageError, match="expected"):
        WRONG[what]()


def test_a_diverged_model_is_named() -> None:
    with pytest.raises(PagsError, match="finite gradients"):
        synthesise(Linear(torch.full((2, D), torch.nan, dtype=torch.float64)), X, Y, steps=1)


# --- starts ----------------------------------------------------------------------------------------------


def test_seeds_have_the_mean_and_covariance_of_their_class() -> None:
    pixels = 0.5 + 0.03 * normal(40, 1, 2, 2, seed=1)
    pixels[20:, 0, 0, 0] += 0.2
    train = ImageSet(pixels.float(), torch.arange(40) // 20, ("a", "b"), "two")
    n = 40_000
    found = gaussian_starts(train, torch.full((n,), 1), draws=seeded(0)).flatten(1).double()
    own = pixels[20:].flatten(1)
    error = 0.04 / math.sqrt(n)
    torch.testing.assert_close(found.mean(0), own.mean(0), rtol=0, atol=5 * error)
    torch.testing.assert_close(found.T.cov(), own.T.cov(), rtol=0, atol=10 * 0.04 * error)


def test_seeds_need_two_images_of_their_class() -> None:
    train = ImageSet(torch.rand(3, 1, 2, 2, generator=seeded(0)), torch.tensor([0, 0, 1]), ("a", "b"), "few")
    assert gaussian_starts(train, torch.tensor([0, 0]), draws=seeded(0)).shape == (2, 1, 2, 2)
    with pytest.raises(UsageError, match="at least two training images"):
        gaussian_starts(train, torch.tensor([0, 1]), draws=seeded(0))


def test_holes_are_filled_from_known_pixels_alone() -> None:
    images, masks = random_images(3), masks_with_both(3)
    found = filled(images, masks)
    other = torch.where(masks[:, None], images, 1 - images)
    assert torch.equal(found, filled(other, masks))  # what is unknown cannot be seen in the result
    for image, before, mask in zip(found[:, 0], images[:, 0], masks, strict=True):
        assert torch.equal(image[mask], before[mask])
        torch.testing.assert_close(image[~mask], before[mask].mean().expand(int((~mask).sum())))


def test_enlarged_images_average_to_the_small_ones() -> None:
    small = random_images(3)
    torch.testing.assert_close(avg_pool2d(enlarged(small, 3), 3), small)


# --- how good it is --------------------------------------------------------------------------------------


@given(seed=seeds, exponent=st.integers(-6, 0))
def test_psnr_is_its_formula(seed: int, exponent: int) -> None:
    a = random_images(3, seed)
    b = (a + 10.0**exponent * normal(3, 1, 4, 4, seed=seed)).clamp(0, 1)
    direct = [10 * math.log10(1 / mse_loss(x, y).item()) for x, y in zip(a, b, strict=True)]
    assert psnr(a, b).tolist() == pytest.approx([min(value, HIGHEST) for value in direct])


def test_psnr_of_equal_empty_and_unequal_images() -> None:
    assert psnr(X, X).tolist() == [HIGHEST] * 2
    assert psnr(X[:0], X[:0]).shape == (0,)
    with pytest.raises(UsageError, match="same size"):
        psnr(X, X[:1])


def test_distance_is_none_for_equal_pictures_and_grows_with_the_noise() -> None:
    a = random_images(2, side=16).float()
    noise = normal(2, 1, 16, 16).float()
    distances = [perceptual_distance((a + s * noise).clamp(0, 1), a).mean().item() for s in (0, 0.05, 0.5)]
    assert distances[0] == 0
    assert 0 < distances[1] < distances[2]


def test_named_as_counts_what_another_network_sees() -> None:
    model, images = smooth_network(D), random_images(6)
    seen = model(images).argmax(1)
    targets = torch.where(torch.arange(6) < 2, seen, (seen + 1) % 3)
    assert named_as(model, images, targets).tolist() == [1, 1, 0, 0, 0, 0]
    with pytest.raises(UsageError, match="one target an image"):
        named_as(model, images, targets[:1])
    with pytest.raises(UsageError, match="labels from 0 to 2"):
        named_as(model, images, targets + 3)


# --- the whole chain -------------------------------------------------------------------------------------

EXPERIMENT = tiny.settings(
    {"images": 60, "resamples": 100},
    sweeps=(Sweep(objective="pgd", strengths=(0, 0.5, 1), attack_steps=2),),
    training={"plan": {"epochs": 3, "learning_rate": 0.1}},
    manifold={"plan": tiny.ADAM},
    score={"plan": tiny.ADAM},
)
TASKS: tuple[Task, ...] = ("synthesis-from-noise", "in-painting", "super-resolution")
SETTINGS = GenerateSettings(tasks=TASKS, images=20, shown=2, steps=10)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return Experiment(EXPERIMENT, Store(tmp_path_factory.mktemp("generate")))


def test_a_sweep_is_followed_measured_kept_and_drawn(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, data = experiment.store, experiment.data
    models, judge = along_sweep(experiment, "pgd"), independent_judge(experiment)
    assert [m.name for m in models] == ["untrained", "standard", "pgd 0.5", "pgd 1"]
    assert digest(judge) not in {digest(m.subject) for m in models}
    record = run_generate(models, judge, data, store, SETTINGS, resamples=100)
    panels = store.read_tensors(PANELS)[0]
    assert record == store.read_record(RECORD)
    # Each number again from what is kept, for the last model.
    problems, last = set_problems(data, SETTINGS, 0), record["models"][-1]
    network, start = network_of(models[-1].subject), problems.starts["in-painting"]
    again = inpaint(network, start, problems.masks, problems.labels, steps=10).images
    torch.testing.assert_close(panels["pgd 1 in-painting"], again[:2])
    value, before = psnr(again, problems.originals), psnr(start, problems.originals)
    assert last["means"]["in-painting: psnr"]["estimate"] == pytest.approx(value.mean().item(), rel=1e-5)
    gain = last["gain"]["in-painting: psnr"]
    assert gain["estimate"] == pytest.approx((value - before).mean().item(), abs=1e-4)
    assert gain["low"] <= gain["estimate"] <= gain["high"]
    # Distances count as better where they are lower.
    distance = [part["in-painting: lpips"]["estimate"] for part in (record["starts"], last["means"])]
    assert last["gain"]["in-painting: lpips"]["estimate"] == pytest.approx(
        distance[0] - distance[1], abs=1e-6
    )
    assert set(last["above"]) == {"untrained", "standard"}
    assert record["models"][0]["above"] == {}
    # Trained networks can do what an untrained one cannot.
    assert last["above"]["untrained"]["synthesis-from-noise: named"]["low"] > 0

    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError("followed again")

    monkeypatch.setattr("pags.experiments.generation.solve", fail)
    assert run_generate(models, judge, data, store, SETTINGS, resamples=100) == record
    drawn = {path.name: path.read_bytes() for path in write_generate(store, record, panels)}
    assert {f"generate-{task}.svg" for task in TASKS} | {"report.html"} <= set(drawn)
    pictures = task_pictures(store.read_record(RECORD), panels, "in-painting")
    assert render(draw(pictures), "svg") == drawn["generate-in-painting.svg"]


def test_smoothgrad_is_compared_along_the_sweep(experiment: Experiment) -> None:
    record = smoothgrad_along(experiment, EXPERIMENT.sweeps[0], levels=(1e-4, 0.3), samples=2)
    assert [entry["strength"] for entry in record["strengths"]] == [0, 0.5, 1]
    first, last = record["strengths"][0], record["strengths"][-1]
    for entry in record["strengths"]:
        # With next to no noise SmoothGrad is the plain gradient.
        assert abs(entry["gain"]["cosine 0.0001"]["estimate"]) < 0.02
        means = entry["means"]
        difference = means["smooth 0.3 lpips logit"]["estimate"] - means["lpips logit"]["estimate"]
        assert entry["gain"]["lpips 0.3"]["estimate"] == pytest.approx(difference, abs=1e-6)
    gains = [entry["gain"]["lpips 0.3"]["estimate"] for entry in (first, last)]
    assert last["more at 0"]["lpips 0.3"]["estimate"] == pytest.approx(gains[0] - gains[1], abs=1e-6)
    assert first["more at 0"]["lpips 0.3"]["low"] == 0


def test_problems_are_those_that_the_settings_say(experiment: Experiment) -> None:
    problems = set_problems(experiment.data, GenerateSettings(images=20), 0)
    assert torch.equal((~problems.masks).sum((1, 2)), torch.full((20,), 16))  # a hole of 4 × 4 in 8 × 8
    assert not torch.equal(problems.masks[0], problems.masks[1])
    assert torch.equal(problems.targets, torch.arange(20) % 10)
    noise = problems.starts["denoising"] - problems.originals
    inner = noise[(problems.starts["denoising"] > 0) & (problems.starts["denoising"] < 1)]
    assert 0.1 < inner.std().item() < 0.35
    with pytest.raises(UsageError, match="factor that divides"):
        set_problems(experiment.data, SETTINGS.with_(factor=3), 0)
    same = Subject("a", Lazy[nn.Module]("identity", nn.Identity), {})
    with pytest.raises(UsageError, match="different names"):
        run_generate([FollowedModel(same)] * 2, same, experiment.data, experiment.store, SETTINGS)


def test_the_command_names_its_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = [
        "generate",
        "torchvision:resnet18?untrained",
        "--what",
        "denoise",
        "--images",
        "4",
        "--steps",
        "2",
    ]
    (tmp_path / "quick.toml").write_text(
        "training = {plan = {epochs = 1, learning_rate = 0.1}}\nresamples = 100"
    )
    with pytest.raises(SystemExit) as ended:
        main([*words, "--config", str(tmp_path / "quick.toml"), "--out", str(tmp_path / "out")])
    said = capsys.readouterr()
    assert (ended.value.code or 0) == 0, said.err
    named = [Path(line.strip()) for line in said.out.split("wrote\n")[1].splitlines()]
    assert {path.name for path in named} >= {"generate.json", "generate-denoising.svg"}
    assert all(path.is_file() for path in named)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--images", "1"], "got --images 1: "),
        (["--hole", "1.5"], "got --hole 1.5: "),
        (["--objective", "pgd"], "only beside a finished demo"),
    ],
)
def test_bad_requests_end_in_one_line(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "quick.toml").write_text("training = {plan = {epochs = 1, learning_rate = 0.1}}")
    with pytest.raises(SystemExit) as ended:
        main(["generate", "no.pt", *words, "--config", str(tmp_path / "quick.toml"), "--out", str(tmp_path)])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
