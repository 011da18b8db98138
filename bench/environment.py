"""The machine and the versions that a run was taken on."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from tests.harness.servers import ROOT, MariaDB, Redis, Server

PACKAGES = ("Django", "celery", "gunicorn", "uvicorn", "mysqlclient")


def describe() -> dict[str, str]:
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "processor": _read_value("/proc/cpuinfo", "model name"),
        "memory": f"{int(_read_value('/proc/meminfo', 'MemTotal').split()[0]) / 2**20:.1f} GiB",
        "kernel": platform.release(),
        "Python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "MariaDB": _version(MariaDB()),
        "Redis": _version(Redis()),
        "commit": _commit(),
    }


def _read_value(file: str, name: str) -> str:
    """Return the value in the first line of `file` that begins with `name`."""
    lines = Path(file).read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "unknown")


def _version(server: Server) -> str:
    try:
        return server.version
    finally:
        server.__exit__(None, None, None)  # it was never started; this removes its folder


def _commit() -> str:
    """Return the commit, marked if the tree is dirty; "unknown" outside of a clone."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL).strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
