"""Parsing of environment variables, with one-line errors that name the variable."""

import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

from core.db.mysql_backend import hosts

QUOTED_CHARS_MAX = 60  # of a malformed value
SQLITE = "core.db.sqlite_backend"
MYSQL = "core.db.mysql_backend"
SQLITE_OPTIONS = {
    # IMMEDIATE waits for the write lock at BEGIN; a later upgrade of a read lock would fail at once.
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,  # seconds
    # FULL: a commit is on disk before the bank receives its 200.
    "init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;",
}
MYSQL_OPTIONS = {
    "charset": "utf8mb4",
    # REPEATABLE READ would read balances from before the lock; see docs/decisions/0004.
    "isolation_level": "read committed",
    # In seconds. Without timeouts a server that hangs would block the process forever.
    "connect_timeout": 5,
    "read_timeout": 30,
    "write_timeout": 30,
    # wait_timeout releases the locks of a worker that disappeared without closing its connection.
    "init_command": "SET SESSION sql_mode = 'TRADITIONAL', SESSION innodb_lock_wait_timeout = 5,"
    " SESSION wait_timeout = 60",
}


# Default, minimum and maximum of each numeric variable; .env.example documents them and the meaning of 0.
# SWEEP_INTERVAL_SECONDS is below the minute after which the health check considers the scheduler dead.
NUMBERS: dict[str, tuple[float, float, float]] = {
    "PORT": (8000, 1, 65_535),
    "WEB_PROCESSES": (2, 1, 128),
    "WEB_THREADS": (4, 1, 256),
    "WORKER_PROCESSES": (2, 1, 128),
    "METRICS_PORT": (0, 0, 65_535),
    "TRUSTED_PROXIES": (0, 0, 16),
    "WAITING_DELIVERIES_MAX": (1500, 1, 1_000_000),
    "WAITING_BYTES_MAX": (67_108_864, 65_536, 999_999_999),
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
    "STATEMENT_ALERT_AFTER_DAYS": (3, 0, 365),
    "STATEMENT_POST_AFTER_HOURS": (24, 0, 720),
    "VERIFY_AT_HOUR": (3, 0, 23),
    "SUSPENSE_ALERT_AFTER_DAYS": (5.0, 0.01, 3650.0),
    "VERIFY_ROWS_PER_SECOND_MAX": (50_000, 1, 10_000_000),
}


class Secret(str):
    """A string whose repr() hides it, because error pages and listings of settings show the repr()."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'********'"


class Environment(environ.Env):  # type: ignore[misc]  # untyped
    """Treats an empty variable as unset, and names a malformed one in the error."""

    def get_value(
        self,
        var: str,
        cast: Any = None,
        default: Any = None,
        parse_default: bool = False,  # noqa: FBT001, FBT002 as in the base class
    ) -> Any:
        if not self.ENVIRON.get(var):
            return default
        try:
            return super().get_value(var, cast, default, parse_default)
        except (ValueError, LookupError, OSError) as exc:
            raise ImproperlyConfigured(
                f"{var}={_quoted(self.ENVIRON[var])} is malformed; see .env.example"
            ) from exc

    def integer(self, var: str) -> int:
        """Return a variable of NUMBERS. Raise ImproperlyConfigured if it is malformed or out of range."""
        return int(self._number(var, r"[0-9]{1,9}", "a whole number"))

    def number(self, var: str) -> float:
        """Return a variable of NUMBERS with an optional fraction. Raise as `integer` does."""
        return self._number(var, r"[0-9]{1,9}(\.[0-9]{1,9})?", "a number")

    def _number(self, var: str, pattern: str, kind: str) -> float:
        default, minimum, maximum = NUMBERS[var]
        text: str = self.ENVIRON.get(var) or str(default)
        if re.fullmatch(pattern, text) and minimum <= float(text) <= maximum:
            return float(text)
        raise ImproperlyConfigured(
            f"{var}={_quoted(text)} is malformed; it must be {kind} from {minimum} to {maximum}; "
            "see .env.example"
        )

    def list_of(self, var: str, cast: Callable[[str], Any]) -> list[Any]:
        """Return the comma-separated values of a variable, each converted by `cast`; empty if it is unset.

        The values may be secret, so the error quotes none of them. A leading $ has no special meaning here,
        while get_value would replace it by another variable's value.
        """
        text: str = self.ENVIRON.get(var, "")
        try:
            return [cast(one.strip()) for one in text.split(",")] if text else []
        except ValueError:
            raise ImproperlyConfigured(f"{var} is malformed; see .env.example") from None


def _quoted(text: str) -> str:
    """Shorten `text` to one line of at most QUOTED_CHARS_MAX characters."""
    return " ".join(text.split())[:QUOTED_CHARS_MAX]


def read_auth(text: str) -> str:
    """Raise ValueError unless `text` is a value of READ_AUTH."""
    if text not in {"key", "none"}:
        raise ValueError(text)
    return text


def suspected_duplicates(text: str) -> str:
    """Raise ValueError unless `text` is a value of SUSPECTED_DUPLICATES."""
    if text not in {"mark", "hold", "off"}:
        raise ValueError(text)
    return text


def email_address(text: str) -> str:
    """Raise ValueError unless `text` resembles an e-mail address."""
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", text):
        raise ValueError
    return text


def webhook_url(text: str) -> Secret:
    """Validate a URL to POST to. It is a secret, because it authorizes to post. Raise ValueError."""
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or re.search(r"[^!-~]", text):
        raise ValueError
    parts.port  # noqa: B018 raises ValueError if it is malformed
    return Secret(text)


def check_authority(var: str, urls: str) -> None:
    """Raise ImproperlyConfigured if the password in one of the URLs, separated by ;, is not percent-encoded.

    A bare / ? or # in a password ends the URL's authority, and libraries would quote the rest in errors.
    """
    for url in urls.split(";"):
        try:
            parts = urlsplit(url)
        except ValueError:
            raise ImproperlyConfigured(f"{var} is malformed; see .env.example") from None
        if "@" in parts.path + parts.query + parts.fragment:
            raise ImproperlyConfigured(
                f"{var} is malformed; in a password write %2F for /, %3F for ? and %23 for #; "
                "see .env.example"
            )


def email_from_url(url: str, *, required: bool) -> dict[str, Any]:
    """Return Django's e-mail settings for EMAIL_URL; empty without one. Raise ImproperlyConfigured."""
    if not url:
        if required:
            raise ImproperlyConfigured("ALERT_EMAILS is set, but EMAIL_URL is not; see .env.example")
        return {}
    check_authority("EMAIL_URL", url)
    try:
        email: dict[str, Any] = Environment.email_url_config(url)
    except (ValueError, ImproperlyConfigured):
        email = {"EMAIL_HOST": None}
    if not email["EMAIL_HOST"]:
        raise ImproperlyConfigured("EMAIL_URL is malformed; see .env.example")
    return {**email, "EMAIL_TIMEOUT": 10}  # seconds per network operation


