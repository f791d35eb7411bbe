"""Write images as the file of arXiv 2601.07859 holds them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from calograd.events.binning import project_deposits
from calograd.events.library.reader import Library
from calograd.readers.images import N_CELLS, SIZE


def write_images(path: Path, library: Library, sizes: list[tuple[float, float]]) -> None:
    """Write showers of a library in the paper's layout, in GeV: every shower at every (dx, dz) in cm."""
    material, showers, n = library.material, library.read(), len(library)
    with h5py.File(path, "w") as file:
        for name, seen in (("images_xz", showers), ("images_yz", replace(showers, x=showers.y, y=showers.x))):
            images = [project_deposits(seen, *size, N_CELLS, N_CELLS, SIZE) for size in sizes]
            file.create_dataset(name, data=np.concatenate(images), compression="gzip")
        file["labels_energy"] = np.tile(library.energy, len(sizes))
        file["labels_xy"] = np.repeat(np.array([dx for dx, _ in sizes], dtype=np.float32), n)
        file["labels_z"] = np.repeat(np.array([dz for _, dz in sizes], dtype=np.float32), n)
        file["labels_material"] = [material.name] * (n * len(sizes))
