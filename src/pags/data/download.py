"""Files from the network: checked, resumed where they broke off, there whole or not at all."""

import errno
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from pags.errors import PagsError

TIMEOUT = 10.0
"""Seconds without an answer after which a server counts as out of reach."""

OURS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR}
"""Errors of our disk rather than of the network."""

Report = Callable[[str, float], None]
"""Called with what is being done and the fraction completed."""


@dataclass(frozen=True)
class Remote:
    """A file that can be had from the network.

    Args:
        name: the file's name on disk.
        urls: where it can be had, tried in turn.
        md5, sha256: what it must hash to, where that is known.
        size: bytes, where that is known.
    """

    name: str
    urls: tuple[str, ...]
    md5: str | None = None
    sha256: str | None = None
    size: int | None = None


def default_folder() -> Path:
    """Where data sets are kept: the folder that PAGS_DATA names, or ~/.cache/pags/data."""
    named = os.environ.get("PAGS_DATA")
    return Path(named) if named else Path("~/.cache/pags/data").expanduser()


def digest(path: Path, kind: str) -> str:
    """The md5 or sha256 of a file, read in parts."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


def fetch(
    remote: Remote,
    folder: Path,
    *,
    needed: Sequence[Remote] = (),
    on_progress: Report = lambda what, share: None,
) -> Path:
    """The file in `folder`, downloaded if it is not there.

    What was downloaded before a break is kept in NAME.part and continued; the file gets its name when it is
    complete and its checksum right.

    Args:
        needed: all files that are still lacking, to be named together where the network is closed.
        on_progress: told what is being done and the share of it that is finished.

    Raises:
        PagsError: no server answers, the file is not what it should be, or the folder cannot be written.
    """
    path = folder / remote.name
    if path.is_file():
        return path
    reasons = []
    for url in remote.urls:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f"{path.name}.part")
            _download(url, part, on_progress)
            _check(part, remote)
            part.replace(path)
            return path
        except (HTTPException, OSError) as error:  # URLError and timeouts are OSErrors
            if not isinstance(error, URLError) and getattr(error, "errno", None) in OURS:
                raise PagsError(
                    f"room and permission to write {path}",
                    got=error,
                    suggestion="another folder in the variable PAGS_DATA",
                ) from error
            reasons.append(
                f"{urlsplit(url).hostname}: {getattr(error, 'reason', None) or str(error) or 'no answer'}"
            )
    raise missing(folder, needed or [remote], "; ".join(reasons))


def missing(folder: Path, files: Sequence[Remote], got: str) -> PagsError:
    """The error that names the files which are needed, where they belong and where they can be had."""
    names = ", ".join(file.name + (f" (md5 {file.md5})" if file.md5 else "") for file in files)
    where = files[0].urls[0].rpartition("/")[0]
    return PagsError(
        f"{names} in {folder}",
        got=got,
        suggestion=f"copying from {where} on a machine with a network, or a folder that has them in the "
        "variable PAGS_DATA",
    )


def _download(url: str, part: Path, on_progress: Report) -> None:
    """Continue `part` to the end of what the server has."""
    have = part.stat().st_size if part.is_file() else 0
    try:
        response = _open(url, have)
    except HTTPError as error:
        if error.code != 416 or not have:  # nothing after what we have: complete, or another file
            raise
        part.unlink()
        have, response = 0, _open(url, 0)
    with response, part.open("ab" if response.status == 206 else "wb") as file:
        total = file.tell() + int(response.headers.get("Content-Length") or 0)
        while block := response.read(2**18):
            file.write(block)
            on_progress(f"downloading {part.stem}", file.tell() / total if total else 0.0)
        if total and file.tell() < total:
            raise TimeoutError(f"broke off after {file.tell()} of {total} bytes; run again, it continues")


def _open(url: str, start: int) -> HTTPResponse:
    """An answer that begins at byte `start`, or at the beginning where the server cannot."""
    headers = {"User-Agent": "pags"} | ({"Range": f"bytes={start}-"} if start else {})
    return urlopen(Request(url, headers=headers), timeout=TIMEOUT)


def _check(path: Path, remote: Remote) -> None:
    """Raise, and forget the file, unless it is what it should be."""
    for kind, wanted in (("md5", remote.md5), ("sha256", remote.sha256)):
        if wanted is not None and (got := digest(path, kind)) != wanted:
            path.unlink()
            raise PagsError(
                f"{remote.name} with {kind} {wanted}",
                got=f"{got} from {remote.urls[0]}",
                suggestion="fetching it again; if it stays so, the file behind the address has changed",
            )


EDM = "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/"

WEIGHTS = {
    name: Remote(f"{name}.pkl", (f"{EDM}{name}.pkl",))
    for name in (
        "edm-cifar10-32x32-uncond-vp",
        "edm-cifar10-32x32-cond-vp",
        "edm-imagenet-64x64-cond-adm",
    )
}
"""Pretrained denoisers (Karras et al., 2022). Sizes and checksums are added once they are known."""
