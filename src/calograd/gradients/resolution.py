"""Energy resolution of a design against energy, by a surrogate and by Geant4, with its gradient in the design.

`calograd.metrics.resolution` defines sigma / E, its error and its fit. Each is taken of three stages: of the deposited
energy, with background and mask, and with the readout too (those that the measurement has).

With x_i the reconstructed energy of shower i, u = ln y the logarithms of the design's parameters, t_i = dx_i / du by
back-propagation through reconstruction and surrogate, m the mean and s the standard deviation of x,

    d ln(s / m) / du = sum_i (x_i - m) t_i / ((n - 1) s^2) - mean(t) / m

This is the derivative of the standard deviation over the mean with common random numbers. That of ``width68`` follows
from the derivatives of the quantiles, dq/du = E[t | x = q], by a local linear regression over a share 2 `WINDOW` of the
showers. Errors are by a jackknife that leaves out one of `GROUPS` groups of showers at a time. Derivatives of the terms
a, b, c follow from those of all energies by the implicit function theorem (`calograd.metrics.resolution.fit_gradient`),
their errors by the same jackknife.

Geant4's gradient is a central difference on common showers, see `calograd.gradients.finite_differences`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from calograd.checks import as_count
from calograd.detector.design import Design
from calograd.detector.material import Material, to_float
from calograd.detector.particles import ON_AXIS, ParticleBeam
from calograd.errors import InputError
from calograd.events.dense import Cells, Maps
from calograd.events.library.reader import open_library
from calograd.events.segmentation import segment
from calograd.events.shards import read_shards
from calograd.gradients.autodiff import BACKGROUND, ROWS, SHOWERS
from calograd.gradients.estimates import generator_for
from calograd.gradients.finite_differences import REPLICAS, STEP, bootstrap_values, neighbouring_designs
from calograd.gradients.gradient import default_measurement, space_at
from calograd.io.files import shard_files
from calograd.io.hdf5 import schema_of
from calograd.io.markup import table
from calograd.metrics.resolution import (
    COLUMNS,
    MIN_SHOWERS,
    OFFSET,
    ONE_SIGMA,
    POINTS,
    SAME,
    TERMS,
    EnergyGroup,
    ResolutionCurve,
    check_terms,
    fit_gradient,
    group_by_energy,
    resolution_curve,
    rounded,
)
from calograd.objective.background import ExponentialBackground
from calograd.objective.measurement import MeasuredEvents, Measurement
from calograd.objective.reference import CellsReference, Reference, open_reference
from calograd.objective.space import DesignSpace
from calograd.objective.utility import EnergyResolution, Objective, Utility, totals
from calograd.surrogate import Surrogate
from calograd.system.progress import StageProgress, silent
from calograd.system.random_numbers import RandomNumbers

GROUPS = 50
"""Most groups of showers of a jackknife."""
WINDOW = 0.08
"""Half width of the window of a quantile's derivative, as a share of the showers."""
REFERENCE = 2
"""Stream of random numbers of the reference's background."""
LIBRARY = "calograd/library"
"""Beginning of the schema of shower libraries."""


def _spread(events: MeasuredEvents) -> Tensor:
    """Minus the standard deviation of the measured over the incident energy."""
    return -totals(events.measured).std() / events.energy.double().mean()


UTILITIES: dict[str, Utility] = {
    "std": EnergyResolution(), "incident": _spread, "width68": EnergyResolution(robust=True)
}  # fmt: skip
"""Utilities that are minus sigma / E, by definition."""


