"""Adapters on disk: the changes of a surrogate for a new detector, in a small file that names its base.

A folder holds ``adapter.safetensors``: the table of `calograd.nn.lora`, and in its metadata ``schema`` and a
JSON ``card`` with the plan, the base, and what the adapted surrogate is for. The base is named, and known by

    identity = SHA-256 of the weights                               of a surrogate with weights of its own
    identity = SHA-256 of (the base's identity, the adapter)        of an adapted one, so that adapters stack

On any other base an adapter is refused. (The merged weights themselves would not do: the last bits of W + BA depend on
the processor.)

Changes of the denoising networks are stored as float16. Their relative error of 2^-12 is far below the noise of few
showers, and the file is half as large. Location and scale, on which means and gradients rest, stay float32, as in
`calograd.surrogate.storage`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from calograd.errors import FormatError, InputError
from calograd.nn.lora import Method, Plan, Table, digest, merge
from calograd.surrogate.card import Card, TrainedDesigns, TrainedDetector, TrainedStacks
from calograd.surrogate.model import Model
from calograd.surrogate.storage import WEIGHTS, bundled, read_tensors, write_tensors

SCHEMA = "calograd/adapter/2"
ADAPTER = "adapter.safetensors"


class Base(BaseModel):
    """The surrogate that an adapter belongs to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    identity: str
    """SHA-256 of the base, see the module's formulas."""
    source: str = ""
    """Place of the base: a bundled name, or a folder relative to the adapter's; empty if it was never stored."""


class AdapterCard(BaseModel):
    """Card of a stored adapter: its base, its plan, its trained range and how it was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Name of the adapted surrogate."""
    base: Base
    """The surrogate that the adapter belongs to."""
    method: Method
    """Description of the changed layers, see `calograd.nn.lora.Plan`."""
    rank: int
    """r of LoRA."""
    alpha: float
    """alpha of LoRA."""
    targets: tuple[str, ...]
    """Patterns of the names of the layers that are changed."""
    energy: tuple[float, float]
    """Least and largest incident energy that the adapted surrogate is for, GeV."""
    trained: TrainedDesigns | TrainedDetector | TrainedStacks
    """Trained range of the adapted surrogate beside energies."""
    symmetric: bool = True
    """True if location and scale stay equal by symmetry, see `calograd.surrogate.model.Model.asymmetric`."""
    training: dict[str, Any]
    """The resolved configuration, the data's provenance, the losses before and after."""

    def plan(self) -> Plan:
        """Return which layers are changed, and how."""
        return Plan(self.method, self.rank, self.alpha, self.targets)

    def adapted(self, base: Card) -> Card:
        """Return the card of ``base`` with this adapter."""
        sizes = base.architecture if self.symmetric else base.architecture | {"symmetric": False}
        return Card(
            name=self.name, kind=base.kind, architecture=sizes, energy=self.energy, trained=self.trained,
            training=self.training,
        )  # fmt: skip


@dataclass(frozen=True)
class Adapter:
    """An adapter of a surrogate.

    Args:
        card: base, plan and trained range of the adapter.
        table: changes of the weights, see `calograd.nn.lora`, in the stored precision, see `pack`.
    """

    card: AdapterCard
    table: Table

    def save(self, folder: str | Path) -> Path:
        """Write ``adapter.safetensors``; the file appears when it is complete.

        Raises:
            InputError: it cannot be written.
        """
        path = Path(folder) / ADAPTER
        write_tensors(path, self.table, SCHEMA, self.card.name, self.card.model_dump_json())
        return path

    @classmethod
    def load(cls, path: str | Path) -> Adapter:
        """Read an adapter; its base is not needed for that.

        Args:
            path: its folder or file.

        Raises:
            FormatError: missing, cut off, of another kind, newer, or weights that are NaN.
        """
        path = Path(path)
        path = path / ADAPTER if path.is_dir() else path
        if not path.is_file():
            raise FormatError(f"{path} does not exist; expected an adapter, as 'calograd adapt' writes it")
        table, metadata = read_tensors(path, SCHEMA, "adapt anew")
        try:
            card = AdapterCard.model_validate_json(metadata["card"])
            card.plan()
        except (ValidationError, KeyError, InputError) as error:
            reason = " ".join(str(error).split())[:200]
            raise FormatError(f"{path}: the card does not fit this version: {reason}") from error
        return cls(card, table)

    def identity(self) -> str:
        """Return the SHA-256 of an adapted surrogate: of its base and of all that the adapter changes."""
        c = self.card
        return digest(self.table, c.base.identity, c.method, str(c.rank), repr(c.alpha), *c.targets)

    def apply(self, model: Model, card: Card, identity: str) -> tuple[Model, Card]:
        """Return model and card of an adapted surrogate; the base is unchanged and shares its other weights.

        Args:
            model, card, identity: model, card and identity of the base.

        Raises:
            InputError: this is an adapter of another base.
            FormatError: its table does not fit the base that it names.
        """
        if identity != self.card.base.identity:
            raise InputError(
                f"adapter '{self.card.name}' belongs to the base '{self.card.base.name}' "
                f"({self.card.base.identity[:12]}) and cannot be used on '{card.name}' ({identity[:12]})"
            )
        try:
            merged = merge(model if self.card.symmetric else model.asymmetric(), self.card.plan(), self.table)
        except InputError as error:
            raise FormatError(f"adapter '{self.card.name}' is damaged: {error}") from error
        return merged.eval(), self.card.adapted(card)


def pack(table: Mapping[str, Tensor]) -> Table:
    """Return a table in the precision that it is stored in."""
    return {
        name: value.detach().cpu().to(torch.float16 if "_network." in name else torch.float32).contiguous()
        for name, value in table.items()
    }


def fingerprint(model: nn.Module) -> str:
    """Return the identity of a surrogate that has weights of its own."""
    return digest(model.state_dict())


def relative_source(source: str | Path, folder: Path) -> str:
    """Return the name by which an adapter in ``folder`` knows a base that was loaded as ``source``."""
    return os.path.relpath(Path(source).resolve(), folder.resolve()) if Path(source).is_dir() else str(source)


def chain(name_or_folder: str | Path) -> tuple[str | Path, list[Adapter]]:
    """Return the base at the bottom of a folder, and the adapters on top of it in the order in which they are applied.

    Raises:
        FormatError: an adapter that cannot be used or whose base is not found.
    """
    place, adapters, seen = name_or_folder, list[Adapter](), set[Path]()
    while (folder := Path(place)).is_dir() and (folder / ADAPTER).is_file() and not (folder / WEIGHTS).is_file():
        if folder.resolve() in seen:
            raise FormatError(f"{folder} names itself as its base; adapt anew")
        seen.add(folder.resolve())
        adapters.append(Adapter.load(folder))
        place = _find(adapters[-1].card.base, folder)
    return place, adapters[::-1]


def _find(base: Base, folder: Path) -> str | Path:
    """Return the place of the base of the adapter in ``folder``: at its recorded place, or bundled under its name."""
    if base.source and (folder / base.source).is_dir():
        return folder / base.source
    for name in (base.source, base.name):
        if name in bundled():
            return name
    where = f" at {folder / base.source}" if base.source else ""
    raise FormatError(
        f"{folder}: its base '{base.name}' ({base.identity[:12]}) was not found{where}; bring it back, "
        "or use Surrogate.load(BASE).with_adapter(FOLDER)"
    )
