"""Where the numbers are computed, and with how many threads."""

from __future__ import annotations

import os

import torch

from triptych.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """The device that `train.device` names; `auto` is a GPU if there is one. Under `torchrun` each process
    takes the GPU of its local rank.

    Raises:
        ConfigError: there is no such device on this machine.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    chosen = next(kind for kind in there if there[kind]) if name == "auto" else name
    if not there.get(chosen, False):
        raise ConfigError(
            f"`{chosen}` is not there",
            where="train.device",
            valid=", ".join(kind for kind in there if there[kind]),
            remedy='use "cpu", or "auto"',
        )
    if chosen == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
        return device
    return torch.device(chosen)


def set_threads(wanted: int | None) -> tuple[int, list[str]]:
    """Take `wanted` threads if any are; return how many there are, and what a person should know.

    The number of threads changes the bits, so a resumed run takes that of the first. The first vectorised
    function of a process is run here, alone: torch finds out the kind of processor in it, and two threads
    that do so at once may disagree (pytorch#188792).
    """
    torch.zeros(1).exp()
    if wanted is not None:
        torch.set_num_threads(wanted)
    threads = torch.get_num_threads()
    if wanted in (None, threads):
        return threads, []
    note = f"{wanted} threads cannot be had, {threads} can: the last bits of the weights may differ"
    return threads, [note]
