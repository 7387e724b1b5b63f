"""The options of every stage: one frozen struct each, validated; an unknown name is an error."""

from __future__ import annotations

from typing import Any

import msgspec

from triptych.errors import ConfigError, nearest


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the option structs: every number must be positive."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, int | float) and not isinstance(value, bool) and not value > 0:
                raise ConfigError(
                    f"got {value}", where=f"{type(self).__name__}.{name}", valid="a number above 0"
                )


class RateLimit(Options, frozen=True):
    """At most `allowed_messages` leave the producer in any `interval_s` seconds."""

    allowed_messages: int
    interval_s: float = 1.0


class ProducerOptions(Options, frozen=True):
    """The producer.

    Args:
        capacity: messages that may wait; one more is `Overloaded`.
        retry_after_s: what a refused caller is told to wait.
        rate_limiting: None: as fast as the demand.
    """

    capacity: int = 1024
    retry_after_s: float = 1.0
    rate_limiting: RateLimit | None = None


class ProcessorsOptions(Options, frozen=True):
    """The processors: `concurrency` tasks, each asking for up to `max_demand` messages at a time."""

    concurrency: int = 1
    max_demand: int = 64


class BatcherOptions(Options, frozen=True):
    """One batcher.

    Args:
        concurrency: batch processors, that is batches of this batcher in flight.
        batch_size: rows a batch is full at. A message with more rows gets a batch of its own.
        batch_timeout_s: a batch that waited this long goes next, before younger ones of other keys.
        max_demand: rows held here and not yet handed to a batch processor; more stay in the producer.
        when_idle: hand out an unfilled batch as soon as a batch processor has nothing to do. False waits for
            `batch_size` or `batch_timeout_s`.
    """

    concurrency: int = 1
    batch_size: int = 64
    batch_timeout_s: float = 0.01
    max_demand: int = 256
    when_idle: bool = True


class PipelineOptions(Options, frozen=True):
    """The pipeline.

    Args:
        batchers: by name; without any, a message is acknowledged after `handle_message`.
        shutdown_s: how long `drain` waits at most.
        max_restarts, max_seconds: restart intensity of each supervisor of the stages.
        max_deliveries: a message that lost its worker this often, the last time alone, is `Poison`.
    """

    name: str = "pipeline"
    producer: ProducerOptions = ProducerOptions()
    processors: ProcessorsOptions = ProcessorsOptions()
    batchers: dict[str, BatcherOptions] = msgspec.field(default_factory=lambda: {"default": BatcherOptions()})
    shutdown_s: float = 30.0
    max_restarts: int = 3
    max_seconds: float = 5.0
    max_deliveries: int = 3

    @classmethod
    def parse(cls, settings: dict[str, Any]) -> PipelineOptions:
        """Options from plain data, such as a table of a TOML file.

        Raises: ConfigError for an unknown name, a wrong type or a number out of range.
        """
        try:
            return msgspec.convert(settings, cls)
        except msgspec.ValidationError as error:
            unknown = str(error).partition("unknown field `")[2].partition("`")[0]
            remedy = nearest(unknown, NAMES) if unknown else ""
            raise ConfigError(str(error), where="pipeline options", remedy=remedy) from error


EVERY = (PipelineOptions, ProducerOptions, ProcessorsOptions, BatcherOptions, RateLimit)
NAMES = {name for options in EVERY for name in options.__struct_fields__}
