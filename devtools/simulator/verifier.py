"""What the server shows of an organization, against what was delivered for it."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from devtools.simulator.client import Client, HistoryEntry, SimulationError
from devtools.simulator.workload import Operation, rubles

POLL_SECONDS = 0.1


def find_differences(
    server: Client, acknowledged: set[str], deadline: float, operations: Sequence[Operation]
) -> list[str]:
    """Wait until all operations of one new organization are posted, then compare.

    The acknowledged ones must be posted exactly once; the others, whose outcome is unknown, may be.
    """
    try:
        _wait_until_quiet(server, acknowledged, deadline, operations)
        found = list(_differences(server, acknowledged, operations))
    except SimulationError as error:
        found = [str(error)]
    return [f"organization {operations[0].inn}: {what}" for what in found]


def _wait_until_quiet(
    server: Client, acknowledged: set[str], deadline: float, operations: Sequence[Operation]
) -> None:
    """Until the balance is as expected, or no operation is under way any more, or it is too late."""
    expected_kopecks = sum(one.amount_kopecks for one in operations if one.operation_id in acknowledged)
    for operation in operations:
        while time.monotonic() < deadline:
            balance = server.ask(f"/api/organizations/{operation.inn}/balance/").balance
            if balance * 100 == expected_kopecks:
                return
            if server.ask(f"/api/operations/{operation.operation_id}/").status != "received":
                break
            time.sleep(POLL_SECONDS)


def _differences(server: Client, acknowledged: set[str], operations: Sequence[Operation]) -> Iterator[str]:
    inn, kopecks = operations[0].inn, {one.operation_id: one.amount_kopecks for one in operations}
    lines = _history(server, inn)
    balance = server.ask(f"/api/organizations/{inn}/balance/").balance
    times = Counter(line.operation_id for line in lines)
    due = [operation_id for operation_id in kopecks if operation_id in acknowledged or times[operation_id]]
    expected_kopecks = sum(kopecks[operation_id] for operation_id in due)
    if balance * 100 != expected_kopecks:
        yield f"the balance is {balance}, the deliveries make {rubles(expected_kopecks)}"
    for operation_id in due:
        if times[operation_id] != 1:
            status = server.ask(f"/api/operations/{operation_id}/").status or "unknown to the server"
            yield f"operation {operation_id}, {status}, is in the history {times[operation_id]} times"
    for before, line in pairwise([HistoryEntry(0, "", 0, 0), *lines]):
        yield from _wrong_in_line(before, line, kopecks)


def _wrong_in_line(before: HistoryEntry, line: HistoryEntry, kopecks: Mapping[str, int]) -> Iterator[str]:
    if line.seq != before.seq + 1:
        yield f"seq {before.seq} is followed by {line.seq}"
    if line.balance_after != before.balance_after + line.amount:
        yield f"seq {line.seq}: {before.balance_after} and {line.amount} do not make {line.balance_after}"
    if line.operation_id not in kopecks:
        yield f"seq {line.seq}: operation {line.operation_id} was never delivered for this organization"
    elif line.amount * 100 != kopecks[line.operation_id]:
        yield f"seq {line.seq}: {line.amount} instead of {rubles(kopecks[line.operation_id])}"


def _history(server: Client, inn: str) -> list[HistoryEntry]:
    """All of it, oldest first."""
    newest_first: list[HistoryEntry] = []
    before = 2**63 - 1
    while before > 1:
        path = f"/api/organizations/{inn}/balance/history/?limit=100&before={before}"
        lines = server.ask(path).history
        if any(line.seq >= before for line in lines):
            raise SimulationError(f"GET {path}: shows lines that are not before it")
        newest_first += lines
        before = min((line.seq for line in lines), default=1)
    return newest_first[::-1]
