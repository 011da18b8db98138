"""The profile "proxy": two web containers behind nginx with TLS, on the deployment of test_compose.py."""

import re
import subprocess
from collections.abc import Callable

import pytest

from tests.containers.deployment import Deployment
from tests.containers.load import Load
from tests.harness.servers import free_port
from tests.harness.wait import wait_until

pytestmark = [pytest.mark.process, pytest.mark.timeout(1800)]
HTTPS_SETTINGS = "COMPOSE_PROFILES=proxy\nBEHIND_TLS_PROXY=1\nTRUSTED_PROXIES=1\nFORWARDED_ALLOW_IPS=*\n"


@pytest.fixture(scope="module")
def https_url(deployment: Deployment) -> str:
    port = free_port()
    (deployment.folder / "nginx.conf").write_text(
        _for_compose((deployment.folder / "deploy/nginx.conf").read_text())
    )
    certificates = deployment.folder / "certs"
    certificates.mkdir()
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    files = ["-keyout", certificates / "prihod.key", "-out", certificates / "prihod.pem"]
    subprocess.run([*request, *files], check=True, capture_output=True)
    with (deployment.folder / ".env").open("a") as env:
        env.write(f"{HTTPS_SETTINGS}PROXY_PORT={port}\nPROXY_HOST=127.0.0.1\n")
    deployment.up()
    return f"https://127.0.0.1:{port}"


def _for_compose(configuration: str) -> str:
    """Change what docs/deployment.md says: two servers, no client certificate, all networks."""
    unwanted = r"^ *(server 127.0.0.1|if \(\$ssl_client|ssl_client_certificate|ssl_verify).*\n"
    configuration = re.sub(unwanted, "", configuration, flags=re.MULTILINE)
    configuration = re.sub(r"# (resolver|server web)", r"\1", configuration)
    return configuration.replace("allow 10.0.0.0/8;", "allow all;")


def test_pages_are_served_over_https(deployment: Deployment, https_url: str) -> None:
    assert deployment.get("/admin/login/", origin=https_url).status == 200
    assert len(deployment.containers("web", "web-2")) == 2


def test_update_of_two_webs_refuses_no_delivery(
    deployment: Deployment,
    https_url: str,
    check_ledger: Callable[[], None],
    acknowledged: list[Load],
    measured: Callable[[str], None],
) -> None:
    deployment.change_code("# second change")
    with Load(deployment, https_url) as load:
        acknowledged.append(load)
        wait_until(lambda: load.acknowledged > 50, "load")
        deployment.compose("build")
        deployment.compose("run", "--rm", "migrate")
        deployment.replace("web")
        deployment.replace("web-2")
        deployment.replace("worker", "beat")

    measured(f"update with two webs behind nginx: {load}")
    for service in ("web", "web-2", "worker", "beat"):
        deployment.compose("exec", "-T", service, "grep", "-q", "# second change", "ledger/__init__.py")
    assert load.refused == 0
    check_ledger()
