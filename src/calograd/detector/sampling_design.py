"""A sampling calorimeter as a design: absorber and active plates whose thicknesses are differentiable.

A layer is an absorber plate, then a passive gap, then an active plate, as `calograd.detector.sampling_stack` describes.
With thicknesses a_k, g_k and t_k of layer k, all in cm,

    depth              sum_k (a_k + g_k + t_k)
    in X0              sum_k (a_k / X0_a + g_k / X0_g + t_k / X0_t)
    sampling fraction  f = sum_k t_k D_t / sum_k (a_k D_a + g_k D_g + t_k D_t)

where D is dE/dx of a minimum ionising particle (`Material.minimum_ionisation`). f is the share of the energy that a
minimum ionising particle leaves in the active plates (Wigmans, Calorimetry, 2nd edition, section 3.2); an
electromagnetic shower leaves a share that is smaller in absorbers of high Z, by the ratio e/mip.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from calograd.checks import as_count, as_tensor, check_positive
from calograd.detector.design import Sizes
from calograd.detector.material import Material, to_float
from calograd.detector.sampling_stack import MOST_LAYERS, PLATES, SamplingStack, Stacks, millimetre_problem
from calograd.errors import InputError
from calograd.io.markup import facts


@dataclass(frozen=True, init=False, eq=False)
class SamplingDesign:
    """A stack of ``n_layers`` absorber and active plates, or one such stack for each of n showers.

        SamplingDesign("PbWO4", "G4_lAr", absorber_thickness=0.23, active_thickness=0.57, n_layers=50)
        SamplingDesign("W", "Si", [0.21] * 20 + [0.42] * 10, 0.0525, gap_thickness=0.361)       # that of the ILD
        SamplingDesign("Pb", "lAr", torch.full((16, 40), 0.2), 0.4)                              # a batch of 16

    Tensors keep their graph: gradients reach whatever thicknesses and materials were computed from.

    Args:
        absorber, active: materials, each a `Material` or what `Material.parse` reads.
        absorber_thickness, active_thickness: cm; one number for all layers, shape (n_layers,) for one a layer, shape
            (n, n_layers) or (n, 1) for one row a design.
        n_layers: number of layers; None where thicknesses of shape (n_layers,) say it.
        gap_material: material of a passive gap between absorber and active plate.
        gap_thickness: cm, as the others; zero for no gap.

    Attributes:
        absorber, active, gap_material: materials.
        absorber_thickness, active_thickness, gap_thickness: cm, shape (n_layers,), of a batch (n, n_layers).
        n_layers: number of layers.

    Raises:
        InputError: unknown materials, thicknesses that are not positive and finite, probably in mm, or whose shapes do
            not fit, a number of layers that is none.
    """

    absorber: Material
    active: Material
    absorber_thickness: Tensor
    active_thickness: Tensor
    n_layers: int
    gap_material: Material
    gap_thickness: Tensor

    def __init__(
        self,
        absorber: Material | str,
        active: Material | str,
        absorber_thickness: Sizes,
        active_thickness: Sizes,
        n_layers: int | None = None,
        gap_material: Material | str = "G4_AIR",
        gap_thickness: Sizes = 0.0,
    ) -> None:
        given = {"absorber": absorber_thickness, "gap": gap_thickness, "active": active_thickness}
        sizes = {name: as_tensor(f"sampling design: {name}_thickness", value) for name, value in given.items()}
        layers = _number_of_layers(sizes, n_layers)
        rows = _rows(sizes, layers)
        values: dict[str, Any] = {f"{name}_thickness": _expanded(sizes[name], rows, layers) for name in PLATES}
        for name, material in (("absorber", absorber), ("active", active), ("gap_material", gap_material)):
            values[name] = _material(name, material)
        for name, value in {**values, "n_layers": layers}.items():
            object.__setattr__(self, name, value)
        self.check()

    def check(self) -> None:
        """Raise `InputError` unless all thicknesses are positive, those of gaps not negative, and probably in cm.

        A design is checked when it is made. Whoever uses one checks it again, since its tensors can be changed in
        place.
        """
        for name in ("absorber", "active"):
            check_positive(f"sampling design: {name}_thickness", getattr(self, f"{name}_thickness"), "cm")
        gap = self.gap_thickness.detach()
        bad = gap[~(gap.isfinite() & (gap >= 0))]
        if len(bad):
            raise InputError(f"sampling design: gap_thickness = {float(bad[0])} cm, expected zero or positive numbers")
        means = [float(getattr(self, f"{name}_thickness").detach().double().mean()) for name in PLATES]
        length = to_float(self.absorber.radiation_length)
        problem = millimetre_problem(means[0], length, means[2], self.n_layers * sum(means))
        if problem:
            raise InputError(f"sampling design: {problem}")

    @classmethod
    def batches(cls, stacks: Stacks) -> Iterator[tuple[np.ndarray, SamplingDesign]]:
        """Yield the stacks of n showers as batches of equal materials and numbers of layers, with their showers.

        Raises:
            InputError: see the class.
        """
        keys = np.stack([stacks.absorber, stacks.active, stacks.layers], 1)
        different, which = np.unique(keys, axis=0, return_inverse=True)
        for number, (absorber, active, layers) in enumerate(different.tolist()):
            rows = np.flatnonzero(which.reshape(-1) == number)
            sizes = torch.from_numpy(stacks.thickness[rows, :layers]).unbind(2)
            materials = stacks.absorbers[absorber], stacks.actives[active]
            yield rows, cls(*materials, sizes[0], sizes[2], layers, stacks.gap_material, sizes[1])

    @property
    def n(self) -> int | None:
        """Number of designs in a batch; None for a single design."""
        return len(self.absorber_thickness) if self.batched else None

    @property
    def batched(self) -> bool:
        """True if this is a batch of designs."""
        return self.absorber_thickness.ndim == 2

    @property
    def thicknesses(self) -> Tensor:
        """Thickness of absorber, gap and active plate of every layer, shape (n_layers, 3), cm; of a batch one more."""
        return torch.stack([getattr(self, f"{name}_thickness") for name in PLATES], -1)

    @property
    def faces(self) -> Tensor:
        """z of the faces of all plates, shape (3 n_layers + 1,), cm: plate p lies between faces p and p + 1.

        Plates are in the order of the beam: absorber, gap and active plate of the first layer, then of the next. A gap
        of no thickness has two equal faces. Of a batch the shape is (n, 3 n_layers + 1).
        """
        return _summed(self.thicknesses)

    @property
    def faces_in_radiation_lengths(self) -> Tensor:
        """The same depths in radiation lengths of what lies before them, shape (3 n_layers + 1,) or with n in front."""
        return _summed(self._weighted("radiation_length", inverse=True))

    @property
    def depth(self) -> Tensor:
        """Depth of the stack, cm, shape () or (n,)."""
        return self.thicknesses.sum((-2, -1))

    @property
    def radiation_lengths(self) -> Tensor:
        """Depth of the stack in radiation lengths, shape () or (n,)."""
        return self._weighted("radiation_length", inverse=True).sum((-2, -1))

    @property
    def total_absorber(self) -> Tensor:
        """Thickness of all absorbers, cm, shape () or (n,)."""
        return self.absorber_thickness.sum(-1)

    @property
    def total_active(self) -> Tensor:
        """Thickness of all active plates, cm, shape () or (n,)."""
        return self.active_thickness.sum(-1)

    @property
    def sampling_fraction(self) -> Tensor:
        """Share of its energy that a minimum ionising particle leaves in the active plates, shape () or (n,)."""
        loss = self._weighted("minimum_ionisation").sum(-2)
        return loss[..., 2] / loss.sum(-1)

    def to_stack(self, width: float = 40.0) -> SamplingStack:
        """Return the record of a single design, which `calograd.simulate` takes as its detector.

        Args:
            width: full length of the plates in x and in y, cm.

        Raises:
            InputError: a batch, or a material with given numbers, which Geant4 does not have.
        """
        if self.batched:
            raise InputError("a batch of designs is no detector; simulate one of them, design[0]")
        for material in self._materials():
            if material.given:
                raise InputError(
                    f"{material.name} has a given {', '.join(material.given)}; Geant4 simulates density and "
                    "composition alone"
                )
        sizes = {name: _shortest(getattr(self, f"{name}_thickness")) for name in PLATES}
        laws = {f"{name}_thickness": each if len(set(each)) > 1 else each[0] for name, each in sizes.items()}
        materials: dict[str, Any] = {"absorber": self.absorber, "active": self.active}
        return SamplingStack(
            layers=self.n_layers, gap_material=self.gap_material, width=width, **materials, **laws
        )  # fmt: skip

    @classmethod
    def of_stack(cls, stack: SamplingStack) -> SamplingDesign:
        """Return the design of a record, with thicknesses in float64.

        Raises:
            InputError: stacks that each shower draws.
        """
        if stack.drawn:
            raise InputError(
                "stacks that each shower draws are no design; give fixed thicknesses and one pair of materials"
            )
        sizes = [torch.tensor(getattr(stack, f"{name}_thickness"), dtype=torch.float64) for name in PLATES]
        return cls(
            stack.absorber[0], stack.active[0], sizes[0], sizes[2], stack.layers_range[0], stack.gap_material, sizes[1]
        )  # fmt: skip

    def __getitem__(self, which: int | slice | Tensor) -> SamplingDesign:
        """Return one design of a batch, or a batch of some of them."""
        if not self.batched:
            raise InputError("a single design has no index; make a batch of it with design.expand(n)")
        return self._with(lambda thickness: thickness[which])

    def expand(self, n: int) -> SamplingDesign:
        """Return a batch of n equal designs; a batch of n designs as it is.

        Raises:
            InputError: a batch of another number of designs.
        """
        if self.n not in (None, n):
            raise InputError(f"{self.n} designs for {n} showers; expected one for all or one a shower")
        return self._with(lambda thickness: thickness.expand(n, self.n_layers))

    def _with(self, change: Any) -> SamplingDesign:
        absorber, gap, active = (change(getattr(self, f"{name}_thickness")) for name in PLATES)
        return SamplingDesign(self.absorber, self.active, absorber, active, self.n_layers, self.gap_material, gap)

    def _weighted(self, number: str, inverse: bool = False) -> Tensor:
        """Return the thicknesses times (or over) a number of their materials, of the shape of `thicknesses`."""
        materials = (self.absorber, self.gap_material, self.active)
        numbers = [getattr(material, number) for material in materials]
        thicknesses = (getattr(self, f"{name}_thickness") for name in PLATES)
        pairs = zip(thicknesses, numbers, strict=True)
        return torch.stack([each / value if inverse else each * value for each, value in pairs], -1)

    def _numbers(self) -> tuple[object, ...]:
        return tuple(getattr(self, f"{name}_thickness").tolist() for name in PLATES)

    def _materials(self) -> tuple[Material, ...]:
        return self.absorber, self.gap_material, self.active

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SamplingDesign):
            return NotImplemented
        return self._numbers() == other._numbers() and self._materials() == other._materials()

    def __hash__(self) -> int:
        return hash((repr(self._numbers()), self._materials()))

    def _repr_html_(self) -> str:
        """Return the table that a notebook shows."""
        rows: dict[str, Any] = {"layers": self.n_layers}
        for name, material in zip(PLATES, self._materials(), strict=True):
            thickness = getattr(self, f"{name}_thickness").detach()
            if name != "gap" or bool((thickness > 0).any()):
                rows[name] = f"{_in_words(thickness)} cm of {material.name}"
        rows["depth"] = f"{_in_words(self.depth)} cm, {_in_words(self.radiation_lengths, '.1f')} radiation lengths"
        rows["sampling fraction"] = _in_words(self.sampling_fraction, ".3f")
        tensors = {f"{name}_thickness": getattr(self, f"{name}_thickness") for name in PLATES}
        rows["gradients"] = ", ".join(name for name, t in tensors.items() if t.requires_grad) or "none"
        return facts("Sampling design" if self.n is None else f"{self.n} sampling designs", rows)


def _material(name: str, value: Material | str) -> Material:
    material = Material.parse(value) if isinstance(value, str) else value
    if not isinstance(material, Material):
        raise InputError(f"sampling design: {name} = {value!r}: expected a Material or the name of one, as 'Pb'")
    return material


def _number_of_layers(sizes: dict[str, Tensor], n_layers: int | None) -> int:
    """Return the number of layers, from thicknesses of one a layer where it is not given."""
    if n_layers is None:
        said = {int(size.shape[-1]) for size in sizes.values() if size.ndim and size.shape[-1] != 1}
        if len(said) != 1:
            raise InputError(
                "sampling design: expected n_layers, the number of layers, or thicknesses of one a layer"
                + (f", not of {' and '.join(map(str, sorted(said)))}" if said else "")
            )
        n_layers = said.pop()
    layers = as_count("sampling design: n_layers", n_layers)
    if layers > MOST_LAYERS:
        raise InputError(f"sampling design: n_layers = {layers}: expected at most {MOST_LAYERS}")
    return layers


def _rows(sizes: dict[str, Tensor], layers: int) -> int | None:
    """Return the number of designs in a batch; None of a single design. Raises `InputError` for other shapes."""
    rows = {len(size) for size in sizes.values() if size.ndim == 2}
    n = max(rows, default=None)
    for name, size in sizes.items():
        fits = size.ndim == 0 or (size.ndim <= 2 and size.shape[-1] == layers)
        fits |= size.ndim == 2 and size.shape[-1] == 1
        if not fits or (size.ndim == 2 and len(size) != n) or n == 0:
            raise InputError(
                f"sampling design: {name}_thickness has shape {tuple(size.shape)}, expected (), ({layers},) or "
                f"({'n' if n is None or len(rows) == 1 else n}, {layers}) for {layers} layers"
            )
    return n


def _expanded(size: Tensor, rows: int | None, layers: int) -> Tensor:
    return size.expand(layers) if rows is None else size.expand(rows, layers)


def _summed(thicknesses: Tensor) -> Tensor:
    """Return 0 and the sums of thicknesses, shape (..., n_layers, 3), up to each: shape (..., 3 n_layers + 1)."""
    flat = thicknesses.flatten(-2)
    return torch.cat([torch.zeros_like(flat[..., :1]), flat.cumsum(-1)], -1)


def _shortest(thickness: Tensor) -> list[float]:
    """Return thicknesses as the shortest numbers that round to the same float32: 0.23, not 0.23000000417."""
    return [float(str(number)) for number in thickness.detach().cpu().float().numpy()]


def _in_words(values: Tensor, form: str = "g") -> str:
    low, high = (float(end) for end in values.detach().aminmax())
    return f"{low:{form}}" if low == high else f"{low:{form}} to {high:{form}}"
