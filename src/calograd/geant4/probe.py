"""Ask Geant4 in a separate process: for its version and materials, or what another module has to ask.

``python -m calograd.geant4.probe NAME...`` prints one line of JSON. Geant4 itself writes to standard output too,
so the line is marked. `calograd.geant4.gdml` asks in the same way.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from calograd.detector.material import MATERIALS, SYMBOLS, Material
from calograd.errors import InputError, SimulationError
from calograd.geant4.geometry import G_PER_CM3
from calograd.geant4.tables import Tables, find_tables

_MARK = "calograd-probe "
_EXCEPTION = re.compile(r"issued by : [^\n]*\n(.*?)\n?\*\*\* Fatal Exception", re.DOTALL)
"""The description in the block that Geant4 prints before it ends its process."""


@dataclass(frozen=True)
class Geant4:
    """Geant4's version (``11.4.1``) and the materials that were asked for."""

    version: str
    materials: dict[str, Material]


def ask(tables: Tables, names: tuple[str, ...] = ()) -> Geant4:
    """Return the version of Geant4, and the materials of its own list with the given names (``G4_...``).

    Raises:
        InputError: Geant4 has no such material.
        SimulationError: geant4-pybind is not installed or does not start.
    """
    answer = run_probe(tables, "calograd.geant4.probe", *names)
    for name in names:
        if answer["materials"][name] is None:
            raise InputError(f"Geant4 has no material '{name}'; see the list in its documentation, or give "
                             "NAME:DENSITY:FORMULA such as BGO:7.13:Bi4Ge3O12")  # fmt: skip
    return Geant4(answer["version"], {name: Material(**answer["materials"][name]) for name in names})


def run_probe(tables: Tables, module: str, *arguments: str) -> dict[str, Any]:
    """Return what a module answers that is run in a process of its own and calls `print_answer`.

    Raises:
        InputError: an exception of Geant4, which ends its process; the error holds its description.
        SimulationError: geant4-pybind is not installed or does not start.
    """
    process = subprocess.run(
        [sys.executable, "-P", "-m", module, *arguments], env=tables.environment(os.environ), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    lines = [line for line in process.stdout.splitlines() if line.startswith(_MARK)]
    if lines:
        answer: dict[str, Any] = json.loads(lines[-1].removeprefix(_MARK))
        return answer
    if "No module named 'geant4_pybind'" in process.stderr:
        raise SimulationError("geant4-pybind is not installed; pip install 'calograd[geant4]'")
    raised = _EXCEPTION.search(process.stderr)
    if raised:
        raise InputError(raised[1])
    last = (process.stderr.strip() or process.stdout.strip() or "no output").splitlines()[-1]
    raise SimulationError(f"Geant4 does not start (exit code {process.returncode}): {last}; see 'calograd tables'")


def print_answer(answer: dict[str, Any]) -> None:
    """Print the answer of a probe and end its process as the kernel does."""
    sys.stdout.write(f"\n{_MARK}{json.dumps(answer)}\n")
    sys.stdout.flush()
    os._exit(0)


def find_material(text: str) -> Material:
    """Return a material by its name here, by a formula, or from Geant4's own list (``G4_...``), which Geant4 knows.

    Raises:
        InputError: an unknown material; see `calograd.detector.material.Material.parse`.
        SimulationError: Geant4 has to be asked and does not start.
    """
    if text.startswith("G4_") and text not in MATERIALS:
        return ask(find_tables(), (text,)).materials[text]
    return Material.parse(text)


def _numbers(g4: Any, name: str) -> dict[str, Any] | None:
    material = g4.G4NistManager.Instance().FindOrBuildMaterial(name, True, False)
    if material is None:
        return None
    return numbers_of(material) | {"name": name, "geant4_name": name}


def numbers_of(material: Any) -> dict[str, Any]:
    """Return name, density (g/cm3) and mass fractions of a material of Geant4."""
    fractions: dict[str, float] = {}
    vector = material.GetFractionVector()
    for number in range(material.GetNumberOfElements()):
        symbol = SYMBOLS[round(material.GetElement(number).GetZ()) - 1]
        fractions[symbol] = fractions.get(symbol, 0.0) + float(vector[number])
    return {
        "name": str(material.GetName()),
        "density": float(f"{material.GetDensity() / G_PER_CM3:.7g}"),
        "mass_fractions": fractions,
    }


def main() -> None:
    """Print the version and the materials named on the command line; exit as the kernel does."""
    import geant4_pybind as g4

    parts = re.findall(r"\d+", str(g4.G4Version).removeprefix("$Name: geant4-"))
    version = ".".join(str(int(part)) for part in parts)
    print_answer({"version": version, "materials": {name: _numbers(g4, name) for name in sys.argv[1:]}})


if __name__ == "__main__":
    main()
