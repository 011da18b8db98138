"""Bad requests by the thousand, over real HTTP, on the processes of production."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fuzz.attacker import SHED, Attack, Attacker, RawResponse, result_of, violation
from tests.fuzz.mutation import attacks
from tests.fuzz.resources import GROWTH_KIB_MAX, ledger_violations, production_stack, web_memory_kib
from tests.harness.launcher_stack import LauncherStack

SEED = 20_240_427
# On servers a sample: what is tried is the door, not the database.
WARM_UP, REQUESTS = (500, 1_000) if os.environ.get("REDIS_URL") else (2_000, 18_000)
ASKED = Attack("any", "webhook", (b"GET /api/",))


@pytest.mark.timeout(300)
def test_no_bad_request_gets_an_error_a_page_or_money(
    tmp_path: Path, servers: Callable[[ExitStack], dict[str, str]]
) -> None:
    with ExitStack() as resources:
        stack: LauncherStack = resources.enter_context(production_stack(tmp_path, servers(resources)))
        attacker = Attacker(stack.port, SEED)
        attacker.run(WARM_UP)
        before = web_memory_kib(stack)
        second = Attacker(stack.port, SEED + 1)
        second.outcome = attacker.outcome
        outcome = second.run(REQUESTS)
        growth = web_memory_kib(stack) - before
        outcome.findings += ledger_violations(stack, outcome.honest_kopecks)

    assert not outcome.findings, "\n".join([f"seeds {SEED}, {SEED + 1}", *outcome.findings[:20]])
    assert outcome.requests == WARM_UP + REQUESTS
    assert growth < GROWTH_KIB_MAX
    assert (
        outcome.table.total()
        > sum(n for (*_, result), n in outcome.table.items() if result == "503 shed") * 20
    )


def test_a_seed_always_makes_the_same_attacks() -> None:
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
def test_the_judge_finds_what_must_not_be(answer: RawResponse) -> None:
    assert violation(ASKED, answer)


def test_the_judge_lets_refusals_pass() -> None:
    refused = RawResponse(400, b"application/json", b'{"error": "amount: must be greater than zero"}')
    incomplete = RawResponse(
        503, b"application/json", b'{"error": "body: incomplete body, please send it again"}'
    )
    shed_head = RawResponse(503, b"application/json", b"", len(SHED))
    assert [violation(ASKED, one) for one in (refused, incomplete, shed_head)] == [None, None, None]
    assert [result_of([]), result_of([refused]), result_of([incomplete])] == [
        "closed",
        "400",
        "503 incomplete",
    ]
