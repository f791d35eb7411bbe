"""Several processes that train one model, with the results of one.

Every process holds the whole model and the same random generator. All draw the same batch of n rows; process p of P
takes the rows p n / P to (p + 1) n / P. The random numbers of row r in step s depend on the generator, s and r alone
(`calograd.system.random_numbers`), so every process draws those of its own rows, and

    loss = (1 / P) sum_p loss_p,    gradient = (1 / P) sum_p gradient_p

are those of one process but for the order of the sums. Lightning Fabric averages them (gloo between CPUs, nccl between
GPUs), all gradients in one message a step. The same message carries a Ctrl-C that one process met to all. The first
process, the leader, alone reports and writes.
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

from calograd.errors import InputError, Interrupted
from calograd.system.extras import require

if TYPE_CHECKING:
    from lightning_fabric import Fabric

RENDEZVOUS = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")
"""Environment variables through which nodes find each other without srun or torchrun."""


class ProcessGroup(Protocol):
    """Processes of a training, seen from one of them."""

    @property
    def size(self) -> int:
        """Number of processes."""

    @property
    def leads(self) -> bool:
        """True if this process is the leader, which reports and writes."""

    @property
    def device(self) -> str:
        """Torch device of this process."""

    def rows(self, n: int) -> slice:
        """Return the rows of this process in a batch of ``n`` rows, a multiple of `size`."""

    def average(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
        """Replace the gradients by their mean over all processes; return the mean of the losses."""

    def agreed(self, interrupted: Callable[[], bool]) -> Callable[[], bool]:
        """Return a function that says whether any process was interrupted before the last `average`."""

    def same(self, *modules: nn.Module | None) -> None:
        """Give all processes the weights of the leader."""

    def first(self) -> Any:
        """Return a context that the leader passes first and the others after it, unless it raised an error."""

    def wait(self) -> None:
        """Wait until all processes are here."""


class SingleProcess:
    """A training in one process."""

    size, leads = 1, True

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    def rows(self, n: int) -> slice:
        """Return all rows."""
        return slice(0, n)

    def average(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:  # noqa: ARG002
        """Return the loss."""
        return loss

    def agreed(self, interrupted: Callable[[], bool]) -> Callable[[], bool]:
        """Return ``interrupted`` itself."""
        return interrupted

    def same(self, *modules: nn.Module | None) -> None:
        """Do nothing."""

    @contextmanager
    def first(self) -> Iterator[None]:
        """Pass at once."""
        yield

    def wait(self) -> None:
        """Return at once."""


class FabricProcess:
    """One of several processes; `open_process_group` makes it."""

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self.size, self.leads, self.device = fabric.world_size, fabric.is_global_zero, str(fabric.device)
        self._came: Callable[[], bool] = lambda: False
        self._stop = False

    def rows(self, n: int) -> slice:
        """Return n / P consecutive rows; P divides n."""
        each = n // self.size
        return slice(each * self._fabric.global_rank, each * (self._fabric.global_rank + 1))

    def average(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
        """Send all gradients, the loss and whether this process was interrupted in one message."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        state = torch.stack([loss.detach(), loss.new_tensor(float(self._came()))])
        with _name_lost_process(self.leads):
            whole = self._fabric.all_reduce(torch.cat([*(g.flatten() for g in gradients), state]), reduce_op="mean")
        assert isinstance(whole, Tensor)
        *means, mean, interrupted = torch.split(whole, [*(g.numel() for g in gradients), 1, 1])
        for gradient, part in zip(gradients, means, strict=True):
            gradient.copy_(part.view_as(gradient))
        self._stop = bool(interrupted > 0)
        return mean[0]

    def agreed(self, interrupted: Callable[[], bool]) -> Callable[[], bool]:
        """Return a function that says what the last `average` learned."""
        self._came = interrupted
        return lambda: self._stop

    def same(self, *modules: nn.Module | None) -> None:
        """Broadcast weights and buffers from the leader."""
        with _name_lost_process(self.leads), torch.no_grad():
            for module in modules:
                for value in module.state_dict().values() if module is not None else ():
                    value.copy_(self._fabric.broadcast(value.cpu() if self.leads else None))

    @contextmanager
    def first(self) -> Iterator[None]:
        """Let the leader pass, then the others."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()

    def wait(self) -> None:
        """Wait at a barrier."""
        with _name_lost_process(self.leads):
            self._fabric.barrier()


@contextmanager
def _name_lost_process(leads: bool) -> Iterator[None]:
    """Turn the loss of another process into the leader's error; the others leave silently."""
    try:
        yield
    except RuntimeError as error:
        if not leads:
            raise SystemExit(1) from None
        raise InputError(
            "another process of this training ended; look at its messages and repeat the command, it "
            "resumes from the last checkpoint"
        ) from error


@contextmanager
def leader_reports_interrupt(group: ProcessGroup) -> Iterator[None]:
    """Let the leader alone raise `Interrupted`; the others exit silently."""
    try:
        yield
    except Interrupted:
        if not group.leads:
            raise SystemExit(0) from None
        raise


def open_process_group(processes: int, nodes: int, device: str) -> ProcessGroup:
    """Return the processes that train together; start those of this node that do not run yet.

    Every started process runs the command of this process again, up to this call. Under torchrun and srun all
    processes run already.

    Args:
        processes: number of processes on every node.
        nodes: number of nodes that run the same command.
        device: ``cpu`` or ``cuda``, one for each process; for a single process any torch device.

    Raises:
        InputError: a number or device that is not possible, Lightning Fabric is not installed, or the nodes do not
            find each other.
    """
    check_process_group(processes, nodes, device)
    if processes * nodes == 1:
        return SingleProcess(device)
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
    return FabricProcess(fabric)


def check_process_group(processes: int, nodes: int, device: str) -> None:
    """Check the arguments of `open_process_group` before anything is read or started. Raises `InputError`."""
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
