"""On which machine, with which versions and from which commit something was made: for records and pages."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from pags.records import Record


def made_by(fabric: Fabric | None = None) -> Record:
    """Device, processes, versions and commit; no part of any key."""
    cuda = fabric is not None and fabric.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(fabric.device) if fabric is not None and cuda else "cpu",
        "processes": 1 if fabric is None else fabric.world_size,
        "versions": {
            "python": platform.python_version(),
            **{package: _version(package) for package in ("pags", "torch", "torchvision")},
        },
        "commit": _commit(),
    }


def made_now(command: str) -> Record:
    """For the footer of a page: what was said, when, and by what."""
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    return {"command": command, "date": date, "machine": _machine(), **made_by()}


def _machine() -> str:
    return f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the package's source, where it is used from a repository that holds it."""
    folder = Path(__file__).parent

    def git(*words: str) -> Any:
        return subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "settings.py")
        return git("rev-parse", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return None
