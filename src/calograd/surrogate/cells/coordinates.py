"""The coordinates in which a shower's cells are learnt.

The total deposit fluctuates by 0.1 to 2 %, single cells by tens of per cent and strongly against each other. So the
numbers that must be right are coordinates of their own. E is the incident energy, E_tot the energy in the window and
E_k a layer's energy. C_k is the energy of a layer's innermost cells (the core: one cell, or four of an even number
across), R_k = E_k - C_k that of the others (the rest). e_ik is a cell's energy and r_i its distance from the axis, in
units of cells:

    shape of the shower   g_0  = logit(E_tot / E)
                          g_k  = ln((E_k + eps) / E),                       eps = 0.1 MeV
                          g_M  = ln((M + eps) / E),                         M = sum e_ik r_i^2
                          g'_k = ln((C_k + eps) / (R_k + eps))
    pattern of a layer    c_ik = (h(e_ik) / C_k)^(1/3) or (h(e_ik) / R_k)^(1/3),  a core of one cell has none

Where particles enter anywhere and at an angle, position and direction are reconstructed from the layers' centres of
gravity. The centres of one tilted shower fluctuate together: a shower that begins late is farther along x in every
layer, and its energy is in later layers. So the shape also has the first two moments of the whole shower about the
particle's line, and every layer's centre relative to the straight line that these moments describe. With
X_k = sum e_ik x_i over a layer, in units of cells from the middle of the window, and (l_k, m_k) where the particle's
line is at the depth z_k at which the layer's energy lies,

                          t_j  = sum_k a_k^j (X_k - l_k E_k) / (E_tot + E_1) + w n / 20,       j = 0 and 1
                          x_k  = (X_k - (l_k + t_0 + t_1 a_k) E_k) / (E_k + E_1) + w_k n / 20
                          a_k  = (z_k - z) / s,  z = sum E_k z_k / E_tot,  s^2 = sum E_k (z_k - z)^2 / E_tot + s_0^2
                          E_1  = 10 MeV,  w = E_1 / (E_tot + E_1),  w_k = E_1 / (E_k + E_1),  n ~ N(0, 1)

and y_k likewise. z_k is not the middle of the layer where the longitudinal profile rises or falls: it is zeta_k of
`calograd.metrics.observables.reconstruct` for a shower that is X0 wide. E_1 keeps centres of a few MeV from being at
whole numbers. In units of s, t_1 vanishes where all energy is in one layer. (With a_k the depth from the front face, of
which the slope is a quarter of t_1 and t_0 times the depth the rest, the angular resolution at normal incidence came
out at 1.15 of Geant4's; see `docs/log.md`.)

M is the transverse width of the whole shower. At high energies it fluctuates by a few per cent, less than its cells.
Without a coordinate of its own its fluctuations were 5 to 15 % too large, with the balances of core and rest alone
4 to 14 %. Fewer than three cells across have neither width nor balance; their shares are of E_k.

In showers of 1 GeV one filled cell in 20 to 40 holds exactly m_e = 0.511 MeV: a photon of an annihilation, absorbed
whole. A network smears such a line over its neighbours. Some of these then pass a threshold of 1 MeV: 3 to 5 % too many
cells did. h gives the line as much room as its neighbours have, A = 0.1 MeV at all energies and designs,

    h(e) = e  below m_e,  m_e + A u  at it, u uniform in [0, 1],  e + A  above,

so that there is no line to learn; decoding puts all of that room back to m_e.

Empty layers and cells become a cluster of their own below zero, as wide as it is far. So the distribution has no
spike, the two clusters do not touch, and decoding gives exact zeros:

    E_k = 0    ->  g_k = ln(eps / E) - v, and so for M           v = 1 + 0.3 n >= 0.1,  n ~ N(0, 1)
    C_k = 0    ->  g'_k lowered by v;  R_k = 0: raised by v;  both: g'_k = v - 1
    e_ik = 0   ->  c_ik = -v min((e_0 / (C_k or R_k))^(1/3), 0.3)    e_0 = 1 MeV

(Spread evenly over [-(e_0 / E_k)^(1/3), 0] with e_0 = 0.1 MeV instead, empty cells formed a spike beside the others and
a third of them came out filled.)

Decoding inverts this with negative values set to zero. It scales cells to core and rest, these to E_k and the layers
to E_tot, so energy is conserved for any input; if nothing is positive, the largest cell gets all. M is set by
multiplying R_k / C_k of all layers by one factor. Before that the shares of a rest are multiplied by
exp(l_x x_i + l_y y_i), such that its centre is X_k / R_k; less so where R_k is not large against E_1, where the centre
is of little weight. At the end the shares of all cells of a layer are multiplied by
exp((u_x + v_x a_k) x_i + (u_y + v_y a_k) y_i + q r_i^2), such that t_j and M of the whole shower are those wanted.
Where they cannot be (a centre far from the middle of a wide cell needs some energy beside it) M is kept: a centre that
wins made M 7 % too large at 4 to 6 cm with a network of few steps. Every step is differentiable.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from calograd.nn.elementwise import exp
from calograd.nn.linear import linear_by
from calograd.system.random_numbers import RandomNumbers

EPS = 1e-4
"""Softening of a layer's energy, GeV."""
LINE = 0.51099895e-3
"""Mass of the electron, m_e, GeV."""
LINE_ROOM = 1e-4
"""Room of the line, A of the formulas above, GeV."""
LINE_WIDTH = 1e-8
"""Largest distance from m_e at which a cell is on the line, GeV."""
E_0 = 1e-3
"""Distance of the cluster of empty cells below zero, e_0 of the formulas above, GeV."""
NOTHING = 1e-12
"""Largest positive part that is taken for zero, so that no gradient overflows, GeV."""
NEWTON_STEPS = 3
"""Steps of Newton's method for the factor that sets M; it is close to one."""
CENTRE_SOFT = 1e-2
"""Softening of a centre, E_1 of the formulas above, GeV."""
CENTRE_SPREAD = 0.05
"""Spread of the centre of an empty layer, in cells."""
CENTRE_STEPS = 2
"""Steps of Newton's method for the centre of a rest; it is close already."""
MOMENT_STEPS = 3
"""Steps of Newton's method for the moments of the shower and its width."""
LARGEST_TILT = 0.3
"""Largest exponent of such a step for each cell of distance: of wide cells of 1 GeV longer steps miss moments and M."""
LARGEST_WIDENING = 0.1
"""Largest exponent of such a step for each r_i^2."""
WIDTH_ACROSS = 1.0
"""Spread of a shower across its axis in the depth at which a layer's energy lies, X0."""
LEAST_SPREAD = 0.5
"""Softening of the spread of the depths of a shower's energy, s_0 of the formulas above, X0."""
FARTHEST_ARM = 4.0
"""Largest |a_k| of the formulas above; layers farther off hold little energy."""
MOMENT_SOFT = 1e-3
"""Variance of the cells' places, in cells squared, below which the moments of the shower are not set exactly."""
LOGIT_BOUND = 14.0
"""Largest |g_0|: leakage below exp(-14) is not resolved by float32 showers."""


