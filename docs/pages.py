"""Pages that are made of the code before every build: the command line's reference, the API's, the model cards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click

from calograd.surrogate import Card
from calograd.surrogate.registry import STACK_KINDS
from calograd.surrogate.storage import StackCard

AREAS = {
    "Designs and materials": ("design", "material", "errors", "memory"),
    "Surrogates": ("surrogate", "surrogate.adapters", "surrogate.generate", "surrogate.store", "surrogate.model",
                   "surrogate.two_stage", "surrogate.cells", "surrogate.coordinates", "surrogate.folded_cells",
                   "surrogate.maps", "surrogate.map_coordinates"),
    "Export": ("export.write", "export.runtime", "export.parts", "export.walk"),
    "Showers": ("showers.cells", "showers.maps", "showers.library", "showers.shards", "showers.segment",
                "showers.measure", "showers.formats"),
    "Simulation": ("simulation.config", "simulation.detectors", "simulation.farm", "simulation.tables"),
    "Evaluation": ("evaluation.evaluate", "evaluation.observables", "evaluation.distances", "evaluation.classifier",
                   "evaluation.limits"),
    "Optimisation": ("optimisation.utility", "optimisation.cost", "optimisation.background", "optimisation.readout",
                     "optimisation.reconstruction", "optimisation.objective", "optimisation.gradient",
                     "optimisation.reference", "optimisation.common_showers", "optimisation.landscape",
                     "optimisation.space", "optimisation.descent", "optimisation.baselines"),
    "Explorer": ("explorer.serve", "explorer.views", "explorer.choice", "explorer.landscape", "explorer.work"),
    "Learning": ("learning.config", "learning.train", "learning.team", "learning.stream", "learning.distil",
                 "learning.adapt"),
    "Diffusion": ("diffusion.noise", "diffusion.denoise", "diffusion.sample", "diffusion.progressive"),
    "Networks": ("networks.mlp", "networks.moments", "networks.gaussianise",
                 "networks.triangle", "networks.unet", "networks.adapter", "networks.linear"),
}  # fmt: skip
"""Modules of the API reference by page."""
MEASURED = {
    "pbf2-cells": ("## What to expect", "## Gradients"),
    "pbf2-cells-fast": ("## In few evaluations", "## Gradients"),
    "siw-cloud": ("## Points of a silicon-tungsten calorimeter", "## In a browser"),
    "siw-cloud-cm": ("## Points of a silicon-tungsten calorimeter", "## In a browser"),
    "materials-cells": ("## One surrogate of five materials", "## Outside its range"),
}
"""Where the README has the fidelity of every bundled surrogate: after and before which lines."""
SCRIPTS = {"materials-cells": "materials.sh", "siw-cloud-cm": "siw-cloud.sh"}
"""What in `runs/` made a bundled surrogate whose script is not called after it."""


def write_pages(source: Path) -> None:
    """Write what is made into the folder ``source``; what has not changed is left alone."""
    reference = source / "reference"
    pages = dict(_api()) | dict(_models(source)) | {"cli.md": "\n".join(_commands())}
    for name, text in pages.items():
        path = reference / "made" / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _api() -> Iterator[tuple[str, str]]:
    for title, modules in AREAS.items():
        lines = [title, "=" * len(title)]
        for module in modules:
            name = f"calograd.{module}"
            lines += ["", name, "-" * len(name), "", f".. automodule:: {name}"]
        yield f"{title.lower().replace(' ', '-')}.rst", "\n".join([*lines, ""])


def _commands() -> Iterator[str]:
    """Every command with its help, as the terminal shows it."""
    from calograd.cli import COMMANDS, cli

    yield "# Commands\n"
    yield "Exit codes: 0, or 2 with one line that says what to do; 130 after Ctrl-C. Units: cm, GeV.\n"
    for name, summary in COMMANDS.items():
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        context = click.Context(command, info_name=f"calograd {name}", terminal_width=100, max_content_width=100)
        yield f"## calograd {name}\n\n{summary}\n\n```text\n{command.get_help(context)}\n```\n"


def _models(source: Path) -> Iterator[tuple[str, str]]:
    """A card of every bundled surrogate, from what its file says, and a page that lists them."""
    from calograd.surrogate.storage import bundled, kind_of, load, load_stack, locate

    for name in bundled():
        model, card = load_stack(name) if kind_of(name) in STACK_KINDS else load(name)
        numbers = sum(p.numel() for p in model.parameters())
        megabytes = locate(name).stat().st_size / 1e6
        rows = _of_stack(card) if isinstance(card, StackCard) else _of_designs(card)
        rows |= {
            "Numbers": f"{numbers:,}".replace(",", " "), "File": f"{megabytes:.1f} MB, safetensors, MIT licence"
        }  # fmt: skip
        lines = [
            f"# {name}",
            "",
            f'`Surrogate.load("{name}")`, `calograd sample {name} ...`.',
            "",
            "| | |",
            "|---|---|",
        ]
        lines += [*(f"| {key} | {value} |" for key, value in rows.items()), *_made(name, card, source)]
        begin, end = MEASURED[name]
        lines += [
            "", "## Fidelity", "", "From the README; `runs/` and `validation/` measure it.", "",
            "```{include} ../../../README.md", f':start-after: "{begin}"', f':end-before: "{end}"', "```",
        ]  # fmt: skip
        yield f"model-{name}.md", "\n".join([*lines, "", *_limits(card), ""])
    listed = [f"model-{name}" for name in bundled()]
    yield "models.md", "\n".join(["# Bundled surrogates", "", "```{toctree}", *listed, "```", ""])


def _of_designs(card: Card) -> dict[str, str]:
    x, z = ("cm", "cm") if card.units == "cm" else ("Moliere radii", "radiation lengths")
    a = card.architecture
    return {
        "Materials": ", ".join(f"{m.name} ({m.density:g} g/cm3)" for m in card.substances()),
        "Cells": f"{a['n_xy']} x {a['n_xy']} x {a['n_z']}",
        "Incident energy": f"{card.energy[0]:g} to {card.energy[1]:g} GeV",
        "Pitch": f"{card.dx[0]:g} to {card.dx[1]:g} {x}", "Depth of a layer": f"{card.dz[0]:g} to {card.dz[1]:g} {z}",
        "Layers": "equal or each with its own depth" if card.unequal_layers else "equal", "Mode": card.mode,
    }  # fmt: skip


def _of_stack(card: StackCard) -> dict[str, str]:
    return {
        "Detector": f"{card.detector['kind']}, {card.architecture['layers']} layers", "Points": card.clustering,
        "Incident energy": f"{card.energy[0]:g} to {card.energy[1]:g} GeV",
    }  # fmt: skip


def _steps(card: Card | StackCard) -> str:
    """Of the optimiser, where the card tells: stacks have phases, whose steps are in the configuration."""
    return f"{card.training['done']['step']} steps in " if isinstance(card, Card) else ""


def _data(card: Card | StackCard) -> list[str]:
    files = card.training["data"]
    if all("simulation" not in each["config"] for each in files):  # a student's, made by its teacher
        return [
            f"{card.training['showers']} showers, none of them Geant4's:", "",
            "| file | rows | surrogate | seed |", "|---|---|---|---|",
            *(f"| {each['file']} | {each['rows']} | {each['origin']} | {each['config']['seed']} |" for each in files),
        ]  # fmt: skip
    lines = [f"{card.training['showers']} Geant4 showers.", "",
             "| file | rows | particle | energies, GeV | seed | Geant4 |", "|---|---|---|---|---|---|"]  # fmt: skip
    for each in files:
        rows = each.get("rows", each.get("showers"))
        made = each["config"]["simulation"]
        beam, energies = made["beam"], made["beam"]["energies"]
        values = (" to " if "uniform" in energies["law"] else ", ").join(f"{value:g}" for value in energies["values"])
        lines.append(
            f"| {each['file']} | {rows} | {beam['particle']} | {values} ({energies['law']}) | {made['seed']} | "
            f"{each['config'].get('geant4', '')} |"
        )
    return lines


def _made(name: str, card: Card | StackCard, source: Path) -> list[str]:
    script = SCRIPTS.get(name, f"{name}.sh")
    done = card.training["done"]
    return [
        "", "## Data", "", *_data(card), "", "## Command and cost", "",
        f"`runs/{script}` makes the data and trains." if (source.parent / "runs" / script).exists()
        else "No script is bundled.",
        f"Training: {_steps(card)}{done['seconds'] / 60:.0f} minutes. The configuration:", "",
        "```json", json.dumps(card.training["config"], indent=1), "```",
    ]  # fmt: skip


def _limits(card: Card | StackCard) -> list[str]:
    lines = ["## Limits", "", "- What is outside the table above is refused by name; `extrapolate=True` allows it."]
    if isinstance(card, Card):
        around = "the material goes on around the window" if card.mode == "embedded" else "nothing is around the block"
        lines += [f"- Mode {card.mode}: {around}."]
    return [
        *lines, "- One particle, at normal incidence, on the axis. Others take an adaptation.",
        "- Weaknesses that are known are named under fidelity.",
    ]  # fmt: skip
