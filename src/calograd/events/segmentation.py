"""From a shower library to a cells or maps file: given designs for all showers, or many drawn ones for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from calograd.detector.configuration import Block, CrystalMatrix, SimulationConfig
from calograd.detector.material import Material
from calograd.errors import InputError
from calograd.events.binning import PIXELS, project_deposits, segment_deposits
from calograd.events.dense import Cells, Maps
from calograd.events.library.reader import Library
from calograd.events.library.schema import Imported

EDGE = 1e-3
"""Relative excess of a window over its block that does not matter."""
MAX_NEIGHBOURS = 0.5
"""Farther than that there are no neighbours."""

Report = Callable[[int, int], None]
"""Called with showers done and their number."""


def _silent(done: int, total: int) -> None:
    """Report nothing."""


Size = tuple[float, float | tuple[float, ...]]
"""dx and dz of a design, cm: dz for all layers, or one a layer."""


class Designs(NamedTuple):
    """Designs of every shower of a library.

    Attributes:
        dx: pitch, shape (n, designs), cm.
        dz: depth of every layer, shape (n, designs, n_z), cm.
        about: how they were chosen, as plain data.
    """

    dx: np.ndarray
    dz: np.ndarray
    about: dict[str, Any]


def measure(library: Library, sizes: list[Size], n_xy: int, n_z: int, report: Report = _silent) -> Cells:
    """All showers of a library at some designs: a row for every shower and design.

    Args:
        library: opened for reading.
        sizes: of the designs' cells.
        n_xy: cells across.
        n_z: layers.
        report: called with showers done and their number.

    Raises:
        InputError: sizes that are not positive, depths of the wrong number, a layered detector, a crystal matrix with
            other cells, no showers.
    """
    given = given_designs(library, sizes, n_z)
    return measure_each(library, given.dx, given.dz, n_xy, report, given.about)


def given_designs(library: Library, sizes: list[Size], n_z: int) -> Designs:
    """The same designs for all showers of a library. Raises `InputError` for depths of the wrong number."""
    for _, dz in sizes:
        if np.shape(dz) not in ((), (n_z,)):
            raise InputError(f"{np.size(dz)} layer depths for {n_z} layers; expected one, or one a layer")
    pitch = np.array([dx for dx, _ in sizes], dtype=np.float64)
    depths = np.array([np.broadcast_to(dz, n_z) for _, dz in sizes], dtype=np.float64)
    about, n = {"designs": len(sizes), "dx": pitch.tolist(), "dz": depths.tolist()}, len(library)
    return Designs(np.broadcast_to(pitch, (n, len(sizes))), np.broadcast_to(depths, (n, len(sizes), n_z)), about)


def measure_many(
    library: Library,
    designs: int,
    dx: tuple[float, float],
    dz: tuple[float, float],
    seed: int,
    n_xy: int,
    n_z: int,
    report: Report = _silent,
    *,
    unequal: float = 0.0,
    neighbours: float = 0.0,
) -> Cells:
    """Every shower at ``designs`` designs of its own: pitch and depth log-uniform in their ranges.

    This is the data a surrogate learns from. Rows of one shower share its number. A share ``unequal`` of the designs
    has layers of independent depths, the others have equal ones. With ``neighbours`` above zero every design is
    followed by one close to it: all sizes times exp(``neighbours`` n) with a normal n for the pitch and one for the
    depths, and in half of the neighbours one for every layer besides; what leaves the range is reflected at its end.
    From the difference of a shower at two close designs a training learns how it changes with the design.

    Raises:
        InputError: no designs, ranges that are not positive or the wrong way round, windows larger than the simulated
            block, a layered detector, a crystal matrix, no showers.
    """
    drawn = drawn_designs(library, designs, dx, dz, seed, n_xy, n_z, unequal=unequal, neighbours=neighbours)
    return measure_each(library, drawn.dx, drawn.dz, n_xy, report, drawn.about)


def drawn_designs(
    library: Library,
    designs: int,
    dx: tuple[float, float],
    dz: tuple[float, float],
    seed: int,
    n_xy: int,
    n_z: int,
    *,
    unequal: float = 0.0,
    neighbours: float = 0.0,
) -> Designs:
    """Designs of its own for every shower of a library, see `measure_many`, whose errors these are."""
    if not 0 <= neighbours <= MAX_NEIGHBOURS:
        raise InputError(f"neighbours at {neighbours} in the logarithm of a size: expected 0 to {MAX_NEIGHBOURS:g}")
    if designs < 1 or n_z < 1 or seed < 0:
        raise InputError(f"{designs} designs of {n_z} layers, seed {seed}: expected at least one, and a seed from 0")
    if not 0 <= unequal <= 1:
        raise InputError(f"{unequal} of the designs with unequal layers: expected a share from 0 to 1")
    for name, (low, high) in (("dx", dx), ("dz", dz)):
        if not 0 < low < high < np.inf:
            raise InputError(f"{name} from {low} to {high} cm: expected positive numbers, the lower end first")
    _check_window(library, n_xy * dx[1], n_z * dz[1])
    n = len(library)
    rng = np.random.default_rng(seed)
    u = rng.random((2, n, designs))
    v = np.where((rng.random((n, designs)) < unequal)[:, :, None], rng.random((n, designs, n_z)), u[1][:, :, None])
    across, along = u[0], v
    if neighbours:
        steps = (neighbours / np.log(dx[1] / dx[0]), neighbours / np.log(dz[1] / dz[0]))
        near_x, near_z = _near(across, along, *steps, rng)
        across = np.stack([across, near_x], axis=2).reshape(n, -1)
        along = np.stack([along, near_z], axis=2).reshape(n, -1, n_z)
    pitch = np.exp(np.log(dx[0]) + across * np.log(dx[1] / dx[0]))
    depths = np.exp(np.log(dz[0]) + along * np.log(dz[1] / dz[0]))
    about = {"designs": designs, "dx_range": list(dx), "dz_range": list(dz), "seed": seed, "unequal": unequal}
    about |= {"neighbours": neighbours} if neighbours else {}
    return Designs(pitch, depths, about)


def _near(
    across: np.ndarray, along: np.ndarray, step_x: float, step_z: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Places close to given ones, of pitches (n, designs) and depths (n, designs, n_z), all in [0, 1]."""
    each = (rng.random(across.shape) < 0.5)[:, :, None] * rng.standard_normal(along.shape)
    moved_x = across + step_x * rng.standard_normal(across.shape)
    moved_z = along + step_z * (rng.standard_normal(across.shape)[:, :, None] + each)
    near_x, near_z = (1 - np.abs(1 - np.abs(moved) % 2) for moved in (moved_x, moved_z))
    return near_x, near_z