class Line(NamedTuple):
    """The particles' lines through the layers of their windows.

    Args:
        place: where the line is in the middle of a layer's depth, in cells from the middle of the window, shape
            (n, n_z, 2) or (1, n_z, 2).
        thickness: depth of the layers, X0, shape (n, n_z) or (1, n_z).
        crossing: how many cells the line crosses in x and y within the layer, shape as ``place``.
    """

    place: Tensor
    thickness: Tensor
    crossing: Tensor

    def about(self, layers: Tensor) -> Axis:
        """Return the lines at the depths where the energy of showers lies, or in the middle of the layers.

        Args:
            layers: energy of the layers, shape (n, n_z), GeV.
        """
        thick = self.thickness
        depth, place = thick.cumsum(1) - thick / 2, self.place
        density = (layers + EPS) / thick
        root = density.sqrt()
        last = density[:, -1:] * (root[:, -1:] / root[:, -2:][:, :1]).clamp(max=1)
        faces = torch.cat([torch.zeros_like(last), root[:, 1:] * root[:, :-1], last], 1)
        slope = torch.minimum((faces.diff(dim=1) / (layers + EPS)).abs(), 6 / thick) * faces.diff(dim=1).sign()
        behind = slope * (thick.square() / 12 + WIDTH_ACROSS**2)
        depth, place = depth + behind, place + (behind / thick)[:, :, None] * self.crossing
        total = layers.sum(1, keepdim=True).clamp(min=1e-9)
        off = depth - (layers * depth).sum(1, keepdim=True) / total
        spread = ((layers * off.square()).sum(1, keepdim=True) / total + LEAST_SPREAD**2).sqrt()
        arm = (off / spread).clamp(-FARTHEST_ARM, FARTHEST_ARM)
        return Axis(place.transpose(1, 2), torch.stack([torch.ones_like(arm), arm], 1))


