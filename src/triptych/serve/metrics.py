"""What `/metrics` shows: one registry, in the node; workers have none."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from triptych.serve.supervise.spec import Event

DURATIONS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The numbers of one node; every name begins with `triptych_`."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.requests = self._counter("requests", "Requests answered.", "model", "code")
        self.request_duration = self._histogram("request_duration_seconds", "Arrival to last byte.", "model")
        self.queue_duration = self._histogram(
            "queue_duration_seconds", "Acceptance to the start of its batch."
        )
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
        self.redelivered = self._counter("redelivered", "Requests computed again after their worker died.")
        self.expired = self._counter("expired", "Requests whose deadline passed.", "model")
        self.cancelled = self._counter("cancelled", "Requests whose client went away.", "model")
        self.in_progress = Gauge("triptych_in_progress", "Requests being answered.", registry=self.registry)
        self._queue_depth = Gauge(
            "triptych_queue_depth", "Requests waiting for a batch.", registry=self.registry
        )

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"triptych_{name}", meaning, labels, registry=self.registry)

    def _histogram(self, name: str, meaning: str, *labels: str) -> Histogram:
        return Histogram(f"triptych_{name}", meaning, labels, buckets=DURATIONS_S, registry=self.registry)

    def watch_queue(self, depth: Callable[[], float]) -> None:
        """Ask `depth` for the queue's length whenever the page is read."""
        self._queue_depth.set_function(depth)

    def count_event(self, event: Event) -> None:
        """Count a worker's death."""
        if event.kind == "died" and event.child:
            self.worker_restarts.labels(event.reason.partition(" (")[0].partition(":")[0] or "unknown").inc()

    def page(self) -> bytes:
        """The page, in Prometheus' text format."""
        return generate_latest(self.registry)
