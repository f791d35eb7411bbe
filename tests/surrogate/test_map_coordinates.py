from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from calograd.surrogate.maps.coordinates import decode, encode, mirror_permutations, shape_dim
from calograd.surrogate.two_stage import symmetry_classes
from calograd.system.random_numbers import RandomNumbers

P, SLABS = 8, 4


def numbers(maps: Tensor) -> RandomNumbers:
    return RandomNumbers(1, range(len(maps)))


def random_maps(seed: int, n: int = 6, empty: float = 0.3, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Maps with empty pixels and, in some, an empty slab, and their incident energies of 1 to 100 GeV."""
    g = torch.Generator().manual_seed(seed)
    energy = torch.exp(torch.rand(n, generator=g, dtype=dtype) * 4.6)
    maps = torch.rand(n, P, P, generator=g, dtype=dtype).pow(6)
    maps = maps * (torch.rand(maps.shape, generator=g) > empty)
    maps[::3, :, -2:] = 0
    maps = maps / maps.sum((1, 2), keepdim=True) * (0.8 + 0.19 * torch.rand(n, 1, 1, generator=g, dtype=dtype))
    return maps * energy[:, None, None], energy


def filled_maps() -> tuple[Tensor, Tensor]:
    """Maps without an empty pixel: nothing is drawn in encoding them."""
    maps, energy = random_maps(1, empty=0.0)
    return maps[1:3], energy[1:3]


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 4, 8]))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_decoding_inverts_encoding(seed: int, slabs: int) -> None:
    maps, energy = random_maps(seed, dtype=torch.float64)
    g, c = encode(maps, energy, slabs, numbers(maps))
    assert g.shape == (6, shape_dim(slabs))
    assert c.shape == (6, P * P)
    again = decode(g, c, energy, slabs)
    torch.testing.assert_close(again, maps, rtol=1e-3, atol=1e-6)
    assert torch.equal(again == 0, maps == 0)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_energy_and_slabs_are_conserved_whatever_is_decoded(seed: int) -> None:
    g_ = torch.Generator().manual_seed(seed)
    g, c = torch.randn(5, shape_dim(SLABS), generator=g_), torch.randn(5, P * P, generator=g_)
    energy = torch.full((5,), 10.0)
    maps = decode(g, c, energy, SLABS)
    assert float(maps.min()) >= 0
    torch.testing.assert_close(maps.sum((1, 2)), g[:, 0].sigmoid() * energy, rtol=1e-5, atol=1e-6)
    again, _ = encode(maps, energy, SLABS, numbers(maps))
    torch.testing.assert_close(again[:, 0], g[:, 0], rtol=1e-4, atol=1e-4)


def test_the_width_is_set_where_it_is_within_reach() -> None:
    maps, energy = random_maps(0, empty=0.0, dtype=torch.float64)
    g, c = encode(maps, energy, SLABS, numbers(maps))
    g[:, -1] += 0.1
    again, _ = encode(decode(g, c, energy, SLABS), energy, SLABS, numbers(maps))
    torch.testing.assert_close(again[:, -1], g[:, -1], rtol=0, atol=1e-3)
    torch.testing.assert_close(again[:, 0], g[:, 0], rtol=1e-6, atol=1e-6)


def test_gradients_agree_with_differences() -> None:
    maps, energy = random_maps(3, n=2, dtype=torch.float64)
    g, c = encode(maps, energy, SLABS, numbers(maps))
    inputs = tuple(v.clone().requires_grad_(True) for v in (g, c, energy))
    assert torch.autograd.gradcheck(lambda *v: decode(*v, SLABS), inputs, fast_mode=True, eps=1e-7, atol=1e-4)


def test_empty_pixels_and_slabs_lie_below_zero() -> None:
    maps, energy = random_maps(0)
    g, c = encode(maps, energy, SLABS, numbers(maps))
    assert torch.equal(c > 0, maps.flatten(1) > 0)
    lowest = (torch.tensor(1e-4) / energy).log()
    assert bool((g[::3, SLABS] < lowest[::3] - 0.05).all())  # the last slab of every third map is empty


def test_the_symmetry_is_the_mirror_in_x() -> None:
    maps, energy = filled_maps()
    permutations, classes = mirror_permutations(P), symmetry_classes(mirror_permutations(P))
    assert torch.equal(permutations[0], torch.arange(P * P))
    g, c = encode(maps, energy, SLABS, numbers(maps))
    mirrored, d = encode(maps.flip(1), energy, SLABS, numbers(maps))
    torch.testing.assert_close(mirrored, g, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(d, c[:, permutations[1]], rtol=1e-4, atol=1e-5)
    assert torch.equal(classes, classes[permutations[1]])
    assert int(classes.max()) == P * P // 2 - 1


def test_more_slabs_resolve_more() -> None:
    maps, energy = filled_maps()
    for slabs in (1, 2, 8):
        g, _ = encode(maps, energy, slabs, numbers(maps))
        layers = maps.unflatten(2, (slabs, -1)).sum((1, 3))
        torch.testing.assert_close(g[:, 1 : 1 + slabs].exp() * energy[:, None], layers + 1e-4, rtol=1e-4, atol=0)
