"""``calograd tables``."""

from __future__ import annotations

import importlib.util

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from calograd.cli.common import console, print_table, stages
from calograd.detector.material import MATERIALS
from calograd.errors import TablesError
from calograd.geant4.download import BASE_URL
from calograd.geant4.download import download as fetch
from calograd.geant4.tables import Tables, data_home, find_tables


@click.command()
@click.option("--check", is_flag=True, help="Verify the tables of every material that calograd knows by name.")
@click.option("--download", is_flag=True, help="Fetch G4EMLOW and G4ENSDFSTATE and verify their checksums.")
@click.option("--url", default=BASE_URL, show_default=True, help="Where to fetch from: CERN or a mirror of it.")
def tables(check: bool, download: bool, url: str) -> None:
    """Show where Geant4's data tables are, check them, or fetch the two that are needed.

    The folder in the variable CALOGRAD_GEANT4_DATA goes first, then Geant4's own variables, then the download folders
    of geant4-pybind and calograd. A complete (official) set wins over a reduced one.

    \b
    Examples:
      calograd tables
      calograd tables --download
      CALOGRAD_GEANT4_DATA=/data/geant4 calograd tables --check
    """
    if download:
        with _download_bar() as bar:
            fetch(data_home(), stages(bar), base_url=url.rstrip("/"))
    found = find_tables()
    binding = "installed" if importlib.util.find_spec("geant4_pybind") else "missing; pip install 'calograd[geant4]'"
    rows = [
        ("set", found.name),
        ("found through", found.origin),
        ("G4LEDATA", str(found.emlow)),
        ("G4ENSDFSTATEDATA", str(found.ensdfstate)),
        ("geant4-pybind", binding),
    ]
    if check:
        rows.append(("can be simulated", _able(found)))
    print_table("Geant4 tables", ("", ""), rows)


def _able(found: Tables) -> str:
    """Names of the materials whose tables are there; raises `TablesError` if not even PbF2 can be simulated."""
    found.check({"H", "Pb", "F"})
    able = []
    for name, material in MATERIALS.items():
        try:
            found.check({"H", *material.mass_fractions})
        except TablesError:
            continue
        able += [] if name.startswith("G4_") else [name]
    return ", ".join(able)


def _download_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        TextColumn("left"), TimeRemainingColumn(), console=console,
    )  # fmt: skip
