"""A file for each of this machine's workers and schedulers: its age is that of the last beat."""

import tempfile
from contextlib import suppress
from pathlib import Path

from django.conf import settings


def heartbeat_path(kind: str) -> Path:
    """The file whose age is that of the last beat. Named after the port: two houses may share a machine."""
    return Path(tempfile.gettempdir(), f"prihod-{kind}-{settings.PORT}")


def touch_heartbeat(kind: str) -> None:
    with suppress(OSError):  # a full disk must not stop the work; the health check will tell
        heartbeat_path(kind).touch()
