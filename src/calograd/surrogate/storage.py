"""Surrogates on disk: one safetensors file with the weights and, in its header, everything that made them.

A folder holds ``model.safetensors``; its metadata has ``schema``, ``name``, a JSON ``card`` with architecture, trained
range, materials and the resolved training configuration, and a ``digest`` of all that and the weights, by which damage
is noticed; files of before there was one are read unchecked. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from calograd.detector.material import NUMBERS, Material, to_float
from calograd.errors import FormatError, InputError
from calograd.io.hdf5 import write_whole, writing
from calograd.nn.lora import digest
from calograd.surrogate.base import Model
from calograd.surrogate.cells.model import CellsModel, without_material_numbers
from calograd.surrogate.points.base import StackModel
from calograd.surrogate.registry import (
    DESIGN_KINDS,
    STACK_KINDS,
    DesignKind,
    StackKind,
    architecture,
    stack_architecture,
)

M = TypeVar("M", bound=nn.Module)
C = TypeVar("C", bound=BaseModel)

SCHEMA = "calograd/surrogate/2"
OLDEST = 2
"""Version from which on the coordinates are those of today."""
WEIGHTS = "model.safetensors"
ASSETS = Path(str(files("calograd") / "assets"))

Units = Literal["cm", "scaled"]
"""Of sizes: cm, or pitches in Moliere radii and depths in radiation lengths."""


class Card(BaseModel):
    """What a stored surrogate says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: DesignKind = "cells"
    """Of what it generates, see `calograd.surrogate.registry`."""
    architecture: dict[str, Any]
    energy: tuple[float, float]
    """Trained range, GeV."""
    dx: tuple[float, float]
    """Trained range, in cm or, with ``units`` scaled, in Moliere radii."""
    dz: tuple[float, float]
    """Trained range, in cm or, with ``units`` scaled, in radiation lengths."""
    units: Units = "cm"
    """Of ``dx`` and ``dz``."""
    unequal_layers: bool = False
    """Whether layers of different depths were trained on."""
    materials: Annotated[tuple[dict[str, Any], ...], Field(min_length=1)]
    """What was trained on, one or more; files of one may call it ``material``."""
    mode: str
    """``embedded`` or ``stand-alone``: what lies around the window of cells."""
    training: dict[str, Any]
    """The resolved configuration, the data's provenance and the steps done."""

    @model_validator(mode="before")
    @classmethod
    def _one_material(cls, data: Any) -> Any:
        """Cards of before there were several materials, and of adapters, name one."""
        if isinstance(data, dict) and "material" in data:
            data = {key: value for key, value in data.items() if key != "material"} | {"materials": [data["material"]]}
        return data

    @property
    def material(self) -> dict[str, Any]:
        """The only material it was trained on. Raises `InputError` if there are several."""
        if len(self.materials) > 1:
            names = ", ".join(str(m["name"]) for m in self.materials)
            raise InputError(f"{self.name} was trained on {names}; name the material (--material)")
        return self.materials[0]

    def substance(self) -> Material:
        """The only material it was trained on. Raises `InputError` if there are several."""
        return Material(**self.material)

    def substances(self) -> tuple[Material, ...]:
        """The materials it was trained on."""
        return tuple(Material(**material) for material in self.materials)

    @property
    def scales(self) -> bool:
        """Whether the networks know lengths in X0 and R_M only: what they learnt of a material holds at any density."""
        alone = len(self.materials) == 1 and not self.architecture.get("material_numbers", NUMBERS)
        return self.units == "scaled" or alone

    def in_cm(self, material: Material) -> Card:
        """The same with the trained ranges in cm, as they are for a detector of ``material``."""
        if not self.scales:
            return self
        unit_x, unit_z = to_float(material.moliere_radius), to_float(material.radiation_length)
        if self.units == "cm":
            trained = self.substance()
            unit_x, unit_z = unit_x / to_float(trained.moliere_radius), unit_z / to_float(trained.radiation_length)
            if unit_x == unit_z == 1:
                return self
        low_x, high_x, low_z, high_z = (
            size * unit for sizes, unit in ((self.dx, unit_x), (self.dz, unit_z)) for size in sizes
        )
        return self.model_copy(update={"units": "cm", "dx": (low_x, high_x), "dz": (low_z, high_z)})


class StackCard(BaseModel):
    """What a stored surrogate of a layered detector says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: StackKind
    """Of what it learns, see `calograd.surrogate.registry`."""
    architecture: dict[str, Any]
    energy: tuple[float, float]
    """Trained range, GeV."""
    detector: dict[str, Any]
    """That was simulated, see `calograd.detector.configuration.SiWStack`."""
    clustering: str
    """What a point is, see `calograd.events.clustering`."""
    training: dict[str, Any]
    """The resolved configuration, the data's provenance and the steps done."""


