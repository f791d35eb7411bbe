"""A baseline of points: a variational autoencoder of the regular view, 30 x 30 cells in every layer.

    grid_vae.py train POINTS.h5 -o siw-vae.pt
    grid_vae.py sample siw-vae.pt --like POINTS.h5 -o generated.h5

It is in the spirit of BIB-AE (arXiv 2005.05334), but small, without critics and without a second network for the
spectrum of cells: it is there to compare with. Given a code z and the incident energy E all cells are independent. A
cell is a hit with probability p, and then its energy is

    e = threshold (1 + exp s),      s normal with mean mu and standard deviation exp(lambda)

The loss is the negative evidence lower bound, in nats a shower,

    - sum over cells of ln p(cell | z, E)  +  KL(q(z | shower, E) | N(0, 1)),      z of q drawn once

A network adds to the p, mu and lambda that cells have on average over the training showers. Cells below the threshold
and beyond the view are not modelled.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from calograd.events.layered_readout import GRID, THRESHOLD, Hits, read_out
from calograd.events.point_showers import PITCH, read_points, write_points
from calograd.events.points import Points
from calograd.training import loop
from calograd.training.data.points import split_points
from calograd.training.loop import Identity, LoopConfig, Phase, TrainingState, parameters_below

OUTPUTS, CODE, WIDTH = 3, 32, 64
WIDEST = 0.7
"""Largest lambda: s is the logarithm of an energy, and a wide one has tails that no shower has."""
LEAST = 0.05
"""Fewest hits that a ring of cells counts as having, so that no cell is impossible."""
LOOP = LoopConfig(warmup=200, weight_decay=1e-4, report_every=1000, checkpoint_minutes=2.0)
BATCH, RATE, EMA, HELD_OUT = 64, 1e-3, 0.999, 0.05


class GridVae(nn.Module):
    """Encoder and decoder of images whose channels are the layers, halved twice.

    Args:
        layers: number of layers.
        width: channels of the hidden images.
        code: numbers of a code.
    """

    def __init__(self, layers: int, width: int = WIDTH, code: int = CODE) -> None:
        super().__init__()
        self.layers, self.width, self.code, self.quarter = layers, width, code, (GRID // 2 + 1) // 2
        flat = width * self.quarter**2
        self.encoder = nn.Sequential(
            nn.Conv2d(layers, width, 3, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1), nn.SiLU(), nn.Flatten(),
        )  # fmt: skip
        self.encoder_head = nn.Sequential(nn.Linear(flat + 1, 128), nn.SiLU(), nn.Linear(128, 2 * code))
        self.decoder_head = nn.Sequential(nn.Linear(code + 1, 128), nn.SiLU(), nn.Linear(128, flat), nn.SiLU())
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(width, width, 3, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(width, 4 * OUTPUTS * layers, 1), nn.PixelShuffle(2),
        )  # fmt: skip
        for name in ("condition_mean", "condition_scale", "highest"):
            self.register_buffer(name, torch.ones(()))
        self.register_buffer("base", torch.zeros(OUTPUTS, layers, GRID, GRID))
        self.condition_mean: Tensor
        self.condition_scale: Tensor
        self.highest: Tensor
        self.base: Tensor

    def conditions(self, energy: Tensor) -> Tensor:
        """Return standardised conditions of incident energies (n,) in GeV, shape (n, 1)."""
        return ((energy.log() - self.condition_mean) / self.condition_scale)[:, None]

    def calibrate(self, hits: Hits) -> None:
        """Set what is known before any training from the hits of the training showers' view."""
        share, mean, deviation, highest = by_rings(hits)
        log = torch.from_numpy(hits.energy).float().log()
        self.condition_mean.copy_(log.mean())
        self.condition_scale.copy_(log.std().clamp(min=1e-3))
        self.highest.fill_(highest)
        logit = torch.from_numpy(share).clamp(max=0.999).logit()
        lambda_ = torch.full_like(logit, deviation).log()
        self.base.copy_(torch.stack([logit, torch.from_numpy(mean), lambda_]))

    def losses(self, e: Tensor, energy: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the nats of the cells and of the code, shape (n,) each.

        Args:
            e: energies of the cells, GeV, shape (n, layers, GRID, GRID); zero below the threshold.
            energy: incident energies, shape (n,), GeV.
            generator: random numbers of the code.
        """
        conditions, hit = self.conditions(energy), e > 0
        image = self.encoder((e / THRESHOLD).log1p() / 4)
        mean, log_variance = self.encoder_head(torch.cat([image, conditions], dim=1)).chunk(2, dim=1)
        log_variance = 6 * torch.tanh(log_variance / 6)
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        logit, mu, scale = self.cells(mean + (log_variance / 2).exp() * noise, conditions)
        s = torch.where(hit, (e / THRESHOLD - 1).clamp(min=1e-4).log(), 0.0)
        energies = torch.where(hit, scale + 0.5 * ((s - mu) * (-scale).exp()) ** 2, 0.0)
        cells = binary_cross_entropy_with_logits(logit, hit.to(e), reduction="none") + energies
        code = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance)
        return cells.flatten(1).sum(1), code.sum(1)

    def cells(self, code: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logit of p, mu and lambda of every cell, shape (n, layers, GRID, GRID) each."""
        image = self.decoder_head(torch.cat([code, conditions], dim=1))
        image = self.decoder(image.unflatten(1, (self.width, self.quarter, self.quarter)))
        logit, mu, scale = (self.base + image.unflatten(1, (OUTPUTS, self.layers))).unbind(1)
        return logit, mu, scale.clamp(-4, WIDEST)

    @torch.no_grad()
    def generate(self, energy: Tensor, generator: torch.Generator) -> Points:
        """Return showers whose points are the middles of the cells that are hit."""
        n = len(energy)
        code = torch.randn(n, self.code, generator=generator)
        logit, mu, scale = self.cells(code, self.conditions(energy))
        hit = torch.rand(logit.shape, generator=generator) < logit.sigmoid()
        owner, layer, i, j = torch.nonzero(hit).T
        noise = torch.randn(len(owner), generator=generator)
        e = THRESHOLD * (1 + torch.minimum(mu[hit] + scale[hit].exp() * noise, self.highest).exp())
        x, y = (PITCH * (number - GRID // 2).to(energy) for number in (i, j))
        offsets = torch.cat([owner.new_zeros(1), torch.bincount(owner, minlength=n).cumsum(0)])
        return Points(x, y, layer, e, offsets, energy, self.layers)


def by_rings(hits: Hits) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Average the cells of a layer over all cells at the same distance, since azimuths are alike.

    Returns:
        Share of the showers in which each cell is a hit, shape (layers, GRID, GRID); mean s of its hits, drawn to the
        mean of all hits by ten of these; standard deviation of all s; and the largest s.
    """
    number = np.arange(GRID) - GRID // 2
    distances, ring = np.unique(number[:, None] ** 2 + number**2, return_inverse=True)
    total = hits.layers * len(distances)
    place = (np.arange(hits.layers)[:, None] * len(distances) + ring.ravel()).ravel()  # layer and ring of every cell
    cell = (hits.layer * GRID + hits.i + GRID // 2) * GRID + hits.j + GRID // 2
    s = np.log(np.maximum(hits.e / THRESHOLD - 1, 1e-4))
    count, sums = np.bincount(place[cell], minlength=total), np.bincount(place[cell], s, total)
    showers_cells = len(hits) * np.maximum(np.bincount(place, minlength=total), 1)
    share, mean = np.maximum(count, LEAST) / showers_cells, (sums + 10 * s.mean()) / (count + 10)
    shape = (hits.layers, GRID, GRID)
    share, mean = (column[place].reshape(shape).astype(np.float32) for column in (share, mean))
    return share, mean, float(s.std()), float(s.max())


def batch_of(hits: Hits, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return cells (n, layers, GRID, GRID) and incident energies of chosen showers, GeV."""
    number = rows.numpy()
    grids = np.ascontiguousarray(np.moveaxis(hits.rows(number).grid(), 3, 1))
    return torch.from_numpy(grids), torch.from_numpy(hits.energy[number].astype(np.float32))


class VaeTask:
    """Training of the autoencoder, see `calograd.training.loop.Task`.

    Args:
        train, validation: hits of the view.
        steps: steps of the optimiser.
        seed: seed of the weights and of the training.
    """

    auxiliary, loop = None, LOOP

    def __init__(self, train: Hits, validation: Hits, steps: int, seed: int) -> None:
        self.train, self.validation, self.seed = train, validation, seed
        torch.manual_seed(seed)
        self.model = GridVae(train.layers)
        self.model.calibrate(train)
        self.phases = (Phase("grids", steps, parameters_below(self.model, ""), self.loss, EMA, RATE),)
        self.identity = Identity("grid_vae", {"steps": steps, "seed": seed}, [len(train), float(train.e.sum())])

    @property
    def generator(self) -> torch.Generator:
        """Random numbers of the run."""
        return torch.Generator().manual_seed(self.seed)

    def loss(self, state: TrainingState[GridVae]) -> Tensor:
        """Return the mean loss of random showers, in kilonats."""
        rows = torch.randint(len(self.train), (BATCH,), generator=state.generator)
        cells, code = state.model.losses(*batch_of(self.train, rows), state.generator)
        return 1e-3 * (cells + code).mean()

    @torch.no_grad()
    def monitor(self, state: TrainingState[GridVae]) -> dict[str, Any]:
        """Return the loss of held-out showers, in kilonats."""
        rows, generator = torch.arange(min(len(self.validation), 200)), torch.Generator().manual_seed(0)
        cells, code = state.ema.losses(*batch_of(self.validation, rows), generator)
        return {"validation_loss": 1e-3 * float((cells + code).mean())}

    def save(self, state: TrainingState[GridVae], output: Path) -> None:
        """Write the averaged weights."""
        torch.save({"layers": self.train.layers, "weights": state.ema.state_dict()}, output / "grid_vae.pt")


def sample(run: Path, like: Path, output: Path, seed: int) -> None:
    """Generate showers at the energies of a points file."""
    stored = torch.load(run / "grid_vae.pt", weights_only=True)
    model, reference = GridVae(stored["layers"]), read_points(like)
    model.load_state_dict(stored["weights"])
    generator = torch.Generator().manual_seed(seed)
    energy = torch.from_numpy(reference.energy).float()
    parts = [model.generate(part, generator) for part in torch.split(energy, BATCH)]
    write_points(output, Points.concatenate(parts).numpy("grid_vae", reference.config))


def main() -> None:
    """Train or sample."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["train", "sample"])
    parser.add_argument("file", type=Path, help="points to train on, or the folder of a run")
    parser.add_argument("--like", type=Path, help="points whose energies are generated")
    parser.add_argument("--steps", type=int, default=4000)  # the held-out loss no longer falls after 2 000
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    if options.action == "sample":
        sample(options.file, options.like, options.output, options.seed)
        return
    split = split_points([options.file], HELD_OUT, (0.0, float("inf")), options.seed)
    train, validation = (read_out(showers).within() for showers in (split.train, split.validation))
    options.output.mkdir(parents=True, exist_ok=True)
    task = VaeTask(train, validation, options.steps, options.seed)
    state = loop.begin(task, options.output)
    loop.run(task, state, options.output, progress=lambda *told: print(*told, end="\r"), on_report=print)


if __name__ == "__main__":
    main()
