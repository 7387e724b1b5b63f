"""What fault tests share: a FIFO through which a worker says that it is in the middle of its work."""

import asyncio
import os

import pytest


class Signpost:
    """A FIFO: work in a worker writes its pid there, the test waits for it."""

    def __init__(self, path):
        self.path = str(path)
        os.mkfifo(path)
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    async def reached(self):
        """The pid of the worker that is now inside its work."""
        loop, readable = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._descriptor, readable.set)
        await readable.wait()
        loop.remove_reader(self._descriptor)
        return int(os.read(self._descriptor, 20))

    def close(self):
        os.close(self._descriptor)


@pytest.fixture
def signpost(tmp_path):
    post = Signpost(tmp_path / "signpost")
    yield post
    post.close()
