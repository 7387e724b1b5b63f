"""A real server: untrained models exported, `triptych serve` as a process, HTTP over a socket."""

from __future__ import annotations

import http.client
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

VOCABULARY = [chr(code) for code in range(32, 127)] + ["\n"]


class Served:
    """A running `triptych serve`."""

    def __init__(self, log: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "triptych", "serve", "--port", "0", *arguments]
        self.log = log
        with log.open("w") as errors:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()  # blocks until it is ready, or ends
        self.url = line.rpartition(" ")[2].strip()
        assert self.url, log.read_text()
        self.client = httpx.Client(base_url=self.url, timeout=30, limits=httpx.Limits(max_connections=None))

    def connect(self) -> http.client.HTTPConnection:
        """A new keep-alive connection."""
        where = urlsplit(self.url)
        return http.client.HTTPConnection(where.hostname or "", where.port)

    def workers(self) -> list[dict[str, Any]]:
        """What the server says of its workers."""
        return list(self.client.get("/v2/workers").json()["workers"])

    def sample(self, accept: str = "application/x-npy", **body: Any) -> httpx.Response:
        """One request for samples of the VAE."""
        return self.client.post("/v1/models/vae/sample", json=body, headers={"accept": accept})

    def stop(self) -> None:
        """End it, however it stands."""
        self.client.close()
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundles `vae` and `text`."""
    from tokenizers import Tokenizer, decoders, models

    from triptych.learn import VAE, Transformer
    from triptych.learn.export import export

    folder = tmp_path_factory.mktemp("bundles")
    export(VAE(VAE.Config(sample_shape=(1, 8, 8), hidden=(16,), latent_dim=4)), folder / "vae")
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(VOCABULARY)}, merges=[]))
    tokenizer.decoder = decoders.Fuse()
    config = Transformer.Config(vocab_size=len(VOCABULARY), block_size=64, layers=1, heads=2, width=32)
    export(Transformer(config), folder / "text", tokenizer=tokenizer.to_str())
    return folder


@pytest.fixture
def start(bundles: Path, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start servers of both bundles; all are ended after the test."""
    running: list[Served] = []

    def start(*arguments: str) -> Served:
        log = tmp_path / f"serve-{len(running)}.log"
        running.append(Served(log, str(bundles / "vae"), str(bundles / "text"), *arguments))
        return running[-1]

    yield start
    for served in running:
        served.stop()


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Served]]:
    """Start servers of bundles of one's own; all are ended after the module."""
    running: list[Served] = []

    def serve(*arguments: str) -> Served:
        running.append(Served(tmp_path_factory.mktemp("log") / "serve.log", *arguments))
        return running[-1]

    yield serve
    for served in running:
        served.stop()


@pytest.fixture(scope="session")
def served(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all tests that leave it as they found it."""
    log = tmp_path_factory.mktemp("log") / "serve.log"
    served = Served(
        log,
        str(bundles / "vae"),
        str(bundles / "text"),
        "--workers",
        "2",
        "--set",
        "limits.body_bytes=100000",
    )
    yield served
    served.stop()
