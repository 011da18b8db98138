"""A deployment of docker-compose.yml, from a clone of the committed state."""

import json
import os
import secrets
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from core.delivery_auth import decode_secret
from ingest.signatures import signature
from tests.harness.servers import ROOT
from tests.harness.wait import wait_until

PROJECT = "prihod-check"
START_SECONDS_MAX = 300.0
UP = ("up", "--detach", "--wait", "--wait-timeout", str(int(START_SECONDS_MAX)))
OWN = ("web", "worker", "beat")
UNVERIFIED = ssl._create_unverified_context()


class Answer(NamedTuple):
    status: int  # 0 without a response
    body: str


class Deployment:
    """`port` is published on 127.0.0.1; the clone is made as by a user whose umask is 077."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{port}"
        self.metrics_token = secrets.token_hex()
        self._environment = os.environ | {"COMPOSE_PROJECT_NAME": PROJECT, "COMPOSE_PROGRESS": "plain"}
        self._run("git", "clone", "--quiet", str(ROOT), str(folder), umask=0o077)
        self._run("sh", "deploy/write_env.sh", cwd=folder)
        with (folder / ".env").open("a") as env:
            env.write(f"METRICS_TOKEN={self.metrics_token}\nPORT={port}\n")
        settings = dict(line.split("=", 1) for line in (folder / ".env").read_text().splitlines())
        self._key = decode_secret(settings["WEBHOOK_SECRETS"])

    def _run(self, *command: str, **options: Any) -> str:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, env=self._environment, **options
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def compose(self, *arguments: str, stdin: str | None = None) -> str:
        """Run `docker compose`; return its output. Raise AssertionError with both outputs if it fails."""
        return self._run("docker", "compose", *arguments, cwd=self.folder, input=stdin)

    def up(self, *arguments: str) -> None:
        """Start everything with two workers, and wait until all services are healthy."""
        self.compose(*UP, "--scale", "worker=2", *arguments)

    def replace(self, *services: str) -> None:
        """Recreate these services with the present image, and wait until they are healthy."""
        scale = ["--scale", "worker=2"] if "worker" in services else []
        self.compose(*UP, "--no-deps", *scale, *services)

    def change_code(self, line: str) -> None:
        with (self.folder / "ledger/__init__.py").open("a") as module:
            module.write(f"{line}\n")

    def manage(self, *arguments: str) -> str:
        return self.compose("exec", "-T", "web", "python", "manage.py", *arguments)

    def containers(self, *services: str) -> list[str]:
        return sorted(self.compose("ps", "--quiet", *services).split())

    def inspect(self, container: str) -> dict[str, Any]:
        description: dict[str, Any] = json.loads(self._run("docker", "inspect", container))[0]
        return description

    def address(self, container: str) -> str:
        networks = self.inspect(container)["NetworkSettings"]["Networks"]
        return str(next(iter(networks.values()))["IPAddress"])

    def wait_until_healthy(self, service: str) -> None:
        def is_healthy() -> bool:
            states = [self.inspect(container)["State"] for container in self.containers(service)]
            return bool(states) and all(state["Health"]["Status"] == "healthy" for state in states)

        wait_until(is_healthy, f"{service} healthy", START_SECONDS_MAX)

    def get(self, path: str, bearer: str = "", *, origin: str = "") -> Answer:
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        return _answer(urllib.request.Request((origin or self.url) + path, headers=headers))

    def deliver(self, body: bytes, *, signed: bool = True, url: str = "") -> Answer:
        """Deliver `body` with Standard Webhooks to web, or to the server at `url`, of any certificate."""
        headers = {"Content-Type": "application/json"}
        if signed:
            at = str(int(time.time()))
            shown = signature(self._key, "msg_1", at, body).decode()
            headers |= {"webhook-id": "msg_1", "webhook-timestamp": at, "webhook-signature": shown}
        return _answer(urllib.request.Request(f"{url or self.url}/api/webhook/bank/", body, headers))


def _answer(request: urllib.request.Request) -> Answer:
    try:
        with urllib.request.urlopen(request, timeout=20, context=UNVERIFIED) as response:
            return Answer(response.status, response.read().decode())
    except urllib.error.HTTPError as exc:
        return Answer(exc.code, exc.read().decode())
    except OSError as exc:
        return Answer(0, repr(exc))
