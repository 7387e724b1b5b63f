"""Settings that would do nothing are errors, at gateways and at workers."""

from __future__ import annotations

import pytest

from triptych.errors import ConfigError
from triptych.serve.remote.roles import check_gateway, check_worker
from triptych.serve.settings import read_settings

BROKER = "jobs.broker=amqp://rabbit/"


def test_a_gateway_does_not_compute():
    check_gateway(read_settings(overrides=[BROKER, "http.port=1", "queue.batch_size=8", "limits.rows=4"]))
    with pytest.raises(ConfigError, match=r"workers\.precision would do nothing.*`triptych worker`"):
        check_gateway(read_settings(overrides=[BROKER, "workers.precision=bf16"]))


def test_a_gateways_requests_must_fit_a_message():
    with pytest.raises(ConfigError, match="up to 15728640"):
        check_gateway(read_settings(overrides=[BROKER, "limits.body_bytes=100000000"]))


def test_a_worker_does_not_listen():
    check_worker(
        read_settings(overrides=[BROKER, "workers.precision=bf16", "drain.shutdown_s=5", "log=json"])
    )
    with pytest.raises(ConfigError, match=r"http\.port, limits\.rows would do nothing"):
        check_worker(read_settings(overrides=[BROKER, "http.port=1", "limits.rows=4"]))
