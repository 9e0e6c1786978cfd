"""What a worker counts, for Prometheus. Names carry their unit; each says what it means."""

from collections.abc import Iterable
from dataclasses import fields
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streamproc.adapters.stream_worker import StreamWorker

COUNTED: Final = {
    "taken": "inputs accepted",
    "served": "inputs acknowledged",
    "repeated": "inputs that were known already",
    "sent": "outputs that the broker acknowledged",
    "dead_letters": "inputs set aside",
    "retries": "calls made again because the world did not answer",
    "forgotten": "states of silent keys that got their tombstone",
}


class WorkerMetrics(Collector):
    """Read at each scrape, so that nothing is counted twice."""

    def __init__(self, agent: str, worker: StreamWorker) -> None:
        self._agent = agent
        self._worker = worker

    def collect(self) -> Iterable[Metric]:
        """One family per counter, and what is open now."""
        counters = self._worker.counters
        for field in fields(counters):
            if field.name in COUNTED:
                family = CounterMetricFamily(f"streamproc_{field.name}", COUNTED[field.name], labels=["agent"])
                family.add_metric([self._agent], getattr(counters, field.name))
                yield family
        gauges = (
            ("streamproc_open_inputs", "inputs taken and not acknowledged yet", self._worker.open_inputs),
            ("streamproc_held_inputs", "inputs that wait for the world", len(self._worker.holding)),
            ("streamproc_ready", "1 where states are read and nothing is held", int(self._worker.ready)),
            ("streamproc_last_served_seconds", "wall clock of the last acknowledgement", _seconds(self._worker)),
        )
        for name, meaning, value in gauges:
            gauge = GaugeMetricFamily(name, meaning, labels=["agent"])
            gauge.add_metric([self._agent], value)
            yield gauge


def _seconds(worker: StreamWorker) -> float:
    return worker.counters.last_served_at.timestamp()
