"""`make run`: web, worker and scheduler as one command, on nothing but Python and requirements/base.txt.

Whatever is wrong with the environment is said in one line before anything starts. When it ends,
by Ctrl-C, SIGTERM, a closed terminal or the death of one process, nothing is left running.
"""

import http.client
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from django.conf import settings
from django.db import connection

from core import listen_address
from devtools import preflight
from devtools.supervisor import Processes, echo
from ingest import doorbell
from worker.celery import app
from worker.marks import heartbeat_path

READY_SECONDS_MAX = 60.0
POLL_SECONDS = 0.1
SAMPLE_DELIVERY = (
    '{"operation_id": "ccf0a86d-041b-4991-bcf7-e2352f7b8a4a", "amount": 145000, "payer_inn": "1234567890", '
    '"document_number": "PAY-328", "document_date": "2024-04-27T21:00:00Z"}'
)
IN_DEVELOPMENT = ", as a development default; .env.example says what production needs"


def main() -> int:
    """Run until asked to stop; returns the exit status, 0 if it was asked to."""
    on_stop_signals(lambda *_: sys.exit(0))  # nothing runs yet that would have to be stopped
    try:
        preflight.load_settings()
        preflight.prepare_data_dir()
        preflight.check_port()
        preflight.check_database()
        preflight.run_system_checks()
        preflight.probe_broker()
        preflight.migrate()
        admin_password = preflight.create_admin()
    except preflight.StartupError as reason:
        return fail(f"Prihod can't start: {reason}")
    connection.close()
    return run(admin_password)


def run(admin_password: str | None) -> int:
    """Start the processes, say when they are ready, stop all when asked to or when one of them ends."""
    asked_to_stop: list[int] = []
    # Only noted: an exception in the middle of starting a process would leave it behind.
    on_stop_signals(lambda number, _: asked_to_stop.append(number))
    processes = Processes()
    ready = False
    deadline, begun = time.monotonic() + READY_SECONDS_MAX, time.time()
    try:
        start(processes)
        while not asked_to_stop:
            if ended := processes.ended():
                return fail(f"{ended}; the rest is being stopped")
            if not ready and time.monotonic() > deadline:
                return fail(f"not ready after {READY_SECONDS_MAX:.0f} seconds; everything is being stopped")
            if not ready and web_is_ready() and (queue_is_empty() or worker_is_up(begun)):
                ready = True
                echo(banner(admin_password))
            time.sleep(POLL_SECONDS)
    finally:
        processes.stop()
    echo("Stopped; nothing is left running")
    return 0


def on_stop_signals(handler: Callable[[int, FrameType | None], object]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores it
            signal.signal(number, handler)


def fail(reason: str) -> int:
    sys.stderr.write(f"{reason}\n")
    return 1


def start(processes: Processes) -> None:
    programs = str(Path(sys.executable).parent)  # of the virtual environment, which need not be activated
    counts = settings.DATA_DIR / "metrics"  # of all processes together, from this start on
    shutil.rmtree(counts, ignore_errors=True)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([programs, os.environ.get("PATH", os.defpath)]),
        "PROMETHEUS_MULTIPROC_DIR": str(counts),
    }
    for line in (settings.BASE_DIR / "Procfile").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, command = line.partition(": ")
            processes.start(name, command, environment)


def web_is_ready() -> bool:
    web = http.client.HTTPConnection(listen_address.reachable(settings.HOST), settings.PORT, timeout=1)
    try:
        web.request("GET", "/readyz")
        return web.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        web.close()


def queue_is_empty() -> bool:
    """Whether no message waits in the broker, where ring_first left one before there was a worker."""
    try:
        with app.connection_for_write(transport_options=doorbell.BROKER_OPTIONS) as broker:
            return doorbell.queue_length(app, broker, app.conf.task_default_queue) == 0
    except Exception:  # noqa: BLE001 each transport has errors of its own, and all mean: not yet
        return False


def worker_is_up(since: float) -> bool:
    """Whether one listens since then, in seconds of Unix time. While banks deliver, a ring always waits."""
    try:
        return heartbeat_path("worker").stat().st_mtime > since
    except OSError:
        return False


def banner(admin_password: str | None) -> str:
    url = settings.URL
    python = shlex.quote(os.path.relpath(sys.executable))
    needed = environment_prefix()
    log_in = f"user {preflight.ADMIN_USERNAME}, password {admin_password} (shown only once)"
    renew = f"for a new password: {needed}{python} manage.py changepassword {preflight.ADMIN_USERNAME}"
    return f"""
Prihod is ready{IN_DEVELOPMENT if settings.DEBUG else ""}.

  site      {url}
  admin     {url}/admin/  {log_in if admin_password else renew}
  data      {settings.DATA_DIR}
  database  {database_summary()}
  broker    {"Redis" if settings.REDIS_URL else "files in the data folder"}

Try, in another terminal:

{example_commands(url, f"{needed}{python} manage.py")}

Ctrl-C stops everything.
"""


def environment_prefix() -> str:
    """The variables by which manage.py in another terminal works on the same data, as a shell's prefix."""
    values = {"DATA_DIR": str(settings.DATA_DIR), "PORT": str(settings.PORT)}
    return "".join(f"{name}={shlex.quote(value)} " for name, value in values.items() if os.environ.get(name))


def example_commands(url: str, manage: str) -> str:
    """Commands that are answered 200 as they stand, or once who runs them has put in the words in <>."""
    guard = settings.BANK_AUTH
    proof = reader = api_key = ""
    if guard.bearer:
        proof = "-H 'Authorization: Bearer <one of WEBHOOK_BEARER_TOKENS>' "
    elif guard.basic:
        proof = "-u '<one of WEBHOOK_BASIC_AUTH>' "
    lines = [
        f"curl {proof}-H 'Content-Type: application/json' -d '{SAMPLE_DELIVERY}' {url}/api/webhook/bank/"
    ]
    if guard.is_configured and not proof:
        lines = [
            "(a delivery needs what the WEBHOOK_ variables ask for; simulate_bank signs by WEBHOOK_SECRETS)"
        ]
    if settings.READ_AUTH != "none":
        lines.append(f"{manage} apikey create --name me --read-all")
        reader, api_key = "-H 'Authorization: Bearer <that API key>' ", " --api-key '<that API key>'"
    lines.append(f"curl {reader}{url}/api/organizations/1234567890/balance/")
    lines.append(f"{manage} simulate_bank --url {url}{api_key}")
    return "\n".join(f"  {line}" for line in lines)


def database_summary() -> str:
    """Which one, without the password."""
    name, host = settings.DATABASE["NAME"], settings.DATABASE.get("HOST")
    return (
        f"SQLite, {name}" if connection.vendor == "sqlite" else f"{connection.display_name}, {name} on {host}"
    )


if __name__ == "__main__":
    sys.exit(main())
