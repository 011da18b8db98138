"""Bad requests by the thousand, over real HTTP, on the processes of production."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.acceptance.house import House
from tests.hostile.houses import GROWTH_KIB_MAX, credited_exactly, production_house, web_memory_kib
from tests.hostile.mutating import attacks
from tests.hostile.sending import SHED, Answer, Attack, Attacker, fault, result_of

SEED = 20_240_427
# On servers a sample: what is tried is the door, not the database.
WARM_UP, REQUESTS = (500, 1_000) if os.environ.get("REDIS_URL") else (2_000, 18_000)
ASKED = Attack("any", "webhook", (b"GET /api/",))


@pytest.mark.timeout(300)
def test_no_bad_request_gets_an_error_a_page_or_money(
    tmp_path: Path, servers: Callable[[ExitStack], dict[str, str]]
) -> None:
    with ExitStack() as stack:
        house: House = stack.enter_context(production_house(tmp_path, servers(stack)))
        attacker = Attacker(house.port, SEED)
        attacker.run(WARM_UP)
        before = web_memory_kib(house)
        second = Attacker(house.port, SEED + 1)
        second.outcome = attacker.outcome
        outcome = second.run(REQUESTS)
        growth = web_memory_kib(house) - before
        outcome.findings += credited_exactly(house, outcome.honest_kopecks)

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
        Answer(500, b"application/json", b"{}"),
        Answer(503, b"application/json", b'{"error": "temporarily unavailable"}'),
        Answer(503, b"application/json", b"", len(b'{"error": "temporarily unavailable"}')),
        Answer(400, b"text/html", b"x"),
        Answer(400, b"application/json", b"<html>"),
        Answer(400, b"application/json", b"Traceback (most recent call last)"),
        Answer(200, b"application/json", b'{"status": "success"}'),
    ],
)
def test_the_judge_finds_what_must_not_be(answer: Answer) -> None:
    assert fault(ASKED, answer)


def test_the_judge_lets_refusals_pass() -> None:
    refused = Answer(400, b"application/json", b'{"error": "amount: must be greater than zero"}')
    incomplete = Answer(
        503, b"application/json", b'{"error": "body: arrived incomplete, please send it again"}'
    )
    shed_head = Answer(503, b"application/json", b"", len(SHED))
    assert [fault(ASKED, one) for one in (refused, incomplete, shed_head)] == [None, None, None]
    assert [result_of([]), result_of([refused]), result_of([incomplete])] == [
        "closed",
        "400",
        "503 incomplete",
    ]
