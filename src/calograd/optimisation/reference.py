"""Geant4's own gradient of an objective: central differences with common showers and common background.

With u = ln y, h the step and e_j the unit vector of parameter j,

    g_j = ( V(u + h e_j) - V(u - h e_j) ) / 2 h

where all V see the same showers, segmented anew, and the same background numbers; only the cells differ. Each shower
is used with several independent backgrounds ("replicas"). The error is from the bootstrap over showers, a shower with
all its replicas, the same for V at both ends. The difference is off by V''' h^2 / 6; `validation/gradient_steps.py`
compares steps.

A change of density needs no second simulation. Matter of density rho' = rho / s is the same matter with all lengths
multiplied by s, so the deposits of a library, their positions multiplied by s, are showers of the other density: the
same showers with the same random numbers (a "scaled library"). Measuring them with cells of (dx, dz) is measuring the
library itself with (dx / s, dz / s), which is how it is done. This is exact but for the density effect in the energy
loss of fast electrons and for the range cut, which scales along; `validation/density.py` compares with real simulations
of two densities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from calograd.design import Design
from calograd.errors import InputError
from calograd.material import Material, plain
from calograd.optimisation.events import Events
from calograd.optimisation.gradient import BACKGROUND, Estimate, Parameters, stream
from calograd.optimisation.utility import Objective
from calograd.showers.cells import Cells
from calograd.showers.library import Library
from calograd.showers.maps import project
from calograd.showers.segment import segment

STEP = 0.04
"""Relative step of a central difference."""
REPLICAS = 8
"""Backgrounds that each shower is seen with."""
BOOTSTRAP = 200
REMEMBERED = 64
"""Designs whose cells are kept."""
RELATIVE = 1e-4
"""Energies and sizes that agree to this are the same."""

Report = Callable[[int, int], None]
"""Called with designs measured and their number."""


DENSITIES = 1.5
"""A library serves densities up to this factor from its own."""


class Reference(Protocol):
    """Geant4 showers that designs can be measured with."""

    @property
    def name(self) -> str:
        """What errors and records call them."""
        ...

    @property
    def material(self) -> Material:
        """That they showered in."""
        ...

    def count(self, energy: float) -> int:
        """How many showers of an energy there are."""
        ...

    def measure(self, energy: float, designs: list[tuple[float, tuple[float, ...]]]) -> np.ndarray:
        """The same showers of an energy at every design (dx, dz of the layers), cm.

        Returns:
            Cells, shape (designs, n, n_xy, n_xy, n_z), or pixels, (designs, n, pixels, 1, pixels), GeV.

        Raises:
            InputError: no such showers, or designs that were not measured (all of them are named).
        """
        ...


class _Deposits(NamedTuple):
    """Of some showers; shower s owns deposits ``offsets[s]:offsets[s + 1]``."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    e: np.ndarray
    offsets: np.ndarray