def _check_window(library: Library, width: float, depth: float) -> None:
    """Refuse windows (full lengths, cm) that reach beyond a simulated block: their outer cells would be empty."""
    config = library.provenance.config
    if not isinstance(config, SimulationConfig) or not isinstance(config.detector, Block):
        return
    x, y, z = config.detector.size
    if width > min(x, y) * (1 + EDGE) or depth > z * (1 + EDGE):
        raise InputError(
            f"designs of up to {width:.4g} x {width:.4g} x {depth:.4g} cm reach beyond the simulated block of {x:g} x "
            f"{y:g} x {z:g} cm; simulate a larger one (--block), or narrow --dx and --dz"
        )


def measure_each(
    library: Library,
    dx: np.ndarray,
    dz: np.ndarray,
    n_xy: int,
    report: Report = _silent,
    about: dict[str, Any] | None = None,
) -> Cells:
    """Every shower at given designs of its own.

    Args:
        library: opened for reading; of n showers.
        dx: pitch, shape (n, designs), cm.
        dz: depth of every layer, shape (n, designs, n_z), cm.
        n_xy: cells across.
        report: called with showers done and their number.
        about: how the designs were chosen, for the record.

    Raises:
        InputError: sizes that are not positive, a layered detector, a crystal matrix with other cells, no showers.
    """
    designs = Designs(dx, dz, about or {})
    cells = _cut(library, designs, n_xy, segment_deposits, (n_xy, n_xy, dz.shape[2]), report)
    return Cells(cells, *_columns(library, designs), _material(library), "geant4", _config(library, designs, n_xy))


def measure_maps(library: Library, designs: Designs, n_xy: int, report: Report = _silent) -> Maps:
    """Every shower at its designs as maps of their windows.

    Args:
        library: opened for reading.
        designs: of `given_designs` or `drawn_designs`, for this library.
        n_xy: cells across.
        report: called with showers done and their number.

    Raises:
        InputError: sizes that are not positive, a layered detector, a crystal matrix with other cells, no showers.
    """
    maps = _cut(library, designs, n_xy, project_deposits, (PIXELS, PIXELS), report)
    energy, dx, dz, shower = _columns(library, designs)
    about = _config(library, designs, n_xy)
    return Maps(maps, energy, dx, dz, n_xy, shower, _material(library), "geant4", about)


def _cut(
    library: Library,
    designs: Designs,
    n_xy: int,
    cut: Callable[..., np.ndarray],
    shape: tuple[int, ...],
    report: Report,
) -> np.ndarray:
    """Return what ``cut`` measures of every shower with its designs, shape (rows, *shape)."""
    n, each, n_z = designs.dz.shape
    library.check_cells(designs.dx, designs.dz, n_xy, n_z)
    if n == 0:
        raise InputError(f"{library.path} holds no showers yet; expected at least one")
    made = np.empty((n, each, *shape), dtype=np.float32)
    done = 0
    for block in library.blocks():
        rows = slice(done, done + len(block))
        for d in range(each):
            pitch, depths = designs.dx[rows, d], designs.dz[rows, d]
            made[rows, d] = cut(block.x, block.y, block.z, block.e, block.offsets, pitch, depths, n_xy, n_z)
        done = rows.stop
        report(done, n)
    return made.reshape(n * each, *shape)


def _columns(library: Library, designs: Designs) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Energy, dx, dz and the shower of every row."""
    _, each, n_z = designs.dz.shape
    dx, dz = designs.dx.ravel().astype(np.float32), designs.dz.reshape(-1, n_z).astype(np.float32)
    return np.repeat(library.energy, each), dx, dz, np.repeat(library.index, each)


def _material(library: Library) -> Material:
    """Of a library that has been measured, and so has one."""
    assert library.material is not None
    return library.material


def _config(library: Library, designs: Designs, n_xy: int) -> dict[str, Any]:
    """What made the rows, as plain data."""
    width, depth = n_xy * designs.dx.max(), designs.dz.sum(2).max()
    return {
        "mode": _mode(library.provenance.config, (width, width, depth)), "segmentation": designs.about,
    } | library.about()  # fmt: skip


def _mode(config: SimulationConfig | Imported, window: tuple[float, float, float]) -> str:
    """What lies around a window of cells (its full lengths, cm), for files and reports."""
    if isinstance(config, Imported):
        return "imported"
    if isinstance(config.detector, CrystalMatrix):
        return "crystal matrix"
    alone = isinstance(config.detector, Block) and np.allclose(config.detector.size, window)
    return "stand-alone" if alone else "embedded"
