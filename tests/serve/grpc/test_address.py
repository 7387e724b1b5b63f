"""The port of gRPC is held for the node, and nobody else has it meanwhile."""

from __future__ import annotations

import socket
import sys

import pytest

from triptych.errors import ConfigError
from triptych.serve.grpc.address import PACKAGES, environment, held
from triptych.serve.settings import Settings, read_settings

ON = read_settings(overrides=["grpc.port=0"])


def test_without_a_port_nothing_is_held_and_no_package_is_asked_for(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    with held(Settings()) as found:
        assert found == (Settings(), "")


def test_the_port_that_was_chosen_is_shown_and_is_there_for_every_node() -> None:
    with held(ON) as (settings, address):
        assert address == f"127.0.0.1:{settings.grpc.port}"
        for _ in range(2):
            with socket.socket() as node:
                node.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                node.bind(("127.0.0.1", settings.grpc.port))
                node.listen()
                with socket.create_connection(node.getsockname()):
                    node.accept()[0].close()


def test_a_port_that_is_held_is_refused_to_others() -> None:
    with held(ON) as (settings, address):
        with pytest.raises(ConfigError, match=f"cannot listen on {address}"), held(settings):
            pass
        with pytest.raises(OSError, match="in use"), socket.socket() as other:
            other.bind(("127.0.0.1", settings.grpc.port))


def test_an_address_of_version_6_is_written_in_brackets() -> None:
    with held(read_settings(overrides=["grpc.port=0", "http.host=::1"])) as (settings, address):
        assert address == f"[::1]:{settings.grpc.port}"


@pytest.mark.parametrize("module", PACKAGES)
def test_a_package_that_is_missing_is_named_with_what_installs_it(module: str, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r"pip install 'triptych\[grpc\]'"), held(ON):
        pass


def test_what_an_operator_says_of_the_library_s_log_holds(monkeypatch) -> None:
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)
    assert environment()["GRPC_VERBOSITY"] == "NONE"
    monkeypatch.setenv("GRPC_VERBOSITY", "INFO")
    assert environment()["GRPC_VERBOSITY"] == "INFO"
