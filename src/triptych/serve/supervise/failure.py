"""A failure: what is left of an exception after it crossed a process border."""

from __future__ import annotations

import logging

import msgspec

from triptych import errors

log = logging.getLogger(__name__)


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """Why one piece of work has no answer: the name of an error of `triptych.errors`, and its four sentences.

    >>> Failure.of(errors.InputError("got -1", where="n", valid="1 to 64")).to_error()
    InputError('got -1', 'n', '1 to 64', '')
    """

    type: str
    problem: str
    where: str = ""
    valid: str = ""
    remedy: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """The failure that stands for `error`; an unexpected one shows only its type, the rest is logged."""
        if isinstance(error, errors.TriptychError):
            return cls(type(error).__name__, error.problem, error.where, error.valid, error.remedy)
        log.error("unexpected %s", type(error).__name__, exc_info=error)
        return cls(
            "ServeError",
            f"internal error ({type(error).__name__})",
            remedy="the server's log has the traceback",
        )

    def to_error(self) -> errors.TriptychError:
        """The error this failure stands for; an unknown name becomes `ServeError`."""
        kind = getattr(errors, self.type, None)
        if not (isinstance(kind, type) and issubclass(kind, errors.TriptychError)):
            kind = errors.ServeError
        return kind(self.problem, where=self.where, valid=self.valid, remedy=self.remedy)
