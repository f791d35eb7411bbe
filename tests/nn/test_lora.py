from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from calograd.errors import InputError
from calograd.nn.lora import (
    LoraLinear,
    Method,
    Plan,
    Table,
    adaptable_layers,
    attach,
    digest,
    merge,
    place,
    shapes,
    share,
    tabulate,
    target_layers,
)
from calograd.nn.mlp import ResidualMlp

METHODS: tuple[Method, ...] = ("lora", "bitfit", "full")
PLANS = [Plan(method, rank=3, alpha=5.0) for method in METHODS]


class Pair(nn.Module):
    """Two networks of which one is often meant, as in a surrogate."""

    def __init__(self) -> None:
        super().__init__()
        self.shape = ResidualMlp(4, 2, width=12, blocks=2, embedding=8)
        self.moments = nn.Sequential(nn.Linear(2, 6), nn.SiLU(), nn.Linear(6, 8, bias=False))
        self.register_buffer("centre", torch.arange(4.0))
        self.centre: Tensor

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        result: Tensor = self.shape(x - self.centre, c[:, 0], c) + self.moments(c)[:, :4]
        return result


@pytest.fixture
def base() -> Pair:
    torch.manual_seed(0)
    network = Pair()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network.requires_grad_(False)


def data(n: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 4, generator=generator), torch.randn(n, 2, generator=generator)


def bits(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def learn(network: nn.Module, plan: Plan, steps: int = 20) -> tuple[nn.Module, Table]:
    """What an adapter looks like once it has learnt something: the trainee and the table."""
    trainee, learnt = attach(network, plan, torch.Generator().manual_seed(2))
    optimiser = torch.optim.Adam(learnt.values(), lr=0.03)
    x, c = data()
    for _ in range(steps):
        optimiser.zero_grad()
        (trainee(x, c) - 2 * x).square().mean().backward()
        optimiser.step()
    return trainee, tabulate(network, plan, learnt)


@pytest.mark.parametrize("plan", PLANS, ids=METHODS)
def test_what_is_placed_is_tabulated_again(base: Pair, plan: Plan) -> None:
    trained, table = learn(base, plan)
    before = bits(base)
    trainee, learnt = attach(base, plan, torch.Generator().manual_seed(7))
    place(learnt, base, plan, table)
    for name, value in tabulate(base, plan, learnt).items():
        torch.testing.assert_close(value, table[name], rtol=0, atol=1e-6)
    torch.testing.assert_close(trainee(*data()), trained(*data()))
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())
    with pytest.raises(InputError, match="the adapter does not fit: 'shape"):
        place(learnt, base, plan, {name: value[:1] for name, value in table.items()})


@pytest.mark.parametrize("plan", PLANS, ids=METHODS)
def test_it_starts_as_the_base(base: Pair, plan: Plan) -> None:
    trainee, learnt = attach(base, plan, torch.Generator().manual_seed(0))
    x, c = data()
    torch.testing.assert_close(trainee(x, c).detach(), base(x, c), rtol=1e-5, atol=1e-6)  # by another product
    table = tabulate(base, plan, learnt)
    assert torch.equal(merge(base, plan, table)(x, c), base(x, c))
    assert {name: tuple(value.shape) for name, value in table.items()} == shapes(base, plan)


@pytest.mark.parametrize("plan", PLANS, ids=METHODS)
def test_merged_equals_unmerged_and_is_plain(base: Pair, plan: Plan) -> None:
    trainee, table = learn(base, plan)
    merged, (x, c) = merge(base, plan, table), data()
    assert not torch.allclose(merged(x, c), base(x, c), atol=0.05)
    torch.testing.assert_close(merged(x, c), trainee(x, c).detach(), rtol=1e-5, atol=1e-5)
    assert {type(layer) for layer in adaptable_layers(merged).values()} == {nn.Linear}
    assert list(merged.state_dict()) == list(base.state_dict())
    assert not any(parameter.requires_grad for parameter in merged.parameters())


@pytest.mark.parametrize("plan", PLANS, ids=METHODS)
def test_the_base_keeps_every_bit(base: Pair, plan: Plan) -> None:
    before = bits(base)
    _, table = learn(base, plan)
    merged = merge(base, plan, table)
    merged.double()
    with torch.no_grad():
        for name in shapes(base, plan):
            if name in dict(merged.named_parameters()):
                merged.get_parameter(name).zero_()
    for name, value in base.state_dict().items():
        assert torch.equal(value, before[name]), name
        assert value.dtype == before[name].dtype
    assert not any(parameter.requires_grad for parameter in base.parameters())


