from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.tiny import tiny_surrogate
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from calograd.detector.design import Design
from calograd.detector.material import MATERIALS
from calograd.errors import FormatError, InputError, RangeError
from calograd.nn.lora import Method, Plan, shapes
from calograd.surrogate import Adapter, Surrogate, TrainedDesigns
from calograd.surrogate.adapters import ADAPTER, SCHEMA, AdapterCard, Base, chain, pack, relative_source
from calograd.surrogate.cells.model import CellsArchitecture, CellsModel
from calograd.surrogate.storage import with_digest

METHODS: tuple[Method, ...] = ("lora", "bitfit", "full")
DESIGN = Design(2.5, 6.0, material="PbWO4", n_xy=3, n_z=2)


def made_up_adapter(
    base: Surrogate, method: Method = "lora", seed: int = 1, source: str = "", name: str = "new"
) -> Adapter:
    """For PbWO4 at 2 to 50 GeV."""
    plan, generator = Plan(method, rank=2), torch.Generator().manual_seed(seed)
    table = {n: 0.1 * torch.randn(shape, generator=generator) for n, shape in shapes(base.model, plan).items()}
    card = AdapterCard(
        name=name, base=Base(name=base.card.name, identity=base.identity, source=source), method=method, rank=2,
        alpha=16.0, targets=("*",), energy=(2, 50), training={"done": {"step": 3}},
        trained=TrainedDesigns(dx=(2, 3), dz=(5, 7), materials=(MATERIALS["PbWO4"],), mode="stand-alone"),
    )  # fmt: skip
    return Adapter(card, pack(table))


