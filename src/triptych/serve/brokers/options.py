"""The options of the brokers."""

from __future__ import annotations

from triptych.serve.pipeline.options import Options


class BrokerOptions(Options, frozen=True):
    """Bounds that every broker keeps.

    Args:
        capacity: jobs that may wait; one more is `Overloaded`.
        in_flight: leases out at a time.
        lease_s: a lease neither settled nor extended by then goes to somebody else.
        max_deliveries: a job handed out this often without an end is dead.
        retention_s: what has ended is forgotten after this; dead jobs stay.
        size_bytes: what the store may take on disk; beyond it is `StorageFull`.
    """

    capacity: int = 100_000
    in_flight: int = 128
    lease_s: float = 60.0
    max_deliveries: int = 3
    retention_s: float = 86_400.0
    size_bytes: int = 8 * 2**30


class RabbitOptions(Options, frozen=True):
    """Bounds of a connection to RabbitMQ.

    Args:
        prefix: what the names of its queues begin with.
        publish_timeout_s: a message not confirmed by then is `BrokerUnavailable`.
        connect_timeout_s: longest try to connect, declare, consume and see the canary come back.
        check_s: between two looks at whether the queues still have their consumer and messages come through.
        heartbeat_s: a connection silent for about twice this long is given up, here and by the broker.
        backoff_s, longest_backoff_s: pause before the first and before the last kind of try to reconnect.
    """

    prefix: str = "triptych"
    publish_timeout_s: float = 5.0
    connect_timeout_s: float = 10.0
    check_s: float = 5.0
    heartbeat_s: int = 10
    backoff_s: float = 1.0
    longest_backoff_s: float = 30.0
