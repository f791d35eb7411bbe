"""``calograd gradient``, ``calograd optimise`` and ``calograd explore``."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from calograd.cli.common import (
    BEAM,
    COUNT,
    COUNT_OR_ZERO,
    EXISTING,
    NUMBERS,
    POSITIVE,
    STACK,
    Numbers,
    beam_options,
    cell_size,
    command,
    console,
    extrapolate_option,
    json_option,
    material_option,
    option,
    output_option,
    print_table,
    report_option,
    sampler_option,
    seed_option,
    stack_of,
    stack_options,
    steps_option,
    window_option,
)
from calograd.cli.progress import progress
from calograd.errors import InputError
from calograd.system.extras import require

if TYPE_CHECKING:
    from calograd.gradients.gradient import GradientResult
    from calograd.optimisation.run import OptimisationResult

REPORT = "report.html"
CONFIG = click.Path(path_type=Path, dir_okay=False)

QUANTITIES = ("visible", "deposited", "resolution", "learnt")
"""Quantities of a stack of plates."""
WEIGHTS = Numbers(positive=False)
"""Numbers separated by commas."""

landscape_option = option(
    "--landscape", default=9, type=COUNT_OR_ZERO,
    help="Points along each axis of the landscape in the report; 0 leaves it out. Maps have no landscape.",
)  # fmt: skip


@command()
@click.argument("model")
@option("--cell", nargs=2, type=NUMBERS, metavar="DX DZ",
        help="Pitch and depth, cm. With one depth a layer, as 4,5,6,8,10, each depth is a parameter.")  # fmt: skip
@material_option
@option("--density", is_flag=True, help="Add the density of the material to the parameters.")
@stack_options
@option("--quantity", "quantities", multiple=True, type=click.Choice(QUANTITIES),
        help="Sampling: what is differentiated; may be repeated. Mean energy in the active plates (visible) or in all "
        "(deposited); sigma/E of the visible energy (resolution), or with learnt weights of the layers (learnt). "
        "[visible and resolution]")  # fmt: skip
@option("--of-layers", nargs=2, type=COUNT_OR_ZERO, metavar="FIRST LAST",
        help="Sampling: layers whose energy is meant by visible and deposited, from 0. [all]")  # fmt: skip
@option("--weights", type=WEIGHTS, metavar="W,...",
        help="Sampling: weight of every layer in the resolution. [all the same]")  # fmt: skip
@option("--energies", required=True, type=NUMBERS, help="Incident energies, GeV, as 1,10,50,100; one gradient each.")
@option("--reference", type=EXISTING,
        help="Geant4 showers to compare with: a shower library, or a cells file with the neighbouring designs; for a "
        "stack a library of random stacks around it.")  # fmt: skip
@option("--objective", "objective_path", type=CONFIG,
        help="TOML file with [background], [readout], [mask], [utility], [[cost]]. [the squared error with the default "
        "background]")  # fmt: skip
@option("--truth", type=click.Choice(["deposited", "incident"]),
        help="True energy that the squared error compares with. [deposited]")  # fmt: skip
@option("--showers", default=1000, type=COUNT, help="Showers of a draw.")
@option("--draws", default=8, type=click.IntRange(min=2), help="Independent draws; their spread gives the error.")
@window_option
@beam_options
@sampler_option
@steps_option
@option("--step", default=0.04, type=POSITIVE,
        help="Step of Geant4's finite differences in the logarithm of a parameter.")  # fmt: skip
@option("--replicas", default=8, type=COUNT, help="Backgrounds drawn for each Geant4 shower.")
@seed_option
@landscape_option
@option("--landscape-energy", type=POSITIVE, help="Energy of the landscape, GeV. [the middle one of --energies]")
@extrapolate_option
@json_option
@report_option
@click.pass_context
def gradient(context: click.Context, /, model: str, **options: Any) -> dict[str, Any]:
    """Compute the gradient of a utility at a design with the surrogate, and compare it with Geant4's.

    Every energy has random numbers of its own.

    \b
    Examples:
      calograd gradient pbf2-cells --cell 2.5 6 --energies 1,10,50,100 --truth incident
      calograd gradient pbf2-cells --cell 2.5 6 --energies 1,10,50,100 --reference library.h5 --report gradient.html
      calograd gradient crystals --cell 2.5 6 --cells 5 5 --material PbWO4 --density --energies 10 --reference pbwo4.h5

    For a stack of plates these are the derivatives of quantities with respect to the thickness of every absorber and
    every active plate, and of all of a kind. Geant4's are of a regression over a library of random stacks.

    \b
    Examples:
      calograd gradient sampling --absorber Pb --active lAr --absorber-thickness 0.2 --active-thickness 0.4 \\
        --layers 40 --particle e- --energies 10 --quantity visible --quantity resolution --reference random.h5
      calograd gradient sampling --absorber W --active Si --absorber-thickness 20x0.21,10x0.42 --layers 30 \\
        --active-thickness 0.0525 --particle e- --energies 5,50 --quantity learnt --report stack.html
    """
    if options["report_path"] is not None:
        require("--report", "report", "jinja2", "matplotlib")
    given = [name for name in options if context.get_parameter_source(name) == ParameterSource.COMMANDLINE]
    of_stack = any(name in given for name in (STACK if "cell" in given else (*STACK, *_OF_STACKS)))
    if not of_stack and "cell" not in given:
        raise InputError("give --cell DX DZ, or for a surrogate of stacks of plates --absorber, --active and so on")
    for name in given:
        if name in (_OF_CELLS if of_stack else (*STACK, *_OF_STACKS)):
            option_name = f"--{_SPELLING.get(name, name).replace('_', '-')}"
            kind, other = ("a stack of plates", "--absorber") if of_stack else ("a design of cells", "--cell")
            raise InputError(f"{option_name} does not go with {kind} ({other}); leave it out")
    return _of_stack(model, options) if of_stack else _of_cells(model, **options)


_OF_STACKS = ("quantities", "of_layers", "weights")
"""Options of the gradient for stacks of plates alone, beside those of `stack_options`."""
_OF_CELLS = (
    "cell", "material", "density", "objective_path", "truth", "cells", "step", "replicas", "landscape",
    "landscape_energy", "position", "phi", "profile", "scatter",
)  # fmt: skip
"""Options of the gradient that do not go with a stack of plates."""
_SPELLING = {"quantities": "quantity", "objective_path": "objective"}
"""Names of options that differ from those of their values."""


def _of_cells(
    model: str, cell: tuple[tuple[float, ...], tuple[float, ...]], material: str | None, energies: tuple[float, ...],
    reference: Path | None, objective_path: Path | None, truth: str | None, seed: int, landscape: int,
    landscape_energy: float | None, report_path: Path | None, cells: tuple[int, int] | None, **options: Any,
) -> dict[str, Any]:  # fmt: skip
    """Compute and print the gradient at a design of cells."""
    import torch

    from calograd.detector.design import Design
    from calograd.gradients.gradient import gradient as run
    from calograd.gradients.gradient import pixels_of
    from calograd.objective.config import read_objective
    from calograd.objective.reference import open_reference
    from calograd.surrogate import Surrogate

    for name in (*STACK, *_OF_STACKS):
        del options[name]
    surrogate = Surrogate.load(model)
    a, pixels = surrogate.design_model.architecture, pixels_of(surrogate)
    n_xy, n_z = cells or (a.n_xy, a.n_z)
    dx, dz = (torch.tensor(size, dtype=torch.float64) for size in cell_size(cell, n_z))
    design = Design(dx, dz, material or surrogate.card.designs.material, n_xy, n_z)
    beam = {name: value for name in BEAM if (value := options.pop(name)) is not None}
    objective = read_objective(objective_path, energies, truth=truth, pixels=pixels, beam=beam)
    landscape = 0 if pixels or report_path is None else landscape
    middle = landscape_energy or energies[len(energies) // 2]
    with progress("gradient") as show:
        source = None
        if reference is not None:
            read = tuple(dict.fromkeys((*energies, middle))) if landscape > 1 else energies
            moved = objective.beam if surrogate.model.takes_particles else None
            source = open_reference(reference, read, n_xy, n_z, pixels=pixels, beam=moved, seed=seed)
        result = run(
            surrogate, design, energies, objective=objective, reference=source, per_layer=dz.ndim > 0, seed=seed,
            progress=show, **options,
        )  # fmt: skip
        if report_path is not None:
            from calograd.gradients.landscape import landscapes
            from calograd.gradients.spectra import geant4_spectra, surrogate_spectra
            from calograd.reports.gradient import write_gradient_report

            drawn = []
            if landscape > 1:
                drawn = landscapes(
                    surrogate, replace(objective, energies=(middle,), weights=None), material=design.material,
                    reference=source if source and source.any_design else None, cells=cells, points=landscape,
                    seed=seed, progress=show,
                )  # fmt: skip
            spectra = surrogate_spectra(
                surrogate, objective, [design], showers=options["showers"], seed=seed, sampler=options["sampler"],
                steps=options["steps"], extrapolate=options["extrapolate"], progress=partial(show, "spectra"),
            )  # fmt: skip
            spectra += geant4_spectra(source, objective, [design], seed=seed) if source else []
            write_gradient_report(report_path, result, drawn, middle, spectra)
    _print_gradient(result)
    return result.to_dict()


def _of_stack(model: str, options: dict[str, Any]) -> dict[str, Any]:
    """Compute and print the derivatives at a stack of plates."""
    from calograd.detector.material import Material
    from calograd.detector.particles import ParticleBeam
    from calograd.detector.sampling_design import SamplingDesign
    from calograd.gradients.gradient import gradient as run
    from calograd.objective.stacks import LearntResolution, MeanEnergy, StackObjective, VisibleResolution
    from calograd.surrogate import Surrogate

    stack = stack_of(options, Material.parse, "a stack of plates")
    particle: Any = options["particle"] or "gamma"
    theta: Any = options["theta"] or 0.0
    if stack.drawn or isinstance(particle, tuple) or isinstance(theta, tuple):
        raise InputError("a gradient is taken at one stack, of one particle at one angle; give no ranges and no lists")
    layers, chosen = options["of_layers"], options["quantities"] or ("visible", "resolution")
    for name, value, among in (("of-layers", layers, ("visible", "deposited")),
                               ("weights", options["weights"], ("resolution",))):  # fmt: skip
        if value is not None and not set(among) & set(chosen):
            raise InputError(f"--{name} is for --quantity {' or '.join(among)}; leave it out")
    known: dict[str, Any] = {
        "visible": lambda: MeanEnergy(layers=layers),
        "deposited": lambda: MeanEnergy(absorber=1.0, layers=layers),
        "resolution": lambda: VisibleResolution(1.0 if options["weights"] is None else options["weights"]),
        "learnt": LearntResolution,
    }  # fmt: skip
    objective = StackObjective(tuple(known[name]() for name in chosen), beam=ParticleBeam(particle, theta=theta))
    surrogate, design = Surrogate.load(model), SamplingDesign.of_stack(stack)
    with progress("gradient") as show:
        result = run(
            surrogate, design, options["energies"], objective=objective, progress=show,
            **{name: options[name] for name in ("reference", "showers", "draws", "sampler", "steps", "seed",
                                                "extrapolate")},
        )  # fmt: skip
        if options["report_path"] is not None:
            from calograd.reports.stack_gradient import write_stack_gradient_report

            write_stack_gradient_report(options["report_path"], result)
    print_table("Derivatives with respect to thicknesses", result.columns(), result.rows())
    return result.to_dict()


def _print_gradient(result: GradientResult) -> None:
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


@command()
@click.argument("model")
@click.argument("config", type=CONFIG)
@output_option("Folder of the run", folder=True, resumes=True)
@option("--adapt", is_flag=True,
        help="Simulate the detector of CONFIG's table [adapt] between steps and adapt MODEL to it.")  # fmt: skip
@landscape_option
@json_option
def optimise(model: str, config: Path, output: Path, adapt: bool, landscape: int) -> dict[str, Any]:
    """Improve a design along the surrogate's gradients, and check the steps with Geant4.

    The same command resumes a run that was interrupted. CONFIG is a TOML file; the module calograd.optimisation.run
    documents its tables, calograd.optimisation.stacks those for stacks of plates.

    With --adapt the detector may be one that MODEL does not know, with another crystal, gaps or another beam. Before
    every gradient a few showers of it are simulated, and MODEL is adapted to them, up to a budget of showers.

    \b
    Examples:
      calograd optimise pbf2-cells optimise.toml -o run
      calograd optimise pbf2-cells pbwo4.toml --adapt -o run
      calograd optimise sampling-fast tungsten.toml -o run
    """
    require("the report of an optimisation", "report", "jinja2", "matplotlib")
    from calograd.optimisation.run import optimise as run
    from calograd.reports.optimisation import write_optimisation_report

    with progress("optimisation") as show:
        result = run(model, config, output, adapt=adapt, landscape=landscape, progress=show)
        write_optimisation_report(output / REPORT, result)
    _print_optimisation(result, output)
    return result.to_dict()


def _print_optimisation(result: OptimisationResult, output: Path) -> None:
    """Print start and result of an optimisation."""
    import numpy as np

    from calograd.objective.stack_space import grouped

    setup, state = result.setup, result.state
    names, ends = setup.space.names, (setup.start, np.array(state.y))
    rows: list[tuple[str, ...]] = [(name, *(_span(y[places]) for y in ends)) for name, places in grouped(names).items()]
    rows.append(("utility, surrogate", f"{state.history[0].value:.4g}", f"{state.history[-1].value:.4g}"))
    if result.start is not None and result.end is not None and result.gain is not None:
        rows.append(("utility, Geant4", f"{result.start.value:.4g} +- {result.start.error:.2g}",
                     f"{result.end.value:.4g} +- {result.end.error:.2g}"))  # fmt: skip
        rows.append((f"gain, Geant4, {setup.paired}", "", f"{result.gain.value:+.4g} +- {result.gain.error:.2g}"))
    for each in result.spectra:
        name = "Geant4" if each.source == "Geant4" else "surrogate"
        rows.append((f"resolution at {each.energy:g} GeV, {name}",
                     *(f"{100 * mean:.2f} +- {100 * error:.2f} %" for mean, error in each.resolutions())))  # fmt: skip
    adapted = result.adapted_showers
    simulated = f"{state.simulated} simulated showers" + (f", {adapted} of them to adapt to" if adapted else "")
    print_table(
        f"{len(state.history)} steps, {simulated}; {state.reason}; {output / REPORT}",
        ["", "start", "result"], rows,
    )  # fmt: skip


def _span(values: Any) -> str:
    """Return sizes as text: one, or the least and the largest."""
    low, high = f"{values.min():.4g}", f"{values.max():.4g}"
    return low if low == high else f"{low} to {high}"


@click.command()
@click.argument("model", default="pbf2-cells")
@option("--port", default=5006, type=click.IntRange(0, 65535), help="Port on this machine; 0 stands for any free one.")
@option("--run", type=EXISTING, help="Show the trajectory of a run of 'calograd optimise'.")
@option(
    "--reference", type=EXISTING, help="Compare with the Geant4 showers of this file: cells, or a library of plates."
)
@option("--no-browser", is_flag=True, help="Print the address without opening a browser.")
def explore(model: str, port: int, run: Path | None, reference: Path | None, no_browser: bool) -> None:
    """Open a page with sliders, an event, observables beside Geant4's, a landscape and derivatives.

    MODEL generates cells, or stacks of plates as sampling does. Only this machine can open the page. In a notebook:
    calograd.explore("pbf2-cells").

    \b
    Examples:
      calograd explore
      calograd explore sampling-fast
      calograd explore pbwo4 --port 5010 --run run --no-browser
    """
    from calograd.explorer.serve import serve

    def ready(address: str) -> None:
        console.print(f"the explorer is at {address} (Ctrl-C ends it)", highlight=False, soft_wrap=True)

    serve(model, port, run=run, reference=reference, browser=not no_browser, ready=ready)
    console.print("the explorer has ended")
