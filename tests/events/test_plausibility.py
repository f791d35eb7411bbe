"""Energies in another unit are noticed."""

from __future__ import annotations

import numpy as np
import pytest

from calograd.errors import InputError
from calograd.events.plausibility import SAMPLING, check_energies

ENERGY = np.array([10.0, 50.0])


@pytest.mark.parametrize(("share", "lowest"), [(0.95, 0.01), (1.05, 0.01), (0.02, SAMPLING)])
def test_plausible_shares_need_no_remark(share: float, lowest: float) -> None:
    assert check_energies(share * ENERGY, ENERGY, "cells", lowest) == []


@pytest.mark.parametrize(
    ("share", "words"),
    [(950.0, "950 times .*; the deposits are in MeV"), (9.5e-4, "0.00095 times .*; the incident energies are in MeV")],
)
def test_another_unit_is_refused(share: float, words: str) -> None:
    with pytest.raises(InputError, match=f"cells hold {words} or keV: expected GeV for both"):
        check_energies(share * ENERGY, ENERGY, "cells")


@pytest.mark.parametrize("share", [2.0, 0.005])
def test_an_odd_share_is_remarked_on(share: float) -> None:
    (sentence,) = check_energies(share * ENERGY, ENERGY, "cells")
    assert sentence.startswith(f"cells hold {share:.3g} times the incident energy on average; perhaps")


def test_showers_without_any_energy_are_not_a_matter_of_units() -> None:
    assert len(check_energies(0 * ENERGY, ENERGY, "cells")) == 1
    assert check_energies(ENERGY[:0], ENERGY[:0], "cells") == []
