"""What is counted, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """Counters of one server; those of another server in the same process are its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "prumerge_requests", "Requests answered, by HTTP status; 499: the client left.", ["status"],
            registry=self.registry,
        )  # fmt: skip
        self.held = Gauge(
            "prumerge_requests_held", "Requests that are being answered.", registry=self.registry
        )
        self.visual_tokens = Counter(
            "prumerge_visual_tokens", "Visual tokens before and after reduction.", ["which"],
            registry=self.registry,
        )  # fmt: skip
        self.pictures = Counter(
            "prumerge_pictures", "Pictures: encoded, joined to one under way, or remembered.", ["how"],
            registry=self.registry,
        )  # fmt: skip
        self.batch = Histogram(
            "prumerge_batch", "Pictures encoded, and questions answered together.", ["what"],
            buckets=(1, 2, 4, 8, 16, 32, 64), registry=self.registry,
        )  # fmt: skip
        self.seconds = Histogram("prumerge_seconds", "Seconds of a stage.", ["stage"], registry=self.registry)
        self.guarded = Counter(
            "prumerge_guarded", "Answers under a guard, by the step that gave them.", ["step"],
            registry=self.registry,
        )  # fmt: skip
        self.retries = Counter(
            "prumerge_engine_retries", "Requests sent to the engine again.", registry=self.registry
        )

    def text(self) -> bytes:
        """In Prometheus' form."""
        return generate_latest(self.registry)
