"""Plausibility of showers: are energies in one unit, and do the showers lie on their axis?

A calorimeter cannot hold more than the incident energy, and units are a factor of 1000 apart. So the mean share
E_deposited / E_incident distinguishes another unit from a bad detector or a bad surrogate.
"""

from __future__ import annotations

from math import hypot

import numpy as np

from calograd.errors import InputError

HIGHEST = 1.2
"""Largest mean share of the incident energy that needs no remark."""
HOMOGENEOUS = 1e-2
"""Smallest plausible mean share of a calorimeter that measures all deposits."""
SAMPLING = 1e-3
"""Smallest plausible mean share of a calorimeter that measures thin layers alone."""
CERTAIN = 10.0
"""Factor beyond either end of the plausible range from which another unit is certain."""
OFF_AXIS = 5.0
"""Distance of the mean position from the shower's axis that needs a remark, cm: more than any Moliere radius."""
OUTSIDE = 20.0
"""Distance from which the positions cannot be those of showers about their axis, cm: half of a stack's width."""


def check_energies(deposited: np.ndarray, energy: np.ndarray, what: str, lowest: float = HOMOGENEOUS) -> list[str]:
    """Check that deposits and incident energies are in GeV both.

    Args:
        deposited: energy of every shower, shape (n,), GeV.
        energy: incident energy of every shower, shape (n,), GeV.
        what: name of the showers in sentences, as ``"generated cells"``.
        lowest: smallest plausible mean share, `HOMOGENEOUS` or `SAMPLING`.

    Returns:
        No sentence, or one on a share that is odd but may be the showers' own fault.

    Raises:
        InputError: the share can only be explained by another unit.
    """
    if not len(energy):
        return []
    share = float(np.mean(np.asarray(deposited, np.float64) / energy))
    if not np.isfinite(share) or lowest <= share <= HIGHEST:
        return []
    unit = "the deposits are in MeV or keV" if share > 1 else "the incident energies are in MeV or keV"
    sentence = f"{what} hold {share:.3g} times the incident energy on average"
    if not lowest / CERTAIN < share < HIGHEST * CERTAIN and share > 0:
        raise InputError(f"{sentence}; {unit}: expected GeV for both")
    return [f"{sentence}; perhaps {unit}: expected GeV for both"]


def check_axis(x: float, y: float, what: str) -> list[str]:
    """Check that showers lie on their axis, in cm.

    Args:
        x, y: mean position of the energy, cm from the axis.
        what: name of the showers in sentences.

    Returns:
        No sentence, or one on a position that is odd but may be the showers' own fault.

    Raises:
        InputError: the showers lie outside of any detector about their axis.
    """
    if hypot(x, y) <= OFF_AXIS:
        return []
    sentence = f"the middle of the energy of {what} is at x = {x:.3g}, y = {y:.3g} cm, expected the axis at 0"
    if hypot(x, y) > OUTSIDE:
        raise InputError(f"{sentence}; subtract the entry point of the particle, and check the unit of lengths")
    return [sentence]
