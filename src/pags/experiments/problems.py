"""What is to be made by following gradients, the same for every model, and how the results are measured.

An independent network says whether it recognises the target class; restorations are compared with the
originals.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from pags.arrays import Images, Labels, PerImage
from pags.data.imageset import DataSet
from pags.errors import UsageError
from pags.generate import (
    Followed,
    denoise,
    enlarged,
    filled,
    gaussian_starts,
    inpaint,
    super_resolve,
    synthesise,
)
from pags.measure.lpips import LPIPS
from pags.measure.restoration import named_as, perceptual_distance, psnr
from pags.seeds import generator
from pags.settings import Settings

Task = Literal["synthesis-from-noise", "synthesis-from-class", "denoising", "in-painting", "super-resolution"]
TASKS: tuple[Task, ...] = (
    "synthesis-from-noise", "synthesis-from-class", "denoising", "in-painting", "super-resolution",
)  # fmt: skip

Columns = dict[str, PerImage]


class GenerateSettings(Settings):
    """The problems that are set, the same for every model."""

    tasks: Annotated[tuple[Task, ...], Field(min_length=1)] = TASKS
    """What is made."""
    images: Annotated[int, Field(ge=2)] = 64
    """Test images, a seeded sample, that are degraded and restored; as many are synthesised."""
    shown: NonNegativeInt = 10
    """Images of each that are shown."""
    steps: PositiveInt | None = None
    """Steps of every procedure; the default of each unless said."""
    classes: Literal["given", "predicted"] = "given"
    """Whose class a restoration aims at: the original's, or what the model sees in the degraded image."""
    noise: PositiveFloat = 0.3
    """Standard deviation of the noise to be removed, for images in [0, 1]."""
    hole: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Side of the square hole to be filled, as a share of the image's sides."""
    factor: Annotated[int, Field(ge=2)] = 2
    """How many times larger the small images are to become."""
    batch_size: PositiveInt = 256
    """Images that are followed at a time."""


@dataclass(frozen=True)
class Problems:
    """What is to be restored and from where synthesis starts: a function of data and settings alone."""

    originals: Images
    labels: Labels
    targets: Labels
    starts: dict[str, Images]
    masks: Bool[Tensor, "n h w"]
    small: Float[Tensor, "n c low narrow"]


def set_problems(data: DataSet, settings: GenerateSettings, seed: int) -> Problems:
    """The problems of these settings.

    Raises:
        UsageError: more images than the test set has, or sides that the factor does not divide.
    """
    _, height, width = data.test.shape
    if settings.images > len(data.test) or height % settings.factor or width % settings.factor:
        raise UsageError(
            f"at most {len(data.test)} images and a factor that divides {height} and {width}",
            got=f"{settings.images} images and factor {settings.factor}",
            suggestion="--images 64, factor = 2",
        )

    def draws(what: str) -> torch.Generator:
        return generator(seed, "generate", what)

    some = data.test.sample(settings.images, seed)
    originals, labels = some.images, some.labels
    targets = torch.arange(len(some), device=labels.device) % len(some.classes)
    masks = _holes(len(some), height, width, settings.hole, draws("holes")).to(labels.device)
    noise = torch.randn(originals.shape, generator=draws("noise")).to(originals)
    small = avg_pool2d(originals, settings.factor)
    start: dict[Task, Callable[[], Images]] = {
        "synthesis-from-noise": lambda: torch.rand(originals.shape, generator=draws("starts")).to(originals),
        "synthesis-from-class": lambda: gaussian_starts(data.train, targets, draws=draws("class starts")),
        "denoising": lambda: (originals + settings.noise * noise).clamp(0, 1),
        "in-painting": lambda: filled(originals, masks),
        "super-resolution": lambda: enlarged(small, settings.factor),
    }
    starts: dict[str, Images] = {task: start[task]() for task in settings.tasks}
    return Problems(originals, labels, targets, starts, masks, small)


def solve(
    task: str,
    model: nn.Module,
    problems: Problems,
    settings: GenerateSettings,
    report: Callable[[float], None],
) -> Followed:
    """Follow the gradient of a model on the problems of one task."""
    start = problems.starts[task]
    classes = problems.labels if settings.classes == "given" else None
    options: dict[str, Any] = {"batch_size": settings.batch_size, "report": report}
    options |= {} if settings.steps is None else {"steps": settings.steps}
    if task == "denoising":
        return denoise(model, start, classes, sigma=settings.noise, **options)
    if task == "in-painting":
        return inpaint(model, start, problems.masks, classes, **options)
    if task == "super-resolution":
        return super_resolve(model, problems.small, settings.factor, classes, **options)
    return synthesise(model, start, problems.targets, **options)


def compared(
    images: dict[str, Images], problems: Problems, judge: nn.Module, lpips: LPIPS, settings: GenerateSettings
) -> Columns:
    """What the judge sees in each image of a task; for restorations, how near they are to the originals."""
    columns = {}
    for task in settings.tasks:
        made = images[task]
        aims = problems.targets if task.startswith("synthesis") else problems.labels
        columns[f"{task}: named"] = named_as(judge, made, aims, batch_size=settings.batch_size)
        if not task.startswith("synthesis"):
            columns[f"{task}: psnr"] = psnr(made, problems.originals)
            columns[f"{task}: lpips"] = perceptual_distance(made, problems.originals, lpips)
    return {name: column.cpu() for name, column in columns.items()}


def _holes(n: int, height: int, width: int, share: float, draws: torch.Generator) -> Bool[Tensor, "n h w"]:
    """True outside one square of each image, placed at random wholly inside it."""
    inside = []
    for side in (height, width):
        size = min(max(1, round(share * side)), side - 1) if side > 1 else 1
        first = torch.randint(0, side - size + 1, (n, 1), generator=draws)
        places = torch.arange(side)
        inside.append((places >= first) & (places < first + size))  # (n, side)
    return ~(inside[0][:, :, None] & inside[1][:, None, :])
