"""``calograd tables``."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import click

from calograd.cli.common import print_table
from calograd.cli.progress import progress
from calograd.errors import TablesError

if TYPE_CHECKING:
    from calograd.geant4.tables import Tables


@click.command()
@click.option("--check", is_flag=True, help="Check the tables of every material that calograd knows by name.")
@click.option("--download", is_flag=True, help="Fetch G4EMLOW and G4ENSDFSTATE and check their checksums.")
@click.option("--url", help="Server of --download, a mirror of CERN's. [CERN]")
def tables(check: bool, download: bool, url: str | None) -> None:
    """Show where Geant4's data tables are, check them, or fetch the two that are needed.

    The search begins with the folder in the variable CALOGRAD_GEANT4_DATA. Geant4's own variables follow, then the
    download folders of geant4-pybind and calograd. A complete (official) set wins over a reduced one.

    \b
    Examples:
      calograd tables
      calograd tables --download
      CALOGRAD_GEANT4_DATA=/data/geant4 calograd tables --check
    """
    from calograd.geant4.download import BASE_URL
    from calograd.geant4.download import download as fetch
    from calograd.geant4.tables import data_home, find_tables

    if download:
        with progress("download") as show:

            def report(archive: str, done: int, total: int | None) -> None:
                show(f"{archive}, MB", done // 10**6, None if total is None else total // 10**6)

            fetch(data_home(), report, base_url=(url or BASE_URL).rstrip("/"))
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
    """Return the materials whose tables are there. Raises `TablesError` if PbF2 is not among them."""
    from calograd.detector.material import MATERIALS

    found.check({"H", "Pb", "F"})
    able = []
    for name, material in MATERIALS.items():
        try:
            found.check({"H", *material.mass_fractions})
        except TablesError:
            continue
        able += [] if name.startswith("G4_") else [name]
    return ", ".join(able)
