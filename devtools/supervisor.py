"""A supervisor for several commands: one console, and no process left behind by any kind of end."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from functools import partial

STOP_SECONDS_MAX = 8.0  # until SIGKILL; a worker needs 3 to 4 to finish its batch
POLL_SECONDS = 0.05
PR_SET_PDEATHSIG = 1  # prctl(2)
_prctl = getattr(ctypes.CDLL(None), "prctl", None)  # exists on Linux
_console_lock = threading.Lock()


def echo(text: str) -> None:
    """Write `text` and a line feed to the console."""
    _write(f"{text}\n".encode())


def _write(data: bytes) -> None:
    with _console_lock:
        try:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except OSError:  # the terminal or the pipe's reader is gone
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Processes:
    """Shell commands in sessions of their own, so that Ctrl-C reaches only the supervisor."""

    def __init__(self) -> None:
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._readers: list[threading.Thread] = []

    def start(self, name: str, command: str, environment: Mapping[str, str]) -> None:
        process = subprocess.Popen(  # noqa: S602 the Procfile's commands are written for a shell
            command,
            shell=True,
            env=environment,
            start_new_session=True,
            # It takes no lock between fork and exec, so it can't block on one that a reader thread holds.
            preexec_fn=partial(_end_with_parent, os.getpid()),  # noqa: PLW1509
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._processes[name] = process
        reader = threading.Thread(target=_copy_output, args=(name, process), daemon=True)
        self._readers.append(reader)
        reader.start()

    def ended(self) -> str | None:
        """Describe a process that has ended, with its exit status; None while all of them run."""
        for name, process in self._processes.items():
            if (status := process.poll()) is not None:
                how = f"by signal {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
                return f"{name} ended {how}"
        return None

    def stop(self) -> None:
        """Send SIGTERM, and after STOP_SECONDS_MAX SIGKILL; return when all processes have ended."""
        deadline = time.monotonic() + STOP_SECONDS_MAX
        self._signal(signal.SIGTERM)
        while self._running() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        if running := self._running():
            self._signal(signal.SIGKILL)
            echo(f"killed after {STOP_SECONDS_MAX:.0f} seconds: {', '.join(running)}")
        for process in self._processes.values():
            process.wait()
        for reader in self._readers:
            reader.join(timeout=1)

    def _running(self) -> list[str]:
        return [name for name, process in self._processes.items() if _group_exists(process)]

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes.values():
            _signal_group(process, number)


def _end_with_parent(parent: int) -> None:
    """Have the kernel send SIGTERM when the supervisor dies without stopping its processes, as by SIGKILL."""
    if _prctl:
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # the parent ended before prctl
            os._exit(1)


def _group_exists(process: subprocess.Popen[bytes]) -> bool:
    """Return whether the process or one of its descendants runs."""
    process.poll()  # reaps a zombie, which would count as a member of the group
    return _signal_group(process, 0)


def _signal_group(process: subprocess.Popen[bytes], number: int) -> bool:
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):  # macOS raises the latter for a group of zombies
        return False
    return True


def _copy_output(name: str, process: subprocess.Popen[bytes]) -> None:
    if process.stdout is None:
        return
    with process.stdout as output:
        for line in output:
            if text := line.rstrip():
                _write(f"{name:6} | ".encode() + text + b"\n")
