"""Segmentation: measure a shower library with the cells of designs, given ones or many drawn ones for each shower."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

import numpy as np

from calograd.detector.configuration import Block, CrystalMatrix, SimulationConfig
from calograd.detector.gdml import Box, Geometry
from calograd.detector.incidence import Incidence, place
from calograd.detector.material import to_float
from calograd.errors import InputError
from calograd.events.binning import PIXELS, bin_deposits, bin_times, cell_axes, move_deposits, project_deposits
from calograd.events.dense import TIMES, Cells, Maps, write_dense
from calograd.events.library.reader import Library, open_library
from calograd.events.library.schema import Imported
from calograd.events.ragged import Showers
from calograd.io.files import refuse_existing
from calograd.system.progress import Progress, silent
from calograd.system.random_numbers import RandomNumbers

if TYPE_CHECKING:
    from calograd.detector.configuration import Detector
    from calograd.detector.design import Design

    Given = Design | tuple[float, float | Sequence[float]]

RANGES = {False: ((0.9, 5.04), (3.7, 15.2)), True: ((0.41, 2.31), (3.9, 16.2))}
"""Default ranges of drawn dx and dz: in cm, and scaled by the Moliere radius and the radiation length."""
EDGE = 1e-3
"""Relative excess of a window over its simulated block that is allowed."""
DRAWS = 3
"""Number of the call of `RandomNumbers` that draws entries and azimuths; seeds keep giving the same files."""
GDML = "GDML geometry"
"""Mode of cells in a geometry of a GDML file, see `calograd.surrogate.card.TrainedDesigns`."""
MAX_NEIGHBOURS = 0.5
"""Largest distance of neighbouring designs in the logarithm of a size."""


class Designs(NamedTuple):
    """The designs that every shower of a library is measured with.

    Attributes:
        dx: cell pitch, shape (n, designs), cm.
        dz: depth of every layer, shape (n, designs, n_z), cm.
        about: how they were chosen, as plain data.
    """

    dx: np.ndarray
    dz: np.ndarray
    about: dict[str, Any]


def segment(
    library: Library | Path | str,
    output: Path | str | None = None,
    *,
    designs: int | Given | Sequence[Given],
    n_xy: int | None = None,
    n_z: int | None = None,
    dx: tuple[float, float] | None = None,
    dz: tuple[float, float] | None = None,
    scaled: bool = False,
    unequal: float = 0.0,
    neighbours: float = 0.0,
    position: Literal["uniform"] | tuple[float, float] | None = None,
    phi: float | tuple[float, float] | None = None,
    seed: int = 0,
    maps: bool = False,
    times: bool = False,
    recover: bool = False,
    progress: Progress = silent,
) -> Cells | Maps:
    """Measure a shower library with the cells of designs, as the command ``calograd segment`` does.

        segment("library.h5", "cells.h5", designs=Design(2.5, 6.0))
        segment("library.h5", designs=[(1.0, 5.0), (2.0, (4.0, 5.0, 6.0, 8.0, 10.0))])
        segment("library.h5", "train.h5", designs=32, unequal=0.5, seed=1)
        segment("library.h5", "cells.h5", designs=Design(2.5, 6.0), position="uniform", seed=1)

    A row is one shower with one design; rows of one shower follow each other and share its number. Windows of cells
    follow the particle, see `calograd.detector.incidence`. A homogeneous block knows no cells, so its showers can be
    moved to any entry and turned to any azimuth.

    Args:
        library: a library, or the path of a library or of a folder of libraries.
        output: cells or maps file to write; None writes none.
        designs: the designs, each a `calograd.Design` or a pair (dx, dz) in cm with dz one number or one a layer; or
            the number of designs to draw for every shower, which is the data a surrogate learns from.
        n_xy: cells across. [5, or that of the designs]
        n_z: layers. [5, or that of the designs]
        dx: range of drawn pitches, log-uniform, cm. [0.9 to 5.04]
        dz: range of drawn depths, log-uniform, cm. [3.7 to 15.2]
        scaled: give dx in Moliere radii and dz in radiation lengths of the library's material instead of cm; the
            default ranges are then 0.41 to 2.31 and 3.9 to 16.2, those of PbF2.
        unequal: share of the drawn designs whose layers have independent depths.
        neighbours: pair every drawn design with one about this far away in the logarithm of each size, so that a
            training learns derivatives; see `draw_designs`. 0 for none.
        position: entry on the front face, cm; ``uniform`` draws one in the central cell for every row. None: as
            simulated.
        phi: azimuth, degrees, or a range from which one is drawn for every row. None: as simulated.
        seed: seed of the drawn designs, entries and azimuths.
        maps: return maps of the designs' windows, 32 x 32 pixels in x and z, instead of cells.
        times: measure the mean and the first time of every cell too, see `calograd.events.binning`.
        recover: use the complete showers of a library that was cut off.
        progress: called with showers done and their number.

    Returns:
        Cells, or with ``maps`` Maps, of all showers and designs.

    Raises:
        InputError: designs that cannot be, windows beyond the simulated block or geometry, an entry outside the central
            cell, options that do not go together, a layered detector, a crystal matrix with other cells or entries,
            other entries of a geometry, a library without showers, or without times where times are asked for.
        FormatError: a library that cannot be read.
        OutputExistsError: ``output`` exists.
    """
    output = None if output is None else Path(output)
    refuse_existing(output)
    if output is not None and not output.absolute().parent.is_dir():
        raise InputError(f"the folder {output.parent} does not exist; make it or choose another output")
    drawn = isinstance(designs, int)
    if not drawn and (unequal or neighbours or dx or dz):
        raise InputError("dx, dz, unequal and neighbours belong to drawn designs; give their number as designs")
    with ExitStack() as files:
        opened = library if isinstance(library, Library) else files.enter_context(open_library(Path(library), recover))
        unit_x, unit_z = _units(opened) if scaled else (1.0, 1.0)
        if isinstance(designs, int):
            ranges = zip((dx, dz), RANGES[scaled], (unit_x, unit_z), strict=True)
            (low_x, high_x), (low_z, high_z) = (
                (unit * (given or default)[0], unit * (given or default)[1]) for given, default, unit in ranges
            )
            n_xy = 5 if n_xy is None else n_xy
            chosen = draw_designs(
                opened, designs, (low_x, high_x), (low_z, high_z), seed, n_xy, 5 if n_z is None else n_z,
                unequal=unequal, neighbours=neighbours,
            )  # fmt: skip
        else:
            pitches, depths, n_xy = _given(designs, n_xy, n_z)
            chosen = same_designs(opened, unit_x * pitches, unit_z * depths)
        incident = _placed(opened, chosen, position, phi, seed, maps)
        measured = measure(opened, chosen, n_xy, maps=maps, times=times, incident=incident, progress=progress)
    if output is not None:
        write_dense(output, measured)
    return measured


def _given(designs: Given | Sequence[Given], n_xy: int | None, n_z: int | None) -> tuple[np.ndarray, np.ndarray, int]:
    """Return dx, shape (designs,), dz, shape (designs, n_z), and n_xy of given designs. Raises `InputError`."""
    listed: list[Any] = [designs] if _is_pair(designs) or not isinstance(designs, Iterable) else list(designs)
    if not listed:
        raise InputError("no designs; give at least one, or the number of designs to draw")
    others = [each for each in listed if not _is_pair(each)]
    n_xy, layers = _same("n_xy", others, n_xy), _same("n_z", others, n_z)
    pitches, depths = [], []
    for each in listed:
        pair = each if _is_pair(each) else (size.detach().cpu().double().numpy() for size in (each.dx, each.dz))
        pitch, depth = (np.asarray(size, np.float64) for size in pair)
        if depth.shape[-1:] not in ((), (layers,)):
            raise InputError(f"{depth.size} layer depths for {layers} layers; expected one, or one a layer")
        pitches.append(np.atleast_1d(pitch))
        depths.append(np.broadcast_to(depth, (pitch.size, layers)))
    return np.concatenate(pitches), np.concatenate(depths), n_xy


def _is_pair(design: Any) -> bool:
    """Return whether a design is a pair (dx, dz), not a `Design`."""
    return isinstance(design, tuple | list) and len(design) == 2 and isinstance(design[0], Real)


def _same(name: str, designs: Sequence[Any], asked: int | None) -> int:
    """Return the number ``name`` that all designs and the caller agree on; 5 if nobody names it."""
    found = {int(getattr(each, name)) for each in designs} | ({asked} if asked else set())
    if len(found) > 1:
        several = " and ".join(map(str, sorted(found)))
        raise InputError(f"designs with {name} = {several}; expected the same for all")
    return next(iter(found), 5)


def _units(library: Library) -> tuple[float, float]:
    """Return Moliere radius and radiation length of a library's material, cm."""
    if library.material is None:
        raise InputError(f"{library.path} is of a layered detector; scaled sizes need a homogeneous block")
    return to_float(library.material.moliere_radius), to_float(library.material.radiation_length)


