"""Process information from proc(5)."""

from pathlib import Path


def proc_stat(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat from the state on; empty if the process has ended.

    The process name before them may contain spaces and parentheses.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def is_alive(pid: int) -> bool:
    """Return whether the process still runs; a zombie does not."""
    return proc_stat(pid)[:1] not in ([], ["Z"])


def is_stopped(pid: int) -> bool:
    return proc_stat(pid)[:1] == ["T"]


def describe(pid: int) -> str:
    """Return its command line, and from proc(5) its state and the kernel function in which it waits."""
    folder = Path(f"/proc/{pid}")
    command = _read(folder / "cmdline").replace("\0", " ").strip()
    return f"{pid} {command} (state {''.join(proc_stat(pid)[:1])}, in {_read(folder / 'wchan') or '?'})"


def start_time_ticks(pid: int) -> int:
    """Return the start time in clock ticks since boot; 0 if the process has ended."""
    fields = proc_stat(pid)
    return int(fields[19]) if fields else 0


def find_pids(*, environment: str, command: str = "") -> list[int]:
    """Return the processes whose environment and command line contain these texts, oldest first."""
    found = [
        int(folder.name)
        for folder in Path("/proc").glob("[0-9]*")
        if environment in _read(folder / "environ") and command in _read(folder / "cmdline")
    ]
    # Not by id: ids wrap around, so a child may have a lower one than its parent.
    return sorted(found, key=start_time_ticks)


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode(errors="replace")
    except OSError:  # it has ended, or belongs to another user
        return ""
