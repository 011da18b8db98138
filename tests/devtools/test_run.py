"""Whatever is wrong with the environment is one plain line, and nothing has been started."""

import fcntl
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from pytest_django import Settings

from config.env import check_authority
from devtools import run
from devtools.run import example_commands
from ingest.authentication import DeliveryAuth
from tests.harness.servers import ROOT, free_port
from tests.harness.stack import clean_environment
from tests.markers import sqlite_run_only

pytestmark = sqlite_run_only

SECRETS = {
    "SECRET_KEY": "s3cret",
    "DATABASE_URL": "mysql://u:p@h/d",
    "REDIS_URL": "redis://h",
    "WEBHOOK_AUTH": "none",
    "DEBUG": "0",
}
CLOSED = "127.0.0.1:1"  # nothing listens on port 1


def complaint(data_dir: Path, **environment: str) -> str:
    """The line that the launcher ends with."""
    base = clean_environment(PORT=str(free_port()), DATA_DIR=str(data_dir))
    launcher = subprocess.run(
        [sys.executable, "-m", "devtools.run"],
        cwd=ROOT,
        env={**base, **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert launcher.returncode == 1
    assert launcher.stdout == ""
    assert launcher.stderr.count("\n") == 1, launcher.stderr
    start, line = launcher.stderr.strip().split(": ", 1)
    assert start == "Prihod can't start"
    return line


def test_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        expected = f"port {port} of 127.0.0.1 is in use; choose another with PORT"
        assert complaint(tmp_path, PORT=str(port)) == expected


def test_port_on_which_a_prihod_answers(tmp_path: Path) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("X-Request-ID", "0123456789abcdef")
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        try:
            expected = (
                f"port {other.server_port} of 127.0.0.1 is in use by another Prihod; choose another with PORT"
            )
            assert complaint(tmp_path, PORT=str(other.server_port)) == expected
        finally:
            other.shutdown()


def test_data_dir_that_is_locked(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert complaint(tmp_path) == f"DATA_DIR={tmp_path} is in use by another `make run`"


def test_host_that_is_not_of_this_machine(tmp_path: Path) -> None:
    assert complaint(tmp_path, HOST="192.0.2.1").startswith("HOST=192.0.2.1 PORT=")


def test_data_dir_under_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    data_dir = tmp_path / "file" / "data"
    assert complaint(data_dir) == f"DATA_DIR={data_dir} can't be written: Not a directory"


@pytest.mark.parametrize("url", ["postgres://u@h/d", "mysql//u@h/d", "nonsense", "sqlite://:memory:"])
def test_database_url_of_another_kind(tmp_path: Path, url: str) -> None:
    assert complaint(tmp_path, DATABASE_URL=url) == "DATABASE_URL must begin with sqlite:/// or mysql://"


@pytest.mark.parametrize(
    "url",
    ["mysql://", "mysql://u:s3cret@h", "mysql://u@h:port/d", "mysql://u:s3/cret@h/d", "sqlite:///:memory:"],
)
def test_malformed_database_url(tmp_path: Path, url: str) -> None:
    told = complaint(tmp_path, DATABASE_URL=url)
    assert told.startswith("DATABASE_URL is malformed")
    assert "s3" not in told


def test_database_server_that_is_not_there(tmp_path: Path) -> None:
    pytest.importorskip("MySQLdb")
    told = complaint(tmp_path, DATABASE_URL=f"mysql://u:s3cret@{CLOSED}/d")
    assert told.startswith("DATABASE_URL leads to no usable database: Can't connect to")
    assert "s3cret" not in told


def test_unknown_option_of_the_database(tmp_path: Path) -> None:
    pytest.importorskip("MySQLdb")
    assert "'colour'" in complaint(tmp_path, DATABASE_URL=f"mysql://u@{CLOSED}/d?colour=red")


def test_database_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "novel.txt").write_text("It was a dark and stormy night. " * 100)
    told = complaint(tmp_path, DATABASE_URL=f"sqlite:///{tmp_path}/novel.txt")
    assert told == "DATABASE_URL leads to no usable database: file is not a database"


def test_mysql_without_mysqlclient(tmp_path: Path) -> None:
    (tmp_path / "MySQLdb.py").write_text("raise ImportError('as where it is not installed')")
    told = complaint(tmp_path, DATABASE_URL="mysql://u@h/d", PYTHONPATH=str(tmp_path))
    assert "pip install -r requirements/mysql.txt" in told


def test_redis_that_is_not_there(tmp_path: Path) -> None:
    told = complaint(tmp_path, REDIS_URL=f"redis://:s3cret@{CLOSED}/0")
    assert told.startswith("REDIS_URL leads to no usable Redis: ")
    assert "s3cret" not in told


def test_redis_url_of_another_kind(tmp_path: Path) -> None:
    assert complaint(tmp_path, REDIS_URL="nonsense://h").startswith("REDIS_URL leads to no usable Redis: ")


@pytest.mark.parametrize("missing", ["SECRET_KEY", "DATABASE_URL", "REDIS_URL"])
def test_production_without_a_secret(tmp_path: Path, missing: str) -> None:
    told = complaint(tmp_path, **{**SECRETS, missing: ""})
    assert told == f"{missing} is not set; with DEBUG=0 it must be. See .env.example."


def test_production_that_knows_no_bank(tmp_path: Path) -> None:
    told = complaint(tmp_path, **{**SECRETS, "WEBHOOK_AUTH": ""})
    assert told.startswith("nothing says who may deliver webhooks; with DEBUG=0 set WEBHOOK_SECRETS")


def test_everybody_may_and_not_everybody(tmp_path: Path) -> None:
    told = complaint(tmp_path, WEBHOOK_AUTH="none", WEBHOOK_BEARER_TOKENS="0123456789abcdef")
    assert told == "WEBHOOK_AUTH=none contradicts the WEBHOOK_ variables that say who may deliver"


@pytest.mark.parametrize(
    "name",
    [
        *("WEBHOOK_SECRETS", "WEBHOOK_X_SIGNATURE_SECRETS", "WEBHOOK_BASIC_AUTH", "WEBHOOK_BEARER_TOKENS"),
        *("WEBHOOK_NETWORKS", "WEBHOOK_PUBLIC_KEY_FILE"),
    ],
)
@pytest.mark.parametrize("value", ["s3cret", "s3cret,", ",", "$SECRET_KEY"])
def test_malformed_proof_is_named_and_not_shown(tmp_path: Path, name: str, value: str) -> None:
    assert complaint(tmp_path, **{name: value}) == f"{name} is malformed; see .env.example"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALERT_EMAILS", "ops@bank.example,"),
        ("ALERT_EMAILS", "ops"),
        ("ALERT_WEBHOOK_URL", "ftp://chat.example/s3cret"),
        ("ALERT_WEBHOOK_URL", "https:///s3cret"),
        ("ALERT_WEBHOOK_URL", "https://chat.example:port/s3cret"),
        ("ALERT_WEBHOOK_URL", "https://chat.example/s3 cret"),
        ("EMAIL_URL", "smtp://"),
        ("EMAIL_URL", "pigeon://user:s3cret@host"),
        ("EMAIL_URL", "smtp://user:s3cret@host:port"),
    ],
)
def test_malformed_ways_to_people_are_named_and_not_shown(tmp_path: Path, name: str, value: str) -> None:
    assert complaint(tmp_path, **{name: value}) == f"{name} is malformed; see .env.example"


