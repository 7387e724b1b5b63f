"""The processes that train together: each takes its rows of every batch, and all hold the same weights.

Every process walks over the data and through the random numbers as one process alone would, and keeps the
part that is its own. So a loss curve does not depend on how many they are, and a checkpoint knows nothing
of their number: `--resume` may go on with more of them, or fewer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import msgspec
import torch
from torch import Tensor
from torch.nn.functional import dropout, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from triptych.errors import ConfigError
from triptych.learn.models.base import Batch

Value = TypeVar("Value")


class World:
    """One process alone."""

    rank, size = 0, 1

    @property
    def leads(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0

    def check(self, batch_size: int) -> None:
        """Raise `ConfigError` unless batches can be shared out evenly."""
        if batch_size % self.size:
            raise ConfigError(
                f"batches of {batch_size} cannot be shared by {self.size} processes",
                where="train.batch_size",
                valid=f"a multiple of {self.size}: it counts the rows of all processes together",
            )

    def rows(self, batch: Batch) -> Batch:
        """The rows of `batch` that this process works on."""
        return batch

    def noise(self, rows: int) -> AbstractContextManager[object]:
        """Inside, random tensors of `rows` rows are this process' rows of those of the whole batch."""
        return nullcontext()

    def average(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The mean of each tensor over all processes."""
        return list(tensors)

    def equalise(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the leader's values."""

    def agree(self, decide: Callable[[], Value]) -> Value:
        """What the leader decides; the others wait for it."""
        return decide()


class Group(World):
    """The processes of a torch.distributed group (`gloo` on CPUs, `nccl` on GPUs)."""

    def __init__(self, device: torch.device) -> None:
        self.rank, self.size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self.device = device

    def rows(self, batch: Batch) -> Batch:
        """A rank's share lies in one piece."""
        share = len(batch) // self.size
        mine = slice(self.rank * share, (self.rank + 1) * share)
        return Batch(batch.x[mine], None if batch.labels is None else batch.labels[mine])

    def noise(self, rows: int) -> AbstractContextManager[object]:
        """See `RowsOfNoise`."""
        return RowsOfNoise(self.rank, self.size, rows)

    def average(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """One all-reduce of all tensors as one."""
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        torch.distributed.all_reduce(flat)
        parts = torch.split(flat.div_(self.size), [tensor.numel() for tensor in tensors])
        return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]

    def equalise(self, tensors: Iterable[Tensor]) -> None:
        """A broadcast of each tensor, in place."""
        for tensor in tensors:
            torch.distributed.broadcast(tensor, src=0)

    def agree(self, decide: Callable[[], Value]) -> Value:
        """A broadcast of the leader's value, as MessagePack: floats, texts, dicts."""
        content = msgspec.msgpack.encode(decide()) if self.leads else b""
        size = torch.tensor(len(content), device=self.device)
        torch.distributed.broadcast(size, src=0)
        message = torch.zeros(int(size), dtype=torch.uint8, device=self.device)
        if self.leads:
            message.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        torch.distributed.broadcast(message, src=0)
        decided: Value = msgspec.msgpack.decode(message.cpu().numpy().tobytes())
        return decided


# Functions whose first argument says how many random numbers they draw.
OF_A_TENSOR = (torch.randn_like, torch.rand_like, torch.bernoulli, Tensor.bernoulli, dropout)


class RowsOfNoise(TorchFunctionMode):
    """Draws noise for the whole batch and keeps the rows of one process.

    Covers `torch.randn`, `rand`, their `_like`, `bernoulli` and dropout, also that of attention, when the
    first axis of the result is the batch. All processes leave the generator where one process alone would.
    """

    def __init__(self, rank: int, size: int, rows: int) -> None:
        super().__init__()
        self.rows, self.whole, self.first = rows, rows * size, rows * rank

    def mine(self, drawn: Tensor) -> Tensor:
        """The rows of this process."""
        return drawn[self.first : self.first + self.rows]

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in (torch.randn, torch.rand):
            shape = args[0] if len(args) == 1 and not isinstance(args[0], int) else args
            if shape and shape[0] == self.rows:
                return self.mine(function(self.whole, *shape[1:], **kwargs))
        elif args and isinstance(args[0], Tensor) and args[0].ndim and len(args[0]) == self.rows:
            if function in OF_A_TENSOR:
                return self.mine(function(self.filled(args[0]), *args[1:], **kwargs))
            dropped = kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0)
            if function is scaled_dot_product_attention and dropped:
                whole = (self.filled(tensor) for tensor in args[:3])
                return self.mine(function(*whole, *args[3:], **kwargs))
        return function(*args, **kwargs)

    def filled(self, part: Tensor) -> Tensor:
        """`part` in its place among rows of zeros, its axes in the same order in memory."""
        axes = sorted(range(part.ndim), key=part.stride, reverse=True)
        sizes = [self.whole if axis == 0 else part.shape[axis] for axis in axes]
        whole = part.new_zeros(sizes).permute([axes.index(axis) for axis in range(part.ndim)])
        self.mine(whole).copy_(part)
        return whole


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """The processes that `torchrun` started, or this one alone; a group that is made here ends here."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    ours = not torch.distributed.is_initialized()
    if ours:
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Group(device)
    finally:
        if ours:
            torch.distributed.destroy_process_group()
