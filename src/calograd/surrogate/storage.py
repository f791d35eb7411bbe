"""Surrogates on disk: one safetensors file with the weights and, in its header, everything that made them.

A folder holds ``model.safetensors``. Its metadata has ``schema``, ``name``, a JSON ``card`` (`calograd.surrogate.card`)
and a ``digest`` of all that and the weights, by which damage is noticed. Nothing is ever unpickled. A large surrogate
that is stored compactly has several files; the others are ``model-2.safetensors`` and so on, and the first one's
metadata has their digests (``parts``).
"""

from __future__ import annotations

import json
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
PART_BYTES = 9_000_000
"""Largest size of the weights in one file of a compact surrogate."""
ASSETS = Path(str(files("calograd") / "assets"))


def save(folder: Path, model: Model, card: Card, *, compact: bool = False) -> None:
    """Write a surrogate; the file appears when it is complete.

    Args:
        folder: made if need be.
        model: model with the weights.
        card: card of the surrogate.
        compact: round the denoising networks to float16, which halves the file; location and scale, on which means
            and gradients rest, stay float32. The numbers of a single material become part of the weights of cells,
            see `calograd.surrogate.cells.model.without_material_numbers`. More than `PART_BYTES` become several files.

    Raises:
        InputError: it cannot be written.
    """
    if compact:
        model = model.compact(card.only_material)
        card = card.model_copy(update={"architecture": model.architecture.to_dict()})
    weights = {name: value.detach().contiguous().cpu() for name, value in model.state_dict().items()}
    if compact:
        weights |= {name: value.half() for name, value in weights.items() if "_network." in name}
    most = PART_BYTES if compact else None
    write_tensors(folder / WEIGHTS, weights, SCHEMA, card.name, card.model_dump_json(), most)


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], schema: str, name: str, card: str, most: int | None = None
) -> None:
    """Write tensors with a schema, a name, a JSON card and the digest of all that; the file appears when complete.

    Args:
        path: file to write.
        tensors, schema, name, card: its contents.
        most: largest number of bytes in one file; more go to further files beside it, written before. None: no limit.

    Raises:
        InputError: the file cannot be written.
    """
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = _parts(tensors, most)
    digests = []
    for number, part in enumerate(others, 2):
        about = with_digest(part, {"schema": schema, "name": name})
        write_whole(_part_of(path, number), serialise(part, metadata=about))
        digests.append(about["digest"])
    metadata = {"schema": schema, "name": name, "card": card} | ({"parts": json.dumps(digests)} if digests else {})
    write_whole(path, serialise(first, metadata=with_digest(first, metadata)))


def _parts(tensors: Mapping[str, Tensor], most: int | None) -> list[dict[str, Tensor]]:
    """Return the tensors in their order, in parts of at most ``most`` bytes, or of one tensor that is larger."""
    parts, room = list[dict[str, Tensor]]([{}]), most
    for name, tensor in tensors.items():
        if most is not None and room is not None:
            if tensor.nbytes > room and parts[-1]:
                parts.append({})
                room = most
            room -= tensor.nbytes
        parts[-1][name] = tensor
    return parts


def _part_of(path: Path, number: int) -> Path:
    """Return the file of a further part, beside the first."""
    return path.with_stem(f"{path.stem}-{number}")


def read_tensors(path: Path, schema: str, remedy: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors and metadata of a file of `write_tensors` and of those beside it.

    Args:
        path: the first file.
        schema: schema that is expected.
        remedy: what to do with an older one.

    Raises:
        FormatError: a file that is missing, damaged, of another schema, or holds weights that are NaN or infinite.
    """
    tensors, metadata = _read_part(path, schema, remedy)
    for number, expected in enumerate(json.loads(metadata.get("parts", "[]")), 2):
        part = _part_of(path, number)
        if not part.is_file():
            raise FormatError(f"{part} is missing, which holds further weights of {path.name}; bring all files")
        further, about = _read_part(part, schema, remedy)
        if about.get("digest") != expected:
            raise FormatError(f"{part} does not belong to {path.name}; bring all files of one surrogate")
        tensors |= further
    return tensors, metadata


def _read_part(path: Path, schema: str, remedy: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors and metadata of one file; arguments and errors are those of `read_tensors`."""
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
