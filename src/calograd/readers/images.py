"""The file of arXiv 2601.07859: images of showers with labels (HDF5).

    images_xz, images_yz    (N, 100, 100)   projections over the detector's volume: x or y first, then z
    labels_energy           (N,)            incident energy, GeV
    labels_xy, labels_z     (N,)            pitch and depth of the 5 x 5 x 5 cells, cm
    labels_material         (N,)            names, or numbers whose meaning the file does not state

`Images.maps` converts them to maps of energy. Images that were scaled to their own maximum, as that paper's published
code prepares them, have lost their energy and are refused there. A file may hold one geometry or many.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import h5py
import numpy as np

from calograd.detector.material import Material
from calograd.errors import FormatError, InputError
from calograd.events.binning import PIXELS, resample
from calograd.events.dense import Maps
from calograd.io.hdf5 import check_datasets, reading
from calograd.system.progress import Progress, silent

SIZE = 100
"""Number of pixels of an image across and along the shower."""
N_CELLS = 5
"""Number of cells of the paper's detector in each direction."""
IMAGES = ("images_xz", "images_yz")
LABELS = ("labels_energy", "labels_xy", "labels_z", "labels_material")
GEV = {"GeV": 1.0, "MeV": 1e-3}
Unit = Literal["GeV", "MeV"]
SAME_MAXIMUM = 1e-6
"""Relative tolerance within which equal maxima show that images were scaled to them."""
BLOCK = 4096
"""Number of images in memory at a time while a file is converted to maps."""


@dataclass(frozen=True)
class Images:
    """Images and labels as a file holds them.

    Args:
        xz, yz: shape (n, 100, 100), in the file's unit of energy.
        energy: incident energy, shape (n,), GeV.
        dx: pitch of the cells, shape (n,), cm.
        dz: depth of the layers, shape (n,), cm.
        material: label of every image, shape (n,), text.
        source: the file, for error messages.
    """

    xz: np.ndarray
    yz: np.ndarray
    energy: np.ndarray
    dx: np.ndarray
    dz: np.ndarray
    material: np.ndarray
    source: str

    def __len__(self) -> int:
        return len(self.energy)

    @property
    def normalised(self) -> bool:
        """True if every image was scaled to its own maximum, so that its energy is lost."""
        largest = self.xz.max((1, 2))
        filled = largest[largest > 0]
        return len(filled) > 1 and bool(np.ptp(filled) <= SAME_MAXIMUM * filled[0])

    def maps(self, materials: Mapping[str, Material] | None = None, unit: Unit = "GeV", pixels: int = PIXELS) -> Maps:
        """Return the x-z images as maps.

        Args:
            materials: material of every label; None: the labels are names that `Material.parse` knows.
            unit: unit of the images' energies.
            pixels: pixels of the maps, across and along; the energy is conserved.

        Raises:
            InputError: labels that name no material or several, images without energy or in another unit.
        """
        material = self._material(materials)
        if self.normalised:
            raise InputError(
                f"{self.source}: every image has the same maximum, {self.xz.max():g}: they were scaled to it and their "
                "energy is lost; expected deposited energies"
            )
        energies = self.xz * GEV[unit]
        fraction = float((energies.sum((1, 2)) / self.energy).mean())
        if not 1e-2 <= fraction <= 1.2:
            hint = "MeV" if unit == "GeV" and 1e-2 <= fraction * 1e-3 <= 1.2 else "another one"
            raise InputError(
                f"{self.source}: the images hold {fraction:.3g} times the incident energy on average; "
                f"expected {unit}, perhaps they are in {hint}"
            )
        return Maps(
            resample(energies, pixels), self.energy.astype(np.float32), self.dx.astype(np.float32),
            np.repeat(self.dz[:, None], N_CELLS, 1).astype(np.float32), N_CELLS, np.arange(len(self)), material,
            "geant4", {"mode": "stand-alone", "source": self.source},
        )  # fmt: skip

    def _material(self, materials: Mapping[str, Material] | None) -> Material:
        """Return the one material of all images."""
        labels = sorted(set(self.material.tolist()))
        if len(labels) != 1:
            raise InputError(f"{self.source} holds images of {', '.join(labels)}; choose those of one, see Images.of")
        if materials is None:
            try:
                return Material.parse(labels[0])
            except InputError as error:
                raise InputError(f"{self.source}: label '{labels[0]}': say what it means; {error}") from error
        if labels[0] not in materials:
            known = ", ".join(materials) or "nothing"
            raise InputError(f"{self.source}: label '{labels[0]}' is not among those that are known: {known}")
        return materials[labels[0]]

    def of(self, label: str) -> Images:
        """Return the images with one material's label."""
        rows = self.material == label
        return Images(
            self.xz[rows], self.yz[rows], self.energy[rows], self.dx[rows], self.dz[rows], self.material[rows],
            self.source,
        )  # fmt: skip


