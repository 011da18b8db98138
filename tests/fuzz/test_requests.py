"""Thousands of malformed requests over real HTTP, against production processes."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fuzz.attacker import TOO_BUSY, Attack, Attacker, RawResponse, result_of, violation
from tests.fuzz.mutation import attacks
from tests.fuzz.stack import GROWTH_KIB_MAX, ledger_violations, production_stack, web_memory_kib
from tests.harness.launcher_stack import LauncherStack
from tests.markers import every_database

SEED = 20_240_427
SAMPLE, CORPUS = (200, 400), (2_000, 18_000)  # requests before the memory is measured, and after
ASKED = Attack("any", "webhook", (b"GET /api/",))


@every_database
@pytest.mark.timeout(300)
@pytest.mark.parametrize("sizes", [SAMPLE, pytest.param(CORPUS, marks=pytest.mark.long)], ids=str)
def test_malformed_requests_get_no_5xx_no_html_and_no_credit(
    sizes: tuple[int, int], tmp_path: Path, servers: Callable[[ExitStack], dict[str, str]]
) -> None:
    warm_up, requests = sizes
    with ExitStack() as resources:
        stack: LauncherStack = resources.enter_context(production_stack(tmp_path, servers(resources)))
        attacker = Attacker(stack.port, SEED)
        attacker.run(warm_up)
        before = web_memory_kib(stack)
        second = Attacker(stack.port, SEED + 1)
        second.results = attacker.results
        results = second.run(requests)
        growth = web_memory_kib(stack) - before
        results.findings += ledger_violations(stack, results.valid_kopecks)

    assert not results.findings, "\n".join([f"seeds {SEED}, {SEED + 1}", *results.findings[:20]])
    assert results.requests == sum(sizes)
    assert growth < GROWTH_KIB_MAX
    assert (
        results.table.total()
        > sum(n for (*_, result), n in results.table.items() if result == "503 busy") * 20
    )


def test_same_seed_generates_the_same_attacks() -> None:
    assert list(attacks(7, 500)) == list(attacks(7, 500)) != list(attacks(8, 500))


@pytest.mark.parametrize(
    "answer",
    [
        RawResponse(500, b"application/json", b"{}"),
        RawResponse(503, b"application/json", b'{"error": "temporarily unavailable"}'),
        RawResponse(503, b"application/json", b"", len(b'{"error": "temporarily unavailable"}')),
        RawResponse(400, b"text/html", b"x"),
        RawResponse(400, b"application/json", b"<html>"),
        RawResponse(400, b"application/json", b"Traceback (most recent call last)"),
        RawResponse(200, b"application/json", b'{"status": "success"}'),
    ],
)
def test_forbidden_response_is_a_violation(answer: RawResponse) -> None:
    assert violation(ASKED, answer)


def test_refusal_is_no_violation() -> None:
    refused = RawResponse(400, b"application/json", b'{"error": "amount: must be greater than zero"}')
    incomplete = RawResponse(
        503, b"application/json", b'{"error": "body: arrived incomplete, please send it again"}'
    )
    busy_head = RawResponse(503, b"application/json", b"", len(TOO_BUSY))
    assert [violation(ASKED, one) for one in (refused, incomplete, busy_head)] == [None, None, None]
    assert [result_of([]), result_of([refused]), result_of([incomplete])] == [
        "closed",
        "400",
        "503 incomplete",
    ]