def save(folder: Path, model: nn.Module, card: Card | StackCard, *, compact: bool = False) -> None:
    """Write a surrogate; the file appears when it is complete.

    Args:
        folder: made if need be.
        model: the weights.
        card: what goes with them.
        compact: round the denoising networks to float16, which halves the file; location and scale, on which means
            and gradients rest, stay float32. Of cells, the numbers of a single material become part of the weights, see
            `without_material_numbers`.

    Raises:
        InputError: it cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if compact and isinstance(card, Card) and len(card.materials) == 1 and isinstance(model, CellsModel):
        model = without_material_numbers(model, card.substance())
        card = card.model_copy(update={"architecture": model.architecture.to_dict()})
    weights = {name: value.detach().contiguous().cpu() for name, value in model.state_dict().items()}
    if compact:
        weights |= {name: value.half() for name, value in weights.items() if "_network." in name}
    metadata = {"schema": SCHEMA, "name": card.name, "card": card.model_dump_json()}
    write_whole(folder / WEIGHTS, serialise(weights, metadata=sealed(weights, metadata)))


def sealed(tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> dict[str, str]:
    """Metadata with the digest of themselves and of the tensors that they go with."""
    return metadata | {"digest": _digest(tensors, metadata)}


def check_digest(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Raise `FormatError` if a file with a digest holds anything else than what was written."""
    if "digest" in metadata and metadata["digest"] != _digest(tensors, metadata):
        raise FormatError(f"{path} is damaged: its contents do not fit its digest; bring an intact copy")


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    words = (word for key in sorted(metadata) if key != "digest" for word in (key, metadata[key]))
    return digest(tensors, *words)


def locate(name_or_folder: str | Path) -> Path:
    """The weights file of a folder or of a bundled name.

    Raises:
        FormatError: neither; the bundled names are listed.
    """
    path = Path(name_or_folder)
    if path.is_dir():
        path = path / WEIGHTS
        if not path.is_file():
            raise FormatError(
                f"{path.parent} holds no {WEIGHTS}; expected a folder written by 'calograd train' or 'adapt'"
            )
        return path
    if str(name_or_folder) in bundled():
        return ASSETS / name_or_folder / WEIGHTS
    raise FormatError(f"no surrogate '{name_or_folder}': expected a folder or a bundled name ({', '.join(bundled())})")


def bundled() -> list[str]:
    """Names of the surrogates that come with the package."""
    return sorted(path.parent.name for path in ASSETS.glob(f"*/{WEIGHTS}"))


def kind_of(name_or_folder: str | Path) -> str | None:
    """What kind of surrogate a folder or bundled name holds; None where it cannot be told, as of an adapter."""
    try:
        with safe_open(locate(name_or_folder), framework="pt") as file:
            return str(_card(file.metadata())["kind"])
    except (FormatError, SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None


def load(name_or_folder: str | Path) -> tuple[Model, Card]:
    """Read a surrogate of designs.

    Raises:
        FormatError: missing, cut off, of another kind, newer, weights that do not fit their architecture or are NaN.
    """

    def make(raw: dict[str, Any]) -> tuple[Model, Card]:
        card = Card.model_validate(raw)
        card.substances()
        return architecture(card.kind, card.architecture).build(), card

    return _load(name_or_folder, DESIGN_KINDS, make)


def load_stack(name_or_folder: str | Path) -> tuple[StackModel, StackCard]:
    """Read a surrogate of a layered detector. Raises `FormatError` as `load` does."""

    def make(raw: dict[str, Any]) -> tuple[StackModel, StackCard]:
        card = StackCard.model_validate(raw)
        return stack_architecture(card.kind, card.architecture).build(), card

    return _load(name_or_folder, STACK_KINDS, make)


def _card(metadata: dict[str, str] | None) -> dict[str, Any]:
    """The card as plain data; one that does not say its kind is of cells."""
    return {"kind": "cells", **json.loads((metadata or {})["card"])}


def _load(
    name_or_folder: str | Path, kinds: tuple[str, ...], make: Callable[[dict[str, Any]], tuple[M, C]]
) -> tuple[M, C]:
    """A model of one of the kinds and its card, which ``make`` makes of a plain card, with the stored weights."""
    path = locate(name_or_folder)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            check_schema(path, metadata.get("schema"), SCHEMA, OLDEST)
            weights: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        check_digest(path, weights, metadata)
        raw = _card(metadata)
        _check_kind(path, raw["kind"], kinds)
        with torch.random.fork_rng(devices=[]):  # the first weights, which are replaced, are random
            model, card = make(raw)
        model.load_state_dict(weights)
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{path} is damaged or not a safetensors file: {error}") from error
    except (ValidationError, KeyError, TypeError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FormatError(f"{path}: card or weights do not fit this version: {reason}") from error
    if not all(bool(torch.isfinite(value).all()) for value in weights.values()):
        raise FormatError(f"{path} holds weights that are NaN or infinite; train or fetch it anew")
    return model.eval().requires_grad_(False), card


def _check_kind(path: Path, kind: object, kinds: tuple[str, ...]) -> None:
    """Raise `FormatError` for a kind that there is, but not where these are expected."""
    if kind in (*DESIGN_KINDS, *STACK_KINDS) and kind not in kinds:
        raise FormatError(f"{path} holds a surrogate of kind '{kind}', expected {' or '.join(kinds)}")


def check_schema(path: Path, schema: str | None, expected: str, oldest: int = 1) -> None:
    """Raise `FormatError` unless ``schema`` is of the kind expected and from ``oldest`` up to the version expected."""
    kind, version = expected.rsplit("/", 1)
    if schema is None or not schema.startswith(f"{kind}/"):
        what = "has no schema" if schema is None else f"has schema '{schema}'"
        raise FormatError(f"{path} {what}, expected '{expected}': it is no {kind.split('/')[1]} of calograd")
    number = schema.rsplit("/", 1)[1]
    if not number.isdecimal() or int(number) > int(version):
        raise FormatError(f"{path} has schema '{schema}', this version reads up to '{expected}'; update calograd")
    if int(number) < oldest:
        raise FormatError(f"{path} has schema '{schema}', this version reads '{expected}' only; train or fetch it anew")
