"""Libraries of the energies in plates: what was written is read, whatever happened to the file is noticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.toy_library import made_up_generated, made_up_plates, plates_config, write_library, write_plates

from calograd import Material, open_library, open_plates
from calograd.errors import FormatError, InputError, OutputExistsError
from calograd.events.library import schema as layout
from calograd.events.library import writer
from calograd.events.library.schema import Provenance, pack
from calograd.events.library.writer import open_writer
from calograd.events.plates import ENERGIES, PlateShowers
from calograd.events.ragged import Deposits
from calograd.events.shards import read_showers

PROVENANCE = Provenance(plates_config(), "11.4.1", "G4EMLOW8.8 (test)")
POINTS = replace(PROVENANCE, config=plates_config(record="points"))
RECORDS = pytest.mark.parametrize("provenance", [PROVENANCE, POINTS], ids=["energies", "points"])


def assert_equal(a: PlateShowers, b: PlateShowers) -> None:
    others = b.columns()
    assert a.columns().keys() == others.keys()
    for name, values in a.columns().items():
        other = others[name]
        np.testing.assert_array_equal(values, other, err_msg=name)
        assert values.dtype == other.dtype, name


@pytest.fixture
def plates_file(tmp_path: Path) -> Path:
    return write_plates(tmp_path / "plates.h5", 60)


@pytest.fixture
def points_file(tmp_path: Path) -> Path:
    return write_plates(tmp_path / "points.h5", 60, config=POINTS.config)


def test_what_was_written_is_read(plates_file: Path) -> None:
    with open_plates(plates_file) as library:
        assert_equal(library.read(), made_up_plates(range(60)))
        assert_equal(library.read(13, 21), made_up_plates(range(13, 21)))
        assert len(library.read(5, 5)) == 0
        assert library.provenance == PROVENANCE
        assert (library.wanted, library.complete) == (None, True)
        assert [material.name for material in library.absorbers] == ["Pb", "W"]
        assert [material.name for material in library.actives] == ["lAr"]
        assert library.incidence().describe() == "e- on the axis"
        assert library.read().origin == "geant4"
        assert library.read().config["simulation"]["seed"] == 1
        assert [len(block) for block in library.blocks(1)] == [1] * 60
    with h5py.File(plates_file) as file:
        assert file.attrs["schema"] == "calograd/plates/1"
        assert file.attrs["material"] == "Pb or W / lAr"
    assert [entry.name for entry in plates_file.parent.iterdir()] == ["plates.h5"]


def test_deposits_are_read_where_they_are_asked_for(points_file: Path, plates_file: Path) -> None:
    with open_plates(points_file) as library:
        assert library.read().deposits is None
        assert_equal(library.read(), replace(made_up_plates(range(60), POINTS.config), deposits=None))
    with open_plates(points_file, deposits=True) as library:
        assert_equal(library.read(), made_up_plates(range(60), POINTS.config))
        assert_equal(library.read(13, 21), made_up_plates(range(13, 21), POINTS.config))
        assert library.read(5, 5).deposits.counts.shape == (0,)
        assert_equal(PlateShowers.concatenate(list(library.blocks(100))), library.read())
        assert 5 < len(list(library.blocks(100))) < 20
    with h5py.File(points_file) as file:
        assert file.attrs["schema"] == "calograd/plates/1"
        assert file["x"].compression == "gzip"
        assert file["deposits"][4] == 0
    with pytest.raises(InputError, match=r"plates\.h5 holds the energies of plates alone; .*--record points"):
        open_plates(plates_file, deposits=True)


def test_chosen_showers_keep_their_deposits() -> None:
    showers = made_up_plates(range(20), POINTS.config)
    for chosen in ([7, 3], slice(3, 8), showers.counts > 4):
        picked, numbers = showers.rows(chosen), np.arange(20)[chosen]
        for s, number in enumerate(numbers):
            mine, theirs = (
                of.deposits.e[of.deposits.offsets[k] : of.deposits.offsets[k + 1]]
                for of, k in ((picked, s), (showers, number))
            )
            np.testing.assert_array_equal(mine, theirs)
    assert_equal(PlateShowers.from_columns(showers.columns()), showers)


def test_layers_of_deposits_are_those_of_the_plates_they_are_nearest() -> None:
    """Deposits anywhere in an active plate, also a rounding outside of it, in thick and in thin absorbers."""
    config = plates_config(layers=(1, 9), absorber_thickness={"low": 1e-3, "high": 0.4}, gap_thickness=1e-5)
    showers = made_up_plates(range(30), config)
    faces = [config.draw_stack(i).faces() for i in range(30)]
    plates = [np.stack([each[2::3], each[3::3]], 1) for each in faces]
    rounding = 2.0**-12
    places = [np.linspace(-rounding, 1 + rounding, 5) * np.diff(each) + each[:, :1] for each in plates]
    z = np.concatenate([each.ravel() for each in places]).astype(np.float32)
    deposits = Deposits(z, z, z, z, np.concatenate([[0], np.cumsum([each.size for each in places])]))
    expected = np.concatenate([np.repeat(np.arange(len(each)), 5) for each in places])
    np.testing.assert_array_equal(showers.layers_of(deposits), expected)
    np.testing.assert_allclose(showers.middles(), np.concatenate([each.mean(1) for each in plates]), atol=1e-6)


def test_sums_and_padded_arrays() -> None:
    showers = made_up_plates(range(20))
    energies, thicknesses = showers.energies(), showers.thicknesses()
    assert energies.shape == thicknesses.shape == (20, showers.counts.max(), 3)
    for number in range(20):
        start, stop = showers.offsets[number : number + 2]
        expected = np.stack([getattr(showers, name)[start:stop] for name in ENERGIES], 1)
        np.testing.assert_array_equal(energies[number, : stop - start], expected)
        assert not energies[number, stop - start :].any()
        assert not thicknesses[number, stop - start :].any()
        assert (thicknesses[number, : stop - start, 2] == np.float32(0.4)).all()
    np.testing.assert_allclose(showers.totals, energies.sum((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(showers.visible, energies[:, :, 2].sum(1), rtol=1e-6)
    np.testing.assert_allclose(showers.leakage + showers.totals, showers.energy, rtol=1e-6)
    assert showers.incident.describe() == "e- on the axis"
    chosen = showers.rows([7, 3])
    np.testing.assert_array_equal(chosen.totals, showers.totals[[7, 3]])


@RECORDS
def test_an_unfinished_library_is_read_and_continued(tmp_path: Path, provenance: Provenance) -> None:
    config = provenance.config
    path, whole = tmp_path / "plates.h5", write_plates(tmp_path / "whole.h5", 30, config=config)
    with open_writer(path, provenance, 30) as library:
        library.add(pack(made_up_plates(range(10, 20), config), provenance))
    with open_plates(path, deposits=provenance.points) as unfinished:
        assert (unfinished.wanted, len(unfinished)) == (30, 10)
        assert_equal(unfinished.read(), made_up_plates(range(10, 20), config))
    with open_writer(path, provenance, 30) as library:
        assert library.missing() == [range(10), range(20, 30)]
        assert library.times  # nothing is said of times, which plates do not have
        for start in (20, 0):
            library.add(pack(made_up_plates(range(start, start + 10), config), provenance))
        library.finish(lambda done, of: None, threads=1)
    assert path.read_bytes() == whole.read_bytes()
    other = replace(PROVENANCE, config=plates_config(active_thickness=0.5))
    with (
        pytest.raises(OutputExistsError, match=r"made otherwise: detector.active_thickness is 0.4, not 0.5"),
        open_writer(path, other, 40, append=True),
    ):
        pass


@RECORDS
def test_an_empty_library_is_read(tmp_path: Path, provenance: Provenance) -> None:
    path = tmp_path / "plates.h5"
    with open_writer(path, provenance, 30), open_plates(path, deposits=provenance.points) as library:
        assert len(library) == 0
        assert library.read().energies().shape == (0, 0, 3)
        assert (library.read().deposits is not None) == provenance.points


@pytest.mark.parametrize("share", [0.6, 0.8, 0.95])
def test_complete_showers_of_a_cut_off_file_of_deposits_are_read(
    tmp_path: Path, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Energies of plates lie in front of the deposits, so that those of all showers are there."""
    for module in (layout, writer):
        monkeypatch.setattr(module, "CHUNK", 1 << 9)
    path = write_plates(tmp_path / "plates.h5", 600, step=200, config=POINTS.config)
    data = path.read_bytes()
    with h5py.File(path) as file:
        front = file["x"].id.get_chunk_info(0).byte_offset / len(data)
    path.write_bytes(data[: int(share * len(data))])
    with open_plates(path, recover=True, deposits=True) as library:
        assert 0 < len(library) / 600 < (share - front) / (1 - front) < len(library) / 600 + 0.2
        assert library.lost == 600 - len(library)
        assert_equal(library.read(), made_up_plates(range(len(library)), POINTS.config))


