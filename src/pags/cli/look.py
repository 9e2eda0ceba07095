"""`pags lpips` and `pags doctor`: short looks at two images, and at this machine."""

from pathlib import Path
from typing import Annotated

import typer

from pags.cli.progress import console


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(epilog="Example: pags lpips before.png after.png")(lpips)
    app.command(epilog="Example: pags doctor")(doctor)


def lpips(
    a: Annotated[Path, typer.Argument(help="An image.")],
    b: Annotated[Path, typer.Argument(help="Another image of the same size.")],
) -> None:
    """The perceptual distance of two images (LPIPS, AlexNet): 0 for equal ones."""
    from pags.cli.show import finish
    from pags.measure.lpips import lpips_of_files

    distance = lpips_of_files(a, b)
    console.print(f"{distance:.4f}")
    finish({"lpips": distance})


def doctor() -> None:
    """What this machine has: versions, cores, memory, accelerators."""
    import os
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from pags.cli.show import finish

    rows = {
        "python": platform.python_version(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
    }
    pages = getattr(os, "sysconf", lambda name: 0)
    rows["memory"] = f"{pages('SC_PAGE_SIZE') * pages('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    for package in ("pags", "torch", "torchvision", "lightning-fabric", "safetensors", "timm", "captum"):
        try:
            rows[package] = version(package)
        except PackageNotFoundError:
            rows[package] = "not installed"
    cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    rows["accelerators"] = ", ".join(cuda) or "none; everything runs on the CPU"
    for name, value in rows.items():
        console.print(f"{name:18}{value}", markup=False)
    finish(rows)
