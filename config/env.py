"""How variables of the environment are read: which are malformed, and how they say so."""

import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

SHOWN_CHARS_MAX = 60  # of a malformed value
SQLITE = "django.db.backends.sqlite3"
MYSQL = "core.db.mysql_backend"
SQLITE_OPTIONS = {
    # IMMEDIATE waits for the write lock at BEGIN; an upgrade later on would fail instead of waiting.
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,  # seconds
    # FULL: a commit is on the disk before the bank hears 200.
    "init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;",
}
MYSQL_OPTIONS = {
    "charset": "utf8mb4",
    # REPEATABLE READ would read balances from before the lock; see docs/decisions/0004.
    "isolation_level": "read committed",
    # Without these a server that hangs is waited for without end. In seconds.
    "connect_timeout": 5,
    "read_timeout": 30,
    "write_timeout": 30,
    # wait_timeout: the locks of a worker that vanished without a word are let go after a minute.
    "init_command": "SET SESSION sql_mode = 'TRADITIONAL', SESSION innodb_lock_wait_timeout = 5,"
    " SESSION wait_timeout = 60",
}


# The default, least and greatest value of each numeric variable. .env.example documents them, and zero.
# SWEEP_INTERVAL_SECONDS is below the minute after which the health check misses the scheduler.
NUMBERS: dict[str, tuple[float, float, float]] = {
    "PORT": (8000, 1, 65_535),
    "WEB_PROCESSES": (2, 1, 128),
    "WEB_THREADS": (4, 1, 256),
    "WORKER_PROCESSES": (2, 1, 128),
    "METRICS_PORT": (0, 0, 65_535),
    "TRUSTED_PROXIES": (0, 0, 16),
    "WEBHOOK_TOLERANCE_SECONDS": (300, 1, 86_400),
    "ALERT_REPEAT_HOURS": (24.0, 0.1, 8760.0),
    "BATCH_SIZE_MAX": (500, 1, 10_000),
    "ATTEMPTS_MAX": (5, 1, 20),
    "RETRY_BACKOFF_SECONDS": (2.0, 0.0, 3600.0),
    "SWEEP_INTERVAL_SECONDS": (2.0, 0.1, 50.0),
    "STALLED_AFTER_SECONDS": (60.0, 1.0, 86_400.0),
    "DELIVERY_RECORDS_MAX": (10_000, 1, 1_000_000),
    "DELIVERY_RETENTION_DAYS": (90, 0, 36_500),
    "RAW_BODY_RETENTION_DAYS": (0, 0, 36_500),
    "TASK_RESULT_RETENTION_DAYS": (90, 0, 36_500),
    "VERIFY_AT_HOUR": (3, 0, 23),
    "VERIFY_ROWS_PER_SECOND_MAX": (50_000, 1, 10_000_000),
}


class Secret(str):
    """A text that error pages and listings of settings, which show an object's repr, don't show."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'********'"


class Environment(environ.Env):  # type: ignore[misc]  # untyped
    """An empty variable is as good as none, and a malformed one is named."""

    def get_value(
        self,
        var: str,
        cast: Any = None,
        default: Any = None,
        parse_default: bool = False,  # noqa: FBT001, FBT002 as the base class has it
    ) -> Any:
        if not self.ENVIRON.get(var):
            return default
        try:
            return super().get_value(var, cast, default, parse_default)
        except (ValueError, LookupError, OSError) as wrong:
            raise ImproperlyConfigured(
                f"{var}={_shown(self.ENVIRON[var])} is malformed; see .env.example"
            ) from wrong

    def whole(self, var: str) -> int:
        """The variable of NUMBERS, or its default. Raises ImproperlyConfigured, in one line that names it."""
        return int(self._number(var, r"[0-9]{1,9}", "a whole number"))

    def decimal(self, var: str) -> float:
        """Likewise, with or without a decimal point."""
        return self._number(var, r"[0-9]{1,9}(\.[0-9]{1,9})?", "a number")

    def _number(self, var: str, form: str, what: str) -> float:
        default, least, most = NUMBERS[var]
        text: str = self.ENVIRON.get(var) or str(default)
        if re.fullmatch(form, text) and least <= float(text) <= most:
            return float(text)
        raise ImproperlyConfigured(
            f"{var}={_shown(text)} is malformed; it must be {what} from {least} to {most}; see .env.example"
        )

    def listed(self, var: str, cast: Callable[[str], Any]) -> list[Any]:
        """The values of a variable, which commas separate, each through `cast`; none where it is not set.

        They may be secret, so no part of them is quoted; and a $ is a $ (get_value would look up the variable
        that it names, and take none for not set).
        """
        text: str = self.ENVIRON.get(var, "")
        try:
            return [cast(one.strip()) for one in text.split(",")] if text else []
        except ValueError:
            raise ImproperlyConfigured(f"{var} is malformed; see .env.example") from None


def _shown(text: str) -> str:
    """In one line, and not a page of it."""
    return " ".join(text.split())[:SHOWN_CHARS_MAX]


def read_auth(text: str) -> str:
    """Raises ValueError."""
    if text not in {"key", "none"}:
        raise ValueError(text)
    return text


def email_address(text: str) -> str:
    """Raises ValueError."""
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", text):
        raise ValueError
    return text


def webhook_url(text: str) -> Secret:
    """Raises ValueError. A secret, because whoever knows such a URL can post there."""
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or re.search(r"[^!-~]", text):
        raise ValueError
    parts.port  # noqa: B018 raises if it is none
    return Secret(text)


def check_authority(var: str, urls: str) -> None:
    """Raise ImproperlyConfigured if one of the URLs, separated by ;, has its authority end in its password.

    An unquoted / ? or # in a password ends the authority; libraries would quote the rest in their errors.
    """
    for url in urls.split(";"):
        parts = urlsplit(url)
        if "@" in parts.path + parts.query + parts.fragment:
            raise ImproperlyConfigured(
                f"{var} is malformed; in a password / is written %2F, ? %3F and # %23; see .env.example"
            )


def email_from_url(url: str, *, needed: bool) -> dict[str, Any]:
    """Django's settings for the mail server that the EMAIL_URL `url` names. Raises ImproperlyConfigured."""
    if not url:
        if needed:
            raise ImproperlyConfigured("ALERT_EMAILS is set, and EMAIL_URL is not; see .env.example")
        return {}
    check_authority("EMAIL_URL", url)
    try:
        email: dict[str, Any] = Environment.email_url_config(url)
    except (ValueError, ImproperlyConfigured):
        email = {"EMAIL_HOST": None}
    if not email["EMAIL_HOST"]:
        raise ImproperlyConfigured("EMAIL_URL is malformed; see .env.example")
    return {**email, "EMAIL_TIMEOUT": 10}  # seconds, of each of the server's answers


