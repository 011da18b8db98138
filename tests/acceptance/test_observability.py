"""Error reports and traces of real processes, received by stubs of Sentry and an OpenTelemetry collector."""

import gzip
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.acceptance.poison_settings import BROKEN, POISON
from tests.acceptance.production import DOCUMENT, SECRET, deliver, webhook
from tests.factories import IVANOV, ROMASHKA
from tests.harness.launcher_stack import LauncherStack
from tests.harness.servers import ROOT, missing_reason
from tests.harness.stack import BLANK_SETTINGS


class Collector:
    """Record every POST request."""

    def __init__(self) -> None:
        self.received: list[tuple[str, bytes]] = []
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received.append(
                    (self.path, gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
                )
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Suppress the console log."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.place = f"127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def reports(self) -> list[dict[str, Any]]:
        """Return the reports: the third line of each envelope is the event."""
        return [json.loads(body.splitlines()[2]) for path, body in self.received if "envelope" in path]

    def spans(self) -> dict[str, dict[str, str]]:
        """Return the attributes by span name, including those of the service."""
        spans = {}
        for path, body in self.received:
            if path == "/v1/traces":
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for scope in resource.scope_spans:
                        for span in scope.spans:
                            attributes = [*resource.resource.attributes, *span.attributes]
                            spans[span.name] = {one.key: one.value.string_value for one in attributes}
        return spans


pytestmark = pytest.mark.process


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


def raised(report: dict[str, Any]) -> list[str]:
    return [value["type"] for value in report.get("exception", {}).get("values", [])]


def logged(report: dict[str, Any]) -> str | None:
    message: str | None = report.get("logentry", {}).get("message")
    return message


@pytest.mark.skipif(bool(missing_reason("Redis")), reason="production needs a Redis")
def test_error_reports_and_traces_contain_nothing_confidential(
    production: Callable[..., LauncherStack], collector: Collector
) -> None:
    stack = production(
        SENTRY_DSN=f"http://public@{collector.place}/1",
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{collector.place}",
        OTEL_BSP_SCHEDULE_DELAY="100",
    )
    broken, poison = webhook(document_number=BROKEN), webhook(payer_inn=IVANOV, document_number=POISON)
    status, request_id = deliver(stack, broken)
    assert status == 503
    deliver(stack, poison)
    stack.get(f"/api/organizations/{ROMASHKA}/balance/?q={IVANOV}")

    def report_of(operation: dict[str, object]) -> dict[str, Any]:
        found = [
            report
            for report in collector.reports()
            if report["tags"].get("operation_id") == operation["operation_id"] and raised(report)
        ]
        return found[0] if found else {}

    stack.wait_until(lambda: bool(report_of(broken) and report_of(poison)))
    of_web, of_worker = report_of(broken), report_of(poison)
    assert (of_web["environment"], of_web["tags"]["request_id"]) == ("production", request_id)
    assert raised(of_web) == ["RuntimeError"]
    assert of_web["request"] == {"method": "POST", "url": f"{stack.url}/api/webhook/bank/"}
    assert raised(of_worker) == ["DataError", "BatchFailed"]
    assert of_worker["tags"]["task"] == "worker.tasks.retry_one"
    stack.wait_until(lambda: "webhook failed" in map(logged, collector.reports()))

    wanted = {
        *("POST api/webhook/bank/", "GET api/organizations/<str:inn>/balance/"),
        *("run/worker.tasks.apply_received", "run/worker.tasks.retry_one"),
    }
    stack.wait_until(lambda: wanted <= collector.spans().keys())
    endpoint = collector.spans()["POST api/webhook/bank/"]
    assert endpoint["service.name"] == "prihod"
    assert endpoint["prihod.operation_id"] in {broken["operation_id"], poison["operation_id"]}

    for path, body in collector.received:
        text = body.decode(errors="replace")
        for confidential in (ROMASHKA, IVANOV, DOCUMENT, SECRET, "document_date", "sqlite:///"):
            assert confidential not in text, (path, text[text.index(confidential) - 200 :][:400])


LOADED = """
import sys
from config import wsgi
from worker.celery import app
print(sorted({name.partition(".")[0] for name in sys.modules} & {"sentry_sdk", "opentelemetry"}))
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**BLANK_SETTINGS, "DJANGO_SETTINGS_MODULE": "config.settings", **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_sentry_and_opentelemetry_are_not_imported_unless_configured(tmp_path: Any) -> None:
    assert run(LOADED, DATA_DIR=str(tmp_path)).stdout == "[]\n"


@pytest.mark.parametrize(
    ("variable", "package"), [("SENTRY_DSN", "sentry_sdk"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "opentelemetry")]
)
def test_missing_package_is_reported_in_one_line_at_start(variable: str, package: str, tmp_path: Any) -> None:
    without = f"import sys; sys.modules['{package}'] = None; from devtools import run; run.main()"
    stderr = run(without, DATA_DIR=str(tmp_path), **{variable: "http://public@127.0.0.1:1/1"}).stderr
    assert stderr.count("\n") == 1
    assert stderr.startswith(f"Prihod can't start: {variable} is set, but {package}")
    assert stderr.endswith("isn't installed; pip install -r requirements/observing.txt\n")


def test_malformed_dsn_is_reported_in_one_line_at_start(tmp_path: Any) -> None:
    launch = "from devtools import run; run.main()"
    stderr = run(launch, DATA_DIR=str(tmp_path), SENTRY_DSN="https://sentry.example").stderr
    assert stderr == "Prihod can't start: SENTRY_DSN is malformed; see .env.example\n"
