"""Work for worker processes in tests: doubles integers, counts, and misbehaves on request."""

import os
import signal
import time
from pathlib import Path

from triptych.errors import InputError
from triptych.serve.supervise.channel import pack_header
from triptych.serve.supervise.failure import Failure
from triptych.serve.supervise.worker import Kind, StreamEvent


class Integers:
    """Payloads are words: an integer is doubled; verbs below do what they say."""

    def __init__(self):
        self.streams = {}

    def handle_batch(self, payloads):
        return [self.answer(payload.decode().split()) for payload in payloads]

    def answer(self, words):
        match words:
            case ["exit", code]:
                os._exit(int(code))
            case ["exit-once", path]:
                if first_time(path):
                    os._exit(9)
                return b"done"
            case ["raise"]:
                raise ValueError("asked to raise")
            case ["fail"]:
                return Failure.of(InputError("asked to fail", where="payload"))
            case ["pid"]:
                return str(os.getpid()).encode()
            case ["streams"]:
                return str(len(self.streams)).encode()
            case ["bytes", size]:
                return b"x" * int(size)
            case ["hold", path]:
                hold(path)
            case ["hold-once", path]:
                if first_time(path + ".once"):
                    hold(path)
                return b"done"
            case ["tear"]:
                tear()
            case [number]:
                return str(2 * int(number)).encode()

    def open_stream(self, stream_id, payload):
        words = payload.decode().split()
        if words[0] == "refuse":
            raise InputError("asked to refuse", where="payload")
        self.streams[stream_id] = [words, 0]

    def step(self):
        events = []
        for stream_id, stream in list(self.streams.items()):
            words, at = stream
            match words:
                case ["count", limit]:
                    end = int(limit)
                case ["die-at", limit, position]:
                    end = int(limit)
                    if at == int(position):
                        os._exit(7)
                case ["die-once-at", limit, position, path]:
                    end = int(limit)
                    if at == int(position) and first_time(path):
                        os._exit(7)
                case ["fail-at", position]:
                    end = int(position) + 1
                    if at == int(position):
                        failure = Failure.of(InputError("asked to fail"))
                        events.append(StreamEvent(stream_id, done=True, failure=failure))
                        del self.streams[stream_id]
                        continue
                case ["forever"]:
                    end = at + 2
                    time.sleep(0.001)
            stream[1] = at + 1
            events.append(StreamEvent(stream_id, f"{at} ".encode(), done=at + 1 == end))
            if at + 1 == end:
                del self.streams[stream_id]
        return events

    def close_stream(self, stream_id):
        self.streams.pop(stream_id, None)

    def close(self):
        pass


def make(args):
    """A handler; `{"fail": text}` raises instead, `{"exit": code}` ends the process."""
    args = args or {}
    if "fail" in args:
        raise InputError(args["fail"], where="factory")
    if "exit" in args:
        os._exit(args["exit"])
    return Integers()


def first_time(path):
    """Whether nobody called this before with `path`."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def hold(path):
    """Tell the test, by the FIFO at `path`, that the batch is being computed; never return."""
    with Path(path).open("wb", buffering=0) as fifo:
        fifo.write(f"{os.getpid()}\n".encode())
    while True:
        signal.pause()


def tear():
    """Write half of a reply to the real channel, then die."""
    for name in os.listdir("/proc/self/fd"):
        path = f"/proc/self/fd/{name}"
        if os.path.exists(path) and os.readlink(path).startswith("socket:"):
            body = b"x" * 1000
            os.write(int(name), (pack_header(Kind.ANSWERS, 1, body) + body)[:500])
    os.kill(os.getpid(), signal.SIGKILL)
