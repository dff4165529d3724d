"""OpenTelemetry: spans and metrics of a run, with the SDK's in-memory exporters and a collector on loopback."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from waiting import PATIENCE

from batchrun.errors import ExitCode
from batchrun.events import AttemptEnded, RowFinished, RunEnded, RunStarted
from batchrun.models import Outcome, State, Totals, Usage
from batchrun.report import telemetry

ROOT = Path(__file__).parents[1]


def test_each_attempt_is_a_span_within_that_of_the_run(monkeypatch: pytest.MonkeyPatch):
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr(telemetry.trace, "get_tracer_provider", lambda: tracers)
    meters = MeterProvider([reader])
    monkeypatch.setattr(telemetry.metrics, "get_meter_provider", lambda: meters)
    heard = telemetry.Telemetry()
    usage = Usage(input=12, cached=0, output=5, reasoning=0)
    for event in (
        RunStarted("r1", Totals(rows=1), "api.example.com", "m", False, 0.0),
        AttemptEnded(1, 7, 1, 1.0, 503, "server error", False, True, False, False, 2.0, None),
        AttemptEnded(1, 7, 2, 2.0, 200, None, False, False, True, False, 0.5, usage, 3_000_000_000),
        RowFinished(1, 7, 1, "k", 2.0, Outcome(State.DONE, True, None, None, frozenset(), None)),
        RunEnded(ExitCode.OK, Totals(rows=1, done=1), None, None, (), 3.0),
    ):
        heard.handle(event)
    assert heard.close() is None
    failed, done, run = spans.get_finished_spans()
    assert (failed.name, done.name, run.name) == ("chat m", "chat m", "batchrun run")
    assert {failed.parent.span_id, done.parent.span_id} == {run.context.span_id}
    assert [(span.end_time - span.start_time) / 1e9 for span in (failed, done)] == [2.0, 0.5]
    assert failed.attributes["error.type"] == "server error"
    assert failed.attributes["http.response.status_code"] == 503
    assert not failed.status.is_ok
    assert done.attributes["gen_ai.usage.input_tokens"] == 12
    assert (done.attributes["batchrun.row"], done.attributes["batchrun.attempt"]) == (7, 2)
    assert run.attributes["batchrun.exit_code"] == 0
    points = _points(json.loads(reader.get_metrics_data().to_json()))
    assert points["batchrun.rows"][0]["value"] == 1
    assert points["batchrun.cost"][0]["value"] == pytest.approx(0.003)
    assert [point["count"] for point in points["gen_ai.client.operation.duration"]] == [1, 1]
    assert {
        point["attributes"]["gen_ai.token.type"]: point["sum"] for point in points["gen_ai.client.token.usage"]
    } == {
        "input": 12,
        "output": 5,
    }


def _points(data: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    scopes = [scope for resource in data["resource_metrics"] for scope in resource["scope_metrics"]]
    return {metric["name"]: metric["data"]["data_points"] for scope in scopes for metric in scope["metrics"]}


class Collector(BaseHTTPRequestHandler):
    """Keeps what is posted."""

    taken: list[tuple[str, bytes]]

    def do_POST(self) -> None:
        self.taken.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Not into the test's output."""


def ran(*args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    Path("batchrun.toml").write_text('profile = "sim"\n[sim]\nlatency = "0.02"\n')
    Path("in.jsonl").write_text("".join(json.dumps({"text": f"secret words {n}"}) + "\n" for n in range(10)))
    command = [sys.executable, "-m", "batchrun", "-i", "in.jsonl", "-p", "Say {{ text }}", "-o", "out.jsonl", *args]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environ}
    return subprocess.run(command, text=True, capture_output=True, env=environment, timeout=PATIENCE, check=False)


def test_a_collector_gets_spans_and_metrics_and_no_text(alone: None):
    handler = type("One", (Collector,), {"taken": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        found = ran("--otel", OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert found.returncode == 0, found.stderr
    traces = [ExportTraceServiceRequest.FromString(body) for path, body in handler.taken if path == "/v1/traces"]
    spans = [
        span
        for sent in traces
        for resource in sent.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert sorted(span.name for span in spans) == ["batchrun run"] + ["chat simulated"] * 10
    measured = [ExportMetricsServiceRequest.FromString(body) for path, body in handler.taken if path == "/v1/metrics"]
    assert "batchrun.rows" in str(measured)
    assert all(b"secret words" not in body for _, body in handler.taken)


def test_a_collector_that_is_not_there_is_said_and_changes_no_exit_code(alone: None):
    found = ran("--otel", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_EXPORTER_OTLP_TIMEOUT="1")
    assert found.returncode == 0, found.stderr
    assert "--otel failed: " in found.stderr
    assert "Traceback" not in found.stderr


def test_without_the_extra_the_flag_is_refused(alone: None, tmp_path: Path):
    (tmp_path / "hidden" / "opentelemetry").mkdir(parents=True)
    (tmp_path / "hidden" / "opentelemetry" / "__init__.py").write_text("raise ImportError('no', name='opentelemetry')")
    found = ran("--otel", PYTHONPATH=os.pathsep.join((str(tmp_path / "hidden"), str(ROOT))))
    assert found.returncode == 2
    assert "--otel needs OpenTelemetry" in found.stderr
    assert "[otel]" in found.stderr


def test_nothing_of_it_is_loaded_where_it_is_off(alone: None):
    found = ran("--verbose", PYTHONPROFILEIMPORTTIME="1")
    assert found.returncode == 0, found.stderr
    assert "batchrun.report.observers" in found.stderr
    assert "opentelemetry" not in found.stderr
