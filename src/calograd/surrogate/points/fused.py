"""A distilled cloud surrogate with its linear steps multiplied out, for samples without derivatives.

One shower at a time, a surrogate of one evaluation spends its time on the number of its operations, not on their size:
between two nonlinear steps scales, shifts, products and choices of numbers are one product here,

    x = M (c_skip v + c_out (V h + A y)) + u = P n + Q h + w        of the shower's network, y = T n + t
    z = c_skip v + c_out (A(k) v' + b(k) + V h)                     of the points': c in A, b and V

with n = [noise, ln E]; both tables of quantiles that a lead or direction is looked up in are one; the networks of
location and scale are one beside the other, those of leads that nobody asks for are left out. The numbers are those of
`calograd.surrogate.points.model` but for rounding, the random numbers the same ones.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import silu

from calograd.diffusion.consistency import CONSISTENCY, Consistency, jump_numbers
from calograd.diffusion.denoisers import Preconditioning
from calograd.events.points import Points
from calograd.nn.autoregressive_flow import FLOOR
from calograd.nn.gaussianise import Marginals
from calograd.nn.location_scale import FARTHEST, scale_of
from calograd.nn.pointmap import PointMap
from calograd.nn.vectormap import VectorMap
from calograd.surrogate.fused import affine, linears
from calograd.surrogate.points.base import StackModel
from calograd.surrogate.points.features import LEADS, VISIBLE, Features, decode
from calograd.surrogate.points.model import LOCAL, MARKS, SHOWER_SCHEDULE, CloudModel, local_features
from calograd.surrogate.points.moment_matching import Drawn
from calograd.surrogate.points.sampling import grid


class FoldedCloud:
    """The model above; it does not follow later changes of the weights.

    Args:
        model: distilled.
    """

    def __init__(self, model: CloudModel) -> None:
        self.model = model
        with torch.no_grad():
            self._fold_shower(model)
            self._fold_moments(model)
            self._fold_points(model)

    def generate(
        self,
        energy: Tensor,
        generator: torch.Generator | None,
        sampler: str | None = None,
        steps: int | None = None,
        smooth: bool = False,
    ) -> Points:
        """As `CloudModel.generate`, without derivatives."""
        if self.model.walk(sampler, steps).steps > 1:
            return self.model.generate(energy, generator, sampler, steps, smooth)
        features = self.generate_features(energy, generator, smooth)

        def z_of(drawn: Drawn, filled: Tensor) -> Tensor:
            return self._points(features, energy, drawn, filled)

        return self.model.place(features, energy, generator, smooth, z_of)

    def generate_features(self, energy: Tensor, generator: torch.Generator | None, smooth: bool = False) -> Features:
        """As `CloudModel.generate_features`, without derivatives."""
        model, layers = self.model, self.model.architecture.layers
        size = LEADS + len(self.floor) - 1
        noise, ln_e = torch.randn(len(energy), size, generator=generator).to(energy), energy.log()[:, None]
        n = h = torch.cat([noise, ln_e], dim=1)
        for bias, weight in self.shower:
            h = silu(torch.addmm(bias, h, weight))
        x = torch.addmm(torch.addmm(self.straight[0], n, self.straight[1]), h, self.out)
        found = self.tables.inverse(torch.cat([noise[:, :LEADS], x], dim=1))
        u = found[:, :LEADS]
        f = self.numbers.inverse(found[:, LEADS:] @ self.back)
        h = torch.cat([u, ln_e], dim=1)
        for bias, weight in self.moments[:-1]:
            h = silu(torch.addmm(bias, h, weight))
        location, log_scale = torch.addmm(self.moments[-1][0], h, self.moments[-1][1]).chunk(2, dim=1)
        y = torch.cat([f, u[:, VISIBLE : VISIBLE + 1]], dim=1).clamp(-FARTHEST, FARTHEST)
        g = torch.addcmul(location, scale_of(log_scale, self.floor), torch.sinh(y / 2), value=2)
        g = g.clamp(self.least, self.largest)
        visible = (g[:, -1:] + ln_e).exp()
        more = torch.addcmul(self.more[0], ln_e, self.more[1]).exp()
        return decode(g[:, :-1], visible, model.unit, layers, smooth, more)

    def _points(self, features: Features, energy: Tensor, drawn: Drawn, filled: Tensor) -> Tensor:
        """z of points, shape (points, `MARKS`)."""
        local, number = local_features(features, energy, self.model.unit), len(energy)
        bias, weight = (t.expand(number, *t.shape) for t in self.context)
        k = silu(torch.baddbmm(bias, local, weight)).flatten(0, 1)
        for bias, weight in self.embed:
            k = silu(torch.addmm(bias, k, weight))
        shared = torch.addmm(self.shared[0], k, self.shared[1])
        place, width = drawn.groups.spread(filled), self.model.architecture.point_width
        beta, gamma = (shared[:, at : at + width].index_select(0, place) for at in (0, width))
        hidden = silu(beta.addcmul_(drawn.noise @ self.into, gamma), inplace=True)  # in the cache's few hundred kB
        affine = shared[:, 2 * width :].T.contiguous().index_select(1, place)
        result = torch.addmm(affine[:MARKS], self.last, hidden.T)
        for column, values in enumerate(drawn.noise.unbind(1), start=1):
            result.addcmul_(affine[MARKS * column : MARKS * (column + 1)], values)
        return result.T

    def _fold_shower(self, model: CloudModel) -> None:
        """Noise and ln E to x."""
        network, mend = model.shower_network, model.shower_mend
        assert isinstance(network, VectorMap)
        assert mend is not None
        skip, out, into, _ = _jump(model.shower_preconditioning, SHOWER_SCHEDULE, model.architecture.shower_steps)
        dim = mend.in_features
        n = torch.eye(LEADS + dim + 1).to(mend.weight)
        leads, x, ln_e = n[:LEADS], n[LEADS:-1], n[-1:]
        turned = torch.cat([into * x, ln_e / model.condition_scale, leads])
        shifted = n.new_zeros(len(turned))
        shifted[dim] = -model.condition_mean / model.condition_scale
        (weight, bias), *others = linears(network.hidden)
        self.shower = [affine(weight @ turned, bias + weight @ shifted), *(affine(*each) for each in others)]
        straight, add = network.straight.weight, network.straight.bias
        self.straight = affine(
            mend.weight @ (skip * x + out * straight @ turned),
            mend.bias + out * mend.weight @ (add + straight @ shifted),
        )
        self.out = (out * mend.weight @ network.out.weight).T.contiguous()
        self.tables = Marginals(LEADS + dim).to(n)
        self.tables.table = torch.cat([model.shower_leads.tables.table, model.shower_normal.directions.table])
        self.numbers, self.back = model.shower_normal.numbers, model.shower_normal.back

    def _fold_moments(self, model: CloudModel) -> None:
        """u and ln E to location and scale of all numbers and, last, of ln (E_vis / E)."""
        leads, moments = model.shower_leads, model.shower_moments
        dim = len(moments.tie)
        ours, theirs = linears(moments.network), leads.linears(VISIBLE)
        rows = torch.cat([moments.tie, moments.tie + int(moments.tie.max()) + 1])
        ours[-1] = (ours[-1][0][rows], ours[-1][1][rows])
        weight, bias = (torch.cat(pair) for pair in zip(ours[0], theirs[0], strict=True))
        into = weight[:, :1] / model.condition_scale  # ln E comes last and not standardised
        layers = [(torch.cat([weight[:, 1:], into], dim=1), bias - (into * model.condition_mean)[:, 0])]
        layers += [
            (torch.block_diag(a, b), torch.cat([c, d]))  # type: ignore[no-untyped-call]
            for (a, c), (b, d) in zip(ours[1:], theirs[1:], strict=True)
        ]
        place = torch.arange(2 * dim + 2, device=weight.device)
        first = place < dim
        first[2 * dim] = True
        order = torch.cat([place[first], place[~first]])  # all locations, then all scales
        layers[-1] = (layers[-1][0][order], layers[-1][1][order])
        self.moments = [affine(*layer) for layer in layers]
        free = bias.new_full((1,), torch.inf)
        self.floor = torch.cat([bias.new_full((dim,), moments.floor), bias.new_full((1,), FLOOR)])
        self.least, self.largest = torch.cat([model.least, -free]), torch.cat([model.largest, free])
        slope = model.more_points[1:] / model.condition_scale
        self.more = (model.more_points[:1] - slope * model.condition_mean, slope)

    def _fold_points(self, model: CloudModel) -> None:
        """What layers are like to what their points are multiplied by."""
        network, a = model.point_network, model.architecture
        assert isinstance(network, PointMap)
        skip, out, into, level = _jump(model.preconditioning, a.schedule, a.steps)
        (weight, bias), *others = linears(network.embed)
        noise, local, number = weight[:, 0], weight[:, 1 : 1 + LOCAL] / model.local_scale, weight[:, 1 + LOCAL :]
        self.context = ((bias + level * noise - local @ model.local_mean) + number.T, local.T.contiguous())
        self.embed = [affine(*each) for each in others]
        width, factor = network.width, torch.tensor([out] * MARKS + [out * into] * MARKS**2).to(bias)
        straight = network.affine.bias * factor
        straight[MARKS:] += skip * torch.eye(MARKS).to(straight).flatten()
        gamma, beta = slice(width), slice(width, None)
        weight, bias = network.modulate.weight, network.modulate.bias
        self.shared = affine(
            torch.cat([weight[beta], weight[gamma], network.affine.weight * factor[:, None]]),
            torch.cat([bias[beta], bias[gamma], straight]),
        )
        self.into = (into * network.into.weight).T.contiguous()
        self.last = out * network.out.weight


def fold_clouds(model: StackModel) -> StackModel | FoldedCloud:
    """A model with its linear steps multiplied out, or itself if it is not a distilled cloud surrogate."""
    return FoldedCloud(model) if isinstance(model, CloudModel) and model.architecture.distilled else model


def _jump(preconditioning: Preconditioning, schedule: str, steps: int) -> tuple[float, float, float, float]:
    """Numbers of `jump_numbers` where a sample in one step begins."""
    assert isinstance(preconditioning, Consistency)
    return jump_numbers(preconditioning, float(grid(CONSISTENCY, schedule, steps)[0]))
