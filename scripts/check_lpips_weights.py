"""Check `pags lpips` against the values that the authors' own code gives for five pairs of photographs.

    python scripts/check_lpips_weights.py [--archive pyiqa-0.1.16.tar.gz]

The source archive of the package pyiqa holds the pairs and, in `results_official.csv`, what the reference
implementation of LPIPS (AlexNet, v0.1) says of them, to four digits. The archive is fetched by pip; the
photographs are not ours to ship. Exits with status 1 if a value differs by more than 2e-4.
"""

import argparse
import csv
import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from pags.measure.lpips import lpips_of_files

PACKAGE = "pyiqa==0.1.16"
TOLERANCE = 2e-4


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare pags lpips with published reference values.")
    parser.add_argument("--archive", type=Path, help=f"the source archive of {PACKAGE}, if it is at hand")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = compared(arguments.archive or fetched(Path(folder)), Path(folder))
    for name, (expected, ours) in found.items():
        print(f"{name}  reference {expected:.4f}  pags {ours:.4f}")
    return int(any(abs(expected - ours) > TOLERANCE for expected, ours in found.values()))


def fetched(folder: Path) -> Path:
    """The archive, by pip."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, "--no-deps", "--no-binary", ":all:", PACKAGE, "-d", folder], check=True)
    return next(folder.glob("pyiqa-*.tar.gz"))


def compared(archive: Path, folder: Path) -> dict[str, tuple[float, float]]:
    """For each pair, the reference value and ours."""
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    results = next(folder.glob("*/ResultsCalibra"))
    rows = list(csv.reader(io.StringIO((results / "results_official.csv").read_text())))
    expected = next(row for row in rows if row[0] == "lpips")
    return {
        name: (float(value), lpips_of_files(results / "ref_dir" / name, results / "dist_dir" / name))
        for name, value in zip(rows[0][1:], expected[1:], strict=True)
    }


if __name__ == "__main__":
    sys.exit(main())
