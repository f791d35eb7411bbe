"""Showers in stacks of plates whose energies are known functions of the thicknesses, as a surrogate and as a library.

With a_k and t_k the thicknesses over 0.3 and 0.4 cm, bars for means of logarithms over the layers, z normal numbers,

    absorbers       A_k = 0.5 E c_k a_k^0.8 exp(-0.2 bar t) (1 + 0.03 z)
    active plates   V_k = 0.2 E c_k t_k exp(-0.3 bar a) (1 + s (0.07 z + 0.1 z_k)),   s = exp(0.5 bar a - 0.4 bar t)
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from calograd import LayerEnergies, SamplingDesign, Surrogate
from calograd.detector.incidence import Incidence
from calograd.diffusion.samplers import SAMPLERS
from calograd.events.library.schema import Provenance, pack
from calograd.events.library.writer import open_writer
from calograd.events.plates import PlateShowers
from calograd.surrogate.model import SamplingSchedule
from helpers.toy_library import plates_config

LAYERS = 5
ABSORBER, ACTIVE = 0.3, 0.4
SHARES = torch.tensor([1.0, 2.0, 3.0, 2.0, 1.0]).double() / 9
DESIGN = SamplingDesign("Pb", "lAr", ABSORBER, ACTIVE, LAYERS)


def toy_energies(absorber: Tensor, active: Tensor, energy: float, z: Tensor) -> LayerEnergies:
    """Energies of showers, from thicknesses (n, layers) and normal numbers (n, 1 + layers)."""
    a, t = (absorber.double() / ABSORBER).log(), (active.double() / ACTIVE).log()
    bars = a.mean(1, keepdim=True), t.mean(1, keepdim=True)
    noise = (0.5 * bars[0] - 0.4 * bars[1]).exp() * (0.07 * z[:, :1] + 0.1 * z[:, 1:])
    visible = 0.2 * energy * SHARES * (t - 0.3 * bars[0]).exp() * (1 + noise)
    return LayerEnergies(visible, 0.5 * energy * SHARES * (0.8 * a - 0.2 * bars[1]).exp() * (1 + 0.03 * z[:, :1]))


def visible_slopes(energy: float) -> np.ndarray:
    """Truth: d E_vis / d ln t of every plate, absorbers first, GeV."""
    return 0.2 * energy * np.concatenate([np.full(LAYERS, -0.3 / LAYERS), SHARES.numpy()])


def deposited_slopes(energy: float) -> np.ndarray:
    """Truth: the same of the energy in all plates."""
    more = 0.5 * energy * np.concatenate([0.8 * SHARES.numpy(), np.full(LAYERS, -0.2 / LAYERS)])
    return visible_slopes(energy) + more


def resolution_slopes() -> np.ndarray:
    """Truth: d ln(sigma/E_vis) / d ln t of every plate."""
    c = SHARES.numpy()
    square = (c**2).sum()
    of_active = -0.4 / LAYERS + 0.01 * (c**2 - c * square) / (0.07**2 + 0.01 * square)
    return np.concatenate([np.full(LAYERS, 0.5 / LAYERS), of_active])


class _Toy(Surrogate):
    """What `stack_gradient` asks of a surrogate."""

    def __init__(self) -> None:
        schedule = SamplingSchedule("heun", 1, SAMPLERS["heun"].nfe(1))
        self.card: Any = SimpleNamespace(name="toy")
        self.model: Any = SimpleNamespace(
            condition_mean=torch.zeros(1), sampling_schedule=lambda *_: schedule, options={"layers_only"}
        )

    def sample(  # type: ignore[override]
        self, stack: SamplingDesign, energy: float, n: int, *, generator: torch.Generator, shower: range, **_: Any
    ) -> LayerEnergies:
        z = torch.randn(shower.stop, 1 + LAYERS, generator=generator, dtype=torch.float64)[shower.start :]
        assert len(z) == n
        return toy_energies(stack.absorber_thickness, stack.active_thickness, energy, z)


def toy_surrogate() -> Surrogate:
    return _Toy()


def toy_showers(
    n: int, seed: int = 0, *, profile: str = "equal", energies: tuple[float, ...] = (10.0,), first: int = 0, **more: Any
) -> tuple[PlateShowers, Provenance]:
    """Electrons in random stacks from 0.7 to 1.4 of the design, in turn of all energies."""
    stack = {
        "absorber": ("Pb",), "layers": LAYERS, "profile": profile,
        "absorber_thickness": {"low": 0.7 * ABSORBER, "high": 1.42 * ABSORBER},
        "active_thickness": {"low": 0.7 * ACTIVE, "high": 1.42 * ACTIVE},
    }  # fmt: skip
    config = plates_config(seed, **stack | more)
    drawn = np.stack([config.draw_stack(i).thickness for i in range(first, first + n)])
    rng, thickness = np.random.default_rng(seed), torch.from_numpy(drawn.astype(float))
    z = torch.from_numpy(rng.standard_normal((n, 1 + LAYERS)))
    energy = np.resize(np.array(energies, np.float32), n)
    plates = np.zeros((n, LAYERS, 3))
    for value in set(energy.tolist()):
        of = torch.from_numpy(energy == np.float32(value))
        made = toy_energies(thickness[of, :, 0], thickness[of, :, 2], value, z[of])
        plates[of.numpy()] = torch.stack([made.absorber, torch.zeros_like(made.active), made.active], 2).numpy()
    flat = np.concatenate([plates, drawn], 2).reshape(-1, 6).astype(np.float32)
    showers = PlateShowers(
        **dict(zip(PlateShowers.FLAT, np.ascontiguousarray(flat.T), strict=True)),
        offsets=np.arange(n + 1) * LAYERS, energy=energy, index=np.arange(first, first + n),
        seed=np.arange(n).astype(np.uint64), **vars(Incidence.of(n, "e-")), absorber=np.zeros(n, np.int32),
        active=np.zeros(n, np.int32),
    )  # fmt: skip
    return showers, Provenance(config, "11.4.1", "G4EMLOW8.8 (test)")


def write_toy_showers(path: Path, n: int, seed: int = 0, **options: Any) -> Path:
    """Write a library of `toy_showers`."""
    showers, provenance = toy_showers(n, seed, **options)
    with open_writer(path, provenance, n) as library:
        library.add(pack(showers, provenance))
        library.finish(lambda done, of: None, threads=1)
    return path
