"""The Procfile's web process under malformed requests: routing unaffected, log output bounded."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import StackBuilder
from tests.fuzz.attacker import exchange, read_responses
from tests.harness.launcher_stack import LauncherStack
from tests.harness.servers import ROOT

WEB = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())["web"]
LINES_MAX = 30  # 490 requests cause 8 kinds of lines; each of two processes logs one of each per ten seconds


@pytest.fixture
def web(new_stack: StackBuilder) -> Iterator[LauncherStack]:
    settings = {"ALLOWED_HOSTS": "localhost,127.0.0.1", "WEB_PROCESSES": "2"}
    stack = new_stack(**settings, WEBHOOK_BEARER_TOKENS="long-enough-a-token")
    assert stack.manage("migrate").returncode == 0
    program, *arguments = shlex.split(WEB)[1:]
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    with stack.log.open("ab") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **stack.environment}, stdout=log, stderr=log
        )
    try:
        stack.wait_until(stack.is_ready)
        yield stack
    finally:
        process.terminate()
        process.wait(timeout=60)


def status(stack: LauncherStack, *head: str, body: str = "", host: str = "Host: localhost") -> int:
    raw = "\r\n".join([head[0], host, *head[1:], "Connection: close", "", body]).encode("latin-1")
    (answer,) = read_responses(exchange(stack.port, (raw,)))
    return answer.status


def test_headers_neither_reroute_nor_break_a_request(web: LauncherStack) -> None:
    for name in ("SCRIPT_NAME", "PATH_INFO", "Script-Name", "Path-Info", "REMOTE_USER", "Script_Name"):
        for value in ("/x", "/api/webhook/bank", "/healthz", ""):
            head = f"{name}: {value}"
            assert status(web, "GET /healthz HTTP/1.1", head) == 200, head
            assert status(web, "GET /x/healthz HTTP/1.1", head) == 404, head
            assert (
                status(web, "POST /x/api/webhook/bank/ HTTP/1.1", head, "Content-Length: 2", body="{}") == 404
            )
    for scheme in ("X-Forwarded-Ssl: off", "X-Forwarded-Protocol: http", "X-Forwarded-Ssl: on"):
        assert status(web, "GET /healthz HTTP/1.1", "X-Forwarded-Proto: https", scheme) == 200, scheme

    assert not re.search("Traceback|Error handling", web.output())


def test_malformed_requests_cost_at_most_a_throttled_log_line(web: LauncherStack) -> None:
    before = len(web.output())
    post = "POST /api/webhook/bank/ HTTP/1.1"
    for _ in range(10):
        for length in (
            "0" * 19 + "1",
            "0" * 4000 + "1",
            "0" * 7000 + "1",
            "9" * 4300,
            "9" * 8000,
            "1" * 20,
            "-1",
            "1e1",
        ):
            assert 400 <= status(web, post, f"Content-Length: {length}", body="x") < 500, length[:30]
        assert status(web, post, "Content-Length: 1", "Content-Length: 1", body="x") == 400
        assert status(web, post, "Content-Length: 00002", body="{}") == 401  # the body is complete
        for version in ("HTTP/1.2", "HTTP/2.0", "HTTP/9.9", "HTTP/11.1", "http/1.1", "HTTP/1.1 x"):
            assert status(web, f"GET /healthz {version}") in {200, 400}, version
        for chunk in ("zz", "-1", "f" * 40, "1;" + "x" * 9000, "0\r\nHost: x\r\n\r\n"):
            for path in ("/api/webhook/bank/", "/admin/login/"):
                head = f"POST {path} HTTP/1.1"
                assert 400 <= status(web, head, "Transfer-Encoding: chunked", body=chunk + "\r\n") < 500, (
                    path,
                    chunk,
                )
        assert status(web, "GET /admin/ HTTP/1.1", host="Host: evil.example") == 400
        assert status(web, post, "Content-Length: 5", body="x") == 503  # incomplete body: retry
        # 403 without a CSRF token; 429 once a process has had as many forms in a minute as it takes.
        assert status(web, "POST /admin/login/ HTTP/1.1", "Content-Length: 5", body="x") in {403, 429}

    output = web.output()[before:]
    assert "Traceback" not in output
    assert len(output.splitlines()) <= LINES_MAX, output
