"""The public face of all surrogates: load, sample, adapt, save.

One class serves cells, maps, points and plates; their models implement `calograd.surrogate.model.Model`.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from calograd.checks import as_count, as_generator, as_tensor
from calograd.detector.configuration import SiWStack
from calograd.detector.design import Design
from calograd.detector.incidence import COLUMNS
from calograd.detector.particles import ON_AXIS, ParticleBeam, Particles
from calograd.detector.sampling_design import SamplingDesign
from calograd.errors import InputError
from calograd.io.markup import facts
from calograd.nn.linear import has_derivatives
from calograd.surrogate.adapters import Adapter, chain, fingerprint
from calograd.surrogate.card import Card
from calograd.surrogate.model import DesignModel, Generates, Model, Options, SamplingSchedule, to_device
from calograd.surrogate.storage import load, save
from calograd.system.random_numbers import RandomNumbers


class Surrogate:
    """A trained surrogate of a calorimeter's response.

        surrogate = Surrogate.load("pbf2-cells")
        cells = surrogate.sample(Design(dx=2.5, dz=6.0), energy=50.0, n=1000)      # (1000, 5, 5, 5), GeV

        points = Surrogate.load("siw-cloud").sample(energy=50.0, n=1000)           # `Points` in one detector
        cells = points.to_cells(pitch=0.50883)

        stack = SamplingDesign("Pb", "lAr", absorber_thickness=0.2, active_thickness=0.4, n_layers=40)
        showers = surrogate_of_stacks.sample(stack, energy=10.0, n=1000, particle="e-", layers_only=True)
        showers.layer_energies()                                                   # (1000, 40), GeV

    Attributes:
        card: name, trained range, materials and how it was made.
        model: the weights.
        adapters: adapters on top of a base, in the order in which they were applied; empty for a base.
        source: the name or folder it was loaded from; empty if it was made in memory.
    """

    def __init__(self, model: Model, card: Card, *, adapters: tuple[Adapter, ...] = (), source: str = "") -> None:
        self.model = model
        self.card = card
        self.adapters = adapters
        self.source = source

    @classmethod
    def load(cls, name_or_folder: str | Path, device: str | torch.device = "cpu") -> Surrogate:
        """Load a bundled surrogate, or a folder written by ``train`` or ``adapt``; an adapter is found with its base.

        Raises:
            FormatError: missing, damaged, older or newer than this version, or an adapter without its base.
            InputError: a device that torch does not have, or an adapter of another base.
        """
        base, adapters = chain(name_or_folder)
        model, card = load(base)
        surrogate = cls(to_device(model, device), card, source=str(base))
        for adapter in adapters:
            surrogate = surrogate.with_adapter(adapter)
        surrogate.source = str(name_or_folder)
        return surrogate

    def save(self, folder: str | Path, *, compact: bool = False) -> None:
        """Write weights and card to a folder; ``compact`` rounds the denoising networks to float16.

        An adapted surrogate is written with its adapters merged, as one that needs no base.
        """
        save(Path(folder), self.model, self.card, compact=compact)

    def with_adapter(self, adapter: Adapter | str | Path) -> Surrogate:
        """Return a new surrogate with the adapter; ``self`` is unchanged.

        Args:
            adapter: an `Adapter`, or the folder or file of one.

        Raises:
            FormatError: a file that cannot be used.
            InputError: an adapter of another base.
        """
        source = "" if isinstance(adapter, Adapter) or not Path(adapter).is_dir() else str(adapter)
        adapter = adapter if isinstance(adapter, Adapter) else Adapter.load(adapter)
        model, card = adapter.apply(self.model, self.card, self.identity)
        return Surrogate(model, card, adapters=(*self.adapters, adapter), source=source)

    @cached_property
    def identity(self) -> str:
        """SHA-256 of the weights, or of base and adapter: adapters name their base by it."""
        return self.adapters[-1].identity() if self.adapters else fingerprint(self.model)

    @property
    def design_model(self) -> DesignModel:
        """The model of a surrogate of designs. Raises `InputError` for a surrogate of one detector."""
        if not isinstance(self.model, DesignModel):
            _ = self.card.designs  # complains
            raise InputError(f"{self.card.name} is of no designs; expected a surrogate of cells or maps")
        return self.model

    def _repr_html_(self) -> str:
        """Return the table that a notebook shows."""
        card, done = self.card, self.card.training.get("done", {})
        return facts(
            f"Surrogate {card.name}",
            {
                "energy": f"{card.energy[0]:g} to {card.energy[1]:g} GeV",
                **card.trained.facts(card.architecture),
                "training": f"{card.training.get('showers', 'unknown')} showers, {done.get('step', 'unknown')} steps",
                "numbers": f"{sum(p.numel() for p in self.model.parameters()):,}",
                "adapters": ", ".join(f"{each.card.method} ({each.card.name})" for each in self.adapters) or "none",
            },
        )

    def sample(
        self,
        design: Design | SamplingDesign | SiWStack | float | Tensor | None = None,
        energy: float | Tensor | None = None,
        n: int | None = None,
        *,
        generator: torch.Generator | None = None,
        shower: Sequence[int] | np.ndarray | range | None = None,
        sampler: str | None = None,
        steps: int | None = None,
        extrapolate: bool = False,
        checkpointed: bool = False,
        guidance: float = 0.0,
        smooth: bool = False,
        layers_only: bool = False,
        particle: Any = None,
        position: Any = None,
        theta: Any = None,
        phi: Any = None,
    ) -> Any:
        """Generate showers of a design; a surrogate of one detector takes ``sample(energy, n)`` as well.

        Args:
            design: within the trained range; its dx, dz and material may be tensors, which receive gradients. With dx
                of shape (n,) and dz of shape (n, n_z) every shower has a design of its own; so it has with thicknesses
                of shape (n, n_layers) of a `SamplingDesign`. None, or left out, for a surrogate of one detector.
            energy: incident energy in GeV, one number or one a shower, shape (n,); a tensor receives gradients.
            n: number of showers.
            generator: source of one seed. Shower i depends on this seed and on i alone, so 10 showers are the first 10
                of 1000; equal generators give common random numbers at any design. None: torch's global generator.
            shower: index i of every shower, shape (n,); None: 0 to n - 1. Showers of equal index have common random
                numbers, so one sample can hold several designs of the same showers, see `sample_designs`.
            sampler: ``trigflow-ab2``, ``ddim``, ``heun``, ``dpmpp-2m`` or ``ddpm``; distilled surrogates have their own
                alone. None: the surrogate's own.
            steps: number of steps; each sampler has a default, and a distilled surrogate of designs no choice. Points
                in plates take the sampler and the steps of their architecture always.
            extrapolate: warn instead of refusing outside the trained range.
            checkpointed: keep the beginning of each step alone and repeat the step in the backward pass. Memory hardly
                grows with the number of steps; the gradient costs a quarter more.
            guidance: w of classifier-free guidance, for maps that were trained with dropped conditions; 0 for none.
            smooth: give the last point of every layer a fractional weight. Energies and positions of points are then
                smooth in the energy, and their gradients are those of the expected showers.
            layers_only: generate the energies of plates alone, without points; for stacks of plates. They are the same
                with and without points.
            particle: ``gamma``, ``e-`` or ``e+``, or one a shower. None: a photon. Particle, entry and direction are
                for surrogates that were trained on several.
            position: entry on the front face from the middle of the central cell, cm, shape (2,) or (n, 2); or
                ``uniform``: drawn evenly in the central cell. None: the middle.
            theta, phi: direction, angle to the normal and azimuth, degrees, one number or one a shower; tensors receive
                gradients, and so do those of ``position``. None: 0. The window follows the particle, see
                `Design.window_offsets`. Plates are wide, so the entry changes nothing there.

        Returns:
            Differentiable in design and energy but for ``ddpm``. Cells: energies, shape (n, n_xy, n_xy, n_z), GeV.
            Maps: energies, shape (n, pixels, pixels), GeV, see `calograd.events.dense`. Points: `Points`. Plates:
            `Points` in the frame of the particle's line, with the energies in absorbers, or
            `calograd.events.layer_energies.LayerEnergies` of layers only.

        Raises:
            RangeError: a design, material or energy outside the trained range, see `Card.check_range`.
            InputError: an argument of the wrong type or shape, an unknown sampler, or an option that the surrogate
                does not have.
        """
        if n is None and not self.card.takes_design and not isinstance(design, Design):  # sample(energy, n)
            design, energy, n = None, design, energy
        n, generator = as_count("n", n), as_generator("generator", generator)
        steps = None if steps is None else as_count("steps", steps, at_least=0)
        options = Options(checkpointed, guidance, smooth, layers_only)
        schedule = self.model.sampling_schedule(sampler, steps)._replace(options=options)
        self.check_options(schedule)
        energy = as_tensor("energy", energy).to(self.model.condition_mean)
        if energy.shape not in ((), (n,)):
            raise InputError(f"energy has shape {tuple(energy.shape)}, expected one number or ({n},)")
        random = self._random(generator, n, shower)
        particles = self._particles(design, (particle, position, theta, phi), energy, random)
        self.card.check_range(design, energy, extrapolate, particles=particles)
        energy, window = energy.reshape(-1), design if self.card.takes_design else None
        conditions = self.model.condition(window, energy, particles)
        if len(conditions) not in (1, n):
            raise InputError(f"design: {len(conditions)} designs for {n} showers; expected one for all or one a shower")
        fused: Generates = self.model.fused()
        derived = has_derivatives((conditions, energy), fused.parameters())
        model, parts = self.model if derived else fused, []
        with nullcontext() if derived else torch.inference_mode():
            for start in range(0, n, self.model.batch_size):
                rows = slice(start, min(start + self.model.batch_size, n))
                of_rows, incident = (values[rows] if len(values) == n else values for values in (conditions, energy))
                made = model.generate(of_rows, incident, schedule, random.rows(rows))
                parts.append(self.model.finish(made, window, None if particles is None else particles.rows(rows)))
        return self.model.join(parts)

    def particles(
        self,
        design: Design,
        n: int,
        beam: ParticleBeam,
        *,
        generator: torch.Generator | None = None,
        shower: Sequence[int] | np.ndarray | range | None = None,
    ) -> Particles | None:
        """Return the incident particles of n showers of a beam; None for a surrogate that knows one beam.

        With a generator of equal state they are those of `sample` with the beam's particle, position, theta and phi.

        Raises:
            InputError: another beam than the one that the surrogate knows.
        """
        random = self._random(generator, n, shower)
        if self.model.takes_particles:
            return beam.draw(design.dx.to(self.model.condition_mean).reshape(-1), random)
        if beam != ON_AXIS:
            self.card.refuse_particles(["beam"])
        return None

    def _particles(
        self, design: Any, asked: tuple[Any, Any, Any, Any], like: Tensor, random: RandomNumbers
    ) -> Particles | None:
        """Return the particles that a sample asks for; None for a surrogate that knows one beam."""
        if not self.model.takes_particles:
            self.card.refuse_particles([name for name, value in zip(COLUMNS, asked, strict=True) if value is not None])
            return None
        cell = self.card.trained.cell(self.card.name, design)
        return Particles.asked(random, cell, *asked, like=like)

    def sample_designs(
        self,
        designs: Sequence[Design],
        energy: float,
        n: int,
        *,
        generator: torch.Generator | None = None,
        particles: Sequence[Particles | None] | None = None,
        **options: Any,
    ) -> Tensor:
        """Generate showers of several designs with common random numbers: shower i has the same at every design.

        Args:
            designs: single designs with equal numbers of cells. Those of one material are sampled together, as a batch.
            energy: incident energy, GeV.
            n: number of showers of each design.
            particles: incident particles of each design's showers, see `particles`; None: photons on the axis.
            generator, options: see `sample`.

        Returns:
            Shape (designs, n, ...), as n showers of each design from generators of equal state.
        """
        first = designs[0]
        beams = [{} if p is None else p.expand(n)._asdict() for p in particles or [None] * len(designs)]
        if len(designs) == 1 or any(each.material is not first.material for each in designs):
            source = generator or torch.default_generator
            state, pairs = source.get_state(), zip(designs, beams, strict=True)
            return torch.stack(
                [self.sample(d, energy, n, generator=source.set_state(state), **beam, **options) for d, beam in pairs]
            )
        if beams[0]:
            options |= {name: torch.cat([beam[name] for beam in beams]) for name in beams[0]}
        dx, dz = torch.stack([each.dx for each in designs]), torch.stack([each.dz for each in designs])
        batch = Design(dx.repeat_interleave(n), dz.repeat_interleave(n, 0), first.material, first.n_xy, first.n_z)
        rows = len(designs) * n
        shower = np.tile(np.arange(n), len(designs))
        made: Tensor = self.sample(batch, energy, rows, generator=generator, shower=shower, **options)
        return made.reshape(len(designs), n, *made.shape[1:])

    @staticmethod
    def _random(
        generator: torch.Generator | None, n: int, shower: Sequence[int] | np.ndarray | range | None
    ) -> RandomNumbers:
        """Return the random numbers of showers of the given indices, by default 0 to n - 1."""
        random = RandomNumbers.from_generator(generator, n)
        if shower is None:
            return random
        index = np.asarray(shower)
        if index.shape != (n,) or index.dtype.kind not in "iu" or (n and index.min() < 0):
            raise InputError(f"shower = {reprlib.repr(shower)}: expected the index of each of {n} showers, 0 or more")
        return RandomNumbers(random.seed, index)

    def check_options(self, schedule: SamplingSchedule) -> None:
        """Raise `InputError` for options of a sample that the surrogate does not have."""
        options = schedule.options
        for name in self.model.required_options:
            if not getattr(options, name):
                raise InputError(
                    f"{self.card.name} generates {name} samples alone; add {name}=True (--{name.replace('_', '-')})"
                )
        for name in options._fields:
            if getattr(options, name) and name not in self.model.options:
                raise InputError(f"{self.card.name} has no {name} samples; leave out {name} = {getattr(options, name)}")
        if options.checkpointed and schedule.sampler == "ddpm":
            raise InputError(
                f"'{schedule.sampler}' adds noise on its way and cannot be checkpointed; choose another sampler"
            )

    def check_range(self, design: Design | SiWStack | None, energy: Tensor, extrapolate: bool = False) -> None:
        """Refuse a design and energies in GeV that the surrogate was not trained on, see `Card.check_range`."""
        self.card.check_range(design, energy, extrapolate, stacklevel=3)
