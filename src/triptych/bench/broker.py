"""Messages through RabbitMQ: a plain aio-pika consumer, one at a time, beside our source with many under way.

Both take the same messages from the same quorum queue, answer each with its own body, confirmed, on a durable
queue, and only then acknowledge it. The work itself is nothing: what is measured is the way there and back.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aio_pika
from aio_pika.abc import AbstractChannel

from triptych.bench.comparison import Comparison
from triptych.serve.brokers.options import BrokerOptions, RabbitOptions
from triptych.serve.brokers.rabbit_source import RabbitSource
from triptych.serve.brokers.topology import RUNNING
from triptych.serve.chaos.rabbit import RabbitServer

MESSAGES, TURNS = 1000, 3
IN_FLIGHT = 256
PREFIX, RESULTS = "bench", "bench.results"
Consume = Callable[[str], Awaitable[float]]


def compare_messages() -> list[Comparison]:
    """Start a RabbitMQ, measure, end it."""
    with tempfile.TemporaryDirectory() as folder:
        server = RabbitServer(Path(folder))
        try:
            return [asyncio.run(compare(server.url))]
        finally:
            server.close()


async def compare(url: str) -> Comparison:
    """Seconds per message of both sides, by turns."""
    source = await RabbitSource(url, BrokerOptions(), RabbitOptions(prefix=PREFIX)).start()
    await source.link.wait_up(20.0)  # declares the queue
    await source.close()
    reference_s, ours_s = [], []
    for _ in range(TURNS):
        reference_s.append(await measured(url, plain))
        ours_s.append(await measured(url, ours))
    return Comparison(
        claim=f"{MESSAGES} messages of 200 bytes through a quorum queue, each answered and acknowledged",
        reference="aio-pika consumer, one message at a time",
        ours=f"RabbitSource, {IN_FLIGHT} under way",
        threads=1,
        reference_s=reference_s,
        ours_s=ours_s,
        equal="the bodies that came back, each once",
        details={"messages_per_s": {"reference": 1 / min(reference_s), "ours": 1 / min(ours_s)}},
    )


async def measured(url: str, consume: Consume) -> float:
    """Seconds per message; raises AssertionError unless every message was answered exactly once."""
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        results = await channel.declare_queue(RESULTS, durable=True, arguments={"x-queue-type": "quorum"})
        await fill(channel)
        elapsed_s = await consume(url)
        bodies = []
        while (message := await results.get(no_ack=True, fail=False)) is not None:
            if message.type != RUNNING:  # ours also says when it begins
                bodies.append(message.body)
    assert sorted(bodies) == sorted(map(body_of, range(MESSAGES)))
    return elapsed_s / MESSAGES


async def fill(channel: AbstractChannel) -> None:
    """Queue the messages."""
    messages = [
        aio_pika.Message(body_of(number), delivery_mode=2, reply_to=RESULTS, message_id=str(number))
        for number in range(MESSAGES)
    ]
    publish = channel.default_exchange.publish
    await asyncio.gather(*(publish(message, f"{PREFIX}.jobs") for message in messages))


def body_of(number: int) -> bytes:
    """A message."""
    return str(number).encode().rjust(200)


async def plain(url: str) -> float:
    """The reference."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=1)
        queue = await channel.get_queue(f"{PREFIX}.jobs")
        started_s, left = time.perf_counter(), MESSAGES
        async with queue.iterator() as messages:
            async for message in messages:
                async with message.process():
                    answer = aio_pika.Message(message.body, delivery_mode=2)
                    await channel.default_exchange.publish(answer, message.reply_to or "")
                left -= 1
                if not left:
                    break
        return time.perf_counter() - started_s


async def ours(url: str) -> float:
    """What serves jobs."""
    source = RabbitSource(url, BrokerOptions(in_flight=IN_FLIGHT), RabbitOptions(prefix=PREFIX))
    await source.start()
    await source.link.wait_up(20.0)
    started_s, left = time.perf_counter(), MESSAGES
    while left:
        leases = await source.take(IN_FLIGHT)
        await asyncio.gather(*(source.ack(lease, lease.body) for lease in leases))
        left -= len(leases)
    elapsed_s = time.perf_counter() - started_s
    await source.close()
    return elapsed_s
