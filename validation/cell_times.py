"""Measure how far the times of cells are from those of light along the particle's line.

    cell_times.py LIBRARY ... [--figure cell-times.png]

A cell with its centre at r is passed by the front of light that goes along the particle's line, with direction u from
its entry p, at s/c with s = (r - p) u; at normal incidence that is z/c. The delay of a cell is its time minus s/c:

    mean    of its energy-weighted mean time; also without the deposits more than 5 or 1 ns behind the front at their
            own place
    first   of its first-arrival time (`calograd.events.binning`)
    left    what a table leaves of either: minus the mean delay of cells in the same place by symmetry and of the same
            energy (four classes a decade) in the other half of the showers

Tables have the mean and half the width of the central 68 % in ps, each with its jackknife error over groups of showers;
further the correlation of what is left of the mean times of a shower's two hottest cells.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from calograd.detector.configuration import SPEED_OF_LIGHT, beam_direction
from calograd.detector.incidence import Incidence
from calograd.events.binning import bin_times, cell_axes
from calograd.events.library.reader import open_library
from calograd.events.ragged import Showers
from calograd.reports.style import STYLE

EDGES = np.array([0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5])
"""Edges of the classes of cell energy, MeV."""
CUTS = (np.inf, 5.0, 1.0)
"""Largest delays of deposits that are kept, ns."""
LATE = (0.1, 0.3, 1.0, 2.0, 5.0)
"""Delays whose later energy is counted, ns."""
GROUPS = 20
"""Groups of showers of the jackknife."""
SEEN = 10.0
"""Smallest energy of a cell that counts in the time of a shower, MeV."""
FEW = 10
"""Cells of a class below which nothing is said of it."""
DRAWN = 40
"""Cells of a point below which it is not drawn."""


class Timed(NamedTuple):
    """The cells with energy of one kind of showers.

    Attributes:
        name: of the showers.
        showers: their number.
        owner: shower of every cell, shape (cells,).
        energy: of every cell, MeV.
        place: place across and layer of every cell as one number, equal for cells that are equal by symmetry.
        delays: by name, shape (cells,), ps; NaN where a cut leaves nothing.
        late: share of the energy that is later than `LATE`, of all deposits.
    """

    name: str
    showers: int
    owner: np.ndarray
    energy: np.ndarray
    place: np.ndarray
    delays: dict[str, np.ndarray]
    late: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("libraries", type=Path, nargs="+")
    parser.add_argument("--cell", type=float, nargs=2, default=(1.3, 3.7), help="dx and dz, cm")
    parser.add_argument("--cells", type=int, nargs=2, default=(7, 5), help="across and along")
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    every = [timed(path, *options.cell, *options.cells) for path in options.libraries]
    for each in every:
        print_tables(each)
    if options.figure:
        draw(every, options.figure)


def timed(path: Path, dx: float, dz: float, n_xy: int, n_z: int) -> Timed:
    """Return the delays of the cells of a library."""
    parts: list[dict[str, np.ndarray]] = []
    late, total = np.zeros(len(LATE)), 0.0
    with open_library(path) as library:
        incident, done = library.incidence(), 0
        name = f"{', '.join(f'{e:g}' for e in np.unique(library.energy))} GeV, {incident.describe()}"
        for block in library.blocks(1 << 21):
            particles = incident[done : done + len(block)]
            found, lost, seen = block_delays(block, particles, dx, dz, n_xy, n_z)
            found["owner"] += done
            parts.append(found)
            late, total, done = late + lost, total + seen, done + len(block)
    columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    owner, energy, place = (columns.pop(key) for key in ("owner", "energy", "place"))
    for kind in ("mean", "first"):
        columns[f"{kind}, left"] = without_table(columns[kind], owner, energy, place)
    return Timed(name, done, owner, energy, place, columns, late / total)


def block_delays(
    block: Showers, incident: Incidence, dx: float, dz: float, n_xy: int, n_z: int
) -> tuple[dict[str, np.ndarray], np.ndarray, float]:
    """Return the cells of some showers and their delays, and the late and the whole energy, GeV."""
    n = len(block)
    pitch, depths = np.full(n, dx), np.full((n, n_z), dz)
    windows = incident.window_offsets(pitch, depths)
    angles = zip(incident.theta.tolist(), incident.phi.tolist(), strict=True)
    u = np.array([beam_direction(theta, phi) for theta, phi in angles])
    entry, owner = incident.position.astype(np.float64), block.owner
    assert block.t is not None
    path = (block.x - entry[owner, 0]) * u[owner, 0] + (block.y - entry[owner, 1]) * u[owner, 1]
    behind = block.t - (path + block.z * u[owner, 2]) / SPEED_OF_LIGHT
    kept = [replace(block, e=np.where(behind > cut, 0, block.e).astype(np.float32)) for cut in CUTS]
    measured = [bin_times(part, cell_axes(part, pitch, depths, n_xy, n_z), windows) for part in kept]
    cells = measured[0][0]
    centres = (np.arange(n_xy) - (n_xy - 1) / 2) * dx
    x = centres[None, :, None, None] + (windows[:, None, None, :, 0] * dx) - entry[:, 0, None, None, None]
    y = centres[None, None, :, None] + (windows[:, None, None, :, 1] * dx) - entry[:, 1, None, None, None]
    z = (np.arange(n_z) + 0.5)[None, None, None] * dz
    front = sum(u[:, k, None, None, None] * at for k, at in enumerate((x, y, z))) / SPEED_OF_LIGHT
    filled = cells > 1e-3 * EDGES[0]
    i, j, k = (np.broadcast_to(each, cells.shape[1:]) for each in np.ix_(*(np.arange(m) for m in (n_xy, n_xy, n_z))))
    right, up = abs(i - n_xy // 2), abs(j - n_xy // 2)
    # Cells in equal places by symmetry: of the square, or of a shower tilted along x, which is mirrored at y = 0.
    across = np.maximum(right, up) * n_xy + np.minimum(right, up) if incident.on_axis else i * n_xy + up
    found = {
        "owner": np.nonzero(filled)[0], "energy": 1e3 * cells[filled],
        "place": np.broadcast_to(across * n_z + k, cells.shape)[filled],
        "first": 1e3 * (measured[0][2] - front)[filled],
    }  # fmt: skip
    for cut, (_, mean, _) in zip(CUTS, measured, strict=True):
        found["mean" if cut == np.inf else f"mean < {cut:g} ns"] = 1e3 * (mean - front)[filled]
    late = np.array([block.e[behind > least].sum(dtype=np.float64) for least in LATE])
    return found, late, float(block.e.sum(dtype=np.float64))


def without_table(delay: np.ndarray, owner: np.ndarray, energy: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return delays minus the mean of cells of the same place and energy in the other half of the showers."""
    # Four classes of energy a decade.
    number = place * 100 + np.floor(4 * np.log10(energy)).astype(int) + 20
    left = np.full(len(delay), np.nan)
    for half in (0, 1):
        mine, others = owner % 2 == half, owner % 2 != half
        count = np.bincount(number[others], minlength=number.max() + 1)
        # A few cells that are late by many ns do not spoil the table.
        clipped = np.clip(delay[others], -500, 500)
        table = np.bincount(number[others], clipped, len(count)) / np.where(count >= FEW, count, np.nan)
        left[mine] = delay[mine] - table[number[mine]]
    return left


