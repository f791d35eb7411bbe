from __future__ import annotations

import numpy as np
import pytest
import torch

from calograd.detector.design import Design
from calograd.errors import InputError
from calograd.objective.background import BackgroundMap, ExponentialBackground, Moments
from calograd.objective.measurement import Measurement, RandomDraws
from calograd.objective.readout import Readout
from calograd.objective.reconstruction import SoftMask


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def design(dx: float = 2.0, dz: tuple[float, ...] = (4.0, 6.0)) -> Design:
    sizes = torch.tensor(dz, dtype=torch.float64)
    return Design(dx=torch.tensor(dx, dtype=torch.float64), dz=sizes, n_xy=3, n_z=len(dz))


def showers(n: int = 4) -> torch.Tensor:
    return torch.rand(n, 3, 3, 2, generator=generator(9), dtype=torch.float64)


def test_the_chain_adds_reads_and_masks_in_that_order():
    measurement = Measurement(ExponentialBackground(), Readout(light_yield=100, noise=0.01))
    numbers = measurement.draw(4, 3, 2, generator(), torch.float64)
    events = measurement.measure(showers(), 10.0, design(), numbers)
    dx, dz = design().dx, design().dz
    cells = measurement.readout.apply(
        showers() + measurement.background.energy(numbers.background, dx, dz), numbers.readout
    )
    mean, std = measurement.background.moments(dx, dz, 3)
    weights = 1 / (1 + torch.exp(-4 / std * (cells - (mean + std))))
    np.testing.assert_allclose(events.measured, weights * cells, rtol=1e-12)
    assert torch.equal(events.signal, showers())
    assert events.energy.tolist() == [10.0] * 4


def test_without_background_there_is_no_mask():
    measurement = Measurement(None)
    numbers = measurement.draw(4, 3, 2, generator())
    assert numbers == (None, None)
    assert torch.equal(measurement.measure(showers(), 10.0, design(), numbers).measured, showers())


def test_one_energy_a_shower():
    measurement, energies = Measurement(None), torch.arange(1.0, 5)
    events = measurement.measure(showers(), energies, design(), measurement.draw(4, 3, 2, generator()))
    assert events.energy.tolist() == energies.tolist()


def test_limits_of_the_mask():
    moments = Moments(torch.tensor([[[0.2]]]), torch.tensor([[[0.1]]]))
    energy = torch.tensor([0.0, 0.2, 0.299, 0.3, 0.301, 1.0]).reshape(-1, 1, 1, 1)

    def weights(mask: SoftMask) -> list[float]:
        return mask.weights(energy, moments).flatten().tolist()

    assert weights(SoftMask(k=1e6)) == pytest.approx([0, 0, 0, 0.5, 1, 1], abs=0.05)
    assert weights(SoftMask(k=1e-6)) == pytest.approx([0.5] * 6, abs=1e-5)
    assert weights(SoftMask()) == pytest.approx(weights(SoftMask(k=40.0)), rel=1e-5)
    assert weights(SoftMask()) == sorted(weights(SoftMask()))


def test_a_cell_without_background_is_kept_whole_with_finite_gradients():
    edges = torch.tensor([-3.0, 3.0])
    empty = BackgroundMap(density=torch.zeros(1, 1, 1), x=edges, y=edges, z=torch.tensor([0.0, 10.0]))
    measurement = Measurement(empty)
    signal = showers().float()
    signal[0, 0, 0, 0] = 0
    signal.requires_grad_()
    dx = torch.tensor(2.0, requires_grad=True)
    window = Design(dx=dx, dz=torch.tensor([4.0, 6.0]), n_xy=3, n_z=2)
    events = measurement.measure(signal, 10.0, window, measurement.draw(4, 3, 2, generator()))
    assert torch.equal(events.measured, signal)
    events.measured.sum().backward()
    assert torch.isfinite(signal.grad).all()
    assert torch.isfinite(dx.grad)


@pytest.mark.parametrize("mask", [SoftMask(), SoftMask(k=30.0)])
@pytest.mark.parametrize("readout", [None, Readout(light_yield=100, saturation=3.0, noise=0.01, threshold=0.02)])
def test_gradients_agree_with_finite_differences(mask, readout):
    measurement = Measurement(ExponentialBackground(), readout, mask)
    numbers = measurement.draw(2, 3, 2, generator(1), torch.float64)
    signal = (0.3 * showers(2)).requires_grad_()
    dx = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    dz = torch.tensor([4.0, 6.0], dtype=torch.float64, requires_grad=True)

    def measured(signal: torch.Tensor, dx: torch.Tensor, dz: torch.Tensor) -> torch.Tensor:
        return measurement.measure(signal, 10.0, Design(dx=dx, dz=dz, n_xy=3, n_z=2), numbers).measured

    assert torch.autograd.gradcheck(measured, (signal, dx, dz))


