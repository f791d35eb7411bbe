from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers.cards import design_card
from helpers.tiny import make_plausible, tilted_surrogate
from helpers.tiny_maps import tiny_maps

from calograd import __version__
from calograd.cli import sample as command
from calograd.detector.design import Design
from calograd.detector.material import MATERIALS
from calograd.detector.particles import ParticleBeam
from calograd.errors import FormatError, InputError, OutputExistsError, RangeError
from calograd.export.graphs import example, parts
from calograd.export.runtime import OLDER, SCHEMA, OnnxSampler, open_session, run
from calograd.export.write import PARITY, Written, export
from calograd.surrogate import Surrogate
from calograd.surrogate.cells.model import CellsArchitecture, CellsModel
from calograd.surrogate.model import numbers_of
from calograd.system.random_numbers import RandomNumbers

MISSING = [name for name in ("onnx", "onnxruntime", "onnxscript") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed (extra export)")
ROOT = Path(__file__).parents[2]


FILES = ["sampler.onnx", "shape.onnx", "pattern.onnx", "decoder.onnx"]


def several_materials() -> Surrogate:
    """PbF2 and BGO, 3 x 3 x 2 cells, random weights; scaled units."""
    architecture = CellsArchitecture(
        n_xy=3, n_z=2, shape_width=12, shape_blocks=1, pattern_width=16, pattern_blocks=1, embedding=8,
        location_scale_width=8, local_units=2, material_numbers=("critical_energy",),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CellsModel(architecture).eval()
        for name, parameter in model.named_parameters():
            torch.nn.init.normal_(parameter, std=0.2 if name.endswith("weight") else 0.1)
    model.condition_mean[0], model.condition_mean[-1] = 7.0, -4.7
    materials = MATERIALS["PbF2"], MATERIALS["BGO"]
    card = design_card("tiny", architecture, materials=materials, dx=(0.5, 2.0), dz=(4.0, 15.0), units="scaled")
    return Surrogate(model.requires_grad_(False), card)


def exported(folder: Path, *arguments: str) -> dict[str, Any]:
    """The result of ``calograd export``."""
    told = folder / "made.json"
    words = [*arguments, "-o", str(folder / "made"), "--json", str(told)]
    assert CliRunner().invoke(command.export, words, catch_exceptions=False).exit_code == 0
    result: dict[str, Any] = json.loads(told.read_text())
    return result


@pytest.fixture(scope="module")
def bundled() -> Surrogate:
    return Surrogate.load("pbf2-cells")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """As people do: a bundled surrogate, with the default sampler and its 12 steps."""
    return exported(tmp_path_factory.mktemp("export"), "pbf2-cells")


@pytest.fixture(scope="module")
def sampler_file(written: dict[str, Any]) -> Path:
    return Path(written["files"][0]["path"])


@pytest.fixture(scope="module")
def student() -> Surrogate:
    """Distilled, with more than one step of the shape; takes particles."""
    made = tilted_surrogate(5, 3, distilled_steps=(4, 1), spread=0.1)
    make_plausible(made)
    return Surrogate(made.model.float(), made.card)


@pytest.fixture(scope="module")
def small_window(student: Surrogate, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The student in a window of 3 x 3 x 2 of its 5 x 5 x 3 cells."""
    folder = tmp_path_factory.mktemp("particles")
    student.save(folder / "fast")
    return exported(folder, str(folder / "fast"), "--cells", "3", "2")


@pytest.fixture(scope="module")
def particles_file(small_window: dict[str, Any]) -> Path:
    return Path(small_window["files"][0]["path"])


def changed(source: Path, target: Path, **metadata: str) -> Path:
    """A copy with other metadata."""
    import onnx

    model = onnx.load(source)
    for entry in model.metadata_props:
        entry.value = metadata.get(entry.key, entry.value)
    onnx.save(model, target)
    return target


@pytest.mark.parametrize("which", ["written", "small_window"])
def test_every_part_is_written_and_agrees_with_pytorch(which: str, request: pytest.FixtureRequest) -> None:
    files = request.getfixturevalue(which)["files"]
    assert [Path(each["path"]).name for each in files] == FILES
    for each in files:
        assert Path(each["path"]).stat().st_size == each["bytes"]
        assert 0 <= each["largest_difference"] <= PARITY[each["output"].split()[0]]


def test_metadata_has_units_ranges_version_and_sampler(sampler_file: Path) -> None:
    sampler = OnnxSampler.load(sampler_file)
    facts = sampler.metadata
    assert facts["schema"] == SCHEMA
    assert facts["calograd"] == __version__
    assert (facts["name"], facts["sampler"], facts["steps"], facts["cells"]) == (
        "pbf2-cells", "trigflow-ab2", "12", "5 5 5",
    )  # fmt: skip
    assert facts["energy_range"] == "1 100"
    assert facts["energy_unit"] == "GeV"
    assert facts["dz_unit"] == "cm"
    assert facts["inputs"].startswith("energy (n,) GeV; dx (n,) cm; dz (n, 5) cm; shape_noise (n, ")
    assert facts["output"] == "cells (n, 5, 5, 5) GeV"
    assert "particles" not in facts
    assert sampler.card.designs.material.name == "PbF2"


def test_metadata_has_particles_window_and_distilled_steps(student: Surrogate, particles_file: Path) -> None:
    facts = OnnxSampler.load(particles_file).metadata
    assert [facts[key] for key in ("sampler", "steps", "evaluations")] == ["progressive", "1", "4 1"]
    levels = [float(s) for s in facts["shape_levels"].split()]
    assert levels == pytest.approx(student.design_model.two_stage.grids(student.model.sampling_schedule())[0].tolist())
    assert (facts["particles"], facts["theta_range"], facts["cells"]) == ("22 11", "0 40", "3 3 2")
    assert facts["inputs"].startswith(
        "energy (n,) GeV; dx (n,) cm; dz (n, 2) cm; particle (n,) int64 PDG number; position (n, 2) cm; "
        "theta (n,) degrees; phi (n,) degrees; shape_noise (n, "
    )
    assert facts["output"] == "cells (n, 3, 3, 2) GeV"


def same_noise(surrogate: Surrogate, rows: int) -> tuple[torch.Generator, list[np.ndarray]]:
    """A generator, and the noise of shape and pattern that `Surrogate.sample` draws with it."""
    random = RandomNumbers.from_generator(torch.Generator().manual_seed(5), rows)
    noise = [random.normal_array(dim) for dim in surrogate.design_model.two_stage.noise_dims]
    return torch.Generator().manual_seed(5), noise


def assert_close(found: np.ndarray, expected: torch.Tensor) -> None:
    """Cells agree within rounding."""
    assert found.shape == expected.shape
    largest = expected.flatten(1).amax(1)
    assert (largest > 0).all()
    difference = (torch.from_numpy(found.copy()) - expected).abs().flatten(1).amax(1) / largest
    assert float(difference.max()) < PARITY["cells"]


@pytest.mark.parametrize("rows", [1, 3, 50])
def test_cells_agree_with_the_surrogate_for_any_number_of_rows(
    bundled: Surrogate, sampler_file: Path, rows: int
) -> None:
    """The same noise through `Surrogate.sample` and through ONNX Runtime."""
    generator, noise = same_noise(bundled, rows)
    expected = bundled.sample(Design(2.5, 6.0), 50.0, rows, generator=generator)
    one = np.ones(rows, dtype=np.float32)
    found = run(open_session(sampler_file.read_bytes(), "sampler"), {
        "energy": 50 * one, "dx": 2.5 * one, "dz": 6 * np.ones((rows, 5), np.float32),
        "shape_noise": noise[0], "pattern_noise": noise[1],
    })  # fmt: skip
    assert_close(found, expected)


def beams(rows: int) -> dict[str, np.ndarray]:
    """Photons and electrons from all sides, in cells of 2.5 cm; the first is on the axis."""
    rng, first = np.random.default_rng(0), np.arange(rows) > 0
    position = (2.5 * (rng.random((rows, 2)) - 0.5) * first[:, None]).astype(np.float32)
    theta, phi = (40 * rng.random(rows) * first).astype(np.float32), (360 * rng.random(rows)).astype(np.float32)
    return {"particle": np.where(np.arange(rows) % 2, 11, 22), "position": position, "theta": theta, "phi": phi}


def in_pytorch(student: Surrogate, rows: int) -> torch.Tensor:
    """Showers of `beams` by PyTorch."""
    generator = torch.Generator().manual_seed(5)
    return student.sample(Design(2.5, 6.0, n_xy=3, n_z=2), 50.0, rows, generator=generator, **beams(rows))


@pytest.mark.parametrize("rows", [1, 60])
def test_cells_of_particles_agree_with_the_surrogate(student: Surrogate, particles_file: Path, rows: int) -> None:
    """In the frame of the detector and the smaller window, of a distilled surrogate."""
    _, noise = same_noise(student, rows)
    expected = in_pytorch(student, rows)
    one = np.ones(rows, dtype=np.float32)
    found = run(open_session(particles_file.read_bytes(), "sampler"), {
        "energy": 50 * one, "dx": 2.5 * one, "dz": 6 * np.ones((rows, 2), np.float32), **beams(rows),
        "shape_noise": noise[0], "pattern_noise": noise[1],
    })  # fmt: skip
    assert_close(found, expected)


def test_particles_of_samples(particles_file: Path) -> None:
    """One for all or one a shower, by name or number; entries are drawn as those of `Surrogate.sample`."""
    sampler = OnnxSampler.load(particles_file)

    def sample(**beam: Any) -> np.ndarray:
        return sampler.sample(50.0, 2.5, 6.0, 4, np.random.default_rng(0), **beam)

    beam = {"particle": "e-", "position": (0.2, -0.4), "theta": 20.0, "phi": 35.0}
    every = {"particle": [11] * 4, "position": np.tile([0.2, -0.4], (4, 1)), "theta": [20.0] * 4, "phi": [35.0] * 4}
    made = sample(**beam)
    assert made.shape == (4, 3, 3, 2)
    assert np.array_equal(sample(**every), made)
    for other in ({"particle": "gamma"}, {"position": (0.1, -0.4)}, {"theta": 21.0}, {"phi": 36.0}):
        assert not np.allclose(sample(**beam | other), made)
    assert np.array_equal(sample(), sample(particle="gamma", position=(0.0, 0.0), theta=0.0, phi=0.0))
    random = RandomNumbers(int(np.random.default_rng(0).integers(2**63)), range(4))
    drawn = ParticleBeam(position="uniform").draw(torch.tensor([2.5]), random).position.numpy()
    assert np.array_equal(sample(position="uniform"), sample(position=drawn))


@pytest.mark.parametrize(
    ("beam", "error", "words"),
    [
        ({"particle": "e+"}, RangeError, "particle e. was not trained on, gamma and e- were"),
        ({"particle": "mu-"}, InputError, "particle = 'mu-': expected one of gamma, e-, e"),
        ({"position": (2.0, 0.0)}, InputError, r"outside the central cell of 2.5 cm.*it is \(-0.5, 0\) cm"),
        ({"position": (20.0, 0.0)}, InputError, "is it in mm"),
        ({"position": (1.0, 2.0, 3.0)}, InputError, r"position has shape \(3,\)"),
        ({"theta": 50.0}, RangeError, "theta = 50 degrees is outside 0 to 40"),
        ({"theta": np.ones(3)}, InputError, r"theta has shape \(3,\)"),
    ],
)
def test_particles_that_were_not_trained_are_refused(
    particles_file: Path, beam: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        OnnxSampler.load(particles_file).sample(50.0, 2.5, 6.0, 2, np.random.default_rng(0), **beam)


def test_a_sampler_of_one_beam_takes_no_particle(sampler_file: Path) -> None:
    with pytest.raises(InputError, match="pbf2-cells generates gamma on the axis alone; leave out theta"):
        OnnxSampler.load(sampler_file).sample(50.0, 2.5, 6.0, 2, np.random.default_rng(0), theta=10.0)


def alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Export this part and no other: each takes its time."""
    monkeypatch.setattr("calograd.export.write.parts", lambda *of: [part for part in parts(*of) if part.name == name])


@pytest.fixture
def written_shape(sampler_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export of the shape alone, whose graph is the one that was already made."""
    alone("shape", monkeypatch)
    content = sampler_file.with_name("shape.onnx").read_bytes()
    monkeypatch.setattr("calograd.export.write._serialised", lambda *_: content)


@pytest.fixture(scope="module")
def several() -> Surrogate:
    return several_materials()


@pytest.fixture(scope="module")
def two_steps(several: Surrogate, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """The sampler of several materials, with too few steps for a loop in the walk of the pattern."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        alone("sampler", monkeypatch)
        (written,) = export(several, tmp_path_factory.mktemp("export") / "two", steps=2)
    return written


def test_two_steps(two_steps: Written) -> None:
    """No loop in the walk of the pattern."""
    assert two_steps.difference <= PARITY["cells"]
    assert OnnxSampler.load(two_steps.path).metadata["steps"] == "2"


def test_a_distilled_surrogate_has_steps_of_its_own(student: Surrogate, tmp_path: Path) -> None:
    for options in ({"sampler": "trigflow-ab2"}, {"steps": 12}):
        with pytest.raises(InputError, match="distilled into 4 steps of the shape and 1 of the pattern"):
            export(student, tmp_path / "refused", **options)


def test_several_materials_are_an_input(several: Surrogate, two_steps: Written) -> None:
    sampler = OnnxSampler.load(two_steps.path)
    made = {
        name: sampler.sample(50.0, 2.5, 6.0, 20, np.random.default_rng(0), MATERIALS[name]) for name in ("PbF2", "BGO")
    }
    assert made["PbF2"].shape == (20, 3, 3, 2)
    assert not np.allclose(made["PbF2"], made["BGO"])
    assert sampler.metadata["dx_unit"] == "Moliere radii"
    with pytest.raises(InputError, match="name the material"):
        sampler.sample(50.0, 2.5, 6.0, 20, np.random.default_rng(0))
    for name, dx, dz in (("Fe", 2.5, 10.0), ("Si", 8.0, 60.0), ("W", 1.0, 3.0)):  # as `Surrogate` does
        with pytest.raises(RangeError, match=f"material {name} .* was not trained on") as refusal:
            sampler.sample(50.0, dx, dz, 20, np.random.default_rng(0), MATERIALS[name])
        with pytest.raises(RangeError) as same:
            several.sample(Design(dx, dz, name, n_xy=3, n_z=2), 50.0, 20)
        assert str(refusal.value) == str(same.value)
    with pytest.raises(RangeError, match="layers of different depths"):
        sampler.sample(50.0, 2.5, (6.0, 7.0), 2, np.random.default_rng(0), MATERIALS["PbF2"])


def test_one_of_several_materials_becomes_part_of_the_files(several: Surrogate, tmp_path: Path) -> None:
    """The graphs of one material are those of all with its numbers; the card is of this material in cm."""
    bgo = MATERIALS["BGO"]
    only = Surrogate(several.model, several.card.for_material(bgo))
    schedule = several.model.sampling_schedule(None, 2)
    one, many = (next(parts(surrogate, schedule, (3, 2))) for surrogate in (only, several))
    inputs = example(one, only, schedule, 8, torch.Generator().manual_seed(0))
    assert "material" not in inputs
    numbers = numbers_of(bgo, like=inputs["dx"]).expand(8, -1)
    assert torch.equal(one.module(inputs), many.module(inputs | {"material": numbers}))
    assert only.card.designs.material == bgo
    assert (only.card.designs.units, only.card.in_cm(bgo)) == ("cm", several.card.in_cm(bgo))
    with pytest.raises(RangeError, match=r"material Fe .* was not trained on.*choose one of these"):
        export(several, tmp_path / "refused", material=MATERIALS["Fe"])


def test_another_density_than_that_of_the_files_is_refused(sampler_file: Path) -> None:
    sampler, thinner = OnnxSampler.load(sampler_file), MATERIALS["PbF2"].at_density(7.0)
    with pytest.raises(InputError, match=r"exported for PbF2 of 7\.7\d* g/cm3, not PbF2 of 7 g/cm3; export it for"):
        sampler.sample(50.0, 2.5, 6.0, 2, np.random.default_rng(0), thinner)


def test_what_cannot_be_sampled_is_refused(sampler_file: Path) -> None:
    sampler, rng = OnnxSampler.load(sampler_file), np.random.default_rng(0)
    assert sampler.sample(np.array([1.0, 100.0]), 1.0, 4.0, 2, rng).shape == (2, 5, 5, 5)
    for arguments, words in (
        ((500.0, 2.5, 6.0, 2), "energy = 500 GeV is outside 1 to 100 GeV"),
        ((50.0, 0.5, 6.0, 2), "dx = 0.5 cm is outside 1 to 5 cm"),
        ((50.0, 2.5, (6.0, 6.0, 6.0, 6.0, 20.0), 2), "dz = 20 cm is outside"),
    ):
        with pytest.raises(RangeError, match=words):
            sampler.sample(*arguments, rng)
    with pytest.raises(RangeError, match=r"material PbWO4 \(8\.28 g/cm3\) was not trained on, PbF2"):
        sampler.sample(50.0, 2.5, 6.0, 2, rng, MATERIALS["PbWO4"])
    for arguments, words in (
        ((50.0, 2.5, 6.0, 0), "n = 0: expected at least 1"),
        ((float("nan"), 2.5, 6.0, 2), "energy is not a positive number"),
        ((50.0, -2.5, 6.0, 2), "dx = -2.5 cm, expected positive numbers"),
    ):
        with pytest.raises(InputError, match=words):
            sampler.sample(*arguments, rng)


def test_files_of_other_versions_and_kinds_are_refused_by_name(sampler_file: Path, tmp_path: Path) -> None:
    newer = changed(sampler_file, tmp_path / "newer.onnx", schema="calograd/onnx/4")
    with pytest.raises(FormatError, match=r"newer.onnx has schema 'calograd/onnx/4', this version reads"):
        OnnxSampler.load(newer)
    foreign = changed(sampler_file, tmp_path / "foreign.onnx", schema="other/1")
    with pytest.raises(FormatError, match=r"foreign.onnx has schema 'other/1', expected 'calograd/onnx/3'"):
        OnnxSampler.load(foreign)
    with pytest.raises(FormatError, match="holds the part 'shape', expected 'sampler'"):
        OnnxSampler.load(sampler_file.with_name("shape.onnx"))
    assert OnnxSampler.load(changed(sampler_file, tmp_path / "older.onnx", schema=OLDER)).metadata["schema"] == OLDER
    odd = changed(sampler_file, tmp_path / "odd.onnx", card="{}")
    with pytest.raises(FormatError, match="card does not fit this version"):
        OnnxSampler.load(odd)
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(sampler_file.read_bytes()[:1000])
    with pytest.raises(FormatError, match=r"cut.onnx: ONNX Runtime .* cannot read it"):
        OnnxSampler.load(cut)
    with pytest.raises(FormatError, match="does not exist"):
        OnnxSampler.load(tmp_path / "none.onnx")


def test_what_cannot_be_exported_is_refused(
    bundled: Surrogate, student: Surrogate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments, words in (
        ({"sampler": "ddpm"}, "adds noise on its way and cannot be exported"),
        ({"sampler": "euler"}, "unknown sampler 'euler'; expected one of"),
        ({"steps": 0}, "0 steps of 'trigflow-ab2': expected at least 1"),
    ):
        with pytest.raises(InputError, match=words):
            export(bundled, tmp_path / "refused", **arguments)
    with pytest.raises(InputError, match="pbf2-cells generates 5 x 5 x 5 cells alone, not 3 x 3 x 5"):
        export(bundled, tmp_path / "refused", cells=(3, 5))
    for cells in ((4, 3), (7, 3), (5, 4)):
        with pytest.raises(InputError, match=r"cells: .* an odd number of cells across, of up to 5 x 5 x 3"):
            export(student, tmp_path / "refused", cells=cells)
    with pytest.raises(InputError, match="tiny-maps generates maps; only surrogates of cells can be exported"):
        export(tiny_maps(), tmp_path / "refused")
    with pytest.raises(OutputExistsError):
        export(bundled, tmp_path)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"pip install 'calograd\[export\]'"):
        export(bundled, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


@pytest.mark.usefixtures("written_shape")
def test_a_graph_that_differs_is_not_written(
    bundled: Surrogate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calograd.export.write._difference", lambda *_: (2e-4, 1e-6))
    with pytest.raises(InputError, match=r"differs from PyTorch by 0\.0002"):
        export(bundled, tmp_path / "made")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr("calograd.export.write._difference", lambda *_: (2e-4, 6e-5))
    (written,) = export(bundled, tmp_path / "steep")  # PyTorch itself is not better known
    assert (written.difference, written.rounding) == (2e-4, 6e-5)


@pytest.mark.usefixtures("written_shape")
def test_an_export_that_is_interrupted_leaves_no_folder(bundled: Surrogate, tmp_path: Path) -> None:
    def interrupted(done: int, total: int) -> None:
        assert [path.name for path in tmp_path.glob(".made-*/made/*")] == ["shape.onnx"]
        raise KeyboardInterrupt(f"{done} of {total}")

    with pytest.raises(KeyboardInterrupt, match="1 of 1"):
        export(bundled, tmp_path / "made", progress=interrupted)
    assert not list(tmp_path.iterdir())
    export(bundled, tmp_path / "made")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_showers_are_those_of_the_surrogate(bundled: Surrogate, written: dict[str, Any], sampler_file: Path) -> None:
    assert written["model"] == "pbf2-cells"
    found = OnnxSampler.load(sampler_file).sample(50.0, 2.5, 6.0, 1000, np.random.default_rng(0)).sum((1, 2, 3))
    ours = bundled.sample(Design(2.5, 6.0), 50.0, 1000, generator=torch.Generator().manual_seed(0)).sum((1, 2, 3))
    assert abs(found.mean() - float(ours.mean())) < 6 * float(ours.std()) / 500**0.5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "made exists already"),
        (("--cells", "3", "5"), "--cells: pbf2-cells generates 5 x 5 x 5 cells alone, not 3 x 3 x 5; leave it out"),
        (("--material", "Fe"), "pbf2-cells: material Fe (7.874 g/cm3) was not trained on"),
    ],
)
def test_the_command_refuses_in_one_line(
    calograd: Callable[..., tuple[int, str, str]], tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    if not options:
        (tmp_path / "made").mkdir()
    code, _, err = calograd("export", "pbf2-cells", "-o", "made", *options)
    assert code == 2
    assert err.startswith(f"error: {words}")
    assert err.count("\n") == 1


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C++ example, where ONNX Runtime's header and library are installed (ONNXRUNTIME_ROOT or the system's)."""
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("cmake is not installed")
    build = tmp_path_factory.mktemp("build")
    root = f"-DONNXRUNTIME_ROOT={os.environ.get('ONNXRUNTIME_ROOT', '')}"
    made = subprocess.run(
        [cmake, "-S", ROOT / "examples" / "cpp", "-B", build, root], capture_output=True, text=True, check=False
    )
    if "ONNX Runtime was not found" in made.stderr:
        pytest.skip("ONNX Runtime's C header and library were not found; ONNXRUNTIME_ROOT may name their folder")
    assert made.returncode == 0, made.stderr
    subprocess.run([cmake, "--build", build], check=True, capture_output=True)
    return build / "showers"


@pytest.fixture(scope="module")
def parity(program: Path) -> Path:
    """The program that turns noise into cells through the header."""
    cache = (program.parent / "CMakeCache.txt").read_text()
    include, library, compiler = (
        re.search(rf"^{name}:\w+=(.+)$", cache, re.MULTILINE)[1]  # type: ignore[index]
        for name in ("ONNXRUNTIME_INCLUDE_DIR", "ONNXRUNTIME_LIBRARY", "CMAKE_CXX_COMPILER")
    )
    made = program.with_name("parity")
    subprocess.run(
        [compiler, "-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'examples' / 'cpp'}", f"-I{include}",
         ROOT / "tests" / "export" / "parity.cpp", library, f"-Wl,-rpath,{Path(library).parent}", "-o", made],
        check=True,
    )  # fmt: skip
    return made


def test_cpp_makes_the_cells_of_pytorch(parity: Path, bundled: Surrogate, sampler_file: Path) -> None:
    """The same noise through the header and through `Surrogate.sample`."""
    generator, noise = same_noise(bundled, 20)
    run = subprocess.run(
        [parity, sampler_file, "20", "50", "2.5", "6"], input=b"".join(n.tobytes() for n in noise), capture_output=True,
        check=True,
    )  # fmt: skip
    expected = bundled.sample(Design(2.5, 6.0), 50.0, 20, generator=generator)
    assert_close(np.frombuffer(run.stdout, dtype=np.float32).reshape(20, 5, 5, 5), expected)


def test_cpp_makes_the_cells_of_particles(parity: Path, student: Surrogate, particles_file: Path) -> None:
    """Those of `Surrogate.sample` in the same windows."""
    (_, noise), beam, design = same_noise(student, 40), beams(40), Design(2.5, 6.0, n_xy=3, n_z=2)
    columns = [column.astype(np.float32).reshape(40, -1) for column in beam.values()]
    run = subprocess.run(
        [parity, particles_file, "40", "50", "2.5", "6"], capture_output=True, check=True,
        input=b"".join(n.tobytes() for n in (*noise, np.hstack(columns))),
    )  # fmt: skip
    found = np.frombuffer(run.stdout, dtype=np.float32)
    cells, offsets = found[: 40 * 18].reshape(40, 3, 3, 2), found[40 * 18 :].reshape(40, 2, 2)
    assert_close(cells, in_pytorch(student, 40))
    expected = design.window_offsets(beam["position"], torch.from_numpy(beam["theta"]), torch.from_numpy(beam["phi"]))
    assert np.array_equal(offsets, expected)
    assert offsets.any()


def call(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_the_cpp_example(program: Path, sampler_file: Path, tmp_path: Path) -> None:
    made = call(program, sampler_file, 50, 2.5, 6, 500)
    assert made.returncode == 0, made.stderr
    layers = [float(line.split()[2]) for line in made.stdout.splitlines() if line.startswith("layer")]
    ours = OnnxSampler.load(sampler_file).sample(50.0, 2.5, 6.0, 500, np.random.default_rng(0)).sum((1, 2))
    error = ours.std(0) / 500**0.5
    assert np.abs(np.array(layers) - ours.mean(0)).max() < 6 * error.max() + 1e-4
    newer = call(program, changed(sampler_file, tmp_path / "newer.onnx", schema="calograd/onnx/4"), 50, 2.5, 6)
    assert "has schema 'calograd/onnx/4', this program reads 'calograd/onnx/3'" in newer.stderr


def test_the_cpp_example_names_what_was_not_trained(program: Path, sampler_file: Path, particles_file: Path) -> None:
    refused = call(program, sampler_file, 500, 2.5, 6)
    assert (refused.returncode, refused.stderr) == (2, "error: pbf2-cells: energy = 500 GeV is outside 1 to 100 GeV\n")
    assert call(program, particles_file, 50, 2.5, 6, 10, 1, 11, 0.2, -0.4, 20, 35).returncode == 0
    alone, trained = (
        "knows the particles alone that it was trained on; leave them out",
        "was not trained on; expected the",
    )
    outside = (
        "is outside the central cell of 2.5 cm; expected coordinates in cm from the middle of the cell that is hit"
    )
    for file, beam, words in (
        (sampler_file, (22, 0, 0, 10, 0), f"pbf2-cells {alone}"),
        (particles_file, (-11, 0, 0, 0, 0), f"tilted: particle -11 {trained} PDG number 22 or 11"),
        (particles_file, (22, 2, 0, 0, 0), f"tilted: position = (2, 0) cm {outside}"),
        (particles_file, (22, 0, 0, 50, 0), "tilted: theta = 50 degrees is outside 0 to 40 degrees"),
        (particles_file, (22, 0, 0, 0, "nan"), "tilted: phi is not a finite number of degrees"),
    ):
        refused = call(program, file, 50, 2.5, 6, 10, 1, *beam)
        assert (refused.returncode, refused.stderr) == (2, f"error: {words}\n")
