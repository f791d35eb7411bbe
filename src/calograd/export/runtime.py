"""Exported samplers through ONNX Runtime, without PyTorch's networks; the C++ example does the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from calograd.checks import as_count, as_tensor
from calograd.detector.design import Design
from calograd.detector.material import DESCRIPTORS, Material, to_float
from calograd.errors import FormatError, InputError
from calograd.surrogate.card import Card
from calograd.surrogate.storage import check_schema
from calograd.system.random_numbers import RandomNumbers

SCHEMA = "calograd/onnx/2"


class OnnxSampler:
    """The whole sampler of a surrogate as ``calograd export`` wrote it.

        sampler = OnnxSampler.load("exported/sampler.onnx")
        cells = sampler.sample(energy=50.0, dx=2.5, dz=6.0, n=1000, rng=np.random.default_rng(0))

    Attributes:
        card: card of the surrogate.
        metadata: metadata of the file, see `calograd.export.write`.
    """

    def __init__(self, session: Any, card: Card, metadata: Mapping[str, str]) -> None:
        self.card = card
        self.metadata = metadata
        self._session = session

    @classmethod
    def load(cls, path: str | Path, threads: int = 1) -> OnnxSampler:
        """Open a file with ``threads`` threads.

        Raises:
            FormatError: missing, damaged, not of calograd, newer, or another part than the sampler.
            InputError: onnxruntime is not installed.
        """
        path = Path(path)
        if not path.is_file():
            raise FormatError(f"{path} does not exist or is not a file; expected a sampler.onnx of 'calograd export'")
        session = open_session(path.read_bytes(), str(path), threads)
        metadata = session.get_modelmeta().custom_metadata_map
        check_schema(path, metadata.get("schema"), SCHEMA, "export it anew")
        if metadata.get("part") != "sampler":
            raise FormatError(f"{path} holds the part '{metadata.get('part')}', expected 'sampler' (sampler.onnx)")
        try:
            card = Card.model_validate_json(metadata["card"])
        except (KeyError, ValidationError) as error:
            raise FormatError(f"{path}: its card does not fit this version; export it anew") from error
        return cls(session, card, metadata)

    def sample(
        self,
        energy: float | np.ndarray,
        dx: float,
        dz: float | tuple[float, ...],
        n: int,
        rng: np.random.Generator,
        material: Material | None = None,
    ) -> np.ndarray:
        """Generate showers of a design, shape (n, n_xy, n_xy, n_z), GeV.

        Args:
            energy: incident, one number or one a shower, GeV.
            dx: pitch, cm.
            dz: depth of all layers or one a layer, cm.
            n: number of showers.
            rng: source of one seed; shower i depends on this seed and on i alone.
            material: needed where several were trained on.

        Raises:
            RangeError: outside the trained range.
            InputError: no showers, or no material though several were trained on.
        """
        n = as_count("n", n)
        material = self.card.designs.material if material is None else material
        a = self.card.architecture
        design = Design(dx, dz, material, a["n_xy"], a["n_z"])
        self.card.check_range(design, as_tensor("energy", energy))
        given: dict[str, Any] = {"energy": energy, "dx": dx, "dz": dz}
        if len(self.card.designs.materials) > 1:
            given["material"] = [to_float(getattr(material, name)) for name in DESCRIPTORS]
        inputs, random = {}, RandomNumbers(int(rng.integers(2**63)), range(n))
        for port in self._session.get_inputs():
            shape = (n, *port.shape[1:])
            value = given[port.name] if port.name in given else random.normal_array(*port.shape[1:])
            inputs[port.name] = np.ascontiguousarray(np.broadcast_to(value, shape), dtype=np.float32)
        return run(self._session, inputs)


def open_session(content: bytes, name: str, threads: int = 1) -> Any:
    """Return an ONNX Runtime session on the CPU.

    Raises:
        FormatError: no ONNX file, or one that the installed ONNX Runtime cannot run.
        InputError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError("running exported surrogates needs onnxruntime: pip install 'calograd[export]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the classes that onnxruntime raises have no common base of their own
        reason = " ".join(str(error).split())[:200]
        raise FormatError(f"{name}: ONNX Runtime {onnxruntime.__version__} cannot read it: {reason}") from error


def run(session: Any, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the only output of a graph."""
    result: np.ndarray = session.run(None, dict(inputs))[0]
    return result