def test_events_are_reproducible_and_share_their_numbers():
    measurement = Measurement(ExponentialBackground(), Readout(noise=0.01))
    one, same = (
        measurement.measure(showers(), 10.0, design(), measurement.draw(4, 3, 2, generator(3))) for _ in range(2)
    )
    assert torch.equal(one.measured, same.measured)
    # With common numbers, a step of the design moves the mean measured energy smoothly.
    numbers = measurement.draw(4, 3, 2, generator(3), torch.float64)
    steps = [
        measurement.measure(showers(), 10.0, design(2.0 + s), numbers).measured.sum().item() for s in (0, 1e-6, 2e-6)
    ]
    assert steps[2] - steps[1] == pytest.approx(steps[1] - steps[0], rel=1e-4)
    assert steps[1] != steps[0]


def test_designs_of_plain_numbers_measure_too():
    measurement = Measurement(ExponentialBackground())
    plain = Design(dx=2.0, dz=(4.0, 6.0), n_xy=3, n_z=2)
    events = measurement.measure(showers().float(), 10.0, plain, measurement.draw(4, 3, 2, generator()))
    assert events.measured.dtype == torch.float32
    exact = measurement.measure(showers(), 10.0, design(), measurement.draw(4, 3, 2, generator(), torch.float64))
    np.testing.assert_allclose(events.measured, exact.measured, rtol=1e-4)


def test_what_does_not_fit_is_named():
    measurement, signal = Measurement(ExponentialBackground()), showers()
    numbers = measurement.draw(4, 3, 2, generator())
    with pytest.raises(InputError, match=r"showers have shape \(4, 3, 3, 1\), expected \(n, 3, 3, 2\)"):
        measurement.measure(signal[..., :1], 10.0, design(), numbers)
    with pytest.raises(InputError, match=r"random numbers have shape \(4, 5, 5, 2\), expected \(3, 5, 5, 2\)"):
        measurement.measure(signal[:3], 10.0, design(), numbers)
    with pytest.raises(InputError, match="of another measurement"):
        Measurement(None).measure(signal, 10.0, design(), numbers)
    with pytest.raises(InputError, match="of another measurement"):
        Measurement(ExponentialBackground(), Readout()).measure(signal, 10.0, design(), numbers)
    with pytest.raises(InputError, match=r"energy has shape \(3,\)"):
        measurement.measure(signal, torch.ones(3), design(), numbers)
    with pytest.raises(InputError, match="mask: k = 0"):
        SoftMask(k=0)


@pytest.mark.parametrize("background", [ExponentialBackground(), None])
def test_a_batch_of_designs_measures_every_shower_with_its_own(background: ExponentialBackground | None) -> None:
    dx = torch.tensor([1.5, 2.0, 2.5, 3.0], dtype=torch.float64, requires_grad=True)
    dz = torch.tensor([[4.0, 6.0], [5.0, 5.0], [6.0, 4.0], [7.0, 8.0]], dtype=torch.float64)
    designs = Design(dx, dz, n_xy=3, n_z=2)
    measurement = Measurement(background, Readout(noise=0.01))
    draws = measurement.draw(4, 3, 2, generator(), torch.float64)
    together = measurement.measure(showers(), 10.0, designs, draws)
    for k in range(4):
        of_one = RandomDraws(
            *(None if each is None else type(each)(*(values[k : k + 1] for values in each)) for each in draws)
        )
        alone = measurement.measure(showers()[k : k + 1], 10.0, designs[k], of_one)
        torch.testing.assert_close(together.measured[k : k + 1], alone.measured)
    if background is not None:
        (slope,) = torch.autograd.grad(together.measured[2].sum(), dx)
        assert (slope != 0).tolist() == [False, False, True, False]
    chosen = together.select(torch.tensor([3, 1]))
    assert chosen.design.dx.tolist() == [3.0, 2.0]


def test_background_is_drawn_unless_it_is_given() -> None:
    measurement = Measurement(ExponentialBackground())
    first, again = (measurement.measure(showers(), 10.0, design()).measured for _ in range(2))
    assert torch.equal(first, again)
    other = measurement.measure(showers(), 10.0, design(), generator=generator(5)).measured
    given = measurement.measure(showers(), 10.0, design(), measurement.draw(4, 3, 2, generator(5), torch.float64))
    assert not torch.equal(first, other)
    assert torch.equal(given.measured, other)
    for kind, text in measurement.describe().items():
        assert kind in ("background", "readout", "mask")
        assert text
    assert measurement.describe()["background"].startswith("5 MeV/cm3 at the front face, falling by e in 6 cm")
    assert Measurement(None, Readout(light_yield=9, noise=0.1)).describe()["readout"] == (
        "9 photo-electrons/GeV, noise 0.1 GeV a cell"
    )
