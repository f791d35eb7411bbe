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
from helpers.cards import design_card
from helpers.tiny_maps import tiny_maps

from calograd import __version__
from calograd.detector.design import Design
from calograd.detector.material import MATERIALS
from calograd.errors import FormatError, InputError, OutputExistsError, RangeError
from calograd.export.graphs import parts
from calograd.export.runtime import SCHEMA, OnnxSampler, open_session, run
from calograd.export.write import PARITY, Written, export
from calograd.surrogate import Surrogate
from calograd.surrogate.cells.coordinates import pattern_dim, shape_dim
from calograd.surrogate.cells.model import CellsArchitecture, CellsModel
from calograd.system.random_numbers import RandomNumbers

MISSING = [name for name in ("onnx", "onnxruntime", "onnxscript") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed (extra export)")
ROOT = Path(__file__).parents[2]


def tiny_surrogate(*materials: str, sums: bool = False, distilled_steps: tuple[int, int] | None = None) -> Surrogate:
    """3 x 3 x 2 cells, random weights; scaled units where there are several materials."""
    several = len(materials) > 1
    architecture = CellsArchitecture(
        n_xy=3, n_z=2, shape_width=12, shape_blocks=1, pattern_width=16, pattern_blocks=1, embedding=8,
        location_scale_width=8, local_units=2, sums=sums, ends=sums, material_numbers=("critical_energy",),
        distilled_steps=distilled_steps,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CellsModel(architecture).eval()
        for name, parameter in model.named_parameters():
            torch.nn.init.normal_(parameter, std=0.2 if name.endswith("weight") else 0.1)
    model.condition_mean[0], model.condition_mean[-1] = 7.0, -4.7
    sizes = {"dx": (0.5, 2.0), "dz": (4.0, 15.0), "units": "scaled"} if several else {"dx": (1, 5), "dz": (4, 15)}
    card = design_card("tiny", architecture, materials=tuple(MATERIALS[name] for name in materials), **sizes)
    return Surrogate(model.requires_grad_(False), card)


@pytest.fixture(scope="module")
def tiny() -> Surrogate:
    return tiny_surrogate("PbF2")


@pytest.fixture(scope="module")
def written(tiny: Surrogate, tmp_path_factory: pytest.TempPathFactory) -> list[Written]:
    """With steps enough for a loop in both walks."""
    return export(tiny, tmp_path_factory.mktemp("export") / "tiny", steps=5)


@pytest.fixture(scope="module")
def sampler_file(written: list[Written]) -> Path:
    return written[0].path


def changed(source: Path, target: Path, **metadata: str) -> Path:
    """A copy with other metadata."""
    import onnx

    model = onnx.load(source)
    for entry in model.metadata_props:
        entry.value = metadata.get(entry.key, entry.value)
    onnx.save(model, target)
    return target


def test_every_part_is_written_and_agrees_with_pytorch(written: list[Written]) -> None:
    assert [w.path.name for w in written] == ["sampler.onnx", "shape.onnx", "pattern.onnx", "decoder.onnx"]
    for each in written:
        assert each.path.stat().st_size == each.size
        assert 0 <= each.difference <= PARITY[each.part.output.name]


def test_metadata_has_units_ranges_version_and_sampler(sampler_file: Path) -> None:
    sampler = OnnxSampler.load(sampler_file)
    facts = sampler.metadata
    assert facts["schema"] == SCHEMA
    assert facts["calograd"] == __version__
    assert (facts["sampler"], facts["steps"], facts["cells"]) == ("trigflow-ab2", "5", "3 3 2")
    assert facts["energy_range"] == "1 100"
    assert facts["energy_unit"] == "GeV"
    assert facts["dz_unit"] == "cm"
    assert facts["inputs"].startswith("energy (n,) GeV; dx (n,) cm; dz (n, 2) cm; shape_noise (n, ")
    assert facts["output"] == "cells (n, 3, 3, 2) GeV"
    assert sampler.card.designs.material.name == "PbF2"


def assert_same_cells(surrogate: Surrogate, session: Any, rows: int, **how: Any) -> None:
    """The same noise through `Surrogate.sample` and through ONNX Runtime."""
    generator = torch.Generator().manual_seed(5)
    random = RandomNumbers.from_generator(generator, rows)
    noise = [random.normal_array(dim) for dim in (shape_dim(3, 2), pattern_dim(3, 2))]
    expected = surrogate.sample(Design(2.5, 6.0, n_xy=3, n_z=2), 50.0, rows, generator=generator.manual_seed(5), **how)
    one = np.ones(rows, dtype=np.float32)
    found = run(session, {
        "energy": 50 * one, "dx": 2.5 * one, "dz": np.stack([6 * one, 6 * one], 1),
        "shape_noise": noise[0], "pattern_noise": noise[1],
    })  # fmt: skip
    largest = expected.flatten(1).amax(1).numpy()
    assert (np.abs(found - expected.numpy()).max((1, 2, 3)) < PARITY["cells"] * largest).all()
    assert found.shape == (rows, 3, 3, 2)


@pytest.mark.parametrize("rows", [1, 3, 50])
def test_cells_agree_with_the_surrogate_for_any_number_of_rows(tiny: Surrogate, sampler_file: Path, rows: int) -> None:
    assert_same_cells(tiny, open_session(sampler_file.read_bytes(), "sampler"), rows, steps=5)


def alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Export this part and no other: each takes its time."""
    monkeypatch.setattr("calograd.export.write.parts", lambda *of: [part for part in parts(*of) if part.name == name])


@pytest.fixture
def written_shape(written: list[Written], monkeypatch: pytest.MonkeyPatch) -> None:
    """An export of the shape alone, whose graph is the one that was already made."""
    alone("shape", monkeypatch)
    content = next(each.path.read_bytes() for each in written if each.part.name == "shape")
    monkeypatch.setattr("calograd.export.write._serialised", lambda *_: content)


@pytest.fixture(scope="module")
def several() -> Surrogate:
    return tiny_surrogate("PbF2", "BGO")


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


def test_a_distilled_surrogate_is_exported_with_its_steps(
    calograd: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """Noise and conditions in, the cells of `Surrogate.sample` out; more than one step of the shape."""
    student = tiny_surrogate("PbF2", sums=True, distilled_steps=(4, 1))
    student.save(tmp_path / "fast")
    code, _, err = calograd("export", "fast", "-o", "made", "--json", "made.json")
    assert code == 0, err
    files = json.loads((tmp_path / "made.json").read_text())["files"]
    assert [Path(each["path"]).name for each in files] == ["sampler.onnx", "shape.onnx", "pattern.onnx", "decoder.onnx"]
    assert all(each["largest_difference"] <= PARITY[each["output"].split()[0]] for each in files)
    sampler = OnnxSampler.load(tmp_path / "made" / "sampler.onnx")
    assert [sampler.metadata[key] for key in ("sampler", "steps", "evaluations")] == ["progressive", "1", "4 1"]
    levels = [float(s) for s in sampler.metadata["shape_levels"].split()]
    assert levels == pytest.approx(student.model.grids(student.model.sampling_schedule())[0].tolist())
    session = open_session((tmp_path / "made" / "sampler.onnx").read_bytes(), "sampler")
    assert_same_cells(student, session, rows=20)
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


def test_what_cannot_be_sampled_is_refused(sampler_file: Path) -> None:
    sampler, rng = OnnxSampler.load(sampler_file), np.random.default_rng(0)
    assert sampler.sample(np.array([1.0, 100.0]), 1.0, 4.0, 2, rng).shape == (2, 3, 3, 2)
    for arguments, words in (
        ((500.0, 2.5, 6.0, 2), "energy = 500 GeV is outside 1 to 100 GeV"),
        ((50.0, 0.5, 6.0, 2), "dx = 0.5 cm is outside 1 to 5 cm"),
        ((50.0, 2.5, (6.0, 20.0), 2), "dz = 20 cm is outside"),
        ((50.0, 2.5, (6.0, 7.0), 2), "layers of different depths"),
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
    newer = changed(sampler_file, tmp_path / "newer.onnx", schema="calograd/onnx/3")
    with pytest.raises(FormatError, match=r"newer.onnx has schema 'calograd/onnx/3', this version reads"):
        OnnxSampler.load(newer)
    foreign = changed(sampler_file, tmp_path / "foreign.onnx", schema="other/1")
    with pytest.raises(FormatError, match=r"foreign.onnx has schema 'other/1', expected 'calograd/onnx/2'"):
        OnnxSampler.load(foreign)
    with pytest.raises(FormatError, match="holds the part 'shape', expected 'sampler'"):
        OnnxSampler.load(sampler_file.with_name("shape.onnx"))
    odd = changed(sampler_file, tmp_path / "odd.onnx", card="{}")
    with pytest.raises(FormatError, match="card does not fit this version"):
        OnnxSampler.load(odd)
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(sampler_file.read_bytes()[:1000])
    with pytest.raises(FormatError, match=r"cut.onnx: ONNX Runtime .* cannot read it"):
        OnnxSampler.load(cut)
    with pytest.raises(FormatError, match="does not exist"):
        OnnxSampler.load(tmp_path / "none.onnx")


def test_what_cannot_be_exported_is_refused(tiny: Surrogate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, words in (
        ({"sampler": "ddpm"}, "adds noise on its way and cannot be exported"),
        ({"sampler": "euler"}, "unknown sampler 'euler'; expected one of"),
        ({"steps": 0}, "0 steps of 'trigflow-ab2': expected at least 1"),
    ):
        with pytest.raises(InputError, match=words):
            export(tiny, tmp_path / "refused", **arguments)
    with pytest.raises(InputError, match="tiny-maps generates maps; only surrogates of cells can be exported"):
        export(tiny_maps(), tmp_path / "refused")
    with pytest.raises(OutputExistsError):
        export(tiny, tmp_path)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"pip install 'calograd\[export\]'"):
        export(tiny, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


@pytest.mark.usefixtures("written_shape")
def test_a_graph_that_differs_is_not_written(tiny: Surrogate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calograd.export.write._difference", lambda *_: (2e-4, 1e-6))
    with pytest.raises(InputError, match=r"differs from PyTorch by 0\.0002"):
        export(tiny, tmp_path / "made", steps=5)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr("calograd.export.write._difference", lambda *_: (2e-4, 6e-5))
    (written,) = export(tiny, tmp_path / "steep", steps=5)  # PyTorch itself is not better known
    assert (written.difference, written.rounding) == (2e-4, 6e-5)


@pytest.mark.usefixtures("written_shape")
def test_an_export_that_is_interrupted_leaves_no_folder(tiny: Surrogate, tmp_path: Path) -> None:
    def interrupted(done: int, total: int) -> None:
        assert [path.name for path in tmp_path.glob(".made-*/made/*")] == ["shape.onnx"]
        raise KeyboardInterrupt(f"{done} of {total}")

    with pytest.raises(KeyboardInterrupt, match="1 of 1"):
        export(tiny, tmp_path / "made", steps=5, progress=interrupted)
    assert not list(tmp_path.iterdir())
    export(tiny, tmp_path / "made", steps=5)
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_the_command_writes_the_bundled_surrogate(
    calograd: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """As people do: with the default sampler and its 12 steps."""
    code, _, err = calograd("export", "pbf2-cells", "-o", "made", "--json", "made.json")
    assert code == 0, err
    result = json.loads((tmp_path / "made.json").read_text())
    assert result["model"] == "pbf2-cells"
    limits = [PARITY[each["output"].split()[0]] for each in result["files"]]
    assert all(each["largest_difference"] <= limit for each, limit in zip(result["files"], limits, strict=True))
    sampler = OnnxSampler.load(tmp_path / "made" / "sampler.onnx")
    assert sampler.metadata["steps"] == "12"
    found = sampler.sample(50.0, 2.5, 6.0, 1000, np.random.default_rng(0)).sum((1, 2, 3))
    generator = torch.Generator().manual_seed(0)
    ours = Surrogate.load("pbf2-cells").sample(Design(2.5, 6.0), 50.0, 1000, generator=generator).sum((1, 2, 3))
    assert abs(found.mean() - float(ours.mean())) < 6 * float(ours.std()) / 500**0.5
    code, _, err = calograd("export", "pbf2-cells", "-o", "made")
    assert code == 2
    assert err.startswith("error: made exists already")


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


def test_cpp_makes_the_cells_of_pytorch(program: Path, tiny: Surrogate, sampler_file: Path, tmp_path: Path) -> None:
    """The same noise through the header and through `Surrogate.sample`."""
    cache = (program.parent / "CMakeCache.txt").read_text()
    include, library, compiler = (
        re.search(rf"^{name}:\w+=(.+)$", cache, re.MULTILINE)[1]  # type: ignore[index]
        for name in ("ONNXRUNTIME_INCLUDE_DIR", "ONNXRUNTIME_LIBRARY", "CMAKE_CXX_COMPILER")
    )
    made = tmp_path / "parity"
    subprocess.run(
        [compiler, "-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'examples' / 'cpp'}", f"-I{include}",
         ROOT / "tests" / "export" / "parity.cpp", library, f"-Wl,-rpath,{Path(library).parent}", "-o", made],
        check=True,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(5)
    random = RandomNumbers.from_generator(generator, 20)
    noise = [random.normal_array(dim) for dim in (shape_dim(3, 2), pattern_dim(3, 2))]
    expected = tiny.sample(Design(2.5, 6.0, n_xy=3, n_z=2), 50.0, 20, generator=generator.manual_seed(5), steps=5)
    run = subprocess.run(
        [made, sampler_file, "20", "50", "2.5", "6"], input=b"".join(n.tobytes() for n in noise), capture_output=True,
        check=True,
    )  # fmt: skip
    found = np.frombuffer(run.stdout, dtype=np.float32).reshape(20, 3, 3, 2)
    largest = expected.flatten(1).amax(1).numpy()
    assert (np.abs(found - expected.numpy()).max((1, 2, 3)) < PARITY["cells"] * largest).all()


def test_the_cpp_example(program: Path, sampler_file: Path, tmp_path: Path) -> None:
    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)

    made = call(sampler_file, 50, 2.5, 6, 2000)
    assert made.returncode == 0, made.stderr
    layers = [float(line.split()[2]) for line in made.stdout.splitlines() if line.startswith("layer")]
    ours = OnnxSampler.load(sampler_file).sample(50.0, 2.5, 6.0, 2000, np.random.default_rng(0)).sum((1, 2))
    error = ours.std(0) / 2000**0.5
    assert np.abs(np.array(layers) - ours.mean(0)).max() < 6 * error.max() + 1e-4
    outside = call(sampler_file, 500, 2.5, 6)
    assert (outside.returncode, outside.stderr) == (2, "error: tiny: energy = 500 GeV is outside 1 to 100 GeV\n")
    newer = call(changed(sampler_file, tmp_path / "newer.onnx", schema="calograd/onnx/3"), 50, 2.5, 6)
    assert "has schema 'calograd/onnx/3', this program reads 'calograd/onnx/2'" in newer.stderr
