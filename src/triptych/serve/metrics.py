"""What `/metrics` shows: one registry, in the node; workers have none."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate

import prometheus_client
from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from triptych.serve.brokers.job import BrokerStatistics
from triptych.serve.supervise.spec import Event

DURATIONS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Durations:
    """A histogram that costs next to nothing to fill: it becomes Prometheus' own when the page is read."""

    __slots__ = ("_counts", "_sum_s")

    def __init__(self) -> None:
        self._counts, self._sum_s = [0] * (len(DURATIONS_S) + 1), 0.0

    def observe(self, elapsed_s: float) -> None:
        """One more."""
        self._counts[bisect_left(DURATIONS_S, elapsed_s)] += 1
        self._sum_s += elapsed_s

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        """As one series of `family`."""
        names = [*map(str, DURATIONS_S), "+Inf"]
        family.add_metric(labels, list(zip(names, accumulate(self._counts), strict=True)), self._sum_s)


class Answers:
    """What was answered in the name of one model."""

    __slots__ = ("codes", "durations")

    def __init__(self) -> None:
        self.codes: Counter[int] = Counter()
        self.durations = Durations()


class Tallies(Collector):
    """The numbers counted once per request, for the registry."""

    def __init__(self, answers: Mapping[str, Answers], queue_duration: Durations) -> None:
        self._answers, self._queue_duration = answers, queue_duration

    def collect(self) -> Iterator[Metric]:
        """The families as they are now."""
        requests = CounterMetricFamily("triptych_requests", "Requests answered.", labels=["model", "code"])
        durations = HistogramMetricFamily(
            "triptych_request_duration_seconds", "Arrival to last byte.", labels=["model"]
        )
        for model, answers in self._answers.items():
            answers.durations.add_to(durations, [model])
            for code, count in answers.codes.items():
                requests.add_metric([model, str(code)], count)
        waits = HistogramMetricFamily(
            "triptych_queue_duration_seconds", "Acceptance to the start of its batch.", labels=[]
        )
        self._queue_duration.add_to(waits, [])
        yield from (requests, durations, waits)


class Metrics:
    """The numbers of one node; every name begins with `triptych_`."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.in_progress = 0
        self._answers: defaultdict[str, Answers] = defaultdict(Answers)
        self._queue_duration = Durations()
        self.registry.register(Tallies(self._answers, self._queue_duration))
        self.compute_duration = self._histogram("compute_duration_seconds", "A batch's time in a worker.")
        self.batch_rows = Histogram(
            "triptych_batch_rows", "Rows of a batch.", buckets=ROWS, registry=self.registry
        )
        self.batch_emitted = self._counter("batch_emitted", "Batches by why they were emitted.", "reason")
        self.first_token = self._histogram(
            "time_to_first_token_seconds", "Acceptance to first token.", "model"
        )
        self.each_token = self._histogram(
            "time_per_output_token_seconds", "Between tokens of a stream.", "model"
        )
        self.worker_restarts = self._counter(
            "worker_restarts", "Workers replaced, by cause of death.", "reason"
        )
        self.redelivered = self._counter("redelivered", "Requests and jobs handed out again.")
        self._dead_lettered = self._counter("dead_lettered", "Jobs given up.")
        self._jobs = BrokerStatistics()
        self.expired = self._counter("expired", "Requests whose deadline passed.", "model")
        self.cancelled = self._counter("cancelled", "Requests whose client went away.", "model")
        Gauge("triptych_in_progress", "Requests being answered.", registry=self.registry).set_function(
            lambda: self.in_progress
        )
        self._queue_depth = Gauge(
            "triptych_queue_depth", "Requests, and jobs, that wait.", ["lane"], registry=self.registry
        )
        self._queue_wait = Gauge(
            "triptych_queue_wait_seconds",
            "How long a request that came now would take, at the pace of the last time others waited.",
            registry=self.registry,
        )

    def _counter(self, name: str, meaning: str, *labels: str) -> prometheus_client.Counter:
        return prometheus_client.Counter(f"triptych_{name}", meaning, labels, registry=self.registry)

    def _histogram(self, name: str, meaning: str, *labels: str) -> Histogram:
        return Histogram(f"triptych_{name}", meaning, labels, buckets=DURATIONS_S, registry=self.registry)

    def answered(self, model: str, status: int, elapsed_s: float) -> None:
        """Count a request that has come to its end."""
        self.in_progress -= 1
        answers = self._answers[model]
        answers.codes[status] += 1
        answers.durations.observe(elapsed_s)

    def queued(self, elapsed_s: float) -> None:
        """Count what a request waited for its batch."""
        self._queue_duration.observe(elapsed_s)

    def watch_queue(self, depth: Callable[[], float], wait_s: Callable[[], float]) -> None:
        """Ask for the queue's length, and the time it takes, whenever the page is read."""
        self._queue_depth.labels("direct").set_function(depth)
        self._queue_wait.set_function(wait_s)

    def note_jobs(self, now: BrokerStatistics) -> None:
        """Take over what the broker of the jobs has counted."""
        before, self._jobs = self._jobs, now
        self._queue_depth.labels("durable").set(now.queued)
        self.redelivered.inc(now.redelivered - before.redelivered)
        self._dead_lettered.inc(now.dead_lettered - before.dead_lettered)

    def count_event(self, event: Event) -> None:
        """Count a worker's death, and what was handed out again because of it."""
        if event.kind == "redispatched":
            self.redelivered.inc()
        if event.kind == "died" and event.child:
            self.worker_restarts.labels(event.reason.partition(" (")[0].partition(":")[0] or "unknown").inc()

    def page(self) -> bytes:
        """The page, in Prometheus' text format."""
        return generate_latest(self.registry)
