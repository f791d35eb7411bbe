"""Surrogates of cells with random weights, small and quick."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from calograd.surrogate import Surrogate
from calograd.surrogate.card import TrainedBeam
from calograd.surrogate.cells.coordinates import Line, encode
from calograd.surrogate.cells.model import CellsArchitecture, CellsModel
from calograd.system.random_numbers import RandomNumbers
from helpers.cards import design_card

TINY = CellsArchitecture(
    n_xy=3,
    n_z=2,
    shape_width=12,
    shape_blocks=1,
    pattern_width=16,
    pattern_blocks=2,
    embedding=8,
    location_scale_width=8,
)


SMALL = CellsArchitecture(
    shape_width=8, shape_blocks=1, pattern_width=8, pattern_blocks=1, embedding=8, location_scale_width=8
)  # fmt: skip
BEAM = TrainedBeam(particles=("gamma", "e-"), theta=(0, 40))


def random_surrogate(
    name: str, architecture: CellsArchitecture, *, seed: int, dtype: torch.dtype = torch.float32, spread: float = 0.3,
    **trained: Any,
) -> Surrogate:  # fmt: skip
    """Normal weights of a spread; ``trained`` goes to `design_card`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = architecture.build()
        for parameter_name, parameter in model.named_parameters():
            torch.nn.init.normal_(parameter, std=spread if parameter_name.endswith("weight") else 0.1)
    if len(model.condition_mean) == 8:
        model.condition_mean.copy_(torch.tensor([8.0, 0.1, 2.2, 2.2, 2.0, 0.0, 0.8, -4.7]))
        model.condition_scale.copy_(torch.tensor([1.3, 0.5, 0.4, 0.4, 1.0, 1.0, 1.0, 1.0]))
    card = design_card(name, architecture, **trained)
    return Surrogate(model.to(dtype).eval().requires_grad_(False), card)


def fresh_surrogate(name: str, architecture: CellsArchitecture, **trained: Any) -> Surrogate:
    """With the weights that a training begins with; ``trained`` goes to `design_card`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = architecture.build().eval().requires_grad_(False)
    return Surrogate(model, design_card(name, architecture, **trained))


def tiny_surrogate_of_particles(name: str = "tilted") -> Surrogate:
    """Photons and electrons of 0 to 40 degrees, in windows of up to 7 x 7 x 6 cells."""
    form = replace(TINY, n_xy=7, n_z=6, pattern_blocks=1, beam=True, sums=True, ends=True, material_numbers=())
    return fresh_surrogate(name, form, beam=BEAM, dz=(3, 15), unequal_layers=True)


def tiny_surrogate(seed: int = 0, **sizes: Any) -> Surrogate:
    """3 x 3 x 2 cells of equal depths."""
    return random_surrogate("tiny", replace(TINY, **sizes), seed=seed)


def small_surrogate(dtype: torch.dtype) -> Surrogate:
    """3 x 3 x 2 cells, each layer with its depth."""
    return random_surrogate("small", TINY, seed=3, dtype=dtype, unequal_layers=True)


def tilted_surrogate(
    n_xy: int, n_z: int, distilled_steps: tuple[int, int] | None = None, spread: float = 0.3
) -> Surrogate:
    """Photons and electrons of any entry up to 40 degrees, in windows of up to n_xy x n_xy x n_z cells, in float64.

    A large ``spread`` of the weights makes steep networks.
    """
    form = CellsArchitecture(
        n_xy=n_xy, n_z=n_z, shape_width=12, shape_blocks=1, pattern_width=16, pattern_blocks=1, embedding=8,
        location_scale_width=12, local_units=2, sums=True, ends=True, beam=True, material_numbers=(),
        distilled_steps=distilled_steps,
    )  # fmt: skip
    trained = {"unequal_layers": True, "beam": BEAM}
    return random_surrogate("tilted", form, seed=3, dtype=torch.float64, spread=spread, **trained)


def make_plausible(surrogate: Surrogate) -> None:
    """Give a surrogate of particles location and scale of showers whose energy falls with the distance from the axis.

    Showers of random coordinates are rounded coarsely: their centres, moments and widths exclude each other.
    """
    model = surrogate.model
    assert isinstance(model, CellsModel)
    a, n, generator = model.architecture, 500, torch.Generator().manual_seed(0)
    place, depth = torch.arange(a.n_xy).double() - a.n_xy // 2, torch.arange(a.n_z).double()
    mean = (-1.5 * (place[:, None].square() + place.square())[:, :, None].sqrt() - 0.5 * depth).exp()
    spread = 0.3 * torch.randn(n, *mean.shape, generator=generator, dtype=torch.float64)
    across = torch.zeros(1, a.n_z, 2).double()
    line = Line(across, torch.full((1, a.n_z), 6.0).double(), across)
    random = RandomNumbers.from_generator(generator, n)
    g, c = encode(40 * mean / mean.sum() * spread.exp(), torch.full((n,), 50.0).double(), random, line)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for part, numbers, factor in ((model.shape_location_scale, g, 1), (model.pattern_location_scale, c, 2)):
            part.start_from(numbers.mean(0), factor * numbers.std(0))
            last = part.network[-1]
            assert isinstance(last, torch.nn.Linear)
            torch.nn.init.normal_(last.weight, std=0.05)
