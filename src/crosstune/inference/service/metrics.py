"""What the service counts about itself, in the text format of Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CLIENT_LEFT = 499  # status of a request whose client left before the answer; nginx's number
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters of one service; `waiting_items` is called whenever they are read."""

    def __init__(self, waiting_items: Callable[[], int]):
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "crosstune_requests", "Requests answered, by status.", ["status"], registry=registry
        )
        self.items = Counter("crosstune_items", "Items predicted.", registry=registry)
        self.batch_items = Histogram(
            "crosstune_batch_items",
            "Items predicted together.",
            buckets=BATCH_SIZES,
            registry=registry,
        )
        self.prediction_seconds = Histogram(
            "crosstune_prediction_seconds", "Duration of a prediction.", registry=registry
        )
        waiting = Gauge("crosstune_waiting_items", "Items in the queue.", registry=registry)
        waiting.set_function(waiting_items)

    def count_batch(self, items: int, seconds: float) -> None:
        """Count items that were predicted together."""
        self.items.inc(items)
        self.batch_items.observe(items)
        self.prediction_seconds.observe(seconds)

    def render(self) -> bytes:
        """Return all of them as text."""
        return generate_latest(self.registry)


class RequestCounter:
    """Middleware that counts every answer, also those of other middleware."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.metrics.requests.labels(message["status"]).inc()
            await send(message)

        await self.app(scope, receive, send_counted)