@pytest.mark.parametrize("plan", PLANS, ids=METHODS)
def test_only_what_is_planned_is_learnt(base: Pair, plan: Plan) -> None:
    trainee, learnt = attach(base, plan)
    assert {id(p) for p in trainee.parameters() if p.requires_grad} == {id(p) for p in learnt.values()}
    biases = sum(layer.bias is not None for layer in adaptable_layers(base).values())
    layers = len(adaptable_layers(base))
    assert len(learnt) == {"lora": 2 * layers, "bitfit": biases, "full": layers + biases}[plan.method]


def test_lora_in_closed_form(base: Pair) -> None:
    """One layer: the change has rank r, and is alpha / r times B A."""
    plan = Plan("lora", rank=2, alpha=6.0, targets=("shape.first.1",))
    _, table = learn(base, plan)
    change = merge(base, plan, table).shape.first[1].weight - base.shape.first[1].weight
    torch.testing.assert_close(change, 3 * table["shape.first.1.b"] @ table["shape.first.1.a"], rtol=1e-4, atol=1e-6)
    assert torch.linalg.matrix_rank(change, rtol=1e-4) == 2


def test_gradients_are_those_of_the_formula() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(5, 7).requires_grad_(False)
    lora = LoraLinear(layer, Plan(rank=2, alpha=3.0), torch.Generator().manual_seed(0))
    nn.init.normal_(lora.b)
    x = torch.randn(9, 5, requires_grad=True)
    ours = torch.autograd.grad(lora(x).square().sum(), (x, lora.a, lora.b))
    y = x @ (layer.weight + 1.5 * lora.b @ lora.a).T + layer.bias
    for mine, theirs in zip(ours, torch.autograd.grad(y.square().sum(), (x, lora.a, lora.b)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_a_layer_takes_no_more_ranks_than_it_has(base: Pair) -> None:
    assert shapes(base, Plan(rank=100, targets=("moments.0",))) == {"moments.0.a": (2, 2), "moments.0.b": (6, 2)}


def test_what_is_left_alone_is_shared(base: Pair) -> None:
    merged = merge(base, *_small(base))
    assert merged.shape.out.weight.data_ptr() == base.shape.out.weight.data_ptr()
    assert merged.centre.data_ptr() == base.centre.data_ptr()
    assert merged.moments[0].weight.data_ptr() != base.moments[0].weight.data_ptr()
    copy = share(base)
    copy.to(torch.float64)  # which replaces the tensors of the copy alone
    assert base.shape.out.weight.dtype == torch.float32


def _small(base: Pair) -> tuple[Plan, Table]:
    plan = Plan("lora", targets=("moments",))
    return plan, learn(base, plan)[1]


def test_adapters_stack_and_switch(base: Pair) -> None:
    first, second = Plan("lora", rank=2), Plan("bitfit")
    one, (x, c) = learn(base, first)[1], data()
    above = merge(base, first, one)
    two = learn(above, second)[1]
    both = merge(above, second, two)
    weight = merge(base, first, one).shape.into.weight
    assert torch.equal(both.shape.into.weight, weight)
    assert torch.equal(both.shape.into.bias, base.shape.into.bias + two["shape.into.bias"])
    again = merge(base, first, one)  # after another one was used, and without taking anything off
    assert torch.equal(again(x, c), above(x, c))


def test_half_precision_tables_are_multiplied_out_in_full(base: Pair) -> None:
    plan = Plan("lora", rank=3)
    _, table = learn(base, plan)
    half = {name: value.half() for name, value in table.items()}
    merged = merge(base, plan, half)
    assert {p.dtype for p in merged.parameters()} == {torch.float32}
    x, c = data()
    torch.testing.assert_close(merged(x, c), merge(base, plan, table)(x, c), rtol=0.01, atol=0.01)
    exact = plan.scale * (half["shape.out.b"].float() @ half["shape.out.a"].float())
    assert torch.equal(merged.shape.out.weight, base.shape.out.weight + exact)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (("moments",), ["moments.0", "moments.2"]),
        (("shape.first.*", "moments.0"), ["shape.first.0", "shape.first.1", "moments.0"]),
        (("*.scale.1",), ["shape.scale.1"]),
        (("shape.out", "shape.out"), ["shape.out"]),
    ],
)
def test_targets(base: Pair, targets: tuple[str, ...], expected: list[str]) -> None:
    assert target_layers(base, targets) == expected


