"""Compare gradients of the surrogate and Geant4: gradients.py reference.h5 out.json [MODEL].

Seven designs, the reference's energies (1, 10, 20 ... 100 GeV), both truths, unseen showers; prints what the pages of
results state of it. Instead of a truth, "deviation" and "central" are the energy resolution, by standard deviation or
by the central 68 % width, and "position" is the position resolution. With --entries particles enter anywhere in the
middle cell, from any azimuth. A run that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from calograd import ParticleBeam, Surrogate
from calograd.events.library.reader import open_library
from calograd.gradients.autodiff import surrogate_gradient
from calograd.gradients.check import compare_gradients
from calograd.gradients.estimates import GradientEstimate
from calograd.gradients.finite_differences import finite_difference_gradient
from calograd.io.files import write_whole
from calograd.objective.background import ExponentialBackground
from calograd.objective.measurement import Measurement
from calograd.objective.reference import LibraryReference
from calograd.objective.space import DesignSpace, space_around
from calograd.objective.utility import EnergyResolution, Objective, PositionResolution, SquaredError, Utility

DESIGNS = ((2.5, 6.0), (1.5, 5.0), (3.5, 12.0), (2.0, 4.0), (4.0, 10.0), (1.2, 9.0), (3.3, 7.5))
ENERGIES = (1.0, *np.arange(10.0, 101.0, 10.0).tolist())
TRUTHS = ("deposited", "incident")
OTHERS = ("deviation", "central", "position")
DX, DZ = (0.5, 7.0), (1.0, 25.0)
"""Bounds of the designs, cm; nothing depends on them."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("reference", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("model", nargs="?", default="pbf2-cells")
    parser.add_argument("--showers", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--layers", action="store_true", help="a depth for every layer: 6 parameters")
    parser.add_argument("--energies", default=",".join(f"{e:g}" for e in ENERGIES), help="GeV")
    parser.add_argument("--truths", default=",".join(TRUTHS))
    parser.add_argument("--designs", default=",".join(f"{dx:g}x{dz:g}" for dx, dz in DESIGNS), help="pitch x depth, cm")
    parser.add_argument("--cells", nargs=2, type=int, default=(5, 5), metavar=("N_XY", "N_Z"))
    parser.add_argument("--entries", action="store_true", help="particles enter anywhere in the cell")
    parser.add_argument("--theta", type=float, default=0.0, help="angle of the reference's showers, degrees")
    parser.add_argument("--only-geant4", action="store_true", help="leave the surrogate for another call")
    options = parser.parse_args()
    energies = [float(e) for e in options.energies.split(",")]
    designs = [tuple(map(float, each.split("x"))) for each in options.designs.split(",")]
    points = [(e, dx, dz, t) for e in energies for dx, dz in designs for t in options.truths.split(",")]
    theirs = geant4(options, points)
    if options.only_geant4:
        return
    done: list[dict[str, Any]] = json.loads(options.output.read_text()) if options.output.exists() else []
    keys = {(p["energy"], p["dx"], p["dz"], p["truth"]) for p in done}
    surrogate = Surrogate.load(options.model)
    for energy, dx, dz, truth in points:
        if (energy, dx, dz, truth) in keys:
            continue
        space, at = space_of(options, dx, dz)
        ours = surrogate_gradient(
            surrogate, objective(truth, energy, options), space, at, showers=options.showers, draws=options.draws,
            seed=seed(energy, dx, dz, truth) + 1,
        )  # fmt: skip
        both = compare_gradients(ours, theirs[energy, dx, dz, truth])
        done.append({"dx": dx, "dz": dz, "energy": energy, "truth": truth} | both.to_dict())
        write_whole(options.output, json.dumps(done, indent=1).encode())
    summarise(done)


def geant4(options: argparse.Namespace, points: list[tuple[float, float, float, str]]) -> dict[Any, GradientEstimate]:
    """Return Geant4's gradients; they are kept beside the output, since they do not depend on the surrogate."""
    path = options.output.with_suffix(".geant4.json")
    kept: list[Any] = json.loads(path.read_text()) if path.exists() else []
    made = {tuple(key): GradientEstimate(**{k: np.array(v) if isinstance(v, list) else v for k, v in fields.items()})
            for key, fields in kept}  # fmt: skip
    with open_library(options.reference) as library:
        for energy in dict.fromkeys(p[0] for p in points):
            todo = [p for p in points if p[0] == energy and p not in made]
            moved = beam(options) if options.entries or options.theta else None
            reference = LibraryReference(library, (energy,), *options.cells, beam=moved) if todo else None
            for key in todo:
                assert reference is not None
                _, dx, dz, truth = key
                space, at = space_of(options, dx, dz)
                made[key] = finite_difference_gradient(
                    reference, objective(truth, energy, options), space, at, seed=seed(*key)
                )
                fields = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in vars(made[key]).items()}
                kept.append([key, fields])
            if todo:
                write_whole(path, json.dumps(kept).encode())
    return made


