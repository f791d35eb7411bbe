"""Download the two Geant4 datasets that electromagnetic showers need, and verify Geant4's own checksums.

An interrupted download resumes where it stopped. An archive is unpacked beside its destination and moved into place, so
that a dataset is there completely or not at all.
"""

from __future__ import annotations

import hashlib
import http.client
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from calograd.errors import TablesError

BASE_URL = "https://cern.ch/geant4-data/datasets"
_BLOCK = 1 << 20
_TIMEOUT = 30.0


@dataclass(frozen=True)
class Dataset:
    """One archive ``{name}.{version}.tar.gz``, which unpacks to the folder ``{name}{version}``."""

    name: str
    version: str
    md5: str

    @property
    def archive(self) -> str:
        """Name of the file to download."""
        return f"{self.name}.{self.version}.tar.gz"

    @property
    def folder(self) -> str:
        """Name of the folder to which it unpacks."""
        return f"{self.name}{self.version}"


DATASETS = (
    Dataset("G4EMLOW", "8.8", "328330009df633f7e9b3a9f445745298"),
    Dataset("G4ENSDFSTATE", "3.0", "c500728534ce3e9fb2fefa0112eb3a74"),
)
"""Versions and checksums that geant4-pybind 0.1.3 (Geant4 11.4.1) asks for."""

DownloadProgress = Callable[[str, int, int | None], None]
"""Called with the name of an archive, the bytes received and the bytes expected, if known."""


def download(
    folder: Path,
    progress: DownloadProgress,
    datasets: tuple[Dataset, ...] = DATASETS,
    base_url: str = BASE_URL,
) -> list[Path]:
    """Download and unpack the datasets into ``folder``; datasets that are there already stay as they are.

    Returns:
        The folders of the datasets.

    Raises:
        TablesError: the server cannot be reached, the transfer broke off, the checksum is wrong, the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for dataset in datasets:
            if not (folder / dataset.folder).is_dir():
                archive = folder / f"{dataset.archive}.part"
                _fetch(f"{base_url}/{dataset.archive}", archive, dataset, progress)
                _unpack(archive, folder, dataset)
                archive.unlink()
    except OSError as error:
        raise TablesError(f"{folder}: {error.strerror or error}; free some space or choose a folder to write to "
                          "with XDG_DATA_HOME, then repeat") from error  # fmt: skip
    return [folder / dataset.folder for dataset in datasets]


def _fetch(url: str, archive: Path, dataset: Dataset, progress: DownloadProgress) -> None:
    """Complete ``archive`` from where it stopped, and verify its checksum."""
    have = archive.stat().st_size if archive.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            if answer.status != http.client.PARTIAL_CONTENT:
                have = 0
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length else None
            with archive.open("ab" if have else "wb") as file:
                while block := answer.read(_BLOCK):
                    have += file.write(block)
                    progress(dataset.archive, have, total)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise TablesError(f"{url}: the server answers {error.code} {error.reason}; try again later") from error
    except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise TablesError(f"{url} cannot be fetched: {reason}; check the network, then repeat to go on") from error
    else:
        if total is not None and have < total:
            raise TablesError(f"{url} broke off after {have} of {total} bytes; repeat to go on from there")
    found = _md5(archive)
    if found != dataset.md5:
        archive.unlink()
        raise TablesError(f"{url} has checksum {found}, expected {dataset.md5}; it was removed, repeat the download")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _unpack(archive: Path, folder: Path, dataset: Dataset) -> None:
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpack-") as temporary:
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(temporary, filter="data")
        except tarfile.TarError as error:
            raise TablesError(f"{dataset.archive} cannot be unpacked: {error}; repeat the download") from error
        unpacked = Path(temporary) / dataset.folder
        if not unpacked.is_dir():
            raise TablesError(f"{dataset.archive} does not contain {dataset.folder}; report this")
        shutil.rmtree(folder / dataset.folder, ignore_errors=True)
        unpacked.replace(folder / dataset.folder)
