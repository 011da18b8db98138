"""What the processes of a house have used so far."""

import os
from pathlib import Path

from faults.house import House


def cpu_seconds(house: House) -> dict[str, float]:
    """By part of the house: web with all its processes, and the database if it is a server."""
    spent = {"web": sum(map(_cpu_seconds, _web(house)))}
    if house.database:
        spent["the database"] = _cpu_seconds(house.database.pid)
    return spent


def web_mib(house: House) -> float:
    """Memory that the web processes have resident."""
    return sum(map(_resident_mib, _web(house)))


def _web(house: House) -> list[int]:
    return [house["web"].pid, *house["web"].children()]


def _cpu_seconds(pid: int) -> float:
    # Behind the name, which may hold anything, the fields count from the third: proc(5).
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def _resident_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()[0]) / 1024
