"""What ships with the package: small networks for CIFAR-10 (JPEG) and a dozen of its test images.

README.md beside this file says how each was trained and what was measured of it;
`scripts/ship_networks.py` makes the files.
"""

from pathlib import Path

from pags.arrays import Images, Labels
from pags.errors import UsageError
from pags.store import read_safetensors

FOLDER = Path(__file__).parent
CLASSIFIERS = tuple(sorted(path.stem for path in FOLDER.glob("cifar10-*.safetensors")))
"""Names of classifiers, each in half precision: `pags.load_classifier("pags:cifar10-standard")`."""
DENOISER = "cifar10"
"""Name of the denoiser, which knows the classes: `pags.load_denoiser("pags:cifar10")`."""


def shipped(name: str, known: tuple[str, ...]) -> Path:
    """The file of a network that ships with the package.

    Args:
        name: what follows `pags:` in a spec.
        known: the names that are meant: `CLASSIFIERS`, or `(DENOISER,)`.

    Raises:
        UsageError: no such network ships.
    """
    if name not in known:
        raise UsageError(
            f"pags: and one of {', '.join(known)}", got=repr(f"pags:{name}"), suggestion=f"pags:{known[0]}"
        )
    return FOLDER / (f"denoiser-{name}.safetensors" if known == (DENOISER,) else f"{name}.safetensors")


def shipped_images() -> tuple[Images, Labels]:
    """A dozen test images of CIFAR-10 (JPEG), the first of each class and two more: (12, 3, 32, 32) in
    [0, 1], and their classes in alphabetical order, (12,)."""
    tensors, _ = read_safetensors(FOLDER / "images.safetensors")
    return tensors["images"].float() / 255, tensors["labels"]
