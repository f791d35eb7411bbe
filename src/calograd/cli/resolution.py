"""``calograd resolution``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from calograd.cli.common import (
    BEAM,
    COUNT,
    EXISTING,
    NUMBERS,
    POSITIVE,
    beam_options,
    cell_size,
    command,
    extrapolate_option,
    json_option,
    material_option,
    option,
    print_notes,
    print_table,
    report_option,
    sampler_option,
    seed_option,
    steps_option,
    threads_option,
    window_option,
)
from calograd.cli.progress import progress
from calograd.errors import InputError
from calograd.system.extras import require

if TYPE_CHECKING:
    from calograd.gradients.resolution import ResolutionResult
    from calograd.objective.measurement import Measurement


@command()
@click.argument("model", required=False)
@option("--cell", nargs=2, type=NUMBERS, metavar="DX DZ",
        help="Pitch and depth, cm; DZ may be one a layer: 4,5,6,8,10. [the only design of the reference]")  # fmt: skip
@window_option
@beam_options
@material_option
@option("--energies", type=NUMBERS,
        help="Incident energies, GeV, as 1,10,50. [those of the reference, else 8 logarithmic steps over the trained "
        "range]")  # fmt: skip
@option("--reference", type=EXISTING,
        help="Geant4 showers beside it: a cells or maps file, a folder of them, or a shower library. A continuous "
        "spectrum is binned.")  # fmt: skip
@option("--objective", "objective_path", type=click.Path(path_type=Path, dir_okay=False),
        help="TOML file with [background], [readout], [mask], [beam]. [default background, no readout]")  # fmt: skip
@option("--light-yield", type=POSITIVE, help="Readout of this many photo-electrons per GeV.")
@option("--noise", type=POSITIVE, help="Readout with this noise, MeV a cell.")
@option("--definition", type=click.Choice(["std", "incident", "width68"]), default="std",
        help="Definition of sigma / E: standard deviation over mean or over incident energy, or half the central 68 % "
        "width over the median.")  # fmt: skip
@option("--terms", default="a,b,c", help="Terms of the fit that are free: a (1/sqrt(E)), b (1/E), c (constant).")
@option("--gradient/--no-gradient", default=True, help="Take the gradient in pitch and depths.")
@option("-n", "--showers", default=1000, type=COUNT, help="Generated showers of every energy.")
@sampler_option
@steps_option
@seed_option
@threads_option
@extrapolate_option
@json_option
@report_option
def resolution(
    model: str | None, cell: tuple[tuple[float, ...], tuple[float, ...]] | None, material: str | None,
    energies: tuple[float, ...] | None, objective_path: Path | None, light_yield: float | None, noise: float | None,
    terms: str, report_path: Path | None, cells: tuple[int, int] | None, **options: Any,
) -> dict[str, Any]:  # fmt: skip
    """Compute the energy resolution sigma / E of a design against energy, and fit a/sqrt(E) (+) b/E (+) c to it.

    (+) is a sum in quadrature. The resolution is shown of the deposited energy, with background and mask, and with the
    readout. Its gradient in the design is that of the surrogate by back-propagation. Geant4's, by finite differences,
    stands beside it if the reference is a library or holds the neighbouring designs. Without MODEL the reference alone
    is analysed.

    \b
    Examples:
      calograd resolution pbf2-cells-fast --cell 2.5 6
      calograd resolution pbf2-cells-fast --cell 2.5 6 --light-yield 2000 --noise 2 --report resolution.html
      calograd resolution pbf2-cells-fast --cell 2.5 6 --reference reference.h5 --report resolution.html
      calograd resolution --cell 2.5 6 --reference reference.h5 --definition width68 --terms a,c --json -
    """
    if report_path is not None:
        require("--report", "report", "jinja2", "matplotlib")
    if model is None and options["reference"] is None:
        raise InputError("give a MODEL, as pbf2-cells-fast, or --reference FILE, or both")
    if model is not None and cell is None:
        raise InputError("give the design, --cell DX DZ")
    from calograd.gradients.resolution import resolution as run
    from calograd.objective.config import read_objective

    with progress("resolution") as show:
        source, design, pixels = _design(model, cell, cells, material, options["reference"])
        asked = {name: value for name in BEAM if (value := options.pop(name)) is not None}
        objective = read_objective(objective_path, (1.0,), pixels=pixels, beam=asked)
        measurement = _read_out(objective.measurement, light_yield, noise, objective_path)
        result = run(
            source, design, energies, measurement=measurement, beam=objective.beam,
            terms=tuple(term.strip() for term in terms.split(",")), progress=show, **options,
        )  # fmt: skip
        if report_path is not None:
            from calograd.reports.evaluation import write_report

            write_report(report_path, result, show)
    _print(result)
    return result.to_dict()


def _design(
    model: str | None, cell: Any, cells: tuple[int, int] | None, material: str | None, reference: Path | None
) -> tuple[Any, Any, int | None]:
    """Return the surrogate, the design (None for the reference's only one), and the pixels of maps."""
    from calograd.detector.design import Design
    from calograd.gradients.gradient import pixels_of
    from calograd.gradients.resolution import layout_of
    from calograd.surrogate import Surrogate

    if model is not None:
        surrogate = Surrogate.load(model)
        a = surrogate.design_model.architecture
        layout = a.n_xy, a.n_z, pixels_of(surrogate), material or surrogate.card.designs.material
    else:
        assert reference is not None
        surrogate = None
        n_xy, n_z, pixels, found = layout_of(reference)
        layout = n_xy, n_z, pixels, material or found
    n_xy, n_z, pixels, of = layout
    n_xy, n_z = cells or (n_xy, n_z)
    return surrogate, Design(*cell_size(cell, n_z), of, n_xy, n_z) if cell else None, pixels


def _read_out(
    measurement: Measurement, light_yield: float | None, noise: float | None, path: Path | None
) -> Measurement:
    """Return a measurement with the readout of the options. Raises `InputError` if it has one of a file."""
    if light_yield is None and noise is None:
        return measurement
    if measurement.readout is not None:
        raise InputError(f"--light-yield and --noise do not go with the [readout] of {path}; leave one out")
    from calograd.objective.readout import Readout

    return replace(measurement, readout=Readout(light_yield=light_yield, noise=1e-3 * (noise or 0.0)))


def _print(result: ResolutionResult) -> None:
    """Print points, fits and gradient."""
    print_notes(result.notes)
    title = {"std": "standard deviation / mean", "incident": "standard deviation / incident energy",
             "width68": "half the central 68 % width / median"}[result.definition]  # fmt: skip
    print_table(f"sigma / E: {title}", ["stage", "source", "E, GeV", "sigma / E, %", "response", "showers"],
                result.rows())  # fmt: skip
    print_table("sigma / E = a/sqrt(E) (+) b/E (+) c, E in GeV", ["stage", "source", "fit", "chi2 / degrees"],
                result.fit_rows())  # fmt: skip
    fits = [curve.fit for stage in result.stages for curve in stage.curves if curve.fit is not None]
    print_notes(sorted({fit.note for fit in fits if fit.note}))
    known = next((stage.gradient for stage in result.stages if stage.gradient is not None), None)
    if known is not None:
        sizes = [f"{name} = {value:g} cm" for name, value in zip(known.names, known.y, strict=True)]
        print_table("Gradient in the design", ["stage", "source", "d / d ln y of", *sizes], result.gradient_rows())
