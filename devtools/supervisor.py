"""Several commands run as one: one console, one end for all of them and for whatever they started."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from functools import partial

STOP_SECONDS_MAX = 8.0  # then what is left is killed; a worker that has to finish a batch takes 3 to 4
POLL_SECONDS = 0.05
PR_SET_PDEATHSIG = 1  # prctl(2)
_prctl = getattr(ctypes.CDLL(None), "prctl", None)  # Linux has it
_one_line_at_a_time = threading.Lock()


def echo(text: str) -> None:
    """Write `text` and a line's end to the console."""
    _write(f"{text}\n".encode())


def _write(lines: bytes) -> None:
    with _one_line_at_a_time:
        try:
            sys.stdout.buffer.write(lines)
            sys.stdout.buffer.flush()
        except OSError:  # the terminal is closed, or the pipe's reader is gone
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Processes:
    """Shell commands, each in a session of its own: Ctrl-C reaches none of them, a signal from here all."""

    def __init__(self) -> None:
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._readers: list[threading.Thread] = []

    def start(self, name: str, command: str, environment: Mapping[str, str]) -> None:
        process = subprocess.Popen(  # noqa: S602 the Procfile's commands are meant for a shell
            command,
            shell=True,
            env=environment,
            start_new_session=True,
            # Between fork and exec it takes no lock, so the reader threads can't have one that it waits for.
            preexec_fn=partial(_end_with_parent, os.getpid()),  # noqa: PLW1509
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._processes[name] = process
        reader = threading.Thread(target=_copy_lines, args=(name, process), daemon=True)
        self._readers.append(reader)
        reader.start()

    def ended(self) -> str | None:
        """What to say of one that has ended, with its status; None while all of them run."""
        for name, process in self._processes.items():
            if (status := process.poll()) is not None:
                by = f"by signal {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
                return f"{name} ended {by}"
        return None

    def stop(self) -> None:
        """SIGTERM, and SIGKILL after STOP_SECONDS_MAX; nothing is left running when this returns."""
        deadline = time.monotonic() + STOP_SECONDS_MAX
        self._signal(signal.SIGTERM)
        while self._left() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        if late := self._left():
            self._signal(signal.SIGKILL)
            echo(f"killed after {STOP_SECONDS_MAX:.0f} seconds: {', '.join(late)}")
        for process in self._processes.values():
            process.wait()
        for reader in self._readers:
            reader.join(timeout=1)

    def _left(self) -> list[str]:
        return [name for name, process in self._processes.items() if _anything_left(process)]

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes.values():
            _signal_group(process, number)


def _end_with_parent(parent: int) -> None:
    """Have the kernel send SIGTERM when the launcher ends without having stopped anything: by SIGKILL."""
    if _prctl:
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before prctl
            os._exit(1)


def _anything_left(process: subprocess.Popen[bytes]) -> bool:
    """Whether it runs, or something it started."""
    process.poll()  # what has ended and was not asked for still counts as a member
    return _signal_group(process, 0)


def _signal_group(process: subprocess.Popen[bytes], number: int) -> bool:
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):  # the latter is what macOS says of a group of zombies
        return False
    return True


def _copy_lines(name: str, process: subprocess.Popen[bytes]) -> None:
    if process.stdout is None:
        return
    with process.stdout as lines:
        for line in lines:
            if text := line.rstrip():
                _write(f"{name:6} | ".encode() + text + b"\n")