def same_designs(library: Library, dx: np.ndarray, dz: np.ndarray) -> Designs:
    """Return the same designs for all showers of a library: dx of shape (designs,), dz (designs, n_z), cm."""
    about, n = {"designs": len(dx), "dx": dx.tolist(), "dz": dz.tolist()}, len(library)
    return Designs(np.broadcast_to(dx, (n, *dx.shape)), np.broadcast_to(dz, (n, *dz.shape)), about)


def draw_designs(
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
    """Draw designs of its own for every shower of a library: dx and dz log-uniform in their ranges.

    A share ``unequal`` of the designs has layers of independent depths, the others have equal ones. With ``neighbours``
    above zero a close design follows every design. Its sizes are those of the design times exp(``neighbours`` n), with
    a normal n for dx and one for dz; half of the neighbours have one more n for every layer. A size beyond its range is
    reflected at the end. From the difference of a shower between close designs a training learns derivatives.

    Raises:
        InputError: no designs, ranges that are not positive or the wrong way round, windows larger than the simulated
            block.
    """
    if not 0 <= neighbours <= MAX_NEIGHBOURS:
        raise InputError(f"neighbours at {neighbours} in the logarithm of a size: expected 0 to {MAX_NEIGHBOURS:g}")
    if designs < 1 or n_z < 1 or seed < 0:
        raise InputError(f"{designs} designs of {n_z} layers, seed {seed}: expected at least one, and a seed from 0")
    if not 0 <= unequal <= 1:
        raise InputError(f"{unequal} of the designs with unequal layers: expected a share from 0 to 1")
    for name, (low, high) in (("dx", dx), ("dz", dz)):
        if not 0 < low < high < np.inf:
            raise InputError(f"{name} from {low:g} to {high:g} cm: expected positive numbers, the lower end first")
    _check_window(library, n_xy * dx[1], n_z * dz[1])
    n = len(library)
    rng = np.random.default_rng(seed)
    u = rng.random((2, n, designs))
    across = u[0]
    along = np.where((rng.random((n, designs)) < unequal)[:, :, None], rng.random((n, designs, n_z)), u[1][:, :, None])
    if neighbours:
        steps = (neighbours / np.log(dx[1] / dx[0]), neighbours / np.log(dz[1] / dz[0]))
        near_x, near_z = _near(across, along, *steps, rng)
        across = np.stack([across, near_x], axis=2).reshape(n, -1)
        along = np.stack([along, near_z], axis=2).reshape(n, -1, n_z)
    about = {"designs": designs, "dx_range": list(dx), "dz_range": list(dz), "seed": seed, "unequal": unequal}
    about |= {"neighbours": neighbours} if neighbours else {}
    pitches = np.exp(np.log(dx[0]) + across * np.log(dx[1] / dx[0]))
    return Designs(pitches, np.exp(np.log(dz[0]) + along * np.log(dz[1] / dz[0])), about)


def _near(
    across: np.ndarray, along: np.ndarray, step_x: float, step_z: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return uniform numbers close to given ones, of dx (n, designs) and dz (n, designs, n_z), all in [0, 1]."""
    each = (rng.random(across.shape) < 0.5)[:, :, None] * rng.standard_normal(along.shape)
    moved_x = across + step_x * rng.standard_normal(across.shape)
    moved_z = along + step_z * (rng.standard_normal(across.shape)[:, :, None] + each)
    near_x, near_z = (1 - np.abs(1 - np.abs(moved) % 2) for moved in (moved_x, moved_z))
    return near_x, near_z


def _check_window(library: Library, width: float, depth: float) -> None:
    """Refuse windows (full lengths, cm) that reach beyond what was simulated: their outer cells would be empty."""
    extent = _extent(library.config)
    if extent is None:
        return
    half = width / 2
    if not _holds(extent, ((-half, half), (-half, half), (0.0, depth))):
        more = "simulate a larger one (--block), or " if isinstance(_detector(library.config), Block) else ""
        raise InputError(
            f"designs of up to {width:.4g} x {width:.4g} x {depth:.4g} cm reach beyond {_describe(library.config)}; "
            f"{more}narrow --dx and --dz"
        )


def _detector(config: SimulationConfig | Imported) -> Detector | None:
    """Return the detector that was simulated; None for showers of others."""
    return config.detector if isinstance(config, SimulationConfig) else None


def _extent(config: SimulationConfig | Imported) -> Box | None:
    """Return the bounds of a block or of the sensitive volumes of a geometry, cm; None where they are not known."""
    match _detector(config):
        case Block(size=(x, y, z)):
            return (-x / 2, x / 2), (-y / 2, y / 2), (0.0, z)
        case Geometry(extent=extent):
            return extent
    return None


def _holds(extent: Box, window: Box) -> bool:
    """Return whether a window is within an extent, but for `EDGE`; windows begin at the front face."""
    (*across, (_, end)), (*wanted, (_, depth)) = extent, window
    return depth <= end * (1 + EDGE) and all(
        low - EDGE * (high - low) / 2 <= least and most <= high + EDGE * (high - low) / 2
        for (low, high), (least, most) in zip(across, wanted, strict=True)
    )


def _describe(config: SimulationConfig | Imported) -> str:
    """Return what was simulated, with its extent, in words."""
    match _detector(config):
        case Block(size=(x, y, z)):
            return f"the simulated block of {x:g} x {y:g} x {z:g} cm"
        case Geometry() as geometry:
            return f"the sensitive volumes of {geometry.name} ({_ranges(geometry.extent)})"
    raise TypeError("neither a block nor a geometry")


def _ranges(box: Box) -> str:
    """Return the ranges of x, y and z in words."""
    x, y, z = (f"{low:.4g} to {high:.4g}" for low, high in box)
    return f"x {x}, y {y}, z {z} cm"


def _placed(
    library: Library,
    designs: Designs,
    position: Literal["uniform"] | tuple[float, float] | None,
    phi: float | tuple[float, float] | None,
    seed: int,
    maps: bool,
) -> list[Incidence] | None:
    """Return the particles in front of each design, moved and turned as asked; None: as simulated.

    Raises:
        InputError: an entry outside the central cell, maps, or a crystal matrix or a geometry of a GDML file, whose
            showers cannot be moved.
    """
    (n, each), simulated = designs.dx.shape, library.incidence()
    if position is None and phi is None:
        return None
    if maps:
        raise InputError("maps are of windows on the axis; leave out position and phi, or measure cells")
    if library.immovable:
        raise InputError(
            f"{library.path} is of {library.immovable}, whose showers cannot be moved; simulate the entries"
        )
    u = RandomNumbers(seed, library.index, calls=DRAWS).uniform_array(each, 3)
    if designs.about.get("neighbours"):  # a pair has one entry, in units of the cell, so that the design alone differs
        u = np.repeat(u[:, ::2], 2, axis=1)
    result = []
    asked = simulated.position if position is None else position, simulated.theta, simulated.phi if phi is None else phi
    for d, dx in enumerate(designs.dx.T):
        if position is not None and position != "uniform" and (np.abs(position) > dx[:, None] / 2 * (1 + EDGE)).any():
            raise InputError(
                f"position = ({position[0]:g}, {position[1]:g}) cm is outside the central cell of {dx.min():g} cm; "
                "expected coordinates up to half of the pitch"
            )
        result.append(Incidence.of(n, simulated.particle, *place(u[:, d], dx, *asked)))
    return result


def check_windows(
    config: SimulationConfig | Imported,
    name: str,
    simulated: Incidence,
    dx: np.ndarray,
    dz: np.ndarray,
    n_xy: int,
    incident: Incidence,
    windows: np.ndarray | None,
) -> None:
    """Refuse windows beyond what was simulated, where cells would be empty.

    In a block this holds for windows that follow particles: on the axis, cells around a block may be empty on purpose.
    In a geometry of a GDML file the middles of all cells must be within the bounds of the sensitive volumes, since
    cells also hold the gaps and walls about these.

    Args:
        config, name: simulation of the showers, and the name of their library.
        simulated: the particles as they were simulated.
        dx, dz: one design a shower, shapes (n,) and (n, n_z), cm.
        n_xy: cells across.
        incident: the particles as they are measured.
        windows: centres of the windows, shape (n, n_z, 2), in cells; None: on the axis.

    Raises:
        InputError: windows that follow particles out of the block, or that are not within the geometry.
    """
    extent = _extent(config)
    if extent is None or (windows is None and isinstance(_detector(config), Block)):
        return
    windows = np.zeros((*dz.shape, 2)) if windows is None else windows
    part = 0.0 if isinstance(_detector(config), Block) else 0.5
    turn = np.radians((simulated.phi - incident.phi).astype(np.float64))[:, None, None]
    corners = np.array([(x, y) for x in (-1, 1) for y in (-1, 1)]) * (n_xy / 2 - part)
    at = (windows[:, :, None] + corners) * dx[:, None, None, None] - incident.position[:, None, None]
    x = at[..., 0] * np.cos(turn) - at[..., 1] * np.sin(turn) + simulated.position[:, 0, None, None]
    y = at[..., 0] * np.sin(turn) + at[..., 1] * np.cos(turn) + simulated.position[:, 1, None, None]
    needed = ((x.min(), x.max()), (y.min(), y.max()), (0.0, (dz.sum(1) - part * dz[:, -1]).max())) if x.size else extent
    if _holds(extent, needed):
        return
    if isinstance(_detector(config), Block):
        (low_x, high_x), (low_y, high_y), (_, depth) = needed
        raise InputError(
            f"{name}: windows that follow the particles need {2 * max(-low_x, high_x):.4g} x "
            f"{2 * max(-low_y, high_y):.4g} x {depth:.4g} cm, the simulated block has "
            f"{' x '.join(f'{high - low:g}' for low, high in extent)} cm; simulate a larger one (--block)"
        )
    raise InputError(
        f"{name}: the middles of these cells cover {_ranges(needed)}, which reaches beyond {_describe(config)}; choose "
        "smaller or fewer cells (--cell, --cells)"
    )


@overload
def measure(
    library: Library,
    designs: Designs,
    n_xy: int,
    *,
    maps: Literal[False] = False,
    times: bool = False,
    incident: Sequence[Incidence] | None = None,
    progress: Progress = silent,
) -> Cells: ...
@overload
def measure(
    library: Library,
    designs: Designs,
    n_xy: int,
    *,
    maps: bool,
    times: bool = False,
    incident: Sequence[Incidence] | None = None,
    progress: Progress = silent,
) -> Cells | Maps: ...
def measure(
    library: Library,
    designs: Designs,
    n_xy: int,
    *,
    maps: bool = False,
    times: bool = False,
    incident: Sequence[Incidence] | None = None,
    progress: Progress = silent,
) -> Cells | Maps:
    """Measure every shower of a library with its designs.

    Args:
        library: opened for reading.
        designs: those of `same_designs` or `draw_designs` for this library.
        n_xy: cells across.
        maps: return maps of the designs' windows instead of cells.
        times: measure the mean and the first time of every cell too.
        incident: the particles in front of each design; showers are moved and turned to them. None: as simulated.
        progress: called with showers done and their number.

    Raises:
        InputError: windows beyond the simulated block or geometry, sizes that are not positive, a
            layered detector, a crystal matrix with other cells, no showers, no times where they are asked for.
    """
    n, each, n_z = designs.dz.shape
    library.check_cells(designs.dx, designs.dz, n_xy, n_z)
    if n == 0:
        raise InputError(f"{library.path} holds no showers yet; expected at least one")
    assert library.material is not None  # checked with the cells
    if times:
        _check_times(library, maps)
    simulated, moves = library.incidence(), incident is not None
    incident = [simulated] * each if incident is None else incident
    windows: list[np.ndarray | None] = [None] * each
    for d, particles in enumerate(incident):
        dx, dz = designs.dx[:, d], designs.dz[:, d]
        if not maps and not particles.on_axis:
            windows[d] = particles.window_offsets(dx, dz)
        check_windows(library.config, str(library.path), simulated, dx, dz, n_xy, particles, windows[d])
    shape = (PIXELS, PIXELS) if maps else (n_xy, n_xy, n_z)
    made = [np.empty((n, each, *shape), dtype=np.float32) for _ in range(3 if times else 1)]
    done = 0
    for block in library.blocks():
        rows = slice(done, done + len(block))
        for d in range(each):
            moved, before, after, window = block, simulated[rows], incident[d][rows], windows[d]
            if moves:
                moved = move_deposits(block, before.position, after.position, after.phi - before.phi)
            sizes = designs.dx[rows, d], designs.dz[rows, d], n_xy, n_z
            for array, values in zip(made, _measured(moved, sizes, window, rows, maps, times), strict=True):
                array[rows, d] = values
        done = rows.stop
        progress(done, n)
    width, depth = n_xy * designs.dx.max(), designs.dz.sum(2).max()
    common: dict[str, Any] = {
        "energy": np.repeat(library.energy, each), "dx": designs.dx.ravel().astype(np.float32),
        "dz": designs.dz.reshape(-1, n_z).astype(np.float32), "shower": np.repeat(library.index, each),
        "material": library.material, "origin": "geant4", "incidence": _by_rows(incident),
        "config": {"mode": _mode(library.config, width, depth), "segmentation": designs.about}
        | library.about(),
    }  # fmt: skip
    if moves:
        common["config"]["beam"] = common["incidence"].to_beam()
    names, rows_first = ("maps" if maps else "cells", *TIMES), [array.reshape(-1, *shape) for array in made]
    common |= dict(zip(names, rows_first, strict=False))
    return Maps(n_xy=n_xy, **common) if maps else Cells(**common)


def _check_times(library: Library, maps: bool) -> None:
    """Raise `InputError` unless times can be measured."""
    if maps:
        raise InputError("times are of cells; leave out times, or measure cells")
    if library.untimed is not None:
        raise InputError(
            f"{library.untimed} has no times of deposits: it was imported, or simulated by an older version; "
            "simulate it anew, or leave out times"
        )


def _measured(
    showers: Showers,
    sizes: tuple[np.ndarray, np.ndarray, int, int],
    windows: np.ndarray | None,
    rows: slice,
    maps: bool,
    times: bool,
) -> tuple[np.ndarray, ...]:
    """Return what a design (dx, dz, n_xy, n_z) measures of the showers ``rows``: maps, or cells, with or without times.

    Args:
        showers: the showers.
        sizes: one design a shower.
        windows: centres of the windows of all showers of the library; None: on the axis.
        rows: the showers' places in the library.
        maps, times: what to measure.
    """
    if maps:
        return (project_deposits(showers, *sizes),)
    window = None if windows is None else windows[rows]
    axes = cell_axes(showers, *sizes)
    return bin_times(showers, axes, window) if times else (bin_deposits(showers, axes, window),)


def _by_rows(incident: Sequence[Incidence]) -> Incidence:
    """Return the particles of all rows: the designs of a shower side by side."""
    showers, designs = len(incident[0]), len(incident)
    return Incidence.concatenate(incident)[np.arange(showers * designs).reshape(designs, showers).T.ravel()]


def _mode(config: SimulationConfig | Imported, width: float, depth: float) -> str:
    """Return what surrounds a window of cells (full lengths, cm), for files and reports."""
    if isinstance(config, Imported):
        return "imported"
    if isinstance(config.detector, CrystalMatrix):
        return "crystal matrix"
    if isinstance(config.detector, Geometry):
        return GDML
    alone = isinstance(config.detector, Block) and np.allclose(config.detector.size, (width, width, depth))
    return "stand-alone" if alone else "embedded"
