"""Small programs for child processes in tests."""

import asyncio
import logging
import os
import signal
import sys
import threading
import warnings

from triptych.serve.supervise.process import spawn


def leave(args):
    return args[0]


def fail(_):
    raise ValueError("asked to fail")


def warn_and_fail(_):
    warnings.warn("mind the gap", stacklevel=1)
    logging.getLogger(__name__).error("two\nlines")
    thread = threading.Thread(target=fail_in_thread)
    thread.start()
    thread.join()
    fail(_)


def fail_in_thread():
    raise ValueError("in a thread")


def wait_for_term(args):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(42))
    if isinstance(args, dict):
        os.write(args["write"], b".")
    while True:
        signal.pause()


def ignore_term(args):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(args["write"], b".")
    while True:
        signal.pause()


def parent_of_two(args):
    """Start two children that hold `write` open, tell who they are, wait."""

    async def main():
        for name in ("a", "b"):
            child = await spawn(
                "integer_processes:wait_for_term",
                {"write": args["write"]},
                name=name,
                pass_fds=[args["write"]],
            )
            os.write(args["write"], f"{child.pid} ".encode())
        await asyncio.Event().wait()

    asyncio.run(main())