@dataclass(frozen=True)
class ResolutionGradient:
    """Derivatives of the resolution with respect to the logarithms of a design's parameters.

    Args:
        names: names of the parameters, shape (p,).
        y: the parameters, shape (p,), cm.
        energies: incident energies, shape (k,), GeV.
        values, errors: d ln(sigma / E) / d ln y with standard errors, shape (k, p).
        fit, fit_errors: d (a, b, c) / d ln y with standard errors, in sqrt(GeV), GeV and 1, shape (3, p); NaN for terms
            that are zero; None without a fit.
    """

    names: tuple[str, ...]
    y: np.ndarray
    energies: np.ndarray
    values: np.ndarray
    errors: np.ndarray
    fit: np.ndarray | None = None
    fit_errors: np.ndarray | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        plain: dict[str, Any] = {
            "parameters": dict(zip(self.names, self.y.tolist(), strict=True)), "energies": self.energies.tolist(),
            "values": self.values.tolist(), "errors": self.errors.tolist(),
        }  # fmt: skip
        if self.fit is not None and self.fit_errors is not None:
            plain["fit"] = {
                term: {name: [row[j], error[j]] if isfinite(row[j]) else None for j, name in enumerate(self.names)}
                for term, row, error in zip(TERMS, self.fit.tolist(), self.fit_errors.tolist(), strict=True)
            }
        return plain


@dataclass(frozen=True)
class ResolutionStage:
    """The resolution after one stage of the measurement.

    Args:
        name: ``deposited``, ``with background``, ``with readout`` or ``with background and readout``.
        measurement: what is done to the deposited energies.
        surrogate, geant4: the curves; None for a source that was not given.
        gradient, geant4_gradient: their gradients in the design; None where there is none.
    """

    name: str
    measurement: Measurement
    surrogate: ResolutionCurve | None = None
    geant4: ResolutionCurve | None = None
    gradient: ResolutionGradient | None = None
    geant4_gradient: ResolutionGradient | None = None

    @property
    def curves(self) -> list[ResolutionCurve]:
        """The curves that there are, the surrogate's first."""
        return [curve for curve in (self.surrogate, self.geant4) if curve is not None]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        parts = {name: getattr(self, name) for name in ("surrogate", "geant4", "gradient", "geant4_gradient")}
        about = {"stage": self.name, "measurement": self.measurement.describe()}
        return about | {name: part.to_dict() for name, part in parts.items() if part is not None}


@dataclass(frozen=True)
class ResolutionResult:
    """Energy resolution of one design.

    Args:
        design: the design.
        definition: definition of sigma / E, see `calograd.metrics.resolution.DEFINITIONS`.
        stages: the resolution after every stage of the measurement; the last one is the complete measurement.
        surrogate, reference: names of the surrogate and of the reference; empty where there is none.
        notes: sentences on what was left out.
        seed: seed of all random numbers.
    """

    design: Design
    definition: str
    stages: tuple[ResolutionStage, ...]
    surrogate: str
    reference: str
    notes: tuple[str, ...]
    seed: int

    def rows(self) -> list[list[str]]:
        """Return the rows of a table: stage, source, energy, sigma / E, response and showers."""
        return [[stage.name, *row] for stage in self.stages for curve in stage.curves for row in curve.rows()]

    def fit_rows(self) -> list[list[str]]:
        """Return the rows of a table: stage, source, fit, chi2 over degrees of freedom."""
        return [
            [stage.name, curve.source, str(curve.fit or curve.note),
             f"{curve.fit.chi2:.1f} / {curve.fit.degrees}" if curve.fit else ""]
            for stage in self.stages
            for curve in stage.curves
        ]  # fmt: skip

    def gradient_rows(self) -> list[list[str]]:
        """Return the rows of a table: stage, source, energy or term, and the derivative in every parameter."""
        rows = []
        for stage in self.stages:
            for source, known in ((self.surrogate, stage.gradient), ("Geant4", stage.geant4_gradient)):
                if known is None:
                    continue
                for e, values, errors in zip(known.energies, known.values, known.errors, strict=True):
                    cells = [rounded(*pair) for pair in zip(values, errors, strict=True)]
                    rows.append([stage.name, source, f"ln(sigma/E) at {e:.4g} GeV", *cells])
                if known.fit is None or known.fit_errors is None:
                    continue
                units = (("a, %", 100.0), ("b, MeV", 1e3), ("c, %", 100.0))
                for (term, scale), values, errors in zip(units, known.fit, known.fit_errors, strict=True):
                    if np.isfinite(values).all():
                        cells = [rounded(scale * v, scale * e) for v, e in zip(values, errors, strict=True)]
                        rows.append([stage.name, source, term, *cells])
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "schema": "calograd/resolution/1", "surrogate": self.surrogate, "reference": self.reference,
            "design": {"dx": float(self.design.dx), "dz": self.design.dz.tolist(),
                       "material": self.design.material.name, "cells": [self.design.n_xy, self.design.n_z]},
            "definition": self.definition, "seed": self.seed, "notes": list(self.notes),
            "stages": [stage.to_dict() for stage in self.stages],
        }  # fmt: skip

    def _repr_html_(self) -> str:
        """Return the tables that a notebook shows."""
        return table("Energy resolution", ("stage", *COLUMNS), self.rows()) + table(
            "Fits, E in GeV", ("stage", "source", "sigma / E", "chi2 / degrees"), self.fit_rows()
        )


