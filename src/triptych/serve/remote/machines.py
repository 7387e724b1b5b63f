"""Who is there: the workers a gateway has heard of, and which of their models are on offer."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from triptych import __version__
from triptych.bundle import reader
from triptych.errors import ConfigError, TriptychError
from triptych.serve.catalog import Catalog, Model
from triptych.serve.remote.protocol import GONE_S, Announcement, Hello
from triptych.serve.supervise.pool import WorkerInfo

MAX_REFUSED = 1000

log = logging.getLogger(__name__)


class Offered(NamedTuple):
    """A model, and the way in which it is computed: who shares both gives the same bytes."""

    model: Model
    way: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from all others."""
        return self.model.name, self.model.version, self.way


class Machine:
    """A worker as it last announced itself.

    Attributes:
        offers: what it offers, by the name of the model.
        misfit: models of that version that it computes otherwise than its fellows.
        timer: what will give it up for gone.
    """

    def __init__(self, told: Announcement) -> None:
        self.told = told
        where = Path(f"worker {told.id[:8]}")
        models = [
            Model(where, reader.parse(where, offer.manifest), offer.created_at_s) for offer in told.offers
        ]
        found = [Offered(model, offer.way) for model, offer in zip(models, told.offers, strict=True)]
        self.offers = {offered.model.name: offered for offered in found}
        self.misfit: set[str] = set()
        self.timer: asyncio.TimerHandle | None = None


class Machines:
    """The workers that announce themselves.

    Args:
        on_change: called when one came or went.
        on_heard: called when one was heard of again.

    Attributes:
        offered: what is on offer, by name. A model stays on it when its last worker is gone: one may come
            back.
    """

    def __init__(self, on_change: Callable[[], object], on_heard: Callable[[], object]) -> None:
        self.offered: dict[str, Offered] = {}
        self._on_change, self._on_heard = on_change, on_heard
        self._machines: dict[str, Machine] = {}
        self._computable: set[str] = set()
        self._refused: set[str] = set()  # of whom that has been said

    def __len__(self) -> int:
        return len(self._machines)

    def hear(self, body: bytes) -> None:
        """Take an announcement."""
        id = "?"
        try:
            hello = msgspec.msgpack.decode(body, type=Hello)
            id = hello.id
            if hello.software != __version__:
                raise ConfigError(
                    f"runs Triptych {hello.software}", where="worker", valid=f"{__version__}, as its gateway"
                )
            self._take(msgspec.msgpack.decode(body, type=Announcement))
        except (msgspec.DecodeError, TriptychError) as error:
            self._refuse(id, str(error))

    def _take(self, told: Announcement) -> None:
        if told.leaving:
            self._forget(told.id, "leaves")
        elif machine := self._machines.get(told.id):
            machine.told = told
            self._watch(told.id, machine)
            self._on_heard()
        else:
            machine = self._machines[told.id] = Machine(told)
            self._watch(told.id, machine)
            log.info("worker %s is there: %s", told.id[:8], ", ".join(machine.offers))
            self._choose()

    def hold(self) -> None:
        """Nobody can be heard: give nobody up meanwhile."""
        for machine in self._machines.values():
            if machine.timer is not None:
                machine.timer.cancel()

    def resume(self) -> None:
        """From now on all can be heard again."""
        for id, machine in self._machines.items():
            self._watch(id, machine)

    def have(self, model: str) -> bool:
        """Whether a worker is there that computes the model as offered."""
        return model in self._computable

    def ready(self) -> int:
        """How many processes are ready that compute something as offered."""
        return sum(
            info.state == "ready"
            for machine in self._machines.values()
            if any(self.offered[name].key == offered.key for name, offered in machine.offers.items())
            for info in machine.told.processes
        )

    def processes(self) -> list[WorkerInfo]:
        """Those of all workers, numbered through."""
        found = [info for machine in self._machines.values() for info in machine.told.processes]
        return [msgspec.structs.replace(info, slot=slot) for slot, info in enumerate(found)]

    def _watch(self, id: str, machine: Machine) -> None:
        if machine.timer is not None:
            machine.timer.cancel()
        machine.timer = asyncio.get_running_loop().call_later(
            GONE_S, self._forget, id, f"was not heard of for {GONE_S:g} s"
        )

    def _forget(self, id: str, why: str) -> None:
        machine = self._machines.pop(id, None)
        if machine is not None:
            if machine.timer is not None:
                machine.timer.cancel()
            log.warning("worker %s %s", id[:8], why)
            self._choose()

    def _refuse(self, id: str, problem: str) -> None:
        if id not in self._refused:
            if len(self._refused) >= MAX_REFUSED:
                self._refused.clear()
            self._refused.add(id)
            log.error("worker %s gets no work: %s", id[:8], problem)

    def _choose(self) -> None:
        """Offer each model as `choose` says, and tell of workers that compute it otherwise."""
        machines = sorted(self._machines.values(), key=lambda machine: machine.told.started_at_s)
        self.offered |= choose(machines)
        self._computable = {
            name
            for machine in machines
            for name, offered in machine.offers.items()
            if offered.key == self.offered[name].key
        }
        for machine in machines:
            for name, offered in machine.offers.items():
                chosen = self.offered[name]
                is_misfit = offered.model.version == chosen.model.version and offered.way != chosen.way
                if is_misfit and name not in machine.misfit:
                    log.error(
                        "worker %s gets no work on `%s`: it would answer other bytes than most workers of"
                        " version %s (its engine, precision or processor is another)",
                        machine.told.id[:8],
                        name,
                        chosen.model.version,
                    )
                (machine.misfit.add if is_misfit else machine.misfit.discard)(name)
        self._on_change()


def choose(machines: Iterable[Machine]) -> dict[str, Offered]:
    """What is on offer of `machines`, sorted by their start: of each model the version of the worker started
    last; of that version the way of most processes, or of those that are equal, the one that was there first.

    So a worker set up by mistake changes nobody's bytes, and all gateways choose alike.
    """
    machines = list(machines)
    versions = {name: offer.model.version for machine in machines for name, offer in machine.offers.items()}
    found: dict[str, Offered] = {}
    for name, version in versions.items():
        processes: Counter[str] = Counter()
        offers: dict[str, Offered] = {}
        for machine in machines:
            offered = machine.offers.get(name)
            if offered is not None and offered.model.version == version:
                offers.setdefault(offered.way, offered)
                processes[offered.way] += len(machine.told.processes)
        found[name] = offers[max(offers, key=lambda way: processes[way])]  # the first of those that are equal
    return found


class RemoteCatalog(Catalog):
    """What a gateway offers; finding a model also means that somebody can compute it.

    Args:
        check_there: raises why nobody can compute the model of a name now.
        check_all: raises that models may be on offer that have not been heard of yet.
    """

    def __init__(
        self, models: Iterable[Model], check_there: Callable[[str], None], check_all: Callable[[], None]
    ) -> None:
        super().__init__({model.name: model for model in models})
        self._check_there, self._check_all = check_there, check_all

    def find(self, name: str) -> Model:
        """The model of that name, to be asked something now.

        Raises: NotFoundError; Overloaded if no worker has it now, BrokerUnavailable if RabbitMQ is away.
        """
        model = self.known(name)
        self._check_there(name)
        return model

    def known(self, name: str) -> Model:
        """The model of that name, whether or not it could be asked something now.

        Raises: NotFoundError; Overloaded if a worker may have it that was not heard of yet.
        """
        if name not in self:
            self._check_all()
        return super().known(name)
