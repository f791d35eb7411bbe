"""Which numbers of a material its showers go with: material_numbers.py FOLDER.

FOLDER holds MATERIAL-test-cells.h5 of designs that are equal in Moliere radii and radiation lengths (runs/materials.sh
makes them). For every choice of numbers, lines in their logarithms are laid through four materials' means of E_tot / E,
R_E / R_M and z_mean / X0 at every point, and the largest errors at the fifth are printed, in per cent.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from calograd.evaluation.observables import observe, quantity_names
from calograd.evaluation.points import group
from calograd.material import Material, plain
from calograd.showers.cells import read_cells

MATERIALS = ("PbF2", "PbWO4", "BGO", "LYSO", "CsI")
ENERGIES = (1.0, 10.0, 50.0)
MASS_LENGTH = "X0 in g/cm2"
CHOICES: tuple[tuple[str, ...], ...] = (
    (), ("critical_energy",), (MASS_LENGTH,), ("density",), ("radiation_length",), ("critical_energy", "density"),
    ("mean_atomic_number",), ("mean_atomic_number", "critical_energy"),
)  # fmt: skip


def main() -> None:
    folder = Path(sys.argv[1])
    materials, tables = zip(*(measured(folder / f"{name}-test-cells.h5") for name in MATERIALS), strict=True)
    means = np.log(np.array(tables))  # (materials, points, observables)
    print("| numbers | E_tot, % | R_E, % | z_mean, % |\n|---|---|---|---|")
    for choice in CHOICES:
        columns = np.array([[1.0, *(np.log(number(material, name)) for name in choice)] for material in materials])
        worst = np.max([np.abs(error_without(k, columns, means)).max(0) for k in range(len(materials))], axis=0)
        print(f"| {' and '.join(choice) or 'none'} | {' | '.join(f'{100 * value:.1f}' for value in worst)} |")


def measured(path: Path) -> tuple[Material, list[list[float]]]:
    """Material, and by design and energy the means of E_tot / E, R_E / R_M and z_mean / X0."""
    cells, rows = read_cells(path), []
    scale = (1.0, plain(cells.material.moliere_radius), plain(cells.material.radiation_length))
    for point, which in group(cells).items():
        if point.energy in ENERGIES:
            table = observe(cells.cells[which], cells.dx[which], cells.dz[which]).table().mean(0)
            e_tot, r_e, z_mean = (table[quantity_names(5).index(name)] for name in ("E_tot", "R_E", "z_mean"))
            rows.append([e_tot / point.energy, r_e / scale[1], z_mean / scale[2]])
    return cells.material, rows


def number(material: Material, name: str) -> float:
    if name == MASS_LENGTH:
        return plain(material.density) * plain(material.radiation_length)
    return plain(getattr(material, name))


def error_without(left: int, columns: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Predicted less measured logarithms of the material ``left`` by the others, shape (points, observables)."""
    others = np.arange(len(columns)) != left
    fit, *_ = np.linalg.lstsq(columns[others], means[others].reshape(others.sum(), -1), rcond=None)
    error: np.ndarray = (columns[left] @ fit).reshape(means.shape[1:]) - means[left]
    return error


if __name__ == "__main__":
    main()