def resolution(
    surrogate: Surrogate | str | Path | None = None,
    design: Design | None = None,
    energies: float | Sequence[float] | None = None,
    *,
    reference: Cells | Maps | str | Path | None = None,
    measurement: Measurement | None = None,
    beam: ParticleBeam = ON_AXIS,
    definition: str = "std",
    terms: Sequence[str] = TERMS,
    gradient: bool = True,
    per_layer: bool | None = None,
    showers: int = 1000,
    sampler: str | None = None,
    steps: int | None = None,
    seed: int = 0,
    extrapolate: bool = False,
    progress: StageProgress = silent,
) -> ResolutionResult:
    """Return sigma / E of a design against energy with errors and its fit a / sqrt(E) + b / E + c in quadrature.

        calograd.resolution("pbf2-cells-fast", Design(2.5, 6.0)).stages[0].surrogate.fit
        calograd.resolution("pbf2-cells-fast", Design(2.5, 6.0), reference="geant4.h5")
        calograd.resolution(reference="geant4.h5", design=Design(2.5, 6.0), energies=[1, 10, 50])

    Args:
        surrogate: a surrogate of cells or maps, its bundled name or its folder; None: the reference alone.
        design: one design; None: the only one that the reference holds.
        energies: incident energies, GeV. None: those of the reference, else `POINTS` logarithmic steps over the trained
            range. A reference with a continuous spectrum is binned about them.
        reference: Geant4's showers: a cells or maps file, a folder of such files, a shower library, or cells.
        measurement: background, readout and mask; None: the default background and no readout. `Measurement()` is of
            the deposited energy alone.
        beam: particle, entry and direction of the showers, for a surrogate that knows several; a library is moved to
            the entry and turned to the azimuth.
        definition: ``std``, standard deviation over mean; ``incident``, standard deviation over incident energy; or
            ``width68``, half the central 68 % width over the median.
        terms: terms of the fit that are free, some of ``("a", "b", "c")``.
        gradient: True to take the gradient in the design.
        per_layer: True for a parameter for the depth of every layer; None: if the depths differ.
        showers: generated showers of every energy.
        sampler, steps: see `Surrogate.sample`.
        seed: seed of all random numbers.
        extrapolate: warn instead of refusing outside the trained range.
        progress: called with the stages "surrogate" and "Geant4".

    Raises:
        RangeError: the design or an energy is outside the trained range.
        InputError: neither surrogate nor reference, a reference of another beam, material or design, too few showers.
        FormatError: a file that cannot be read.
    """
    if surrogate is None and reference is None:
        raise InputError("give a surrogate, a reference of Geant4's showers, or both")
    terms, count = check_terms(terms), as_count("showers", showers, MIN_SHOWERS)
    model = surrogate if isinstance(surrogate, Surrogate) or surrogate is None else Surrogate.load(surrogate)
    moved = beam if model is not None and model.model.takes_particles else None
    rows, name = (None, "") if reference is None else _read(reference, design, moved, seed)
    at = _design_of(rows, design, name) if rows is not None else design
    if at is None:
        raise InputError("the design is missing; give one, as Design(2.5, 6.0)")
    if at.batched:
        raise InputError(f"the resolution is of one design, {at.n} are given; take them one by one")
    asked = None if energies is None else np.unique(np.atleast_1d(np.asarray(energies, float)))
    if asked is not None and not (len(asked) and (asked > 0).all() and np.isfinite(asked).all()):
        raise InputError(f"energies = {asked.tolist()} GeV, expected positive numbers")
    notes, samples = list[str](), list[EnergyGroup]()
    if rows is not None:
        if rows.origin != "geant4":
            notes.append(f"the reference's origin is '{rows.origin}', not geant4")
        if model is not None:
            _check_beam(model, rows, beam, name)
        samples = _samples(rows, at, asked, name, notes)
    chain = measurement or _default(model, rows)
    stages = _stages(chain)
    if rows is not None:
        stages = _measure_reference(stages, rows, samples, at, definition, terms, seed, progress)
    if model is not None:
        points = _energies(model, asked, samples, extrapolate, notes)
        space, y = space_at(model, at, per_layer=per_layer)
        stages = _measure_surrogate(
            stages, model, at, points, space if gradient else None, y, definition, terms, count, seed,
            beam, {"sampler": sampler, "steps": steps, "extrapolate": extrapolate}, progress,
        )  # fmt: skip
        if gradient and reference is not None:
            stages = _measure_differences(
                stages, reference, name, at, space, y, samples, definition, moved, seed, notes, progress
            )
    if definition != "incident":
        notes += _offsets(stages)
    return ResolutionResult(at, definition, tuple(stages), model.card.name if model else "", name, tuple(notes), seed)