@pytest.mark.parametrize(
    "password", ["m4rker/x", "m4rker?x", "m4rker#x", "12/m4rker", "12?m4rker", "12#m4rker"]
)
@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("DATABASE_URL", "mysql://user:{}@127.0.0.1:1/name"),
        ("REDIS_URL", "redis://:{}@127.0.0.1:1/0"),
        ("REDIS_URL", "redis://127.0.0.1:1/0;redis://:{}@127.0.0.1:2/0"),
        ("EMAIL_URL", "smtp://user:{}@127.0.0.1:1"),
    ],
)
def test_password_that_is_not_quoted_is_refused_and_not_shown(name: str, url: str, password: str) -> None:
    with pytest.raises(
        ImproperlyConfigured, match=rf"^{name} is malformed; in a password / is written %2F"
    ) as exc:
        check_authority(name, url.format(password))
    assert "m4rker" not in str(exc.value)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("DATABASE_URL", "mysql://user:m4rker@127.0.0.1:1/name"),
        ("DATABASE_URL", "mysql://user:m4rker/x@127.0.0.1:1/name"),
        ("REDIS_URL", "redis://:m4rker@127.0.0.1:1/0"),
        ("REDIS_URL", "redis://:m4rker/x@127.0.0.1:1/0"),
        ("REDIS_URL", "redis://:m4r@ker@127.0.0.1:1/0"),
        ("REDIS_URL", "nonsense://:m4rker@127.0.0.1:1/0"),
        ("SENTRY_DSN", "https://m4rker@127.0.0.1/no-number"),
        ("ALERT_WEBHOOK_URL", "http://user:m4rker@127.0.0.1:port/x"),
    ],
)
def test_no_password_of_a_url_is_shown(tmp_path: Path, name: str, url: str) -> None:
    assert "m4r" not in complaint(tmp_path, **{name: url})