def dev_secret(file: Path) -> str:
    """Return the development secret that devtools/run.py stores in `file`, or a temporary one without it."""
    try:
        return file.read_text() or secrets.token_urlsafe(48)
    except OSError:
        return secrets.token_urlsafe(48)


def database_from_url(url: str, *, dev_default: Path, var: str = "DATABASE_URL") -> dict[str, Any]:
    """Return Django's settings for the URL in `var`, or else for the file `dev_default`, creating its folder.

    Raise ImproperlyConfigured with a message that contains no part of a password.
    """
    if not url:
        try:
            dev_default.parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise ImproperlyConfigured(
                f"DATA_DIR={dev_default.parent} can't be written: {exc.strerror}"
            ) from exc
        return {"ENGINE": SQLITE, "NAME": str(dev_default), "OPTIONS": SQLITE_OPTIONS}
    if not url.startswith(("sqlite:///", "mysql://")):
        raise ImproperlyConfigured(f"{var} must begin with sqlite:/// or mysql://")
    check_authority(var, url)
    try:
        first_url, listed = hosts.split_hosts(url)
        database: dict[str, Any] = Environment.db_url_config(first_url)
    except ValueError:
        database = {"NAME": ""}
    if database["NAME"] in {"", ":memory:"}:
        raise ImproperlyConfigured(
            f"{var} is malformed; its form is mysql://user:password@host:port/name, with several hosts "
            "separated by commas, or sqlite:////path/to/file; in a password write %2F for /"
        )
    is_sqlite = url.startswith("sqlite:")
    engine, defaults = (SQLITE, SQLITE_OPTIONS) if is_sqlite else (MYSQL, MYSQL_OPTIONS)
    if listed:
        database["HOSTS"] = listed
        defaults = {**defaults, "connect_timeout": hosts.CONNECT_SECONDS_MAX}
    return {**database, "ENGINE": engine, "OPTIONS": {**defaults, **database.get("OPTIONS", {})}}


def reads_from_url(url: str) -> dict[str, Any]:
    """Return Django's settings for READ_DATABASE_URL. Raise as `database_from_url` does.

    Its sessions read what all nodes of a Galera cluster have committed. Only MariaDB executes the comment.
    """
    database = database_from_url(url, dev_default=Path(), var="READ_DATABASE_URL")
    if database["ENGINE"] == MYSQL:
        database["OPTIONS"]["init_command"] += "/*M!, SESSION wsrep_sync_wait = 1*/"
    return database
