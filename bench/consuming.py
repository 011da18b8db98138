"""What processes have used so far, as proc(5) tells."""

import os
from collections.abc import Iterable
from pathlib import Path

from faults.house import House
from tests.processes import stat

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds_by_part(house: House) -> dict[str, float]:
    """By part of the house: web with all its processes, and the database if it is a server."""
    spent = {"web": cpu_seconds(_web(house))}
    if house.database:
        spent["the database"] = cpu_seconds([house.database.pid])
    return spent


def web_mib(house: House) -> float:
    """Memory that the web processes have resident."""
    return sum(memory_mib(pid)["VmRSS"] for pid in _web(house))


def _web(house: House) -> list[int]:
    return [house["web"].pid, *house["web"].children()]


def cpu_seconds(pids: Iterable[int]) -> float:
    """Of all these processes since their start: the 14th and 15th field of their stat."""
    fields = [stat(pid) for pid in pids]  # from the third on
    return sum(int(each[11]) + int(each[12]) for each in fields) / _TICKS_PER_SECOND


def memory_mib(pid: int) -> dict[str, float]:
    """VmRSS, VmHWM (its highest so far) and the like, of its status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    pairs = (line.split(":") for line in lines if line.endswith(" kB"))
    return {name: int(value.split()[0]) / 1024 for name, value in pairs}
