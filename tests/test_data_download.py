"""Downloads from a server of the test's own: whole, resumed, checked, refused; and no network at all."""

import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import pytest

import pags.data.download as module
from pags.data.download import WEIGHTS, Remote, digest, fetch
from pags.data.sources import load_data
from pags.errors import PagsError

CONTENT = bytes(range(256)) * 40


class Handler(BaseHTTPRequestHandler):
    ranges = True
    short = False
    asked: list[str | None] = []  # noqa: RUF012

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.ranges else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : -100 if self.short else None])

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(Handler, "asked", [])
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/file.bin"
        server.shutdown()


def remote(url: str, **checks: Any) -> Remote:
    return Remote("file.bin", (url,), **checks)


def test_a_file_comes_whole_and_once(url: str, tmp_path: Path) -> None:
    shares: list[float] = []
    md5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    wanted = remote(url, md5=md5, sha256=hashlib.sha256(CONTENT).hexdigest())
    path = fetch(wanted, tmp_path / "new", on_progress=lambda what, share: shares.append(share))
    assert path.read_bytes() == CONTENT
    assert shares[-1] == 1.0
    fetch(wanted, tmp_path / "new")
    assert len(Handler.asked) == 1
    assert [entry.name for entry in path.parent.iterdir()] == ["file.bin"]
    assert digest(path, "sha256") == hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize("ranges", [True, False])
def test_what_broke_off_is_continued(
    ranges: bool, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Handler, "ranges", ranges)
    monkeypatch.setattr(Handler, "short", True)
    with pytest.raises(PagsError, match="broke off after 10140 of 10240 bytes"):
        fetch(remote(url), tmp_path)
    assert not (tmp_path / "file.bin").exists()
    monkeypatch.setattr(Handler, "short", False)
    assert fetch(remote(url), tmp_path).read_bytes() == CONTENT
    assert Handler.asked == [None, "bytes=10140-"]


def test_a_part_that_is_already_too_long_is_thrown_away(url: str, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(b"x" * 20000)
    assert fetch(remote(url), tmp_path).read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_no_file(url: str, tmp_path: Path) -> None:
    with pytest.raises(PagsError, match=r"file\.bin with md5 0000"):
        fetch(remote(url, md5="0000"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_next_address_is_tried(url: str, tmp_path: Path) -> None:
    closed = Remote("file.bin", ("http://127.0.0.1:9/file.bin", url))
    assert fetch(closed, tmp_path).read_bytes() == CONTENT


def test_a_folder_that_cannot_be_made_is_our_side(url: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(PagsError, match="room and permission to write"):
        fetch(remote(url), tmp_path / "file" / "below")


CLOSED = {
    "no name server": URLError(socket.gaierror(-2, "Name or service not known")),
    "no answer": TimeoutError("timed out"),
    "refused": URLError(ConnectionRefusedError(111, "Connection refused")),
    "forbidden": HTTPError("http://x", 403, "Forbidden", {}, None),  # type: ignore[arg-type]
    "cut off": ConnectionResetError(104, "Connection reset by peer"),
}


@pytest.mark.parametrize(
    "name", ["mnist", "fashion-mnist", "cifar10", "cifar100", "svhn", "mnist-distractor"]
)
@pytest.mark.parametrize("why", CLOSED)
def test_a_closed_network_ends_in_one_line_that_names_the_files(
    name: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(request: object, timeout: float) -> None:
        assert 0 < timeout <= 30
        raise CLOSED[why]

    monkeypatch.setattr(module, "urlopen", closed)
    with pytest.raises(PagsError, match=r"\(md5 [0-9a-f]{32}\).* in .*the variable PAGS_DATA") as caught:
        load_data(name, folder=tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_without_leave_nothing_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "urlopen", lambda *_, **__: pytest.fail("the network was asked"))
    with pytest.raises(PagsError, match="no download asked for"):
        load_data("cifar10", folder=tmp_path, download=False)


def test_pretrained_denoisers_have_their_addresses() -> None:
    assert len(WEIGHTS) == 3
    for name, weights in WEIGHTS.items():
        assert weights.name == f"{name}.pkl"
        assert weights.urls[0].endswith(f"/edm/pretrained/{name}.pkl")