@pytest.mark.parametrize("share", [0.4, 0.6, 0.95])
def test_complete_showers_of_a_cut_off_file_are_read(
    tmp_path: Path, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (layout, writer):
        monkeypatch.setattr(module, "CHUNK", 1 << 11)
    config = plates_config(layers=(50, 60))
    path = write_plates(tmp_path / "plates.h5", 600, step=200, config=config)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(FormatError, match=r"plates\.h5 is cut off: (\d+) of 600 showers are complete; .*--recover"):
        open_plates(path)
    with open_plates(path, recover=True) as library:
        assert share - 0.3 < len(library) / 600 < share
        assert library.lost == 600 - len(library)
        assert_equal(library.read(), made_up_plates(range(len(library)), config))


def test_a_folder_is_read_as_one_if_its_detectors_are_the_same(tmp_path: Path) -> None:
    write_plates(tmp_path / "1.h5", 10)
    write_plates(tmp_path / "2.h5", 10, config=plates_config(seed=2))
    with open_plates(tmp_path) as library:
        assert library.index.tolist() == list(range(20))
        assert_equal(library.read(0, 10), made_up_plates(range(10)))
    write_plates(tmp_path / "3.h5", 10, config=plates_config(seed=3, record="points"))
    with pytest.raises(InputError, match=r"3\.h5: detector\.record is 'points', not 'energies'"):
        open_plates(tmp_path)
    (tmp_path / "3.h5").unlink()
    write_plates(tmp_path / "3.h5", 10, config=plates_config(seed=3, active="Si"))
    with pytest.raises(InputError, match=r"3\.h5: detector\.active is .*Si.*, not .*lAr.*a folder may differ in seeds"):
        open_plates(tmp_path)


def test_libraries_of_other_layouts_are_refused(tmp_path: Path, make_config) -> None:
    deposits = write_library(tmp_path / "library.h5", Provenance(make_config(1.0), "11.4.1", "none"), 10)
    plates = write_plates(tmp_path / "plates.h5", 10)
    with pytest.raises(FormatError, match=r"schema 'calograd/library/2', expected 'calograd/plates/1'"):
        open_plates(deposits)
    with pytest.raises(FormatError, match=r"schema 'calograd/plates/1', expected 'calograd/library/2'"):
        open_library(plates)
    with (
        pytest.raises(OutputExistsError, match=r"cannot be continued \(.*expected 'calograd/library/2'\)"),
        open_writer(plates, Provenance(make_config(1.0), "11.4.1", "none"), 20),
    ):
        pass


def spoil(path: Path, name: str, change: Callable[[Any], Any], unsealed: bool = True) -> None:
    """Change a dataset; ``unsealed``: as somebody would who removes the checksums."""
    with h5py.File(path, "r+") as file:
        values = change(file[name][()])
        del file[name]
        file.create_dataset(name, data=values)
        if unsealed:
            del file.attrs["digest"]


def put(value: float, at: int = 3) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values[at] = value
        return values

    return change


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("active_energy", put(-1), "active_energy of shower 1 holds NaN, infinite or negative values"),
        ("gap_thickness", put(np.nan), "gap_thickness of shower 1 holds NaN, infinite or negative values"),
        ("absorber_energy", put(0.25), "the layers of shower 1 do not fit their checksum; bring an intact copy"),
        ("absorber", put(2), "shower 3 has absorber 2, but there are 2"),
        ("active", put(-1), "shower 3 has active -1, but there are 1"),
        ("absorber", lambda values: values.astype("f4"), "absorber is of type float32, expected numbers"),
        ("active", lambda values: values[:-1], "do not fit each other; expected n"),
        ("active_energy", lambda values: values[:-1], "the offsets do not fit the layers"),
        ("energy", put(0), "the incident energy of shower 3 is not a positive number"),
        ("theta", lambda values: values[:, None], "do not fit each other"),
    ],
)
def test_damage_is_named(plates_file: Path, name: str, change: Any, words: str) -> None:
    spoil(plates_file, name, change)
    with pytest.raises(FormatError, match=words) as caught, open_plates(plates_file) as library:
        library.read()
    assert "\n" not in str(caught.value)


