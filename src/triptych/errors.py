"""Every error Triptych raises on purpose.

::

    TriptychError
    ├── ConfigError            a recipe, setting or argument is not valid
    ├── DataError              data is missing, damaged or of the wrong shape, range or type
    ├── TrainingError          training cannot go on
    │   ├── NonFiniteError     a loss or gradient became NaN or infinite, too often
    │   └── CheckpointError    a checkpoint cannot be written, read or resumed from
    ├── BundleError            a bundle cannot be read
    │   ├── BundleNotFound     there is no bundle at that path
    │   └── BundleRefused      wrong digest, truncated file, unknown version, path outside the folder
    ├── ExportError            a model cannot be written as a bundle, or its graphs fail the parity gate
    ├── InputError             a request or call has an input the model does not take (HTTP 400)
    ├── NotFoundError          no such model, graph or job (HTTP 404)
    ├── ConflictError          it contradicts what is there already (HTTP 409)
    └── ServeError             the serving side cannot answer
        ├── Overloaded         the queue is full: try again later (HTTP 503)
        ├── Draining           the server is shutting down (HTTP 503)
        ├── DeadlineExceeded   the request's deadline passed (HTTP 504)
        ├── BrokerUnavailable  RabbitMQ is away, or takes nothing for now: try again later (HTTP 503)
        ├── StorageFull        there is no room left to keep a job safe (HTTP 507)
        ├── StoreDamaged       what a store holds is not what was written there (HTTP 500)
        ├── WorkerDied         a worker process died while it held the work
        ├── Poison             the work killed its worker every time it was tried (HTTP 500)
        └── SupervisorFailed   restarts exceeded max_restarts in max_seconds

Each message says where, what it got, what is valid, and what to do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from difflib import get_close_matches

LONGEST_NAME = 100  # what is longer is no slip of the pen, and comparing it takes long


class TriptychError(Exception):
    """Base of every error raised on purpose.

    Args:
        problem: what is wrong, with the offending value.
        where: the file, key, argument or component it concerns.
        valid: what would have been accepted.
        remedy: what to do about it.
    """

    def __init__(self, problem: str, *, where: str = "", valid: str = "", remedy: str = "") -> None:
        self.problem, self.where, self.valid, self.remedy = problem, where, valid, remedy
        super().__init__(problem, where, valid, remedy)

    def __str__(self) -> str:
        text = f"{self.where}: {self.problem}" if self.where else self.problem
        if self.valid:
            text += f"; valid: {self.valid}"
        if self.remedy:
            text += f". {self.remedy[0].upper()}{self.remedy[1:]}"
        return text

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.problem, self.where, self.valid, self.remedy)


def _rebuild(kind: type[TriptychError], problem: str, where: str, valid: str, remedy: str) -> TriptychError:
    return kind(problem, where=where, valid=valid, remedy=remedy)


class ConfigError(TriptychError):
    """A recipe, setting or argument is not valid."""


class DataError(TriptychError):
    """Data is missing, damaged, or of the wrong shape, range or type."""


class TrainingError(TriptychError):
    """Training cannot go on."""


class NonFiniteError(TrainingError):
    """A loss or gradient became NaN or infinite more often than the guard allows."""


class CheckpointError(TrainingError):
    """A checkpoint cannot be written, read or resumed from."""


class BundleError(TriptychError):
    """A bundle cannot be read."""


class BundleNotFound(BundleError):
    """There is no bundle at that path."""


class BundleRefused(BundleError):
    """A bundle's bytes are not what its manifest says, or its format is unknown."""


class ExportError(TriptychError):
    """A model cannot be written as a bundle, or a graph fails its parity gate."""


class InputError(TriptychError):
    """A request or call carries an input the model does not take."""


class NotFoundError(TriptychError):
    """No such model, graph or job."""


class ConflictError(TriptychError):
    """What is asked contradicts what is there already."""


class ServeError(TriptychError):
    """The serving side cannot answer."""


class Overloaded(ServeError):
    """The queue is full, or too long.

    Attributes:
        retry_after_s: when it is worth to try again.
    """

    retry_after_s: int = 1

    @classmethod
    def of_queue(cls, wait_s: float) -> Overloaded:
        """For a queue whose work takes `wait_s`."""
        whole_s = max(1, math.ceil(wait_s))
        error = cls(f"what waits takes about {whole_s} s", where="queue", remedy=f"try again in {whole_s} s")
        error.retry_after_s = whole_s
        return error


class Draining(ServeError):
    """The server is shutting down."""


class DeadlineExceeded(ServeError):
    """The request's deadline passed before it was answered."""


class BrokerUnavailable(ServeError):
    """The broker is away, or takes nothing for now."""


class StorageFull(ServeError):
    """There is no room left to keep a job safe."""


class StoreDamaged(ServeError):
    """What a store holds is not what was written there."""


class WorkerDied(ServeError):
    """A worker process died while it held the work."""


class Poison(ServeError):
    """The work killed its worker every time it was tried."""


class SupervisorFailed(ServeError):
    """Restarts exceeded the supervisor's intensity."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """A remedy sentence that names the closest valid spelling, or an empty string.

    >>> nearest("lerning_rate", ["learning_rate", "seed"])
    'did you mean `learning_rate`?'
    """
    close = get_close_matches(name, list(valid), n=1) if len(name) <= LONGEST_NAME else []
    return f"did you mean `{close[0]}`?" if close else ""