def space_of(options: argparse.Namespace, dx: float, dz: float) -> tuple[DesignSpace, np.ndarray]:
    """Return the space around a design, and the design in it."""
    n_xy, n_z = options.cells
    return space_around(dx, (dz,) * n_z if options.layers else dz, DX, DZ, n_xy=n_xy, n_z=n_z)


def beam(options: argparse.Namespace) -> ParticleBeam:
    anywhere: dict[str, Any] = {"position": "uniform", "phi": (0.0, 360.0)} if options.entries else {}
    return ParticleBeam(theta=options.theta, **anywhere)


def seed(energy: float, dx: float, dz: float, truth: str) -> int:
    """Return a seed for every point, so that backgrounds differ between points."""
    number = DESIGNS.index((dx, dz)) if (dx, dz) in DESIGNS else round(1000 * dx + 10 * dz)
    return 100_000 * round(energy) + 100 * number + 10 * (TRUTHS + OTHERS).index(truth)


def objective(truth: Any, energy: float, options: argparse.Namespace) -> Objective:
    others = {
        "deviation": EnergyResolution(),
        "central": EnergyResolution(robust=True),
        "position": PositionResolution(),
    }
    utility: Utility = others[truth] if truth in OTHERS else SquaredError(truth=truth)
    return Objective(Measurement(ExponentialBackground()), utility, (energy,), beam=beam(options))


def summarise(points: list[dict[str, Any]]) -> None:
    components = [c for p in points for c in p["components"]]
    known = [c for c in components if c["sign_known"]]
    print(f"{len(points)} points, {len(components)} components")
    print(f"wrong signs: {sum(c['wrong_sign'] for c in known)} of {len(known)} that Geant4 knows to 3 standard errors")
    pulls = np.abs([c["pull"] for c in components])
    print(f"|pull| < 2: {(pulls < 2).mean():.1%} of {len(pulls)}; < 3: {(pulls < 3).mean():.1%}")
    precise = [c for c in components if c["geant4"]["error"] < 0.05 * abs(c["geant4"]["value"])]
    ratios = np.array([c["ratio"] for c in precise])
    print(f"ratio 0.9 to 1.1: {((ratios > 0.9) & (ratios < 1.1)).mean():.1%} of {len(ratios)} known to 5 %; "
          f"{ratios.min():.3f} to {ratios.max():.3f}")  # fmt: skip
    vectors = [p for p in points if (p["geant4_precision"] or 1) < 0.05]
    print(f"cosine (ln y) where Geant4's vector is known to 5 %: {min(p['cosine_log'] for p in vectors):.4f} at least, "
          f"{sum(p['cosine_log'] >= 0.995 for p in vectors)} of {len(vectors)} at least 0.995; "
          f"all: {min(p['cosine_log'] for p in points):.4f}")  # fmt: skip
    if len(points[0]["components"]) > 2:
        depths(points)
    columns = ("truth", "energy, GeV", "wrong signs", "pull < 2", "median ratio", "smallest cosine (ln y)")
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for truth in TRUTHS + OTHERS:
        for low, high in ((1, 1), (10, 30), (40, 70), (80, 100)):
            some = [p for p in points if p["truth"] == truth and low <= p["energy"] <= high]
            if not some:
                continue
            cs = [c for p in some for c in p["components"]]
            ratio = np.median([c["ratio"] for c in cs if c["sign_known"]])
            close, smallest = np.mean([abs(c["pull"]) < 2 for c in cs]), min(p["cosine_log"] for p in some)
            wrong = f"{sum(c['wrong_sign'] for c in cs)} of {len(cs)}"
            print(f"| {truth} | {low} to {high} | {wrong} | {close:.0%} | {ratio:.3f} | {smallest:.4f} |")


def depths(points: list[dict[str, Any]]) -> None:
    """Print the agreement of the directions of the depths alone, and the sizes of components with a wrong sign."""
    cosines, wrong = [], []
    for point in points:
        ours, theirs, error = (
            np.array([c[source][what] for c in point["components"]])
            for source, what in (("surrogate", "value"), ("geant4", "value"), ("geant4", "error"))
        )
        signs = np.array([c["wrong_sign"] for c in point["components"]])
        wrong += np.stack([np.abs(theirs) / np.abs(t).max() for t in (theirs, theirs[1:])], 1)[signs].tolist()
        length = np.linalg.norm(theirs[1:])
        if np.linalg.norm(error[1:]) < 0.1 * length:
            cosines.append(ours[1:] @ theirs[1:] / (np.linalg.norm(ours[1:]) * length))
    if cosines:
        close = np.sum(np.array(cosines) >= 0.995)
        print(f"cosine of the depths alone where Geant4 knows them to 10 %: {min(cosines):.3f} at least, median "
              f"{np.median(cosines):.4f}, {close} of {len(cosines)} at least 0.995")  # fmt: skip
    if wrong:
        largest = np.max(wrong, axis=0)
        print(f"wrong signs are of components of at most {largest[0]:.2%} of the largest, {largest[1]:.1%} of the "
              "largest of a depth")  # fmt: skip


if __name__ == "__main__":
    main()