def layout_of(reference: Path) -> tuple[int, int, int | None, Material]:
    """Return n_xy, n_z, the pixels of maps (None for cells) and the material of a reference's file.

    A library has no cells; 5 x 5 x 5 are taken.
    """
    if _is_library(reference):
        with open_library(reference) as library:
            if library.material is None:
                raise InputError(f"{reference} is of a layered detector; expected showers in a homogeneous block")
            return 5, 5, None, library.material
    rows = read_shards(reference)
    return rows.n_xy, rows.dz.shape[1], pixels_of(rows), rows.material


def _stages(measurement: Measurement) -> list[ResolutionStage]:
    """Return the stages that a measurement has, without curves."""
    background, readout = measurement.background is not None, measurement.readout is not None
    stages = [ResolutionStage("deposited", Measurement(pixels=measurement.pixels))]
    if background:
        stages.append(ResolutionStage("with background", replace(measurement, readout=None)))
    if readout:
        name = "with background and readout" if background else "with readout"
        stages.append(ResolutionStage(name, measurement))
    return stages


def _default(model: Surrogate | None, rows: Cells | Maps | None) -> Measurement:
    """Return the default measurement of what a surrogate generates or a reference holds."""
    if model is not None:
        return default_measurement(model)
    return Measurement(ExponentialBackground(), pixels=None if rows is None else pixels_of(rows))


def pixels_of(rows: Cells | Maps) -> int | None:
    """Return the pixels each way of maps; None for cells."""
    return rows.maps.shape[1] if isinstance(rows, Maps) else None


def _check_beam(model: Surrogate, rows: Cells | Maps, beam: ParticleBeam, name: str) -> None:
    """Raise `InputError` unless a reference is of the beam that the surrogate is sampled with."""
    model.card.check_incidence(rows.incident, name)
    if model.model.takes_particles:
        pitch = torch.from_numpy(rows.dx.astype(np.float64))
        asked = beam.draw(pitch, RandomNumbers(0, range(len(rows)))).to_incidence(len(rows))
        if difference := rows.incident.difference(asked):
            raise InputError(f"{name} is of {difference} as asked; choose such showers, or give the beam of these")


def _read(
    reference: Cells | Maps | str | Path, design: Design | None, beam: ParticleBeam | None, seed: int
) -> tuple[Cells | Maps, str]:
    """Return the showers of a reference and its name; a library is measured with the design and moved to the beam."""
    if isinstance(reference, Cells | Maps):
        return reference, reference.origin
    path = Path(reference)
    if not _is_library(path):
        return read_shards(path), path.name
    if design is None:
        raise InputError(f"{path} is a shower library; give the design that is to measure it")
    at = None if beam is None else beam.position_at(float(design.dx))
    position = None if at == ON_AXIS.position else at
    phi = None if beam is None or beam.phi == ON_AXIS.phi else beam.phi
    return segment(path, designs=design, position=position, phi=phi, seed=seed), path.name