def read_images(path: Path, rows: slice = slice(None)) -> Images:
    """Read a file of the paper's layout, or some of its rows.

    Raises:
        FormatError: missing, no HDF5, without some of the data sets, images of another size, labels that do not fit
            the images or each other.
    """
    with _opened(path) as file:
        data = {name: file[name][rows] for name in (*IMAGES, *LABELS)}
    data["labels_material"] = _text(data["labels_material"])
    _check(data, path, rows.start or 0)
    xz, yz, energy, dx, dz, material = (data[name] for name in (*IMAGES, *LABELS))
    return Images(xz, yz, energy, dx, dz, material, str(path))


def maps_of_images(
    path: Path,
    label: str | None = None,
    material: Material | None = None,
    unit: Unit = "GeV",
    progress: Progress = silent,
) -> Maps:
    """Return `Images.maps` of a file of any size; `BLOCK` images at a time are in memory.

    Args:
        path: a file of the paper's layout.
        label: label of the material whose images are taken; None: the only one.
        material: material of that label; None: it is a name that `Material.parse` knows.
        unit: unit of the images' energies.
        progress: called with the images read and their number.

    Raises:
        FormatError: see `read_images`.
        InputError: see `Images.maps`, or no images of that label.
    """
    with _opened(path) as file:
        labels = _text(file["labels_material"][()])
    known = sorted(set(labels.tolist()))
    if label is None and len(known) > 1:
        raise InputError(f"{path} holds images of {', '.join(known)}; choose those of one (--label)")
    if label is not None and label not in known:
        raise InputError(f"{path} holds no images of '{label}', it has those of {', '.join(known)}")
    chosen = known[0] if label is None else label
    materials, parts = None if material is None else {chosen: material}, []
    for start in range(0, len(labels), BLOCK):
        images = read_images(path, slice(start, min(start + BLOCK, len(labels)))).of(chosen)
        if len(images):
            parts.append(images.maps(materials, unit))
        progress(min(start + BLOCK, len(labels)), len(labels))
    return Maps.concatenate(parts, np.arange(sum(map(len, parts))))


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """Open a file and check that it has the data sets, of shapes that fit."""
    with reading(path, "the images of arXiv 2601.07859") as file:
        check_datasets(file, path, (*IMAGES, *LABELS), ", ".join((*IMAGES, *LABELS)))
        _check_shapes({name: file[name].shape for name in (*IMAGES, *LABELS)}, path)
        yield file


def _check_shapes(shapes: dict[str, tuple[int, ...]], path: Path) -> None:
    """Refuse images and labels of different numbers, or of another size."""
    n = shapes[IMAGES[0]][0] if shapes[IMAGES[0]] else 0
    if n == 0:
        raise FormatError(f"{path} holds no images")
    for name, shape in shapes.items():
        if name in IMAGES and shape != (n, SIZE, SIZE):
            raise FormatError(f"{path}: {name} has shape {shape}, expected ({n}, {SIZE}, {SIZE})")
        if name in LABELS and shape != (n,):
            raise FormatError(f"{path}: {name} has shape {shape}, expected one for each of the {n} images")


def _text(labels: np.ndarray) -> np.ndarray:
    """Return labels as text: names as they are, numbers without a fraction of zero."""
    words = (x.decode() if isinstance(x, bytes) else f"{x:g}" if isinstance(x, float) else str(x) for x in labels.flat)
    return np.array(list(words), dtype=object).reshape(labels.shape)


def _check(data: dict[str, np.ndarray], path: Path, first: int) -> None:
    """Refuse numbers that no shower can have, in rows of a file from the row ``first`` on."""
    for name in IMAGES:
        good = ((data[name] >= 0) & (data[name] < np.inf)).all((1, 2))
        _refuse(~np.asarray(good), f"{path}: {name} holds NaN or negative energies", first)
    for name in LABELS[:-1]:
        labels = data[name]
        if labels.dtype.kind not in "fiu":
            raise FormatError(f"{path}: {name} are of type {labels.dtype}, expected numbers")
        good = (labels > 0) & (labels < np.inf)
        _refuse(~np.asarray(good), f"{path}: {name} holds numbers that are not positive", first)


def _refuse(bad: np.ndarray, complaint: str, first: int) -> None:
    if bad.any():
        raise FormatError(f"{complaint}, first in row {first + int(np.argmax(bad))}; make the file anew")
