"""Training in several processes started by torchrun; in a single process these functions have no effect."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["Process", "first_process_first", "gather", "join_processes", "replicate", "synchronise"]

Network = TypeVar("Network", bound=nn.Module)
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Process:
    """Rank of this process in the run, and its device."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process logs and writes."""
        return self.rank == 0


@contextmanager
def join_processes() -> Iterator[Process]:
    """Join the process group of torchrun's environment (NCCL on GPUs, gloo on CPU) and leave it at the end.

    Without torchrun there is one process, on the first GPU if there is one.
    """
    has_gpu = torch.cuda.is_available()
    if "WORLD_SIZE" not in os.environ:
        yield Process(0, 1, torch.device("cuda" if has_gpu else "cpu"))
        return
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if has_gpu else torch.device("cpu")
    if has_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if has_gpu else "gloo")
    try:
        yield Process(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()


def replicate(network: nn.Module, process: Process) -> nn.Module:
    """Wrap the network for training, so that its gradients are averaged over the processes."""
    if process.world_size == 1:
        return network
    return DistributedDataParallel(network, [process.device] if process.device.type == "cuda" else None)


def synchronise(network: Network, process: Process) -> Network:
    """Convert the batch norms to ones that synchronise their statistics over all processes.

    On the CPU PyTorch has no such layer: the network is returned unchanged, with statistics per process.
    """
    if process.world_size == 1 or process.device.type != "cuda":
        return network
    converted: Network = convert_sync_batchnorm(network)  # timm's also converts norms with a built-in activation
    return converted


def first_process_first(process: Process, work: Callable[[], Result]) -> Result:
    """Do the work in the first process, then in the others, which find its files on disk."""
    if process.world_size == 1:
        return work()
    if process.is_first:
        result = work()
        dist.barrier()
        return result
    dist.barrier()
    return work()


def gather(rows: Tensor) -> Tensor:
    """Gather the rows of every process in the order of ranks: ``[B, ...]`` → ``[world size · B, ...]``.

    Gradients flow back to the process of origin, summed over all processes. With the averaging of :func:`replicate`, a
    loss over gathered rows has the gradient of a single process with the joint batch. All processes must have the same
    number of rows.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows)
    return gathered


class _Gather(torch.autograd.Function):
    """``all_gather`` whose backward pass sums the gradients of all processes for the same rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        rows = rows.contiguous()
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows)
        ctx.own = slice(dist.get_rank() * len(rows), (dist.get_rank() + 1) * len(rows))
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[ctx.own]
