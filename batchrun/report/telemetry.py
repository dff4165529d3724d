"""OpenTelemetry (`--otel`, extra `otel`): a span for the run, one for each attempt, and metrics.

Names follow https://opentelemetry.io/docs/specs/semconv/gen-ai/. No text of a prompt, reply or row is sent. Providers
that the process has set up are used, else two that send OTLP over HTTP.
"""

import logging
import time
from typing import Any

from batchrun import DISTRIBUTION, __version__
from batchrun.errors import RefusedError
from batchrun.events import AttemptEnded, Event, RowFinished, RunEnded, RunStarted

try:
    from opentelemetry import context, metrics, trace
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
except ImportError as error:
    raise RefusedError(
        f"--otel needs OpenTelemetry, which is not installed ({error.name})", f"install '{DISTRIBUTION}[otel]'"
    ) from error

_NANO = 1_000_000_000
_FLUSH_MS = 5_000


class _Complaints(logging.Handler):
    # keeps the last message; without a handler Python would print it

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()


class Telemetry:
    def __init__(self) -> None:
        self._own: list[Any] = []
        self._complaints = _Complaints()
        logging.getLogger("opentelemetry").addHandler(self._complaints)
        tracers, meters = trace.get_tracer_provider(), metrics.get_meter_provider()
        resource = Resource.create({"service.name": "batchrun", "service.version": __version__})
        if not isinstance(tracers, TracerProvider):
            tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
            tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
            self._own.append(tracers)
        if not isinstance(meters, MeterProvider):
            reader = PeriodicExportingMetricReader(OTLPMetricExporter())
            meters = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
            self._own.append(meters)
        self._tracer = tracers.get_tracer("batchrun", __version__)
        meter = meters.get_meter("batchrun", __version__)
        self._duration = meter.create_histogram("gen_ai.client.operation.duration", "s", "Seconds of an attempt")
        self._tokens = meter.create_histogram("gen_ai.client.token.usage", "{token}", "Tokens of an attempt")
        self._rows = meter.create_counter("batchrun.rows", "{row}", "Rows with an outcome")
        self._cost = meter.create_counter("batchrun.cost", "USD", "US dollars that attempts were charged")
        self._run: trace.Span | None = None
        self._within = context.Context()
        self._about: dict[str, str] = {}

    def handle(self, event: Event) -> None:
        if isinstance(event, AttemptEnded):
            self._attempt(event)
        elif isinstance(event, RowFinished):
            self._rows.add(1, {"batchrun.row.state": str(event.outcome.state)})
        elif isinstance(event, RunStarted):
            self._about = {"gen_ai.operation.name": "chat", "server.address": event.host}
            if event.model:
                self._about["gen_ai.request.model"] = event.model
            about = {**self._about, "batchrun.run": event.run, "batchrun.simulated": event.simulated}
            self._run = self._tracer.start_span("batchrun run", attributes=about)
            self._within = trace.set_span_in_context(self._run)
        elif isinstance(event, RunEnded) and self._run is not None:
            self._run.set_attribute("batchrun.exit_code", int(event.exit_code))
            if event.exit_code:
                self._run.set_status(trace.StatusCode.ERROR, event.exit_code.name.lower())
            self._run.end()

    def _attempt(self, event: AttemptEnded) -> None:
        now, about = time.time_ns(), dict(self._about)
        if event.cause is not None:
            about["error.type"] = event.cause
        self._duration.record(event.seconds, about)
        if event.cost is not None:
            self._cost.add(event.cost / 1e12, self._about)
        details: dict[str, str | int] = {"batchrun.row": event.line, "batchrun.attempt": event.number}
        if event.status:
            details["http.response.status_code"] = event.status
        if event.usage is not None:
            for kind, tokens in (("input", event.usage.input), ("output", event.usage.output)):
                details[f"gen_ai.usage.{kind}_tokens"] = tokens
                self._tokens.record(tokens, {**self._about, "gen_ai.token.type": kind})
        name = " ".join(("chat", *filter(None, [self._about.get("gen_ai.request.model")])))
        span = self._tracer.start_span(
            name,
            self._within,
            kind=trace.SpanKind.CLIENT,
            attributes={**about, **details},
            start_time=now - int(event.seconds * _NANO),
        )
        if event.cause is not None:
            span.set_status(trace.StatusCode.ERROR, event.cause)
        span.end(now)

    def close(self) -> str | None:
        """Returns the last error. Blocks."""
        for provider in self._own:
            provider.force_flush(_FLUSH_MS)
            provider.shutdown()
        self._own = []
        logging.getLogger("opentelemetry").removeHandler(self._complaints)
        return self._complaints.last
