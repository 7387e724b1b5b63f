"""The broker of many machines: quorum queues carry jobs, a store beside the gateway remembers them.

::

    gateway                          RabbitMQ                                workers, any number
    RabbitIntake ── job ──────────▶  PREFIX.jobs (quorum, delivery limit) ──▶ RabbitSource
        │                                │ rejected, or handed out too often    │
        │                                ▼ PREFIX.dead-letters (exchange)       │
        └ store  ◀──────────────────  PREFIX.results.NAME ◀── running, result ──┘

RabbitMQ keeps messages, not answers: what became of a job is in the gateway's store (`SqliteBroker`), under
the gateway's NAME. A worker acknowledges a job once RabbitMQ has confirmed its result; a job that runs twice
makes the same result, and the second is dropped.
"""

from __future__ import annotations

from pamqp.commands import Basic
from pamqp.common import FieldTable

from triptych.serve.brokers.amqp_connection import AmqpConnection
from triptych.serve.brokers.options import BrokerOptions

TRANSIENT, PERSISTENT = 1, 2
RUNNING, DONE, FAILED, DEAD, RECREATED = "running", "done", "failed", "dead", "recreated"


class Names:
    """What exchanges and queues are called; `gateway` is the name of the gateway they belong to."""

    def __init__(self, prefix: str, gateway: str = "") -> None:
        self.gateway, self.gateways = gateway, f"{prefix}.gateways"
        self.jobs, self.work = f"{prefix}.jobs", f"{prefix}.work"
        self.dead_letters = f"{prefix}.dead-letters"
        self.results = f"{prefix}.results.{gateway}"


async def declare_jobs(connection: AmqpConnection, names: Names, options: BrokerOptions, token: str) -> None:
    """The exchange and the quorum queue of the jobs, and where dead letters go; `token` is the link's."""
    await connection.declare_exchange(names.work, "fanout")
    await connection.declare_exchange(names.dead_letters, "direct")
    await connection.declare_exchange(names.gateways, "fanout")
    arguments: FieldTable = {
        "x-queue-type": "quorum",
        "x-delivery-limit": options.max_deliveries - 1,  # RabbitMQ counts the times it came back
        "x-dead-letter-exchange": names.dead_letters,  # by the routing key: the name of the job's gateway
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
        "x-max-length": options.capacity,
    }
    await connection.declare_queue(names.jobs, arguments)
    await connection.bind(names.jobs, names.work)
    if names.jobs in connection.created:  # whoever finds it gone tells every gateway to send its jobs again
        told = Basic.Properties(message_id=token, message_type=RECREATED, delivery_mode=PERSISTENT)
        await connection.tell(names.gateways, told)
