from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.tiny import tiny_surrogate
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from calograd.detector.design import Design
from calograd.errors import FormatError, InputError
from calograd.surrogate import Surrogate, storage
from calograd.surrogate.storage import SCHEMA, WEIGHTS, with_digest

DESIGN = Design(2.5, 6.0, n_xy=3, n_z=2)
TRAINED = {"dx": [1, 5], "dz": [4, 15], "mode": "embedded"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_surrogate().save(tmp_path / "tiny")
    return tmp_path / "tiny"


def showers(surrogate: Surrogate) -> Tensor:
    return surrogate.sample(DESIGN, 10.0, 4, generator=torch.Generator().manual_seed(1), steps=2)


def rewrite(folder: Path, change: Callable[[dict[str, Tensor], dict[str, str]], None]) -> None:
    """Change the weights and metadata of a stored surrogate."""
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        metadata, weights = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del metadata["digest"]  # which would notice it
    change(weights, metadata)
    save_file(weights, folder / WEIGHTS, metadata=with_digest(weights, metadata))


def change_card(folder: Path, **entries: object) -> None:
    def change(weights: dict[str, Tensor], metadata: dict[str, str]) -> None:
        metadata["card"] = json.dumps(json.loads(metadata["card"]) | entries)

    rewrite(folder, change)


def test_a_stored_surrogate_comes_back(folder: Path) -> None:
    original, loaded = tiny_surrogate(), Surrogate.load(folder)
    assert loaded.card == original.card
    assert torch.equal(showers(loaded), showers(original))
    assert [path.name for path in folder.iterdir()] == [WEIGHTS]
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


def test_a_large_compact_one_has_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, several, other = (tmp_path / name for name in ("whole", "several", "other"))
    tiny_surrogate().save(whole, compact=True)
    monkeypatch.setattr(storage, "PART_BYTES", 6000)
    tiny_surrogate().save(several, compact=True)
    files = sorted(several.iterdir())
    assert files[0].name == "model-2.safetensors"
    assert files[-1].name == WEIGHTS
    assert sum(path.stat().st_size for path in files) > (whole / WEIGHTS).stat().st_size
    assert Surrogate.load(several).card == Surrogate.load(whole).card
    assert torch.equal(showers(Surrogate.load(several)), showers(Surrogate.load(whole)))
    files[0].unlink()
    with pytest.raises(
        FormatError, match=r"model-2\.safetensors is missing, which holds further weights of model\.safe"
    ):
        Surrogate.load(several)
    changed = tiny_surrogate()
    for parameter in changed.model.parameters():
        parameter.data.mul_(1.5)
    changed.save(other, compact=True)
    files[0].write_bytes((other / files[0].name).read_bytes())
    with pytest.raises(FormatError, match=r"model-2\.safetensors does not belong to model\.safetensors"):
        Surrogate.load(several)


def test_a_compact_one_is_smaller_and_hardly_different(folder: Path, tmp_path: Path) -> None:
    tiny_surrogate().save(tmp_path / "compact", compact=True)
    assert (tmp_path / "compact" / WEIGHTS).stat().st_size < (folder / WEIGHTS).stat().st_size
    compact = Surrogate.load(tmp_path / "compact")
    assert {parameter.dtype for parameter in compact.model.parameters()} == {torch.float32}
    torch.testing.assert_close(showers(compact), showers(Surrogate.load(folder)), rtol=0.05, atol=0.01)


def test_loading_unpickles_nothing_and_leaves_global_random_numbers_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pickle.Unpickler", None)
    monkeypatch.setattr("torch.load", None)
    before = torch.get_rng_state()
    Surrogate.load(folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_file_can_be_read_by_everyone_the_umask_allows(folder: Path) -> None:
    other = folder / "other"
    other.touch()
    assert (folder / WEIGHTS).stat().st_mode == other.stat().st_mode


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.99])
def test_truncated_file(folder: Path, share: float) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: int(share * len(content))])
    with pytest.raises(FormatError, match=r"model\.safetensors is damaged"):
        Surrogate.load(folder)


