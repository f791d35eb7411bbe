"""Incident particles of showers: which particle, where it enters and in which direction.

A particle enters the front face, z = 0, at its ``position`` (p_x, p_y) and goes along the straight line

    x(z) = p_x + z tan(theta) cos(phi)        y(z) = p_y + z tan(theta) sin(phi)

The window of a design follows this line. In layer k it is centred on the cell that the line crosses at the middle of
the layer's depth, z_k + dz_k / 2. With o_k = floor(x / dx + 1/2) there, and likewise in y, its cells cover

    x in [(o_k + i - n_xy/2) dx, (o_k + i + 1 - n_xy/2) dx)        i = 0 ... n_xy - 1

At normal incidence in the central cell o_k = 0. A smaller window is a crop of a larger one.

Classes that say something of incident particles:

    ParticleBeam    what is asked of a surrogate or a reference: one particle, entry and direction fixed or drawn
    Particles       the particles of showers as tensors, differentiable (`calograd.detector.particles`)
    Incidence       the same as columns of files
    Beam            what Geant4 simulates: a table with energies (`calograd.detector.configuration`)
    BeamConfig      table of a `ParticleBeam` in a configuration (`calograd.objective.config`)
    TrainedBeam     what a surrogate was trained on (`calograd.surrogate.card`)

Entries and angles that are drawn follow one rule, `place`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from calograd.detector.configuration import PDG
from calograd.errors import InputError

LARGEST_POSITION = 30.0
"""Largest coordinate of an entry, cm. A larger one was probably meant in mm."""
SAME_POSITION, SAME_ANGLE = 1e-3, 1e-2
"""Differences below which two entries (cm) and two angles (degrees) count as the same."""
SAME_DISTRIBUTION = 0.05
"""Mean distance of two distributions, as a share of their range, below which they count as the same."""
CHANCE = 3.0
"""The same in units of the distance of two samples of one distribution: its mean is 0.8, its deviation about 0.3."""
FEW = 16
"""Most values of a column that are compared one by one, whatever their shares."""
UNKNOWN = 0
"""Number of an imported particle that is none of `PDG`."""
ENTRY_CALL = 1 << 20
"""Number of the call of random numbers that draws entries and angles, far behind those that draw showers."""
COLUMNS = ("particle", "position", "theta", "phi")
"""Names of the columns of an `Incidence`."""


@dataclass(frozen=True)
class Incidence:
    """The incident particles of n showers.

    Args:
        particle: number of the particle in the scheme of the Particle Data Group, shape (n,), int32.
        position: entry on the front face, shape (n, 2), cm, float32.
        theta: angle between direction and normal of the front face, shape (n,), degrees, float32.
        phi: azimuth of the direction, shape (n,), degrees, float32.
    """

    particle: np.ndarray
    position: np.ndarray
    theta: np.ndarray
    phi: np.ndarray

    @classmethod
    def of(
        cls, n: int, particle: Any = "gamma", position: Any = (0.0, 0.0), theta: Any = 0.0, phi: Any = 0.0
    ) -> Incidence:
        """Return the particles of n showers from values for all, or one a shower.

        Args:
            n: number of showers.
            particle: ``gamma``, ``e-`` or ``e+``, or one such name or number of `PDG` a shower, shape (n,).
            position: shape (2,) or (n, 2), cm.
            theta, phi: one number or shape (n,), degrees.

        Raises:
            InputError: an unknown particle, values of another shape, angles that are none, an entry in mm.
        """
        number = _numbers(particle, n)
        entry, polar, azimuth = (
            _column(name, value, shape)
            for name, value, shape in (("position", position, (n, 2)), ("theta", theta, (n,)), ("phi", phi, (n,)))
        )
        if not ((polar >= 0) & (polar < 90)).all():
            bad = float(polar[~((polar >= 0) & (polar < 90))][0])
            raise InputError(f"theta = {bad:g}: expected degrees from 0 to below 90")
        farthest = float(np.abs(entry).max(initial=0.0))
        if farthest > LARGEST_POSITION:
            raise InputError(f"position = {farthest:g} cm: expected an entry near the axis; is it in mm? Give cm")
        return cls(number, entry, polar, azimuth)

    @classmethod
    def of_beam(cls, beam: Mapping[str, Any], n: int) -> Incidence:
        """Return the particles of n showers of a beam as files store it; what it does not say is a photon on the axis.

        An imported particle that is none of `PDG` has the number `UNKNOWN`.

        Raises:
            InputError: a beam whose particles differ from shower to shower.
        """
        several = [name for name in ("particle", "theta", "phi") if isinstance(beam.get(name), list | tuple)]
        if several or beam.get("position") == "uniform":
            raise InputError(
                f"{several[0] if several else 'position'} of the beam is drawn for each shower; it is in the file of "
                "the showers, not in its configuration"
            )
        known = {name: beam[name] for name in COLUMNS[1:] if name in beam}
        number = PDG.get(beam.get("particle", "gamma"), UNKNOWN)
        return replace(cls.of(n, **known), particle=np.full(n, number, np.int32))

    @classmethod
    def of_config(cls, config: Any, n: int) -> Incidence:
        """Return the particles of n showers by the configuration that made them; photons on the axis if it is silent.

        Args:
            config: plain data; the beam is in ``beam``, or in that of its table ``simulation``.
            n: number of showers.
        """
        beam = beam_of(config)
        return cls.of(n) if beam is None else cls.of_beam(beam, n)

    @classmethod
    def concatenate(cls, parts: Sequence[Incidence]) -> Incidence:
        """Return the particles of several sets of showers, one behind the other."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS))

    def __len__(self) -> int:
        return len(self.theta)

    def __getitem__(self, which: np.ndarray | slice) -> Incidence:
        """Return the particles of some showers, by mask, indices or slice."""
        return Incidence(self.particle[which], self.position[which], self.theta[which], self.phi[which])

    def to_beam(self) -> dict[str, Any]:
        """Return the first particle as plain data, which `of_beam` reads."""
        names = {number: name for name, number in PDG.items()}
        return {
            "particle": names.get(int(self.particle[0]), "unknown"), "position": self.position[0].tolist(),
            "theta": float(self.theta[0]), "phi": float(self.phi[0]),
        }  # fmt: skip

    @property
    def slopes(self) -> np.ndarray:
        """Slopes dx/dz and dy/dz of the straight line of every particle, shape (n, 2), float64."""
        angle = np.radians(self.phi.astype(np.float64))
        slope = np.tan(np.radians(self.theta.astype(np.float64)))
        return np.stack([slope * np.cos(angle), slope * np.sin(angle)], axis=1)

    def at(self, z: np.ndarray) -> np.ndarray:
        """Return where the straight line of every particle is at depths z, shape (n, k), cm: shape (n, k, 2)."""
        return np.asarray(self.position[:, None].astype(np.float64) + z[:, :, None] * self.slopes[:, None])

    def window_offsets(self, dx: np.ndarray, dz: np.ndarray) -> np.ndarray:
        """Return the centres of the windows of designs dx (n,), dz (n, n_z) in cells: shape (n, n_z, 2), int64.

        Sizes are rounded to float32, as files hold them, so that a line on the edge of two cells has one window.
        """
        pitch, depths = (np.asarray(size, np.float32).astype(np.float64) for size in (dx, dz))
        middle = np.cumsum(depths, axis=1) - depths / 2
        return np.floor(self.at(middle) / pitch[:, None, None] + 0.5).astype(np.int64)

    @property
    def on_axis(self) -> bool:
        """True if all particles enter in the middle, along the normal: showers then have the symmetry of the cells."""
        return not (np.abs(self.position) > SAME_POSITION).any() and not (self.theta > SAME_ANGLE).any()

    def describe(self) -> str:
        """Return the particles in words, with the ranges of entry and angles."""
        names = {number: name for name, number in PDG.items()} | {UNKNOWN: "another particle"}
        who = " and ".join(names.get(int(p), str(p)) for p in np.unique(self.particle)) or "no particles"
        return f"{who} {self.describe_line()}"

    def describe_line(self) -> str:
        """Return entry and angle in words, with their ranges."""
        x, y = (_range(column) for column in self.position.T)
        where = "on the axis" if (x, y) == ("0", "0") else f"entering at x = {x}, y = {y} cm"
        direction = f" at theta = {_range(self.theta)} degrees" if (self.theta > SAME_ANGLE).any() else ""
        return where + direction

    def difference(self, other: Incidence) -> str | None:
        """Return in words how two sets of showers differ in their particles; None if they agree.

        They agree if they have the same particles and, of each, the same distributions of entry, theta and direction,
        as far as their numbers tell (`_alike`). How many showers are of each particle does not matter.
        """
        particles = np.unique(self.particle)
        names = ["particles"]
        if np.array_equal(particles, np.unique(other.particle)):
            columns = (("entries", SAME_POSITION), ("angles", SAME_ANGLE), ("azimuths", np.radians(SAME_ANGLE)))
            names = [
                name
                for k, (name, least) in enumerate(columns)
                if not all(
                    _alike(mine, theirs, least)
                    for each in particles
                    for mine, theirs in zip(self._columns(each)[k], other._columns(each)[k], strict=True)
                )
            ]
        if not names:
            return None
        mine, theirs = self.describe(), other.describe()
        return f"{mine}, not {theirs}" + (f" with another distribution of {names[0]}" if mine == theirs else "")

    def _columns(self, particle: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return entries, angles and slopes of the showers of one particle, each of shape (columns, n)."""
        of = self[self.particle == particle]
        return of.position.T, of.theta[None], of.slopes.T


def beam_of(config: Any) -> Mapping[str, Any] | None:
    """Return the beam in the configuration of showers, or in that of its table ``simulation``; None if it is silent."""
    for table in (config, config.get("simulation")) if isinstance(config, Mapping) else ():
        beam = table.get("beam") if isinstance(table, Mapping) else None
        if isinstance(beam, Mapping):
            return beam
    return None


def place(u: Any, dx: Any, position: Any, theta: Any, phi: Any) -> tuple[Any, Any, Any]:
    """Return entry, theta and phi of showers, of which those that are drawn follow from uniform numbers.

    The entry is uniform in a cell, in the same place at every pitch. Takes arrays or tensors, which keep their graph.

    Args:
        u: uniform in (0, 1), shape (n, 3) or more: for x, y, phi and, where it is a range, theta.
        dx: pitch, shape (n,) or (1,), cm.
        position: ``uniform``: drawn; else returned as it is.
        theta, phi: a range, as a tuple of its ends: drawn evenly, degrees; else returned as they are.
    """
    entry = (u[:, :2] - 0.5) * dx[:, None] if isinstance(position, str) else position
    polar, azimuth = (
        span[0] + u[:, column] * (span[1] - span[0]) if isinstance(span, tuple) else span
        for span, column in ((theta, 3), (phi, 2))
    )
    return entry, polar, azimuth


def _numbers(particle: Any, n: int) -> np.ndarray:
    if isinstance(particle, str) and particle in PDG:
        return np.full(n, PDG[particle], np.int32)
    numbers = np.asarray(particle.detach().cpu() if hasattr(particle, "detach") else particle)
    if numbers.dtype.kind == "U":
        unknown = sorted(set(numbers.ravel().tolist()) - set(PDG))
        if unknown:
            raise InputError(f"particle = '{unknown[0]}': expected one of {', '.join(PDG)}")
        numbers = np.vectorize(PDG.__getitem__, otypes=[np.int32])(numbers)
    if numbers.shape not in ((), (n,)) or not np.isin(numbers, [*PDG.values(), UNKNOWN]).all():
        raise InputError(f"particle: expected one of {', '.join(PDG)}, or {n} numbers among {list(PDG.values())}")
    return np.broadcast_to(numbers, (n,)).astype(np.int32)


def _column(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return values of a shape in float32. Raises `InputError` for another shape, or values that are not finite."""
    try:
        values = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name} = {value!r}: expected finite numbers of shape {shape[1:]} or {shape}") from None
    if values.shape not in (shape, shape[1:]) or not np.isfinite(values).all():
        raise InputError(f"{name} has shape {values.shape}, expected finite numbers of shape {shape[1:]} or {shape}")
    return np.broadcast_to(values, shape).astype(np.float32)