def spread(values: np.ndarray) -> float:
    """Return half the width of the central 68 %."""
    low, high = np.quantile(values, (0.1587, 0.8413))
    return float(high - low) / 2


def jackknife(
    values: np.ndarray, owner: np.ndarray, statistic: Callable[[np.ndarray], float] = lambda v: float(v.mean())
) -> tuple[float, float]:
    """Return a statistic of values of showers, and its error from leaving out one group of showers at a time."""
    group = owner % GROUPS
    without = np.array([statistic(values[group != k]) for k in range(GROUPS) if (group != k).any()])
    return statistic(values), float(np.sqrt((len(without) - 1) * without.var()))


def print_tables(of: Timed) -> None:
    """Print the delays by energy of the cell, the late energy, and the time of whole showers."""
    print(f"\n## {of.name}: {of.showers} showers\n")
    shares = ", ".join(
        f"{1e2 * share:.2g} % later than {least:g} ns" for least, share in zip(LATE, of.late, strict=True)
    )
    print(f"Energy: {shares} behind the front.\n")
    print(f"| E_cell, MeV | cells a shower | {' | '.join(f'{name}, ps' for name in of.delays)} |")
    print("|---" * (2 + len(of.delays)) + "|")
    for low, high in pairwise(EDGES):
        here = (of.energy >= low) & (of.energy < high)
        if here.sum() < FEW:
            continue
        row = []
        for name in of.delays:
            chosen = here & np.isfinite(of.delays[name])
            values, owner = of.delays[name][chosen], of.owner[chosen]
            if len(values) < FEW:
                row.append("-")
                continue
            mean, width = jackknife(values, owner), jackknife(values, owner, spread)
            row.append(f"{mean[0]:.1f} +- {mean[1]:.1f}; {width[0]:.1f} +- {width[1]:.1f}")
        print(f"| {low:g} to {high:g} | {here.sum() / of.showers:.2f} | {' | '.join(row)} |")
    print(f"\nShower: energy-weighted mean delay of its cells above {SEEN:g} MeV")
    for name in ("mean", "first"):
        chosen = (of.energy >= SEEN) & np.isfinite(of.delays[name])
        weight = np.bincount(of.owner[chosen], of.energy[chosen], of.showers)
        whole = np.bincount(of.owner[chosen], of.energy[chosen] * of.delays[name][chosen], of.showers)
        some = np.flatnonzero(weight)
        values = whole[some] / weight[some]
        mean, width = jackknife(values, some), jackknife(values, some, spread)
        print(f"- {name}: {mean[0]:.2f} +- {mean[1]:.2f} ps, spread {width[0]:.2f} +- {width[1]:.2f} ps")
    print("Correlation of the two hottest cells: {:.2f} +- {:.2f}".format(*hottest_two(of)))