class LibraryReference:
    """A shower library as a reference: its showers at any design.

    Args:
        library: opened for reading; of discrete energies.
        energies: that are read into memory, GeV.
        n_xy, n_z: cells.
        limit: showers of an energy at most; None: all.
        skip: showers of an energy to leave out at first.
        pixels: of x-z maps of the designs' windows, across and along, which are then measured instead of cells: pixels
            count as cells that are as wide in y as the window, see `calograd.optimisation.map_chain`.
    """

    def __init__(
        self,
        library: Library,
        energies: tuple[float, ...],
        n_xy: int = 5,
        n_z: int = 5,
        limit: int | None = None,
        skip: int = 0,
        pixels: int | None = None,
    ) -> None:
        if library.material is None:
            raise InputError(f"{library.path} is of a layered detector; cells of a design need a homogeneous block")
        self.name, self.material = library.path.name, library.material
        self.n_xy, self.n_z, self.pixels = n_xy, n_z, pixels
        self._check_cells = library.check_cells
        self._showers = {
            energy: _read(library, np.flatnonzero(np.isclose(library.energy, energy, rtol=RELATIVE))[skip:][:limit])
            for energy in energies
        }
        self._remembered: dict[tuple[float, tuple[float, tuple[float, ...]]], np.ndarray] = {}
        missing = [f"{energy:g}" for energy, showers in self._showers.items() if showers is None]
        if missing:
            have = ", ".join(f"{e:g}" for e in np.unique(library.energy.round(4))[:12])
            raise InputError(
                f"{library.path} has no showers of {', '.join(missing)} GeV; its energies are {have} GeV: "
                "choose among these, or simulate a library with the energies asked"
            )

    def count(self, energy: float) -> int:
        """See `Reference.count`."""
        return len(self._of(energy).offsets) - 1

    def measure(self, energy: float, designs: list[tuple[float, tuple[float, ...]]]) -> np.ndarray:
        """See `Reference.measure`; the last `REMEMBERED` designs are kept, another objective costs nothing."""
        for design in designs:
            if (energy, design) not in self._remembered:
                self._remembered[energy, design] = self.some(energy, slice(None), [design])[0]
        cells = np.stack([self._remembered[energy, design] for design in designs])
        while len(self._remembered) > REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        return cells

    def some(self, energy: float, rows: slice, designs: list[tuple[float, tuple[float, ...]]]) -> np.ndarray:
        """The same for the showers ``rows`` of that energy, a range with step one."""
        for dx, dz in designs:
            self._check_cells(dx, np.array(dz), self.n_xy, self.n_z)
        x, y, z, e, offsets = self._of(energy)
        start, stop, _ = rows.indices(len(offsets) - 1)
        ends = offsets[start : stop + 1]
        part = slice(int(ends[0]), int(ends[-1]))
        deposits = _Deposits(x[part], y[part], z[part], e[part], ends - ends[0])
        return np.stack([self._cut(deposits, dx, np.array(dz)) for dx, dz in designs])

    def _cut(self, deposits: _Deposits, dx: float, dz: np.ndarray) -> np.ndarray:
        """Cells of a design, or pixels of its window, shape (n, pixels, 1, pixels)."""
        if self.pixels is None:
            return segment(*deposits, dx, dz, self.n_xy, self.n_z)
        return project(*deposits, dx, dz, self.n_xy, self.n_z, self.pixels)[:, :, None]

    def block(self, start: int, showers: int) -> Block:
        """Some of its showers of every energy, in a row from ``start``, beginning anew at the end."""
        return Block(self, start, showers)

    def _of(self, energy: float) -> _Deposits:
        found = next((s for e, s in self._showers.items() if np.isclose(e, energy, rtol=RELATIVE)), None)
        if found is None:
            raise InputError(f"{self.name}: {energy:g} GeV were not read; read are {sorted(self._showers)} GeV")
        return found


def _read(library: Library, rows: np.ndarray) -> _Deposits | None:
    """Some showers of a library; None if there are none."""
    if len(rows) == 0:
        return None
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    parts = [library.read(int(run[0]), int(run[-1]) + 1) for run in runs]
    x, y, z, e = (np.concatenate([getattr(part, name) for part in parts]) for name in ("x", "y", "z", "e"))
    counts = np.concatenate([np.diff(part.offsets) for part in parts])
    return _Deposits(x, y, z, e, np.concatenate([[0], np.cumsum(counts)]))


@dataclass(frozen=True)
class Block:
    """Showers of a `LibraryReference` in a row: what a simulation of so many would have given.

    Args:
        whole: where they are from.
        start: the first, of every energy.
        showers: how many of every energy.

    Raises:
        InputError: more than there are.
    """

    whole: LibraryReference
    start: int
    showers: int

    @property
    def name(self) -> str:
        """Of the library."""
        return self.whole.name

    @property
    def material(self) -> Material:
        """Of the library."""
        return self.whole.material

    def count(self, energy: float) -> int:
        """See `Reference.count`."""
        have = self.whole.count(energy)
        if self.showers > have:
            raise InputError(f"{self.name} has {have} showers of {energy:g} GeV, {self.showers} are asked at a time")
        return self.showers

    def measure(self, energy: float, designs: list[tuple[float, tuple[float, ...]]]) -> np.ndarray:
        """See `Reference.measure`."""
        n, have = self.count(energy), self.whole.count(energy)
        first = self.start % have
        parts = [self.whole.some(energy, slice(first, min(first + n, have)), designs)]
        if first + n > have:
            parts.append(self.whole.some(energy, slice(0, first + n - have), designs))
        return np.concatenate(parts, axis=1)


