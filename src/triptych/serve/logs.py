"""Log lines for people (text) or machines (one JSON object per line), on stderr."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Literal

import msgspec

from triptych.serve.supervise.spec import Event, Exit

log = logging.getLogger("triptych.serve")
LOUD = {"died", "escalated", "hung", "redispatched", "restarted"}


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


def start_logging(kind: Literal["text", "json"]) -> None:
    """Send what this process logs to stderr, in one of the two shapes."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    handler.setFormatter(JsonFormatter() if kind == "json" else text)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def log_trouble(event: Event) -> None:
    """Write what went wrong; that the stages of a pipeline have started, or ended when asked, is no news."""
    if event.kind in LOUD and event.reason != Exit(code=0).reason:
        log_event(event)


def log_event(event: Event) -> None:
    """Write what a supervisor or pool says: who, what, why."""
    who = f"{event.supervisor}: {event.child}" if event.child else event.supervisor
    pid = f" (pid {event.pid})" if event.pid else ""
    reason = f": {event.reason}" if event.reason else ""
    level = logging.WARNING if event.kind in LOUD else logging.INFO
    fields = {"event": {f"event_{k}" if k == "kind" else k: v for k, v in msgspec.to_builtins(event).items()}}
    log.log(level, "%s%s %s%s", who, pid, event.kind, reason, extra=fields)
