"""Credentials in URLs, taken out of texts that people and logs get."""

import re

# RFC 3986, 3.2.1: from // to the last @ of the authority. A password may hold an unquoted one.
_USERINFO = re.compile(r"(?<=://)[^\s/?#'\"]+@")


def redact_urls(text: str) -> str:
    """Return `text` with redis://user:password@host as redis://***@host."""
    return _USERINFO.sub("***@", text)


def exception_summary(exc: Exception) -> str:
    """Say what failed without the exception's arguments, which may hold a URL."""
    reason = getattr(exc, "strerror", None)  # of an OSError: the system's own words
    return f"{type(exc).__name__}: {reason}" if reason else type(exc).__name__
