"""CPU time and memory of processes, from proc(5)."""

import os
from collections.abc import Iterable
from pathlib import Path

from tests.harness.processes import proc_stat
from tests.harness.procfile_stack import ProcfileStack

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds_by_part(stack: ProcfileStack) -> dict[str, float]:
    """Return the CPU time of web with its children, and of the database if it is a server."""
    used = {"web": cpu_seconds(_web(stack))}
    if stack.database:
        used["the database"] = cpu_seconds([stack.database.pid])
    return used


def web_mib(stack: ProcfileStack) -> float:
    """Return the resident memory of the web processes in MiB."""
    return sum(memory_mib(pid)["VmRSS"] for pid in _web(stack))


def _web(stack: ProcfileStack) -> list[int]:
    return [stack["web"].pid, *stack["web"].children()]


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time of the processes since their start: utime and stime of their stat."""
    fields = [proc_stat(pid) for pid in pids]  # from the third field on
    return sum(int(each[11]) + int(each[12]) for each in fields) / _TICKS_PER_SECOND


def memory_mib(pid: int) -> dict[str, float]:
    """Return VmRSS, VmHWM (the peak) and the like of the process's status, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    pairs = (line.split(":") for line in lines if line.endswith(" kB"))
    return {name: int(value.split()[0]) / 1024 for name, value in pairs}
