from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.made_up import tables

from calograd.errors import InputError
from calograd.training.config import AdaptConfig, parse_config, precision_for, processor_has_bf16, read_config

MINIMAL = """
name = "tiny"
[data]
files = ["cells.h5", "/data/more.h5"]
[range]
energy = [1, 100]
dx = [1, 5]
dz = [4, 15]
"""


def write(folder: Path, text: str) -> Path:
    (folder / "run.toml").write_text(text)
    return folder / "run.toml"


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, MINIMAL)
    config = read_config(path)
    assert config.data.files == [tmp_path.resolve() / "cells.h5", Path("/data/more.h5")]
    monkeypatch.chdir(tmp_path)
    assert read_config(Path("run.toml")) == config


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"training": {"stepps": 5}}, "unknown key 'training.stepps'; did you mean 'steps'?"),
        ({"training": {"moments_steps": 5}}, "'training.moments_steps' is now called 'location_scale_steps'; rename"),
        ({"model": {"moments_width": 5}}, "'model.moments_width' is now called 'location_scale_width'; rename it"),
        ({"model": {"kind": "map32"}}, "model.kind = 'map32' is now called 'maps'; rename it"),
        ({"distillation": {"leaps": [1, 1]}}, "'distillation.leaps' is now called 'student_steps'; rename it"),
        ({"modell": {}}, "unknown key 'modell'; did you mean 'model'?"),
        ({"data": {"files": ["a"], "zzzzzz": 1}}, "unknown key 'data.zzzzzz'; known here: files, validation"),
        ({"training": {"steps": 0}}, "training.steps: Input should be greater than 0"),
        ({"training": {"learning_rate": float("inf")}}, "training.learning_rate"),
        ({"training": {"precision": "fp8"}}, "training.precision: Input should be 'auto', 'bf16' or 'fp32'"),
        ({"model": {"schedule": "wavy"}}, "model.schedule"),
        ({"range": {"energy": [100, 1], "dx": [1, 5], "dz": [4, 15]}}, "expected the lower end first"),
        ({"range": {"energy": [1, 100], "dx": [2.5, 2.5], "dz": [4, 15]}}, "dx = [2.5, 2.5] is one value, from which"),
        ({"range": {"energy": [0, 1], "dx": [1, 5], "dz": [4, 15]}}, "range.energy.0"),
        ({"range": {"energy": [1, float("inf")], "dx": [1, 5], "dz": [4, 15]}}, "range.energy.1"),
        ({"range": {"energy": [1, 5]}}, "range.dx: Field required"),
        ({"data": {"files": []}}, "data.files"),
        ({"data": {"files": ["a"], "validation": 1.0}}, "data.validation"),
        ({"data": 3}, "data"),
        ({"name": "a/b"}, "name"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], complaint: str) -> None:
    import tomllib

    with pytest.raises(InputError) as refusal:
        parse_config(tomllib.loads(MINIMAL) | change, "run.toml", Path())
    assert str(refusal.value).startswith("run.toml: ")
    assert complaint in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file or directory; expected a TOML file"):
        read_config(tmp_path / "none.toml")
    with pytest.raises(InputError, match="is not TOML"):
        read_config(write(tmp_path, "name = "))
    (tmp_path / "run.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is not TOML"):
        read_config(tmp_path / "run.toml")


def test_a_student_begins_with_its_teacher_alone(tmp_path: Path) -> None:
    raw = tables(tmp_path, start="pbf2-cells") | {"distillation": {"teacher": "pbf2-cells", "student_steps": [2, 1]}}
    with pytest.raises(InputError, match=r"training\.start has no place beside \[distillation\]"):
        parse_config(raw, "tiny.toml", tmp_path)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("flags\t\t: fpu avx2 fma", "fp32"), ("flags\t\t: avx2 avx512f avx512_bf16", "bf16"),
     ("flags : amx_bf16 amx_tile", "bf16"), ("Features\t: fp asimd bf16", "bf16"), ("model name : none", "fp32")],
)  # fmt: skip
def test_bf16_is_taken_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch, flags: str, expected: str) -> None:
    processor_has_bf16.cache_clear()
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"processor : 0\n{flags}\nbugs :\n")
    try:
        assert precision_for("auto", "cpu") == expected
        assert precision_for("bf16", "cpu") == "bf16"
        assert precision_for("fp32", "cuda") == "fp32"
        assert precision_for("auto", "cuda") == "bf16"
        assert AdaptConfig().resolved("cpu").precision == expected
    finally:
        processor_has_bf16.cache_clear()