@pytest.mark.parametrize(
    ("targets", "complaint"),
    [
        (("shape.frst",), r"no linear layer is called 'shape\.frst'; did you mean 'shape\.first'\?"),
        (("*", "momments.0"), r"called 'momments\.0'; did you mean 'moments\.0'\?"),
        (("shape.norm.0",), r"no linear layer is called 'shape\.norm\.0'"),
        (("Zq",), "there are shape.embed.0, "),
        ((), "no layer is given"),
    ],
)
def test_unknown_targets(base: Pair, targets: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as refusal:
        attach(base, Plan(targets=targets))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("rank", "alpha"), [(0, 1.0), (-3, 1.0), (2, 0.0), (2, float("nan")), (2, float("inf"))])
def test_plans_without_sense(rank: int, alpha: float) -> None:
    with pytest.raises(InputError, match="expected"):
        Plan("lora", rank, alpha)


@pytest.mark.parametrize("change", ["missing", "foreign", "shape"])
def test_tables_that_do_not_fit(base: Pair, change: str) -> None:
    plan, table = _small(base)
    if change == "missing":
        del table["moments.0.a"]
    elif change == "foreign":
        table["shape.out.a"] = torch.zeros(1)
    else:
        table["moments.0.a"] = torch.zeros(1, 2)
    with pytest.raises(InputError, match="the adapter does not fit: "):
        merge(base, plan, table)


def test_a_digest_sees_every_bit_name_type_and_word() -> None:
    a = {"x": torch.arange(6.0), "y": torch.ones(2, dtype=torch.int64), "z": torch.zeros(())}
    same = digest(a, "w")
    assert same == digest(dict(reversed(a.items())), "w")
    assert same == digest({**a, "x": torch.arange(12.0)[::2] / 2}, "w")
    others = [
        digest(a), digest(a, "v"), digest({**a, "x": a["x"].reshape(2, 3)}, "w"),
        digest({**a, "x": a["x"].nextafter(torch.tensor(9.0))}, "w"), digest({**a, "y": a["y"].int()}, "w"),
        digest({"q": a["x"], "y": a["y"], "z": a["z"]}, "w"),
    ]  # fmt: skip
    assert len({same, *others}) == 1 + len(others)


class Image(nn.Module):
    """Convolutions of every sort that is adapted, and a linear layer beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.point = nn.Conv2d(2, 6, 3, stride=2, padding=1), nn.Conv2d(6, 4, 1)
        self.shift = nn.Linear(3, 4)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        return self.point(self.first(x).tanh()) + self.shift(e)[:, :, None, None]


@pytest.mark.parametrize("method", ["lora", "bitfit", "full"])
def test_merged_convolutions_compute_what_was_learnt_beside_them(method: Method) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        base = Image().requires_grad_(False)
    inputs = torch.randn(5, 2, 8, 8, generator=generator), torch.randn(5, 3, generator=generator)
    before, plan = base(*inputs), Plan(method, rank=3, alpha=6.0)
    trainee, learnt = attach(base, plan, generator)
    torch.testing.assert_close(trainee(*inputs), before)
    trainee(*inputs).square().sum().backward()
    moved = [name for name, value in learnt.items() if float(value.grad.abs().max()) > 0]
    assert {name.rpartition(".")[0] for name in moved} == {"first", "point", "shift"}
    with torch.no_grad():
        for value in learnt.values():
            value.add_(0.1 * torch.randn(value.shape, generator=generator))
    table = tabulate(base, plan, learnt)
    assert {name: tuple(value.shape) for name, value in table.items()} == shapes(base, plan)
    merged = merge(base, plan, table)
    assert {type(layer) for layer in adaptable_layers(merged).values()} == {nn.Conv2d, nn.Linear}
    torch.testing.assert_close(merged(*inputs), trainee(*inputs), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(merged(*inputs), before)
    torch.testing.assert_close(base(*inputs), before, rtol=0, atol=0)
    with pytest.raises(InputError, match="no linear layer or convolution is called 'frst'; did you mean 'first'"):
        attach(base, Plan(method, targets=("frst",)))
    if method == "lora":
        assert shapes(base, plan)["first.a"] == (3, 2, 3, 3)
        assert shapes(base, plan)["first.b"] == (6, 3)
