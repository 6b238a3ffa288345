"""What the server counts, for Prometheus. Knows names and labels; nothing here changes what is served.

One registry per application, so that two in one process do not add up.
"""

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fusionvl.engine.generation_request import Finish
from fusionvl.serve.backend import Pool
from fusionvl.serve.errors import ERROR_KEY

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100)


class Metrics:
    """Counters and gauges of one server.

    Args:
        pool: Whose gauges are read when somebody asks.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.registry = registry = CollectorRegistry()

        def histogram(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(f"fusionvl_{name}_seconds", text, labels, registry=registry, buckets=_SECONDS)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"fusionvl_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"fusionvl_{name}", text, ["model"], registry=registry)

        self._requests = counter("requests", "Requests answered", "endpoint", "status")
        self._errors = counter("errors", "Refusals and failures by code", "code")
        self._request_time = histogram("request", "From a request to the end of its response", "endpoint")
        self._queue_time = histogram("queue", "From a request to its prefill", "model")
        self._first_token_time = histogram("first_token", "From a request to its first token", "model")
        self._answer_time = histogram("answer", "From a request to its last token", "model")
        self._prompt_tokens = counter("prompt_tokens", "Tokens of prompts, images among them", "model")
        self._answer_tokens = counter("answer_tokens", "Tokens generated", "model")
        self._cache_hits = counter("image_cache_hits", "Answers whose image's features were known", "model")
        self._cache_misses = counter("image_cache_misses", "Answers whose image's features were computed", "model")
        self._cancelled = counter("cancelled", "Answers nobody waited for any more", "model")
        self._replicas = gauge("replicas", "Processes that can answer")
        self._waiting = gauge("queue_length", "Answers that wait for the running batch")
        self._running = gauge("batch_size", "Answers decoded together")
        self._bytes = gauge("model_bytes", "Memory of a loaded model; 0 when it is not loaded")
        self._restarts = gauge("worker_restarts", "Times that a dead worker was replaced")

    def answered(self, model: str, finish: Finish, has_image: bool) -> None:
        """Count an answer that came to its end."""
        self._prompt_tokens.labels(model).inc(finish.prompt_tokens)
        self._answer_tokens.labels(model).inc(finish.answer_tokens)
        self._queue_time.labels(model).observe(finish.queue_seconds)
        if finish.first_token_seconds is not None:
            self._first_token_time.labels(model).observe(finish.first_token_seconds)
        self._answer_time.labels(model).observe(finish.total_seconds)
        if has_image:
            (self._cache_hits if finish.image_was_cached else self._cache_misses).labels(model).inc()

    def cancelled(self, model: str, answers: int) -> None:
        """Count answers that ended because their client left."""
        self._cancelled.labels(model).inc(answers)

    def failed(self, code: str) -> None:
        """Count a refusal or failure."""
        self._errors.labels(code).inc()

    def responded(self, endpoint: str, status: int, seconds: float) -> None:
        """Count a response."""
        self._requests.labels(endpoint, str(status)).inc()
        self._request_time.labels(endpoint).observe(seconds)

    def as_text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        for name, load in self._pool.loads().items():
            gauges = {
                self._replicas: load.replicas,
                self._waiting: load.waiting,
                self._running: load.running,
                self._bytes: load.num_bytes,
                self._restarts: load.restarts,
            }
            for gauge, value in gauges.items():
                if value is not None:
                    gauge.labels(name).set(value)
        return generate_latest(self.registry)


class Measured:
    """ASGI middleware that counts responses by endpoint and status.

    Args:
        app: What is measured.
        metrics: Where it is counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.monotonic()
        status = 499  # as nginx writes down that the client left

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            status = 500
            raise
        finally:
            # Only endpoints that exist become labels: made-up paths must not fill memory.
            route = scope.get("route")
            endpoint = getattr(route, "path", "none")
            self._metrics.responded(endpoint, status, time.monotonic() - start)
            if code := scope.get(ERROR_KEY):
                self._metrics.failed(code)
