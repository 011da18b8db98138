"""What the kernel says of a process: proc(5)."""

from pathlib import Path


def proc_stat(pid: int) -> list[str]:
    """The fields of its stat from the third on, its state; in front of it the name may hold anything.

    Empty for one that has ended.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def is_alive(pid: int) -> bool:
    """Whether it still runs; one that has ended and is only waited for does not."""
    return proc_stat(pid)[:1] not in ([], ["Z"])


def start_time_ticks(pid: int) -> int:
    """Clock ticks since boot; 0 for one that has ended."""
    fields = proc_stat(pid)
    return int(fields[19]) if fields else 0
