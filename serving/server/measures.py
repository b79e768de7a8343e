"""What the server counts, in Prometheus' format."""

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from serving.server.asgi import Application, Message, Receive, Scope, Send

BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
"""Seconds."""


class Measures:
    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        name = "foldstack"
        self.requests = Counter(
            f"{name}_requests", "answered, by route and status", ("route", "status"), registry=registry
        )
        self.seconds = Histogram(
            f"{name}_request_seconds", "from the headers to the answer", ("route",), registry=registry, buckets=BUCKETS
        )
        self.decoding = Histogram(f"{name}_decoding_seconds", "of an image", registry=registry, buckets=BUCKETS)
        self.waited = Histogram(
            f"{name}_waiting_seconds", "of a batch's images, on average", registry=registry, buckets=BUCKETS
        )
        self.networks = Histogram(f"{name}_networks_seconds", "of a batch", registry=registry, buckets=BUCKETS)
        self.images = Histogram(
            f"{name}_batch_images", "that went through together", registry=registry, buckets=(1, 2, 4, 8, 16, 32, 64)
        )
        self.waiting = Gauge(f"{name}_waiting_images", "that wait or are worked on", registry=registry)

    def batch(self, images: int, waited: float, seconds: float) -> None:
        self.images.observe(images)
        self.waited.observe(waited)
        self.networks.observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)


class Counted:
    """An ASGI application around another that counts its answers."""

    def __init__(self, app: Application, measures: Measures) -> None:
        self.app, self.measures = app, measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), "none"

        async def noted(message: Message) -> None:
            nonlocal status
            status = str(message.get("status", status))
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except Exception:
            status = "500"  # which is answered further out
            raise
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.measures.requests.labels(route, status).inc()
            self.measures.seconds.labels(route).observe(time.perf_counter() - start)