def test_more_layers_than_a_stack_has_are_refused(tmp_path: Path) -> None:
    showers = made_up_plates(range(5), plates_config(layers=10))
    (tmp_path / "plates.h5").write_bytes(pack(showers, PROVENANCE))
    with pytest.raises(FormatError, match="shower 0 has 10 layers, expected 1 to 9"):
        open_plates(tmp_path / "plates.h5")


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("e", put(-1), "e of shower 0 holds NaN, infinite or negative values"),
        ("x", put(np.nan), "x of shower 0 holds NaN or infinite values"),
        ("t", put(7), "the deposits of shower 0 do not fit their checksum; bring an intact copy"),
        ("z", lambda values: values[:-1], "the offsets do not fit the deposits"),
        ("deposits", put(-1), "the offsets do not fit the deposits"),
        ("deposits", lambda values: values[:-1], "do not fit each other; expected n"),
        ("deposits", lambda values: values.astype("f4"), "deposits is of type float32, expected numbers"),
    ],
)
def test_damage_to_deposits_is_named(points_file: Path, name: str, change: Any, words: str) -> None:
    spoil(points_file, name, change)
    with pytest.raises(FormatError, match=words) as caught, open_plates(points_file, deposits=True) as library:
        library.read()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x", "t", "deposits", "deposits_checksum"])
