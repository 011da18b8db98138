"""`make run`: web, worker and scheduler in one command that needs only Python and requirements/base.txt.

A misconfigured environment is reported in one line before anything starts. On Ctrl-C, SIGTERM, a closed
terminal or the death of one process all processes are stopped.
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

READY_SECONDS_MAX = 60.0
POLL_SECONDS = 0.1
SAMPLE_DELIVERY = (
    '{"operation_id": "ccf0a86d-041b-4991-bcf7-e2352f7b8a4a", "amount": 145000, "payer_inn": "1234567890", '
    '"document_number": "PAY-328", "document_date": "2024-04-27T21:00:00Z"}'
)
DEVELOPMENT_NOTE = ", with development defaults; .env.example lists what production requires"


def main() -> int:
    """Run until stopped; return the exit status, 0 after a requested stop."""
    on_stop_signals(lambda *_: sys.exit(0))  # no process has been started yet
    try:
        preflight.load_settings()
        preflight.prepare_data_dir()
        preflight.check_port()
        preflight.check_database()
        preflight.run_system_checks()
        preflight.probe_broker()
        preflight.migrate()
        admin_password = preflight.create_admin()
    except preflight.StartupError as exc:
        return fail(f"Prihod can't start: {exc}")
    connection.close()
    return run(admin_password)


def run(admin_password: str | None) -> int:
    """Start the processes, print the banner when they are ready, and stop all of them when one ends."""
    stop_signals: list[int] = []
    # Only recorded: an exception while a process is being started would leave that process behind.
    on_stop_signals(lambda number, _: stop_signals.append(number))
    processes = Processes()
    ready = False
    deadline, started_at = time.monotonic() + READY_SECONDS_MAX, time.time()
    try:
        start(processes)
        while not stop_signals:
            if ended := processes.ended():
                return fail(f"{ended}; stopping all processes")
            if not ready and time.monotonic() > deadline:
                return fail(f"not ready after {READY_SECONDS_MAX:.0f} seconds; stopping all processes")
            if not ready and web_is_ready() and (queue_is_empty() or worker_is_up(started_at)):
                ready = True
                echo(banner(admin_password))
            time.sleep(POLL_SECONDS)
    finally:
        processes.stop()
    echo("Stopped all processes")
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
    metrics = settings.DATA_DIR / "metrics"  # shared by all processes of this run
    shutil.rmtree(metrics, ignore_errors=True)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([programs, os.environ.get("PATH", os.defpath)]),
        "PROMETHEUS_MULTIPROC_DIR": str(metrics),
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
    """Return whether a worker has consumed the message that preflight.probe_broker left in the queue."""
    try:
        with doorbell.broker_connection(app) as broker:
            return doorbell.queue_length(app, broker, app.conf.task_default_queue) == 0
    except Exception:  # noqa: BLE001 each transport raises its own errors, and all mean: not yet
        return False


def worker_is_up(since: float) -> bool:
    """Return whether a worker wrote its heartbeat file after `since`, in seconds of Unix time.

    While banks deliver, the queue may never be empty.
    """
    from worker.heartbeats import heartbeat_path  # noqa: PLC0415 models load after django.setup() only

    try:
        return heartbeat_path("worker").stat().st_mtime > since
    except OSError:
        return False


def banner(admin_password: str | None) -> str:
    url = settings.URL
    python = shlex.quote(os.path.relpath(sys.executable))
    prefix = environment_prefix()
    log_in = f"user {preflight.ADMIN_USERNAME}, password {admin_password} (shown only once)"
    renew = f"for a new password: {prefix}{python} manage.py changepassword {preflight.ADMIN_USERNAME}"
    return f"""
Prihod is ready{DEVELOPMENT_NOTE if settings.DEBUG else ""}.

  site      {url}
  admin     {url}/admin/  {log_in if admin_password else renew}
  data      {settings.DATA_DIR}
  database  {database_summary()}
  broker    {preflight.broker_name() if settings.REDIS_URL else "files in the data folder"}

Try, in another terminal:

{example_commands(url, f"{prefix}{python} manage.py")}

Ctrl-C stops everything.
"""


def environment_prefix() -> str:
    """Return the variables, as a shell prefix, that make manage.py use the same data in another terminal."""
    values = {"DATA_DIR": str(settings.DATA_DIR), "PORT": str(settings.PORT)}
    return "".join(f"{name}={shlex.quote(value)} " for name, value in values.items() if os.environ.get(name))


def example_commands(url: str, manage: str) -> str:
    """Return commands that succeed as they are, or after the user has replaced the words in <>."""
    auth = settings.BANK_AUTH
    credentials = reader = api_key = ""
    if auth.bearer:
        credentials = "-H 'Authorization: Bearer <one of WEBHOOK_BEARER_TOKENS>' "
    elif auth.basic:
        credentials = "-u '<one of WEBHOOK_BASIC_AUTH>' "
    options = f"{credentials}-H 'Content-Type: application/json' -d '{SAMPLE_DELIVERY}'"
    commands = [f"curl {options} {url}/api/webhook/bank/"]
    if auth.is_configured and not credentials:
        commands = ["(curl can't sign a delivery as the WEBHOOK_ variables require; simulate_bank signs)"]
    if settings.READ_AUTH != "none":
        commands.append(f"{manage} apikey create --name me --read-all")
        reader, api_key = "-H 'Authorization: Bearer <that API key>' ", " --api-key '<that API key>'"
    commands.append(f"curl {reader}{url}/api/organizations/1234567890/balance/")
    commands.append(f"{manage} simulate_bank --url {url}{api_key}")
    return "\n".join(f"  {command}" for command in commands)


def database_summary() -> str:
    """Describe the database without its password."""
    name, host = settings.DATABASE["NAME"], settings.DATABASE.get("HOST")
    return (
        f"SQLite, {name}" if connection.vendor == "sqlite" else f"{connection.display_name}, {name} on {host}"
    )


if __name__ == "__main__":
    sys.exit(main())
