"""Files of generated showers in stacks of plates, of the layout of simulated ones.

`calograd.events.library.reader.open_plates` reads them. In place of a simulation their configuration has the surrogate,
the materials and the settings of the sample (`calograd.events.library.schema.Generated`). Where points were generated,
each is a deposit in the middle of its active plate, without a time.
"""

from __future__ import annotations

from pathlib import Path

from calograd.errors import InputError
from calograd.events.library.schema import Generated, Provenance, pack, values_problem
from calograd.events.plates import PlateShowers
from calograd.io.files import refuse_existing, write_new


def write_plates(path: Path | str, showers: PlateShowers) -> None:
    """Write a file of generated showers; it appears when it is complete.

    Raises:
        OutputExistsError: ``path`` exists.
        InputError: no showers, NaN or negative energies, showers of Geant4, or a folder or disk that cannot be written.
    """
    path = Path(path)
    refuse_existing(path)
    if showers.origin == "geant4":
        raise InputError(f"{path} is not written: showers of Geant4 are in the library of their simulation already")
    problem = values_problem(showers) if len(showers) else "there are no showers"
    if problem is None and showers.deposits is not None:
        problem = values_problem(showers, showers.deposits)
    if problem:
        raise InputError(f"{path} is not written: {problem}")
    given = next((m for m in (*showers.absorbers, *showers.actives, showers.gap_material) if m.given), None)
    if given is not None:
        numbers = ", ".join(given.given)
        raise InputError(f"{path} is not written: {given.name} has a given {numbers}, which no file of plates holds")
    made = Generated(
        model=showers.origin, absorber=showers.absorbers, active=showers.actives, gap_material=showers.gap_material,
        points=showers.deposits is not None, settings=showers.config,
    )  # fmt: skip
    write_new(path, pack(showers, Provenance(made, "", "")))