def hottest_two(of: Timed) -> tuple[float, float]:
    """Return the correlation of what is left of the mean times of the two hottest cells of a shower, and its error."""
    some = np.flatnonzero((of.energy >= SEEN) & np.isfinite(of.delays["mean, left"]))
    some = some[np.lexsort((-of.energy[some], of.owner[some]))]
    starts = np.flatnonzero(np.diff(of.owner[some], prepend=-1))
    counts = np.diff(starts, append=len(some))
    first, second = (some[starts[counts > 1] + k] for k in (0, 1))
    pairs = np.clip(np.stack([of.delays["mean, left"][cells] for cells in (first, second)], axis=1), -100, 100)
    return jackknife(pairs, of.owner[first], lambda v: float(np.corrcoef(v.T)[0, 1]))


def draw(every: list[Timed], path: Path) -> None:
    """Draw mean delay and spread against the energy of the cell."""
    colours = ("#1b1b1b", "#d1380e", "#7a1fa2", "#2f7fb5")
    edges = 10.0 ** np.arange(-1, 5.01, 0.25)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 3.4), layout="constrained")
        bias, width, left = figure.subplots(1, 3)
        for of, colour in zip(every, colours, strict=False):
            for axis, name, style, statistic in (
                (bias, "mean", "-", np.mean), (bias, "first", "--", np.mean), (width, "mean", "-", spread),
                (width, "first", "--", spread), (left, "mean, left", "-", spread),
                (left, "first, left", "--", spread),
            ):  # fmt: skip
                at, values, errors = binned(of, name, edges, statistic)
                label = f"{of.name.split(',')[0]}{', 25 degrees' if 'theta' in of.name else ''}"
                axis.errorbar(at, values, errors, ls=style, lw=1.1, c=colour, label=label if style == "-" else None)
        bias.set_title("Mean delay")
        width.set_title("Spread of the delay")
        left.set_title("Spread left by a table of place and energy")
        bias.axhline(0, lw=0.6, c="0.6")
        for axis in (width, left):
            axis.axhspan(10, 50, color="#e3efe6", lw=0)
            axis.set(yscale="log", ylim=(2, 300))
        left.text(0.14, 11, "readout, 10 to 50 ps", fontsize=8)
        kinds = [width.plot([], [], c="0.4", ls=style)[0] for style in ("-", "--")]
        width.legend(kinds, ("mean time", "first time"), loc="lower left")
        for axis in (bias, width, left):
            axis.set(xscale="log", xlim=(0.1, 4e4), xlabel="Energy of the cell (MeV)")
        bias.set_ylabel("ps")
        bias.legend()
        figure.savefig(path)


def binned(
    of: Timed, name: str, edges: np.ndarray, statistic: Callable[[np.ndarray], Any]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return middle of every class of cell energy, a statistic of the delays there and its error."""
    rows = []
    for low, high in pairwise(edges):
        here = (of.energy >= low) & (of.energy < high) & np.isfinite(of.delays[name])
        if here.sum() >= DRAWN:
            rows.append(
                (np.sqrt(low * high), *jackknife(of.delays[name][here], of.owner[here], lambda v: float(statistic(v))))
            )
    table = np.array(rows).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]


if __name__ == "__main__":
    main()