class Axis(NamedTuple):
    """The particles' lines at the depths where the energy of showers lies.

    Args:
        place: l_k and m_k of the formulas above, shape (n, 2, n_z) or (1, 2, n_z).
        weights: a_k^j of the formulas above, shape as ``place``.
    """

    place: Tensor
    weights: Tensor

    def firsts(self, moments: Tensor, layers: Tensor) -> Tensor:
        """Return X_k of layers with x_k = 0, shape (n, 2, n_z), GeV: they lie on the straight line of the moments.

        Args:
            moments: t_j of x and y, shape (n, 2, 2).
            layers: E_k, shape (n, n_z), GeV.
        """
        return (self.place + moments @ self.weights) * layers[:, None]


def core_cells(n_xy: int) -> Tensor:
    """Return a mask of the cells of a layer's core, shape (n_xy * n_xy,), bool.

    Fewer than three cells across have no core.
    """
    core, _ = _core_and_around(n_xy)
    return torch.tensor([cell in core for cell in range(n_xy * n_xy)])


@cache
def _core_and_around(n_xy: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the cells of the core and the others, in order."""
    inner = [n_xy >= 3 and abs(2 * i - n_xy + 1) <= 1 for i in range(n_xy)]
    core = [i * n_xy + j for i in range(n_xy) for j in range(n_xy) if inner[i] and inner[j]]
    return tuple(core), tuple(cell for cell in range(n_xy * n_xy) if cell not in core)


@cache
def _places(n_xy: int) -> tuple[int, ...]:
    """Return the place of each cell among those of the core and the others, one after the other."""
    core, around = _core_and_around(n_xy)
    order = core + around
    return tuple(order.index(cell) for cell in range(n_xy * n_xy))


@cache
@torch.inference_mode(False)
def _rest_places(n_xy: int) -> Tensor:
    """Return x and y of the cells of the rest, in units of cells from the middle, shape (cells, 2), float64."""
    _, around = _core_and_around(n_xy)
    middle = (n_xy - 1) / 2
    return torch.tensor([(cell // n_xy - middle, cell % n_xy - middle) for cell in around], dtype=torch.float64)


@cache
@torch.inference_mode(False)
def _places_of(n_xy: int) -> Tensor:
    """Return x and y of all cells, in units of cells from the middle, shape (cells, 2), float64."""
    place = torch.arange(n_xy, dtype=torch.float64) - (n_xy - 1) / 2
    return torch.cartesian_prod(place, place)


@cache
def _beyond_core(n_xy: int) -> tuple[float, tuple[float, ...]]:
    """Return r_i^2 of a cell of the core, and by how much that of every other one is larger."""
    core, around = _core_and_around(n_xy)
    square = [(i - (n_xy - 1) / 2) ** 2 for i in range(n_xy)]
    distance = [square[cell // n_xy] + square[cell % n_xy] for cell in range(n_xy * n_xy)]
    return distance[core[0]], tuple(distance[cell] - distance[core[0]] for cell in around)


def pattern_cells(n_xy: int) -> Tensor:
    """Return the cells of a layer that the pattern holds, in its order: the core if it is of several, then the rest."""
    core = core_cells(n_xy)
    inner = torch.nonzero(core).flatten()
    return torch.cat([inner if len(inner) > 1 else inner[:0], torch.nonzero(~core).flatten()])


def shape_dim(n_xy: int, n_z: int, line: bool = False) -> int:
    """Return how many numbers a shower's shape has: total, layers, width, the layers' balances; centres, moments.

    Args:
        n_xy, n_z: cells of the window.
        line: True if the particle's line is known, which centres and moments are about.
    """
    return 1 + n_z + (1 + n_z + (2 * n_z + 4) * line) * bool(core_cells(n_xy).any())


def pattern_dim(n_xy: int, n_z: int) -> int:
    """Return how many numbers a shower's pattern has."""
    return len(pattern_cells(n_xy)) * n_z


def encode(cells: Tensor, energy: Tensor, random: RandomNumbers, line: Line | None = None) -> tuple[Tensor, Tensor]:
    """Return the coordinates of showers.

    Args:
        cells: shape (n, n_xy, n_xy, n_z), GeV.
        energy: incident, shape (n,), GeV.
        random: random numbers of the showers, which spread what is empty.
        line: the particles' lines; with them the shape has the centres of the layers and the moments of the shower.

    Returns:
        ``g`` of shape (n, `shape_dim`) and ``c`` of shape (n, `pattern_dim`), in the order of `pattern_cells`, the
        layers of a cell side by side.
    """
    g = encode_shape(cells, energy, random, line)
    inner, outer, _ = _core_and_rest(cells)
    groups = [encode_pattern(inner, random)] if inner.shape[1] > 1 else []
    pattern = torch.cat([*groups, encode_pattern(outer, random)], dim=1)
    return g, pattern.reshape(len(cells), -1)


def encode_shape(cells: Tensor, energy: Tensor, random: RandomNumbers, line: Line | None = None) -> Tensor:
    """Return ``g`` of `encode` alone."""
    inner, outer, flat = _core_and_rest(cells)
    layers = flat.sum(1)
    total = torch.logit((layers.sum(1) / energy).clamp(1e-6, 1 - 1e-6)).clamp(-LOGIT_BOUND, LOGIT_BOUND)
    g = [total[:, None], amount(layers, energy, random)]
    if inner.shape[1] > 0:
        second = flat.sum(2) @ _squared_distance(cells.shape[1]).to(flat)
        g += [amount(second[:, None], energy, random), _balance(inner.sum(1), outer.sum(1), random)]
    if line is not None:
        g += _centres_and_moments(flat, layers, line, random)
    return torch.cat(g, dim=1)


def _centres_and_moments(flat: Tensor, layers: Tensor, line: Line, random: RandomNumbers) -> list[Tensor]:
    """Return x_k, then y_k, shape (n, 2 n_z), and t_j of x, then of y, shape (n, 4), of the formulas above.

    Args:
        flat: all cells, shape (n, cells, n_z), GeV.
        layers: E_k, shape (n, n_z), GeV.
        line: the particles' lines.
        random: random numbers of the showers.
    """
    axis, energies = line.about(layers), layers[:, None]
    firsts = _places_of(round(flat.shape[1] ** 0.5)).to(flat).T @ flat  # (n, axis, n_z)
    noise, whole = random.normal_like(firsts), 1 / (layers.sum(1)[:, None, None] + CENTRE_SOFT)
    moments = (firsts - axis.place * energies) @ axis.weights.transpose(1, 2) * whole  # (n, axis, j)
    moments = moments + CENTRE_SPREAD * CENTRE_SOFT * whole * random.normal_like(moments)
    off = firsts - axis.firsts(moments, layers)
    centres = (off + CENTRE_SPREAD * CENTRE_SOFT * noise) / (energies + CENTRE_SOFT)
    return [centres.flatten(1), moments.flatten(1)]


def _core_and_rest(cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the cells of the core, of the rest, and all of them, shape (n, cells, n_z) each."""
    flat = cells.reshape(len(cells), -1, cells.shape[-1])
    core = core_cells(cells.shape[1]).to(cells.device)
    return flat[:, core], flat[:, ~core], flat


def _squared_distance(n_xy: int) -> Tensor:
    """Return r_i^2 of the cells of a layer, shape (n_xy * n_xy,)."""
    square = (torch.arange(n_xy) - (n_xy - 1) / 2) ** 2
    return (square[:, None] + square).flatten()


def amount(values: Tensor, energy: Tensor, random: RandomNumbers) -> Tensor:
    """Return g_k and g_M of the formulas above, of values (n, m)."""
    v = _below_zero(values, random)
    return ((values + EPS) / energy[:, None]).log() - torch.where(values > 0, 0.0, v)


def amount_of(g: Tensor, energy: Tensor) -> Tensor:
    """Return the values that `amount` encoded, negative for none."""
    return g.clamp(max=3.0).exp() * energy[:, None] - EPS


def _balance(core: Tensor, rest: Tensor, random: RandomNumbers) -> Tensor:
    """Return g' of the formulas above."""
    v = _below_zero(core, random)
    lowered = torch.where(core > 0, 0.0, v)
    raised = torch.where(rest > 0, 0.0, v)
    both = (core > 0) | (rest > 0)
    return torch.where(both, ((core + EPS) / (rest + EPS)).log() - lowered + raised, v - 1)


def encode_pattern(cells: Tensor, random: RandomNumbers) -> Tensor:
    """Return c of a group of cells, shape (n, cells, n_z)."""
    safe = cells.sum(1, keepdim=True).clamp(min=1e-12)
    distance = (E_0 / safe).pow(1 / 3).clamp(max=0.3)
    spread = random.fractions(*cells.shape[1:], like=cells)
    room = torch.where((cells - LINE).abs() < LINE_WIDTH, spread, (cells > LINE).to(cells)) * LINE_ROOM
    return torch.where(cells > 0, ((cells + room) / safe).pow(1 / 3), -_below_zero(cells, random) * distance)


def _below_zero(like: Tensor, random: RandomNumbers) -> Tensor:
    """Return v of the formulas above, same shape as ``like``."""
    return (1 + 0.3 * random.normal_like(like)).clamp(min=0.1)


def layer_energies(g: Tensor, energy: Tensor, n_z: int) -> Tensor:
    """Return the energy of every layer, shape (n, n_z), GeV, from the shape coordinates; they add up to E_tot."""
    # Not sigmoid(), which ONNX Runtime knows to 1e-7 of one only: 1e-3 of the energy of a shower that nearly all leaks.
    total = energy / (1 + (-g[:, 0].clamp(-LOGIT_BOUND, LOGIT_BOUND)).exp())
    return _shares(amount_of(g[:, 1 : 1 + n_z], energy)) * total[:, None]


def decode(g: Tensor, c: Tensor, energy: Tensor, n_xy: int, n_z: int, line: Line | None = None) -> Tensor:
    """Return cells in GeV, shape (n, n_xy, n_xy, n_z), from the coordinates. Differentiable.

    Within, the cells of a layer are side by side, so that sums over them are fast.
    """
    layers = layer_energies(g, energy, n_z)
    core, _ = _core_and_around(n_xy)
    several = len(core) if len(core) > 1 else 0
    pattern = c.reshape(len(c), -1, n_z).transpose(1, 2).contiguous()
    if not core:
        return _window(pattern_shares(pattern, layers) * layers[:, :, None], n_xy)
    balance = _core_share(g[:, 2 + n_z : 2 + 2 * n_z], layers)
    rest = pattern_shares(pattern[:, :, several:], layers * (1 - balance))
    if line is not None:
        centres, moments = torch.split(g[:, 2 + 2 * n_z :], [2 * n_z, 4], 1)
        axis, moments = line.about(layers), moments.reshape(-1, 2, 2)
        firsts = axis.firsts(moments, layers) + centres.reshape(-1, 2, n_z) * (layers[:, None] + CENTRE_SOFT)
        rest = _centred(rest, firsts, layers * (1 - balance), n_xy)
    core_distance, beyond = _beyond_core(n_xy)
    excess = rest @ layers.new_tensor(beyond)
    wanted = amount_of(g[:, 1 + n_z : 2 + n_z], energy)[:, 0].clamp(min=0) - layers.sum(1) * core_distance
    outer = layers * _rest_share(balance, layers * excess, wanted)
    inner = (layers - outer)[:, :, None]
    if several:
        inner = inner * pattern_shares(pattern[:, :, :several], layers * balance)
    cells = _in_order(inner, rest * outer[:, :, None], n_xy)
    return _window(cells if line is None else _aligned(cells, moments, layers, axis, n_xy), n_xy)


def _in_order(inner: Tensor, outer: Tensor, n_xy: int) -> Tensor:
    """Return all cells of the layers in order, shape (n, n_z, cells), from those of the core and the others."""
    if inner.shape[2] == 1:
        half = n_xy**2 // 2
        return torch.cat([outer[:, :, :half], inner, outer[:, :, half:]], 2)
    places = torch.tensor(_places(n_xy), device=outer.device)
    return torch.cat([inner, outer], 2).index_select(2, places)


def _window(cells: Tensor, n_xy: int) -> Tensor:
    """Return cells of layers, shape (n, n_z, cells), as windows, shape (n, n_xy, n_xy, n_z)."""
    stacked = torch.stack(cells.unbind(1), 2)  # a transposition at this place goes wrong in ONNX Runtime
    return stacked.reshape(len(cells), n_xy, n_xy, -1)


def _aligned(cells: Tensor, moments: Tensor, layers: Tensor, axis: Axis, n_xy: int) -> Tensor:
    """Return cells with the shares of layers tilted such that the shower's moments are those wanted; M stays.

    A step of Newton's method solves J (u, v, q) = wanted - got for the five exponents of the formulas above. With C_k
    the covariance of x, y and r^2 of the cells of layer k under their shares, the elements of J are those of
    sum_k a_k^p E_k C_k, where p is 0, 1 or 2.

    Args:
        cells: shape (n, n_z, cells), GeV.
        moments: t_j of x and y, shape (n, 2, 2).
        layers: energy of the layers, shape (n, n_z), GeV.
        axis: the particles' lines.
        n_xy: cells across.
    """
    numbers, statistics, elements, unit = _of_cells(n_xy, cells.dtype, cells.device)
    total, weights = layers.sum(1)[:, None, None] + CENTRE_SOFT, axis.weights
    powers = torch.cat([weights, weights[:, 1:].square()], 1) * layers[:, None]  # (n, p, n_z)
    first = (moments * total + axis.place @ powers[:, :2].transpose(1, 2)).flatten(1)
    powers = powers.permute(1, 2, 0).contiguous()  # showers last: sums over layers are fast
    width = (cells @ numbers[2]).sum(1, keepdim=True)
    wanted, ridge = torch.cat([first, width], 1), MOMENT_SOFT * total * unit
    shares = cells / layers.clamp(min=1e-9)[:, :, None]
    for _ in range(MOMENT_STEPS):
        sums = linear_by(statistics, None, shares).permute(2, 1, 0).contiguous()
        _, mean, square = torch.split(sums / sums[:1].clamp(min=1e-9), [1, 3, 9])  # of x, y and r^2
        covariance = square - (mean[:, None] * mean).flatten(0, 1)
        jacobian = (covariance[:, None] * powers).sum(2).flatten(0, 1)[elements].T.reshape(-1, 5, 5)
        got = (mean[:, None] * powers[:2]).sum(2).flatten(0, 1)[:5].T  # the sixth is of r^2 and a_k
        tilt, wider = torch.split(_solve(jacobian + ridge, wanted - got), [4, 1], 1)
        along_x, along_y = (tilt.reshape(-1, 2, 2) @ weights).clamp(-LARGEST_TILT, LARGEST_TILT).unbind(1)
        widening = wider.clamp(-LARGEST_WIDENING, LARGEST_WIDENING).expand_as(along_x)
        shares = shares * exp(torch.stack([along_x, along_y, widening], 2) @ numbers)
    sums = linear_by(statistics, None, shares)
    middle, whole = n_xy**2 // 2, sums[:, :, 0].clamp(min=1e-9)
    core = shares[:, :, middle]
    rest = (whole - core).clamp(min=1e-9)
    share = _rest_share(core / whole, sums[:, :, 3] / rest * layers, width[:, 0])
    cells = shares * (share * layers / rest)[:, :, None]
    return cells.index_copy(2, elements.new_tensor([middle]), ((1 - share) * layers)[:, :, None])


class _OfCells(NamedTuple):
    """Constants of `_aligned`.

    Args:
        numbers: x, y and r^2 of every cell, in units of cells from the middle, shape (3, cells).
        statistics: one, these and their products, shape (13, cells).
        elements: place of every element of J among the sums over layers, shape (25,). Its rows are of x, of y, each
            without and with a_k, and of r^2.
        unit: the unit matrix of five.
    """

    numbers: Tensor
    statistics: Tensor
    elements: Tensor
    unit: Tensor


@cache
@torch.inference_mode(False)
def _of_cells(n_xy: int, dtype: torch.dtype, device: torch.device) -> _OfCells:
    places = _places_of(n_xy)
    numbers = torch.cat([places, places.square().sum(1, keepdim=True)], 1)
    products = (numbers[:, :, None] * numbers[:, None]).flatten(1)
    rows = ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0))  # number i of x, y and r^2, power p of a_k
    elements = torch.tensor([3 * (3 * i + j) + p + q for i, p in rows for j, q in rows])
    statistics = torch.cat([torch.ones_like(numbers[:, :1]), numbers, products], 1).T.contiguous()
    kept = [each.to(device, dtype) for each in (numbers.T.contiguous(), statistics, torch.eye(5))]
    return _OfCells(kept[0], kept[1], elements.to(device), kept[2])


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Return the solution of positive definite systems of equations, shape (n, m).

    In ONNX, which has no such operator, it is Gauss and Jordan's elimination, in units in which the diagonal is one:
    elements of r^2 are much larger than those of x and y.

    Args:
        matrix: shape (n, m, m).
        right: shape (n, m).
    """
    if not torch.compiler.is_compiling():
        result: Tensor = torch.linalg.solve_ex(matrix, right).result
        return result
    scale, unit = matrix.diagonal(dim1=1, dim2=2).rsqrt()[:, :, None], torch.eye(matrix.shape[1]).to(matrix)
    system = scale * torch.cat([matrix * scale.transpose(1, 2), right[:, :, None]], 2)
    for k in range(matrix.shape[1]):
        row = system[:, k : k + 1] / system[:, k : k + 1, k : k + 1]
        system = system - (system[:, :, k : k + 1] - unit[:, k : k + 1]) * row
    return system[:, :, -1] * scale[:, :, 0]


def _core_share(balance: Tensor, layers: Tensor) -> Tensor:
    """Return C_k / E_k.

    From e^g' = (C + eps) / (R + eps) follows C / E = s + (2 s - 1) eps / E with s = sigmoid(g').
    """
    s = balance.sigmoid()
    return (s + (2 * s - 1) * EPS / layers.clamp(min=1e-9)).clamp(0, 1)


def _centred(shares: Tensor, firsts: Tensor, energy: Tensor, n_xy: int) -> Tensor:
    """Return the shares of rests multiplied by exp(l_x x_i + l_y y_i) such that their centres are those wanted.

    With the mean m and the covariance C of the cells' places under the shares, a step of Newton's method is
    l = (C + w)^-1 (t - m), where t = X_k / R_k and w = E_1 / R_k weakens it where R_k is small.

    Args:
        shares: shape (n, n_z, cells).
        firsts: X_k and Y_k, shape (n, 2, n_z), GeV.
        energy: R_k, shape (n, n_z), GeV.
        n_xy: cells across.
    """
    places = _rest_places(n_xy).to(shares)
    x, y = places.T
    statistics = torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y])
    held = energy.clamp(min=1e-9)
    soft, reach = CENTRE_SOFT / held, (n_xy - 1) / 2
    wanted = (firsts / held[:, None]).clamp(-reach, reach)
    for _ in range(CENTRE_STEPS):
        sums = linear_by(statistics, None, shares).permute(2, 0, 1).contiguous()
        _, mean_x, mean_y, xx, xy, yy = (sums / sums[:1]).unbind()
        a, b, d = xx - mean_x**2 + soft + 1e-3, xy - mean_x * mean_y, yy - mean_y**2 + soft + 1e-3
        off_x, off_y = wanted[:, 0] - mean_x, wanted[:, 1] - mean_y
        determinant = a * d - b * b
        step_x = ((d * off_x - b * off_y) / determinant).clamp(-1, 1)
        step_y = ((a * off_y - b * off_x) / determinant).clamp(-1, 1)
        shares = shares * exp(torch.stack([step_x, step_y], 2) @ places.T)
    return shares / shares.sum(2, keepdim=True)


def _rest_share(core: Tensor, weight: Tensor, wanted: Tensor) -> Tensor:
    """Return R_k / E_k such that sum_k weight_k R_k / E_k is ``wanted``: all R_k / C_k times one factor e^l, by Newton.

    If ``wanted`` is out of reach, l moves by at most 1 a step.

    Args:
        core: C_k / E_k before, shape (n, n_z).
        weight: weights of the layers, shape (n, n_z), GeV.
        wanted: sum to reach, shape (n,), GeV.
    """
    rest, least = 1 - core, 1e-6 * weight.detach().sum(1) + 1e-9
    for _ in range(NEWTON_STEPS):
        share = rest / (core + rest)
        part = weight * share
        got = part.sum(1)
        slope = got - (part * share).sum(1)
        step = ((wanted - got) / slope.clamp(min=least)).clamp(-1, 1)
        rest = rest * (step * (slope >= least)).exp()[:, None]
    return rest / (core + rest)


def pattern_shares(c: Tensor, group: Tensor) -> Tensor:
    """Return shares of the cells (n, n_z, cells) in a core or rest of energy ``group`` (n, n_z), from their c.

    Generated shares do not add up to one exactly. The smallest change of c that corrects this is along the gradient of
    the sum, 3 c_i^2. So e_i is multiplied by exp(l c_i), and small cells, whose spectrum is known, hardly move.
    """
    safe = group[:, :, None].clamp(min=1e-9)
    h = c.clamp(min=0.0).pow(3)
    room = torch.minimum((h - LINE / safe).clamp(min=0.0), LINE_ROOM / safe)
    below = c.clamp(max=0.0)
    weight = c.clamp(0.0, 1.0)
    moved = h - room
    for _ in range(NEWTON_STEPS):
        got, slope = moved.sum(2, keepdim=True), (moved * weight).sum(2, keepdim=True)
        some = (got > NOTHING).detach()  # elsewhere no step
        step = -got.clamp(min=NOTHING).log() * (got / slope.clamp(min=NOTHING**2)) * some
        moved = moved * exp(weight * step.clamp(-3, 3))
    return _shares(moved + below)


def _shares(raw: Tensor) -> Tensor:
    """Return positive parts, scaled to the sum 1 along the last dimension; if there is none, the largest gets all."""
    values = raw.detach()
    alone = NOTHING * (values >= values.amax(-1, keepdim=True))  # lost in rounding beside positive parts
    positive = raw.clamp(min=0.0) + alone
    return positive / positive.sum(-1, keepdim=True)


def symmetry_permutations(n_xy: int, n_z: int) -> Tensor:
    """Return the 8 symmetries of the square as permutations of the pattern, shape (8, `pattern_dim`)."""
    chosen = pattern_cells(n_xy)
    place = torch.empty(n_xy * n_xy, dtype=torch.long).scatter(0, chosen, torch.arange(len(chosen)))
    index = torch.arange(n_xy * n_xy).reshape(n_xy, n_xy)
    views = [view for turn in range(4) for view in (index.rot90(turn), index.rot90(turn).transpose(0, 1))]
    cells = torch.stack([place[view.flatten()[chosen]] for view in views])
    return (cells[:, :, None] * n_z + torch.arange(n_z)).flatten(1)
