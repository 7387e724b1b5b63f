"""The stage: what all experiments of one run share: bundles, a folder, the calm answers, one server."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from triptych.bundle.manifest import TextSampler
from triptych.bundle.reader import read_manifest
from triptych.errors import ConfigError
from triptych.serve.chaos import saboteur
from triptych.serve.chaos.faults import FOLDER_VARIABLE, MODE_VARIABLE, SLOW_FIRST, Fault
from triptych.serve.chaos.load import Request, completion, run_load, sample
from triptych.serve.chaos.machines import Machines, options
from triptych.serve.chaos.rabbit import RabbitServer, is_installed, url_of
from triptych.serve.chaos.server import Server

WORKERS = 2
PLAIN, TEXTS, SLOW = 36, 4, 12  # how many different requests of each kind
TEXT_TOKENS = 24
TIMEOUT_S = 10.0
MEMORY, MACHINES = "memory", "machines"
SHARED = (
    "workers.hang_timeout_s=1.0",
    "http.header_timeout_s=1.0",
    "http.write_timeout_s=1.0",
    "limits.tokens=100000",
)


class Stage:
    """Shared by the experiments of one run; entered, it has a server, and left, that server has ended.

    Args:
        bundles: one of a model that draws samples and one of a text model; others are served too.
        folder: for logs; must exist.
        quick: whether every experiment may do each thing once.
        patience: factor on every bound in seconds.
        broker: where work queues: `memory`, `sqlite`, `amqp` or, over `machines`, RabbitMQ for all of it.
        rabbit: a running one, for the latter two; one is started if it is needed and not given.

    Attributes:
        image, text: names of the two models.
        requests, slow: what clients ask; a sample of `slow` occupies a worker for 10 ms.
        reference: the digest of each request's answer in a run without faults.
    """

    def __init__(
        self,
        bundles: Sequence[Path],
        folder: Path,
        *,
        quick: bool,
        patience: float,
        broker: str,
        rabbit: RabbitServer | None = None,
    ) -> None:
        self.bundles, self.folder = list(bundles), folder
        self.quick, self.patience, self.broker = quick, patience, broker
        kinds = {is_text(bundle): read_manifest(bundle).name for bundle in reversed(self.bundles)}
        if len(kinds) < 2:
            raise ConfigError(
                "got " + ", ".join(str(bundle) for bundle in bundles),
                where="--bundle",
                valid="at least one model that draws samples and one that generates text",
            )
        self.image, self.text = kinds[False], kinds[True]
        self.requests = self._requests()
        self.slow = [sample(SLOW_FIRST + i, self.image, timeout_s=TIMEOUT_S) for i in range(SLOW)]
        self.reference: dict[int, str] = {}
        self.shared_exit_code: int | None = None
        self._started = self._stores = 0
        self._rabbit = rabbit
        self._shared: Server | None = None
        self._open = ExitStack()

    def _requests(self) -> list[Request]:
        accepted = ("application/json", "application/x-npy")
        plain = [
            sample(i, self.image, n=1 + i % 4, accept=accepted[i % 2], timeout_s=TIMEOUT_S)
            for i in range(PLAIN)
        ]
        texts = [
            completion(
                1000 + i, self.text, "", max_tokens=TEXT_TOKENS, stream=i % 2 == 0, timeout_s=TIMEOUT_S
            )
            for i in range(TEXTS)
        ]
        every = PLAIN // TEXTS
        return [r for i in range(TEXTS) for r in (*plain[i * every : (i + 1) * every], texts[i])]

    def server(
        self,
        *settings: str,
        sabotage: str = "",
        bundles: Sequence[Path] | None = None,
        jobs: str = MEMORY,
    ) -> Server:
        """A server of the bundles (or of others), sabotaged, to be entered.

        Args:
            settings: as `--set` takes them.
            sabotage: one of the modes of `faults`.
            jobs: the file that keeps them, or `memory`.
        """
        if self.broker == MACHINES:
            assert jobs == MEMORY  # a gateway's jobs are another lane
            return self.machines(*settings, sabotage=sabotage, bundles=bundles)
        self._started += 1
        return Server(
            self.bundles if bundles is None else bundles,
            workers=WORKERS,
            log=self.folder / f"serve-{self._started}.log",
            options=["--log", "json", "--jobs", jobs, *options(settings)],
            environment=self.environment(sabotage),
        )

    def machines(
        self,
        *settings: str,
        sabotage: str = "",
        bundles: Sequence[Path] | None = None,
        port: int | None = None,
    ) -> Machines:
        """A gateway and its workers, to be entered: nobody else is on their virtual host of RabbitMQ.

        Args:
            port: of a relay to RabbitMQ through which all of them go.
        """
        self._started += 1
        host = f"machines-{self._started}"
        self.rabbit().add_host(host)
        return Machines(
            self.bundles if bundles is None else bundles,
            broker=url_of(port or self.rabbit().port) + host,
            workers=WORKERS,
            log=self.folder / f"serve-{self._started}.log",
            settings=settings,
            environment=self.environment(sabotage),
        )

    def store(self) -> str:
        """A new file for jobs."""
        self._stores += 1
        return str(self.folder / f"jobs-{self._stores}.db")

    def environment(self, sabotage: str = "") -> dict[str, str]:
        """What puts the saboteur into every process of a server."""
        path = [str(Path(saboteur.__file__).parent), os.environ.get("PYTHONPATH", "")]
        return {
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            FOLDER_VARIABLE: str(self.folder),
            MODE_VARIABLE: sabotage,
        }

    def shared(self) -> Server:
        """A server with two workers for experiments that leave it as they found it."""
        if self._shared is None or not self._shared.is_running():
            self._shared = self._open.enter_context(self._shared_server())
        return self._shared

    def _shared_server(self) -> Server:
        if self.broker != "amqp":
            return self.server(*SHARED)
        return self.server(*SHARED, f"jobs.broker={self.rabbit().url}", jobs=self.store())

    def rabbit(self) -> RabbitServer:
        """A RabbitMQ of our own.

        Raises: ConfigError if there is none to start.
        """
        if self._rabbit is None:
            if not is_installed():
                raise ConfigError("RabbitMQ is not installed", where="--broker amqp", remedy="`make system`")
            folder = self.folder / "rabbitmq"
            folder.mkdir()
            self._rabbit = RabbitServer(folder)
            self._open.callback(self._rabbit.close)
        return self._rabbit

    def arm(self, fault: Fault) -> None:
        """Let a fault that strikes once strike the next time its seed is seen."""
        (self.folder / fault.name).touch()

    def __enter__(self) -> Stage:
        with ExitStack() as entering:
            entering.push(self.__exit__)
            self.reference = self._calm_answers()
            entering.pop_all()
        return self

    def _calm_answers(self) -> dict[int, str]:
        calm = run_load(self.shared(), [*self.requests, *self.slow])
        if calm.errors:
            raise ConfigError(
                f"without any fault, request {calm.errors[0].number} got {calm.errors[0].error}",
                where="--bundle",
                remedy=f"see {self.folder}",
            )
        return {answer.number: answer.digest for answer in calm.answers}

    def __exit__(self, *error: object) -> None:
        self._open.close()
        if self._shared is not None:
            self.shared_exit_code = self._shared.exit_code


def is_text(bundle: Path) -> bool:
    """Whether the bundle's model generates text."""
    return isinstance(read_manifest(bundle).sampler, TextSampler)
