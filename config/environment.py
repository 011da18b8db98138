"""How variables of the environment are read: which are malformed, and how they say so."""

import secrets
from pathlib import Path
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured


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
            raise ImproperlyConfigured(f"{var}={self.ENVIRON[var]} is malformed; see .env.example") from wrong


def one_or_more(text: str) -> int:
    """Raises ValueError."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def kept_secret(file: Path) -> str:
    """Development's secret, which config/launcher.py keeps in `file`; without it, a passing one."""
    try:
        return file.read_text() or secrets.token_urlsafe(48)
    except OSError:
        return secrets.token_urlsafe(48)


def database_at(url: str, *, stand_in: Path) -> dict[str, Any]:
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
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(stand_in)}
    if not url.startswith(("sqlite:///", "mysql://")):
        raise ImproperlyConfigured("DATABASE_URL must begin with sqlite:/// or mysql://")
    try:
        database: dict[str, Any] = Environment.db_url_config(url)
    except ValueError:
        database = {"NAME": ""}
    if database["NAME"] in {"", ":memory:"}:
        raise ImproperlyConfigured(
            "DATABASE_URL is malformed; it reads mysql://user:password@host:port/name or sqlite:////a/file; "
            "a / in a password is written %2F"
        )
    return database
