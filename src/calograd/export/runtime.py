"""Exported samplers through ONNX Runtime, without PyTorch's networks; the C++ example does the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from calograd.checks import as_count, as_tensor
from calograd.detector.design import Design
from calograd.detector.incidence import COLUMNS
from calograd.detector.material import DESCRIPTORS, Material, to_float
from calograd.detector.particles import Particles
from calograd.errors import FormatError, InputError
from calograd.surrogate.card import MARGIN, Card
from calograd.surrogate.storage import check_schema
from calograd.system.random_numbers import RandomNumbers

SCHEMA = "calograd/onnx/3"
OLDER = "calograd/onnx/2"
"""Schema of files that know no particles, and are read as before."""
_TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


class OnnxSampler:
    """The whole sampler of a surrogate as ``calograd export`` wrote it.

        sampler = OnnxSampler.load("exported/sampler.onnx")
        cells = sampler.sample(energy=50.0, dx=2.5, dz=6.0, n=1000, rng=np.random.default_rng(0))

    The window of cells is that of the export.

    Attributes:
        card: card of the surrogate, of one material alone if it was exported so.
        metadata: metadata of the file, see `calograd.export.write`.
        session: session of ONNX Runtime, whose ``run`` takes what `inputs` returns.
    """

    def __init__(self, session: Any, card: Card, metadata: Mapping[str, str]) -> None:
        self.card = card
        self.metadata = metadata
        self.session = session

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
        if metadata.get("schema") != OLDER:
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
        *,
        particle: Any = None,
        position: Any = None,
        theta: Any = None,
        phi: Any = None,
    ) -> np.ndarray:
        """Generate showers of a design, shape (n, n_xy, n_xy, n_z), GeV.

        Args:
            energy: incident, one number or one a shower, GeV.
            dx: pitch, cm.
            dz: depth of all layers or one a layer, cm.
            n: number of showers.
            rng: source of one seed; shower i depends on this seed and on i alone.
            material: needed where several are inputs of the file.
            particle: ``gamma``, ``e-`` or ``e+``, or one a shower; PDG numbers as well. None: a photon. Particle, entry
                and direction are for surrogates that were trained on several.
            position: entry on the front face from the middle of the central cell, cm, shape (2,) or (n, 2); or
                ``uniform``: drawn evenly in the central cell. None: the middle.
            theta, phi: direction, angle to the normal and azimuth, degrees, one number or one a shower. None: 0. The
                window follows the particle, see `calograd.detector.incidence`.

        Raises:
            RangeError: outside the trained range.
            InputError: no showers, no material though several are inputs, another material than that of the file, or
                particles that the surrogate does not take.
        """
        beam = {"particle": particle, "position": position, "theta": theta, "phi": phi}
        return run(self.session, self.inputs(energy, dx, dz, n, rng, material, **beam))

    def inputs(
        self,
        energy: float | np.ndarray,
        dx: float,
        dz: float | tuple[float, ...],
        n: int,
        rng: np.random.Generator,
        material: Material | None = None,
        *,
        particle: Any = None,
        position: Any = None,
        theta: Any = None,
        phi: Any = None,
    ) -> dict[str, np.ndarray]:
        """Return the inputs of the graph by name for showers of a design; arguments and errors as of `sample`."""
        n = as_count("n", n)
        material = self.card.designs.material if material is None else material
        _, n_xy, _, n_z = self.session.get_outputs()[0].shape
        design = Design(dx, dz, material, n_xy, n_z)
        random = RandomNumbers(int(rng.integers(2**63)), range(n))
        particles = self._particles(design, (particle, position, theta, phi), random)
        self.card.check_range(design, as_tensor("energy", energy), particles=particles)
        given: dict[str, Any] = {"energy": energy, "dx": dx, "dz": dz}
        given["material"] = [to_float(getattr(material, name)) for name in DESCRIPTORS]
        if particles is not None:
            given |= {name: column.numpy() for name, column in particles._asdict().items()}
        inputs, ports = {}, self.session.get_inputs()
        if "material" not in [port.name for port in ports]:
            self._refuse_other(material)
        for port in ports:
            shape = (n, *port.shape[1:])
            value = given[port.name] if port.name in given else random.normal_array(*port.shape[1:])
            inputs[port.name] = np.ascontiguousarray(np.broadcast_to(value, shape), dtype=_TYPES[port.type])
        return inputs

    def _particles(self, design: Design, asked: tuple[Any, Any, Any, Any], random: RandomNumbers) -> Particles | None:
        """Return the particles that a sample asks for; None for a surrogate that knows one beam."""
        if self.card.designs.beam is None:
            self.card.refuse_particles([name for name, value in zip(COLUMNS, asked, strict=True) if value is not None])
            return None
        return Particles.asked(random, design.dx.reshape(-1), *asked, like=torch.zeros(1))

    def _refuse_other(self, material: Material) -> None:
        """Raise `InputError` for another material, or density, than the one that the file is of."""
        own = self.card.designs.material
        if not material.alike(own, MARGIN, DESCRIPTORS):
            density, other = to_float(own.density), to_float(material.density)
            raise InputError(
                f"{self.card.name} was exported for {own.name} of {density:g} g/cm3, not {material.name} of {other:g} "
                "g/cm3; export it for that (calograd export --material)"
            )


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
