"""Denoisers of others, held to the closed form of a Gaussian, and to diffusers where it is installed."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conftest import built, seeded
from pags.errors import ModelError, PagsError, UsageError
from pags.score.denoiser import BlindDenoiser, Denoiser, score_of
from pags.score.foreign import DiffusersDenoiser
from pags.score.load import load_denoiser

pytestmark = pytest.mark.usefixtures("global_state_untouched")

X = torch.rand(3, 1, 4, 4, generator=seeded())
CENTRE, SPREAD = 0.6, 0.2  # every pixel is normal with these, in [0, 1]


def gaussian(x: Tensor, noise: float | Tensor) -> Tensor:
    """The posterior mean of a pixel, for noise of this standard deviation in [0, 1]."""
    return (SPREAD**2 * x + noise**2 * CENTRE) / (SPREAD**2 + noise**2)


BLIND: dict[str, tuple[Callable[[Tensor], Tensor], dict[str, Any]]] = {
    "images": (lambda x: gaussian(x, 0.25), {}),
    "noise": (lambda x: x - gaussian(x, 0.25), {"predicts": "noise"}),
    "images in [-1, 1]": (lambda x: 2 * gaussian((x + 1) / 2, 0.25) - 1, {"low": -1}),
    "noise in [0, 255]": (lambda x: x - 255 * gaussian(x / 255, 0.25), {"predicts": "noise", "high": 255}),
    "in place": (lambda x: gaussian(x.mul_(1), 0.25), {}),
}


@pytest.mark.parametrize("what", BLIND)
def test_a_blind_denoiser_has_the_score_of_its_noise(what: str) -> None:
    network, options = BLIND[what]
    denoiser = BlindDenoiser(network, **options)
    assert isinstance(denoiser, Denoiser)
    before = X.clone()
    truth = (CENTRE - X) / (SPREAD**2 + 0.25**2)
    assert torch.allclose(score_of(denoiser, X, 0.5), truth, atol=1e-4)  # 0.25 in [0, 1] is 0.5 in [-1, 1]
    assert torch.equal(X, before)


def test_a_blind_denoiser_says_what_it_cannot() -> None:
    with pytest.raises(UsageError, match="predicts among image, noise"):
        BlindDenoiser(nn.Identity(), predicts="score")
    with pytest.raises(UsageError, match="blind"):
        BlindDenoiser(nn.Identity())(X, 0.5, torch.zeros(3, dtype=torch.long))
    with pytest.raises(ModelError, match="an error of the model"):
        BlindDenoiser(lambda x: x @ torch.ones(5))(X, 0.5)


class Ideal(nn.Module):
    """What a network of diffusers would answer that knows the Gaussian, from the step alone."""

    def __init__(self, alphas: Tensor, predicts: str) -> None:
        super().__init__()
        self.alphas, self.predicts = alphas.double(), predicts

    def forward(self, x: Tensor, steps: Tensor, class_labels: Tensor | None = None) -> SimpleNamespace:
        before = steps.double().floor().long().clamp(max=len(self.alphas) - 2)
        log = (1 / self.alphas - 1).sqrt().log()
        sigma = (log[before] + (steps - before) * (log[before + 1] - log[before])).exp()[:, None, None, None]
        signal, spread = (1 / (1 + sigma**2)).sqrt(), (sigma**2 / (1 + sigma**2)).sqrt()
        noisy = (x.double() / signal + 1) / 2  # in [0, 1]
        clean = 2 * gaussian(noisy, sigma / 2) - 1
        epsilon = (x.double() - signal * clean) / spread
        answers = {"epsilon": epsilon, "sample": clean, "v_prediction": signal * epsilon - spread * clean}
        both = torch.cat([answers[self.predicts], torch.full_like(clean, 9)], 1)  # a learned variance behind
        return SimpleNamespace(sample=both.float())


ALPHAS = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)


@pytest.mark.parametrize("predicts", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("sigma", [0.05, 0.5, 3.3])
def test_noise_levels_become_steps_of_the_schedule(predicts: str, sigma: float) -> None:
    denoiser = DiffusersDenoiser(Ideal(ALPHAS, predicts), ALPHAS, predicts=predicts)
    assert torch.allclose(denoiser(X, sigma), gaussian(X, sigma / 2), atol=1e-4)
    levels = torch.tensor([0.1, 0.5, 2.0])
    mixed = denoiser(X, levels)
    assert torch.allclose(mixed, gaussian(X, levels[:, None, None, None] / 2), atol=1e-4)


def test_levels_and_labels_that_a_schedule_does_not_know_are_refused() -> None:
    denoiser = DiffusersDenoiser(Ideal(ALPHAS, "epsilon"), ALPHAS)
    with pytest.raises(UsageError, match=r"noise levels from 0\.01 to 157") as caught:
        denoiser(X, 0.001)
    denoiser(X, float(caught.value.suggestion.removeprefix("sigma=")))
    with pytest.raises(UsageError, match="labels=None"):
        denoiser(X, 0.5, torch.zeros(3, dtype=torch.long))
    with pytest.raises(UsageError, match="labels for this"):
        DiffusersDenoiser(Ideal(ALPHAS, "epsilon"), ALPHAS, classes=4)(X, 0.5)
    with pytest.raises(UsageError, match="epsilon, sample"):
        DiffusersDenoiser(Ideal(ALPHAS, "epsilon"), ALPHAS, predicts="flow")


def folder(path: Path, config: dict[str, Any]) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    (path / "diffusion_pytorch_model.bin").write_bytes(b"")
    (path / "scheduler_config.json").write_text("{}")
    return path


def test_folders_that_are_none_of_diffusers_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="the folder of the whole pipeline"):
        load_denoiser(tmp_path)
    with pytest.raises(UsageError, match="a UNet2DConditionModel"):
        load_denoiser(folder(tmp_path / "a", {"_class_name": "UNet2DConditionModel"}))
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(PagsError, match="pip install diffusers"):
        load_denoiser(folder(tmp_path / "b", {"_class_name": "UNet2DModel"}))
    (tmp_path / "b" / "config.json").write_text("[")
    with pytest.raises(PagsError, match="a JSON file"):
        load_denoiser(tmp_path / "b")


@pytest.mark.parametrize("schedule", ["linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("safe", [True, False])
def test_a_folder_of_diffusers_denoises_as_diffusers_does(schedule: str, safe: bool, tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    size = {
        "sample_size": 8,
        "in_channels": 1,
        "out_channels": 1,
        "layers_per_block": 1,
        "norm_num_groups": 4,
    }
    blocks = {
        "block_out_channels": (8,),
        "down_block_types": ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",),
    }
    network = built(lambda: diffusers.UNet2DModel(**size, **blocks)).eval()
    scheduler = diffusers.DDPMScheduler(beta_schedule=schedule, clip_sample=False)
    network.save_pretrained(tmp_path / "unet", safe_serialization=safe)
    scheduler.save_pretrained(tmp_path / "scheduler")
    denoiser = load_denoiser(tmp_path)
    images = torch.rand(2, 1, 8, 8, generator=seeded())
    for step in (20, 500):
        alpha = scheduler.alphas_cumprod[step]
        sigma = float((1 / alpha.double() - 1).sqrt())
        noisy = (2 * images - 1) * alpha.sqrt()
        with torch.no_grad():
            answer = network(noisy, step).sample
        clean = scheduler.step(answer, step, noisy, generator=seeded()).pred_original_sample
        assert torch.allclose(denoiser(images, sigma), (clean + 1) / 2, atol=1e-4)


def test_a_file_with_a_function_of_images_alone_is_a_blind_denoiser(tmp_path: Path) -> None:
    (tmp_path / "blind.py").write_text("def smooth(images):\n    return (images + 0.5) / 2\n")
    denoiser = load_denoiser(f"{tmp_path / 'blind.py'}:smooth")
    torch.testing.assert_close(score_of(denoiser, X, 0.5), -(X - 0.5) / (2 * 0.25**2))
    with pytest.raises(UsageError, match="a blind denoiser knows no classes"):
        score_of(denoiser, X, 0.5, torch.zeros(len(X), dtype=torch.long))
    assert denoiser.classes == 0