class CellsReference:
    """A cells file as a reference: the designs that it holds of the same showers.

    Args:
        cells: rows of showers at several designs.
        name: of the file.
    """

    def __init__(self, cells: Cells, name: str | Path) -> None:
        self.name, self.material = str(name), cells.material
        self._cells = cells

    def count(self, energy: float) -> int:
        """See `Reference.count`."""
        return len(np.unique(self._cells.shower[np.isclose(self._cells.energy, energy, rtol=RELATIVE)]))

    def measure(self, energy: float, designs: list[tuple[float, tuple[float, ...]]]) -> np.ndarray:
        """See `Reference.measure`."""
        c = self._cells
        at_energy = np.isclose(c.energy, energy, rtol=RELATIVE)
        found, missing = [], []
        for dx, dz in designs:
            same = at_energy & np.isclose(c.dx, dx, rtol=RELATIVE) & np.isclose(c.dz, dz, rtol=RELATIVE).all(1)
            rows = np.flatnonzero(same)
            found.append(rows[np.argsort(c.shower[rows], kind="stable")])
            if len(rows) == 0:
                missing.append(f"dx = {dx:.6g} with dz = {','.join(f'{v:.6g}' for v in dict.fromkeys(dz))} cm")
        if missing:
            raise InputError(
                f"{self.name} lacks {len(missing)} of {len(designs)} designs at {energy:g} GeV: {'; '.join(missing)}; "
                "give a shower library, or a cells file that holds these"
            )
        if any(not np.array_equal(c.shower[rows], c.shower[found[0]]) for rows in found):
            raise InputError(
                f"{self.name}: its designs are not of the same showers at {energy:g} GeV; segment them anew"
            )
        return np.stack([c.cells[rows] for rows in found])


def neighbours(space: Parameters, y: np.ndarray, step: float) -> list[Design]:
    """The design of ``y`` and its neighbours: y, then + and - of every parameter in turn."""
    u = np.log(np.asarray(y, float))
    points = [u]
    for j in range(len(u)):
        points += [u + step * np.eye(len(u))[j], u - step * np.eye(len(u))[j]]
    return [space.design(torch.from_numpy(np.exp(point))) for point in points]


def reference_gradient(
    reference: Reference,
    objective: Objective,
    space: Parameters,
    y: np.ndarray,
    *,
    step: float = STEP,
    replicas: int = REPLICAS,
    bootstrap: int = BOOTSTRAP,
    seed: int = 0,
    report: Report = lambda done, total: None,  # noqa: ARG005
) -> Estimate:
    """Value and gradient of an objective at ``y`` from Geant4.

    Args:
        reference: Geant4 showers of the objective's energies.
        objective: of the showers.
        space: parameters and the design they make.
        y: parameters, shape (p,), cm.
        step: h.
        replicas: backgrounds that each shower is seen with.
        bootstrap: replicas of the sample.
        seed: of background and bootstrap.
        report: called after every energy.

    Raises:
        InputError: showers or neighbours that are missing, fewer than two showers, no step, replicas or bootstrap.
        UtilityError: a utility without value.
    """
    if not 0 < step < 1:
        raise InputError(f"step {step} in ln y: expected a number between 0 and 1")
    values, samples = bootstrap_values(
        reference, objective, neighbours(space, y, step), replicas=replicas, bootstrap=bootstrap, seed=seed,
        report=report,
    )  # fmt: skip
    gradients = (samples[:, 1::2] - samples[:, 2::2]) / (2 * step)
    about: dict[str, Any] = {
        "source": "geant4", "file": reference.name, "showers": [reference.count(e) for e in objective.energies],
        "step": step, "replicas": replicas, "bootstrap": bootstrap, "seed": seed, "energies": list(objective.energies),
        "density": plain(reference.material.density),
    }  # fmt: skip
    return Estimate(
        tuple(space.names), np.asarray(y, float), float(values[0]), float(samples[:, 0].std(ddof=1)),
        (values[1::2] - values[2::2]) / (2 * step), gradients.std(0, ddof=1), gradients, about,
    )  # fmt: skip


