"""What a server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from edgeasr import __version__
from edgeasr.memory import Admission, Decision

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_STEP_S = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
_LATENCY_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
_PROTOCOL = ["protocol"]


class Metrics:
    """Counters of one server, in a registry of its own.

    The real-time factor is the rate of edgeasr_step_cpu_seconds_total over that of edgeasr_audio_seconds_total.
    """

    def __init__(self, model_name: str) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Gauge("edgeasr_info", "1, with the version and the model.", ["version", "model"], registry=registry).labels(
            __version__, model_name
        ).set(1)
        self.streams = Gauge("edgeasr_streams", "Streams that are heard now.", _PROTOCOL, registry=registry)
        self.begun = Counter("edgeasr_streams_begun", "Streams since the start.", _PROTOCOL, registry=registry)
        self.refused = Counter("edgeasr_refused", "Clients and requests refused.", ["reason"], registry=registry)
        self.closed = Counter("edgeasr_closed", "Streams ended by the server.", ["reason"], registry=registry)
        self.audio_s = Counter("edgeasr_audio_seconds", "Audio heard.", _PROTOCOL, registry=registry)
        self.cpu_s = Counter("edgeasr_step_cpu_seconds", "Processor time of recognition.", registry=registry)
        self.partials_replaced = Counter(
            "edgeasr_partials_dropped",
            "Partials that a later event overtook before their client read them.",
            registry=registry,
        )
        self.words = Counter("edgeasr_words", "Words of final segments.", registry=registry)
        self.step_s = Histogram("edgeasr_step_seconds", "Time that a chunk took.", buckets=_STEP_S, registry=registry)
        self.chunk_s = self._latency(
            "edgeasr_chunk_latency_seconds", "From the arrival of a chunk's audio to its events."
        )
        self.first_token_s = self._latency(
            "edgeasr_first_token_latency_seconds",
            "From the arrival of a segment's first word to the first event with it.",
        )
        self.final_s = self._latency(
            "edgeasr_final_latency_seconds",
            "From the arrival of a segment's last word to its final, the pause included.",
        )
        self._memory = Counter(
            "edgeasr_memory_vectors", "Summaries offered to the memory.", ["decision"], registry=registry
        )
        for decision in Decision:
            self._memory.labels(decision.value)

    def watch(self, name: str, help: str, value: Callable[[], float]) -> None:  # noqa: A002 - Prometheus' word for it
        """A gauge that is read when it is asked for."""
        Gauge(name, help, registry=self.registry).set_function(value)

    def admitted(self, admission: Admission) -> None:
        """A summary was offered to the memory of a stream."""
        self._memory.labels(admission.decision.value).inc()

    def text(self) -> bytes:
        """All of it in the text format, of type CONTENT_TYPE."""
        return generate_latest(self.registry)

    def _latency(self, name: str, help: str) -> Histogram:  # noqa: A002
        return Histogram(name, help, _PROTOCOL, buckets=_LATENCY_S, registry=self.registry)