def test_damaged_header(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[9:40] = b"#" * 31
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(FormatError, match="damaged"):
        Surrogate.load(folder)


def test_pickled_file_is_not_opened(folder: Path) -> None:
    torch.save({"a": torch.zeros(3)}, folder / WEIGHTS)
    with pytest.raises(FormatError, match="damaged or not a safetensors file"):
        Surrogate.load(folder)


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        ("calograd/surrogate/4", f"this version reads '{SCHEMA}'; update calograd"),
        ("calograd/surrogate/x", "update calograd"),
        ("calograd/surrogate/1", f"has schema 'calograd/surrogate/1', this version reads '{SCHEMA}' only; train or"),
        ("pt", "has schema 'pt', expected"),
        (None, "has no schema, expected"),
    ],
)
def test_foreign_and_newer_files(folder: Path, schema: str | None, complaint: str) -> None:
    def change(weights: dict[str, Tensor], metadata: dict[str, str]) -> None:
        del metadata["schema"]
        if schema is not None:
            metadata["schema"] = schema

    rewrite(folder, change)
    with pytest.raises(FormatError, match=complaint):
        Surrogate.load(folder)


def test_a_flipped_bit_in_weights_or_card_is_noticed(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    for place in (len(content) - 50, content.index(b"embedded") + 2):
        (folder / WEIGHTS).write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(FormatError, match=r"model\.safetensors is damaged: its contents do not fit its digest"):
            Surrogate.load(folder)


def test_a_file_without_a_digest_is_refused(folder: Path) -> None:
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        metadata, weights = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del metadata["digest"]
    save_file(weights, folder / WEIGHTS, metadata=metadata)
    with pytest.raises(FormatError, match="its contents do not fit its digest"):
        Surrogate.load(folder)


def test_nan_weights_are_refused(folder: Path) -> None:
    rewrite(folder, lambda weights, metadata: weights["shape_network.out.bias"].fill_(float("nan")))
    with pytest.raises(FormatError, match="NaN or infinite"):
        Surrogate.load(folder)


def test_missing_weights(folder: Path) -> None:
    rewrite(folder, lambda weights, metadata: weights.__delitem__("shape_network.out.bias"))
    with pytest.raises(FormatError, match=r"do not fit this version.*shape_network\.out\.bias"):
        Surrogate.load(folder)


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ({"architecture": {"n_xy": 4}}, "do not fit"),
        ({"architecture": {"schedule": "wavy"}}, "wavy"),
        ({"architecture": {"depth": 3}}, "depth"),
        ({"energy": "all"}, "energy"),
        ({"colour": "red"}, "colour"),
        ({"kind": "clouds"}, "unknown kind of surrogate 'clouds'; expected one of cells, maps, points"),
        ({"trained": TRAINED | {"materials": [{"name": "x", "density": -1, "mass_fractions": {"H": 1}}]}}, "density"),
        ({"trained": TRAINED | {"materials": [{"name": "x"}]}}, "density"),
    ],
)
def test_cards_that_do_not_fit(folder: Path, entries: dict[str, object], complaint: str) -> None:
    change_card(folder, **entries)
    with pytest.raises(FormatError, match=complaint) as refusal:
        Surrogate.load(folder)
    assert "\n" not in str(refusal.value)


def test_missing_ones_are_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no surrogate 'unheard-of': expected a folder or a bundled name"):
        Surrogate.load("unheard-of")
    with pytest.raises(FormatError, match=r"holds no model\.safetensors"):
        Surrogate.load(tmp_path)


def test_devices_that_are_not_there(folder: Path) -> None:
    for device in ("abacus", "cuda:93"):
        with pytest.raises(InputError, match=f"device '{device}' cannot be used"):
            Surrogate.load(folder, device=device)


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(InputError, match="taken cannot be written: File exists"):
        tiny_surrogate().save(tmp_path / "taken")