def test_no_dataset_of_deposits_may_be_missing(points_file: Path, name: str) -> None:
    with h5py.File(points_file, "r+") as file:
        del file[name]
    with pytest.raises(FormatError, match=f"lacks {name}; expected a file of schema '.*' with recorded points"):
        open_plates(points_file)


@pytest.mark.parametrize("name", [*PlateShowers.FLAT, "offsets", "theta", "absorber", "checksum"])
def test_no_dataset_may_be_missing(plates_file: Path, name: str) -> None:
    with h5py.File(plates_file, "r+") as file:
        del file[name]
    with pytest.raises(FormatError, match=f"lacks {name}; expected a file of schema 'calograd/plates/1'"):
        open_plates(plates_file)


def test_a_changed_number_is_noticed(plates_file: Path) -> None:
    spoil(plates_file, "theta", put(20), unsealed=False)
    with pytest.raises(FormatError, match="its contents do not fit its checksum"):
        open_plates(plates_file)


def test_a_configuration_of_another_detector_is_refused(plates_file: Path, make_config) -> None:
    with h5py.File(plates_file, "r+") as file:
        file.attrs["config"] = make_config(1.0).model_dump_json()
        del file.attrs["digest"]
    with pytest.raises(FormatError, match="its simulation config is not of layers of a detector"):
        open_plates(plates_file)


