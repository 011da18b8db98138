"""Compares what the server shows of an organization with what was delivered for it."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from devtools.simulator.client import Client, HistoryEntry, SimulationError
from devtools.simulator.workload import Operation, format_rubles

POLL_SECONDS = 0.1


def find_differences(
    client: Client, acknowledged: set[str], deadline: float, operations: Sequence[Operation]
) -> list[str]:
    """Wait until all operations of one new organization are posted, then compare.

    The acknowledged ones must be posted exactly once; the others, whose outcome is unknown, at most once.
    """
    try:
        _wait_until_posted(client, acknowledged, deadline, operations)
        differences = list(_differences(client, acknowledged, operations))
    except SimulationError as exc:
        differences = [str(exc)]
    return [f"organization {operations[0].inn}: {difference}" for difference in differences]


def _wait_until_posted(
    client: Client, acknowledged: set[str], deadline: float, operations: Sequence[Operation]
) -> None:
    """Wait until the balance is as expected, no operation is pending any more, or the deadline has passed."""
    expected_kopecks = sum(each.amount_kopecks for each in operations if each.operation_id in acknowledged)
    for operation in operations:
        while time.monotonic() < deadline:
            balance = client.get(f"/api/organizations/{operation.inn}/balance/").balance
            if balance * 100 == expected_kopecks:
                return
            if client.get(f"/api/operations/{operation.operation_id}/").status != "received":
                break
            time.sleep(POLL_SECONDS)


def _differences(client: Client, acknowledged: set[str], operations: Sequence[Operation]) -> Iterator[str]:
    inn, kopecks = operations[0].inn, {each.operation_id: each.amount_kopecks for each in operations}
    entries = _history(client, inn)
    balance = client.get(f"/api/organizations/{inn}/balance/").balance
    times = Counter(entry.operation_id for entry in entries)
    expected = [
        operation_id for operation_id in kopecks if operation_id in acknowledged or times[operation_id]
    ]
    expected_kopecks = sum(kopecks[operation_id] for operation_id in expected)
    if balance * 100 != expected_kopecks:
        yield f"the balance is {balance}, the deliveries make {format_rubles(expected_kopecks)}"
    for operation_id in expected:
        if times[operation_id] != 1:
            status = client.get(f"/api/operations/{operation_id}/").status or "unknown to the server"
            yield f"operation {operation_id}, {status}, is in the history {times[operation_id]} times"
    for before, entry in pairwise([HistoryEntry(0, "", 0, 0), *entries]):
        yield from _differences_of_entry(before, entry, kopecks)


def _differences_of_entry(
    before: HistoryEntry, entry: HistoryEntry, kopecks: Mapping[str, int]
) -> Iterator[str]:
    if entry.seq != before.seq + 1:
        yield f"seq {before.seq} is followed by {entry.seq}"
    if entry.balance_after != before.balance_after + entry.amount:
        yield f"seq {entry.seq}: {before.balance_after} and {entry.amount} do not make {entry.balance_after}"
    if entry.operation_id not in kopecks:
        yield f"seq {entry.seq}: operation {entry.operation_id} was never delivered for this organization"
    elif entry.amount * 100 != kopecks[entry.operation_id]:
        yield f"seq {entry.seq}: {entry.amount} instead of {format_rubles(kopecks[entry.operation_id])}"


def _history(client: Client, inn: str) -> list[HistoryEntry]:
    """Return the whole history, oldest first."""
    newest_first: list[HistoryEntry] = []
    before = 2**63 - 1
    while before > 1:
        path = f"/api/organizations/{inn}/balance/history/?limit=100&before={before}"
        page = client.get(path).history
        if any(entry.seq >= before for entry in page):
            raise SimulationError(f"GET {path}: shows entries that are not before it")
        newest_first += page
        before = min((entry.seq for entry in page), default=1)
    return newest_first[::-1]