def _design_of(rows: Cells | Maps, design: Design | None, name: str) -> Design:
    """Return the design that is asked for, checked against the rows of a reference, or the only one they hold."""
    n_z = rows.dz.shape[1]
    if design is None:
        sizes = np.unique(np.column_stack([rows.dx, rows.dz]).round(5), axis=0)
        if len(sizes) != 1:
            raise InputError(f"{name} holds {len(sizes)} designs, {_listed(sizes)}; give the one that is meant")
        return Design(float(sizes[0, 0]), sizes[0, 1:].tolist(), rows.material, rows.n_xy, n_z)
    if (design.n_xy, design.n_z) != (rows.n_xy, n_z):
        raise InputError(
            f"{name} has {rows.n_xy} x {rows.n_xy} x {n_z} cells, the design {design.n_xy} x {design.n_xy} x "
            f"{design.n_z}; expected the same"
        )
    if not rows.material.alike(design.material, 1e-3):
        raise InputError(
            f"{name} is of {rows.material.name} ({to_float(rows.material.density):g} g/cm3), the design of "
            f"{design.material.name} ({to_float(design.material.density):g} g/cm3); expected one material"
        )
    return design


def _samples(
    rows: Cells | Maps, design: Design, asked: np.ndarray | None, name: str, notes: list[str]
) -> list[EnergyGroup]:
    """Return the rows of a reference at a design, by energy or, of a continuous spectrum, by bin of energy."""
    sizes = np.column_stack([rows.dx, rows.dz]).astype(float)
    wanted = np.r_[float(design.dx), design.dz.detach().double().numpy()]
    mine = np.flatnonzero(np.isclose(sizes, wanted, rtol=SAME, atol=0).all(1))
    if not len(mine):
        known = np.unique(sizes.round(4), axis=0)
        raise InputError(f"{name} has no showers of {_listed(wanted[None])}; its designs are {_listed(known)}")
    energy = rows.energy[mine].astype(float)
    found = [each._replace(rows=mine[each.rows]) for each in group_by_energy(energy, asked)]
    few = [f"{each.energy:.4g}" for each in found if len(each.rows) < MIN_SHOWERS]
    if few:
        notes.append(f"{name}: fewer than {MIN_SHOWERS} showers at {', '.join(few)} GeV, left out")
    kept = [each for each in found if len(each.rows) >= MIN_SHOWERS]
    if not kept:
        have = f"{energy.min():.4g} to {energy.max():.4g} GeV"
        raise InputError(
            f"{name} has no energy with {MIN_SHOWERS} showers of {_listed(wanted[None])} among those asked for; it "
            f"holds {len(mine)} showers of {have}"
        )
    if not kept[0].exact:
        notes.append(f"{name} has a continuous spectrum, which is taken in {len(kept)} bins of energy")
    return kept


def _measure_reference(
    stages: list[ResolutionStage], rows: Cells | Maps, samples: list[EnergyGroup], design: Design, definition: str,
    terms: tuple[str, ...], seed: int, progress: StageProgress,
) -> list[ResolutionStage]:  # fmt: skip
    """Return the stages with the curves of a reference."""
    x: list[list[np.ndarray]] = [[] for _ in stages]
    for k, sample in enumerate(samples):
        progress("Geant4", k, len(samples))
        signal, energy = torch.from_numpy(rows.measured[sample.rows]), rows.energy[sample.rows].astype(float)
        for number, stage in enumerate(stages):
            generator = generator_for(seed, REFERENCE, _key(sample.energy))
            events = stage.measurement.measure(signal, torch.from_numpy(energy), design, generator=generator)
            measured = totals(events.measured).numpy()
            x[number].append(sample.at_energy(energy, measured))
    progress("Geant4", len(samples), len(samples))
    points = [sample.energy for sample in samples]
    source = "Geant4" if rows.origin == "geant4" else rows.origin
    return [
        replace(stage, geant4=resolution_curve(source, points, each, definition=definition, terms=terms, seed=seed))
        for stage, each in zip(stages, x, strict=True)
    ]


