"""Laws of RabbitMQ's addresses: a password is never shown, and what cannot be meant is refused at once."""

import pytest

from triptych.errors import ConfigError
from triptych.serve.brokers.amqp_address import shown


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("amqp://localhost/", "amqp://localhost/"),
        ("amqp://me:secret@host:5673/a%2Fb?heartbeat=5", "amqp://me@host:5673/a%2Fb"),
        ("amqps://me:s%2Fe%23c%3Fr%40t@[::1]/", "amqps://me@[::1]/"),
    ],
)
def test_an_address_is_shown_without_its_password(url, expected):
    assert shown(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "amqp://me:sec/ret@host/",
        "amqp://me:12/ret@host/",
        "amqp://me:sec#ret@host/",
        "amqp://me:12#ret@host/",
        "amqp://me:12?ret@host/",
        "amqp://me:ret@host:port/",
        "amqp://me:ret@host:99999/",
        "amqp://me:ret@/",
    ],
)
def test_what_is_no_address_is_refused_and_not_repeated(url):
    with pytest.raises(ConfigError, match="no address of a RabbitMQ") as raised:
        shown(url)
    assert "ret" not in str(raised.value)
