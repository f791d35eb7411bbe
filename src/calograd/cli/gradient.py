"""``calograd gradient``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from calograd.cli.common import (
    COUNT,
    JSON_OPTION,
    NUMBERS,
    POSITIVE,
    REPORT_OPTION,
    SEED_OPTION,
    Command,
    cell_size,
    print_table,
    write_json,
)
from calograd.cli.progress import progress
from calograd.system.extras import require

if TYPE_CHECKING:
    from calograd.gradients.autodiff import GradientEstimate
    from calograd.gradients.check import GradientCheck
    from calograd.surrogate import Surrogate


@click.command(cls=Command)
@click.argument("model")
@click.option(
    "--cell", nargs=2, required=True, type=NUMBERS, metavar="DX DZ",
    help="Pitch and depth, cm. With one depth a layer, as 4,5,6,8,10, each depth is a parameter.",
)  # fmt: skip
@click.option("--material", help="PbF2, BGO, ..., or NAME:DENSITY:FORMULA. [the one trained on]")
@click.option("--density", is_flag=True, help="Add the density of the material to the parameters.")
@click.option(
    "--energies", required=True, type=NUMBERS, help="Incident energies, GeV, as 1,10,50,100; one gradient each."
)
@click.option(
    "--reference", type=click.Path(path_type=Path),
    help="Geant4 showers to compare with: a shower library, or a cells file with the neighbouring designs.",
)  # fmt: skip
@click.option(
    "--objective", "objective_path", type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file with [background], [readout], [mask], [utility], [[cost]]. "
    "[the squared error with the default background]",
)  # fmt: skip
@click.option(
    "--truth",
    type=click.Choice(["deposited", "incident"]),
    help="True energy that the squared error compares with. [deposited]",
)
@click.option("--showers", default=1000, show_default=True, type=COUNT, help="Showers of a draw.")
@click.option(
    "--draws",
    default=8,
    show_default=True,
    type=click.IntRange(min=2),
    help="Independent draws; their spread gives the error.",
)
@click.option("--sampler", help="trigflow-ab2, ddim, heun, dpmpp-2m or ddpm. [the surrogate's own]")
@click.option("--steps", type=COUNT, help="Steps of the sampler. [each has its own]")
@click.option(
    "--step",
    default=0.04,
    show_default=True,
    type=POSITIVE,
    help="Step of Geant4's finite differences in the logarithm of a parameter.",
)
@click.option("--replicas", default=8, show_default=True, type=COUNT, help="Backgrounds drawn for each Geant4 shower.")
@SEED_OPTION
@click.option(
    "--landscape", default=9, show_default=True, type=click.IntRange(min=0),
    help="Points along each axis of the landscape in the report; 0 leaves it out. Maps have no landscape.",
)  # fmt: skip
@click.option("--landscape-energy", type=POSITIVE, help="Energy of the landscape, GeV. [the middle one of --energies]")
@click.option("--extrapolate", is_flag=True, help="Warn instead of refusing outside the trained range.")
@JSON_OPTION
@REPORT_OPTION
def gradient(
    model: str,
    cell: tuple[tuple[float, ...], tuple[float, ...]],
    material: str | None,
    density: bool,
    energies: tuple[float, ...],
    reference: Path | None,
    objective_path: Path | None,
    truth: str | None,
    showers: int,
    draws: int,
    sampler: str | None,
    steps: int | None,
    step: float,
    replicas: int,
    seed: int,
    landscape: int,
    landscape_energy: float | None,
    extrapolate: bool,
    json_path: Path | None,
    report_path: Path | None,
) -> None:
    """Compute the gradient of a utility at a design with the surrogate, and compare it with Geant4's.

    All energies have common random numbers, so their errors are correlated.

    \b
    Examples:
      calograd gradient pbf2-cells --cell 2.5 6 --energies 1,10,50,100 --truth incident
      calograd gradient pbf2-cells --cell 2.5 6 --energies 1,10,50,100 --reference library.h5 --report gradient.html
      calograd gradient materials-cells --cell 2.5 6 --material PbWO4 --density --energies 10 --reference pbwo4.h5
    """
    if report_path is not None:
        require("--report", "report", "jinja2", "matplotlib")
    from calograd.detector.material import Material, to_float
    from calograd.gradients.autodiff import surrogate_gradient
    from calograd.gradients.check import compare_gradients
    from calograd.gradients.finite_differences import finite_difference_gradient
    from calograd.objective.reference import LibraryReference
    from calograd.objective.space import space_around
    from calograd.surrogate import load_designs

    surrogate = load_designs(model)
    a, pixels = surrogate.model.architecture, _pixels(surrogate)
    pitch, depth = cell_size(cell, a.n_z)
    substance = surrogate.card.substance() if material is None else Material.parse(material)
    card, rho = surrogate.card.in_cm(substance), to_float(substance.density)
    space, at = space_around(
        pitch, depth, card.dx, card.dz, substance, a.n_xy, a.n_z, density=(rho / 2, 2 * rho) if density else None
    )
    objectives = [_objective(objective_path, truth, energy, pixels) for energy in energies]
    landscape = 0 if pixels else landscape
    ours: list[GradientEstimate] = []
    both: list[GradientCheck] = []
    with progress("gradient") as show:
        middle = landscape_energy or energies[len(energies) // 2]
        read = tuple(dict.fromkeys((*energies, middle))) if report_path is not None and landscape > 1 else energies
        source = None if reference is None else _open_reference(reference, read, a.n_xy, a.n_z, pixels)
        for number, objective in enumerate(objectives):
            ours.append(
                surrogate_gradient(
                    surrogate, objective, space, at, showers=showers, draws=draws, seed=seed,
                    sampler=sampler, steps=steps, extrapolate=extrapolate,
                )
            )  # fmt: skip
            show("surrogate", number + 1, len(objectives))
            if source is not None:
                theirs = finite_difference_gradient(
                    source, objective, space, at, step=step, replicas=replicas, seed=seed
                )
                both.append(compare_gradients(ours[-1], theirs, seed))
                show("Geant4", number + 1, len(objectives))
        write_json(json_path, _plain(energies, ours, both))
        if report_path is not None:
            from calograd.reports.optimisation import landscapes, write_gradient_report

            anywhere = source if isinstance(source, LibraryReference) else None  # a cells file has its designs only
            drawn = (
                landscapes(
                    surrogate, anywhere, _objective(objective_path, truth, middle), landscape, seed, show, substance
                )
                if landscape > 1
                else []
            )
            write_gradient_report(report_path, list(energies), ours, both, drawn, middle)
    _summarise(energies, ours, both)


def _pixels(surrogate: Surrogate) -> int | None:
    """Across and along of the maps that a surrogate generates; None if it generates cells."""
    return surrogate.model.shape[0] if surrogate.card.kind == "map32" else None


def _objective(path: Path | None, truth: str | None, energy: float, pixels: int | None = None) -> Any:
    """The objective of a file, or the default one, at one energy, perhaps of maps."""
    from calograd.io.toml import read_toml
    from calograd.objective.config import parse_objective

    raw = {} if path is None else read_toml(path)
    if truth is not None:
        raw["utility"] = {"kind": "squared-error", **raw.get("utility", {}), "truth": truth}
    raw["spectrum"] = {"energies": [energy]}
    return parse_objective(raw, str(path or "options"), path.parent if path else Path()).build(pixels)


def _open_reference(path: Path, energies: tuple[float, ...], n_xy: int, n_z: int, pixels: int | None) -> Any:
    """A shower library or, for cells, a cells file as a reference."""
    from calograd.events import cells
    from calograd.events.library.reader import open_library
    from calograd.events.shards import read_shards
    from calograd.io.hdf5 import schema_of, shard_files
    from calograd.objective.reference import CellsReference, LibraryReference

    if schema_of(shard_files(path)[0]) == cells.SCHEMA and pixels is None:
        showers = read_shards(path)
        assert isinstance(showers, cells.Cells)
        return CellsReference(showers, path.name)
    with open_library(path) as library:
        return LibraryReference(library, energies, n_xy, n_z, pixels=pixels)


def _plain(energies: tuple[float, ...], ours: list[GradientEstimate], both: list[GradientCheck]) -> dict[str, Any]:
    points = [each.to_dict() for each in both] or [{"surrogate": each.to_dict()} for each in ours]
    return {"points": [{"energy": energy} | point for energy, point in zip(energies, points, strict=True)]}


def _summarise(energies: tuple[float, ...], ours: list[GradientEstimate], both: list[GradientCheck]) -> None:
    from calograd.objective.space import unit

    columns = ["energy, GeV", "parameter", "surrogate"]
    if both:
        columns += ["Geant4", "ratio", "pull", "cosine (ln y)"]
    rows = []
    for k, (energy, estimate) in enumerate(zip(energies, ours, strict=True)):
        for j, name in enumerate(estimate.names):
            row = [f"{energy:g}", f"{name} = {estimate.y[j]:g} {unit(name)}",
                   f"{estimate.gradient[j]:.3g} +- {estimate.gradient_error[j]:.1g}"]  # fmt: skip
            if both:
                c = both[k].components[j]
                row += [f"{c.geant4:.3g} +- {c.geant4_error:.1g}", f"{c.ratio:.2f}", f"{c.pull:+.1f}",
                        f"{both[k].cosine:.4f}" if j == 0 else ""]  # fmt: skip
            rows.append(row)
    print_table("dU/d ln y", columns, rows)
