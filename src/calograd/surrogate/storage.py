"""Surrogates on disk: one safetensors file with the weights and, in its header, everything that made them.

A folder holds ``model.safetensors``. Its metadata has ``schema``, ``name``, a JSON ``card`` (`calograd.surrogate.card`)
and a ``digest`` of all that and the weights, by which damage is noticed. Nothing is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from calograd.errors import FormatError
from calograd.io.files import write_whole, writing
from calograd.nn.lora import digest
from calograd.surrogate.card import Card
from calograd.surrogate.model import Model
from calograd.surrogate.registry import architecture

SCHEMA = "calograd/surrogate/3"
WEIGHTS = "model.safetensors"
ASSETS = Path(str(files("calograd") / "assets"))


def save(folder: Path, model: Model, card: Card, *, compact: bool = False) -> None:
    """Write a surrogate; the file appears when it is complete.

    Args:
        folder: made if need be.
        model: model with the weights.
        card: card of the surrogate.
        compact: round the denoising networks to float16, which halves the file; location and scale, on which means
            and gradients rest, stay float32. The numbers of a single material become part of the weights of cells,
            see `calograd.surrogate.cells.model.without_material_numbers`.

    Raises:
        InputError: it cannot be written.
    """
    if compact:
        model = model.compact(
            card.designs.materials[0] if card.takes_design and len(card.designs.materials) == 1 else None
        )
        card = card.model_copy(update={"architecture": model.architecture.to_dict()})
    weights = {name: value.detach().contiguous().cpu() for name, value in model.state_dict().items()}
    if compact:
        weights |= {name: value.half() for name, value in weights.items() if "_network." in name}
    write_tensors(folder / WEIGHTS, weights, SCHEMA, card.name, card.model_dump_json())


def write_tensors(path: Path, tensors: Mapping[str, Tensor], schema: str, name: str, card: str) -> None:
    """Write tensors with a schema, a name, a JSON card and the digest of all that; the file appears when complete.

    Raises:
        InputError: the file cannot be written.
    """
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    metadata = with_digest(tensors, {"schema": schema, "name": name, "card": card})
    write_whole(path, serialise(dict(tensors), metadata=metadata))


def read_tensors(path: Path, schema: str, remedy: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors and metadata of a file of `write_tensors`; ``remedy`` says what to do with an older one.

    Raises:
        FormatError: a file that is damaged, of another schema, or holds weights that are NaN or infinite.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            check_schema(path, metadata.get("schema"), schema, remedy)
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{path} is damaged or not a safetensors file: {error}") from error
    if metadata != with_digest(tensors, metadata):
        raise FormatError(f"{path} is damaged: its contents do not fit its digest; bring an intact copy")
    if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
        raise FormatError(f"{path} holds weights that are NaN or infinite; {remedy}")
    return tensors, metadata


def with_digest(tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> dict[str, str]:
    """Return metadata with the digest of themselves and of the tensors that they go with."""
    words = (word for key in sorted(metadata) if key != "digest" for word in (key, metadata[key]))
    return metadata | {"digest": digest(tensors, *words)}


def locate(name_or_folder: str | Path) -> Path:
    """Return the weights file of a folder or of a bundled name.

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
    """Return the names of the surrogates that come with the package."""
    return sorted(path.parent.name for path in ASSETS.glob(f"*/{WEIGHTS}"))


@torch.inference_mode(False)
def load(name_or_folder: str | Path) -> tuple[Model, Card]:
    """Read a surrogate of any kind.

    Raises:
        FormatError: missing, cut off, older, newer, weights that do not fit their architecture or are NaN.
    """
    path = locate(name_or_folder)
    weights, metadata = read_tensors(path, SCHEMA, "train or fetch it anew")
    try:
        card = Card.model_validate_json(metadata["card"])
        with torch.random.fork_rng(devices=[]):  # the first weights, which are replaced, are random
            model = architecture(card.kind, card.architecture).build()
        model.load_state_dict(weights)
    except (ValidationError, KeyError, TypeError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FormatError(f"{path}: card or weights do not fit this version: {reason}") from error
    return model.eval().requires_grad_(False), card


def check_schema(path: Path, schema: str | None, expected: str, remedy: str) -> None:
    """Raise `FormatError` unless a file has the expected schema; ``remedy`` is what to do with an older one."""
    kind, version = expected.rsplit("/", 1)
    if schema is None or not schema.startswith(f"{kind}/"):
        what = "has no schema" if schema is None else f"has schema '{schema}'"
        raise FormatError(f"{path} {what}, expected '{expected}': it is no {kind.split('/')[1]} of calograd")
    number = schema.rsplit("/", 1)[1]
    if not number.isdecimal() or int(number) > int(version):
        raise FormatError(f"{path} has schema '{schema}', this version reads '{expected}'; update calograd")
    if int(number) < int(version):
        raise FormatError(f"{path} has schema '{schema}', this version reads '{expected}' only; {remedy}")
