"""The networks of diffusers' folders behind our contract."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pags import checkpoints
from pags.arrays import Images, Labels, PerImage, expand
from pags.errors import PagsError, UsageError, model_error
from pags.seeds import seeded_construction


class DiffusersDenoiser(nn.Module):
    """A UNet2DModel of diffusers with the noise schedule that it was trained on, as a `Denoiser`.

    It was trained on sqrt(ᾱ) x + sqrt(1 − ᾱ) n, which is sqrt(ᾱ) (x + σ n) for σ² = (1 − ᾱ) / ᾱ, for images
    in [-1, 1]. So σ is EDM's, and the step t that belongs to it is found between two of the schedule's.

    Args:
        network: images and steps to an object with `sample`.
        alphas: ᾱ of each step, falling.
        predicts: "epsilon", "sample" or "v_prediction".
        classes: number of classes; 0 for none.

    Raises:
        UsageError: it predicts something else; when called, for noise levels beyond the schedule's, and for
            labels of an unconditional network or none of a conditional one.
    """

    sigmas: Tensor

    def __init__(
        self, network: nn.Module, alphas: Tensor, *, predicts: str = "epsilon", classes: int = 0
    ) -> None:
        super().__init__()
        if predicts not in ("epsilon", "sample", "v_prediction"):
            raise UsageError("epsilon, sample or v_prediction", got=predicts, suggestion="another scheduler")
        self.network, self.predicts, self.classes = network, predicts, classes
        alphas = alphas.double()
        self.register_buffer("sigmas", ((1 - alphas) / alphas).sqrt())

    def forward(self, images: Images, sigma: float | PerImage, labels: Labels | None = None) -> Images:
        if (labels is None) == bool(self.classes):
            raise UsageError(
                f"{'labels' if self.classes else 'labels=None'} for this denoiser of {self.classes} classes",
                got="none" if labels is None else f"{len(labels)} labels",
                suggestion="labels of the images" if self.classes else "no labels",
            )
        levels = (
            torch.as_tensor(sigma, dtype=torch.float64, device=images.device).expand(len(images)).contiguous()
        )
        x, s = 2 * images - 1, expand(levels, images).to(images.dtype)
        root = (1 + s**2).sqrt()  # 1 / sqrt(ᾱ)
        given = {} if labels is None else {"class_labels": labels}
        with torch.no_grad():
            answer = self.network(x / root, self._steps(levels), **given).sample[:, : images.shape[1]]
        clean = {
            "epsilon": lambda: x - s * answer,
            "sample": lambda: answer,
            "v_prediction": lambda: x / root**2 - s / root * answer,
        }[self.predicts]()
        return (clean + 1) / 2

    def _steps(self, levels: Tensor) -> Tensor:  # (n,), steps of the schedule and places between them
        low, high = float(self.sigmas[0]), float(self.sigmas[-1])
        if bool(((levels < low) | (levels > high)).any()):
            raise UsageError(
                f"noise levels from {low:.3g} to {high:.3g}, which this denoiser knows",
                got=f"{float(levels.min()):.3g} to {float(levels.max()):.3g}",
                suggestion=f"sigma={max(low, 0.5) if high > 0.5 else high:.3g}",
            )
        above = torch.searchsorted(self.sigmas, levels).clamp(1, len(self.sigmas) - 1)
        one, other = self.sigmas[above - 1].log(), self.sigmas[above].log()
        return (above - 1 + (levels.log() - one) / (other - one)).to(torch.float32)


def from_diffusers(folder: Path) -> DiffusersDenoiser:
    """The denoiser in a folder as diffusers saves pipelines, or one with a UNet2DModel alone.

    Args:
        folder: with `unet/config.json` and `scheduler/scheduler_config.json`, or the first with a
            `scheduler_config.json` beside it.

    Raises:
        UsageError: the folder has other files.
        PagsError: diffusers is not installed, or the files do not go together.
    """
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    schedule = _first(folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json")
    weights = _first(*(unet / f"diffusion_pytorch_model.{ending}" for ending in ("safetensors", "bin")))
    if schedule is None or weights is None or not (unet / "config.json").is_file():
        raise UsageError(
            "config.json, diffusion_pytorch_model and scheduler_config.json, as diffusers saves them",
            got=f"{folder} with {', '.join(sorted(path.name for path in folder.iterdir())[:8]) or 'nothing'}",
            suggestion="the folder of the whole pipeline",
        )
    config, noise = _json(unet / "config.json"), _json(schedule)
    if config.get("_class_name") != "UNet2DModel":
        raise UsageError(
            "a UNet2DModel, which works on pixels",
            got=f"a {config.get('_class_name')} in {unet}",
            suggestion="a pipeline of images, not of latents or texts",
        )
    diffusers = _diffusers()
    tensors = checkpoints.state_dict_in(checkpoints.read(weights))[1]
    _at_most(len(tensors), config, "layers_per_block")  # each has some
    _at_most(100_000, noise, "num_train_timesteps")
    building = seeded_construction(0, "to be replaced")
    with building, model_error(f"a network that can be built of {unet}"):
        with torch.device("meta"):  # so that it takes no more memory than its file
            network = diffusers.UNet2DModel.from_config(config)
        network.load_state_dict(tensors, assign=True)
        alphas = diffusers.DDPMScheduler.from_config(noise).alphas_cumprod
    classes = config.get("num_class_embeds") or 0
    predicts = noise.get("prediction_type", "epsilon")
    made = DiffusersDenoiser(network, alphas, predicts=predicts, classes=classes)
    return made.eval().requires_grad_(False)


def _first(*paths: Path) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _json(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return dict(json.loads(file.read(100_000)))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise PagsError(
            "a JSON file of settings", got=f"{path} ({error})", suggestion="another copy of the folder"
        ) from error


def _at_most(most: int, settings: dict[str, Any], name: str) -> None:
    value = settings.get(name, 1)
    if not (isinstance(value, int) and 0 < value <= most):
        raise PagsError(
            f"{name} from 1 to {most:,}", got=str(value)[:80], suggestion="another copy of the folder"
        )


def _diffusers() -> Any:
    try:
        return import_module("diffusers")
    except ImportError as error:
        raise PagsError(
            "diffusers, which builds this network",
            got=f"no such package installed ({error.name})",
            suggestion="pip install diffusers, or file.py:name of a function of images and sigma",
        ) from error
