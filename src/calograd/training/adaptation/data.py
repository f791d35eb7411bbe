"""Which data a surrogate can be adapted to, and what it is for afterwards."""

from __future__ import annotations

from dataclasses import asdict
from math import exp, log
from pathlib import Path

from calograd.errors import InputError
from calograd.surrogate import Surrogate, TrainedDesigns
from calograd.surrogate.adapters import AdapterCard, Base, relative_source
from calograd.surrogate.card import Ranges
from calograd.training.adaptation.state import AdaptConfig, State
from calograd.training.data.rows import TrainingData
from calograd.training.train import UNREACHED

LENGTHS = {"mm": 10.0, "m": 0.01}
UNITS = {"energy": ("GeV", {"MeV": 1e3, "keV": 1e6, "TeV": 1e-3}), "dx": ("cm", LENGTHS), "dz": ("cm", LENGTHS)}
"""What numbers are in, and what else they may be in by mistake."""

EXCEEDED = 0.15
"""Share of a range, in its logarithm, by which data may exceed it without extending it: training data do on purpose."""
DRAWN = 0.01
"""Likewise, by which what was drawn from a range falls short of its ends."""


def refuse_distilled(base: Surrogate) -> None:
    """Raise `InputError` for a base without a denoising loss to adapt by."""
    if base.model.distilled:
        raise InputError(
            f"{base.card.name} is distilled and cannot be adapted; adapt the surrogate that it was distilled from and "
            "distil the result"
        )


def check_data(base: Surrogate, data: TrainingData) -> None:
    """Refuse data that ``base`` cannot be adapted to.

    Raises:
        InputError: a distilled base, maps for cells or cells for maps, other numbers of cells, or numbers that look
            like another unit.
    """
    refuse_distilled(base)
    if data.kind != base.card.kind:
        raise InputError(
            f"the data are for a surrogate of kind '{data.kind}', {base.card.name} is of kind '{base.card.kind}'; "
            f"segment {'without' if data.kind == 'maps' else 'with'} --maps"
        )
    a, found = base.design_model.architecture, tuple(data.train.cells.shape[1:])
    wanted = base.design_model.shape
    if found != wanted or (data.n_xy, data.train.dz.shape[1]) != (a.n_xy, a.n_z):
        raise InputError(
            f"the data have {' x '.join(map(str, found))} cells, {base.card.name} generates "
            f"{' x '.join(map(str, wanted))}; segment with --cells {a.n_xy} {a.n_z}, or train a surrogate of their own"
        )
    share = float((data.train.cells.flatten(1).double().sum(1) / data.train.energy).mean())
    if not 1e-2 <= share <= 1.2:
        what = "the cells are in MeV or keV" if share > 1 else "the incident energies are in MeV or keV"
        raise InputError(
            f"the cells hold {share:.3g} times the incident energy on average; perhaps {what}: expected GeV for both"
        )
    card = base.card.in_cm(data.material)
    for name, (unit, others) in UNITS.items():
        values, (low, high) = getattr(data.train, name), getattr(card, name)
        if float(values.min()) <= high and float(values.max()) >= low:
            continue
        for other, factor in others.items():
            if low <= float(values.median()) / factor <= high:
                raise InputError(
                    f"{name} is {float(values.min()):g} to {float(values.max()):g} {unit} in the data, {low:g} to "
                    f"{high:g} {unit} in {base.card.name}; perhaps it is in {other}: expected {unit}"
                )


def card_of(base: Surrogate, config: AdaptConfig, data: TrainingData, state: State, output: Path) -> AdapterCard:
    """The card of an adaptation of ``base`` that has ended, stored in the folder ``output``."""
    unequal = bool((data.train.dz.amax(1) > 1.01 * data.train.dz.amin(1)).any())
    plan, trusted, card = config.plan(), config.range == "base", base.card.in_cm(data.material)
    source = relative_source(base.source, output) if base.source else ""
    done = {"phase": "adapted", "step": sum(r.steps for r in state.results), "seconds": round(state.seconds)}
    return AdapterCard(
        name=output.resolve().name,
        base=Base(name=base.card.name, identity=base.identity, source=source),
        method=plan.method,
        rank=plan.rank,
        alpha=plan.alpha,
        targets=plan.targets,
        energy=_range(card, data, "energy", trusted),
        trained=TrainedDesigns(
            dx=_range(card, data, "dx", trusted),
            dz=_range(card, data, "dz", trusted),
            unequal_layers=unequal or (trusted and base.card.designs.unequal_layers),
            materials=(data.material,),
            mode=data.mode,
        ),
        symmetric=state.start.architecture.symmetric,
        training={
            "config": config.model_dump(mode="json"), "base": base.card.name, "data": data.provenance,
            "showers": data.showers, "held_out": data.held_out, "phases": [asdict(r) for r in state.results],
            "done": done,
        } | ({"start": state.origin} if state.origin else {}),
    )  # fmt: skip


def _range(base: Ranges, data: TrainingData, name: str, trusted: bool) -> tuple[float, float]:
    """Where the data are, or all of the base's range where it is trusted.

    An end of the base's range that the data all but reach, or go somewhat beyond, is taken as the end. Data that are
    not all at one place were probably drawn from a range, which ends a little beyond them.
    """
    values, (low, high) = getattr(data.train, name), getattr(base, name)
    lowest, highest = float(values.min()), float(values.max())
    if trusted:
        return min(low, lowest), max(high, highest)
    span = log(high / low)
    near = [-UNREACHED * span <= beyond <= EXCEEDED * span for beyond in (log(low / lowest), log(highest / high))]
    slack = exp(DRAWN * span) if lowest < highest else 1.0
    return low if near[0] else lowest / slack, high if near[1] else highest * slack
