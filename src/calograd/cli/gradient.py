"""``calograd gradient``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

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
    from calograd.gradients.gradient import GradientResult


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

    Every energy has random numbers of its own.

    \b
    Examples:
      calograd gradient pbf2-cells --cell 2.5 6 --energies 1,10,50,100 --truth incident
      calograd gradient pbf2-cells --cell 2.5 6 --energies 1,10,50,100 --reference library.h5 --report gradient.html
      calograd gradient materials-cells --cell 2.5 6 --material PbWO4 --density --energies 10 --reference pbwo4.h5
    """
    if report_path is not None:
        require("--report", "report", "jinja2", "matplotlib")
    import torch

    from calograd.detector.design import Design
    from calograd.gradients.gradient import gradient as take_gradient
    from calograd.gradients.gradient import pixels_of
    from calograd.objective.config import read_objective
    from calograd.objective.reference import open_reference
    from calograd.surrogate import Surrogate

    surrogate = Surrogate.load(model)
    a, pixels = surrogate.design_model.architecture, pixels_of(surrogate)
    dx, dz = (torch.tensor(size, dtype=torch.float64) for size in cell_size(cell, a.n_z))
    design = Design(dx, dz, material or surrogate.card.designs.material, a.n_xy, a.n_z)
    objective = read_objective(objective_path, energies, truth=truth, pixels=pixels)
    landscape = 0 if pixels or report_path is None else landscape
    middle = landscape_energy or energies[len(energies) // 2]
    with progress("gradient") as show:
        source = None
        if reference is not None:
            read = tuple(dict.fromkeys((*energies, middle))) if landscape > 1 else energies
            source = open_reference(reference, read, a.n_xy, a.n_z, pixels=pixels)
        result = take_gradient(
            surrogate, design, energies, objective=objective, reference=source, per_layer=dz.ndim > 0,
            density=density, showers=showers, draws=draws, sampler=sampler, steps=steps, step=step,
            replicas=replicas, seed=seed, extrapolate=extrapolate, progress=show,
        )  # fmt: skip
        write_json(json_path, result.to_dict())
        if report_path is not None:
            from calograd.gradients.landscape import landscapes
            from calograd.objective.reference import LibraryReference
            from calograd.reports.gradient import write_gradient_report

            drawn = []
            if landscape > 1:
                drawn = landscapes(
                    surrogate, replace(objective, energies=(middle,), weights=None), material=design.material,
                    reference=source if isinstance(source, LibraryReference) else None, points=landscape, seed=seed,
                    progress=show,
                )  # fmt: skip
            write_gradient_report(report_path, result, drawn, middle)
    _summarise(result)


def _summarise(result: GradientResult) -> None:
    """Print the gradients, one row a component."""
    from calograd.objective.space import unit

    columns = ["energy, GeV", "parameter", "surrogate"]
    if result.checks:
        columns += ["Geant4", "ratio", "pull", "cosine (ln y)"]
    rows = []
    for k, (energy, estimate) in enumerate(zip(result.energies, result.estimates, strict=True)):
        for j, name in enumerate(estimate.names):
            row = [f"{energy:g}", f"{name} = {estimate.y[j]:g} {unit(name)}",
                   f"{estimate.gradient[j]:.3g} +- {estimate.gradient_error[j]:.1g}"]  # fmt: skip
            if result.checks:
                c = result.checks[k].components[j]
                row += [f"{c.geant4:.3g} +- {c.geant4_error:.1g}", f"{c.ratio:.2f}", f"{c.pull:+.1f}",
                        f"{result.checks[k].cosine:.4f}" if j == 0 else ""]  # fmt: skip
            rows.append(row)
    print_table(f"dU/d ln y of U: {result.objective.describe()['utility']}", columns, rows)
