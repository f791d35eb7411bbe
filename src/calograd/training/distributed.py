"""Several processes that train one model, with the results of one.

Every process has the whole model and the same random generator. All draw the same batch of n rows, of which process p
of P takes the rows p n / P to (p + 1) n / P, and of every random tensor of the batch it takes the same rows, so that

    loss = (1 / P) sum_p loss_p,    gradient = (1 / P) sum_p gradient_p

are those of one process but for the order of the sums. They are averaged through Lightning Fabric (gloo between CPUs,
nccl between GPUs), all gradients in one message a step, with which a Ctrl-C that one process met reaches all. The first
process alone looks at the run and writes.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from calograd.errors import InputError, Interrupted
from calograd.system.extras import require

if TYPE_CHECKING:
    from lightning_fabric import Fabric

RENDEZVOUS = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")
"""Variables of the environment through which nodes find each other where nothing else tells them."""


class Team(Protocol):
    """The processes of a training, seen from one of them."""

    @property
    def size(self) -> int:
        """How many there are."""

    @property
    def leads(self) -> bool:
        """Whether this is the one that looks at the run and writes."""

    @property
    def device(self) -> str:
        """Of this process."""

    def rows(self, n: int) -> slice:
        """Those of this process among ``n`` of a batch, a multiple of `size`."""

    def share(self, n: int, generator: torch.Generator, copies: int = 1) -> Any:
        """A context in which tensors of random numbers from ``generator`` are this process's share of the batch's.

        Args:
            n: rows of the batch.
            generator: of the random numbers.
            copies: how often the batch is repeated, one copy behind the other, as in a batch of pairs.
        """

    def average(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
        """Replace the gradients of all processes by their mean; returns that of their losses."""

    def agreed(self, interrupted: Callable[[], bool]) -> Callable[[], bool]:
        """Whether any process was interrupted, as all of them knew it in the last `average`."""

    def same(self, *modules: nn.Module | None) -> None:
        """Give all processes the leader's weights."""

    def first(self) -> Any:
        """A context that the leader goes through first, the others after it, if it left without an error."""

    def wait(self) -> None:
        """Until all processes are here."""


