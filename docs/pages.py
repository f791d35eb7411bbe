"""Pages made from the code before every build: commands, the API, model cards and the table of their limits."""

from __future__ import annotations

import json
import pkgutil
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import click

import calograd
from calograd.surrogate import Card

RESULTS = {
    "pbf2-cells": "right", "pbf2-cells-fast": "right", "crystals": "off-axis", "crystals-fast": "off-axis",
    "siw-cloud": "points", "siw-cloud-cm": "points", "sampling": "sampling", "sampling-fast": "sampling",
}  # fmt: skip
"""The page in docs/results that has the fidelity of a bundled surrogate."""
SCRIPTS = {"siw-cloud-cm": "siw-cloud.sh"}
"""The script in runs/ that made a bundled surrogate, where it has another name."""


def write_pages(source: Path) -> None:
    """Write the pages into the folder ``source``; unchanged files keep their times, former cards are removed."""
    reference = source / "reference"
    pages = dict(_api(source)) | dict(_models(source)) | {"cli.md": "\n".join(_commands())}
    for former in (reference / "made").glob("model-*.md"):
        if former.name not in pages:
            former.unlink()
    for name, text in pages.items():
        path = reference / "made" / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _rooms(source: Path) -> list[str]:
    """Return the rooms from high to low, as the import contract in pyproject.toml has them."""
    contracts = tomllib.loads((source.parent / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers: list[str] = contracts["contracts"][0]["layers"]
    return [layer.removeprefix("calograd.") for layer in layers]


def _modules(room: str) -> list[str]:
    """Return a room and the modules in it; names that begin with an underscore are private."""
    package = import_module(f"calograd.{room}")
    inside = pkgutil.walk_packages(getattr(package, "__path__", []), f"{package.__name__}.")
    return [package.__name__, *(m.name for m in inside if not m.name.rpartition(".")[2].startswith("_"))]


def _first_line(thing: Any) -> str:
    """Return the first sentence of a docstring, or nothing."""
    return str(getattr(thing, "__doc__", None) or "").strip().partition("\n")[0]


def _api(source: Path) -> Iterator[tuple[str, str]]:
    """Yield the root API's page and one page a room."""
    rooms = [room for room in _rooms(source) if room != "cli"]
    lines = [
        "# API", "",
        "These names are imported from `calograd`. Shapes are written as (n, n_xy, n_xy, n_z): n showers, n_xy cells",
        "in x and in y, n_z layers.", "", "| name | |", "|---|---|",
    ]  # fmt: skip
    for name in sorted(set(calograd.__all__) - {"__version__"}, key=str.casefold):
        thing = getattr(calograd, name)
        home = f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', name)}"
        role = "class" if isinstance(thing, type) else "func" if callable(thing) else "data"
        link = f"{{py:{role}}}`{name} <{home}>`" if role != "data" else f"`{name}`"
        lines.append(f"| {link} | {_first_line(thing) if role != 'data' else ''} |")
    listed = [
        f"| [`calograd.{room}`](api-{room}) | {_first_line(import_module(f'calograd.{room}'))} |" for room in rooms
    ]
    lines += [
        "", "The rooms of the package, from high to low. A room imports only from rooms below it.", "",
        "| room | |", "|---|---|", *listed, "",
        "```{toctree}", ":hidden:", *(f"api-{room}" for room in rooms), "```", "",
    ]  # fmt: skip
    yield "api.md", "\n".join(lines)
    for room in rooms:
        page = [f"calograd.{room}", "=" * (9 + len(room))]
        for number, module in enumerate(_modules(room)):
            page += ["", module, "-" * len(module)] if number else []
            page += ["", f".. automodule:: {module}"]
        yield f"api-{room}.rst", "\n".join([*page, ""])


def _commands() -> Iterator[str]:
    """Yield every command with its help, as the terminal shows it."""
    from calograd.cli import COMMANDS, cli

    yield "# Commands\n"
    yield "Exit codes: 0, or 2 with one line that says what to do; 130 after Ctrl-C. Units: cm, GeV.\n"
    for name, summary in COMMANDS.items():
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        context = click.Context(command, info_name=f"calograd {name}", terminal_width=100, max_content_width=100)
        yield f"## calograd {name}\n\n{summary}\n\n```text\n{command.get_help(context)}\n```\n"


def _models(source: Path) -> Iterator[tuple[str, str]]:
    """Yield a card of every bundled surrogate, a page that lists them, and the table of what they cover."""
    from calograd.surrogate.storage import bundled, load, locate

    covered = []
    for name in bundled():
        model, card = load(name)
        rows = _facts(card)
        trained = "; ".join(f"{key}: {value}" for key, value in rows.items())
        covered.append(f"| [](/reference/made/model-{name}.md) | {trained} | [](/results/{RESULTS[name]}.md) |")
        numbers = sum(p.numel() for p in model.parameters())
        rows |= {
            "parameters": f"{numbers:,}".replace(",", " "),
            "files": f"{sum(file.stat().st_size for file in locate(name).parent.iterdir()) / 1e6:.1f} MB, safetensors, "
            "MIT licence",
        }
        lines = [
            f"# {name}", "", f'`Surrogate.load("{name}")`, `calograd sample {name} ...`.', "",
            "| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items()), *_made(name, card, source),
            "", "## Fidelity", "", f"See [](../../results/{RESULTS[name]}.md).", "", *_limits(card), "",
        ]  # fmt: skip
        yield f"model-{name}.md", "\n".join(lines)
    listed = [f"model-{name}" for name in bundled()]
    table = ["| surrogate | trained on | results |", "|---|---|---|", *covered, ""]
    yield "models.md", "\n".join(["# Bundled surrogates", "", *table, "```{toctree}", ":hidden:", *listed, "```", ""])
    yield "covered.md", "\n".join(table)


def _facts(card: Card) -> dict[str, str]:
    """Return what a surrogate was trained on."""
    return {
        "incident energy": f"{card.energy[0]:g} to {card.energy[1]:g} GeV", **card.trained.facts(card.architecture)
    }  # fmt: skip


def _several(value: str | list[str]) -> list[str]:
    """Return one or several words as a list."""
    return [value] if isinstance(value, str) else list(value)


def _data(card: Card) -> list[str]:
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
        particles = ", ".join(_several(beam["particle"]))
        lines.append(
            f"| {each['file']} | {rows} | {particles} | {values} ({energies['law']}) | {made['seed']} | "
            f"{each['config'].get('geant4', '')} |"
        )
    return lines


def _made(name: str, card: Card, source: Path) -> list[str]:
    script = SCRIPTS.get(name, f"{name}.sh")
    done = card.training["done"]
    steps = f"{done['step']} steps in " if done.get("step") else ""  # phases have theirs in the configuration
    return [
        "", "## Data", "", *_data(card), "", "## Command and cost", "",
        f"`runs/{script}` makes the data and trains." if (source.parent / "runs" / script).exists()
        else "No script is bundled.",
        f"Training: {steps}{done['seconds'] / 60:.0f} minutes. The configuration:", "",
        "```json", json.dumps(card.training["config"], indent=1), "```",
    ]  # fmt: skip


def _limits(card: Card) -> list[str]:
    lines = ["## Limits", "", "- Requests outside the table above are refused; `extrapolate=True` allows them."]
    mode = card.trained.provenance().get("mode")
    if mode is not None:
        around = "the material goes on around the window" if mode == "embedded" else "nothing is around the block"
        lines += [f"- Mode {mode}: {around}."]
    if getattr(card.trained, "beam", None) is None:
        lines.append("- Photons at normal incidence, on the axis. Other beams need an adaptation.")
    return [
        *lines,
        "- Known weaknesses are on the page named under fidelity.",
    ]  # fmt: skip
