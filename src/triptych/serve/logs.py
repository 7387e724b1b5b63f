"""What supervisors and pools say, as lines of the log."""

from __future__ import annotations

import logging

import msgspec

from triptych.serve.supervise.spec import Event, Exit

log = logging.getLogger("triptych.serve")
LOUD = {"died", "escalated", "hung", "redispatched", "restarted"}


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
