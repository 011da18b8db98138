"""What processes have used so far, as proc(5) tells."""

import os
from collections.abc import Iterable
from pathlib import Path

from tests.harness.processes import proc_stat
from tests.harness.procfile_stack import ProcfileStack

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds_by_part(stack: ProcfileStack) -> dict[str, float]:
    """By part of the house: web with all its processes, and the database if it is a server."""
    spent = {"web": cpu_seconds(_web(stack))}
    if stack.database:
        spent["the database"] = cpu_seconds([stack.database.pid])
    return spent


def web_mib(stack: ProcfileStack) -> float:
    """Memory that the web processes have resident."""
    return sum(memory_mib(pid)["VmRSS"] for pid in _web(stack))


def _web(stack: ProcfileStack) -> list[int]:
    return [stack["web"].pid, *stack["web"].children()]


def cpu_seconds(pids: Iterable[int]) -> float:
    """Of all these processes since their start: the 14th and 15th field of their stat."""
    fields = [proc_stat(pid) for pid in pids]  # from the third on
    return sum(int(each[11]) + int(each[12]) for each in fields) / _TICKS_PER_SECOND


def memory_mib(pid: int) -> dict[str, float]:
    """VmRSS, VmHWM (its highest so far) and the like, of its status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    pairs = (line.split(":") for line in lines if line.endswith(" kB"))
    return {name: int(value.split()[0]) / 1024 for name, value in pairs}