def _range(values: np.ndarray) -> str:
    low, high = (float(end) for end in (values.min(initial=np.inf), values.max(initial=-np.inf)))
    if low > high:
        return "none"
    return f"{low + 0.0:.3g}" if high - low < SAME_POSITION else f"{low:.3g} to {high:.3g}"


def _alike(mine: np.ndarray, theirs: np.ndarray, least: float) -> bool:
    """Return whether two samples may be of one distribution.

    A fixed value agrees with the same value alone, and a few fixed values with the same values. Of other samples the
    mean distance W1 = integral |F - G| is compared with that of two samples of the pooled distribution H, whose mean is
    sqrt(2 / pi) sqrt(1/n + 1/m) integral sqrt(H (1 - H)).

    Args:
        mine, theirs: values, shapes (n,) and (m,).
        least: difference of values that count as the same.
    """
    if not len(mine) or not len(theirs):
        return len(mine) == len(theirs)
    ends = [np.array([values.min(), values.max()], np.float64) for values in (mine, theirs)]
    if min(high - low for low, high in ends) <= least:
        return bool((np.abs(ends[0] - ends[1]) <= least).all())
    mine, theirs = np.sort(mine.astype(np.float64)), np.sort(theirs.astype(np.float64))
    fixed = [values[np.r_[True, np.diff(values) > least]] for values in (mine, theirs)]
    if all(len(few) <= min(FEW, len(all_) / 4) for few, all_ in zip(fixed, (mine, theirs), strict=True)):
        return len(fixed[0]) == len(fixed[1]) and bool((np.abs(fixed[0] - fixed[1]) <= least).all())
    pooled = np.sort(np.concatenate([mine, theirs]))
    steps, share = np.diff(pooled), np.arange(1, len(pooled)) / len(pooled)
    one, two = (np.searchsorted(values, pooled[:-1], side="right") / len(values) for values in (mine, theirs))
    by_chance = np.sqrt(1 / len(mine) + 1 / len(theirs)) * float((np.sqrt(share * (1 - share)) * steps).sum())
    allowed = max(least, SAME_DISTRIBUTION * float(pooled[-1] - pooled[0]), CHANCE * by_chance)
    return bool((np.abs(one - two) * steps).sum() <= allowed)
