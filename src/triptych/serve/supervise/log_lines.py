"""A process's log lines on stderr: for people (text), or machines (one JSON object per line)."""

from __future__ import annotations

import logging
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal

import msgspec

LogKind = Literal["text", "json"]

log = logging.getLogger(__name__)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, an event's fields, a traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "event", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def start_logging(kind: LogKind) -> None:
    """Send what this process logs to stderr, in one of the two shapes; as JSON, also what Python itself would
    print there: warnings, and errors that nobody caught.
    """
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    handler.setFormatter(JsonFormatter() if kind == "json" else text)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    if kind == "json":
        logging.captureWarnings(True)
        sys.excepthook = log_uncaught
        threading.excepthook = log_uncaught_of_thread


def log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Write what ended the process."""
    log.critical("uncaught %s", kind.__name__, exc_info=(kind, error, trace))


def log_uncaught_of_thread(uncaught: threading.ExceptHookArgs) -> None:
    """Write what ended a thread."""
    if uncaught.exc_value is not None:
        log_uncaught(uncaught.exc_type, uncaught.exc_value, uncaught.exc_traceback)


def log_end(message: str) -> None:
    """Write why the program ends: as a line of the log where those are objects, else as it is."""
    if any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers):
        log.critical(message)
    else:
        print(f"triptych: {message}", file=sys.stderr)