def _energies(
    model: Surrogate, asked: np.ndarray | None, samples: list[EnergyGroup], extrapolate: bool, notes: list[str]
) -> np.ndarray:
    """Return the energies that a surrogate is sampled at: those of a reference where there is one."""
    low, high = model.card.energy
    if asked is not None and all(sample.exact for sample in samples):
        return asked
    if not samples:
        return np.geomspace(low, high, POINTS)
    known = np.array(sorted(sample.energy for sample in samples))
    inside = known[(known >= low * (1 - SAME)) & (known <= high * (1 + SAME)) | extrapolate]
    trained = f"{model.card.name} knows {low:g} to {high:g} GeV"
    if not len(inside):
        raise InputError(f"{trained}, the reference {known[0]:.4g} to {known[-1]:.4g} GeV; give another reference")
    if len(inside) < len(known):
        notes.append(f"{trained}; it is left out at {len(known) - len(inside)} energies of the reference")
    return inside


def _measure_surrogate(
    stages: list[ResolutionStage], model: Surrogate, design: Design, energies: np.ndarray, space: DesignSpace | None,
    y: np.ndarray, definition: str, terms: tuple[str, ...], showers: int, seed: int, beam: ParticleBeam,
    options: dict[str, Any], progress: StageProgress,
) -> list[ResolutionStage]:  # fmt: skip
    """Return the stages with the curves of a surrogate and, with a space of parameters, their gradients."""
    x: list[list[np.ndarray]] = [[] for _ in stages]
    t: list[list[np.ndarray]] = [[] for _ in stages]
    chunks = -(-showers // ROWS)
    for k, energy in enumerate(energies):
        parts = []
        for chunk in range(chunks):
            progress("surrogate", k * chunks + chunk, len(energies) * chunks)
            index = np.arange(chunk * ROWS, min((chunk + 1) * ROWS, showers))
            parts.append(_sample(stages, model, design, float(energy), index, space, y, seed, beam, options))
        for number in range(len(stages)):
            x[number].append(np.concatenate([part[number][0] for part in parts]))
            t[number].append(np.concatenate([part[number][1] for part in parts]))
    progress("surrogate", len(energies) * chunks, len(energies) * chunks)
    made = []
    for stage, values, slopes in zip(stages, x, t, strict=True):
        curve = resolution_curve(model.card.name, energies, values, definition=definition, terms=terms, seed=seed)
        known = None if space is None else resolution_gradient(tuple(space.names), y, curve, values, slopes)
        made.append(replace(stage, surrogate=curve, gradient=known))
    return made


def _sample(
    stages: list[ResolutionStage], model: Surrogate, design: Design, energy: float, index: np.ndarray,
    space: DesignSpace | None, y: np.ndarray, seed: int, beam: ParticleBeam, options: dict[str, Any],
) -> list[tuple[np.ndarray, np.ndarray]]:  # fmt: skip
    """Return reconstructed energies, shape (n,), and their derivatives, shape (n, p), of some showers at every stage.

    Every shower has a copy of the design, so one backward pass gives the derivatives of each.
    """
    n, like = len(index), model.model.condition_mean
    u = torch.as_tensor(np.log(y), dtype=like.dtype, device=like.device).expand(n, -1).clone()
    if space is not None:
        u.requires_grad_(True)
        sizes = u.exp()
        design = Design(sizes[:, 0], sizes[:, 1:], design.material, design.n_xy, design.n_z)
    with torch.set_grad_enabled(space is not None):

        def source() -> torch.Generator:
            return generator_for(seed, SHOWERS, _key(energy))

        particles = model.particles(design, n, beam, generator=source(), shower=index)
        incident = {} if particles is None else {
            name: column.expand(n, *column.shape[1:]) for name, column in particles._asdict().items()
        }  # fmt: skip
        made = model.sample(
            design, energy, n, generator=source(), shower=index, **incident,
            checkpointed=space is not None and not model.model.distilled, **options,
        )  # fmt: skip
        found = []
        for number, stage in enumerate(stages):
            generator = generator_for(seed, BACKGROUND, _key(energy), int(index[0]))
            total = totals(stage.measurement.measure(made, energy, design, generator=generator).measured)
            slopes = torch.zeros(n, 0)
            if space is not None:
                slopes = torch.autograd.grad(total.sum(), u, retain_graph=number < len(stages) - 1)[0]
            found.append((total.detach().cpu().numpy(), slopes.double().cpu().numpy()))
    return found


def resolution_gradient(
    names: tuple[str, ...],
    y: np.ndarray,
    curve: ResolutionCurve,
    samples: Sequence[np.ndarray],
    slopes: Sequence[np.ndarray],
) -> ResolutionGradient:
    """Return the gradient of sigma / E and of the terms of its fit, with jackknife errors.

    Args:
        names, y: the parameters, and their values.
        curve: resolutions of ``samples``, with their fit.
        samples: reconstructed energies x of every energy of the curve, shape (n,), GeV.
        slopes: dx / d ln y, shape (n, p), GeV.
    """
    groups = min(GROUPS, *(len(x) for x in samples))
    of, each = curve.definition, list(zip(samples, slopes, curve.energies.tolist(), strict=True))
    replicas = [_leave_out(x, t, energy, groups, of) for x, t, energy in each]
    values = np.array([log_slope(x, t, energy, of)[1] for x, t, energy in each])
    errors = np.array([_jackknife(without) for _, without in replicas])
    fit = fit_errors = None
    if curve.fit is not None:
        relative = curve.errors / curve.values
        fit = fit_gradient(curve.fit, curve.energies, curve.values, relative, values)
        left = [
            fit_gradient(
                curve.fit, curve.energies, np.array([r[g] for r, _ in replicas]), relative,
                np.array([without[g] for _, without in replicas]),
            )
            for g in range(groups)
        ]  # fmt: skip
        fit_errors = _jackknife(np.array(left))
    return ResolutionGradient(names, y, curve.energies, values, errors, fit, fit_errors)


def log_slope(x: np.ndarray, t: np.ndarray, energy: float, definition: str = "std") -> tuple[float, np.ndarray]:
    """Return r = sigma / E of reconstructed energies and d ln r / du, shape (p,).

    Args:
        x: reconstructed energies, shape (n,), GeV.
        t: dx / du, shape (n, p), GeV.
        energy: incident energy, GeV.
        definition: one of `calograd.metrics.resolution.DEFINITIONS`.
    """
    if definition != "width68":
        mean, variance = x.mean(), x.var(ddof=1)
        slope = (x - mean) @ t / ((len(x) - 1) * variance)
        if definition == "incident":
            return float(variance**0.5 / energy), slope
        return float(variance**0.5 / mean), slope - t.mean(0) / mean
    order = np.argsort(x)
    low, middle, high = (_quantile(x[order], t[order], p) for p in ONE_SIGMA)
    width = high[0] - low[0]
    return float(width / (2 * middle[0])), (high[1] - low[1]) / width - middle[1] / middle[0]


def _quantile(x: np.ndarray, t: np.ndarray, p: float) -> tuple[float, np.ndarray]:
    """Return a quantile of sorted x and its derivative E[t | x = quantile], by a local linear regression of t on x."""
    n, place = len(x), p * (len(x) - 1)
    at = float(np.interp(place, [int(place), int(place) + 1], x[int(place) : int(place) + 2]))
    first = int(np.clip(round((p - WINDOW) * n), 0, n - 4))
    near = slice(first, max(first + 4, round((p + WINDOW) * n)))
    offset, slopes = x[near] - at, t[near]
    centred = offset - offset.mean()
    return at, slopes.mean(0) - offset.mean() * (centred @ slopes) / max(float(centred @ centred), 1e-300)


def _leave_out(
    x: np.ndarray, t: np.ndarray, energy: float, groups: int, definition: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return r, shape (groups,), and d ln r / du, shape (groups, p), without each group of showers in turn."""
    group = np.arange(len(x)) % groups
    r, slopes = zip(*(log_slope(x[group != g], t[group != g], energy, definition) for g in range(groups)), strict=True)
    return np.array(r), np.array(slopes)


def _jackknife(replicas: np.ndarray) -> np.ndarray:
    """Return the standard error from estimates that leave out one group each, shape (groups, ...)."""
    groups = len(replicas)
    return np.asarray(np.sqrt((groups - 1) / groups * ((replicas - replicas.mean(0)) ** 2).sum(0)))


def _measure_differences(
    stages: list[ResolutionStage], reference: Cells | Maps | str | Path, name: str, design: Design, space: DesignSpace,
    y: np.ndarray, samples: list[EnergyGroup], definition: str, beam: ParticleBeam | None, seed: int, notes: list[str],
    progress: StageProgress,
) -> list[ResolutionStage]:  # fmt: skip
    """Return the stages with Geant4's gradients, if the reference can be measured at the neighbouring designs."""
    energies = tuple(sample.energy for sample in samples)
    known = None
    if samples[0].exact:
        known = _open(reference, name, energies, design, stages[0].measurement.pixels, beam, seed)
    designs = neighbouring_designs(space, y, STEP)
    measured = [e for e in energies if known is not None and _can_measure(known, e, designs)]
    if known is None or not measured:
        notes.append(f"{name} has no neighbouring designs of the same showers: no gradient of Geant4")
        return stages
    made = []
    for number, stage in enumerate(stages):
        rows = []
        for k, energy in enumerate(measured):
            progress("Geant4's gradient", number * len(measured) + k, len(stages) * len(measured))
            objective = Objective(stage.measurement, UTILITIES[definition], (energy,))
            # without background and noise every replica of a shower is the same
            r, drawn = bootstrap_values(known, objective, designs, replicas=REPLICAS if number else 1, seed=seed)
            logs, drawn = np.log(-r), np.log(-drawn)
            slopes = (drawn[:, 1::2] - drawn[:, 2::2]) / (2 * STEP)
            rows.append(((logs[1::2] - logs[2::2]) / (2 * STEP), slopes.std(0, ddof=1)))
        values, errors = (np.array(column) for column in zip(*rows, strict=True))
        found = ResolutionGradient(tuple(space.names), y, np.array(measured), values, errors)
        made.append(replace(stage, geant4_gradient=found))
    progress("Geant4's gradient", len(stages) * len(measured), len(stages) * len(measured))
    return made


def _offsets(stages: list[ResolutionStage]) -> list[str]:
    """Return notes on stages whose mean holds background, so that sigma over mean is no resolution of the energy."""
    found = []
    for stage in stages:
        largest = max((float(np.ptp(curve.response)) for curve in stage.curves), default=0.0)
        if largest > OFFSET:
            found.append(
                f"{stage.name}: the response changes by {largest:.2f} over these energies, so sigma / mean is not the "
                "resolution of a calibrated energy; the definition 'incident' takes sigma over incident energy"
            )
    return found


def _key(energy: float) -> int:
    """Return the number of an energy in the seeds of its showers, so that they depend on no other energy."""
    return round(1e6 * energy)


def _open(
    reference: Cells | Maps | str | Path, name: str, energies: tuple[float, ...], design: Design, pixels: int | None,
    beam: ParticleBeam | None, seed: int,
) -> Reference | None:  # fmt: skip
    """Return a reference as finite differences take it; None for maps, which hold one design only."""
    if isinstance(reference, Cells):
        return CellsReference(reference, name)
    if isinstance(reference, Maps):
        return None
    path = Path(reference)
    if pixels is not None and not _is_library(path):
        return None
    return open_reference(path, energies, design.n_xy, design.n_z, pixels=pixels, beam=beam, seed=seed)


def _is_library(path: Path) -> bool:
    return (schema_of(shard_files(path)[0]) or "").startswith(LIBRARY)


def _can_measure(known: Reference, energy: float, designs: list[Design]) -> bool:
    if known.any_design:
        return True
    try:
        known.measure(energy, [(float(each.dx), tuple(each.dz.tolist())) for each in designs])
    except InputError:
        return False
    return True


def _listed(sizes: np.ndarray, most: int = 4) -> str:
    """Return designs as text, sizes of shape (designs, 1 + n_z)."""
    texts = []
    for dx, *dz in sizes[:most].tolist():
        depths = f"{dz[0]:g}" if len(set(dz)) == 1 else "(" + ", ".join(f"{depth:g}" for depth in dz) + ")"
        texts.append(f"{dx:g} x {depths} cm")
    return ", ".join(texts) + (f" and {len(sizes) - most} more" if len(sizes) > most else "")
