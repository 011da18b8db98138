"""deploy/nginx.conf: nginx accepts it, and it overwrites every header that Prihod trusts."""

import http.client
import re
import shutil
import ssl
import subprocess
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.harness.servers import ROOT, free_port
from tests.harness.wait import wait_until
from web.password_limit import FORMS_PER_MINUTE_MAX

CONFIGURATION = (ROOT / "deploy/nginx.conf").read_text()
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")  # nginx's temporary folders


TRUSTED = {
    "X-Forwarded-For": "$remote_addr",
    "X-Forwarded-Proto": "https",
    "Forwarded": '""',
    "Host": "$host",
    "X-Request-ID": "$request_id",
    "traceparent": '""',
    "SCRIPT_NAME": '""',
    "PATH_INFO": '""',
    "X-Forwarded-Ssl": '""',
    "X-Forwarded-Protocol": '""',
}


@pytest.mark.parametrize("header", TRUSTED)
def test_trusted_header_is_overwritten(header: str) -> None:
    assert re.findall(rf"proxy_set_header {header} (.+?);", CONFIGURATION) == [TRUSTED[header]]
    assert "proxy_add_x_forwarded_for" not in CONFIGURATION


def test_no_location_discards_the_overwritten_headers() -> None:
    for location in re.findall(r"location [^{]*{(.*?)\n        }", CONFIGURATION, re.DOTALL):
        assert "proxy_set_header" not in location


def test_password_forms_are_rate_limited() -> None:
    zone, rate = re.findall(r"limit_req_zone \$password_from zone=(\w+):1m rate=(\w+/m);", CONFIGURATION)[0]
    location = re.findall(r"location / {(.*?)\n        }", CONFIGURATION, re.DOTALL)[0]
    assert rate == f"{FORMS_PER_MINUTE_MAX}r/m"
    assert f"limit_req zone={zone} burst={FORMS_PER_MINUTE_MAX - 1} nodelay;" in location


needs_nginx = pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed")


@pytest.fixture
def configured(tmp_path: Path) -> Path:
    """Return the configuration with a generated certificate, open to this machine."""
    certificate, key = tmp_path / "prihod.pem", tmp_path / "prihod.key"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=prihod.example"]
    subprocess.run([*request, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    here = CONFIGURATION.replace("/etc/ssl/prihod.key", str(key))
    here = re.sub(r"/etc/ssl/[\w-]+\.pem", str(certificate), here)
    here = here.replace("allow 10.0.0.0/8;", "allow 127.0.0.1;")
    ours = [f"{name}_temp_path {tmp_path}/{name};" for name in TEMPORARY]
    here = here.replace("http {", "\n".join(["http {", "access_log off;", *ours]), 1)
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(f"pid {tmp_path}/pid;\nerror_log stderr;\ndaemon off;\n{here}")
    return configuration


@needs_nginx
def test_nginx_accepts_the_configuration(configured: Path) -> None:
    checked = subprocess.run(
        ["nginx", "-t", "-c", configured, "-p", configured.parent],
        check=False,
        capture_output=True,
        text=True,
    )

    assert checked.returncode == 0, checked.stderr
    assert "[warn]" not in checked.stderr


class Upstream(BaseHTTPRequestHandler):
    """Stand in for Prihod and answer 200 to everything."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET  # noqa: N815 as http.server names it

    def log_message(self, *_: object) -> None:
        pass


@needs_nginx
def test_nginx_limits_password_forms_only(configured: Path) -> None:
    port = free_port()
    with ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as upstream:
        threading.Thread(target=upstream.serve_forever, daemon=True).start()
        text = configured.read_text().replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
        text = text.replace("server 127.0.0.1:8000;", f"server 127.0.0.1:{upstream.server_port};")
        configured.write_text(text)
        log = configured.parent / "log"
        with log.open("w") as stderr:
            nginx = subprocess.Popen(["nginx", "-c", configured, "-p", configured.parent], stderr=stderr)
        try:
            wait_until(lambda: accepts(port), "nginx accepts connections", 30, log=log.read_text)
            logins = [
                status(port, "POST", "/admin/login/?next=/admin/") for _ in range(FORMS_PER_MINUTE_MAX + 5)
            ]
            others = [status(port, "GET", "/admin/login/") for _ in range(20)]
            others += [status(port, "POST", "/admin/ingest/webhook/") for _ in range(20)]
        finally:
            nginx.terminate()
            nginx.wait(30)
            upstream.shutdown()

    assert logins[:FORMS_PER_MINUTE_MAX] == [200] * FORMS_PER_MINUTE_MAX
    assert logins[-1] == 429
    assert set(others) == {200}


def status(port: int, method: str, path: str) -> int:
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=tls)
    with closing(connection):
        connection.request(method, path, b"", {"Host": "prihod.example"})
        return connection.getresponse().status


def accepts(port: int) -> bool:
    try:
        return status(port, "GET", "/") == 200
    except OSError:
        return False