def bootstrap_values(
    reference: Reference,
    objective: Objective,
    designs: list[Design],
    *,
    replicas: int = REPLICAS,
    bootstrap: int = BOOTSTRAP,
    seed: int = 0,
    report: Report = lambda done, total: None,  # noqa: ARG005
) -> tuple[np.ndarray, np.ndarray]:
    """An objective at several designs on the same showers and backgrounds, with bootstrap replicas.

    Args:
        reference: Geant4 showers of the objective's energies.
        objective: of the showers.
        designs: any number.
        replicas: backgrounds that each shower is seen with.
        bootstrap: samples of the showers, the same for all designs.
        seed: of background and bootstrap.
        report: called after every energy.

    Returns:
        Values, shape (designs,), and those of the bootstrap samples, shape (bootstrap, designs).

    Raises:
        InputError: showers or designs that are missing, fewer than two showers, no replicas or bootstrap.
        UtilityError: a utility without value.
    """
    if replicas < 1 or bootstrap < 2:
        raise InputError(f"{replicas} replicas, {bootstrap} bootstraps: expected at least one replica, two bootstraps")
    sizes = [scaled_size(design, reference) for design in designs]
    events: list[list[Events]] = []
    for i, energy in enumerate(objective.energies):
        if reference.count(energy) < 2:
            raise InputError(f"{reference.name} has {reference.count(energy)} showers of {energy:g} GeV; expected two")
        cells = reference.measure(energy, sizes)
        events.append(_seen(objective, designs, energy, cells, replicas, stream(seed, BACKGROUND, i)))
        report(i + 1, len(objective.energies))
    rng = np.random.default_rng(seed)
    values = _values(objective, events, None, replicas)
    return values, np.array([_values(objective, events, rng, replicas) for _ in range(bootstrap)])


def scaled_size(design: Design, reference: Reference) -> tuple[float, tuple[float, ...]]:
    """dx and dz that measure of a reference what ``design`` would of the reference scaled to its density, cm.

    Raises:
        InputError: another composition, or a density farther than a factor `DENSITIES`.
    """
    asked, have = design.substance, reference.material
    scale = 1.0 if asked.alike(have) else plain(asked.density) / plain(have.density)
    if scale != 1.0 and not (asked.same_composition(have) and 1 / DENSITIES <= scale <= DENSITIES):
        raise InputError(
            f"{reference.name} is of {have.name} ({plain(have.density):g} g/cm3), the design of {asked.name} "
            f"({plain(asked.density):g} g/cm3); choose one of the design's material"
        )
    return scale * float(design.pitch), tuple(scale * depth for depth in design.depths.tolist())


def _seen(
    objective: Objective,
    designs: list[Design],
    energy: float,
    cells: np.ndarray,
    replicas: int,
    generator: torch.Generator,
) -> list[Events]:
    """What every design measures of the showers, each seen ``replicas`` times in a row, with common random numbers."""
    _, n, n_xy, _, n_z = cells.shape
    numbers = objective.chain.draw(n * replicas, n_xy, n_z, generator)
    return [
        objective.chain.measure(torch.from_numpy(shower).repeat_interleave(replicas, 0), energy, design, numbers)
        for shower, design in zip(cells, designs, strict=True)
    ]


def _values(
    objective: Objective, events: list[list[Events]], rng: np.random.Generator | None, replicas: int
) -> np.ndarray:
    """The objective at every design, of a bootstrap sample of the showers if ``rng`` is given."""
    chosen: list[list[Events]] = []
    for designs in events:
        if rng is None:
            chosen.append(designs)
            continue
        n = len(designs[0].energy) // replicas
        showers = torch.from_numpy(rng.integers(n, size=n))
        rows = (showers[:, None] * replicas + torch.arange(replicas)).flatten()
        chosen.append([each.at(rows) for each in designs])
    return np.array([float(objective.of(list(at))) for at in zip(*chosen, strict=True)])
