from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from calograd.errors import TablesError
from calograd.geant4.download import DATASETS, Dataset, download


def make_archive(folder: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        content = b"table" * 40000
        info = tarfile.TarInfo(f"{folder}/brem_SB/br1")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


ARCHIVE = make_archive("G4EMLOW8.8")
GOOD = Dataset("G4EMLOW", "8.8", hashlib.md5(ARCHIVE, usedforsecurity=False).hexdigest())


class Server(ThreadingHTTPServer):
    """Serves ``ARCHIVE`` under every name, its first ``limit`` bytes if that is set; keeps the ranges asked for."""

    limit: int | None = None
    archive = ARCHIVE

    def __init__(self) -> None:
        self.ranges: list[str | None] = []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        wanted = self.headers.get("Range")
        server.ranges.append(wanted)
        if "missing" in self.path:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if start >= len(server.archive):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(server.archive) - start))
        self.end_headers()
        self.wfile.write(server.archive[start : server.limit])

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fetch(server: Server, folder: Path, dataset: Dataset = GOOD, path: str = "") -> list[Path]:
    return download(folder, lambda *report: None, (dataset,), f"http://127.0.0.1:{server.server_port}{path}")


def test_download_unpacks_and_is_not_repeated(server: Server, tmp_path: Path) -> None:
    reports = []
    base = f"http://127.0.0.1:{server.server_port}"
    (folder,) = download(tmp_path / "data", lambda *report: reports.append(report), (GOOD,), base)
    assert (folder / "brem_SB/br1").read_bytes() == b"table" * 40000
    assert reports[-1] == ("G4EMLOW.8.8.tar.gz", len(ARCHIVE), len(ARCHIVE))
    assert [entry.name for entry in (tmp_path / "data").iterdir()] == ["G4EMLOW8.8"]
    fetch(server, tmp_path / "data")
    assert len(server.ranges) == 1


def test_a_download_that_broke_off_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.limit = 300
    with pytest.raises(TablesError, match=f"broke off after 300 of {len(ARCHIVE)} bytes; repeat"):
        fetch(server, tmp_path)
    assert not (tmp_path / "G4EMLOW8.8").exists()
    server.limit = None
    fetch(server, tmp_path)
    assert server.ranges == [None, "bytes=300-"]
    assert (tmp_path / "G4EMLOW8.8/brem_SB/br1").is_file()


def test_wrong_checksum_is_refused_and_removed(server: Server, tmp_path: Path) -> None:
    with pytest.raises(TablesError, match=f"checksum {GOOD.md5}, expected {DATASETS[0].md5}"):
        fetch(server, tmp_path, DATASETS[0])
    assert list(tmp_path.iterdir()) == []


def test_left_over_of_another_file_is_found_by_its_checksum(server: Server, tmp_path: Path) -> None:
    (tmp_path / "G4EMLOW.8.8.tar.gz.part").write_bytes(b"z" * (len(ARCHIVE) + 5))
    with pytest.raises(TablesError, match="checksum"):
        fetch(server, tmp_path)
    fetch(server, tmp_path)
    assert (tmp_path / "G4EMLOW8.8").is_dir()


def test_archive_without_its_folder(server: Server, tmp_path: Path) -> None:
    with pytest.raises(TablesError, match=r"does not contain G4OTHER8\.8"):
        fetch(server, tmp_path, Dataset("G4OTHER", "8.8", GOOD.md5))
    assert not (tmp_path / "G4OTHER8.8").exists()


def test_server_errors_are_one_line(server: Server, tmp_path: Path) -> None:
    with pytest.raises(TablesError, match="answers 404"):
        fetch(server, tmp_path, path="/missing")
    with pytest.raises(TablesError, match=r"cannot be fetched: .*refused"):
        download(tmp_path, lambda *report: None, (GOOD,), "http://127.0.0.1:9")


def test_folder_that_cannot_be_made(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TablesError, match="XDG_DATA_HOME"):
        fetch(server, tmp_path / "file" / "data")


def test_command_shows_the_wrong_checksum(server: Server, tmp_path: Path, monkeypatch, run_calograd) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    code, _, err = run_calograd("tables", "--download", "--url", f"http://127.0.0.1:{server.server_port}/")
    assert code == 2
    assert err.splitlines()[-1].startswith("error: http://127.0.0.1")
    assert "repeat the download" in err