def test_generated_showers_are_read_as_simulated_ones_are(tmp_path: Path) -> None:
    showers, path = made_up_generated(range(12)), tmp_path / "made.h5"
    showers.write(path)
    again = read_showers(path)
    assert isinstance(again, PlateShowers)
    assert_equal(again, showers)
    assert (again.origin, again.config) == ("toy", {"model": "toy", "seed": 7})
    assert again.stacks.difference(showers.stacks) is None
    assert again.gap_material.name == "air"
    with open_plates(path) as library:
        assert [material.name for material in library.absorbers] == ["Pb", "W"]
        assert library.incidence().describe() == "e- on the axis"
        with pytest.raises(InputError, match=r"was generated by toy; the stacks of its showers are those of read"):
            _ = library.stack
    with h5py.File(path) as file:
        assert (file.attrs["schema"], file.attrs["material"]) == ("calograd/plates/1", "Pb or W / lAr")
    assert [entry.name for entry in tmp_path.iterdir()] == ["made.h5"]


def test_generated_deposits_are_read_without_times(tmp_path: Path) -> None:
    made, path = made_up_generated(range(12), POINTS.config), tmp_path / "made.h5"
    assert made.deposits is not None
    showers = replace(made, deposits=replace(made.deposits, t=None))
    showers.write(path)
    with open_plates(path, deposits=True) as library:
        assert library.provenance.points
        assert_equal(library.read(), showers)
        assert_equal(library.read(3, 7), showers.rows(slice(3, 7)))
        assert library.most_layers == showers.counts.max()
    assert read_showers(path).deposits is None
    assert_equal(read_showers(path, deposits=True), showers)
    wrong = replace(made.deposits, t=None, x=np.where(made.deposits.owner == 2, np.nan, 0))
    with pytest.raises(InputError, match="is not written: x of shower 2 holds NaN or infinite values"):
        replace(showers, deposits=wrong).write(tmp_path / "nan.h5")


def test_generated_files_are_not_taken_for_simulations(tmp_path: Path) -> None:
    path = tmp_path / "made.h5"
    made_up_generated(range(12)).write(path)
    with (
        pytest.raises(OutputExistsError, match="made otherwise: it was generated by toy, not simulated"),
        open_writer(path, PROVENANCE, 30, append=True),
    ):
        pass
    write_plates(tmp_path / "simulated.h5", 10)
    with pytest.raises(InputError, match="it was simulated, not generated as in"):
        open_plates(tmp_path)
    (tmp_path / "simulated.h5").unlink()
    made_up_generated(range(12), seed=8).write(tmp_path / "more.h5")
    with open_plates(tmp_path) as library:
        assert library.read().seed.tolist() == [7] * 12 + [8] * 12


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"active_energy": np.float32([np.nan])}, "active_energy of shower 0 holds NaN, infinite or negative values"),
        ({"absorber_energy": np.float32([-1])}, "absorber_energy of shower 0 holds NaN, infinite or negative values"),
        ({"origin": "geant4"}, "showers of Geant4 are in the library of their simulation already"),
        (
            {"actives": (Material("X", 1.0, {"Ar": 1.0}, given={"critical_energy": 0.03}),)},
            "X has a given critical_energy, which no file of plates holds",
        ),
    ],
)
def test_what_could_not_be_read_again_is_not_written(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    showers = made_up_generated(range(1))
    arrays = {name: np.resize(value, len(showers.active_energy)) for name, value in change.items() if "energy" in name}
    with pytest.raises(InputError, match=words):
        replace(showers, **(change | arrays)).write(tmp_path / "made.h5")
    with pytest.raises(InputError, match="there are no showers"):
        showers.rows(slice(0, 0)).write(tmp_path / "made.h5")
    assert not list(tmp_path.iterdir())
    showers.write(tmp_path / "made.h5")
    with pytest.raises(OutputExistsError, match="exists already"):
        showers.write(tmp_path / "made.h5")


def test_damage_of_a_generated_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "made.h5"
    made_up_generated(range(12)).write(path)
    spoil(path, "active", put(1))
    with pytest.raises(FormatError, match="shower 3 has active 1, but there are 1"):
        open_plates(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(FormatError, match=r"made\.h5 "):
        open_plates(path)