def dev_secret(file: Path) -> str:
    """Development's secret, which devtools/run.py keeps in `file`; without it, a passing one."""
    try:
        return file.read_text() or secrets.token_urlsafe(48)
    except OSError:
        return secrets.token_urlsafe(48)


def database_from_url(url: str, *, stand_in: Path) -> dict[str, Any]:
    """What the DATABASE_URL `url` says, or without it the SQLite file `stand_in`, whose folder is made.

    Raises ImproperlyConfigured, in words that hold no part of a password.
    """
    if not url:
        try:
            stand_in.parent.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise ImproperlyConfigured(
                f"DATA_DIR={stand_in.parent} can't be written: {fault.strerror}"
            ) from fault
        return {"ENGINE": SQLITE, "NAME": str(stand_in), "OPTIONS": SQLITE_OPTIONS}
    if not url.startswith(("sqlite:///", "mysql://")):
        raise ImproperlyConfigured("DATABASE_URL must begin with sqlite:/// or mysql://")
    check_authority("DATABASE_URL", url)
    try:
        database: dict[str, Any] = Environment.db_url_config(url)
    except ValueError:
        database = {"NAME": ""}
    if database["NAME"] in {"", ":memory:"}:
        raise ImproperlyConfigured(
            "DATABASE_URL is malformed; it reads mysql://user:password@host:port/name or sqlite:////a/file; "
            "a / in a password is written %2F"
        )
    engine, ours = (SQLITE, SQLITE_OPTIONS) if database["ENGINE"] == SQLITE else (MYSQL, MYSQL_OPTIONS)
    return {**database, "ENGINE": engine, "OPTIONS": {**ours, **database.get("OPTIONS", {})}}


def broker_from_url(redis_url: str, *, stand_in: Path) -> dict[str, Any]:
    """Celery's settings for the broker at `redis_url`, or without it for files in the folder `stand_in`."""
    if redis_url:
        check_authority("REDIS_URL", redis_url)
        return {
            "CELERY_BROKER_URL": redis_url,
            "CELERY_BROKER_TRANSPORT_OPTIONS": {
                "socket_keepalive": True,
                "health_check_interval": 10,  # seconds
                # A broker that hangs is not waited endlessly; longer than the second of kombu's own BRPOP.
                "socket_connect_timeout": 5,
                "socket_timeout": 30,
            },
        }
    return {
        "CELERY_BROKER_URL": "filesystem://localhost",  # a name that means nothing; without one kombu warns
        "CELERY_BROKER_TRANSPORT": "worker.file_broker:Transport",
        # With this kind of transport Celery's prefork pool shares one pipe: a killed process takes its lock
        # along, and the others wait for ever. SQLite has one writer at a time anyway.
        "CELERY_WORKER_POOL": "solo",
        "CELERY_BROKER_TRANSPORT_OPTIONS": {
            "data_folder_in": str(stand_in / "messages"),
            "control_folder": str(stand_in / "control"),
            "polling_interval": 0.05,  # seconds
        },
    }