class Alone:
    """The only process of a training."""

    size, leads = 1, True

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    def rows(self, n: int) -> slice:
        """All."""
        return slice(0, n)

    @contextmanager
    def share(self, n: int, generator: torch.Generator, copies: int = 1) -> Iterator[None]:  # noqa: ARG002
        """The whole batch."""
        yield

    def average(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:  # noqa: ARG002
        """The loss as it is."""
        return loss

    def agreed(self, interrupted: Callable[[], bool]) -> Callable[[], bool]:
        """Whether this process was interrupted."""
        return interrupted

    def same(self, *modules: nn.Module | None) -> None:
        """Nothing to do."""

    @contextmanager
    def first(self) -> Iterator[None]:
        """At once."""
        yield

    def wait(self) -> None:
        """For nobody."""


class Several:
    """One of several processes; use `open_team`."""

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self.size, self.leads, self.device = fabric.world_size, fabric.is_global_zero, str(fabric.device)
        self._came: Callable[[], bool] = lambda: False
        self._stop = False

    def rows(self, n: int) -> slice:
        """A run of n / P rows; P divides n."""
        each = n // self.size
        return slice(each * self._fabric.global_rank, each * (self._fabric.global_rank + 1))

    def share(self, n: int, generator: torch.Generator, copies: int = 1) -> Share:
        """See `Share`."""
        mine = torch.arange(n)[self.rows(n)]
        return Share(generator, torch.cat([copy * n + mine for copy in range(copies)]), copies * n)

    def average(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
        """One message with all gradients, the loss and whether this process was interrupted."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        state = torch.stack([loss.detach(), loss.new_tensor(float(self._came()))])
        with _together(self.leads):
            whole = self._fabric.all_reduce(torch.cat([*(g.flatten() for g in gradients), state]), reduce_op="mean")
        assert isinstance(whole, Tensor)
        *means, mean, interrupted = torch.split(whole, [*(g.numel() for g in gradients), 1, 1])
        for gradient, part in zip(gradients, means, strict=True):
            gradient.copy_(part.view_as(gradient))
        self._stop = bool(interrupted > 0)
        return mean[0]

    def agreed(self, interrupted: Callable[[], bool]) -> Callable[[], bool]:
        """As the last `average` brought it."""
        self._came = interrupted
        return lambda: self._stop

    def same(self, *modules: nn.Module | None) -> None:
        """Broadcast weights and buffers."""
        with _together(self.leads), torch.no_grad():
            for module in modules:
                for value in module.state_dict().values() if module is not None else ():
                    value.copy_(self._fabric.broadcast(value.cpu() if self.leads else None))

    @contextmanager
    def first(self) -> Iterator[None]:
        """The leader, then the others."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()

    def wait(self) -> None:
        """At a barrier."""
        with _together(self.leads):
            self._fabric.barrier()


class Share(TorchFunctionMode):
    """Random numbers of a batch, drawn whole, of which some rows are kept.

    Every tensor that is drawn from ``generator`` has the rows kept along its first dimension; it is drawn with all rows
    of the batch instead, so that every process draws the same numbers and the generators stay alike.

    Args:
        generator: draws of others are left alone.
        kept: rows, shape (kept,), int64.
        whole: rows of the batch.
    """

    def __init__(self, generator: torch.Generator, kept: Tensor, whole: int) -> None:
        super().__init__()
        self._generator, self._kept, self._whole = generator, kept, whole

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: D105, RUF100
        kwargs = kwargs or {}
        if kwargs.get("generator") is not self._generator:
            return func(*args, **kwargs)
        before = {torch.rand: 0, torch.randn: 0, torch.randint: len(args) - 1}[func]  # what precedes the shape
        shape = args[before] if isinstance(args[before], Sequence) else args[before:]
        if shape[0] != len(self._kept):
            raise RuntimeError(f"{shape[0]} rows of random numbers in a share of {len(self._kept)}")
        return func(*args[:before], (self._whole, *shape[1:]), **kwargs)[self._kept]


@contextmanager
def _together(leads: bool) -> Iterator[None]:
    """What happens when another process has gone: the leader says so, the others leave it to the one that failed."""
    try:
        yield
    except RuntimeError as error:
        if not leads:
            raise SystemExit(1) from None
        raise InputError(
            "another process of this training ended; look at its messages and repeat the command, it goes "
            "on from the last checkpoint"
        ) from error


@contextmanager
def one_voice(team: Team) -> Iterator[None]:
    """Leave it to the leader to say that all were interrupted."""
    try:
        yield
    except Interrupted:
        if not team.leads:
            raise SystemExit(0) from None
        raise


def open_team(processes: int, nodes: int, device: str) -> Team:
    """The processes that train together; starts those of this node that are not there yet.

    The command that this process runs is run again by every other one, up to this call. Under torchrun and srun
    processes are there already.

    Args:
        processes: on every node.
        nodes: that the same command is run on.
        device: ``cpu`` or ``cuda``, of which every process takes one; of a single process any torch device.

    Raises:
        InputError: a number or device that cannot be, Lightning Fabric is not installed, or the nodes do not find
            each other.
    """
    check_team(processes, nodes, device)
    if processes * nodes == 1:
        return Alone(device)
    require("a training on several processes", "cluster")
    from lightning_fabric import Fabric

    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    try:
        fabric = Fabric(accelerator=device, devices=processes, num_nodes=nodes, strategy="ddp")
        fabric.launch()
    except (RuntimeError, ValueError) as error:  # Fabric's own errors are among these, and those of torch.distributed
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{processes * nodes} processes on '{device}' cannot be brought together: {reason}") from error
    if fabric.world_size != processes * nodes:
        raise InputError(
            f"{fabric.world_size} processes were started, --processes {processes} --nodes {nodes} are "
            f"{processes * nodes}; expected the same"
        )
    return Several(fabric)


def check_team(processes: int, nodes: int, device: str) -> None:
    """Refuse what `open_team` cannot do, before anything is read or started. Raises `InputError` as that."""
    for name, value in (("processes", processes), ("nodes", nodes)):
        if value < 1:
            raise InputError(f"--{name} is {value}, expected at least 1")
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched not in (1, processes * nodes):
        raise InputError(
            f"this is one of {launched} processes, --processes {processes} --nodes {nodes} are {processes * nodes}; "
            "give the same numbers as to torchrun"
        )
    if processes * nodes > 1 and device not in ("cpu", "cuda"):
        raise InputError(f"--device {device} with several processes: expected cpu or cuda, they take one device each")
    if nodes > 1 and not ("TORCHELASTIC_RUN_ID" in os.environ or "SLURM_NTASKS" in os.environ):
        missing = [name for name in RENDEZVOUS if name not in os.environ]
        if missing:
            raise InputError(
                f"--nodes {nodes}: {', '.join(missing)} not set; start the command with srun or torchrun, or set "
                f"{', '.join(RENDEZVOUS)} on every node"
            )
        try:
            socket.getaddrinfo(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        except (OSError, ValueError) as error:
            raise InputError(
                f"MASTER_ADDR={os.environ['MASTER_ADDR']}, MASTER_PORT={os.environ['MASTER_PORT']}: {error}; expected "
                "the name and a free port of the first node"
            ) from error
