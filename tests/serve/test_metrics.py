"""What is counted in integers reads as Prometheus' series."""

from prometheus_client.parser import text_string_to_metric_families

from triptych.serve.metrics import Metrics
from triptych.serve.supervise.spec import Event


def test_answers_and_waits_become_counters_and_histograms():
    metrics = Metrics()
    metrics.in_progress += 3
    metrics.answered("m", 200, 0.003)
    metrics.answered("m", 200, 100.0)
    metrics.answered("m", 503, 0.001)
    metrics.queued(0.2)
    samples = {
        (s.name, *sorted(s.labels.items())): s.value
        for family in text_string_to_metric_families(metrics.page().decode())
        for s in family.samples
    }
    assert samples["triptych_requests_total", ("code", "200"), ("model", "m")] == 2
    assert samples["triptych_requests_total", ("code", "503"), ("model", "m")] == 1
    name = "triptych_request_duration_seconds"
    assert samples[f"{name}_bucket", ("le", "0.001"), ("model", "m")] == 1
    assert samples[f"{name}_bucket", ("le", "0.005"), ("model", "m")] == 2
    assert samples[f"{name}_bucket", ("le", "+Inf"), ("model", "m")] == 3
    assert samples[f"{name}_count", ("model", "m")] == 3
    assert samples["triptych_queue_duration_seconds_count",] == 1
    assert samples["triptych_in_progress",] == 0


def test_what_a_dead_worker_held_is_counted_as_redelivered_once_for_each() -> None:
    metrics = Metrics()
    metrics.count_event(Event("died", "workers", "worker 0", reason="SIGKILL (silent for 30 s)"))
    for number in range(3):
        metrics.count_event(Event("redispatched", "workers", "worker 0", reason=f"stream {number}"))
    page = metrics.page().decode()
    assert "triptych_redelivered_total 3.0" in page
    assert 'triptych_worker_restarts_total{reason="SIGKILL"} 1.0' in page
