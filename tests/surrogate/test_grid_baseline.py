from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, Normal

from calograd.errors import InputError
from calograd.events.layered_readout import GRID, THRESHOLD, read_out
from calograd.surrogate import CloudSurrogate, StackCard, Surrogate, load_designs
from calograd.surrogate.generation import generate_clouds
from calograd.surrogate.points.grids import GridArchitecture, GridModel

LAYERS, HIGHEST = 3, 6.0


def model_of(decodes: bool = False) -> GridModel:
    """Hits with a probability of one in ten; cells are the same whatever the code unless it ``decodes``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GridArchitecture(LAYERS, width=4, code=3).build()
    share = torch.full((LAYERS, GRID, GRID), 0.1)
    model.calibrate(
        torch.linspace(10, 90, 50), share, torch.linspace(-1, 2, LAYERS)[:, None, None] + 0 * share, 0.7, HIGHEST
    )
    if not decodes:
        for parameter in model.decoder_network.parameters():
            torch.nn.init.zeros_(parameter)
    return model.eval().requires_grad_(False)


def surrogate_of(decodes: bool = True) -> CloudSurrogate:
    model = model_of(decodes)
    card = StackCard(
        name="tiny-grids", kind="grid30", architecture=model.architecture.to_dict(), energy=(10, 90),
        detector={"kind": "siw"}, clustering="crossings", training={},
    )  # fmt: skip
    return CloudSurrogate(model, card)


def test_the_loss_is_the_likelihood_of_independent_cells() -> None:
    model, generator = model_of(), torch.Generator().manual_seed(1)
    hit = torch.rand(4, LAYERS, GRID, GRID, generator=generator) < 0.2
    s = torch.randn(hit.shape, generator=generator)
    cells, _ = model.losses(torch.where(hit, THRESHOLD * (1 + s.exp()), 0.0), torch.full((4,), 50.0), generator)
    logit, mu, scale = model.base
    likelihood = Bernoulli(logits=logit).log_prob(hit.float())
    energies = Normal(mu, scale.exp()).log_prob(s) + 0.5 * np.log(2 * np.pi)  # which the loss leaves out
    expected = -(likelihood + torch.where(hit, energies, 0.0)).flatten(1).sum(1)
    torch.testing.assert_close(cells, expected, rtol=1e-4, atol=1e-2)


def test_the_code_costs_its_divergence_from_the_normal_law() -> None:
    model = model_of()
    e, energy = torch.zeros(2, LAYERS, GRID, GRID), torch.tensor([20.0, 80.0])
    mean, log_variance = model.encoder_network(e, model.conditions(energy))
    q = Normal(mean, (log_variance / 2).exp())
    expected = torch.distributions.kl_divergence(q, Normal(torch.zeros(()), torch.ones(()))).sum(1)
    torch.testing.assert_close(model.losses(e, energy, torch.Generator().manual_seed(0))[1], expected)


def test_showers_follow_the_cells_laws() -> None:
    model, n = model_of(), 300
    points = model.generate(torch.full((n,), 50.0), torch.Generator().manual_seed(0))
    cells = LAYERS * GRID**2
    assert len(points.e) / (n * cells) == pytest.approx(0.1, abs=5 * (0.09 / (n * cells)) ** 0.5)
    s = (points.e / THRESHOLD - 1).log()
    for layer, mean in enumerate(np.linspace(-1, 2, LAYERS)):
        own = s[points.layer == layer]
        assert float(own.mean()) == pytest.approx(mean, abs=5 * 0.7 / len(own) ** 0.5)
        assert float(own.std()) == pytest.approx(0.7, rel=0.02)


def test_no_cell_has_more_than_any_of_the_showers_trained_on() -> None:
    model = model_of()
    model.base[1] += 5
    points = model.generate(torch.full((20,), 50.0), torch.Generator().manual_seed(0))
    assert float((points.e / THRESHOLD - 1).log().max()) == pytest.approx(HIGHEST, rel=1e-5)


def test_every_point_is_a_hit_of_its_own_in_the_view() -> None:
    made = generate_clouds(surrogate_of(), np.linspace(10, 90, 20), seed=3)
    hits = read_out(made)
    assert len(hits.e) == len(made.e) > 0
    assert hits.i.min() >= -GRID // 2
    assert hits.i.max() < GRID // 2
    assert made.config["sampler"] == "decoder"
    again = generate_clouds(surrogate_of(), np.linspace(10, 90, 20), seed=3)
    np.testing.assert_array_equal(made.e, again.e)


def test_it_is_stored_as_a_surrogate_of_a_layered_detector(tmp_path: Path) -> None:
    surrogate = surrogate_of()
    surrogate.save(tmp_path / "vae")
    loaded = Surrogate.load(tmp_path / "vae")
    assert isinstance(loaded, CloudSurrogate)
    assert loaded.card == surrogate.card
    energy, generators = torch.tensor([50.0]), [torch.Generator().manual_seed(0) for _ in range(2)]
    assert torch.equal(
        *(s.sample(energy, 1, generator=g).e for s, g in zip((loaded, surrogate), generators, strict=True))
    )
    with pytest.raises(InputError, match="knows no designs"):
        load_designs(tmp_path / "vae")


def test_what_an_autoencoder_cannot_is_refused() -> None:
    surrogate = surrogate_of()
    for options in ({"sampler": "heun"}, {"steps": 4}):
        with pytest.raises(InputError, match="takes one step of its decoder"):
            surrogate.sample(50.0, 2, **options)
    with pytest.raises(InputError, match="no smooth samples"):
        surrogate.sample(50.0, 2, smooth=True)
    with pytest.raises(InputError, match="outside 10 to 90"):
        surrogate.sample(95.0, 2)
