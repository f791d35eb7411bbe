"""Test which numbers of a material determine its showers: material_numbers.py FOLDER [BLIND ...].

FOLDER holds MATERIAL-test-cells.h5 of designs that are equal in Moliere radii and radiation lengths (runs/materials.sh
makes them). Means of E_tot / E, R_E / R_M and z_mean / X0 are brought to equal energies in critical energies, straight
in ln E between those simulated. For every choice of numbers, lines in their logarithms are laid through four
materials' means at every point, and the largest errors at the fifth are printed, in per cent; then those of lines
through all five at every BLIND material, which took no part in choosing.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from calograd.detector.material import ELEMENTS, MATERIALS, Material, to_float
from calograd.evaluation.matching import group
from calograd.events.dense import read_cells
from calograd.metrics.observables import observe, quantity_names

NAMES = ("PbF2", "PbWO4", "BGO", "LYSO", "CsI")
ENERGIES = (1.0, 10.0, 50.0)
MASS_LENGTH = "X0 in g/cm2"
POWER = "power mean of Z, p = "
CHOICES: tuple[tuple[str, ...], ...] = (
    (), ("critical_energy",), (MASS_LENGTH,), ("density",), ("radiation_length",), ("mean_atomic_number",),
    ("mean_atomic_number", "critical_energy"), *((f"{POWER}{p}",) for p in (1.2, 1.4, 1.6, 2.0, 3.0)),
    ("mean_atomic_number", f"{POWER}2.0"), ("effective_atomic_number",),
)  # fmt: skip


def main() -> None:
    folder, blind = Path(sys.argv[1]), sys.argv[2:]
    materials, tables = zip(*(measured(folder / f"{name}-test-cells.h5") for name in (*NAMES, *blind)), strict=True)
    means, five = np.log(np.array(tables)), len(NAMES)  # (materials, points, observables)
    head = "".join(f" {name}: E_tot | R_E | z_mean |" for name in blind)
    print(f"| numbers | E_tot, % | R_E, % | z_mean, % |{head}\n{'|---' * (4 + 3 * len(blind))}|")
    for choice in CHOICES:
        columns = np.array([[1.0, *(np.log(number(material, name)) for name in choice)] for material in materials])
        others = [np.delete(np.arange(five), k) for k in range(five)]
        worst = np.max([errors(columns, means, rows, k) for k, rows in enumerate(others)], axis=0)
        unseen = [errors(columns, means, np.arange(five), five + k) for k in range(len(blind))]
        values = " | ".join(f"{100 * value:.1f}" for value in np.concatenate([worst, *unseen]))
        print(f"| {' and '.join(choice) or 'none'} | {values} |")


def measured(path: Path) -> tuple[Material, np.ndarray]:
    """Return the material, and means of E_tot / E, R_E / R_M, z_mean / X0 by design and energy E E_c / E_c(PbF2)."""
    cells, rows = read_cells(path), []
    r_m, x0 = to_float(cells.material.moliere_radius), to_float(cells.material.radiation_length)
    for point, which in group(cells).items():
        if point.energy in ENERGIES:
            table = observe(cells.cells[which], cells.dx[which], cells.dz[which]).table().mean(0)
            e_tot, r_e, z_mean = (table[quantity_names(5).index(name)] for name in ("E_tot", "R_E", "z_mean"))
            rows.append([e_tot / point.energy, r_e / r_m, z_mean / x0])
    found, log = np.array(rows).reshape(-1, len(ENERGIES), 3), np.log(ENERGIES)
    slopes = np.diff(found, axis=1) / np.diff(log)[:, None]
    slopes = slopes[:, np.minimum(np.arange(len(ENERGIES)), len(ENERGIES) - 2)]
    moved = np.log(to_float(cells.material.critical_energy) / to_float(MATERIALS["PbF2"].critical_energy))
    return cells.material, (found + slopes * moved).reshape(-1, 3)


def number(material: Material, name: str) -> float:
    if name == MASS_LENGTH:
        return to_float(material.density) * to_float(material.radiation_length)
    if name.startswith(POWER):
        p = float(name.removeprefix(POWER))
        return float(sum(w * ELEMENTS[s][0] ** p for s, w in material.mass_fractions.items()) ** (1 / p))
    return to_float(getattr(material, name))


def errors(columns: np.ndarray, means: np.ndarray, rows: np.ndarray, left: int) -> np.ndarray:
    """Return the largest errors at a material of lines through the materials ``rows``, shape (observables,)."""
    fit, *_ = np.linalg.lstsq(columns[rows], means[rows].reshape(len(rows), -1), rcond=None)
    found: np.ndarray = np.abs((columns[left] @ fit).reshape(means.shape[1:]) - means[left]).max(0)
    return found


if __name__ == "__main__":
    main()
