"""deploy/nginx.conf is taken by nginx, and lets no header through that Prihod would believe."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.servers import ROOT

CONFIGURATION = (ROOT / "deploy/nginx.conf").read_text()


BELIEVED = {
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


@pytest.mark.parametrize("header", BELIEVED)
def test_what_is_believed_is_overwritten(header: str) -> None:
    assert re.findall(rf"proxy_set_header {header} (.+?);", CONFIGURATION) == [BELIEVED[header]]
    assert "proxy_add_x_forwarded_for" not in CONFIGURATION


def test_no_location_gives_the_overwriting_up() -> None:
    for location in re.findall(r"location [^{]*{(.*?)\n        }", CONFIGURATION, re.DOTALL):
        assert "proxy_set_header" not in location


@pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed")
def test_nginx_takes_it(tmp_path: Path) -> None:
    certificate, key = tmp_path / "prihod.pem", tmp_path / "prihod.key"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=prihod.example"]
    subprocess.run([*request, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    here = CONFIGURATION.replace("/etc/ssl/prihod.key", str(key))
    here = re.sub(r"/etc/ssl/[\w-]+\.pem", str(certificate), here)
    (tmp_path / "nginx.conf").write_text(f"pid {tmp_path}/pid;\nerror_log stderr;\n{here}")

    checked = subprocess.run(
        ["nginx", "-t", "-c", tmp_path / "nginx.conf", "-p", tmp_path],
        check=False,
        capture_output=True,
        text=True,
    )

    assert checked.returncode == 0, checked.stderr
    assert "[warn]" not in checked.stderr