def showers(surrogate: Surrogate, design: Design = DESIGN) -> Tensor:
    return surrogate.sample(design, 10.0, 4, generator=torch.Generator().manual_seed(1), steps=2)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A base and an adapter of it, stored side by side."""
    tiny_surrogate().save(tmp_path / "base")
    base = Surrogate.load(tmp_path / "base")
    source = relative_source(base.source, tmp_path / "new")
    made_up_adapter(base, source=source).save(tmp_path / "new")
    return tmp_path / "base", tmp_path / "new"


def rewrite(folder: Path, change: Callable[[dict[str, Tensor], dict[str, str]], None]) -> None:
    with safe_open(folder / ADAPTER, framework="pt") as file:
        metadata, table = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del metadata["digest"]  # which would notice it
    change(table, metadata)
    save_file(table, folder / ADAPTER, metadata=with_digest(table, metadata))


def change_card(folder: Path, **entries: object) -> None:
    def change(table: dict[str, Tensor], metadata: dict[str, str]) -> None:
        metadata["card"] = json.dumps(json.loads(metadata["card"]) | entries)

    rewrite(folder, change)


@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_comes_back_bit_for_bit(tmp_path: Path, method: Method) -> None:
    base = tiny_surrogate()
    adapter = made_up_adapter(base, method)
    assert adapter.save(tmp_path / "new") == tmp_path / "new" / ADAPTER
    assert [path.name for path in (tmp_path / "new").iterdir()] == [ADAPTER]
    for place in (tmp_path / "new", tmp_path / "new" / ADAPTER):
        loaded = Adapter.load(place)
        assert loaded.card == adapter.card
        assert loaded.identity() == adapter.identity()
        assert torch.equal(showers(base.with_adapter(loaded)), showers(base.with_adapter(adapter)))
    assert torch.equal(showers(base.with_adapter(tmp_path / "new")), showers(base.with_adapter(adapter)))


def test_denoisers_are_stored_in_half_precision_and_moments_in_full() -> None:
    types = {name: value.dtype for name, value in made_up_adapter(tiny_surrogate()).table.items()}
    assert types["pattern_network.into.a"] == torch.float16
    assert types["pattern_location_scale.network.0.b"] == torch.float32


@pytest.mark.parametrize("architecture", [CellsArchitecture(), CellsArchitecture(shape_width=256, shape_blocks=5)])
def test_the_default_adapter_is_below_a_megabyte(tmp_path: Path, architecture: CellsArchitecture) -> None:
    model = CellsModel(architecture).requires_grad_(False)
    tiny = tiny_surrogate()
    base = Surrogate(model, tiny.card.model_copy(update={"architecture": architecture.to_dict()}))
    table = {name: torch.zeros(shape) for name, shape in shapes(model, Plan()).items()}
    path = replace(made_up_adapter(tiny), table=pack(table)).save(tmp_path)
    assert path.stat().st_size < 1e6
    assert base.identity != tiny.identity


def test_the_base_stays_and_the_adapted_one_is_for_the_new_detector() -> None:
    base = tiny_surrogate()
    weights = {name: value.clone() for name, value in base.model.state_dict().items()}
    before, pbf2 = showers(base, Design(2.5, 6.0, n_xy=3, n_z=2)), Design(2.5, 6.0, n_xy=3, n_z=2)
    adapted = base.with_adapter(made_up_adapter(base))
    for name, value in base.model.state_dict().items():
        assert torch.equal(value, weights[name]), name
    assert torch.equal(showers(base, pbf2), before)
    assert base.card == tiny_surrogate().card
    assert (adapted.card.name, adapted.card.designs.mode, adapted.card.energy) == ("new", "stand-alone", (2, 50))
    assert adapted.card.architecture == base.card.architecture
    showers(adapted)
    with pytest.raises(RangeError, match=r"new: material PbF2 \(7.77 g/cm3\) was not trained on, PbWO4"):
        showers(adapted, pbf2)
    with pytest.raises(RangeError, match="new: dx = 4 cm is outside 2 to 3 cm"):
        showers(adapted, Design(4.0, 6.0, material="PbWO4", n_xy=3, n_z=2))
    with pytest.raises(RangeError, match="tiny: material PbWO4"):
        showers(base)


def test_gradients_reach_the_design_through_merged_weights() -> None:
    base = tiny_surrogate()
    adapted = base.with_adapter(made_up_adapter(base))
    dx = torch.tensor(2.5, requires_grad=True)
    showers(adapted, Design(dx, 6.0, material="PbWO4", n_xy=3, n_z=2)).sum().backward()
    assert dx.grad is not None
    assert torch.isfinite(dx.grad)
    assert not any(parameter.requires_grad for parameter in adapted.model.parameters())


def test_a_folder_finds_its_base_wherever_both_are_moved(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, new = folders
    expected = showers(Surrogate.load(base).with_adapter(new))
    loaded = Surrogate.load(new)
    assert torch.equal(showers(loaded), expected)
    assert (loaded.card.name, loaded.source) == ("new", str(new))
    (tmp_path / "moved").mkdir()
    for folder in (base, new):
        shutil.move(folder, tmp_path / "moved" / folder.name)
    monkeypatch.chdir(tmp_path / "moved" / "new")
    assert torch.equal(showers(Surrogate.load(tmp_path / "moved" / "new")), expected)
    assert torch.equal(showers(Surrogate.load(".")), expected)


def test_a_base_by_its_bundled_name(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, new = folders
    assert relative_source("pbf2-cells", new) == "pbf2-cells"
    expected = showers(Surrogate.load(new))
    monkeypatch.setattr("calograd.surrogate.storage.ASSETS", tmp_path / "assets")
    shutil.move(base, tmp_path / "assets" / "tiny")
    assert torch.equal(showers(Surrogate.load(new)), expected)  # by the base's name, as its folder is gone
    change_card(new, base=json.loads(_metadata(new)["card"])["base"] | {"source": "tiny"})
    assert torch.equal(showers(Surrogate.load(new)), expected)


def _metadata(folder: Path) -> dict[str, str]:
    with safe_open(folder / ADAPTER, framework="pt") as file:
        metadata: dict[str, str] = file.metadata()
    return metadata


def test_adapters_stack(folders: tuple[Path, Path], tmp_path: Path) -> None:
    _, new = folders
    first = Surrogate.load(new)
    second = made_up_adapter(
        first, "bitfit", seed=2, source=relative_source(first.source, tmp_path / "top"), name="top"
    )
    second.save(tmp_path / "top")
    loaded = Surrogate.load(tmp_path / "top")
    assert torch.equal(showers(loaded), showers(first.with_adapter(second)))
    assert [adapter.card.name for adapter in loaded.adapters] == ["new", "top"]
    assert loaded.identity == second.identity()
    assert [adapter.card.name for adapter in chain(tmp_path / "top")[1]] == ["new", "top"]
    with pytest.raises(InputError, match="adapter 'top' belongs to the base 'new'"):
        Surrogate.load(folders[0]).with_adapter(second)


def test_a_merged_copy_needs_no_base(folders: tuple[Path, Path], tmp_path: Path) -> None:
    adapted = Surrogate.load(folders[1])
    adapted.save(tmp_path / "alone")
    shutil.rmtree(folders[0])
    alone = Surrogate.load(tmp_path / "alone")
    assert torch.equal(showers(alone), showers(adapted))
    assert alone.card == adapted.card
    assert alone.adapters == ()


def test_another_base_is_refused() -> None:
    base, other = tiny_surrogate(), tiny_surrogate(seed=1)
    adapter = made_up_adapter(base)
    assert other.identity != base.identity
    complaint = rf"adapter 'new' belongs to the base 'tiny' \({base.identity[:12]}\) and cannot be used on 'tiny' \("
    with pytest.raises(InputError, match=complaint + other.identity[:12]) as refusal:
        other.with_adapter(adapter)
    assert "\n" not in str(refusal.value)


def test_a_base_that_differs_in_one_bit_is_another(folders: tuple[Path, Path]) -> None:
    base, new = folders
    changed = Surrogate.load(base)
    weight = changed.model.pattern_network.out.bias
    weight[0] = weight[0].nextafter(torch.tensor(9.0))
    changed.save(base)
    with pytest.raises(InputError, match="belongs to the base 'tiny'"):
        Surrogate.load(new)


def test_a_base_that_is_gone(folders: tuple[Path, Path]) -> None:
    base, new = folders
    shutil.rmtree(base)
    with pytest.raises(FormatError, match=r"its base 'tiny' \(.*\) was not found at .*base; bring it back"):
        Surrogate.load(new)
    change_card(new, base={"name": "tiny", "identity": "0" * 64, "source": ""})
    with pytest.raises(FormatError, match="was not found; bring it back, or use"):
        Surrogate.load(new)


def test_an_adapter_that_names_itself_as_its_base(folders: tuple[Path, Path]) -> None:
    change_card(folders[1], base={"name": "new", "identity": "0" * 64, "source": "../new"})
    with pytest.raises(FormatError, match="names itself as its base"):
        Surrogate.load(folders[1])


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.99])
def test_truncated_file(folders: tuple[Path, Path], share: float) -> None:
    path = folders[1] / ADAPTER
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(FormatError, match=r"adapter\.safetensors is damaged"):
        Surrogate.load(folders[1])


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        ("calograd/adapter/3", f"this version reads '{SCHEMA}'; update calograd"),
        ("calograd/surrogate/1", "expected 'calograd/adapter/2': it is no adapter of calograd"),
        (None, "has no schema, expected"),
    ],
)
def test_foreign_and_newer_files(folders: tuple[Path, Path], schema: str | None, complaint: str) -> None:
    def change(table: dict[str, Tensor], metadata: dict[str, str]) -> None:
        del metadata["schema"]
        if schema is not None:
            metadata["schema"] = schema

    rewrite(folders[1], change)
    with pytest.raises(FormatError, match=complaint):
        Adapter.load(folders[1])


@pytest.mark.parametrize("entries", [{"rank": 0}, {"method": "dora"}, {"alpha": -1.0}, {"surprise": 1}, {"base": {}}])
def test_cards_that_do_not_fit(folders: tuple[Path, Path], entries: dict[str, object]) -> None:
    change_card(folders[1], **entries)
    with pytest.raises(FormatError, match="the card does not fit this version"):
        Adapter.load(folders[1])


def test_damaged_tables(folders: tuple[Path, Path]) -> None:
    def spoil(table: dict[str, Tensor], metadata: dict[str, str]) -> None:
        table["pattern_network.out.b"][0] = float("nan")

    def cut(table: dict[str, Tensor], metadata: dict[str, str]) -> None:
        del table["pattern_network.out.b"]

    for change, complaint in ((spoil, "NaN or infinite"), (cut, "adapter 'new' is damaged: .*pattern_network.out.b")):
        rewrite(folders[1], change)
        with pytest.raises(FormatError, match=complaint):
            Surrogate.load(folders[1])


def test_a_flipped_bit_is_noticed(folders: tuple[Path, Path]) -> None:
    path = folders[1] / ADAPTER
    content = path.read_bytes()
    path.write_bytes(content[:-50] + bytes([content[-50] ^ 1]) + content[-49:])
    with pytest.raises(FormatError, match=r"adapter\.safetensors is damaged: its contents do not fit its digest"):
        Adapter.load(path)


def test_a_path_without_an_adapter(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="does not exist; expected an adapter"):
        tiny_surrogate().with_adapter(tmp_path)