def test_addresses_are_of_no_use_without_a_mail_server(tmp_path: Path) -> None:
    told = complaint(tmp_path, ALERT_EMAILS="ops@bank.example")
    assert told == "ALERT_EMAILS is set, and EMAIL_URL is not; see .env.example"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BANK_TIME_ZONE", "Mars/Olympus"),
        ("BANK_TIME_ZONE", "Europe"),
        ("LOG_LEVEL", "chatty"),
    ],
)
def test_malformed_setting(tmp_path: Path, name: str, value: str) -> None:
    assert complaint(tmp_path, **{name: value}) == f"{name}={value} is malformed; see .env.example"


def test_a_worker_that_beats_is_there_however_many_rings_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mark"
    monkeypatch.setattr(run, "heartbeat_path", lambda _: mark)
    assert not run.worker_is_up(0)
    mark.touch()
    begun = mark.stat().st_mtime
    assert not run.worker_is_up(begun)  # of one before us
    os.utime(mark, (begun + 1, begun + 1))
    assert run.worker_is_up(begun)


def test_a_folder_for_counts_that_is_not_there_yet(tmp_path: Path) -> None:
    """The launcher counts before the settings have made the folder; what it complains of is another thing."""
    folder = str(tmp_path / "counts")
    assert complaint(tmp_path, PROMETHEUS_MULTIPROC_DIR=folder, PORT="0").startswith("PORT=0 is ")


@pytest.mark.parametrize(
    ("guard", "read_auth", "said", "unsaid"),
    [
        (DeliveryAuth(), "none", "curl -H 'Content-Type", "Authorization"),
        (DeliveryAuth(bearer=[b"x"]), "none", "curl -H 'Authorization: Bearer <one of", "API key"),
        (DeliveryAuth(basic=[b"x"]), "none", "curl -u '<one of WEBHOOK_BASIC_AUTH>'", "API key"),
        (DeliveryAuth(secrets=[b"x"]), "none", "simulate_bank signs", "webhook/bank"),
        (
            DeliveryAuth(),
            "key",
            "curl -H 'Authorization: Bearer <that API key>' http://x/api/org",
            "curl http://x/api/org",
        ),
    ],
)
def test_what_to_try_shows_what_is_asked_for(
    settings: Settings, guard: DeliveryAuth, read_auth: str, said: str, unsaid: str
) -> None:
    settings.BANK_AUTH, settings.READ_AUTH = guard, read_auth

    lines = example_commands("http://x", "manage.py")

    assert said in lines
    assert unsaid not in lines
